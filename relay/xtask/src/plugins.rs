//! `cargo xtask plugins`: components of what is in plugins/, at target/plugins/NAME.wasm, with their recorded cases
//! beside them in NAME.cases.

mod c;
mod javascript;
mod way;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::report::Report;
use crate::test::count_tests;
use crate::{install, shell};

pub(crate) use way::{DEBIAN, Way};

/// The machine of a component.
const TARGET: &str = "wasm32-unknown-unknown";

/// The workspace of the plugins.
const WORKSPACE: &str = "plugins/Cargo.toml";

/// Options of `cargo xtask plugins`.
#[derive(clap::Args, Debug)]
pub(crate) struct PluginsArgs {
    /// Build this project in place of the repository's own plugins
    #[arg(long, value_name = "FOLDER")]
    project: Option<PathBuf>,
    /// Only say how a component can be built here, or what to install
    #[arg(long)]
    way: bool,
}

/// A plugin as cargo knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plugin {
    /// Its package.
    name: String,
    /// The file that cargo makes.
    file: String,
    /// Its folder.
    folder: PathBuf,
}

/// Builds the components.
pub(crate) fn run(args: &PluginsArgs) -> Result<(), String> {
    let way = Way::find()?;
    println!("{way}");
    if args.way {
        return Ok(());
    }
    let built = match &args.project {
        None => build_ours(&way)?,
        Some(folder) => build(&way, &folder.join("Cargo.toml"), &folder.join("target"), &components())?,
    };
    for path in built {
        let size = std::fs::metadata(&path).map_err(|e| format!("{}: {e}", path.display()))?.len();
        println!("{} ({size} bytes)", path.display());
    }
    Ok(())
}

/// Every component that tests of the relay ask for, in whatever language it is written.
pub(crate) fn all() -> Result<(), String> {
    build_ours(&Way::find()?)?;
    javascript::build(&components()).map(drop)
}

/// The gate's part: they are formatted, free of warnings, tested natively, and become components; and so does what
/// their authors' guide makes.
pub(crate) fn test(report: &Report) -> Result<(), String> {
    let manifest = workspace();
    shell::show(cargo("fmt", &manifest).args(["--all", "--check"]))?;
    shell::show(in_target("clippy").args(["--release", "--locked", "--all-targets", "--", "-D", "warnings"]))?;
    count_tests(report, in_target("test").args(["--release", "--locked", "--no-fail-fast"]))?;
    let way = Way::find()?;
    build_ours(&way)?;
    report.test("plugins: a new project becomes a component, as its guide says", || new_project(&way));
    report.test("plugins: JavaScript becomes a component, as its guide says", || {
        let component = javascript::build(&components())?;
        as_the_guide_says(&component, &component.with_extension("cases"), "opening-hours")
    });
    report.test("plugins: recorded cases, on a host of others", cases);
    Ok(())
}

/// Every component that has cases meets them.
fn cases() -> Result<(), String> {
    let folder = components();
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut python = Command::new(install::python_program());
    python.arg(shell::root().join("tests/plugins/cases.py"));
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "cases") {
            python.arg(path.with_extension("wasm")).arg(path);
        }
    }
    let said = shell::capture(&mut python)?.ok("cases.py")?;
    println!("      {}", said.trim());
    Ok(())
}

/// Two builds from two folders give the same bytes. Takes a build from nothing.
pub(crate) fn are_reproducible() -> Result<(), String> {
    let copy = shell::target().join("plugins-copy");
    let _ = std::fs::remove_dir_all(&copy);
    for folder in ["plugins", "wit"] {
        copy_folder(&shell::root().join(folder), &copy.join(folder))?;
    }
    let way = Way::find()?;
    let ours = build_ours(&way)?;
    let others = build(&way, &copy.join(WORKSPACE), &copy.join("target"), &copy.join("components"))?;
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    for (one, other) in ours.iter().zip(&others) {
        if read(one)? != read(other)? {
            return Err(format!("{} and {} differ", one.display(), other.display()));
        }
    }
    if ours.len() == others.len() { Ok(()) } else { Err(format!("{} and {} components", ours.len(), others.len())) }
}

