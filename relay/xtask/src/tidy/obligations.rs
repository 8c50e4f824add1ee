//! docs/obligations.md: whatever it says is kept is kept by a test that there is.

use super::source::{File, Tree};
use crate::shell;

const DOCUMENT: &str = "docs/obligations.md";

/// The fewest rows that the document has: no promise is dropped from it.
const ROWS_MIN: usize = 52;

/// A promise without a test, a test that there is not, a "not yet" without a reason.
pub(crate) fn tests_exist(tree: &Tree) -> Vec<String> {
    match std::fs::read_to_string(shell::root().join(DOCUMENT)) {
        Ok(text) => breaches(&text, &tree.files),
        Err(error) => vec![format!("{DOCUMENT}: {error}")],
    }
}

fn breaches(text: &str, files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rows = 0;
    for (i, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let kept = row.rsplit(" | ").next().unwrap_or_default();
        if kept == "Goes red without it" {
            continue;
        }
        rows += 1;
        found.extend(judge(kept, files).into_iter().map(|why| format!("{DOCUMENT}:{}: {why}", i + 1)));
    }
    if rows < ROWS_MIN {
        found.push(format!("{DOCUMENT} has {rows} rows, and had {ROWS_MIN}"));
    }
    found
}

/// What is wrong with the last cell of a row: tests as `file` `name`, or "not yet" with a reason, or both.
fn judge(kept: &str, files: &[File]) -> Vec<String> {
    let mut quoted = kept.split('`').skip(1).step_by(2);
    let mut found = Vec::new();
    let mut tests = 0;
    while let Some(path) = quoted.next() {
        let name = quoted.next().unwrap_or_default();
        tests += 1;
        let Some(file) = files.iter().find(|file| file.path == path) else {
            found.push(format!("there is no {path}"));
            continue;
        };
        let forms = [format!("fn {name}("), format!("def {name}("), format!("\"{name}\"")];
        if name.is_empty() || !forms.iter().any(|form| file.text.contains(form)) {
            found.push(format!("{path} has no test `{name}`"));
        }
    }
    let reason = kept.split_once("not yet: ").map(|(_, reason)| reason);
    match reason {
        Some(reason) if reason.len() < 10 => found.push("`not yet` without a reason".to_owned()),
        None if tests == 0 => found.push("neither a test nor `not yet: ` and the reason".to_owned()),
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_has_a_test_that_there_is_or_a_reason() {
        let files = [File { path: "a.rs".to_owned(), text: "fn it_holds() {}\n report(\"life: it ends\")".to_owned() }];
        for well in
            ["`a.rs` `it_holds`", "`a.rs` `life: it ends`; not yet: the other half", "not yet: nothing is recorded"]
        {
            assert!(judge(well, &files).is_empty(), "{well}");
        }
        for bad in ["", "a test", "`a.rs` `it_breaks`", "`b.rs` `it_holds`", "`a.rs`", "not yet: so", "not yet"] {
            assert_eq!(judge(bad, &files).len(), 1, "{bad}");
        }
        assert!(breaches("| a | b | not yet: nothing is recorded |\n", &files)[0].contains("has 1 rows"));
    }
}
