//! A walk over parsed TOML that knows where everything stands and collects mistakes.

use std::ops::{Range, RangeInclusive};

use sluice_base::limits;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Problem, listed, nearest, place, shown};
use crate::parse::SECTIONS;

/// Collects the mistakes of one text: the first [`CONFIG_PROBLEMS_MAX`](limits::CONFIG_PROBLEMS_MAX) that
/// it meets, and how many there are beyond them.
pub(crate) struct Walk<'t> {
    text: &'t str,
    problems: Vec<(usize, Problem)>,
    more: usize,
}

/// A table with its place.
#[derive(Clone)]
pub(crate) struct Section<'t> {
    /// Its key path; empty for the whole file.
    pub(crate) path: String,
    /// Its place in the text.
    pub(crate) span: Range<usize>,
    table: &'t DeTable<'t>,
}

/// A value with its place.
#[derive(Clone)]
pub(crate) struct Item<T> {
    /// Its key path.
    pub(crate) path: String,
    /// Its place in the text.
    pub(crate) span: Range<usize>,
    /// The value.
    pub(crate) value: T,
}

impl<T> Item<T> {
    /// The same place with another value.
    pub(crate) fn with<U>(&self, value: U) -> Item<U> {
        Item { path: self.path.clone(), span: self.span.clone(), value }
    }
}

