//! The example of a plugin in C: a clang, the linker for components, and bindings by a tool that cargo installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Way, copy_folder};
use crate::{install, shell};

/// Where the example is.
const EXAMPLE: &str = "plugins/examples/c";

/// Its name.
pub(super) const NAME: &str = "closed-circle";

/// The version of `wit-bindgen-cli` that its README names, which is that of the plugins in Rust.
const BINDINGS: &str = "0.61.1";

/// Makes the component, by what its README says: the same folders stand in the build folder.
pub(super) fn build(into: &Path) -> Result<PathBuf, String> {
    let tools = bindings()?;
    install::debian_program("clang", "clang")?;
    let folder = shell::target().join("tools/c");
    let copy = folder.join(EXAMPLE);
    copy_folder(&shell::root().join("wit"), &folder.join("wit"))?;
    copy_folder(&shell::root().join(EXAMPLE), &copy)?;
    let mut script = Command::new(copy.join("build.sh"));
    Way::find()?.apply_path(&mut script, &[tools]);
    shell::capture(&mut script)?.ok("build.sh")?;
    let (from, component) = (copy.join(format!("{NAME}.wasm")), into.join(format!("{NAME}.wasm")));
    std::fs::create_dir_all(into).map_err(|e| format!("{}: {e}", into.display()))?;
    std::fs::copy(&from, &component).map_err(|e| format!("{}: {e}", from.display()))?;
    Ok(component)
}

/// The cases of the example.
pub(super) fn cases() -> PathBuf {
    shell::root().join(EXAMPLE).join("cases")
}

/// The folder of the tool that writes bindings. To compile it takes minutes, the first time.
fn bindings() -> Result<PathBuf, String> {
    let root = shell::target().join("tools/wit-bindgen");
    let mut cargo = shell::cargo();
    cargo.args(["install", "--quiet", "--locked", "--no-default-features", "--features", "c", "--root"]).arg(&root);
    shell::capture(cargo.arg(format!("wit-bindgen-cli@{BINDINGS}")))?.ok("cargo install wit-bindgen-cli")?;
    Ok(root.join("bin"))
}
