//! Configurations on a disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sluice_config::Config;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sluice-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const START: &str = "[[listen]]\naddress = \"0.0.0.0:3478\"\nrealm = \"example.org\"\n[[tenant]]\nname = \"default\"\n";

fn error(path: &Path) -> String {
    Config::load(path, &[]).unwrap_err().to_string()
}

#[test]
fn a_secret_file_stands_beside_the_configuration() {
    let folder = Folder::new("beside");
    folder.file("turn-secret", b"very secret\n", 0o600);
    let path = folder.file("sluice.toml", format!("{START}secrets = [{{ file = \"turn-secret\" }}]").as_bytes(), 0o644);
    let config = Config::load(&path, &[]).unwrap();
    assert_eq!(config.tenants[0].secrets[0].expose(), "very secret");
    assert!(config.warnings.is_empty());
}

#[test]
fn a_secret_that_everybody_may_read_is_refused() {
    let folder = Folder::new("open");
    folder.file("turn-secret", b"very secret\n", 0o644);
    let path = folder.file("sluice.toml", format!("{START}secrets = [{{ file = \"turn-secret\" }}]").as_bytes(), 0o600);
    let text = error(&path);
    assert!(text.contains("chmod o-rwx") && text.contains(":6:"), "{text}");
}

#[test]
fn a_secret_inside_a_file_that_everybody_may_read_is_warned_of() {
    let folder = Folder::new("inline");
    let text = format!("{START}secrets = [{{ value = \"very secret\" }}]");
    let open = folder.file("open.toml", text.as_bytes(), 0o644);
    assert_eq!(Config::load(&open, &[]).unwrap().warnings.len(), 1);
    let closed = folder.file("closed.toml", text.as_bytes(), 0o640);
    assert!(Config::load(&closed, &[]).unwrap().warnings.is_empty());
}

#[test]
fn what_is_no_configuration_is_refused_in_words() {
    let folder = Folder::new("other");
    assert!(error(&folder.0).contains("is not a regular file"));
    assert!(error(&folder.0.join("gone.toml")).contains("entity not found"));
    assert!(error(&folder.file("binary", &[0xff, 0xfe, 0], 0o600)).contains("is not UTF-8 text"));
    let long = folder.file("long", &vec![b'#'; 1024 * 1024 + 1], 0o600);
    assert!(error(&long).contains("is longer than 1048576 bytes"));
}
