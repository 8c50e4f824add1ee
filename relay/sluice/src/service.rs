//! What the service manager is told (sd_notify(3)): that the relay serves, how it is, that it still advances.
//!
//! **The watchdog is fed only while every worker advances**: a relay of which a part hangs is one that is to be
//! started again.

use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;
use sluice_base::limits::NOTIFICATIONS_MAX;

/// How often it is told how the relay is, unless the watchdog wants to hear more often.
const BEAT: Duration = Duration::from_secs(5);

/// Beats in the time of the watchdog: one may come late, and one be lost.
const BEATS_PER_WATCHDOG: u32 = 4;

/// How much more time a drain asks for at each beat.
const EXTENSION: Duration = Duration::from_secs(30);

/// How long the process waits at its end for the last words to be taken.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The service manager, if there is one: without $NOTIFY_SOCKET nobody is told.
pub(crate) struct Service {
    watchdog: Option<Duration>,
    status: String,
    messenger: Option<Messenger>,
}

/// A thread that tells, since a manager that does not listen makes whoever tells it wait.
struct Messenger {
    messages: Option<SyncSender<String>>,
    /// Gone when everything has been told.
    done: Receiver<()>,
}

/// How the relay is at one beat.
pub(crate) struct Standing {
    /// What is wrong: a worker that does not advance.
    pub(crate) fault: Option<String>,
    pub(crate) allocations: u32,
    /// How much longer a drain may last, if there is one.
    pub(crate) draining: Option<Duration>,
}

/// What is told at one beat.
#[derive(PartialEq, Eq, Debug)]
struct Beat {
    watchdog: bool,
    extend: Option<Duration>,
    status: String,
}

impl Service {
    /// As the environment says.
    pub(crate) fn new() -> Self {
        let messenger = std::env::var_os("NOTIFY_SOCKET").and_then(|_| Messenger::start());
        Service { watchdog: sd_notify::watchdog_enabled(), status: String::new(), messenger }
    }

    /// How often [`Service::beat`] is to be called.
    pub(crate) fn interval(&self) -> Duration {
        self.watchdog.map_or(BEAT, |watchdog| (watchdog / BEATS_PER_WATCHDOG).min(BEAT))
    }

    /// Every worker serves.
    pub(crate) fn ready(&mut self, standing: &Standing) {
        self.status = status(standing);
        self.tell(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
    }

    /// The configuration is read again; the end of that is [`Service::reloaded`].
    pub(crate) fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now());
        self.tell(&states);
    }

    /// It has been taken over or refused: the relay serves either way.
    pub(crate) fn reloaded(&mut self, outcome: &str) {
        self.status = format!("reload: {outcome}");
        self.tell(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
    }

    /// The end has begun.
    pub(crate) fn stopping(&mut self, standing: &Standing) {
        self.status = status(standing);
        let mut states = vec![NotifyState::Stopping, NotifyState::Status(&self.status)];
        states.extend(standing.draining.map(extend));
        self.tell(&states);
    }

    /// How it is.
    pub(crate) fn beat(&mut self, standing: &Standing) {
        let beat = Beat::of(self.watchdog.is_some(), standing);
        let mut states = Vec::new();
        states.extend(beat.watchdog.then_some(NotifyState::Watchdog));
        states.extend(beat.extend.map(extend));
        if beat.status != self.status {
            self.status = beat.status;
            states.push(NotifyState::Status(&self.status));
        }
        self.tell(&states);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Some(messenger) = self.messenger.as_ref().filter(|_| !states.is_empty()) {
            messenger.tell(states);
        }
    }
}

