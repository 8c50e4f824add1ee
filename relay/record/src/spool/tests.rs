//! The spool's promises under a clock of the test's own, without a thread.

use std::cell::Cell;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use sluice_base::{Mono, limits};

use super::files::{FileWriter, Plain, Ring};
use super::progress::Place;
use super::segments::{Batch, Segments};
use super::sink::Sink;
use super::{Line, Room, SinkOptions, SpoolStats, StartError, load, progress};
use crate::testing::Folder;
use sluice_privacy::Moment;

const DAY: u64 = 24 * 3600;
const ROOM: Room = Room { segment_bytes: limits::SPOOL_SEGMENT_BYTES_MIN, segments: 4, keep: limits::SPOOL_KEEP_MAX };

/// Paths of the segments, in order.
fn segments(folder: &Folder) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
    found.sort();
    found
}

/// A spool with two sinks that the test plays, and its clocks.
struct Bench<F: FileWriter = Plain> {
    segments: Segments<F>,
    now: Moment,
}

impl Bench {
    fn start(folder: &Folder, now: Moment) -> Self {
        Bench::with(Plain, folder, now, 1)
    }
}

impl<F: FileWriter> Bench<F> {
    fn with(files: F, folder: &Folder, now: Moment, boot_id: u8) -> Self {
        let found = load::load(folder.path(), ROOM, &sinks(), Some([boot_id; 16]), now).unwrap();
        Bench { segments: Segments::new(files, found), now }
    }

    /// Time passes on both clocks.
    fn pass(&mut self, seconds: u64) {
        self.now = Moment { unix_seconds: self.now.unix_seconds + seconds, boot: self.now.boot.after(secs(seconds)) };
        done(self.segments.tick(self.now));
    }

    fn append(&mut self, lines: &[Line]) {
        done(self.segments.append(lines, self.now));
    }

    /// A second passes, and a sink is given what there is.
    fn batch(&mut self, sink: usize) -> Option<Batch> {
        self.now.boot = self.now.boot.after(secs(1));
        done(self.segments.batch(sink, self.now))
    }

    fn acknowledge(&mut self, sink: usize, batch: &Batch) {
        self.segments.delivered(sink, batch.end, self.now);
    }

    /// A sink takes all that there is; the `n` of each line.
    fn drain(&mut self, sink: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some(batch) = self.batch(sink) {
            taken.extend(numbers(&batch.body));
            self.acknowledge(sink, &batch);
        }
        taken
    }

    fn stats(&self) -> SpoolStats {
        self.segments.stats(self.now)
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sinks() -> [SinkOptions; 2] {
    [
        SinkOptions::File { path: "/nowhere/a".into() },
        SinkOptions::Http { url: "http://127.0.0.1:9/".into(), allow_plaintext: false },
    ]
}

fn moment() -> Moment {
    Moment { unix_seconds: 1_800_000_000, boot: Mono::from_nanos(5_000_000_000) }
}

fn line(n: u64) -> Line {
    Line { kind: "quality", json: format!("{{\"n\":{n}}}").into_bytes() }
}

/// A quarter of a segment.
fn long_line(n: u64) -> Line {
    let text = "x".repeat(limits::SPOOL_LINE_BYTES_MAX - 100);
    Line { kind: "log", json: format!("{{\"n\":{n},\"text\":\"{text}\"}}").into_bytes() }
}

/// The `n` of each line.
fn numbers(lines: &str) -> Vec<u64> {
    let parsed = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    parsed.map(|line| line["n"].as_u64().unwrap()).collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The end of work that waits for nothing but plain calls.
fn done<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(work)
}

#[test]
fn a_line_carries_the_numbers_of_its_segment_and_its_own() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(7), Line { kind: "log", json: b"{}".to_vec() }]);
    let segment = moment().unix_seconds;
    let expected = format!(
        "{{\"segment\":{segment},\"line\":0,\"kind\":\"quality\",\"n\":7}}\n\
         {{\"segment\":{segment},\"line\":1,\"kind\":\"log\"}}\n"
    );
    assert_eq!(text(&segments(&folder)[0]), expected);
}

#[test]
fn what_is_no_json_object_on_one_line_is_dropped_and_counted() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::SPOOL_LINE_BYTES_MAX));
    let unfit = ["", "{", "[1]", "{\"a\":\n1}", "{\"a\":1", &long].map(|json| Line { kind: "log", json: json.into() });
    bench.append(&unfit);
    bench.append(&[line(1)]);
    assert_eq!((bench.stats().dropped_unfit, bench.stats().written), (6, 1));
    assert_eq!(bench.drain(0), [1]);
}

