//! The interface of policies does not change in silence.

use sluice_crypto::{hex_encode, sha256};

use super::source::{File, Tree};

/// What the newest entry of the changelog has to name.
const LABEL: &str = "Digest of the package: ";

/// A package that is not the one of the changelog's newest entry.
pub(crate) fn changelog(tree: &Tree) -> Vec<String> {
    let changelog = tree.files.iter().find(|f| f.path == "wit/CHANGELOG.md").map_or("", |f| f.text.as_str());
    let digest = digest(tree);
    if newest(changelog).lines().any(|line| line.strip_prefix(LABEL).is_some_and(|d| d == digest)) {
        return Vec::new();
    }
    vec![format!("wit/ has changed: say in the newest entry of wit/CHANGELOG.md what, why, and \"{LABEL}{digest}\"")]
}

/// SHA-256 of names, lengths and texts of the package's files, in the order of their names.
fn digest(tree: &Tree) -> String {
    let is_of_package = |f: &&File| f.path.starts_with("wit/") && f.path.ends_with(".wit");
    let mut files: Vec<&File> = tree.files.iter().filter(is_of_package).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let parts: Vec<String> = files.iter().map(|f| format!("{} {}\n{}", f.path, f.text.len(), f.text)).collect();
    let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    hex_encode(&sha256(&parts))
}

/// The first section.
fn newest(changelog: &str) -> &str {
    let start = changelog.find("\n## ").map_or(changelog.len(), |at| at + 1);
    let entry = &changelog[start..];
    &entry[..entry.find("\n## ").unwrap_or(entry.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str, changelog: &str) -> Tree {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        Tree { packages: vec![], files: vec![file("wit/a.wit", text), file("wit/CHANGELOG.md", changelog)] }
    }

    #[test]
    fn a_change_of_the_interface_that_the_newest_entry_does_not_tell_is_a_breach() {
        let told = |text: &str| format!("# C\n\n## 0.0.2\n\n{LABEL}{}\n", digest(&tree(text, "")));
        assert!(changelog(&tree("package a;", &told("package a;"))).is_empty());
        assert_eq!(changelog(&tree("package b;", &told("package a;"))).len(), 1);
        let of_an_older_entry = told("package a;").replace("## 0.0.2", "## 0.0.3\n\n## 0.0.2");
        assert_eq!(changelog(&tree("package a;", &of_an_older_entry)).len(), 1);
        assert_eq!(changelog(&tree("package a;", "")).len(), 1);
    }
}