/// `sluice plugin check` and `sluice plugin test`, on a component of that name that decides who is admitted.
fn as_the_guide_says(component: &Path, cases: &Path, name: &str) -> Result<(), String> {
    let sluice = |words: &[&str]| {
        let mut command = Command::new(shell::target().join("release/sluice"));
        command.arg("plugin").args(words);
        command
    };
    let said = shell::capture(sluice(&["check", "--json"]).arg(component))?.ok("sluice plugin check")?;
    let checked: Value = serde_json::from_str(&said).map_err(|e| format!("{e} in {said}"))?;
    let hooks = serde_json::json!(["allocate", "permit-peers"]);
    let reads_settings = checked["calls"]
        .as_array()
        .is_some_and(|calls| calls.iter().any(|call| call.as_str().is_some_and(|call| call.starts_with("settings."))));
    let is_ours = checked["name"] == name && checked["interface"] == "sluice:policy@0.0.1" && reads_settings;
    if !is_ours || checked["hooks"] != hooks || checked["grants"] != serde_json::json!([]) {
        return Err(format!("it is another one than was built: {said}"));
    }
    let said = shell::capture(sluice(&["test"]).arg(component).arg("--cases").arg(cases))?.ok("sluice plugin test")?;
    println!("      {}", said.lines().last().unwrap_or_default());
    let shows = |part: &str| said.contains(part);
    // For each question: the answer, what it took, and how it went.
    match ["ok  ", "\"allow\"", "\"deny\"", " us, ", " KiB, ", " of fuel) "].iter().all(|part| shows(part)) {
        true => Ok(()),
        false => Err(format!("it does not say how the cases went:\n{said}")),
    }
}

/// The example in Python, by what its README says. It takes a minute, for a Python is compiled each time.
pub(crate) fn python() -> Result<(), String> {
    let (example, name) = (shell::root().join("plugins/examples/python"), "networks");
    let component = components().join(format!("{name}.wasm"));
    let mut componentize = Command::new(install::componentize_py_program());
    componentize.arg("-d").arg(shell::root().join("wit")).args(["-w", "admission-policy", "componentize"]);
    componentize.args(["--stub-wasi", "-p"]).arg(&example).arg("-o").arg(&component).arg(name);
    shell::capture(&mut componentize)?.ok("componentize-py")?;
    as_the_guide_says(&component, &example.join("cases"), name)
}

/// The example in C, by what its README says.
pub(crate) fn c() -> Result<(), String> {
    as_the_guide_says(&c::build(&components())?, &c::cases(), c::NAME)
}

/// What `sluice plugin new` writes becomes a component, and its own tests pass.
fn new_project(way: &Way) -> Result<(), String> {
    let (folder, name) = (shell::target().join("plugins-new"), "first-policy");
    let _ = std::fs::remove_dir_all(&folder);
    let mut sluice = Command::new(shell::target().join("release/sluice"));
    shell::capture(sluice.args(["plugin", "new", name, "--into"]).arg(&folder))?.ok("sluice plugin new")?;
    let manifest = folder.join(name).join("Cargo.toml");
    // Where ours were built: what they have alike is not built again.
    shell::show(in_folder("test", &manifest, &built()).args(["--release", "--package", name]))?;
    let [component] = &build(way, &manifest, &built(), &folder)?[..] else {
        return Err("a project is one component".to_owned());
    };
    as_the_guide_says(component, &folder.join(name).join("cases"), name)
}

fn build_ours(way: &Way) -> Result<Vec<PathBuf>, String> {
    build(way, &workspace(), &built(), &components())
}

