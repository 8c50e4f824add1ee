//! A spool with its thread, and a receiver on loopback.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_base::limits;
use sluice_base::memory::KeyCells;
use sluice_privacy::Moment;
use sluice_record::spool::{self, Line, SinkOptions, Spool, SpoolOptions};
use sluice_record::testing::{Folder, Machine};
use sluice_record::vault::Platform;

/// A directory that goes with the test.
struct Place(Folder);

impl Place {
    fn new() -> Self {
        Place(Folder::new("spool-thread"))
    }

    fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    fn segments(&self) -> usize {
        let names = fs::read_dir(self.spool()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".jsonl")).count()
    }

    fn start(&self, sinks: Vec<SinkOptions>, uring: bool, clock: Arc<dyn Platform>) -> Spool {
        let options = SpoolOptions { uring, ..SpoolOptions::new(self.spool(), "node-1".to_owned(), sinks) };
        spool::start(options, clock).unwrap()
    }
}

/// A machine on which something is done at each look at the clock.
struct Watched<F>(Machine, F);

impl<F: Fn(&Machine) + Send + Sync> Platform for Watched<F> {
    fn moment(&self) -> Moment {
        self.1(&self.0);
        self.0.moment()
    }

    fn cells(&self) -> &dyn KeyCells {
        self.0.cells()
    }

    fn is_tmpfs(&self, path: &Path) -> io::Result<bool> {
        self.0.is_tmpfs(path)
    }

    fn random(&self, out: &mut [u8]) {
        self.0.random(out);
    }

    fn has_swap(&self) -> Option<bool> {
        self.0.has_swap()
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        self.0.boot_id()
    }
}

/// One on which ten minutes pass from one look to the next, so that nothing is waited for.
fn hasty() -> Arc<dyn Platform> {
    Arc::new(Watched(Machine::new(1), |machine: &Machine| machine.pass(Duration::from_secs(600))))
}

fn line(n: usize) -> Line {
    Line { kind: "quality", json: format!("{{\"n\":{n}}}").into_bytes() }
}

/// A request: its head in small letters, and its body.
fn request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "it ends early");
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn receiver() -> (TcpListener, SinkOptions) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/records", listener.local_addr().unwrap());
    (listener, SinkOptions::Http { url, allow_plaintext: false })
}

#[test]
fn a_batch_is_sent_until_it_is_acknowledged_and_then_overwritten() {
    for (uring, io) in [(true, "io_uring"), (false, "plain calls")] {
        let folder = Place::new();
        let (listener, sink) = receiver();
        let running = folder.start(vec![sink], uring, hasty());
        assert_eq!(running.io(), io);
        assert!(running.handle().offer(line(1)));
        let mut received = Vec::new();
        // One that closes after reading, one that cannot, one that has it.
        for answer in ["", "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 204 Yes\r\n\r\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            received.push(request(&stream));
            stream.write_all(answer.as_bytes()).unwrap();
        }
        assert!(received.iter().all(|request| *request == received[0]), "a receiver can tell that it is the same");
        let (head, body) = &received[0];
        assert_eq!(body, "{\"segment\":1795867800,\"line\":0,\"kind\":\"quality\",\"n\":1}\n");
        assert!(head.starts_with("post /records http/1.1\r\n"), "{head}");
        let fields = ["content-type: application/x-ndjson", "sluice-node: node-1", "sluice-segment: 1795867800"];
        let numbers = ["sluice-first-line: 0", "sluice-last-line: 0", "idempotency-key: \"node-1/1795867800/0-0\""];
        for field in fields.iter().chain(&numbers) {
            assert!(head.contains(field), "{field} in {head}");
        }
        // The next line is sent only when the one before is acknowledged.
        assert!(running.handle().offer(line(2)));
        let (stream, _) = listener.accept().unwrap();
        let (_, body) = request(&stream);
        assert!(body.contains("\"n\":2") && !body.contains("\"n\":1"), "{body}");
        drop(stream);
        let handle = running.handle();
        running.stop();
        let stats = &handle.stats().sinks[0];
        assert_eq!((stats.batches, stats.lines), (1, 1));
        assert!(stats.failures >= 2);
    }
}

#[test]
fn what_was_offered_before_a_stop_is_there_after_the_next_start() {
    let folder = Place::new();
    let (listener, sink) = receiver();
    drop(listener);
    let running = folder.start(vec![sink], true, hasty());
    (0..100).for_each(|n| assert!(running.handle().offer(line(n))));
    running.stop();
    let file = folder.0.join("records.jsonl");
    let running = folder.start(vec![SinkOptions::File { path: file.clone() }], true, hasty());
    let handle = running.handle();
    while handle.stats().sinks[0].lines < 100 {
        std::thread::yield_now();
    }
    running.stop();
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 100);
    assert_eq!(folder.segments(), 0);
}

#[test]
fn a_full_queue_refuses_and_counts_and_does_not_wait() {
    let folder = Place::new();
    let gate = Arc::new(Mutex::new(()));
    let waits = {
        let gate = gate.clone();
        Arc::new(Watched(Machine::new(1), move |_: &Machine| drop(gate.lock().unwrap())))
    };
    let (_listener, sink) = receiver();
    let running = folder.start(vec![sink], true, waits);
    let held = gate.lock().unwrap();
    let lines = 2 * limits::SPOOL_QUEUE_MAX + 10;
    let taken = (0..lines).filter(|n| running.handle().offer(line(*n))).count();
    assert!((limits::SPOOL_QUEUE_MAX..=2 * limits::SPOOL_QUEUE_MAX).contains(&taken), "{taken}");
    assert_eq!(running.handle().stats().dropped_queue, (lines - taken) as u64);
    drop(held);
    let handle = running.handle();
    running.stop();
    assert_eq!(handle.stats().written, taken as u64);
}

#[test]
fn without_sinks_there_is_no_spool_and_what_a_former_one_left_is_gone() {
    let folder = Place::new();
    let (_listener, sink) = receiver();
    let running = folder.start(vec![sink], true, hasty());
    assert!(running.handle().offer(line(1)));
    running.stop();
    assert_eq!(folder.segments(), 1);
    let none = folder.start(vec![], true, hasty());
    assert!(!none.handle().is_there() && !none.handle().offer(line(2)));
    assert_eq!(fs::read_dir(folder.spool()).unwrap().count(), 0);
    assert_eq!(none.handle().stats().dropped_queue, 0);
}
