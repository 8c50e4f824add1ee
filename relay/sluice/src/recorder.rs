//! What a worker tells the record plane, and how an allocation waits for its record.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use sluice_base::event::RelayEvent;
use sluice_base::io::Waker;
use sluice_base::limits::QUESTIONS_PER_WORKER_MAX;
use sluice_base::policy::{Decide, Denial, Grant, Hook, Question, Verdict};
use sluice_base::{Now, QuestionId};
use sluice_record::plane::{Admission, Handle};
use sluice_record::vault::Gate;

/// Answers every question that quota and guard let through with yes: an Allocate at once, or when its record is on the
/// disk, and with no when it does not get there.
pub(crate) struct Recorder {
    recording: Option<Recording>,
    answers: Answers,
}

/// What a recorder needs of the record plane.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) handle: Handle,
    pub(crate) gate: Gate,
    /// Whether an allocation waits for its record.
    pub(crate) required: bool,
}

/// Answers of the record plane on their way to one worker.
#[derive(Clone)]
struct Answers {
    queue: Arc<ArrayQueue<(QuestionId, bool)>>,
    waker: Waker,
}

impl Recorder {
    /// Of one worker, which `waker` wakes; without a record plane it says yes and records nothing.
    pub(crate) fn new(recording: Option<Recording>, waker: Waker) -> Self {
        let places = if recording.is_some() { QUESTIONS_PER_WORKER_MAX } else { 1 };
        Recorder { recording, answers: Answers { queue: Arc::new(ArrayQueue::new(places)), waker } }
    }
}

impl Decide for Recorder {
    fn ask(&mut self, now: Now, question: Question) -> Option<Verdict> {
        let recording = self.recording.as_ref().filter(|recording| recording.required);
        let (Some(recording), Hook::Allocate) = (recording, question.hook) else {
            return Some(Verdict::Allow(Grant::default()));
        };
        let admission = Admission {
            session: question.session,
            tenant: question.tenant,
            user: question.user,
            client: question.client.address,
            unix_seconds: now.unix_seconds,
        };
        let (answers, id) = (self.answers.clone(), question.id);
        let taken = recording.handle.admit(admission, Box::new(move |written| answers.give(id, written)));
        if taken { None } else { Some(Verdict::Deny(Denial::TryLater)) }
    }

    fn poll(&mut self, _now: Now) -> Option<(QuestionId, Verdict)> {
        let (id, written) = self.answers.queue.pop()?;
        let verdict = if written { Verdict::Allow(Grant::default()) } else { Verdict::Deny(Denial::TryLater) };
        Some((id, verdict))
    }

    fn event(&mut self, _now: Now, event: RelayEvent) {
        if let Some(recording) = &self.recording {
            // What is lost is counted there.
            recording.handle.event(event);
        }
    }

    fn begin(&mut self, now: Now) {
        // No packet of this tick passes a key whose end has come, whatever the clock has done since the last one.
        if let Some(recording) = &self.recording {
            recording.gate.check(now.unix_seconds);
        }
    }
}

