//! The example of a plugin in JavaScript: its tool comes from npm, by the example's own package.json.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::ship_cases;
use crate::shell;

/// Where the example is.
const EXAMPLE: &str = "plugins/examples/javascript";

/// Its name.
const NAME: &str = "opening-hours";

/// Makes the component.
pub(super) fn build(into: &Path) -> Result<PathBuf, String> {
    let example = shell::root().join(EXAMPLE);
    let tool = install(&example)?;
    std::fs::create_dir_all(into).map_err(|e| format!("{}: {e}", into.display()))?;
    let component = into.join(format!("{NAME}.wasm"));
    let mut componentize = Command::new(tool);
    componentize.arg("--wit").arg(shell::root().join("wit")).args(["--world", "admission-policy"]);
    componentize.args(["--stub-wasi", "--sync", "--opt-size"]).arg("--js").arg(example.join(format!("{NAME}.js")));
    shell::capture(componentize.arg("--output").arg(&component))?.ok("componentize-qjs")?;
    ship_cases(&example, NAME, into)?;
    Ok(component)
}

/// The tool, in the build folder, of the version that package.json names.
fn install(example: &Path) -> Result<PathBuf, String> {
    let folder = shell::target().join("tools/javascript");
    let wanted = example.join("package.json");
    let text = std::fs::read_to_string(&wanted).map_err(|e| format!("{}: {e}", wanted.display()))?;
    let tool = folder.join("node_modules/.bin/componentize-qjs");
    // Written last, so that an installation that broke off is made again.
    let mark = folder.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == text) && tool.is_file() {
        return Ok(tool);
    }
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::write(folder.join("package.json"), &text).map_err(failed)?;
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]);
    shell::capture(&mut npm)?.ok("npm install")?;
    std::fs::write(&mark, text).map_err(failed)?;
    Ok(tool)
}
