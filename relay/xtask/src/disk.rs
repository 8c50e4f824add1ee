//! A disk of a test's own: an ext4 file system in a file, of which a copy is what is left when the machine ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// Nothing is written to the disk by the kernel's own leave while a copy is made: neither the journal's commits, which
/// come each 5 s otherwise, nor tables of inodes that were not zeroed. An error makes it read-only, as a server's does.
const OPTIONS: &str = "loop,commit=600,errors=remount-ro";

/// The disk. It is gone when this is dropped; a mount goes with the namespace in any case.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// A new and empty one.
    pub(crate) fn new(name: &str, mebibytes: u32) -> Result<Self, String> {
        let disk = Disk::folder(name)?;
        run("truncate", &["-s", &format!("{mebibytes}M"), &text(&disk.image())])?;
        let tables = ["-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run("mkfs.ext4", &[&["-q", "-F"], &tables[..], &[&text(&disk.image())]].concat())?;
        disk.mount()
    }

    /// What another one has on its medium at this moment. It is not mounted yet.
    pub(crate) fn copy(&self, name: &str) -> Result<Self, String> {
        let disk = Disk::folder(name)?;
        run("cp", &["--sparse=always", &text(&self.image()), &text(&disk.image())])?;
        Ok(disk)
    }

    /// Mounts it, which does what its journal says is to be done.
    pub(crate) fn mount(mut self) -> Result<Self, String> {
        run("mount", &["-t", "ext4", "-o", OPTIONS, &text(&self.image()), &text(&self.path())])?;
        self.is_mounted = true;
        Ok(self)
    }

    /// Finds a mistake on its medium: from now on it is read-only.
    pub(crate) fn fail(&self) -> Result<(), String> {
        let mut find = Command::new("findmnt");
        let device = shell::capture(find.args(["-n", "-o", "SOURCE"]).arg(self.path()))?.ok("findmnt")?;
        let name = device.trim().rsplit('/').next().unwrap_or_default();
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        std::fs::write(&trigger, "a test").map_err(|e| format!("{trigger}: {e}"))
    }

    /// Unmounted, repaired and mounted again.
    pub(crate) fn again(mut self) -> Result<Self, String> {
        run("umount", &[&text(&self.path())])?;
        self.is_mounted = false;
        // 1: mistakes were found and repaired.
        match shell::capture(Command::new("fsck.ext4").args(["-f", "-y"]).arg(self.image()))? {
            shell::Ran { code: Some(0 | 1), .. } => self.mount(),
            ran => Err(ran.complaint("fsck.ext4")),
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    fn folder(name: &str) -> Result<Self, String> {
        if !shell::is_root() {
            return Err("this mounts a file system, which takes root".to_owned());
        }
        let folder = std::env::temp_dir().join(format!("sluice-disk-{name}-{}", std::process::id()));
        let disk = Disk { folder, is_mounted: false };
        std::fs::create_dir_all(disk.path()).map_err(|e| format!("{}: {e}", disk.path().display()))?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted && run("umount", &[&text(&self.path())]).is_err() {
            // Whoever still uses it has it until its end; the name goes now.
            let _ = run("umount", &["--lazy", &text(&self.path())]);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    shell::capture(Command::new(program).args(arguments))?.ok(program).map(drop)
}
