//! A way to compile Rust for a component on this machine: which compiler, whose standard library, which linker.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TARGET;
use crate::shell;

/// Debian's packages of a compiler and of its library's source, for machines whose toolchain has neither the target
/// nor the source.
pub(crate) const DEBIAN: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Where Debian puts its compiler.
const DEBIAN_COMPILER: &str = "/usr/bin/rustc";

/// Makes a component of what wasm-ld links.
const LINKER: &str = "wasm-component-ld";

/// The oldest compiler for the plugins, as their workspace says.
const OLDEST: (u32, u32) = (1, 95);

/// How to build a component.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// The compiler; `None`: cargo's own.
    compiler: Option<PathBuf>,
    /// Its folder of libraries and of their source.
    sysroot: PathBuf,
    /// Whether the standard library is built from source.
    from_source: bool,
    /// The linker.
    linker: PathBuf,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compiler = self.compiler.as_deref().unwrap_or(Path::new("rustc")).display();
        let library = if self.from_source { "built from its source in" } else { "ready in" };
        let (sysroot, linker) = (self.sysroot.display(), self.linker.display());
        write!(f, "components by {compiler}, the standard library {library} {sysroot}, linked by {linker}")
    }
}

impl Way {
    /// Looks for one. An error says what to install.
    pub(crate) fn find() -> Result<Self, String> {
        let own = Command::new("rustc");
        let linker = find_linker().ok_or("no linker for components: cargo install wasm-component-ld, and an lld")?;
        if let Some(sysroot) = sysroot_of(own) {
            let ready = sysroot.join("lib/rustlib").join(TARGET).is_dir();
            if ready || has_source(&sysroot) {
                return Ok(Self { compiler: None, sysroot, from_source: !ready, linker });
            }
        }
        let debian = is_recent(DEBIAN_COMPILER).then(|| sysroot_of(Command::new(DEBIAN_COMPILER))).flatten();
        match debian.filter(|sysroot| has_source(sysroot)) {
            Some(sysroot) => Ok(Self { compiler: Some(DEBIAN_COMPILER.into()), sysroot, from_source: true, linker }),
            None => Err(format!(
                "no standard library for components here; install one of\n      \
                 rustup target add {TARGET}\n      rustup component add rust-src\n      apt-get install {}",
                DEBIAN.join(" ")
            )),
        }
    }

    /// Has a cargo command take this way. No path of this machine becomes a part of what it makes.
    pub(super) fn apply(&self, cargo: &mut Command) {
        if let Some(compiler) = &self.compiler {
            cargo.env("RUSTC", compiler);
        }
        if self.from_source {
            cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
        }
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &self.linker);
        self.apply_path(cargo, &[]);
        let remaps = [(cargo_home(), "/cargo"), (self.sysroot.join("lib/rustlib/src/rust"), "/rust")];
        let flags = remaps.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    }

    /// Has a command find the linker of components and what is in other folders.
    pub(super) fn apply_path(&self, command: &mut Command, others: &[PathBuf]) {
        let folder = self.linker.parent().unwrap_or(Path::new("/"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [folder.to_owned(), folder.join("gcc-ld")].into_iter().chain(others.iter().cloned());
        if let Ok(path) = std::env::join_paths(folders.chain(std::env::split_paths(&path))) {
            command.env("PATH", path);
        }
    }
}

/// The linker of the toolchain, or one on the path.
fn find_linker() -> Option<PathBuf> {
    let own = sysroot_of(Command::new("rustc")).zip(host()).map(|(s, h)| s.join("lib/rustlib").join(h).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own.into_iter().chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(LINKER)).find(|linker| linker.is_file())
}

fn sysroot_of(mut compiler: Command) -> Option<PathBuf> {
    let said = shell::capture(compiler.args(["--print", "sysroot"])).ok()?.ok("rustc").ok()?;
    Some(PathBuf::from(said.trim()))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

/// This machine, as compilers call it.
fn host() -> Option<String> {
    let said = shell::capture(Command::new("rustc").arg("-vV")).ok()?.ok("rustc").ok()?;
    said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

fn is_recent(compiler: &str) -> bool {
    let said = shell::capture(Command::new(compiler).arg("-V"));
    said.is_ok_and(|ran| ran.code == Some(0) && version(&ran.text).is_some_and(|version| version >= OLDEST))
}

/// "rustc 1.96.0 (...)".
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("rustc ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cargo_home() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_too_old_is_seen() {
        assert!(version("rustc 1.96.0 (ac68faa20 2026-05-25)").is_some_and(|v| v >= OLDEST));
        assert!(version("rustc 1.63.0").is_some_and(|v| v < OLDEST));
        assert_eq!(version("gcc"), None);
    }
}
