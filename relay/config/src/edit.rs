//! Changes of a configuration file by a command: comments, order and everything else stay as they were written.

use serde_json::Value as Json;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use crate::error;

/// Why a file cannot be changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// It is no TOML.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// It has none of that name.
    #[error("there is no {kind} {name:?}; there are: {known}")]
    Unknown {
        /// Of what kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// All names that there are, or `none`.
        known: String,
    },
    /// A list in brackets, which is for a person to change.
    #[error("`{0} = [...]` is for a person to change: write it as [[{0}]], and a command can")]
    Inline(&'static str),
    /// Settings that TOML cannot hold.
    #[error("settings{at}: {message}")]
    Settings {
        /// A JSON pointer.
        at: String,
        /// Why.
        message: &'static str,
    },
}

/// A configuration file under change. Whether the whole of it is valid, [`Config::parse`](crate::Config::parse) says.
#[derive(Clone, Debug)]
pub struct Draft(DocumentMut);

/// What a `[[plugin]]` says, apart from its name: as it is written in a file.
#[derive(Clone, Debug)]
pub struct PluginEntry(Table);

/// What is to be written of a plugin; `None`: what is there stays.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PluginChange {
    /// Its file.
    pub file: Option<String>,
    /// Its digest.
    pub digest: Option<String>,
    /// The names of its grants.
    pub grants: Option<Vec<String>>,
    /// Its settings, a JSON object.
    pub settings: Option<Json>,
}

impl Draft {
    /// Of the text of a file.
    ///
    /// # Errors
    /// [`EditError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, EditError> {
        text.parse().map(Draft).map_err(|wrong: toml_edit::TomlError| {
            let (line, column) = error::place(text, wrong.span().map_or(0, |span| span.start));
            EditError::Syntax { line, column, message: wrong.message().to_owned() }
        })
    }

    /// The text as it is now.
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// What it says of a plugin.
    pub fn plugin(&self, name: &str) -> Option<PluginEntry> {
        let tables = self.0.get("plugin")?.as_array_of_tables()?;
        tables.iter().find(|table| is_named(table, "name", name)).map(|table| PluginEntry(table.clone()))
    }

    /// Changes a plugin, or adds it behind the others.
    ///
    /// # Errors
    /// [`EditError::Inline`], [`EditError::Settings`].
    pub fn put_plugin(&mut self, name: &str, change: &PluginChange) -> Result<(), EditError> {
        let tables = tables(self.0.as_table_mut(), "plugin", "plugin")?;
        if tables.iter().all(|table| !is_named(table, "name", name)) {
            let mut table = Table::new();
            table.insert("name", name.into());
            tables.push(table);
        }
        change.write(named(tables, "name", "plugin", name)?)
    }

    /// Has a plugin's entry say what another said, and nothing else.
    ///
    /// # Errors
    /// [`EditError::Inline`], [`EditError::Unknown`].
    pub fn restore_plugin(&mut self, name: &str, former: &PluginEntry) -> Result<(), EditError> {
        let table = named(tables(self.0.as_table_mut(), "plugin", "plugin")?, "name", "plugin", name)?;
        let obsolete: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).collect();
        for key in obsolete.iter().filter(|key| *key != "name" && !former.0.contains_key(key)) {
            table.remove(key);
        }
        for (key, item) in former.0.iter().filter(|(key, _)| *key != "name") {
            put(table, key, unplaced(item.clone()));
        }
        Ok(())
    }

    /// Has a plugin decide for a tenant, behind those that do already. Whether anything is another thing now.
    ///
    /// # Errors
    /// [`EditError::Inline`], [`EditError::Unknown`].
    pub fn bind(&mut self, tenant: &str, plugin: &str, dry_run: bool) -> Result<bool, EditError> {
        named(tables(self.0.as_table_mut(), "plugin", "plugin")?, "name", "plugin", plugin)?;
        let before = self.text();
        let tenant = named(tables(self.0.as_table_mut(), "tenant", "tenant")?, "name", "tenant", tenant)?;
        let policies = tables(tenant, "policy", "tenant.policy")?;
        if policies.iter().all(|policy| !is_named(policy, "plugin", plugin)) {
            let mut policy = Table::new();
            policy.insert("plugin", plugin.into());
            policies.push(policy);
        }
        let policy = policies.iter_mut().find(|policy| is_named(policy, "plugin", plugin));
        policy.into_iter().for_each(|policy| match dry_run {
            true => put(policy, "mode", "dry-run".into()),
            // What is captured of a dry run ends with it.
            false => ["mode", "capture"].iter().for_each(|key| drop(policy.remove(key))),
        });
        Ok(self.text() != before)
    }

    /// Has a plugin decide for a tenant by settings of its own, a JSON object.
    ///
    /// # Errors
    /// [`EditError::Inline`], [`EditError::Unknown`], [`EditError::Settings`].
    pub fn set_for(&mut self, tenant: &str, plugin: &str, settings: &Json) -> Result<(), EditError> {
        let tenant = named(tables(self.0.as_table_mut(), "tenant", "tenant")?, "name", "tenant", tenant)?;
        let policy = named(tables(tenant, "policy", "tenant.policy")?, "plugin", "plugin of this tenant", plugin)?;
        put(policy, "settings", settings_of(settings)?);
        Ok(())
    }

    /// Has a plugin no longer decide for a tenant. Whether it did.
    ///
    /// # Errors
    /// [`EditError::Inline`], [`EditError::Unknown`].
    pub fn unbind(&mut self, tenant: &str, plugin: &str) -> Result<bool, EditError> {
        let tenant = named(tables(self.0.as_table_mut(), "tenant", "tenant")?, "name", "tenant", tenant)?;
        let policies = tables(tenant, "policy", "tenant.policy")?;
        let before = policies.len();
        policies.retain(|policy| !is_named(policy, "plugin", plugin));
        let (after, is_empty) = (policies.len(), policies.is_empty());
        if is_empty {
            tenant.remove("policy");
        }
        Ok(after != before)
    }
}

