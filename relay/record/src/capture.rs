//! Captures: what plugins were asked in dry runs, so that another version can be asked the same.
//!
//! Each is a file of JSON lines, bounded, its owner's alone, and written by a thread that nobody waits for. It is
//! personal data: **the first line says when it is to be deleted**, and whatever relay uses the state directory then
//! deletes it, at its start and once a minute, whether anything is still captured or not. Where its tenant has come to
//! keep addresses for a shorter time, the first line is written anew before.

use std::collections::HashMap;
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_base::limits::{
    CAPTURE_BYTES_MAX, CAPTURE_LIFE_MAX, CAPTURE_QUESTIONS_MAX, CAPTURE_WAITING_MAX, PLUGIN_SETTINGS_BYTES_MAX,
};
use sluice_privacy::Day;
use sluice_privacy::date::DAY_SECONDS;

use crate::store::make as make_directory;

/// The directory of captures, below the state directory.
pub const CAPTURES: &str = "captures";

/// How often captures are looked through for what is to be deleted.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// By how much a wall clock may be set back before a capture counts as one that would outlive its time.
const CLOCK_GRACE_SECONDS: u64 = 3600;

/// More than what a first line has: settings, and a few names.
const FIRST_LINE_BYTES: u64 = 2 * PLUGIN_SETTINGS_BYTES_MAX as u64;

/// The wall clock, in seconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The longest lives of captures, by the names of their tenants.
pub type Lives = HashMap<String, Duration>;

/// Whose questions are captured.
#[derive(Clone, PartialEq, Debug)]
pub struct About {
    /// The tenant's name.
    pub tenant: String,
    /// The operator's name for the plugin.
    pub plugin: String,
    /// Of its component.
    pub digest: String,
    /// By which it answers.
    pub settings: Value,
}

/// Why nothing more is captured into a file.
#[derive(Debug, thiserror::Error)]
enum CaptureError {
    /// It has as many questions or bytes as it may have.
    #[error("{} is full, and nothing more is captured: another name in `capture` begins another", .0.display())]
    Full(PathBuf),
    /// Its time is over, or somebody has deleted it.
    #[error("{} is over, and nothing more is captured: another name in `capture` begins another", .0.display())]
    Over(PathBuf),
    /// It is not what would be gone on with.
    #[error(
        "{} is there, and is no capture of this tenant and plugin at this digest with these settings, so that nothing \
         is captured: say another name in `capture`, or remove it", .0.display()
    )]
    Other(PathBuf),
    /// The file system refuses.
    #[error("{}: {source}: nothing is captured there any more", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The captures of a state directory.
pub struct Captures {
    folder: PathBuf,
    clock: Clock,
    interval: Duration,
    lives: Arc<Mutex<Lives>>,
    /// To the thread, from the first time that there is something to do for it.
    writer: OnceLock<Sender<Message>>,
}

impl Captures {
    /// Deletes captures whose time is over, and looks after those that there are.
    ///
    /// # Errors
    /// In words: one that is to be deleted cannot be, or there is no thread.
    pub fn start(state_directory: &Path, lives: Lives, clock: Clock) -> Result<Self, String> {
        Self::looking_each(SWEEP_INTERVAL, state_directory, lives, clock)
    }

    fn looking_each(interval: Duration, state_directory: &Path, lives: Lives, clock: Clock) -> Result<Self, String> {
        let folder = state_directory.join(CAPTURES);
        let lives = Arc::new(Mutex::new(lives));
        let captures = Captures { folder, clock, interval, lives, writer: OnceLock::new() };
        if captures.folder.is_dir() {
            sweep(&captures.folder, &captures.lives(), (captures.clock)()).map_err(|error| {
                format!("{}: a capture cannot be deleted in time: {error}", captures.folder.display())
            })?;
            captures.writer()?;
        }
        Ok(captures)
    }

