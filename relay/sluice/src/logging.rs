//! The log on standard error. **Each sink decides for itself what it shows**: text for people leaves personal data
//! out, JSON lines have pseudonyms in its place. A dependency's events pass neither, whatever the level.

mod json;
mod schema;

use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

use json::{Json, Line};
use sluice_base::pii::showing::Shower;
use sluice_config::{Log, LogFormat, LogLevel};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt};

/// Whether the panic hook speaks JSON as well.
static IN_JSON: AtomicBool = AtomicBool::new(false);

const PANICKED: &str = "a thread panicked: this is a fault of sluice, please report it";

/// The level of the log, which the configuration changes unless the command line has fixed it.
pub(crate) struct Logging {
    handle: Handle<LevelFilter, Registry>,
    fixed: bool,
}

impl Logging {
    /// Starts logging. `fixed`: the level that the command line says. `shower` makes the pseudonyms.
    pub(crate) fn start(fixed: Option<LevelFilter>, log: Log, shower: Shower) -> Self {
        let level = fixed.unwrap_or(filter_of(log.level));
        let (subscriber, handle) = subscriber(level, log.format, shower, std::io::stderr);
        subscriber.init();
        IN_JSON.store(log.format == LogFormat::Json, Ordering::Relaxed);
        Logging { handle, fixed: fixed.is_some() }
    }

    /// Takes the level of a configuration over.
    pub(crate) fn set(&self, level: LogLevel) {
        if !self.fixed {
            // It only fails where there is no subscriber any more.
            let _ = self.handle.modify(|filter| *filter = filter_of(level));
        }
    }
}

/// From here on a panic tells where it was, on any thread, and nothing of what it was about: that may be an address.
pub(crate) fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let line = panic_line(panic, IN_JSON.load(Ordering::Relaxed));
        // Not through the log, which may be what has panicked.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }));
}

fn panic_line(panic: &PanicHookInfo<'_>, in_json: bool) -> String {
    let location = panic.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    if in_json {
        let mut line = Line::new("error", "sluice::panic", PANICKED.to_owned());
        line.add("location", location.into());
        line.add("thread", thread.into());
        return line.text();
    }
    format!("sluice: {PANICKED}: {location}, thread `{thread}`\n")
}

fn subscriber<W>(
    level: LevelFilter,
    format: LogFormat,
    shower: Shower,
    writer: W,
) -> (impl Subscriber + Send + Sync, Handle<LevelFilter, Registry>)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(level);
    let sink = match format {
        LogFormat::Text => fmt::layer().with_writer(writer).with_target(false).boxed(),
        LogFormat::Json => Json { shower, writer }.boxed(),
    };
    let ours = filter_fn(|metadata| is_ours(metadata.target()));
    (tracing_subscriber::registry().with(filter).with(ours).with(sink), handle)
}

/// Whether an event is of this project: others know nothing of what is personal.
fn is_ours(target: &str) -> bool {
    target.strip_prefix("sluice").is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::process::Command;
    use std::sync::{Arc, Mutex};

    use sluice_base::Pii;

    use super::*;

    const ADDRESS: &str = "192.0.2.77:4000";
    /// Set in the process that panics.
    const PANIC: &str = "SLUICE_TEST_PANIC";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged in `format` at TRACE meanwhile.
    fn logged(format: LogFormat, f: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let shower: Shower = Arc::new(|kind, _| format!("{kind:?}-pseudonym"));
        let (subscriber, _) = subscriber(LevelFilter::TRACE, format, shower, move || writer.clone());
        tracing::subscriber::with_default(subscriber, f);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn client() -> Pii<SocketAddr> {
        Pii::new(ADDRESS.parse().unwrap())
    }

    #[test]
    fn people_read_no_personal_data_and_programs_read_pseudonyms() {
        let say = || tracing::info!(client = ?client(), "came");
        assert!(logged(LogFormat::Text, say).contains("INFO came client=<personal>"));
        assert!(logged(LogFormat::Json, say).contains(r#""client":"Address-pseudonym""#));
    }

    #[test]
    fn the_events_of_a_dependency_are_dropped_at_every_level() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, || {
                tracing::error!(target: "hyper::proto", "from {ADDRESS}");
                tracing::trace!(target: "sluicegate", "from {ADDRESS}");
                tracing::trace!(target: "sluice_record::store", "ours");
            });
            assert!(text.contains("ours") && !text.contains("192.0.2.77"), "{text}");
            assert_eq!(text.lines().count(), 1);
        }
    }

    #[test]
    fn every_line_is_as_the_schema_says() {
        let text = logged(LogFormat::Json, || {
            tracing::info!(driver = "io_uring", workers = 2, uid = Some(7_u32), "two\nlines");
            tracing::warn!(client = ?client(), unheard_of = ADDRESS, workers = ADDRESS, "unlisted");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        lines.iter().for_each(|line| schema::check(line).unwrap());
        assert!(lines[0].contains(r#""message":"two\nlines","fields":{"driver":"io_uring","uid":7,"workers":2}}"#));
        assert!(lines[1].contains(r#""fields":{"client":"Address-pseudonym"},"left_out":2}"#), "{}", lines[1]);
    }

    /// Does nothing unless the test below runs it in a process of its own.
    #[test]
    fn a_thread_that_panics() {
        let Ok(format) = std::env::var(PANIC) else { return };
        IN_JSON.store(format == "json", Ordering::Relaxed);
        keep_panics_quiet();
        let client: SocketAddr = ADDRESS.parse().unwrap();
        let named = std::thread::Builder::new().name("worker-0".to_owned());
        let _ = named.spawn(move || panic!("a packet of {client}")).unwrap().join();
        let _ = std::thread::spawn(move || std::panic::panic_any(client)).join();
    }

    #[test]
    fn a_panic_tells_its_place_and_nothing_of_its_payload() {
        for format in ["text", "json"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "logging::tests::a_thread_that_panics", "--nocapture"]).env(PANIC, format);
            let output = child.output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
            assert_eq!(text.matches("relay/sluice/src/logging.rs:").count(), 2, "{text}");
            assert!(text.contains("worker-0") && !text.contains("192.0.2.77"), "{text}");
            for line in text.lines().filter(|line| line.starts_with('{')) {
                schema::check(line).unwrap();
            }
            assert_eq!(text.matches("{\"time\"").count(), if format == "json" { 2 } else { 0 }, "{text}");
        }
    }
}
