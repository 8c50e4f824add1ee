//! Recorded cases: a question as JSON, and what its answer must hold.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_base::limits::{CAPTURE_BYTES_MAX, PLUGIN_CASE_BYTES_MAX, PLUGIN_CASES_MAX};
use wasmtime::Store;
use wasmtime::component::{Instance, Val};

use crate::compose;
use crate::failure::Failure;
use crate::guest::{Context, State};
use crate::hook::{PACKAGE, VERSION};
use crate::json::{difference, from_val, to_val};
use crate::plugin::{Guest, Used};

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its file's name, and its number in it.
    pub name: String,
    written: Written,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// What it shows.
    #[serde(default)]
    description: String,
    /// Interface and function.
    hook: String,
    #[serde(default = "empty")]
    settings: Value,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default)]
    expect: Option<Value>,
    /// In place of an answer: the failure that there has to be.
    #[serde(default)]
    fails: Option<String>,
}

/// The first line of a capture.
#[derive(Deserialize)]
struct First {
    #[serde(rename = "capture")]
    _capture: Map<String, Value>,
    settings: Value,
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The answer, or why there is none that the relay takes.
    pub answer: Result<Value, (Failure, String)>,
    /// How long it took, the making of the instance included.
    pub took: Duration,
    /// Bytes of the instance's memory.
    pub memory_bytes: usize,
    /// What was executed, about one for each instruction; `None` where the host does not count.
    pub fuel: Option<u64>,
}

