//! A JSON object a line, with pseudonyms in place of personal data.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;

use serde::Serialize;
use serde_json::Value;
use sluice_base::pii::showing::{self, Shower};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::Context;

use super::schema;

/// The sink.
pub(super) struct Json<W> {
    pub(super) shower: Shower,
    pub(super) writer: W,
}

/// One line. docs/logs.md tells what each part means.
#[derive(Serialize)]
pub(super) struct Line {
    time: String,
    level: &'static str,
    target: String,
    message: String,
    fields: BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u32,
}

impl<S, W> Layer<S> for Json<W>
where
    S: Subscriber,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::new(level(*metadata.level()), metadata.target(), String::new());
        showing::with(&self.shower, || event.record(&mut line));
        // Nobody may read: that is no reason to stop.
        let _ = self.writer.make_writer().write_all(line.text().as_bytes());
    }
}

impl Line {
    /// Of now.
    pub(super) fn new(level: &'static str, target: &str, message: String) -> Self {
        let mut time = String::new();
        // Writing to a string cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        Line { time, level, target: target.to_owned(), message, fields: BTreeMap::new(), left_out: 0 }
    }

    /// Adds a field, if the schema has it; else it is counted alone.
    pub(super) fn add(&mut self, name: &str, value: Value) {
        match schema::admits(name, &value) {
            Some(name) => drop(self.fields.insert(name, value)),
            None => self.left_out += 1,
        }
    }

    /// The object and the end of its line.
    pub(super) fn text(&self) -> String {
        // Text, numbers and a map of them: that cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => self.add(name, text.into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.add(name, value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value.into());
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