impl<'t> Walk<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Walk { text, problems: Vec::new(), more: 0 }
    }

    /// What was collected, in the order of the text, and how many more there are.
    pub(crate) fn into_problems(mut self) -> (Vec<Problem>, usize) {
        self.problems.sort_by_key(|(offset, _)| *offset);
        (self.problems.into_iter().map(|(_, problem)| problem).collect(), self.more)
    }

    /// Reports a mistake at a place.
    pub(crate) fn problem(&mut self, span: &Range<usize>, key: &str, message: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let place = Some(place(self.text, span.start));
        self.problems.push((span.start, Problem { place, key: key.to_owned(), message: message.into() }));
    }

    /// Reports a mistake of a value.
    pub(crate) fn wrong<T>(&mut self, item: &Item<T>, message: impl Into<String>) {
        self.problem(&item.span, &item.path, message);
    }

    /// Reports what the file lacks as a whole.
    pub(crate) fn missing(&mut self, key: &str, message: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let problem = Problem { place: None, key: key.to_owned(), message: message.into() };
        self.problems.push((usize::MAX, problem));
    }

    /// Whether another mistake is only counted; counts it.
    fn is_full(&mut self) -> bool {
        let full = self.problems.len() >= limits::CONFIG_PROBLEMS_MAX;
        self.more += usize::from(full);
        full
    }

    /// The whole file as a section.
    pub(crate) fn root(&mut self, table: &'t Spanned<DeTable<'t>>, keys: &[&str]) -> Section<'t> {
        let section = Section { path: String::new(), span: table.span(), table: table.get_ref() };
        self.known_keys(&section, keys);
        section
    }

    /// A table, all of whose keys are in `keys`.
    pub(crate) fn section(&mut self, item: &Item<&'t DeValue<'t>>, keys: &[&str]) -> Option<Section<'t>> {
        let DeValue::Table(table) = item.value else {
            self.wrong(item, format!("expected a table, found {}", kind(item.value)));
            return None;
        };
        let section = Section { path: item.path.clone(), span: item.span.clone(), table };
        self.known_keys(&section, keys);
        Some(section)
    }

    /// The table at `key`, if there is one.
    pub(crate) fn child(&mut self, section: &Section<'t>, key: &str, keys: &[&str]) -> Option<Section<'t>> {
        let item = section.item(key)?;
        self.section(&item, keys)
    }

    /// The tables of `[[key]]`.
    pub(crate) fn children(&mut self, section: &Section<'t>, key: &str, keys: &[&str]) -> Vec<Section<'t>> {
        if let Some(item) = section.item(key)
            && item.value.is_table()
        {
            self.wrong(&item, format!("there may be several: write `[[{0}]]` instead of `[{0}]`", plain(&item.path)));
            return Vec::new();
        }
        let items = self.array(section, key);
        items.iter().filter_map(|item| self.section(item, keys)).collect()
    }

    /// The values of an array; none when there is no such key.
    pub(crate) fn array(&mut self, section: &Section<'t>, key: &str) -> Vec<Item<&'t DeValue<'t>>> {
        let Some(item) = section.item(key) else {
            return Vec::new();
        };
        let DeValue::Array(values) = item.value else {
            self.wrong(&item, format!("expected an array, found {}", kind(item.value)));
            return Vec::new();
        };
        let element = |(i, value): (usize, &'t Spanned<DeValue<'t>>)| Item {
            path: format!("{}[{i}]", item.path),
            span: value.span(),
            value: value.get_ref(),
        };
        values.iter().enumerate().map(element).collect()
    }

    /// The strings of an array.
    pub(crate) fn strings(&mut self, section: &Section<'t>, key: &str) -> Vec<Item<&'t str>> {
        let items = self.array(section, key);
        items.iter().filter_map(|item| self.as_string(item)).collect()
    }

    /// A string, if there is one.
    pub(crate) fn string(&mut self, section: &Section<'t>, key: &str) -> Option<Item<&'t str>> {
        let item = section.item(key)?;
        self.as_string(&item)
    }

    /// A string that has to be there.
    pub(crate) fn required(&mut self, section: &Section<'t>, key: &str, example: &str) -> Option<Item<&'t str>> {
        if section.item(key).is_none() {
            let path = section.path_of(key);
            self.problem(&section.span, &path, format!("is missing; write for example {key} = \"{example}\""));
        }
        self.string(section, key)
    }

    /// A whole number within `allowed`.
    pub(crate) fn number(&mut self, section: &Section<'t>, key: &str, allowed: RangeInclusive<u64>) -> Option<u64> {
        Some(self.number_item(section, key, allowed)?.value)
    }

    /// A whole number within `allowed`, with its place.
    pub(crate) fn number_item(
        &mut self,
        section: &Section<'t>,
        key: &str,
        allowed: RangeInclusive<u64>,
    ) -> Option<Item<u64>> {
        let item = section.item(key)?;
        let (low, high) = (allowed.start(), allowed.end());
        let DeValue::Integer(integer) = item.value else {
            self.wrong(&item, format!("expected a whole number from {low} to {high}, found {}", kind(item.value)));
            return None;
        };
        let value = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.and_then(|v| u64::try_from(v).ok()).filter(|v| allowed.contains(v));
        if value.is_none() {
            self.wrong(&item, format!("{} is out of range: {low} to {high} is allowed", shown(integer.as_str())));
        }
        value.map(|value| item.with(value))
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, section: &Section<'t>, key: &str) -> Option<bool> {
        let item = section.item(key)?;
        let value = item.value.as_bool();
        if value.is_none() {
            self.wrong(&item, format!("expected true or false, found {}", kind(item.value)));
        }
        value
    }

    /// The value as a string.
    pub(crate) fn as_string(&mut self, item: &Item<&'t DeValue<'t>>) -> Option<Item<&'t str>> {
        let DeValue::String(value) = item.value else {
            self.wrong(item, format!("expected a string, found {}", kind(item.value)));
            return None;
        };
        Some(item.with(value.as_ref()))
    }

    /// One of several named values.
    pub(crate) fn choice<T: Copy>(&mut self, item: &Item<&str>, named: &[(&str, T)]) -> Option<T> {
        if let Some((_, value)) = named.iter().find(|(name, _)| *name == item.value) {
            return Some(*value);
        }
        let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        self.wrong(item, unknown("value", item.value, &names));
        None
    }

    fn known_keys(&mut self, section: &Section<'t>, keys: &[&str]) {
        for (key, _) in section.table.iter() {
            let name = key.get_ref().as_ref();
            if keys.contains(&name) {
                continue;
            }
            // The search for what was meant is not worth it for a mistake that nobody sees.
            let message = if self.problems.len() < limits::CONFIG_PROBLEMS_MAX {
                unknown("key", name, keys) + &elsewhere(name)
            } else {
                String::new()
            };
            self.problem(&key.span(), &section.path_of(&cut(name)), message);
        }
    }
}

impl<'t> Section<'t> {
    /// The key path of one of its keys.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value at `key`.
    pub(crate) fn item(&self, key: &str) -> Option<Item<&'t DeValue<'t>>> {
        let value = self.table.get(key)?;
        Some(Item { path: self.path_of(key), span: value.span(), value: value.get_ref() })
    }
}

/// What a value is, with its article. Never the value: it may be a secret.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn unknown(what: &str, given: &str, allowed: &[&str]) -> String {
    let hint = match nearest(given, allowed) {
        Some(name) if given.replace('-', "_") == name => {
            format!("; names are written with `_`: did you mean `{name}`?")
        }
        Some(name) => format!("; did you mean `{name}`?"),
        None => ".".to_owned(),
    };
    format!("{} is no known {what}{hint} Allowed: {}", shown(given), listed(allowed))
}

/// Where a key that is unknown here is known.
fn elsewhere(key: &str) -> String {
    let has = |(section, keys): &&(&str, &[&str])| !section.is_empty() && keys.contains(&key);
    let sections: Vec<&str> = SECTIONS.iter().filter(has).map(|(section, _)| *section).collect();
    if sections.is_empty() { String::new() } else { format!(". (`{key}` is a key of: {})", listed(&sections)) }
}

/// A key path without indices.
fn plain(path: &str) -> String {
    let mut depth = 0;
    let outside = |c: &char| {
        depth += i32::from(*c == '[');
        let keep = depth == 0;
        depth -= i32::from(*c == ']');
        keep
    };
    path.chars().filter(outside).collect()
}

/// An unknown key as a part of a path.
fn cut(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}