impl Answers {
    /// Called on the store's thread.
    fn give(&self, id: QuestionId, written: bool) {
        // There is a place for every question that can be open; an answer without one has none waiting, and a question
        // without an answer is answered no.
        let _ = self.queue.push((id, written));
        self.waker.wake();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    use sluice_base::policy::Endpoint;
    use sluice_base::{AddressClass, Mono, Pii, SessionId, TenantId};
    use sluice_record::plane::{self, Plane, PlaneOptions, TenantTable};
    use sluice_record::testing::{Folder, Machine};
    use sluice_record::vault::VaultOptions;

    use super::*;

    const NOON: u64 = 1_795_867_200;

    fn plane(folder: &Folder, machine: &Arc<Machine>) -> Plane {
        let vault = VaultOptions::new(folder.join("state"), Some(folder.join("keys")));
        plane::start(PlaneOptions::new(vault, TenantTable::of(&["main"])), machine.clone()).unwrap()
    }

    fn now(unix_seconds: u64) -> Now {
        Now { mono: Mono::default(), unix_seconds }
    }

    /// A question of tenant 0.
    pub(crate) fn question(hook: Hook) -> Question {
        let address = Pii::new("192.0.2.7:4000".parse().unwrap());
        Question {
            id: QuestionId(7),
            hook,
            tenant: TenantId(0),
            user: Pii::new(b"alice"[..].into()),
            client: Endpoint { address, class: AddressClass::Public, translated: false },
            peers: Vec::new(),
            session: SessionId([9; 16]),
            allocation: None,
            lifetime: None,
        }
    }

    /// A recorder, and what hears of each wake.
    fn recorder(plane: &Plane, required: bool) -> (Recorder, mpsc::Receiver<()>) {
        let (woken, wakes) = mpsc::channel();
        let waker = Waker::new(move || {
            let _ = woken.send(());
        });
        let recording = Recording { handle: plane.handle.clone(), gate: plane.vault.gate(), required };
        (Recorder::new(Some(recording), waker), wakes)
    }

    fn key_files(directory: &Path) -> usize {
        let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".key")).count()
    }

    #[test]
    fn an_allocation_is_allowed_when_its_record_is_written_and_wakes_its_worker() {
        let folder = Folder::new("recorder");
        let plane = plane(&folder, &Arc::new(Machine::new(1)));
        let (mut recorder, wakes) = recorder(&plane, true);
        assert_eq!(recorder.ask(now(NOON), question(Hook::Allocate)), None);
        wakes.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(recorder.poll(now(NOON)), Some((QuestionId(7), Verdict::Allow(Grant::default()))));
        assert_eq!(recorder.poll(now(NOON)), None);
        assert_eq!(plane.handle.stats().admissions_written, 1);
        assert!(plane.stop());
    }

    #[test]
    fn an_allocation_whose_record_cannot_be_written_is_told_to_try_later() {
        let folder = Folder::new("recorder");
        let plane = plane(&folder, &Arc::new(Machine::new(2)));
        let (mut recorder, wakes) = recorder(&plane, true);
        assert!(plane.stop());
        let no = Verdict::Deny(Denial::TryLater);
        let verdict = recorder.ask(now(NOON), question(Hook::Allocate)).or_else(|| {
            wakes.recv_timeout(Duration::from_secs(10)).unwrap();
            recorder.poll(now(NOON)).map(|(_, verdict)| verdict)
        });
        assert_eq!(verdict, Some(no));
    }

    #[test]
    fn nothing_else_waits_for_a_record() {
        let folder = Folder::new("recorder");
        let plane = plane(&folder, &Arc::new(Machine::new(3)));
        let yes = Some(Verdict::Allow(Grant::default()));
        assert_eq!(recorder(&plane, true).0.ask(now(NOON), question(Hook::Refresh)), yes);
        assert_eq!(recorder(&plane, false).0.ask(now(NOON), question(Hook::Allocate)), yes);
        assert_eq!(Recorder::new(None, Waker::new(|| ())).ask(now(NOON), question(Hook::Allocate)), yes);
        assert!(plane.stop());
    }

    #[test]
    fn a_key_is_gone_before_the_first_packet_after_its_end() {
        let folder = Folder::new("recorder");
        let machine = Arc::new(Machine::new(4));
        let plane = plane(&folder, &machine);
        plane.vault.seal("main", &[1; 16], b"x").unwrap();
        assert_eq!(key_files(&folder.join("keys")), 1);
        let (mut recorder, _wakes) = recorder(&plane, true);
        recorder.begin(now(NOON));
        assert_eq!(key_files(&folder.join("keys")), 1);
        let later = NOON + 8 * 86_400;
        machine.set_wall_clock(later);
        recorder.begin(now(later));
        assert_eq!(key_files(&folder.join("keys")), 0);
        assert!(plane.stop());
    }
}
