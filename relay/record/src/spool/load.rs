//! What a start finds in the spool's directory, made fit to go on with.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use sluice_base::{Mono, limits};

use super::age::AgeClock;
use super::progress::{self, Progress, Unread};
use super::reader::Reader;
use super::segments::{Found, Segment};
use super::sink::SinkOptions;
use super::{Line, Room, StartError};
use sluice_privacy::Moment;

/// Looks through the directory, which is made where it is not there. What the crash of a machine or of a process left
/// half written is overwritten and cut off.
///
/// # Errors
/// [`StartError`].
pub(crate) fn load(
    directory: &Path,
    room: Room,
    sinks: &[SinkOptions],
    boot_id: Option<[u8; 16]>,
    now: Moment,
) -> Result<Found, StartError> {
    let failed = |error: io::Error| StartError::Directory { path: directory.to_owned(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let progress = match Progress::load(directory) {
        Ok(progress) => Some(progress),
        Err(Unread::Absent) => None,
        Err(Unread::Damaged(why)) => {
            tracing::error!("spool: {} is damaged ({why}): all that is there is sent again", progress::FILE);
            None
        }
        Err(Unread::Newer(format)) => return Err(StartError::Newer { path: directory.join(progress::FILE), format }),
        Err(Unread::Failed(error)) => return Err(failed(error)),
    };
    let age = progress.as_ref().map_or(AgeClock::new(now), |progress| {
        let is_same_run = boot_id.is_some() && progress.boot_id == boot_id;
        AgeClock::resume(now, progress.seen, is_same_run.then(|| Mono::from_nanos(progress.boot)))
    });
    let segments = segments(directory).map_err(failed)?;
    // Numbers that no former spool of this machine had: it began earlier, and has not used one each second.
    let fresh = progress.as_ref().map_or(age.seconds(), |progress| progress.next);
    let next = fresh.max(segments.back().map_or(0, |last| last.number + 1));
    let place = |id: &str| progress.as_ref().and_then(|progress| progress.sinks.get(id).copied()).unwrap_or_default();
    let reader = |(index, sink): (usize, &SinkOptions)| {
        let id = sink.id();
        let place = place(&id);
        Reader::new(id, sink.kind(), index, place)
    };
    let readers = sinks.iter().enumerate().map(reader).collect();
    let directory = directory.to_owned();
    Ok(Found { directory, room, age, boot_id, next, segments, readers })
}

/// Overwrites and removes all that a former spool has left; how many segments.
///
/// # Errors
/// [`StartError`]: the first that is still there, after all others were tried.
pub(crate) fn remove_all(directory: &Path) -> Result<usize, StartError> {
    let failed = |error: io::Error| StartError::Directory { path: directory.to_owned(), error };
    let found = match files(directory) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let erased: Vec<_> = found.iter().map(|(_, path)| erase(path)).collect();
    let progress = PROGRESS.map(|name| match fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    });
    erased.into_iter().chain(progress).collect::<io::Result<()>>().map_err(failed)?;
    File::open(directory).and_then(|open| open.sync_all()).map_err(failed)?;
    Ok(found.len())
}

/// Whether there is nothing of a spool.
///
/// # Errors
/// [`StartError`].
pub(crate) fn is_empty(directory: &Path) -> Result<bool, StartError> {
    let failed = |error: io::Error| StartError::Directory { path: directory.to_owned(), error };
    match files(directory) {
        Ok(found) if !found.is_empty() => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed(error)),
        Ok(_) => Ok(PROGRESS.iter().all(|name| !directory.join(name).exists())),
    }
}

/// The files beside the segments.
const PROGRESS: [&str; 2] = [progress::FILE, progress::NEXT_FILE];

/// The files of segments, in ascending order.
fn files(directory: &Path) -> io::Result<Vec<(Segment, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let segment = entry.file_name().to_str().and_then(Segment::parse);
        found.extend(segment.map(|segment| (segment, entry.path())));
    }
    found.sort_unstable_by_key(|(segment, _)| segment.number);
    Ok(found)
}

fn segments(directory: &Path) -> io::Result<VecDeque<Segment>> {
    let mut kept = VecDeque::new();
    for (mut segment, path) in files(directory)? {
        let bytes = fs::read(&path)?;
        // No spool comes as far as such a number, and behind it there may be none: it is treated as what is not whole.
        if segment.number <= limits::SPOOL_NUMBER_MAX {
            (segment.bytes, segment.lines) = whole_lines(segment.number, &bytes);
        }
        if segment.bytes == 0 {
            erase(&path)?;
            continue;
        }
        cut(&path, segment.bytes, bytes.len() as u64)?;
        kept.push_back(segment);
    }
    File::open(directory)?.sync_all()?;
    Ok(kept)
}

/// Bytes and number of the lines that are as they were written.
fn whole_lines(number: u64, bytes: &[u8]) -> (u64, u64) {
    let (mut whole, mut lines) = (0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !Line::is_numbered(line, number, lines) {
            break;
        }
        whole += line.len() as u64;
        lines += 1;
    }
    (whole, lines)
}

/// Overwrites what stands behind `whole` bytes, and cuts it off.
fn cut(path: &Path, whole: u64, length: u64) -> io::Result<()> {
    if whole == length {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&vec![0; (length - whole) as usize], whole)?;
    file.sync_all()?;
    file.set_len(whole)?;
    file.sync_all()
}

fn erase(path: &Path) -> io::Result<()> {
    cut(path, 0, fs::metadata(path)?.len())?;
    fs::remove_file(path)
}