#[test]
fn a_torn_last_line_is_cut_off_at_the_start() {
    let folder = Folder::new("spool");
    Bench::start(&folder, moment()).append(&[line(1), line(2)]);
    let path = segments(&folder).remove(0);
    let whole = text(&path);
    let torn = format!("{}{{\"segment\":{},\"line\":2,\"kind\":\"qua", whole, moment().unix_seconds);
    // A crash may also keep the length of a file and not its content.
    for left in [torn.into_bytes(), [whole.as_bytes(), &[0; 40], b"}\n"].concat()] {
        fs::write(&path, &left).unwrap();
        let held = File::open(&path).unwrap();
        let mut bench = Bench::start(&folder, moment());
        assert_eq!(text(&path), whole);
        assert_eq!(held.metadata().unwrap().len(), whole.len() as u64);
        assert_eq!(bench.drain(0), [1, 2]);
    }
}

#[test]
fn a_restart_goes_on_where_each_sink_acknowledged() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1), line(2)]);
    assert_eq!(bench.drain(0), [1, 2]);
    bench.append(&[line(3)]);
    let unanswered = bench.batch(0).unwrap();
    assert_eq!(numbers(&unanswered.body), [3]);
    done(bench.segments.finish(bench.now));
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(4)]);
    assert_eq!(bench.drain(0), [3, 4], "what was not acknowledged comes again");
    assert_eq!(bench.drain(1), [1, 2, 3, 4]);
}

#[test]
fn a_start_never_gives_a_number_out_again() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1)]);
    let first = bench.batch(0).unwrap().segment;
    drop(bench);
    // The machine ended before its file was on the disk.
    fs::remove_file(segments(&folder).remove(0)).unwrap();
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(2)]);
    let second = bench.batch(0).unwrap().segment;
    fs::remove_file(folder.join(progress::FILE)).unwrap();
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(3)]);
    assert!(second > first);
    assert_eq!(segments(&folder).len(), 2, "the segment of the former run is left as it was");
    assert_eq!(bench.drain(0), [2, 3], "the newest has the highest number");
}

#[test]
fn an_acknowledgement_that_comes_twice_or_late_changes_nothing() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1)]);
    let first = bench.batch(0).unwrap();
    bench.acknowledge(0, &first);
    bench.append(&[line(2)]);
    assert_eq!(bench.drain(0), [2]);
    bench.acknowledge(0, &first);
    bench.append(&[line(3)]);
    assert_eq!(bench.drain(0), [3]);
    assert_eq!(bench.stats().sinks[0].lines, 3);
}

#[test]
fn what_all_sinks_have_is_overwritten_before_it_is_removed() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1), line(2)]);
    let path = segments(&folder).remove(0);
    let held = File::open(&path).unwrap();
    let length = held.metadata().unwrap().len() as usize;
    bench.drain(0);
    bench.pass(1);
    assert!(path.exists(), "the other sink does not have it");
    bench.drain(1);
    bench.pass(1);
    assert!(!path.exists());
    let mut left = vec![1; length];
    held.read_exact_at(&mut left, 0).unwrap();
    assert_eq!(left, vec![0; length]);
    let stats = bench.stats();
    assert_eq!((stats.wiped_segments, stats.removed_unwiped, stats.bytes, stats.segments), (1, 0, 0, 0));
}

#[test]
fn a_restart_in_the_middle_of_an_overwriting_ends_it() {
    let folder = Folder::new("spool");
    Bench::start(&folder, moment()).append(&[line(1), line(2)]);
    let path = segments(&folder).remove(0);
    let held = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    held.write_all_at(&[0; 10], 0).unwrap();
    let mut left = vec![1; held.metadata().unwrap().len() as usize];
    let mut bench = Bench::start(&folder, moment());
    assert!(!path.exists());
    // It is overwritten before it is cut, so what is held has nothing left to read.
    assert_eq!(held.read_at(&mut left, 0).unwrap(), 0);
    assert!(bench.drain(0).is_empty());
}

