//! The rules of the house that no compiler knows, as tests: which crate may import which, what a core
//! may not call, who may look at personal data, how long things may be.
//!
//! Each rule is a function from the tree to its breaches; the tests at the end run them all.

mod edges;
mod obligations;
mod source;
mod text;
mod wit;

use crate::report::Report;
use crate::shell;

/// Rules by name.
type Rule = (&'static str, fn(&source::Tree) -> Vec<String>);

const RULES: &[Rule] = &[
    ("an edge between crates stands in the table", edges::between_crates),
    ("an outside thing is known by the crates that own it", edges::to_the_outside),
    ("a core's clippy.toml bans clocks, sockets, files and environment", text::core_lints),
    ("a core names no clock, socket, file, thread or environment", text::pure_cores),
    ("unsafe code is forbidden everywhere but in net", text::no_unsafe),
    ("personal data and secrets are exposed by listed modules only", text::exposures),
    ("a cap stands in base/limits.rs", text::caps),
    ("lines are at most 120 characters long", text::widths),
    ("nothing is left over", text::leftovers),
    ("a library does not print", text::prints),
    ("tests are neither ignored nor asleep", text::idle_tests),
    ("files are at most 1500 lines long", text::file_lengths),
    ("functions do not grow", text::function_lengths),
    ("every obligation has a test that there is, or a reason", obligations::tests_exist),
    ("every source file is a module of a crate", source::dead_files),
    ("the changelog of wit/ tells of its newest change", wit::changelog),
];

/// Runs every rule and tells the breaches. `true` when there are none.
pub(crate) fn run() -> bool {
    let report = Report::default();
    let tree = match source::Tree::read(&shell::root()) {
        Ok(tree) => tree,
        Err(why) => return report.test("reading the tree", || Err(why)),
    };
    for (name, rule) in RULES {
        report.test(name, || {
            let breaches = rule(&tree);
            if breaches.is_empty() { Ok(()) } else { Err(breaches.join("\n      ")) }
        });
    }
    report.tally().failed.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_keeps_every_rule() {
        let tree = source::Tree::read(&shell::root()).unwrap();
        let breaches: Vec<String> = RULES
            .iter()
            .flat_map(|(name, rule)| rule(&tree).into_iter().map(move |b| format!("{name}: {b}")))
            .collect();
        assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
    }
}
