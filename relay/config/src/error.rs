//! What is wrong with a configuration, where, and what to do.

use std::fmt;

use crate::source::ReadError;

/// Every mistake of one configuration. Its text has a line for each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file's name as it was given.
    pub file: String,
    /// At least one and at most [`CONFIG_PROBLEMS_MAX`](sluice_base::limits::CONFIG_PROBLEMS_MAX), in the
    /// order of the file.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Line and column, both from 1; `None` when the whole file is meant.
    pub place: Option<(usize, usize)>,
    /// The key, as `tenant[0].secrets[1].file`; empty when no key is meant.
    pub key: String,
    /// What is wrong, what is allowed, and what to do.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn unreadable(file: &str, error: &ReadError) -> Self {
        let problem = Problem { place: None, key: String::new(), message: error.to_string() };
        ConfigError { file: file.to_owned(), problems: vec![problem], more: 0 }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            f.write_str(&self.file)?;
            if let Some((line, column)) = problem.place {
                write!(f, ":{line}:{column}")?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        if self.more > 0 {
            write!(f, "\n{}: and {} more", self.file, self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Line and column, from 1, columns in characters, of a byte offset.
pub(crate) fn place(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The candidate that `given` was meant to be, if one is near.
pub(crate) fn nearest<'c>(given: &str, candidates: &[&'c str]) -> Option<&'c str> {
    // Longer than any name that we know: not a slip, and not worth a quadratic comparison.
    if given.len() > 64 {
        return None;
    }
    let folded = fold(given);
    let (candidate, distance) =
        candidates.iter().map(|c| (*c, edit_distance(&folded, &fold(c)))).min_by_key(|(_, distance)| *distance)?;
    (distance <= 1.max(folded.len().min(candidate.len()) / 3)).then_some(candidate)
}

/// Names differ neither by case nor by `-` for `_`.
fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// A value as it may be shown: cut short, nothing that moves a cursor.
pub(crate) fn shown(value: &str) -> String {
    let cut: String = value.chars().take(60).collect();
    let dots = if cut.len() < value.len() { "..." } else { "" };
    format!("`{}{dots}`", cut.escape_debug())
}

/// Names as a list for people.
pub(crate) fn listed(names: &[&str]) -> String {
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters() {
        let text = "a = 1\nä = \"ö\" x\n";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, text.find('x').unwrap()), (2, 9));
        assert_eq!(place(text, 10_000), (3, 1));
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let keys = ["address", "realm", "tenant", "allocations_per_user"];
        assert_eq!(nearest("adress", &keys), Some("address"));
        assert_eq!(nearest("raelm", &keys), Some("realm"));
        assert_eq!(nearest("Allocations-per-user", &keys), Some("allocations_per_user"));
        assert_eq!(nearest("port", &keys), None);
        assert_eq!(nearest("", &keys), None);
        assert_eq!(nearest(&"a".repeat(10_000), &keys), None);
    }

    #[test]
    fn distances() {
        for (a, b, distance) in [("", "", 0), ("", "ab", 2), ("ab", "ba", 1), ("kitten", "sitting", 3)] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }
}
