//! What a JSON line of the log may hold: a field that is not in the table is left out.

use serde_json::Value;

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// In place of something personal.
    Pseudonym,
}

impl Kind {
    #[cfg(test)]
    fn text(self) -> &'static str {
        match self {
            Kind::Text => "string",
            Kind::Number => "number",
            Kind::Pseudonym => "pseudonym",
        }
    }

    fn admits(self, value: &Value) -> bool {
        match self {
            Kind::Text | Kind::Pseudonym => value.is_string(),
            Kind::Number => value.is_number(),
        }
    }
}

/// Every field: its name, what it holds, what it means.
const FIELDS: &[(&str, Kind, &str)] = &[
    ("allocations", Kind::Number, "allocations alive"),
    ("client", Kind::Pseudonym, "a client's address, whatever the port"),
    ("deadline_seconds", Kind::Number, "how long a drain may last"),
    ("driver", Kind::Text, "the packet driver: `io_uring` or `epoll`"),
    ("hook", Kind::Text, "what a policy was asked"),
    ("location", Kind::Text, "where a thread panicked: file and line of the source"),
    ("plugin", Kind::Text, "a policy plugin, by the operator's name for it"),
    ("reason", Kind::Text, "why a policy says no, or how it failed"),
    ("said", Kind::Text, "a plugin's own words, without addresses"),
    ("seconds_left", Kind::Number, "how long a drain may still last"),
    ("signal", Kind::Text, "the signal that the process was sent"),
    ("tenant", Kind::Text, "a tenant, by its name in the configuration"),
    ("thread", Kind::Text, "the name of the thread that panicked"),
    ("uid", Kind::Number, "the user who has asked over the control socket, where the kernel tells"),
    ("untold", Kind::Number, "denials of a policy in the last second that have no line of their own"),
    ("workers", Kind::Number, "how many workers there are"),
];

/// The field of that name, if the table has it and it holds such a value.
pub(super) fn admits(name: &str, value: &Value) -> Option<&'static str> {
    let (name, kind, _) = FIELDS.iter().find(|(known, ..)| *known == name)?;
    kind.admits(value).then_some(*name)
}

/// Whether a line is as docs/logs.md says.
#[cfg(test)]
pub(super) fn check(line: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
    let object = value.as_object().ok_or("no object")?;
    for (name, value) in object {
        let well = match name.as_str() {
            "time" => value.as_str().is_some_and(|time| time.len() == 27 && time.ends_with('Z')),
            "level" => value.as_str().is_some_and(|level| ["error", "warn", "info", "debug", "trace"].contains(&level)),
            "target" => value.as_str().is_some_and(super::is_ours),
            "message" => value.is_string(),
            "fields" => value.as_object().is_some_and(|all| all.iter().all(|(k, v)| admits(k, v).is_some())),
            "left_out" => value.as_u64().is_some_and(|n| n > 0),
            _ => false,
        };
        if !well {
            return Err(format!("`{name}` is not as it should be: {line}"));
        }
    }
    let missing = ["time", "level", "target", "message", "fields"].iter().find(|name| !object.contains_key(**name));
    missing.map_or(Ok(()), |name| Err(format!("no `{name}`: {line}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::fs;
    use std::path::Path;

    use super::*;

    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/logs.md");

    const INTRODUCTION: &str = "# The log

The relay logs to standard error. `[log] level` says from which level on, `[log] format` in which form.

- `text`, for a terminal: lines for people. What is personal is printed as `<personal>`.
- `json`, for journald and whoever collects logs: a JSON object a line, as below. What is personal is printed as a
  pseudonym: a keyed hash that means nothing outside, and is the same for the same address while its key lives. With
  privacy.records that is the relay's key of the day, which dies with the addresses of that day; else one that dies with
  the process.

Neither shows an event of a dependency, whatever the level. A panic tells its file and line and nothing else, on every
thread. Messages are for people and may change; no message and no field carries an address, a name or a secret.

This file is written from the table in `relay/sluice/src/logging/schema.rs`, and a test compares them
(`SLUICE_UPDATE_DOCS=1 cargo test -p sluice` writes it anew).

## A line

| Key | Type | Meaning |
|---|---|---|
| `time` | string | when: RFC 3339 in UTC, to the microsecond |
| `level` | string | `error` stops the relay, `warn` would wake somebody, `info` is a change; `debug`, `trace` |
| `target` | string | the part of the relay: begins with `sluice` |
| `message` | string | what has happened, for people |
| `fields` | object | particulars; of those below, and no others |
| `left_out` | number | only where it is not 0: particulars that the table below does not have and that are not shown |

Fields are added; none changes its meaning or goes.

## Fields

| Field | Type | Meaning |
|---|---|---|
";

    const READING: &str = "
## Reading it

    journalctl -u sluice -o cat | jq 'select(.level == \"warn\" or .level == \"error\")'

The pseudonym of `client` is the one that `sluice allocations` shows for the same address.
";

    fn document() -> String {
        let mut text = INTRODUCTION.to_owned();
        for (name, kind, meaning) in FIELDS {
            let _ = writeln!(text, "| `{name}` | {} | {meaning} |", kind.text());
        }
        text + READING
    }

    #[test]
    fn the_document_is_the_table() {
        if std::env::var_os("SLUICE_UPDATE_DOCS").is_some() {
            fs::write(DOCUMENT, document()).unwrap();
        }
        let written = fs::read_to_string(DOCUMENT).unwrap();
        assert!(written == document(), "write docs/logs.md anew: SLUICE_UPDATE_DOCS=1 cargo test -p sluice");
    }

    #[test]
    fn the_fields_are_in_order() {
        assert!(FIELDS.is_sorted_by_key(|(name, ..)| name));
    }

    #[test]
    fn every_field_that_is_logged_is_in_the_table() {
        let mut used = BTreeSet::new();
        let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
                for event in product.split("tracing::").skip(1) {
                    used.extend(fields_of(event));
                }
            }
        }
        assert!(used.contains("driver") && used.contains("uid"), "{used:?}");
        let unlisted: Vec<_> = used.iter().filter(|name| FIELDS.iter().all(|(known, ..)| known != name)).collect();
        assert!(unlisted.is_empty(), "give these a row in the table of fields: {unlisted:?}");
    }

    /// The names before an event's message: `name = value`, `name = ?value`, `name`.
    fn fields_of(event: &str) -> Vec<String> {
        let levels = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
        let Some(start) = levels.iter().find_map(|level| event.strip_prefix(level)) else {
            return Vec::new();
        };
        let (mut depth, mut quoted, mut name, mut names, mut value) = (0, false, String::new(), Vec::new(), false);
        for c in start.chars() {
            match c {
                // The message is the last of what matters.
                '"' if depth == 0 && !value => return names,
                '"' => quoted = !quoted,
                _ if quoted => {}
                ')' if depth == 0 => return names,
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                '=' if depth == 0 => value = true,
                ',' if depth == 0 => {
                    names.push(std::mem::take(&mut name).trim().trim_start_matches(['?', '%']).to_owned());
                    value = false;
                }
                c if !value && depth == 0 => name.push(c),
                _ => {}
            }
        }
        names
    }

    #[test]
    fn the_names_of_an_event_are_found() {
        let event = "info!(a, b = f(x, \"y\"), ?c, d = %z, \"text {e}\", g);";
        assert_eq!(fields_of(event), ["a", "b", "c", "d"]);
        assert!(fields_of("subscriber::set()").is_empty());
    }
}
