//! `sinks.json`: how far each sink is, the number of the next segment, the latest time seen.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_base::limits;

use super::files::{FileWriter, Purpose};

/// The name of the file in the spool's directory.
pub(crate) const FILE: &str = "sinks.json";

/// The name under which the next one is written.
pub(crate) const NEXT_FILE: &str = "sinks.json.new";

/// What this version writes and reads.
const FORMAT: u32 = 1;

/// A place in the spool: all before it has been acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The number of a segment.
    pub(crate) segment: u64,
    /// Bytes from its start.
    pub(crate) bytes: u64,
    /// Lines from its start.
    pub(crate) lines: u64,
}

impl Place {
    /// Whether there can be such a place.
    fn is_sound(&self) -> bool {
        let is_there = self.segment <= limits::SPOOL_NUMBER_MAX && self.bytes <= limits::SPOOL_SEGMENT_BYTES_MAX;
        is_there && self.lines <= self.bytes
    }
}

/// What is kept beside the segments.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    format: u32,
    /// No segment has had this number or a higher one.
    pub(crate) next: u64,
    /// Seconds since the Unix epoch, see [`super::age::AgeClock`].
    pub(crate) seen: u64,
    /// Nanoseconds of the boot clock at that time.
    pub(crate) boot: u64,
    /// The kernel's name for this run of the machine; the boot clock begins anew with another.
    pub(crate) boot_id: Option<[u8; 16]>,
    /// By what each sink is.
    pub(crate) sinks: BTreeMap<String, Place>,
}

/// Why there is none to read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The first start.
    Absent,
    /// What is there makes no sense.
    Damaged(String),
    /// It was written by a later version.
    Newer(u32),
    /// The kernel's word.
    Failed(io::Error),
}

impl Progress {
    /// With the format of this version.
    pub(crate) fn new(next: u64, seen: u64, boot: u64, boot_id: Option<[u8; 16]>) -> Self {
        Progress { format: FORMAT, next, seen, boot, boot_id, sinks: BTreeMap::new() }
    }

    /// Reads it from the spool's directory.
    pub(crate) fn load(directory: &Path) -> Result<Self, Unread> {
        let file = match File::open(directory.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Absent),
            Err(error) => return Err(Unread::Failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(limits::SPOOL_PROGRESS_BYTES_MAX).read_to_end(&mut bytes).map_err(Unread::Failed)?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let format: Format = serde_json::from_slice(&bytes).map_err(|e| Unread::Damaged(e.to_string()))?;
        match format.format {
            FORMAT => {
                let read: Progress = serde_json::from_slice(&bytes).map_err(|e| Unread::Damaged(e.to_string()))?;
                let is_sound = read.next <= limits::SPOOL_NUMBER_MAX && read.sinks.values().all(Place::is_sound);
                is_sound.then_some(read).ok_or_else(|| Unread::Damaged("no spool comes to such numbers".to_owned()))
            }
            newer => Err(Unread::Newer(newer)),
        }
    }

    /// Replaces it: who looks sees the former one or this one, whatever happens meanwhile.
    ///
    /// # Errors
    /// The kernel's; the former one is still there.
    pub(crate) async fn save<F: FileWriter>(&self, files: &F, directory: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        let next = directory.join(NEXT_FILE);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = files.open(&next, Purpose::New)?;
        files.write(&file, &bytes, 0).await?;
        files.sync(&file).await?;
        fs::rename(&next, directory.join(FILE))?;
        sync_directory(files, directory).await
    }
}

/// Returns when the names in a directory are on the disk.
///
/// # Errors
/// The kernel's.
pub(crate) async fn sync_directory<F: FileWriter>(files: &F, directory: &Path) -> io::Result<()> {
    let open = files.adopt(File::open(directory)?)?;
    files.sync(&open).await
}