impl PluginEntry {
    /// Several of one plugin as the text of a file, to be read by [`PluginEntry::list`].
    pub fn file(name: &str, entries: &[PluginEntry]) -> String {
        let mut all = ArrayOfTables::new();
        for entry in entries {
            let mut table = entry.0.clone();
            place(&mut table, None);
            *table.decor_mut() = Default::default();
            put(&mut table, "name", name.into());
            all.push(table);
        }
        let mut document = DocumentMut::new();
        document.insert("plugin", Item::ArrayOfTables(all));
        document.to_string()
    }

    /// The entries of such a file.
    ///
    /// # Errors
    /// [`EditError::Syntax`].
    pub fn list(text: &str) -> Result<Vec<PluginEntry>, EditError> {
        let draft = Draft::parse(text)?;
        let tables = draft.0.get("plugin").and_then(Item::as_array_of_tables);
        Ok(tables.into_iter().flatten().cloned().map(PluginEntry).collect())
    }

    /// Its file, as it is written.
    pub fn component(&self) -> Option<&str> {
        self.0.get("file")?.as_str()
    }

    /// Its digest, if it is pinned.
    pub fn digest(&self) -> Option<&str> {
        self.0.get("digest")?.as_str()
    }

    /// The same, pinned, with its file by another path.
    pub fn pinned(mut self, file: &str, digest: &str) -> Self {
        put(&mut self.0, "file", file.into());
        put(&mut self.0, "digest", digest.into());
        self
    }
}

impl PluginChange {
    fn write(&self, table: &mut Table) -> Result<(), EditError> {
        for (key, text) in [("file", &self.file), ("digest", &self.digest)] {
            if let Some(text) = text {
                put(table, key, text.into());
            }
        }
        if let Some(grants) = &self.grants {
            put(table, "grants", Item::Value(Value::Array(grants.iter().collect::<Array>())));
        }
        if let Some(settings) = &self.settings {
            put(table, "settings", settings_of(settings)?);
        }
        Ok(())
    }
}

/// The tables of an array, which is made if there is none.
fn tables<'t>(parent: &'t mut Table, key: &str, path: &'static str) -> Result<&'t mut ArrayOfTables, EditError> {
    let item = parent.entry(key).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().ok_or(EditError::Inline(path))
}

/// The table of which a key says a name.
fn named<'t>(
    tables: &'t mut ArrayOfTables,
    key: &str,
    kind: &'static str,
    name: &str,
) -> Result<&'t mut Table, EditError> {
    let names: Vec<String> = tables.iter().filter_map(|table| Some(table.get(key)?.as_str()?.to_owned())).collect();
    let unknown = || EditError::Unknown {
        kind,
        name: name.to_owned(),
        known: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
    };
    tables.iter_mut().find(|table| is_named(table, key, name)).ok_or_else(unknown)
}

fn is_named(table: &Table, key: &str, name: &str) -> bool {
    table.get(key).and_then(Item::as_str) == Some(name)
}