    /// A capture for `life` at the most, from its first question on. The file is made with that one; one that is there
    /// is gone on with, if it is about the same.
    ///
    /// # Errors
    /// In words: there is no directory for it, or no thread.
    pub fn capture(&self, file: &str, about: About, life: Duration) -> Result<Capture, String> {
        make_directory(&self.folder).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        let path = self.folder.join(file);
        let target = Target { path, about, life: life.min(CAPTURE_LIFE_MAX), has_ended: AtomicBool::new(false) };
        Ok(Capture { target: Arc::new(target), writer: self.writer()? })
    }

    /// From the next look on no capture of these tenants lives longer, also one that has begun. None lives longer than
    /// it was to.
    pub fn shorten(&self, lives: Lives) {
        *self.lives.lock().unwrap_or_else(PoisonError::into_inner) = lives;
    }

    fn lives(&self) -> Lives {
        copy(&self.lives)
    }

    fn writer(&self) -> Result<Sender<Message>, String> {
        if let Some(writer) = self.writer.get() {
            return Ok(writer.clone());
        }
        let (sender, messages) = bounded(CAPTURE_WAITING_MAX);
        let (folder, clock, lives) = (self.folder.clone(), self.clock.clone(), self.lives.clone());
        let writer = Writer { folder, clock, lives, open: HashMap::new() };
        let interval = self.interval;
        let thread = Builder::new().name("captures".to_owned()).spawn(move || writer.run(&messages, interval));
        thread.map_err(|error| format!("no thread for captures: {error}"))?;
        Ok(self.writer.get_or_init(|| sender).clone())
    }
}

impl std::fmt::Debug for Captures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captures").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// One capture, for whoever has questions for it.
#[derive(Debug)]
pub struct Capture {
    target: Arc<Target>,
    writer: Sender<Message>,
}

impl Capture {
    /// Whether it takes any more.
    pub fn is_open(&self) -> bool {
        !self.target.has_ended.load(Ordering::Relaxed)
    }

