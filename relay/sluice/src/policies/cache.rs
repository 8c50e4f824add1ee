//! Where compiled plugins are kept: code that the relay will run, so nobody else may write there.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sluice_config::{Directory, Policy};

use crate::cli::Failure;

/// The configured folder, or the first of the service manager's; `None`: nothing is kept.
///
/// # Errors
/// It is not the relay's alone: what to do about it.
pub(crate) fn folder(policy: &Policy) -> Result<Option<PathBuf>, Failure> {
    let path = match &policy.cache_directory {
        Directory::At(path) => path.clone(),
        Directory::Auto => {
            let folders = std::env::var("CACHE_DIRECTORY").unwrap_or_default();
            match folders.split(':').next().filter(|folder| folder.starts_with('/')) {
                Some(folder) => PathBuf::from(folder),
                None => return Ok(None),
            }
        }
    };
    own(&path).map_err(|error| format!("policy.cache_directory: {}: {error}", path.display()))?;
    Ok(Some(path))
}

/// Makes the folder, or looks whether one that is there is ours alone.
fn own(path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| error.to_string();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_dir() {
        return Err("a link: name the folder that it leads to".to_owned());
    }
    if found.mode() & 0o077 != 0 {
        let mode = found.mode() & 0o777;
        return Err(format!(
            "others may get in (mode {mode:o}), and what is in it is run: chmod 0700, after a look inside"
        ));
    }
    ours_all_the_way(path)?;
    // What is made here belongs to whoever the system takes this process for.
    let probe = path.join(format!(".whose-{}", std::process::id()));
    let made =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe).and_then(|file| file.metadata());
    let _ = std::fs::remove_file(&probe);
    match made.map_err(failed)?.uid() == found.uid() {
        true => Ok(()),
        false => Err("belongs to another user, who could put code there: give it to the relay's user, or name another"
            .to_owned()),
    }
}

/// Whoever may write in a folder above could put another one in this one's place.
fn ours_all_the_way(path: &Path) -> Result<(), Failure> {
    let whole = path.canonicalize().map_err(|error| error.to_string())?;
    // In a namespace of users root may have another number, and the root folder is still root's.
    let of = |folder: &Path| std::fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()));
    let (root, own) = (of(Path::new("/"))?.uid(), of(&whole)?.uid());
    for above in whole.ancestors().skip(1) {
        let found = of(above)?;
        let is_sticky = found.mode() & 0o1000 != 0;
        if (found.uid() != root && found.uid() != own) || (found.mode() & 0o022 != 0 && !is_sticky) {
            let (mode, above) = (found.mode() & 0o7777, above.display());
            return Err(format!(
                "others may put another folder in its place, for they may write in {above} (owner {}, mode {mode:o}): \
                 name a folder whose way there is root's or the relay's alone",
                found.uid()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn at(path: &Path) -> Result<Option<PathBuf>, Failure> {
        folder(&Policy { cache_directory: Directory::At(path.to_owned()), ..Policy::default() })
    }

    #[test]
    fn the_folder_is_made_for_the_relay_alone_and_one_that_others_may_use_is_refused() {
        let scratch = std::env::temp_dir().join(format!("sluice-cache-{}", std::process::id()));
        let path = scratch.join("a/b");
        assert_eq!(at(&path), Ok(Some(path.clone())));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        let link = scratch.join("link");
        symlink(&path, &link).unwrap();
        let linked = at(&link).unwrap_err();
        std::fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        let open = at(&path).unwrap_err();
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        std::fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o770)).unwrap();
        let above = at(&path).unwrap_err();
        std::fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o1777)).unwrap();
        let sticky = at(&path);
        std::fs::remove_dir_all(scratch).unwrap();
        assert!(above.contains("another folder in its place") && above.contains("mode 770"), "{above}");
        assert_eq!(sticky, Ok(Some(path)));
        assert!(linked.contains("policy.cache_directory") && linked.contains("a link"), "{linked}");
        assert!(open.contains("mode 750") && open.contains("chmod 0700"), "{open}");
    }
}