#[test]
fn a_sink_that_is_down_for_a_week_loses_what_is_too_old_and_nothing_else() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1)]);
    assert_eq!(bench.drain(0), [1]);
    let path = segments(&folder).remove(0);
    let held = File::open(&path).unwrap();
    for day in 1..=6 {
        let batch = bench.batch(1).unwrap();
        bench.segments.failed(1, "no connection", bench.now);
        assert_eq!(numbers(&batch.body), [1], "day {day}");
        bench.pass(DAY);
    }
    bench.append(&[line(2)]);
    bench.pass(DAY);
    assert!(!path.exists());
    let mut left = [1; 4];
    held.read_exact_at(&mut left, 0).unwrap();
    assert_eq!(left, [0; 4]);
    assert_eq!(bench.drain(0), [2]);
    assert_eq!(bench.drain(1), [2]);
    let stats = bench.stats();
    assert_eq!((stats.expired, stats.sinks[0].lost_lines, stats.sinks[1].lost_lines), (1, 0, 1));
    assert_eq!(stats.sinks[1].failures, 6);
}

#[test]
fn a_week_is_over_by_either_clock() {
    let week = 7 * DAY;
    let now = moment();
    let cases = [
        ("wall", Moment { unix_seconds: now.unix_seconds + week, ..now }, true),
        ("boot", Moment { unix_seconds: 0, boot: now.boot.after(secs(week)) }, true),
        ("neither", Moment { unix_seconds: now.unix_seconds + week - 10, ..now }, false),
    ];
    for (name, later, is_gone) in cases {
        let folder = Folder::new("spool");
        let mut bench = Bench::start(&folder, now);
        bench.append(&[line(1)]);
        done(bench.segments.tick(later));
        assert_eq!(segments(&folder).is_empty(), is_gone, "{name}");
    }
}

#[test]
fn a_week_goes_on_over_restarts_with_a_clock_that_was_set_back() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1)]);
    bench.pass(4 * DAY);
    done(bench.segments.finish(bench.now));
    let back = Moment { unix_seconds: 0, boot: Mono::default() };
    let mut bench = Bench::with(Plain, &folder, back, 2);
    assert_eq!(segments(&folder).len(), 1);
    bench.pass(3 * DAY);
    assert!(segments(&folder).is_empty());
}

#[test]
fn a_full_spool_drops_and_counts_new_lines_and_goes_on_when_there_is_room() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    for n in 0..20 {
        bench.append(&[long_line(n)]);
    }
    let stats = bench.stats();
    assert_eq!((stats.segments, stats.dropped_full), (4, 20 - stats.written));
    assert!(stats.dropped_full > 0 && stats.bytes <= 4 * limits::SPOOL_SEGMENT_BYTES_MIN);
    let kept: Vec<u64> = (0..stats.written).collect();
    assert_eq!(bench.drain(0), kept);
    assert_eq!(bench.drain(1), kept);
    bench.pass(1);
    bench.append(&[line(99)]);
    assert_eq!((bench.drain(0), bench.stats().dropped_full), (vec![99], stats.dropped_full));
}

#[test]
fn a_failing_sink_is_asked_less_and_less_often_and_told_the_same() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1)]);
    let first = bench.batch(0).unwrap();
    bench.append(&[line(2)]);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        bench.segments.failed(0, "it answers 503", bench.now);
        let failed_at = bench.now.boot;
        let again = loop {
            if let Some(again) = bench.batch(0) {
                break again;
            }
        };
        assert_eq!(again, first, "the same extent, so that a receiver may know it");
        pauses.push(bench.now.boot.since(failed_at).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    bench.acknowledge(0, &first);
    assert_eq!(bench.drain(0), [2]);
}

#[test]
fn nothing_is_on_its_way_to_a_sink_twice() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1)]);
    assert!(bench.batch(0).is_some());
    bench.append(&[line(2)]);
    assert!(bench.batch(0).is_none());
}

#[test]
fn progress_that_is_damaged_sends_all_again_and_that_of_a_later_version_is_refused() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1)]);
    bench.drain(0);
    done(bench.segments.finish(bench.now));
    fs::write(folder.join(progress::FILE), "{\"format\":1,").unwrap();
    assert_eq!(Bench::start(&folder, moment()).drain(0), [1]);
    fs::write(folder.join(progress::FILE), "{\"format\":2}").unwrap();
    let refused = load::load(folder.path(), ROOM, &sinks(), Some([1; 16]), moment()).unwrap_err();
    assert!(matches!(refused, StartError::Newer { format: 2, .. }), "{refused}");
}