impl Case {
    /// Reads every `.json` file of a folder, each a case or a list of them, and every `.jsonl` file, each a capture, in
    /// the order of their names.
    ///
    /// # Errors
    /// In words, with the file.
    pub fn read(folder: &Path) -> Result<Vec<Case>, String> {
        let failed = |error: std::io::Error| format!("{} cannot be read: {error}", folder.display());
        let entries = std::fs::read_dir(folder).map_err(failed)?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json" || extension == "jsonl") {
                files.push(path);
            }
        }
        files.sort();
        let mut cases = Vec::new();
        for file in files {
            let is_capture = file.extension().is_some_and(|extension| extension == "jsonl");
            cases.extend(if is_capture { Self::read_capture(&file)? } else { Self::read_file(&file)? });
            if cases.len() > PLUGIN_CASES_MAX {
                return Err(format!("{} has more than {PLUGIN_CASES_MAX} cases", folder.display()));
            }
        }
        Ok(cases)
    }

    fn read_file(file: &Path) -> Result<Vec<Case>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let length = std::fs::metadata(file).map_err(|error| failed(&error))?.len();
        if length > PLUGIN_CASE_BYTES_MAX {
            return Err(failed(&format!("{length} bytes, of which {PLUGIN_CASE_BYTES_MAX} are possible")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, &text).map_err(|error| failed(&error))
    }

    /// Reads a capture: a case in each line but the first, which has the settings of all.
    ///
    /// # Errors
    /// In words, with the file.
    pub fn read_capture(file: &Path) -> Result<Vec<Case>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let mut text = String::new();
        let opened = File::open(file).map_err(|error| failed(&error))?;
        opened.take(CAPTURE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
        if text.len() as u64 > CAPTURE_BYTES_MAX {
            return Err(failed(&format!("more than the {CAPTURE_BYTES_MAX} bytes that a capture may have")));
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse_capture(&name, &text).map_err(|error| failed(&error))
    }

    /// The cases of a capture. A last line without its end is still being written, and is none.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn parse_capture(name: &str, text: &str) -> Result<Vec<Case>, String> {
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let first = lines.next().and_then(|line| serde_json::from_str::<First>(line).ok());
        let First { settings, .. } = first.ok_or("it is no capture: its first line is not that of one")?;
        let case = |(i, line): (usize, &str)| {
            let mut written: Written =
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", i + 2))?;
            written.settings = settings.clone();
            Ok(Case { name: format!("{name}#{}", i + 1), written })
        };
        lines.enumerate().map(case).collect()
    }

    /// A case, or a list of them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Vec<Case>, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (all, one) = match value {
            Value::Array(all) => (all, false),
            one => (vec![one], true),
        };
        let case = |(i, value): (usize, Value)| {
            let written = serde_json::from_value(value).map_err(|error| error.to_string())?;
            let name = if one { name.to_owned() } else { format!("{name}#{i}") };
            Ok(Case { name, written })
        };
        all.into_iter().enumerate().map(case).collect()
    }

    /// The function that it calls.
    pub fn hook(&self) -> &str {
        &self.written.hook
    }

    /// The answer that there has to be, or the name of the failure; none where it says neither.
    pub fn expected(&self) -> Option<Result<&Value, &str>> {
        let Written { expect, fails, .. } = &self.written;
        fails.as_deref().map(Err).or(expect.as_ref().map(Ok))
    }

    /// The same question to a plugin with other settings.
    pub fn with_settings(mut self, settings: Value) -> Self {
        self.written.settings = settings;
        self
    }

    /// What it shows, for people; may be empty.
    pub fn description(&self) -> &str {
        &self.written.description
    }

    /// The settings by which it is answered, as JSON.
    pub fn settings(&self) -> String {
        self.written.settings.to_string()
    }

    /// Compares what came of it with what is expected.
    ///
    /// # Errors
    /// Where it differs.
    pub fn compare(&self, ran: &Ran) -> Result<(), String> {
        match (&ran.answer, &self.written.fails, &self.written.expect) {
            (Err((failure, _)), Some(fails), _) if failure.name() == fails => Ok(()),
            (Err((failure, error)), ..) => Err(format!("it failed ({failure}): {error}")),
            (Ok(answer), Some(fails), _) => Err(format!("expected a failure ({fails}), found {answer}")),
            (Ok(answer), None, Some(expect)) => difference(expect, answer, "").map_or(Ok(()), Err),
            (Ok(_), None, None) => Err("it says neither `expect` nor `fails`".to_owned()),
        }
    }

    /// Asks; what is wrong with the case itself is an error.
    pub(crate) fn run(&self, guest: &Guest, context: &Arc<Context>, deadline: Instant) -> Result<Ran, String> {
        let began = Instant::now();
        let mut mistake = None;
        let called = guest.enter(context, deadline, false, |store, instance| {
            let answer = self.call(store, instance)?;
            Ok(answer.unwrap_or_else(|error| {
                mistake = Some(error);
                Value::Null
            }))
        });
        if let Some(mistake) = mistake {
            return Err(mistake);
        }
        let peers = self.written.arguments.get("peers").and_then(Value::as_array).map_or(0, Vec::len);
        let (answer, used) = match called {
            Ok((answer, used)) => match compose::check(self.hook(), peers, &answer) {
                Ok(()) => (Ok(answer), used),
                Err(failure) => (Err((failure, "the relay does not take its answer".to_owned())), used),
            },
            Err(failure) => (Err(failure), Used { took: began.elapsed(), ..Used::default() }),
        };
        Ok(Ran { answer, took: used.took, memory_bytes: used.memory_bytes, fuel: used.fuel })
    }

    /// The answer as JSON; within it, that the case itself is wrong.
    fn call(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Result<Value, String>> {
        let Some((interface, function)) = self.written.hook.split_once('.') else {
            return Ok(Err(format!("{:?} is no hook: say INTERFACE.FUNCTION", self.written.hook)));
        };
        let name = format!("{PACKAGE}{interface}@{VERSION}");
        let found = instance.get_export_index(&mut *store, None, &name);
        let found = found.and_then(|index| instance.get_export_index(&mut *store, Some(&index), function));
        let Some(function) = found.and_then(|index| instance.get_func(&mut *store, index)) else {
            return Ok(Err(format!("it does not export {}", self.written.hook)));
        };
        let ty = function.ty(&*store);
        let params: Vec<_> = ty.params().map(|(name, ty)| (name.to_owned(), ty)).collect();
        let arguments = match self.arguments(&params) {
            Ok(arguments) => arguments,
            Err(error) => return Ok(Err(error)),
        };
        let mut results = vec![Val::Bool(false); ty.results().len()];
        function.call(&mut *store, &arguments, &mut results)?;
        Ok(Ok(results.first().map_or(Value::Null, from_val)))
    }

    fn arguments(&self, params: &[(String, wasmtime::component::types::Type)]) -> Result<Vec<Val>, String> {
        if let Some(unknown) = self.written.arguments.keys().find(|key| params.iter().all(|(name, _)| name != *key)) {
            let known: Vec<_> = params.iter().map(|(name, _)| name).collect();
            return Err(format!("{unknown:?} is no argument of {}; there are {known:?}", self.written.hook));
        }
        let missing = |name: &str| match name {
            "ctx" => json!({"tenant": "test", "request-id": "test", "occasion": "initial"}),
            "document" => Value::from(self.settings()),
            "peers" | "nodes" | "schemas" | "records" | "kinds" | "tracks" => json!([]),
            "subject" => json!("subject"),
            _ => json!({}),
        };
        let argument = |(name, ty): &(String, wasmtime::component::types::Type)| {
            let value = self.written.arguments.get(name).cloned().unwrap_or_else(|| missing(name));
            to_val(&value, ty).map_err(|error| format!("{name}: {error}"))
        };
        params.iter().map(argument).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"capture": {"tenant": "clinic"}, "settings": {"most": 3}}"#;

    #[test]
    fn each_line_of_a_capture_is_a_case_with_the_settings_of_the_first() {
        let lines = [FIRST, r#"{"hook": "h.a", "expect": 1}"#, r#"{"hook": "h.b", "fails": "trap"}"#, r#"{"hoo"#];
        let text = lines.join("\n");
        let cases = Case::parse_capture("monday", &text).unwrap();
        let names: Vec<_> = cases.iter().map(|case| (case.name.as_str(), case.hook(), case.settings())).collect();
        let settings = || r#"{"most":3}"#.to_owned();
        assert_eq!(names, [("monday#1", "h.a", settings()), ("monday#2", "h.b", settings())]);
        assert_eq!(cases[0].expected(), Some(Ok(&json!(1))));
        assert_eq!(cases[1].expected(), Some(Err("trap")));
    }

    #[test]
    fn what_is_wrong_with_a_capture_is_said_with_its_line() {
        let wrong = |text: &str| Case::parse_capture("c", text).unwrap_err();
        assert!(wrong("").contains("no capture") && wrong("{\"hook\": \"h.a\"}\n").contains("no capture"));
        let error = wrong(&format!("{FIRST}\n{{\"hook\": \"h.a\"}}\n{{\"address\": 1}}\n"));
        assert!(error.starts_with("line 3: ") && error.contains("address"), "{error}");
    }
}
