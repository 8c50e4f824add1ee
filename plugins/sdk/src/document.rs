//! Settings that are read to the end, and point at every mistake: where (a JSON pointer, RFC 6901), and what to do.
//!
//! A plugin reads its settings with one function, which both hooks use: `validate-settings` answers with the
//! mistakes, and any other hook, which is only asked once there are none, takes what was read.

use std::cell::RefCell;

use serde_json::{Map, Value};

/// A mistake in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// JSON pointer: "/clients/only/2", or "" for the whole document.
    pub at: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Where mistakes are gathered.
#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

/// A place in the document, which may be empty.
#[derive(Clone, Debug)]
pub struct Place<'d> {
    value: Option<&'d Value>,
    at: String,
    mistakes: &'d Mistakes,
}

/// Reads a document by `reader`. What it read, and every mistake that there is; without mistakes the former can be
/// relied on.
pub fn read<T>(document: &str, reader: impl FnOnce(&Place<'_>) -> T) -> (T, Vec<Mistake>) {
    let mistakes = Mistakes::default();
    let value = serde_json::from_str(document).unwrap_or_else(|error| {
        mistakes.add("", format!("the settings are no JSON: {error}"));
        Value::Object(Map::new())
    });
    let answer = reader(&Place { value: Some(&value), at: String::new(), mistakes: &mistakes });
    (answer, mistakes.0.into_inner())
}

impl Mistakes {
    fn add(&self, at: &str, message: String) {
        self.0.borrow_mut().push(Mistake { at: at.to_owned(), message });
    }
}

impl<'d> Place<'d> {
    /// Whether nothing stands here.
    pub fn is_empty(&self) -> bool {
        self.value.is_none()
    }

    /// What stands here.
    pub fn value(&self) -> Option<&'d Value> {
        self.value
    }

    /// Tells of a mistake at this place.
    pub fn mistake(&self, message: impl Into<String>) {
        self.mistakes.add(&self.at, message.into());
    }

    /// An object that has these keys and no others, but "$schema", by which editors find the schema.
    pub fn keys(&self, known: &[&str]) {
        let Some(object) = self.object() else { return };
        for key in object.keys().filter(|key| *key != "$schema" && !known.contains(&key.as_str())) {
            self.below(key, None).mistake(format!("there is no such key; there are: {}", known.join(", ")));
        }
    }

    /// What stands under a key; an empty place if nothing does.
    pub fn key(&self, key: &str) -> Place<'d> {
        self.below(key, self.value.and_then(|value| value.get(key)))
    }

    /// Keys and places of an object.
    pub fn entries(&self) -> Vec<(&'d str, Place<'d>)> {
        let entries = self.object().into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), self.below(key, Some(value)))).collect()
    }

    /// The places of a list.
    pub fn items(&self) -> Vec<Place<'d>> {
        match self.value {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let places = items.iter().enumerate();
                places.map(|(n, item)| self.below(&n.to_string(), Some(item))).collect()
            }
            Some(_) => {
                self.mistake("this has to be a list");
                Vec::new()
            }
        }
    }

    /// A text.
    pub fn text(&self) -> Option<&'d str> {
        let text = self.value?.as_str();
        if text.is_none() {
            self.mistake("this has to be a text");
        }
        text
    }

    /// Yes or no.
    pub fn boolean(&self) -> Option<bool> {
        let boolean = self.value?.as_bool();
        if boolean.is_none() {
            self.mistake("this has to be true or false");
        }
        boolean
    }

    /// A whole number within bounds, which count as allowed.
    pub fn number(&self, least: u32, most: u32) -> Option<u32> {
        let number = self.value?.as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.mistake(format!("this has to be a whole number from {least} to {most}"));
        }
        number
    }

    /// One of several words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.value?.as_str();
        let found = text.and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.mistake(format!("this has to be one of: {}", words.join(", ")));
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// A list of texts.
    pub fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(|item| item.text()).map(str::to_owned).collect()
    }

    /// Tells of a mistake if nothing stands here.
    pub fn required(&self, why: &str) -> &Self {
        if self.is_empty() {
            self.mistake(why);
        }
        self
    }

    fn object(&self) -> Option<&'d Map<String, Value>> {
        let object = self.value?.as_object();
        if object.is_none() {
            self.mistake("this has to be an object: {\"key\": value}");
        }
        object
    }

    fn below(&self, key: &str, value: Option<&'d Value>) -> Place<'d> {
        let at = format!("{}/{}", self.at, key.replace('~', "~0").replace('/', "~1"));
        Place { value, at, mistakes: self.mistakes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(document: &str, reader: impl FnOnce(&Place<'_>)) -> Vec<(String, String)> {
        let told = read(document, reader).1;
        told.into_iter().map(|mistake| (mistake.at, mistake.message)).collect()
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let document = r#"{"days": 40, "places": ["DE", 7], "a/b": 1, "on": "yes"}"#;
        let told = mistakes(document, |root| {
            root.keys(&["days", "places", "on"]);
            root.key("days").number(1, 30);
            root.key("places").texts();
            root.key("on").boolean();
            root.key("mode").required("say which").text();
        });
        let places: Vec<&str> = told.iter().map(|(at, _)| at.as_str()).collect();
        assert_eq!(places, ["/a~1b", "/days", "/places/1", "/on", "/mode"]);
        assert_eq!(told[0].1, "there is no such key; there are: days, places, on");
    }

    #[test]
    fn what_is_no_json_or_of_another_kind_is_told_once() {
        assert_eq!(mistakes("{", |root| root.keys(&["a"])).len(), 1);
        assert_eq!(
            mistakes("[]", |root| root.keys(&["a"])),
            [(String::new(), "this has to be an object: {\"key\": value}".to_owned())]
        );
    }

    #[test]
    fn what_is_right_is_read() {
        let (read, told) = read(r#"{"mode": "b", "list": ["x"]}"#, |root| {
            (root.key("mode").word(&[("a", 1), ("b", 2)]), root.key("list").texts(), root.key("gone").number(0, 1))
        });
        assert_eq!(read, (Some(2), vec!["x".to_owned()], None));
        assert!(told.is_empty());
    }
}
