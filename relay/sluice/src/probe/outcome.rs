//! What a probe found, for people and for programs.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::echo::Echo;
use super::is_private;
use crate::cli::Failure as Words;

/// The steps, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Step {
    Resolve,
    Allocate,
    Permit,
    Bind,
    Echo,
}

impl Step {
    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Step::Resolve => "resolve",
            Step::Allocate => "allocate",
            Step::Permit => "permit",
            Step::Bind => "bind",
            Step::Echo => "echo",
        }
    }
}

/// Why a relay does not serve.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    pub(super) step: Step,
    /// Of the relay's answer, where it gave one (RFC 8656, 19).
    pub(super) code: Option<u16>,
    pub(super) problem: String,
    pub(super) action: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.step.name(), self.problem, self.action)
    }
}

/// What a probe found.
#[derive(Debug)]
pub(super) struct Outcome {
    relay: String,
    steps: Vec<(Step, Duration)>,
    relayed: Vec<SocketAddr>,
    notes: Vec<String>,
    pub(super) echo: Option<Echo>,
    pub(super) failure: Option<Failure>,
}

impl Outcome {
    /// Of a probe that has found nothing yet.
    pub(super) fn of(relay: String) -> Self {
        Outcome { relay, steps: Vec::new(), relayed: Vec::new(), notes: Vec::new(), echo: None, failure: None }
    }

    /// A step is done.
    pub(super) fn took(&mut self, step: Step, time: Duration) {
        self.steps.push((step, time));
    }

    /// A relayed address. It is the relay's own.
    pub(super) fn relayed_at(&mut self, server: SocketAddr, relayed: SocketAddr) {
        let is_first = self.relayed.is_empty();
        if is_first && is_private(relayed.ip()) && !is_private(server.ip()) {
            self.notes.push(format!(
                "the relay gives out {}, which is of no use outside of its own network: set its external address \
                 (external_address of [[relay]]; coturn: external-ip)",
                relayed.ip()
            ));
        }
        self.relayed.push(relayed);
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.relay);
        for (step, time) in &self.steps {
            let what = match step {
                Step::Resolve => "address found".to_owned(),
                Step::Allocate => format!("relayed at {}", self.addresses().join(" and ")),
                Step::Permit => "permission created".to_owned(),
                Step::Bind => "channel bound".to_owned(),
                Step::Echo => self.echo.as_ref().map_or_else(String::new, echoed),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {:<10} {:>9.1} ms   {what}", step.name(), time.as_secs_f64() * 1e3);
        }
        if let Some(echo) = self.echo.as_ref().filter(|echo| !echo.rtt.is_empty()) {
            let _ = writeln!(text, "  {:<10} {}", "round trip", round_trip(echo));
        }
        for note in &self.notes {
            let _ = writeln!(text, "  note       {note}");
        }
        if self.failure.is_none() {
            text += "It serves.\n";
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Result<String, Words> {
        let echo = self.echo.as_ref().map(|echo| {
            json!({
                "sent": echo.sent,
                "arrived": echo.arrived,
                "returned": echo.returned,
                "lost": echo.sent - echo.returned,
                "loss_percent": echo.loss_percent(),
                "duplicates": echo.duplicates,
                "damaged": echo.damaged,
                "rtt_us": (!echo.rtt.is_empty()).then(|| json!({
                    "min": echo.rtt.min(),
                    "p50": echo.rtt.value_at_quantile(0.5),
                    "p90": echo.rtt.value_at_quantile(0.9),
                    "p99": echo.rtt.value_at_quantile(0.99),
                    "max": echo.rtt.max(),
                })),
            })
        });
        let step = |(step, time): &(Step, Duration)| json!({"step": step, "us": time.as_micros() as u64});
        let all = json!({
            "relay": self.relay,
            "serves": self.failure.is_none(),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "relayed": self.addresses(),
            "echo": echo,
            "notes": self.notes,
            "failure": self.failure,
        });
        serde_json::to_string_pretty(&all).map(|text| text + "\n").map_err(|error| error.to_string())
    }

    fn addresses(&self) -> Vec<String> {
        self.relayed.iter().map(ToString::to_string).collect()
    }
}

fn echoed(echo: &Echo) -> String {
    let mut text = format!("{} of {} came back, {:.1} % lost", echo.returned, echo.sent, echo.loss_percent());
    for (number, what) in [(echo.duplicates, "twice"), (echo.damaged, "damaged")] {
        if number > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {number} {what}");
        }
    }
    text
}

fn round_trip(echo: &Echo) -> String {
    let ms = |us: u64| us as f64 / 1e3;
    let at = |quantile| ms(echo.rtt.value_at_quantile(quantile));
    format!(
        "{:.2} ms median, {:.2} p90, {:.2} p99, {:.2} to {:.2}",
        at(0.5),
        at(0.9),
        at(0.99),
        ms(echo.rtt.min()),
        ms(echo.rtt.max())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(server: &str, relayed: &str) -> Outcome {
        let mut outcome = Outcome::of("turn:relay.example:3478".to_owned());
        outcome.took(Step::Resolve, Duration::from_millis(1));
        outcome.relayed_at(server.parse().unwrap(), relayed.parse().unwrap());
        outcome
    }

    #[test]
    fn a_relay_that_gives_out_a_private_address_is_told_of() {
        let told = outcome("203.0.113.5:3478", "10.0.0.5:49152");
        assert!(told.text().contains("external_address"), "{}", told.text());
        for (server, relayed) in [("10.0.0.5:3478", "10.0.0.5:49152"), ("203.0.113.5:3478", "203.0.113.5:49152")] {
            assert!(outcome(server, relayed).notes.is_empty(), "{relayed}");
        }
    }

    #[test]
    fn json_says_what_failed() {
        let mut failed = outcome("203.0.113.5:3478", "203.0.113.5:49152");
        let (problem, action) = ("p".to_owned(), "a".to_owned());
        failed.failure = Some(Failure { step: Step::Bind, code: Some(403), problem, action });
        let value: serde_json::Value = serde_json::from_str(&failed.json().unwrap()).unwrap();
        assert_eq!((&value["serves"], &value["failure"]["step"]), (&json!(false), &json!("bind")));
        assert_eq!((&value["failure"]["code"], &value["steps"][0]["us"]), (&json!(403), &json!(1000)));
        assert!(!failed.text().contains("It serves"));
    }
}
