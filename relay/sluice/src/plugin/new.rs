//! `sluice plugin new NAME`: a project of a policy, with the interface and the kit of the very version of this program.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::banner;
use crate::cli::Failure;

/// Options of `sluice plugin new`.
#[derive(Args, Debug)]
pub(crate) struct NewArgs {
    /// Its name: small letters, digits and hyphens.
    #[arg(value_parser = name_of_a_plugin)]
    name: String,
    /// Where to make its folder; without it here.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    into: PathBuf,
}

macro_rules! plugins {
    ($file:literal) => {
        include_str!(concat!("../../../../plugins/", $file))
    };
}

macro_rules! wit {
    ($file:literal) => {
        ($file, include_str!(concat!("../../../../", $file)))
    };
}

/// Manifest of the workspace of plugins, and of the one that the project is made of.
const WORKSPACE: &str = plugins!("Cargo.toml");
const TEMPLATE: &str = plugins!("template/Cargo.toml");

/// Files that are the same in every project.
const FILES: &[(&str, &str)] = &[
    wit!("wit/README.md"),
    wit!("wit/hooks.wit"),
    wit!("wit/host.wit"),
    wit!("wit/types.wit"),
    wit!("wit/worlds.wit"),
    ("vendor/sdk/Cargo.toml", plugins!("sdk/Cargo.toml")),
    ("vendor/sdk/src/document.rs", plugins!("sdk/src/document.rs")),
    ("vendor/sdk/src/host.rs", plugins!("sdk/src/host.rs")),
    ("vendor/sdk/src/lib.rs", plugins!("sdk/src/lib.rs")),
    ("cases/admission.json", plugins!("template/cases/admission.json")),
    (".cargo/config.toml", plugins!("template/.cargo/config.toml")),
    (".gitignore", "/target/\n"),
    // The versions that were tried.
    ("Cargo.lock", plugins!("Cargo.lock")),
];

/// Writes the project.
pub(super) fn run(args: &NewArgs) -> Result<(), Failure> {
    let folder = args.into.join(&args.name);
    if folder.exists() {
        return Err(format!("{} is there already: choose another name, or --into", folder.display()));
    }
    for (path, text) in files(&args.name) {
        write(&folder.join(path), &text)?;
    }
    banner::say(&format!("{}: a policy. Next: {}\n", folder.display(), folder.join("README.md").display()));
    Ok(())
}

/// Paths and texts of a project's files.
fn files(name: &str) -> Vec<(&'static str, String)> {
    let same = FILES.iter().map(|(path, text)| (*path, (*text).to_owned()));
    let own = [
        ("Cargo.toml", manifest(name)),
        ("src/lib.rs", plugins!("template/src/lib.rs").replace("\"../../wit\"", "\"wit\"")),
        ("README.md", plugins!("template/README.md").replacen("# template", &format!("# {name}"), 1)),
    ];
    same.chain(own).collect()
}

/// The project is a workspace of its own, with the kit in it.
fn manifest(name: &str) -> String {
    let line = |line: &str| match line {
        line if line.starts_with('#') => None,
        line if line.starts_with("members = ") => Some("members = [\"vendor/sdk\"]".to_owned()),
        line => Some(line.replace("{ path = \"sdk\" }", "{ path = \"vendor/sdk\" }")),
    };
    let workspace: Vec<String> = WORKSPACE.lines().filter_map(line).collect();
    let package = TEMPLATE.replacen("name = \"template\"", &format!("name = \"{name}\""), 1);
    format!("{package}\n{}\n", workspace.join("\n").trim())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    std::fs::write(path, text).map_err(failed)
}

fn name_of_a_plugin(name: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if starts_well && name.len() <= 40 && name.bytes().all(is_plain) {
        Ok(name.to_owned())
    } else {
        Err("a name has up to 40 small letters, digits and hyphens, and begins with a letter".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_every_file_of_the_interface_and_of_the_kit() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let files = files("mine");
        for (folder, into, ending) in [("wit", "wit", "wit"), ("plugins/sdk/src", "vendor/sdk/src", "rs")] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let wanted = format!("{into}/{name}");
                let is_there = files.iter().any(|(path, _)| *path == wanted);
                assert!(is_there || !name.ends_with(ending), "{wanted} is missing");
            }
        }
    }

    #[test]
    fn a_project_is_a_workspace_of_its_own() {
        let manifest = manifest("mine");
        assert!(manifest.starts_with("[package]\nname = \"mine\"\n"), "{manifest}");
        assert!(manifest.contains("members = [\"vendor/sdk\"]") && manifest.contains("path = \"vendor/sdk\""));
        assert!(!manifest.contains("geofence") && !manifest.contains("template"), "{manifest}");
    }

    #[test]
    fn a_name_is_one_that_a_crate_and_a_file_can_have() {
        assert!(name_of_a_plugin("office-hours-2").is_ok());
        for wrong in ["", "Mine", "2nd", "-a", "a_b", "a/b", "../a", "ä"] {
            assert!(name_of_a_plugin(wrong).is_err(), "{wrong}");
        }
    }
}