impl Messenger {
    fn start() -> Option<Self> {
        let (messages, received) = sync_channel::<String>(NOTIFICATIONS_MAX);
        let (working, done) = channel();
        let tell = move || {
            let _working = working;
            for message in received {
                if let Err(error) = sd_notify::notify(&[NotifyState::Custom(message.trim_end())]) {
                    tracing::warn!("the service manager cannot be told at $NOTIFY_SOCKET: {error}");
                }
            }
        };
        let started = std::thread::Builder::new().name("notify".to_owned()).spawn(tell);
        started
            .inspect_err(|error| tracing::error!("no thread to tell the service manager: {error}"))
            .ok()
            .map(|_| Messenger { messages: Some(messages), done })
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let mut message = String::new();
        for state in states {
            // Writing to a string cannot fail.
            let _ = writeln!(message, "{state}");
        }
        if let Some(messages) = &self.messages {
            // What a deaf manager is not told is told again in other words at the next beat.
            let _ = messages.try_send(message);
        }
    }
}

impl Drop for Messenger {
    fn drop(&mut self) {
        self.messages = None;
        let _ = self.done.recv_timeout(LAST_WORDS);
    }
}

impl Beat {
    fn of(watched: bool, standing: &Standing) -> Self {
        Beat { watchdog: watched && standing.fault.is_none(), extend: standing.draining, status: status(standing) }
    }
}

fn status(standing: &Standing) -> String {
    let Standing { fault, allocations, draining } = standing;
    match (fault, draining) {
        (Some(fault), _) => format!("hangs: {}", fault.replace('\n', "; ")),
        (None, Some(left)) => format!("draining: {allocations} allocations left, for {} s at most", left.as_secs()),
        (None, None) => format!("serving {allocations} allocations"),
    }
}

/// More time, within what a drain may take.
fn extend(left: Duration) -> NotifyState<'static> {
    // Its end takes a moment too.
    let more = left.saturating_add(EXTENSION / 2).min(EXTENSION);
    NotifyState::ExtendTimeoutUsec(u32::try_from(more.as_micros()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use sluice_admin::Advancing;

    use super::*;

    fn standing(fault: Option<String>, draining: Option<Duration>) -> Standing {
        Standing { fault, allocations: 3, draining }
    }

    #[test]
    fn the_watchdog_is_fed_only_while_every_worker_advances() {
        let ticks = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let watched = ticks.clone();
        let health = Advancing::new(move || watched.iter().map(|ticks| ticks.load(Ordering::Relaxed)).collect());
        let start = Instant::now();
        let fed = |second: u64, advance: [u64; 2]| {
            for (ticks, by) in ticks.iter().zip(advance) {
                ticks.fetch_add(by, Ordering::Relaxed);
            }
            let fault = health.check_at(start + Duration::from_secs(second)).err();
            Beat::of(true, &standing(fault, None))
        };
        assert!(fed(5, [1, 1]).watchdog);
        assert!(fed(10, [1, 1]).watchdog);
        let hanging = fed(16, [1, 0]);
        assert!(!hanging.watchdog, "worker 1 stands still");
        assert_eq!(hanging.status, "hangs: worker 1 has not advanced for 6 s");
        assert!(!fed(30, [1, 0]).watchdog);
        assert!(fed(35, [1, 1]).watchdog, "it goes on");
    }

    #[test]
    fn nobody_is_fed_who_does_not_watch() {
        assert!(!Beat::of(false, &standing(None, None)).watchdog);
    }

    #[test]
    fn a_drain_asks_for_time_and_tells_how_far_it_is() {
        let beat = Beat::of(true, &standing(None, Some(Duration::from_secs(90))));
        assert_eq!(beat.extend, Some(Duration::from_secs(90)));
        assert_eq!(beat.status, "draining: 3 allocations left, for 90 s at most");
        assert_eq!(extend(Duration::from_secs(90)).to_string(), "EXTEND_TIMEOUT_USEC=30000000");
        assert_eq!(extend(Duration::from_secs(5)).to_string(), "EXTEND_TIMEOUT_USEC=20000000");
    }

    #[test]
    fn the_watchdog_hears_several_times_within_its_time() {
        let of = |seconds| {
            let watchdog = Some(Duration::from_secs(seconds));
            Service { watchdog, status: String::new(), messenger: None }.interval()
        };
        assert_eq!((of(30), of(4)), (Duration::from_secs(5), Duration::from_secs(1)));
    }
}
