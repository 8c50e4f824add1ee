//! config.example.toml says what the code does.

use std::path::{Path, PathBuf};

use crate::parse::{self, SECTIONS};
use crate::{Config, ReadError, SecretFile, Sources};

const EXAMPLE: &str = include_str!("../../../config.example.toml");

/// Every secret that the example names exists.
struct AnySecret;

impl Sources for AnySecret {
    fn secret_file(&self, _path: &Path) -> Result<SecretFile, ReadError> {
        Ok(SecretFile { bytes: b"secret\n".to_vec(), mode: 0o100_640 })
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        Some(PathBuf::from("/credentials"))
    }
}

/// The example with its commented keys and sections, which start with `#` and no space.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest,
        // What the examples need that is off by default.
        _ if line == "records = false" => "records = true",
        _ => line,
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// All keys of a section of the file, over all tables of that name.
fn keys_of(table: &toml::Table, section: &str) -> Vec<String> {
    let mut tables = vec![table];
    for name in section.split('.').filter(|name| !name.is_empty()) {
        let values = tables.iter().filter_map(|table| table.get(name));
        tables = values
            .flat_map(|value| match value {
                toml::Value::Array(values) => values.iter().filter_map(|v| v.as_table()).collect(),
                value => value.as_table().into_iter().collect::<Vec<_>>(),
            })
            .collect();
    }
    tables.iter().flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn what_it_sets_is_the_default() {
    let (config, problems, _) = parse::config(EXAMPLE, "config.example.toml", &[], &AnySecret);
    let missing: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(missing, ["tenant", "listen"], "{problems:#?}");
    assert_eq!(format!("{config:#?}"), format!("{:#?}", Config::default()));
}

#[test]
fn its_examples_are_valid() {
    let config = Config::parse(&uncommented(), "config.example.toml", &[], &AnySecret).unwrap();
    assert_eq!((config.listen.len(), config.relay.len(), config.tenants.len()), (1, 1, 2));
    assert_eq!(config.tenants[0].secrets.len(), 2);
    assert_eq!(config.tenants[1].limits.user.allocations, Some(16));
}

#[test]
fn it_has_every_key() {
    let table: toml::Table = uncommented().parse().unwrap();
    for (section, keys) in SECTIONS {
        let present = keys_of(&table, section);
        for key in *keys {
            assert!(present.iter().any(|p| p == key), "config.example.toml lacks {section}.{key}");
        }
    }
}

#[test]
fn every_key_without_an_example_section_is_set() {
    let set: toml::Table = EXAMPLE.parse().unwrap();
    for (section, keys) in SECTIONS {
        let has_no_default = matches!(section.split('.').next(), Some("listen" | "relay" | "plugin" | "tenant"));
        let has_no_default = has_no_default || matches!(*section, "spool.sink" | "geo.set");
        let present = keys_of(&set, section);
        let is_list = |key: &&&str| matches!(**key, "listen" | "relay" | "sink" | "plugin" | "set" | "tenant");
        for key in keys.iter().filter(|key| !has_no_default && !is_list(key)) {
            assert!(present.iter().any(|p| p == key), "config.example.toml does not set {section}.{key}");
        }
    }
}

#[test]
fn the_line_above_every_key_explains_it() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let is_key = |line: &str| {
        line.trim_start_matches('#').split_once(" = ").is_some_and(|(key, _)| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !line.starts_with("# ")
        })
    };
    let mut explained = std::collections::HashSet::new();
    for (above, line) in lines.iter().zip(&lines[1..]).filter(|(_, line)| is_key(line)) {
        let key = line.trim_start_matches('#').split(' ').next();
        // A second example of the same key needs no second explanation.
        assert!(above.starts_with("# ") || above.starts_with("#  ") || explained.contains(&key), "unexplained: {line}");
        explained.insert(key);
    }
    assert!(explained.len() > 40);
}
