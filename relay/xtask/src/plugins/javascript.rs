//! The example of a plugin in JavaScript: its tool comes from npm, by the example's own package.json.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{copy_folder, ship_cases};
use crate::shell;

/// Where the example is.
const EXAMPLE: &str = "plugins/examples/javascript";

/// Its name.
const NAME: &str = "opening-hours";

/// Makes the component, by what its README says: the same folders stand in the build folder, where the tool is.
pub(super) fn build(into: &Path) -> Result<PathBuf, String> {
    let example = shell::root().join(EXAMPLE);
    let tools = install(&example)?;
    let copy = tools.join(EXAMPLE);
    copy_folder(&shell::root().join("wit"), &tools.join("wit"))?;
    copy_folder(&example, &copy)?;
    let mut npm = Command::new("npm");
    npm.current_dir(&copy).args(["run", "build", "--silent"]);
    shell::capture(&mut npm)?.ok("npm run build")?;
    let component = into.join(format!("{NAME}.wasm"));
    let from = copy.join(format!("{NAME}.wasm"));
    std::fs::create_dir_all(into).map_err(|e| format!("{}: {e}", into.display()))?;
    std::fs::copy(&from, &component).map_err(|e| format!("{}: {e}", from.display()))?;
    ship_cases(&example, NAME, into)?;
    Ok(component)
}

/// The folder of the tool, of the version that package.json names.
fn install(example: &Path) -> Result<PathBuf, String> {
    let folder = shell::target().join("tools/javascript");
    let wanted = example.join("package.json");
    let text = std::fs::read_to_string(&wanted).map_err(|e| format!("{}: {e}", wanted.display()))?;
    let tool = folder.join("node_modules/.bin/componentize-qjs");
    // Written last, so that an installation that broke off is made again.
    let mark = folder.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == text) && tool.is_file() {
        return Ok(folder);
    }
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::write(folder.join("package.json"), &text).map_err(failed)?;
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]);
    shell::capture(&mut npm)?.ok("npm install")?;
    std::fs::write(&mark, text).map_err(failed)?;
    Ok(folder)
}