#[test]
fn numbers_that_no_spool_comes_to_are_not_gone_on_from() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    bench.append(&[line(1)]);
    done(bench.segments.finish(bench.now));
    let forged = [u64::MAX, u64::MAX - 1].map(|number| {
        let path = folder.join(&format!("{number:020}-1795867200.jsonl"));
        fs::write(&path, format!("{{\"segment\":{number},\"line\":0,\"kind\":\"x\"}}\n")).unwrap();
        path
    });
    let progress = text(&folder.join(progress::FILE));
    let next = progress.split_once("\"next\":").unwrap().1.split(',').next().unwrap();
    let beyond = progress.replace(&format!("\"next\":{next}"), &format!("\"next\":{}", u64::MAX));
    fs::write(folder.join(progress::FILE), beyond).unwrap();
    let mut bench = Bench::start(&folder, moment());
    assert!(forged.iter().all(|path| !path.exists()), "they are overwritten as what is not whole");
    bench.append(&[line(2)]);
    assert_eq!(bench.drain(0), [1, 2]);
}

#[test]
fn a_damaged_segment_is_skipped_and_counted_and_the_next_one_is_sent() {
    let folder = Folder::new("spool");
    let mut bench = Bench::start(&folder, moment());
    for n in 0..5 {
        bench.append(&[long_line(n)]);
    }
    fs::remove_file(segments(&folder).remove(0)).unwrap();
    assert!(bench.batch(0).is_none());
    let rest = bench.drain(0);
    assert_eq!(rest.last(), Some(&4));
    assert_eq!(bench.stats().sinks[0].lost_lines, 5 - rest.len() as u64);
}

/// Plain calls on a disk that has room for so many more bytes.
#[derive(Clone)]
struct Small(Rc<Cell<u64>>);

impl FileWriter for Small {
    type File = File;

    fn adopt(&self, file: File) -> io::Result<File> {
        Ok(file)
    }

    async fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let length = file.metadata()?.len();
        let growth = (at + bytes.len() as u64).saturating_sub(length);
        let missing = growth.saturating_sub(self.0.get()) as usize;
        self.0.set(self.0.get().saturating_sub(growth));
        file.write_all_at(&bytes[..bytes.len() - missing], at)?;
        if missing > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    async fn read(&self, file: &File, length: usize, at: u64) -> io::Result<Vec<u8>> {
        Plain.read(file, length, at).await
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        Plain.sync(file).await
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        Plain.cut(file, length)
    }
}

#[test]
fn a_full_disk_drops_lines_whole_and_what_comes_later_is_numbered_on() {
    let folder = Folder::new("spool");
    let disk = Rc::new(Cell::new(2000));
    let mut bench = Bench::with(Small(disk.clone()), &folder, moment(), 1);
    bench.append(&[line(1)]);
    disk.set(30);
    bench.append(&[line(2)]);
    bench.append(&[line(3), line(4)]);
    assert_eq!((bench.stats().written, bench.stats().dropped_unwritable), (1, 3));
    assert_eq!(text(&segments(&folder)[0]).lines().count(), 1, "nothing of them is left");
    disk.set(10_000);
    bench.append(&[line(5)]);
    assert!(text(&segments(&folder)[0]).lines().nth(1).unwrap().contains("\"line\":1,"));
    assert_eq!(bench.drain(0), [1, 5]);
    bench.drain(1);
    disk.set(0);
    bench.pass(1);
    assert!(segments(&folder).is_empty(), "what is overwritten needs no room");
    bench.append(&[line(6)]);
    assert_eq!(bench.stats().dropped_unwritable, 4);
}

#[test]
fn a_ring_and_plain_calls_leave_the_same_bytes() {
    fn script<F: FileWriter>(folder: &Folder, files: F) -> impl Future<Output = ()> {
        let found = load::load(folder.path(), ROOM, &sinks(), Some([1; 16]), moment()).unwrap();
        let mut segments = Segments::new(files, found);
        async move {
            let lines: Vec<Line> = (0..9).map(|n| if n % 2 == 0 { long_line(n) } else { line(n) }).collect();
            segments.append(&lines, moment()).await;
            for sink in 0..2 {
                let batch = segments.batch(sink, moment()).await.unwrap();
                segments.delivered(sink, batch.end, moment());
            }
            segments.finish(moment()).await;
        }
    }
    let contents = |folder: &Folder| -> Vec<(String, Vec<u8>)> {
        let mut paths = segments(folder);
        paths.push(folder.join(progress::FILE));
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        paths.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
    };
    let (plain, ring) = (Folder::new("spool"), Folder::new("spool"));
    done(script(&plain, Plain));
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).expect("io_uring, which the relay needs too");
    runtime.block_on(async { script(&ring, Ring::new()).await });
    let contents = [contents(&plain), contents(&ring)];
    assert_eq!(contents[0].len(), 2, "of two segments one is gone again; the other one, and the progress");
    assert!(contents[0] == contents[1]);
}