    /// Has a line written, which has no end of line in it. Never waits: a line that is not written is added to `lost`.
    pub fn take(&self, line: String, lost: &Arc<AtomicU64>) {
        let message = Message { target: self.target.clone(), line, lost: lost.clone() };
        if self.writer.try_send(message).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The moment at which a capture is to be deleted, in seconds since the Unix epoch, by its first line; none where that
/// is no capture's.
pub fn deleted_at(first_line: &str) -> Option<u64> {
    let first: FirstLine = serde_json::from_str(first_line).ok()?;
    Some(first.end())
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    about: About,
    life: Duration,
    has_ended: AtomicBool,
}

#[derive(Debug)]
struct Message {
    target: Arc<Target>,
    line: String,
    lost: Arc<AtomicU64>,
}

#[derive(Serialize, Deserialize)]
struct FirstLine {
    capture: Head,
    settings: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Head {
    /// For people.
    delete_by: String,
    begun_unix_seconds: u64,
    delete_by_unix_seconds: u64,
    tenant: String,
    plugin: String,
    digest: String,
}

impl FirstLine {
    fn new(about: &About, begun_unix_seconds: u64, life: Duration) -> Self {
        let About { tenant, plugin, digest, settings } = about.clone();
        let delete_by_unix_seconds = begun_unix_seconds.saturating_add(life.as_secs());
        let delete_by = for_people(delete_by_unix_seconds);
        let capture = Head { delete_by, begun_unix_seconds, delete_by_unix_seconds, tenant, plugin, digest };
        FirstLine { capture, settings }
    }

    fn end(&self) -> u64 {
        self.capture.delete_by_unix_seconds
    }

    fn is_about(&self, about: &About) -> bool {
        let Head { tenant, plugin, digest, .. } = &self.capture;
        (tenant, plugin, digest, &self.settings) == (&about.tenant, &about.plugin, &about.digest, &about.settings)
    }

    /// Brings the end forward to what its tenant allows; whether that is another one.
    fn shorten(&mut self, lives: &Lives) -> bool {
        let life = lives.get(&self.capture.tenant).map(Duration::as_secs);
        let end = life.map(|life| self.capture.begun_unix_seconds.saturating_add(life)).filter(|end| *end < self.end());
        let Some(end) = end else { return false };
        (self.capture.delete_by, self.capture.delete_by_unix_seconds) = (for_people(end), end);
        true
    }

    /// The line, with its end.
    fn line(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

fn for_people(unix_seconds: u64) -> String {
    let of_day = unix_seconds % DAY_SECONDS;
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{}T{hours:02}:{minutes:02}:{seconds:02}Z", Day::of(unix_seconds))
}

fn copy(lives: &Mutex<Lives>) -> Lives {
    lives.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The thread's.
struct Writer {
    folder: PathBuf,
    clock: Clock,
    lives: Arc<Mutex<Lives>>,
    /// Also those that have ended, without their files: no other begins under their names.
    open: HashMap<PathBuf, Writing>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>, interval: Duration) {
        let mut due = Instant::now() + interval;
        loop {
            match messages.recv_deadline(due) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= due {
                self.look();
                due = Instant::now() + interval;
            }
        }
    }

    fn take(&mut self, message: Message) {
        let Message { target, line, lost } = message;
        if !target.has_ended.load(Ordering::Relaxed) {
            let Err(end) = self.write(&target, &line) else { return };
            target.has_ended.store(true, Ordering::Relaxed);
            let About { tenant, plugin, .. } = &target.about;
            match end {
                CaptureError::Full(_) | CaptureError::Over(_) => tracing::info!(plugin, tenant, "{end}"),
                CaptureError::Other(_) | CaptureError::Io { .. } => tracing::warn!(plugin, tenant, "{end}"),
            }
        }
        lost.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&mut self, target: &Target, line: &str) -> Result<(), CaptureError> {
        let now = (self.clock)();
        if !self.open.contains_key(&target.path) {
            let writing = Writing::open(target, now)?;
            self.open.insert(target.path.clone(), writing);
        }
        let writing = self.open.get_mut(&target.path);
        writing.map_or_else(|| Err(CaptureError::Over(target.path.clone())), |writing| writing.add(target, line, now))
    }

    /// Deletes what is to be deleted, and lets go of what somebody has deleted.
    fn look(&mut self) {
        let (now, lives) = ((self.clock)(), copy(&self.lives));
        for (path, writing) in &mut self.open {
            writing.first.shorten(&lives);
            if is_over(writing.first.end(), now) || !writing.is_at(path) {
                // What is deleted is on the disk until it is closed.
                writing.file = None;
            }
        }
        if let Err(error) = sweep(&self.folder, &lives, now) {
            tracing::error!("{}: a capture cannot be deleted in time: {error}", self.folder.display());
        }
    }
}

/// A file that is written to.
struct Writing {
    file: Option<File>,
    first: FirstLine,
    bytes: u64,
    questions: usize,
}

impl Writing {
    fn open(target: &Target, now: u64) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Io { path: target.path.clone(), source };
        let made = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&target.path);
        let mut file = match made {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Self::go_on(target),
            Err(error) => return Err(failed(error)),
        };
        let first = FirstLine::new(&target.about, now, target.life);
        let line = first.line().map_err(failed)?;
        file.write_all(line.as_bytes()).map_err(|error| {
            // Without a whole first line nothing would say when it is to be deleted.
            let _ = fs::remove_file(&target.path);
            failed(error)
        })?;
        Ok(Writing { file: Some(file), first, bytes: line.len() as u64, questions: 0 })
    }

    /// With what a run before this one has begun.
    fn go_on(target: &Target) -> Result<Self, CaptureError> {
        let other = || CaptureError::Other(target.path.clone());
        let failed = |source| CaptureError::Io { path: target.path.clone(), source };
        if !fs::symlink_metadata(&target.path).map_err(failed)?.is_file() {
            return Err(other());
        }
        let file = OpenOptions::new().read(true).append(true).open(&target.path).map_err(failed)?;
        let mut bytes = Vec::new();
        (&file).take(CAPTURE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = &bytes[..whole];
        let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first: FirstLine = serde_json::from_slice(first).map_err(|_| other())?;
        if !first.is_about(&target.about) {
            return Err(other());
        }
        let mut length = bytes.len() as u64;
        if length <= CAPTURE_BYTES_MAX {
            // A run that was killed has left half a line.
            length = whole as u64;
            cut(&file, length).map_err(failed)?;
        }
        let questions = lines.iter().filter(|byte| **byte == b'\n').count() - 1;
        Ok(Writing { file: Some(file), first, bytes: length, questions })
    }

    /// Whether what is written to is still what has this name.
    fn is_at(&self, path: &Path) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(identity);
        open.is_some() && open == fs::symlink_metadata(path).ok().map(identity)
    }

    fn add(&mut self, target: &Target, line: &str, now: u64) -> Result<(), CaptureError> {
        if !self.first.is_about(&target.about) {
            return Err(CaptureError::Other(target.path.clone()));
        }
        let file = self.file.as_mut().filter(|_| !is_over(self.first.end(), now));
        let file = file.ok_or_else(|| CaptureError::Over(target.path.clone()))?;
        let line = format!("{line}\n");
        let bytes = self.bytes + line.len() as u64;
        if self.questions >= CAPTURE_QUESTIONS_MAX || bytes > CAPTURE_BYTES_MAX {
            return Err(CaptureError::Full(target.path.clone()));
        }
        if let Err(source) = file.write_all(line.as_bytes()) {
            // On a full disk a part of the line may be there. Where it stays, nothing may come after it.
            if cut(file, self.bytes).is_err() {
                self.file = None;
            }
            return Err(CaptureError::Io { path: target.path.clone(), source });
        }
        (self.bytes, self.questions) = (bytes, self.questions + 1);
        Ok(())
    }
}

/// Takes away what a file has behind these bytes.
fn cut(file: &File, bytes: u64) -> io::Result<()> {
    if file.metadata()?.len() > bytes { file.set_len(bytes) } else { Ok(()) }
}

/// Whether a capture that is to be deleted at `end` is to be deleted now: also where its end lies further away than
/// that of any that was made by this clock.
fn is_over(end: u64, now: u64) -> bool {
    now >= end || end > now.saturating_add(CAPTURE_LIFE_MAX.as_secs() + CLOCK_GRACE_SECONDS)
}

/// Deletes every capture of a directory whose time is over; all that can be deleted, also where one cannot.
fn sweep(folder: &Path, lives: &Lives, now: u64) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut swept = Ok(());
    for entry in entries {
        swept = swept.and(sweep_one(entry, lives, now));
    }
    swept
}

/// What somebody else deletes meanwhile is deleted.
fn sweep_one(entry: io::Result<DirEntry>, lives: &Lives, now: u64) -> io::Result<()> {
    let delete = || {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if !metadata.is_file() {
            return Ok(());
        }
        let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        match is_over(end_of(&entry.path(), changed, lives), now) {
            true => fs::remove_file(entry.path()),
            false => Ok(()),
        }
    };
    delete().or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// When a file that was last changed at this moment is to be deleted. A capture whose end its tenant brings forward
/// says so from now on, and where that cannot be written ends then all the same.
fn end_of(path: &Path, changed: Duration, lives: &Lives) -> u64 {
    let read = || {
        let mut text = Vec::new();
        File::open(path)?.take(FIRST_LINE_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    let write = |line: &[u8]| OpenOptions::new().write(true).open(path)?.write_all_at(line, 0);
    let (end, trouble) = end_by(read(), write, changed, lives);
    if let Err(error) = trouble {
        tracing::warn!("{}: {error}: it is deleted at {} all the same", path.display(), for_people(end));
    }
    end
}

/// By what was read of a file's beginning. Without a capture's first line it is to be deleted when the longest life of
/// one is over, counted from its last change.
fn end_by(
    read: io::Result<Vec<u8>>,
    write: impl FnOnce(&[u8]) -> io::Result<()>,
    changed: Duration,
    lives: &Lives,
) -> (u64, io::Result<()>) {
    let longest = changed.saturating_add(CAPTURE_LIFE_MAX).as_secs();
    let text = match read {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (longest, Ok(())),
        Err(error) => return (longest, Err(error)),
    };
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(mut first) = serde_json::from_slice::<FirstLine>(line) else { return (longest, Ok(())) };
    if !first.shorten(lives) {
        return (first.end(), Ok(()));
    }
    // An earlier moment has no more digits than a later one, and space before the end of a line says nothing.
    let shorter = serde_json::to_string(&first).map_err(io::Error::from);
    let written = shorter.and_then(|shorter| write(format!("{shorter:width$}", width = line.len()).as_bytes()));
    (first.end(), written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    const NOON: u64 = 1_795_867_200;
    const DAY: Duration = Duration::from_secs(DAY_SECONDS);

    fn about(settings: &str) -> About {
        let of = |text: &str| text.to_owned();
        let settings = serde_json::from_str(settings).unwrap();
        About { tenant: of("clinic"), plugin: of("fence"), digest: of("sha256:00"), settings }
    }

    fn writer(folder: &Folder, now: u64) -> Writer {
        make_directory(&folder.join(CAPTURES)).unwrap();
        let (clock, lives) = (Arc::new(move || now), Arc::default());
        Writer { folder: folder.join(CAPTURES), clock, lives, open: HashMap::new() }
    }

    fn target(folder: &Folder, settings: &str) -> Arc<Target> {
        let (path, about) = (folder.join(CAPTURES).join("monday"), about(settings));
        Arc::new(Target { path, about, life: DAY, has_ended: AtomicBool::new(false) })
    }

    /// Writes a line; whether it was.
    fn write(writer: &mut Writer, target: &Arc<Target>, line: &str) -> bool {
        let lost = Arc::default();
        writer.take(Message { target: target.clone(), line: line.to_owned(), lost: Arc::clone(&lost) });
        lost.load(Ordering::Relaxed) == 0
    }

    fn lines(target: &Target) -> Vec<String> {
        fs::read_to_string(&target.path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn it_is_its_owners_alone_and_its_first_line_says_when_it_is_to_be_deleted() {
        let folder = Folder::new("capture");
        let (mut writer, target) = (writer(&folder, NOON), target(&folder, r#"{"most":1}"#));
        assert!(write(&mut writer, &target, r#"{"hook":"h"}"#));
        assert_eq!(fs::metadata(&target.path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.join(CAPTURES)).unwrap().mode() & 0o777, 0o700);
        let lines = lines(&target);
        assert_eq!(deleted_at(&lines[0]), Some(NOON + DAY_SECONDS));
        assert!(lines[0].contains("2026-11-29T12:00:00Z") && lines[0].contains(r#""settings":{"most":1}"#));
        assert_eq!(lines[1..], [r#"{"hook":"h"}"#]);
    }

    #[test]
    fn when_it_is_full_it_has_ended_and_what_comes_is_counted() {
        let folder = Folder::new("capture");
        let (mut few, target) = (writer(&folder, NOON), target(&folder, "{}"));
        assert_eq!(
            (0..CAPTURE_QUESTIONS_MAX).filter(|_| write(&mut few, &target, "{}")).count(),
            CAPTURE_QUESTIONS_MAX
        );
        assert!(!write(&mut few, &target, "{}") && target.has_ended.load(Ordering::Relaxed));
        assert_eq!(lines(&target).len(), 1 + CAPTURE_QUESTIONS_MAX);
        let folder = Folder::new("capture");
        let (mut long, target) = (writer(&folder, NOON), self::target(&folder, "{}"));
        assert!(write(&mut long, &target, "{}") && !write(&mut long, &target, &"x".repeat(CAPTURE_BYTES_MAX as usize)));
        assert!(!write(&mut long, &target, "{}"), "it has ended");
    }

    #[test]
    fn another_run_goes_on_with_it_and_another_plugin_does_not() {
        let folder = Folder::new("capture");
        let same = target(&folder, "{}");
        assert!(write(&mut writer(&folder, NOON), &same, "1"));
        let mut half = OpenOptions::new().append(true).open(&same.path).unwrap();
        half.write_all(b"hal").unwrap();
        let mut later = writer(&folder, NOON + 3600);
        assert!(write(&mut later, &same, "2"));
        let lines = lines(&same);
        assert_eq!((deleted_at(&lines[0]), &lines[1..]), (Some(NOON + DAY_SECONDS), &["1".into(), "2".into()][..]));
        let other = target(&folder, r#"{"most":2}"#);
        assert!(!write(&mut later, &other, "3") && !write(&mut writer(&folder, NOON), &other, "3"));
        assert_eq!(self::lines(&same), lines);
    }

    #[test]
    fn half_a_line_that_a_full_disk_leaves_is_taken_away_or_nothing_comes_after_it() {
        let folder = Folder::new("capture");
        let (mut writer, monday) = (writer(&folder, NOON), target(&folder, "{}"));
        assert!(write(&mut writer, &monday, "1"));
        let mut half = OpenOptions::new().append(true).open(&monday.path).unwrap();
        half.write_all(b"hal").unwrap();
        let writing = writer.open.get_mut(&monday.path).unwrap();
        cut(&half, writing.bytes).unwrap();
        assert_eq!(fs::metadata(&monday.path).unwrap().len(), writing.bytes);
        // What is open for reading alone takes no line, and cannot be cut.
        half.write_all(b"hal").unwrap();
        writing.file = Some(File::open(&monday.path).unwrap());
        assert!(!write(&mut writer, &monday, "2"));
        let reloaded = target(&folder, "{}");
        assert!(!write(&mut writer, &reloaded, "3") && writer.open[&monday.path].file.is_none());
        assert_eq!(lines(&monday)[1..], ["1", "hal"]);
        assert!(write(&mut self::writer(&folder, NOON), &target(&folder, "{}"), "4"));
        assert_eq!(lines(&monday)[1..], ["1", "4"]);
    }

    #[test]
    fn what_is_over_is_deleted_at_the_start_and_what_is_not_stays() {
        let folder = Folder::new("capture");
        let monday = target(&folder, "{}");
        let end = NOON + DAY_SECONDS;
        // The last is a wall clock that was set back by days.
        for (now, is_left) in [(end - 1, true), (end, false), (end - 10 * DAY_SECONDS, false)] {
            assert!(write(&mut writer(&folder, NOON), &monday, "1"));
            Captures::start(folder.path(), Lives::new(), Arc::new(move || now)).unwrap();
            assert_eq!(monday.path.exists(), is_left, "{now}");
        }
    }

    #[test]
    fn a_file_that_is_no_capture_is_deleted_when_no_capture_would_be_left() {
        let folder = Folder::new("capture");
        make_directory(&folder.join(CAPTURES)).unwrap();
        let file = folder.join(CAPTURES).join("half");
        fs::write(&file, b"{\"capt").unwrap();
        let changed = fs::metadata(&file).unwrap().mtime() as u64;
        let life = CAPTURE_LIFE_MAX.as_secs();
        for (now, is_left) in [(changed + life - 1, true), (changed + life + 1, false)] {
            sweep(&folder.join(CAPTURES), &Lives::new(), now).unwrap();
            assert_eq!(file.exists(), is_left, "{now}");
        }
    }

    #[test]
    fn one_that_cannot_be_read_is_deleted_by_its_last_change_and_one_that_is_gone_is_passed_over() {
        let (changed, lives) = (Duration::from_secs(NOON), Lives::new());
        let longest = NOON + CAPTURE_LIFE_MAX.as_secs();
        let of = |kind: io::ErrorKind| end_by(Err(kind.into()), |_| Ok(()), changed, &lives);
        let (end, trouble) = of(io::ErrorKind::PermissionDenied);
        assert!(end == longest && trouble.is_err());
        let (end, trouble) = of(io::ErrorKind::NotFound);
        assert!(end == longest && trouble.is_ok());
        let folder = Folder::new("capture");
        fs::write(folder.join("file"), "").unwrap();
        assert_eq!(end_of(&folder.join("file").join("below"), changed, &lives), longest);
        sweep_one(Err(io::ErrorKind::NotFound.into()), &lives, NOON).unwrap();
        sweep_one(Err(io::ErrorKind::PermissionDenied.into()), &lives, NOON).unwrap_err();
    }

    #[test]
    fn a_shorter_time_holds_also_where_it_cannot_be_written_down() {
        let line = FirstLine::new(&about("{}"), NOON, 7 * DAY).line().unwrap();
        let lives = Lives::from([("clinic".to_owned(), DAY)]);
        let full = |_: &[u8]| Err(io::ErrorKind::StorageFull.into());
        let (end, trouble) = end_by(Ok(line.into_bytes()), full, Duration::from_secs(NOON), &lives);
        assert_eq!((end, trouble.is_err()), (NOON + DAY_SECONDS, true));
    }

    #[test]
    fn a_shorter_time_shortens_one_that_has_begun_and_a_longer_one_does_not() {
        let folder = Folder::new("capture");
        let (mut writer, monday) = (writer(&folder, NOON), target(&folder, "{}"));
        assert!(write(&mut writer, &monday, "1"));
        let lives = |life| Lives::from([("clinic".to_owned(), life), ("other".to_owned(), Duration::ZERO)]);
        for (life, end) in
            [(7 * DAY, NOON + DAY_SECONDS), (DAY / 2, NOON + DAY_SECONDS / 2), (DAY, NOON + DAY_SECONDS / 2)]
        {
            *writer.lives.lock().unwrap() = lives(life);
            writer.look();
            assert_eq!(deleted_at(&lines(&monday)[0]), Some(end), "{life:?}");
        }
        assert!(write(&mut writer, &monday, "2"));
        assert_eq!(lines(&monday)[1..], ["1", "2"]);
        Captures::start(folder.path(), lives(Duration::from_secs(5)), Arc::new(|| NOON + 5)).unwrap();
        assert!(!monday.path.exists());
    }

    /// A file that is written to is on the disk as long as it is open.
    #[test]
    fn what_somebody_deletes_is_let_go_of_and_captured_no_more() {
        let folder = Folder::new("capture");
        let (mut writer, monday) = (writer(&folder, NOON), target(&folder, "{}"));
        assert!(write(&mut writer, &monday, "1"));
        writer.look();
        assert!(writer.open[&monday.path].file.is_some());
        fs::remove_file(&monday.path).unwrap();
        writer.look();
        assert!(writer.open[&monday.path].file.is_none());
        assert!(!write(&mut writer, &monday, "2") && !monday.path.exists());
    }

    #[test]
    fn a_relay_that_runs_deletes_it_and_begins_no_other_under_its_name() {
        let folder = Folder::new("capture");
        let time = Arc::new(AtomicU64::new(NOON));
        let clock = time.clone();
        let captures = Captures::looking_each(
            Duration::from_millis(1),
            folder.path(),
            Lives::new(),
            Arc::new(move || clock.load(Ordering::Relaxed)),
        );
        let capture = captures.unwrap().capture("monday", about("{}"), DAY).unwrap();
        let (path, lost) = (folder.join(CAPTURES).join("monday"), Arc::default());
        capture.take("1".to_owned(), &lost);
        wait_for(|| path.exists());
        time.store(NOON + DAY_SECONDS, Ordering::Relaxed);
        wait_for(|| !path.exists());
        capture.take("2".to_owned(), &lost);
        wait_for(|| lost.load(Ordering::Relaxed) == 1);
        assert!(!capture.is_open() && !path.exists());
    }

    fn wait_for(is_so: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            assert!(Instant::now() < end, "it did not come");
            std::thread::yield_now();
        }
    }
}
