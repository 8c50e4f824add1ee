//! Where the configuration and its secrets come from.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sluice_base::limits;

/// What parsing needs from outside.
pub trait Sources {
    /// Reads the file of a secret, at most [`SECRET_BYTES_MAX`](limits::SECRET_BYTES_MAX) bytes.
    ///
    /// # Errors
    /// [`ReadError`].
    fn secret_file(&self, path: &Path) -> Result<SecretFile, ReadError>;

    /// The folder that the service manager put credentials into (`$CREDENTIALS_DIRECTORY`).
    fn credentials_directory(&self) -> Option<PathBuf>;
}

/// A secret's file.
#[derive(Clone)]
pub struct SecretFile {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// Why a file could not be read. Says nothing of its content.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system refused.
    #[error("cannot be read: {0}")]
    Refused(io::ErrorKind),
    /// A folder, a pipe, a device.
    #[error("is not a regular file")]
    NotAFile,
    /// It is longer than it may be.
    #[error("is longer than {0} bytes: is this the right file?")]
    TooLong(u64),
    /// It is not text.
    #[error("is not UTF-8 text")]
    NotText,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Refused(error.kind())
    }
}

/// This machine's files and this process's environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Sources for System {
    fn secret_file(&self, path: &Path) -> Result<SecretFile, ReadError> {
        let (bytes, mode) = read(path, limits::SECRET_BYTES_MAX)?;
        Ok(SecretFile { bytes, mode })
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
    }
}

/// Every secret is there, and none is read: to whom a configuration is of interest for something else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unread;

impl Sources for Unread {
    fn secret_file(&self, path: &Path) -> Result<SecretFile, ReadError> {
        // Two are not the same, as two files are not.
        Ok(SecretFile { bytes: path.display().to_string().escape_debug().to_string().into_bytes(), mode: 0o600 })
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        Some(PathBuf::from("credentials"))
    }
}

/// The text of a configuration file, as long as one may be.
///
/// # Errors
/// [`ReadError`].
pub fn config_text(path: &Path) -> Result<String, ReadError> {
    config_file(path).map(|(text, _)| text)
}

/// The text and the permission bits of a configuration file.
pub(crate) fn config_file(path: &Path) -> Result<(String, u32), ReadError> {
    let (bytes, mode) = read(path, limits::CONFIG_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText)?;
    Ok((text, mode))
}

/// Whether a file is open to users that are neither its owner nor of its group.
pub(crate) const fn others_may_read(mode: u32) -> bool {
    mode & 0o007 != 0
}

fn read(path: &Path, bytes_max: u64) -> Result<(Vec<u8>, u32), ReadError> {
    // Asked before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(ReadError::TooLong(bytes_max));
    }
    Ok((bytes, mode))
}