#[test]
fn a_sink_that_cannot_be_kept_safe_is_refused_in_words() {
    let http = |url: &str, allow_plaintext| SinkOptions::Http { url: url.to_owned(), allow_plaintext }.check();
    for url in ["http://127.0.0.1:9/x", "http://[::1]/", "http://localhost:8080"] {
        assert_eq!(http(url, false), Ok(()), "{url}");
    }
    assert!(http("http://logs.example/", false).unwrap_err().contains("allow_plaintext = true"));
    assert_eq!(http("http://logs.example/", true), Ok(()));
    assert!(http("https://127.0.0.1/", true).unwrap_err().contains("https:// is not built yet"));
    for url in ["http://user:word@127.0.0.1/", "http://127.0.0.1/?token=1", "http://127.0.0.1/#a", "ftp://a/", "/a", ""]
    {
        assert!(http(url, true).is_err(), "{url}");
    }
    assert!(SinkOptions::File { path: "a".into() }.check().is_err());
}

#[test]
fn a_file_that_is_none_of_the_spools_is_left_alone() {
    let folder = Folder::new("spool");
    let mut other = File::create(folder.join("7-1.jsonl")).unwrap();
    other.write_all(b"mine").unwrap();
    Bench::start(&folder, moment());
    load::remove_all(folder.path()).unwrap();
    assert_eq!(text(&folder.join("7-1.jsonl")), "mine");
}

/// A file as a sink, in a folder of its own.
struct FileSink {
    folder: Folder,
    path: PathBuf,
    sink: Sink<Plain>,
}

impl FileSink {
    fn new() -> Self {
        let folder = Folder::new("spool");
        let path = folder.join("records.jsonl");
        let sink = Sink::new(&SinkOptions::File { path: path.clone() }, Plain, "node").unwrap();
        FileSink { folder, path, sink }
    }

    fn deliver(&mut self, body: &str) -> Result<(), String> {
        let batch = Batch { segment: 1, first: 0, end: Place::default(), body: body.to_owned() };
        done(self.sink.deliver(&batch))
    }
}

#[test]
fn a_file_sink_follows_a_rotation() {
    let mut sink = FileSink::new();
    let moved = sink.folder.join("records.jsonl.1");
    sink.deliver("{\"n\":1}\n").unwrap();
    fs::rename(&sink.path, &moved).unwrap();
    sink.deliver("{\"n\":2}\n").unwrap();
    // As copytruncate does it.
    File::create(&moved).unwrap();
    sink.deliver("{\"n\":3}\n").unwrap();
    assert_eq!((text(&moved).as_str(), text(&sink.path).as_str()), ("", "{\"n\":2}\n{\"n\":3}\n"));
}

#[test]
fn a_file_sink_adds_no_line_to_one_that_a_crash_has_torn() {
    let mut sink = FileSink::new();
    fs::write(&sink.path, "{\"n\":1}\n{\"n\":").unwrap();
    sink.deliver("{\"n\":2}\n").unwrap();
    assert_eq!(text(&sink.path), "{\"n\":1}\n{\"n\":\n{\"n\":2}\n");
}

#[test]
fn a_file_sink_whose_disk_is_full_leaves_no_half_line() {
    let folder = Folder::new("spool");
    let path = folder.join("records.jsonl");
    let disk = Rc::new(Cell::new(12));
    let mut sink = Sink::new(&SinkOptions::File { path: path.clone() }, Small(disk.clone()), "node").unwrap();
    let batch = Batch { segment: 1, first: 0, end: Place::default(), body: "{\"n\":1}\n{\"n\":2}\n".to_owned() };
    assert!(done(sink.deliver(&batch)).is_err());
    assert_eq!(text(&path), "");
    disk.set(100);
    done(sink.deliver(&batch)).unwrap();
    assert_eq!(text(&path), batch.body);
}

#[test]
fn what_is_no_file_is_no_sink() {
    let mut sink = FileSink::new();
    fs::create_dir(&sink.path).unwrap();
    assert_eq!(sink.deliver("{}\n"), Err("it is not a file".to_owned()));
}