/// Puts a value in the place of another, with the comments that stand around it.
fn put(table: &mut Table, key: &str, new: Item) {
    match (table.get_mut(key), new) {
        (Some(Item::Value(before)), Item::Value(mut value)) => {
            *value.decor_mut() = before.decor().clone();
            *before = value;
        }
        (Some(Item::Value(before)), Item::Table(value)) => {
            let mut value = Value::InlineTable(value.into_inline_table());
            *value.decor_mut() = before.decor().clone();
            *before = value;
        }
        (Some(Item::Table(before)), Item::Table(mut value)) => {
            *value.decor_mut() = before.decor().clone();
            value.set_position(before.position());
            *before = value;
        }
        (_, new) => drop(table.insert(key, new)),
    }
}

/// Not of a place in a file any more.
fn unplaced(mut item: Item) -> Item {
    if let Item::Table(table) = &mut item {
        place(table, None);
    }
    item
}

fn place(table: &mut Table, position: Option<isize>) {
    table.set_position(position);
    for (_, item) in table.iter_mut() {
        if let Item::Table(table) = item {
            place(table, position);
        }
    }
}

/// Settings as a table below their plugin: a line for each key, and what is nested in braces.
fn settings_of(settings: &Json) -> Result<Item, EditError> {
    let Json::Object(object) = settings else {
        return Err(EditError::Settings { at: String::new(), message: "they have to be an object" });
    };
    let mut table = Table::new();
    for (key, value) in object {
        table.insert(key, Item::Value(value_of(value, &format!("/{key}"))?));
    }
    Ok(Item::Table(table))
}