/// Makes the components of a workspace and puts them and their cases into a folder.
fn build(way: &Way, manifest: &Path, target: &Path, into: &Path) -> Result<Vec<PathBuf>, String> {
    let plugins = plugins(manifest)?;
    let mut cargo = in_folder("build", manifest, target);
    way.apply(&mut cargo);
    cargo.args(["--release", "--target", TARGET]);
    cargo.args(plugins.iter().flat_map(|plugin| ["--package", &plugin.name]));
    shell::show(&mut cargo)?;
    let made = target.join(TARGET).join("release");
    std::fs::create_dir_all(into).map_err(|e| format!("{}: {e}", into.display()))?;
    plugins.iter().map(|plugin| ship(plugin, &made, into)).collect()
}

fn ship(plugin: &Plugin, made: &Path, into: &Path) -> Result<PathBuf, String> {
    let component = into.join(format!("{}.wasm", plugin.name));
    let from = made.join(&plugin.file);
    std::fs::copy(&from, &component).map_err(|e| format!("{}: {e}", from.display()))?;
    ship_cases(&plugin.folder, &plugin.name, into)?;
    Ok(component)
}

/// Puts the cases of a plugin beside its component.
fn ship_cases(folder: &Path, name: &str, into: &Path) -> Result<(), String> {
    let cases = into.join(format!("{name}.cases"));
    let _ = std::fs::remove_dir_all(&cases);
    if folder.join("cases").is_dir() { copy_folder(&folder.join("cases"), &cases) } else { Ok(()) }
}

/// Packages of a workspace that become components.
fn plugins(manifest: &Path) -> Result<Vec<Plugin>, String> {
    let mut cargo = shell::cargo();
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = cargo.output().map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let value: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = value["packages"].as_array().ok_or("cargo metadata tells of no packages")?;
    Ok(packages.iter().filter_map(plugin).collect())
}

fn plugin(package: &Value) -> Option<Plugin> {
    let is_library = |target: &&Value| target["crate_types"].as_array().is_some_and(|t| t.contains(&"cdylib".into()));
    let library = package["targets"].as_array()?.iter().find(is_library)?["name"].as_str()?;
    Some(Plugin {
        name: package["name"].as_str()?.to_owned(),
        file: format!("{}.wasm", library.replace('-', "_")),
        folder: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
    })
}

fn cargo(task: &str, manifest: &Path) -> Command {
    let mut cargo = shell::cargo();
    cargo.arg(task).arg("--manifest-path").arg(manifest);
    cargo
}

/// The same where it is said where to build.
fn in_folder(task: &str, manifest: &Path, target: &Path) -> Command {
    let mut cargo = cargo(task, manifest);
    cargo.arg("--target-dir").arg(target);
    cargo
}

/// The same of our own plugins.
fn in_target(task: &str) -> Command {
    in_folder(task, &workspace(), &built())
}

fn workspace() -> PathBuf {
    shell::root().join(WORKSPACE)
}

/// Where cargo builds our own.
fn built() -> PathBuf {
    shell::target().join("plugins-build")
}

/// Where components are for others to find.
fn components() -> PathBuf {
    shell::target().join("plugins")
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", from.display());
    std::fs::create_dir_all(to).map_err(|e| format!("{}: {e}", to.display()))?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().filter(|name| *name != "target") else { continue };
        if path.is_dir() {
            copy_folder(&path, &to.join(name))?;
        } else {
            std::fs::copy(&path, to.join(name)).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_a_package_whose_library_is_for_another_host() {
        let package = |kind: &str| {
            serde_json::json!({
                "name": "log-minimisation", "manifest_path": "/p/log/Cargo.toml",
                "targets": [{"name": "log_minimisation", "crate_types": [kind]}],
            })
        };
        let expected = Plugin {
            name: "log-minimisation".to_owned(),
            file: "log_minimisation.wasm".to_owned(),
            folder: PathBuf::from("/p/log"),
        };
        assert_eq!(plugin(&package("cdylib")), Some(expected));
        assert_eq!(plugin(&package("lib")), None);
    }
}
