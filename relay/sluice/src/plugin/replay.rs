//! What was asked in a dry run, asked again: which verdicts would be others.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use sluice_base::limits::CAPTURE_BYTES_MAX;
use sluice_net::os;
use sluice_policy::{Case, Host, Plugin, Source};
use sluice_record::capture::deleted_at;

use super::check::{Form, cut, open, show};
use super::operate::settings_in;
use crate::banner;
use crate::cli::Failure;
use crate::policies::read;
use crate::records::shown;

/// The exit status where a verdict is another one.
const DIFFERS: u8 = 1;
/// The exit status where something is wrong with the component, the capture or a question.
const WRONG: u8 = 2;

/// `sluice plugin replay`.
#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// The component.
    file: PathBuf,
    /// What was captured: a file of the state directory's `captures`.
    #[arg(long, value_name = "FILE")]
    questions: PathBuf,
    /// Settings to answer by, a JSON object; without it those of then.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// What came of a capture.
#[derive(Serialize)]
struct Replayed {
    questions: usize,
    same: usize,
    differences: Vec<Difference>,
    errors: Vec<Unasked>,
}

/// A verdict that is another one.
#[derive(Serialize)]
struct Difference {
    /// Its number, from 1 on.
    question: usize,
    hook: String,
    /// What the relay obeys of the answer, or `{"failed": REASON}`.
    then: Value,
    /// The whole answer, or `{"failed": REASON}`.
    now: Value,
}

/// A question that could not be put.
#[derive(Serialize)]
struct Unasked {
    question: usize,
    hook: String,
    error: String,
}

/// Asks all of it again.
pub(super) fn run(args: &ReplayArgs) -> ExitCode {
    let replayed = replay(args).and_then(|replayed| {
        show(&args.form, &replayed, text)?;
        Ok(replayed)
    });
    match replayed {
        Ok(replayed) if !replayed.errors.is_empty() => ExitCode::from(WRONG),
        Ok(replayed) if !replayed.differences.is_empty() => ExitCode::from(DIFFERS),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            banner::complain(&error);
            ExitCode::from(WRONG)
        }
    }
}

fn replay(args: &ReplayArgs) -> Result<Replayed, Failure> {
    let ReplayArgs { file, questions, settings, form } = args;
    check_age(questions, os::now().unix_seconds)?;
    let mut cases = Case::read_capture(questions)?;
    if let Some(settings) = settings {
        let settings = settings_in(settings)?;
        cases = cases.into_iter().map(|case| case.with_settings(settings.clone())).collect();
    }
    let first = cases.first().ok_or_else(|| format!("{}: nothing is captured yet", questions.display()))?;
    let (host, plugin) = open(file, form, false)?;
    check_settings(&host, &plugin, file, &first.settings())?;
    Ok(asked(&host, &plugin, &cases))
}

/// A capture whose time is over is not read again.
fn check_age(questions: &Path, now: u64) -> Result<(), Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", questions.display());
    let mut first = String::new();
    let file = File::open(questions).map_err(failed)?;
    BufReader::new(file.take(CAPTURE_BYTES_MAX)).read_line(&mut first).map_err(failed)?;
    match deleted_at(&first) {
        Some(end) if end <= now => {
            let end = shown(end);
            Err(format!("{}: it was to be deleted by {end} UTC, and is not read: delete it", questions.display()))
        }
        _ => Ok(()),
    }
}

/// Settings that the component refuses would be refused at a load: what it says by them means nothing.
fn check_settings(host: &Host, plugin: &Plugin, file: &Path, settings: &str) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let source = Source {
        name: plugin.name().to_owned(),
        bytes: read(file).map_err(|error| failed(&error))?,
        settings: settings.to_owned(),
        grants: plugin.grants().to_vec(),
        ..Source::default()
    };
    host.load(&source, &Arc::default()).map(drop).map_err(|error| failed(&error))
}

fn asked(host: &Host, plugin: &Plugin, cases: &[Case]) -> Replayed {
    let (mut same, mut differences, mut errors) = (0, Vec::new(), Vec::new());
    for (i, case) in cases.iter().enumerate() {
        let (question, hook) = (i + 1, case.hook().to_owned());
        let then = match case.expected() {
            Some(Ok(answer)) => answer.clone(),
            Some(Err(failure)) => json!({"failed": failure}),
            None => {
                errors.push(Unasked { question, hook, error: "it has no answer of then".to_owned() });
                continue;
            }
        };
        match host.answer_case(plugin, case, &Arc::default()) {
            Err(error) => errors.push(Unasked { question, hook, error }),
            Ok(ran) if case.compare(&ran).is_ok() => same += 1,
            Ok(ran) => {
                let now = ran.answer.unwrap_or_else(|(failure, _)| json!({"failed": failure.name()}));
                differences.push(Difference { question, hook, then, now });
            }
        }
    }
    Replayed { questions: cases.len(), same, differences, errors }
}

fn text(replayed: &Replayed) -> String {
    let mut text = String::new();
    for Difference { question, hook, then, now } in &replayed.differences {
        let _ = writeln!(text, "question {question} ({hook}):\n     then {}\n     now  {}", cut(then), cut(now));
    }
    for Unasked { question, hook, error } in &replayed.errors {
        let _ = writeln!(text, "question {question} ({hook}): it cannot be asked: {error}");
    }
    let Replayed { questions, same, differences, errors } = replayed;
    let (differ, unasked) = (differences.len(), errors.len());
    let _ = writeln!(text, "{same} of {questions} verdicts are the same, {differ} differ, {unasked} are unknown");
    text
}

#[cfg(test)]
mod tests {
    use sluice_record::testing::Folder;

    use super::*;

    #[test]
    fn a_capture_whose_time_is_over_is_not_read() {
        let folder = Folder::new("replay");
        let times = r#""delete-by":"","begun-unix-seconds":1,"delete-by-unix-seconds":1000"#;
        let head = format!(r#"{{{times},"tenant":"t","plugin":"p","digest":""}}"#);
        std::fs::write(folder.join("c"), format!("{{\"capture\":{head},\"settings\":{{}}}}\n")).unwrap();
        check_age(&folder.join("c"), 999).unwrap();
        let error = check_age(&folder.join("c"), 1000).unwrap_err();
        assert!(error.contains("was to be deleted by 1970-01-01 00:16:40"), "{error}");
    }

    #[test]
    fn every_difference_is_told_with_its_number_and_both_verdicts() {
        let (then, now) = (json!("abstain"), json!({"deny": {"code": "forbidden"}}));
        let differences = vec![Difference { question: 7, hook: "admission.allocate".to_owned(), then, now }];
        let errors = vec![Unasked { question: 9, hook: "h.x".to_owned(), error: "no such hook".to_owned() }];
        let text = text(&Replayed { questions: 9, same: 7, differences, errors });
        let expected = [
            "question 7 (admission.allocate):",
            "     then \"abstain\"",
            "     now  {\"deny\":{\"code\":\"forbidden\"}}",
            "question 9 (h.x): it cannot be asked: no such hook",
            "7 of 9 verdicts are the same, 1 differ, 1 are unknown",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
