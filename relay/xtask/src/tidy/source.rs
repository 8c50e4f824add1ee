//! The tree as the rules see it: the crates that cargo knows, and every source file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::shell;

/// Folders with source text.
const FOLDERS: &[&str] = &["relay", "wit", "plugins", "benches", "fuzz", "tests", ".ci"];

/// Folders inside of them that hold none.
const SKIPPED: &[&str] = &["target", "node_modules", "corpus", "artifacts", "__pycache__"];

/// Workspaces of their own.
const OTHER_WORKSPACES: &[&str] = &["fuzz/Cargo.toml", "plugins/Cargo.toml"];

/// Endings of source files.
const ENDINGS: &[&str] = &["rs", "py", "js", "toml", "wit"];

/// Documents that a rule reads.
const READ_TOO: &[&str] = &["wit/CHANGELOG.md"];

/// All that is looked at.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Packages of all workspaces, as `cargo metadata` tells of them.
    pub(crate) packages: Vec<Package>,
    /// Source files.
    pub(crate) files: Vec<File>,
}

/// A package.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// What it names as dependencies, with the kind: normal, dev or build.
    pub(crate) dependencies: Vec<(String, String)>,
    /// Roots of its targets, from the root of the tree.
    pub(crate) roots: Vec<String>,
}

/// A source file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// From the root, with slashes.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl Tree {
    /// Reads the tree.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Tree { packages: packages(root, "Cargo.toml")?, files: Vec::new() };
        for folder in FOLDERS {
            walk(root, &root.join(folder), &mut tree.files)?;
        }
        Ok(tree)
    }

    /// The files of one folder, Rust only.
    pub(crate) fn rust_in<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |f| f.is_rust() && f.path.starts_with(folder))
    }
}

impl File {
    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it is there for tests or benchmarks.
    pub(crate) fn is_test(&self) -> bool {
        ["/tests/", "/benches/", "/examples/"].iter().any(|part| self.path.contains(part))
            || self.path.ends_with("/tests.rs")
    }

    /// Lines, numbered from 1, of what runs in production: without comments and the tests at the end.
    pub(crate) fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = if self.is_test() { 0 } else { self.test_start().unwrap_or(usize::MAX) };
        self.code().take_while(move |(n, _)| *n < lines)
    }

    /// Lines, numbered from 1, of tests.
    pub(crate) fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let start = if self.is_test() { 0 } else { self.test_start().unwrap_or(usize::MAX) };
        self.code().filter(move |(n, _)| *n >= start)
    }

    /// Lines, numbered from 1, without comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The line of `mod tests`, which is the last item of its file.
    fn test_start(&self) -> Option<usize> {
        let lines: Vec<&str> = self.text.lines().collect();
        let start = lines.windows(2).rposition(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod tests"))?;
        Some(start + 1)
    }
}

/// Modules that no crate has, and files that no module is.
pub(crate) fn dead_files(tree: &Tree) -> Vec<String> {
    let all: BTreeSet<&str> = tree.files.iter().filter(|f| f.is_rust()).map(|f| f.path.as_str()).collect();
    let mut alive: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> = tree.packages.iter().flat_map(|p| p.roots.clone()).collect();
    while let Some(path) = open.pop() {
        if !alive.insert(path.clone()) {
            continue;
        }
        if let Some(file) = tree.files.iter().find(|f| f.path == path) {
            let is_root = tree.packages.iter().any(|p| p.roots.contains(&path));
            open.extend(modules(file, is_root).into_iter().flatten().filter(|p| all.contains(p.as_str())));
        }
    }
    let dead = all.iter().filter(|path| !alive.contains(**path));
    dead.map(|path| format!("{path} is part of nothing")).collect()
}

/// The files that each `mod name;` of a file may mean.
fn modules(file: &File, is_root: bool) -> Vec<[String; 2]> {
    let path = Path::new(&file.path);
    let folder = path.parent().unwrap_or(Path::new(""));
    let stem = path.file_stem().unwrap_or_default();
    let inner = if is_root || stem == "mod" { folder.to_owned() } else { folder.join(stem) };
    let mut named = None;
    let mut found = Vec::new();
    for (_, line) in file.code() {
        let line = line.trim();
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            named = Some(folder.join(path).to_string_lossy().into_owned());
        } else if let Some(name) = module_name(line) {
            let at = |tail: String| inner.join(tail).to_string_lossy().into_owned();
            let file = named.take().unwrap_or_else(|| at(format!("{name}.rs")));
            found.push([file, at(format!("{name}/mod.rs"))]);
        }
    }
    found
}

fn module_name(line: &str) -> Option<&str> {
    let line = ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|p| line.strip_prefix(p)).unwrap_or(line);
    line.strip_prefix("mod ")?.strip_suffix(';')
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    if !folder.is_dir() {
        return Ok(());
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(root, &path, files)?;
        } else if is_source(root, &path) {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            files.push(File { path: from_root(root, &path), text });
        }
    }
    Ok(())
}

fn is_source(root: &Path, path: &Path) -> bool {
    path.extension().is_some_and(|e| ENDINGS.iter().any(|ending| e == *ending))
        || READ_TOO.contains(&from_root(root, path).as_str())
}

fn from_root(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// The packages of the workspace, and of the others that are there.
fn packages(root: &Path, manifest: &str) -> Result<Vec<Package>, String> {
    let mut packages = metadata(root, &root.join(manifest))?;
    for other in OTHER_WORKSPACES.iter().map(|other| root.join(other)).filter(|other| other.is_file()) {
        packages.extend(metadata(root, &other)?);
    }
    Ok(packages)
}

fn metadata(root: &Path, manifest: &Path) -> Result<Vec<Package>, String> {
    let mut cargo = shell::cargo();
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = cargo.output().map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let value: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let list = value["packages"].as_array().ok_or("cargo metadata tells of no packages")?;
    Ok(list.iter().map(|package| read_package(root, package)).collect())
}

fn read_package(root: &Path, package: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = |value: &Value| from_root(root, Path::new(value.as_str().unwrap_or_default()));
    let each = |key: &str| package[key].as_array().cloned().unwrap_or_default();
    let kind = |dependency: &Value| dependency["kind"].as_str().unwrap_or("normal").to_owned();
    Package {
        name: text(&package["name"]),
        dependencies: each("dependencies").iter().map(|d| (text(&d["name"]), kind(d))).collect(),
        roots: each("targets").iter().map(|target| path(&target["src_path"])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_file_without_a_module_is_dead() {
        let package =
            Package { name: "x".to_owned(), dependencies: vec![], roots: vec!["relay/x/src/lib.rs".to_owned()] };
        let files = vec![
            file("relay/x/src/lib.rs", "pub mod a;\n// mod gone;\n#[path = \"odd.rs\"]\nmod b;\n"),
            file("relay/x/src/a.rs", "mod deep;\n"),
            file("relay/x/src/a/deep.rs", ""),
            file("relay/x/src/odd.rs", ""),
            file("relay/x/src/gone.rs", ""),
        ];
        let tree = Tree { packages: vec![package], files };
        assert_eq!(dead_files(&tree), ["relay/x/src/gone.rs is part of nothing"]);
    }

    #[test]
    fn tests_stand_last() {
        let text = "fn a() {}\n// fn b() {}\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
        let lines: Vec<usize> = file("relay/x/src/a.rs", text).production().map(|(n, _)| n).collect();
        assert_eq!(lines, [1]);
        assert_eq!(file("relay/x/tests/a.rs", text).production().count(), 0);
    }
}