fn value_of(json: &Json, at: &str) -> Result<Value, EditError> {
    let refused = |message| EditError::Settings { at: at.to_owned(), message };
    Ok(match json {
        Json::Null => return Err(refused("TOML has no null: leave the key out")),
        Json::Bool(yes) => (*yes).into(),
        Json::String(text) => text.as_str().into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64().filter(|_| number.is_f64())) {
            (Some(integer), _) => integer.into(),
            (_, Some(float)) => float.into(),
            _ => return Err(refused("TOML has no whole numbers from 9223372036854775808 on")),
        },
        Json::Array(items) => {
            let items = items.iter().enumerate().map(|(i, item)| value_of(item, &format!("{at}/{i}")));
            Value::Array(items.collect::<Result<Array, _>>()?)
        }
        Json::Object(object) => {
            let mut table = InlineTable::new();
            for (key, value) in object {
                table.insert(key, value_of(value, &format!("{at}/{key}"))?);
            }
            Value::InlineTable(table)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# Of the relay.
[[listen]]
address = "127.0.0.1:3478" # for all
realm = "example.org"

# The fence.
[[plugin]]
name = "fence"
file = "geofence.wasm" # by hand
settings = { clients = "any" }

[[tenant]]
name = "main"
secrets = [{ value = "not for anybody" }]
[[tenant.user]]
name = "alice"
password = "secret too"

# Another one.
[[tenant]]
name = "other"
secrets = [{ file = "other" }]
# Why this decides.
[[tenant.policy]]
plugin = "fence"
mode = "dry-run" # for now

[geo]
database = ""
"#;

    fn draft() -> Draft {
        Draft::parse(FILE).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_to_the_letter() {
        assert_eq!(draft().text(), FILE);
        let mut changed = draft();
        assert!(changed.bind("main", "fence", true).unwrap());
        let text = changed.text();
        let added = "\n[[tenant.policy]]\nplugin = \"fence\"\nmode = \"dry-run\"\n";
        assert_eq!(text.replacen(added, "", 1), FILE, "{text}");
        assert!(text.contains(&format!("password = \"secret too\"\n{added}\n# Another one.")), "{text}");
        assert!(changed.unbind("main", "fence").unwrap());
        assert_eq!(changed.text(), FILE);
        assert!(!changed.unbind("main", "fence").unwrap());
    }

    #[test]
    fn a_dry_run_becomes_earnest_and_ends_with_its_comment() {
        let mut draft = draft();
        assert!(draft.bind("other", "fence", false).unwrap());
        assert_eq!(draft.text(), FILE.replace("mode = \"dry-run\" # for now\n", ""));
        assert!(!draft.bind("other", "fence", false).unwrap());
        assert!(draft.unbind("other", "fence").unwrap());
        let without = "# Why this decides.\n[[tenant.policy]]\nplugin = \"fence\"\nmode = \"dry-run\" # for now\n";
        assert_eq!(draft.text(), FILE.replace(without, ""));
    }

    #[test]
    fn what_is_captured_ends_with_the_dry_run() {
        let dry_run = "mode = \"dry-run\" # for now\n";
        let captured = FILE.replace(dry_run, &format!("{dry_run}capture = \"monday\"\n"));
        let mut draft = Draft::parse(&captured).unwrap();
        assert!(!draft.bind("other", "fence", true).unwrap(), "it is one already");
        assert!(draft.bind("other", "fence", false).unwrap());
        assert_eq!(draft.text(), FILE.replace(dry_run, ""));
    }

    #[test]
    fn another_component_is_written_in_the_place_of_the_former_and_put_back() {
        let mut draft = draft();
        let former = draft.plugin("fence").unwrap().pinned("geofence.wasm", "sha256:00");
        let change = PluginChange {
            file: Some("plugins/fence/new.wasm".to_owned()),
            digest: Some("sha256:11".to_owned()),
            grants: Some(vec!["kv".to_owned()]),
            settings: Some(serde_json::json!({"clients": {"only": ["DE"]}, "age": 3, "share": 0.5, "on": true})),
        };
        draft.put_plugin("fence", &change).unwrap();
        let text = draft.text();
        assert!(text.contains("file = \"plugins/fence/new.wasm\" # by hand\n"), "{text}");
        assert!(text.contains("digest = \"sha256:11\"\ngrants = [\"kv\"]\n"), "{text}");
        let settings = "settings = { age = 3, clients = { only = [\"DE\"] }, on = true, share = 0.5 }\n";
        assert!(text.contains(settings), "{text}");
        let kept = PluginEntry::list(&PluginEntry::file("fence", &[former])).unwrap();
        draft.restore_plugin("fence", &kept[0]).unwrap();
        assert_eq!(draft.plugin("fence").unwrap().component(), Some("geofence.wasm"));
        assert_eq!(draft.plugin("fence").unwrap().digest(), Some("sha256:00"));
        let text = draft.text();
        assert!(text.contains("settings = { clients = \"any\" }\n") && !text.contains("kv"), "{text}");
    }

    #[test]
    fn a_tenant_has_settings_of_its_own_beside_those_of_all() {
        let mut draft = draft();
        let settings = serde_json::json!({"clients": {"only": ["DE"]}});
        draft.set_for("other", "fence", &settings).unwrap();
        let added = "\n[tenant.policy.settings]\nclients = { only = [\"DE\"] }\n";
        assert_eq!(draft.text().replacen(added, "", 1), FILE, "{}", draft.text());
        assert!(draft.text().contains(&format!("mode = \"dry-run\" # for now\n{added}")));
        let error = draft.set_for("main", "fence", &settings).unwrap_err().to_string();
        assert_eq!(error, "there is no plugin of this tenant \"fence\"; there are: none");
        draft.unbind("other", "fence").unwrap();
        assert!(!draft.text().contains("DE"));
    }

    #[test]
    fn a_new_plugin_comes_behind_the_others() {
        let mut draft = draft();
        let settings = Some(serde_json::json!({"from": 8, "days": ["mon"]}));
        let change = PluginChange { file: Some("x.wasm".to_owned()), settings, ..PluginChange::default() };
        draft.put_plugin("hours", &change).unwrap();
        let text = draft.text();
        let added = "\n[[plugin]]\nname = \"hours\"\nfile = \"x.wasm\"\n\n\
                     [plugin.settings]\ndays = [\"mon\"]\nfrom = 8\n";
        assert_eq!(text.replacen(added, "", 1), FILE, "{text}");
        let mut empty = Draft::parse("").unwrap();
        empty.put_plugin("hours", &change).unwrap();
        assert_eq!(empty.text(), added.trim_start());
    }

    #[test]
    fn what_cannot_be_changed_is_told_without_what_is_in_the_file() {
        let said = |done: Result<bool, EditError>| done.unwrap_err().to_string();
        assert_eq!(said(draft().bind("man", "fence", false)), "there is no tenant \"man\"; there are: main, other");
        assert_eq!(said(draft().bind("main", "fenc", false)), "there is no plugin \"fenc\"; there are: fence");
        let inline = "plugin = [{ name = \"fence\", file = \"x\" }]";
        assert_eq!(
            said(Draft::parse(inline).unwrap().bind("main", "fence", false)),
            EditError::Inline("plugin").to_string()
        );
        let wrong = Draft::parse("a = 1\nsecrets = [{ value = \"hush }]\n").unwrap_err().to_string();
        assert!(wrong.starts_with("line 2, column ") && !wrong.contains("hush"), "{wrong}");
        let null = PluginChange { settings: Some(serde_json::json!({"a": [1, null]})), ..PluginChange::default() };
        let null = draft().put_plugin("fence", &null).unwrap_err().to_string();
        assert_eq!(null, "settings/a/1: TOML has no null: leave the key out");
    }
}
