//! A database that is read again when its file changes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::database::{Database, GeoError};

/// A file, and what was last read of it.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    stamp: Stamp,
    current: Arc<Database>,
}

/// What tells one content of a file from the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds of the last change.
    changed: (i64, i64),
}

impl Source {
    /// Reads the database for the first time.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn open(path: &Path) -> Result<Self, GeoError> {
        // The stamp first: what changes while it is read is seen at the next look.
        let stamp = stamp(path)?;
        let current = Arc::new(Database::open(path)?);
        Ok(Source { path: path.to_owned(), stamp, current })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of the content that was last read, or tried.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// What was last read.
    pub fn database(&self) -> Arc<Database> {
        self.current.clone()
    }

    /// Reads the file again if it has changed; whether it has.
    ///
    /// # Errors
    /// The new content cannot be used; the former one goes on, and the same content is not tried again.
    pub fn look(&mut self) -> Result<bool, GeoError> {
        let stamp = stamp(&self.path)?;
        if stamp == self.stamp {
            return Ok(false);
        }
        self.stamp = stamp;
        self.current = Arc::new(Database::open(&self.path)?);
        Ok(true)
    }
}

fn stamp(path: &Path) -> Result<Stamp, GeoError> {
    let unreadable = |error| GeoError::Unreadable { path: path.display().to_string(), error };
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    let changed = (meta.mtime(), meta.mtime_nsec());
    Ok(Stamp { device: meta.dev(), inode: meta.ino(), length: meta.len(), changed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Place;
    use crate::write::Writer;
    use sluice_base::Pii;

    /// A file of its own, gone at the end.
    struct File(PathBuf);

    impl File {
        fn new(name: &str) -> Self {
            File(std::env::temp_dir().join(format!("sluice-geo-{name}-{}.mmdb", std::process::id())))
        }

        fn write(&self, country: &str) {
            let mut writer = Writer::new(1);
            let place = Place { country: Some(country.to_owned()), ..Place::default() };
            writer.insert("10.0.0.0".parse().unwrap(), 8, &place);
            let other = self.0.with_extension("new");
            std::fs::write(&other, writer.bytes()).unwrap();
            std::fs::rename(other, &self.0).unwrap();
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn country(source: &Source) -> String {
        let ip = Pii::new("10.1.2.3".parse().unwrap());
        source.database().place(ip).country.unwrap_or_default()
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_one_that_does_not_is_not() {
        let file = File::new("change");
        file.write("DE");
        let mut source = Source::open(&file.0).unwrap();
        assert!(!source.look().unwrap());
        file.write("FR");
        assert!(source.look().unwrap());
        assert_eq!(country(&source), "FR");
        assert!(!source.look().unwrap());
    }

    #[test]
    fn what_was_read_stays_when_the_file_is_damaged_or_gone() {
        let file = File::new("damage");
        file.write("DE");
        let mut source = Source::open(&file.0).unwrap();
        std::fs::write(&file.0, b"nonsense").unwrap();
        assert!(source.look().is_err());
        std::fs::remove_file(&file.0).unwrap();
        assert!(source.look().is_err());
        assert_eq!(country(&source), "DE");
    }
}
