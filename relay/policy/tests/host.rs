//! What the host does with plugins, good and bad.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_base::TenantId;
use sluice_base::policy::{Denial, Grant, Hook, Question, Verdict};
use sluice_policy::{
    Capture, Captures, EngineChoice, EngineKind, Erased, Failure, Forgotten, Grant as PolicyGrant, Hook as PolicyHook,
    Host, HostOptions, LoadError, Mode, Node, Plugin, Source, Tenant,
};
use sluice_privacy::Plan;
use sluice_privacy::schema::Destination;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use support::{
    ABSTAIN, ALLOW, ALLOW_NONE, ALLOW_ONE, DENY, Guest, ask, bind, host, host_of, load, load_with, question,
};

const LATER: Verdict = Verdict::Deny(Denial::TryLater);
const UNANSWERED: Verdict = Verdict::Deny(Denial::Unanswered);

fn allowed(seconds: u64) -> Verdict {
    Verdict::Allow(Grant { valid_for: Some(Duration::from_secs(seconds)), ..Grant::default() })
}

fn bound(engine: EngineChoice, guests: &[Guest]) -> (Host, Vec<Arc<Plugin>>) {
    let host = host(engine);
    let plugins: Vec<_> = guests.iter().enumerate().map(|(i, g)| load(&host, &format!("p{i}"), g).unwrap()).collect();
    bind(&host, &plugins.iter().map(|plugin| (plugin.clone(), Mode::Enforce)).collect::<Vec<_>>());
    (host, plugins)
}

fn failures(plugin: &Plugin, failure: Failure) -> u64 {
    plugin.stats().failures().iter().find(|(reason, _)| *reason == failure).unwrap().1
}

#[test]
fn a_plugin_answers_on_both_engines() {
    for (choice, kind) in [(EngineChoice::Cranelift, EngineKind::Cranelift), (EngineChoice::Pulley, EngineKind::Pulley)]
    {
        let (host, plugins) = bound(choice, &[Guest::default()]);
        assert_eq!(host.engine().0, kind);
        assert_eq!(ask(&host, question(Hook::Allocate, 0)), allowed(60));
        assert_eq!(ask(&host, question(Hook::CreatePermission, 1)), allowed(60));
        assert_eq!(plugins[0].version(), "1.0.0");
    }
}

#[test]
fn several_answers_become_one() {
    for (bodies, verdict) in [
        ([ALLOW, ALLOW], allowed(60)),
        ([ALLOW, ABSTAIN], allowed(60)),
        ([ALLOW, DENY], Verdict::Deny(Denial::Quota)),
        ([DENY, ABSTAIN], Verdict::Deny(Denial::Quota)),
        ([ABSTAIN, ABSTAIN], Verdict::Deny(Denial::Forbidden)),
    ] {
        let (host, _) = bound(EngineChoice::Auto, &bodies.map(Guest::allocating));
        assert_eq!(ask(&host, question(Hook::Allocate, 0)), verdict, "{bodies:?}");
    }
}

#[test]
fn words_for_the_audit_are_handed_on_with_their_plugin_and_not_those_of_a_dry_run() {
    let host = host(EngineChoice::Auto);
    let (sender, told) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    host.on_tags(Box::new(move |tagged| sender.lock().unwrap().send(tagged).unwrap()));
    let tag = r#"(data (i32.const 2080) "\50\0d\00\00\01\00\00\00") (data (i32.const 3408) "\80\0d\00\00\05\00\00\00")
        (data (i32.const 3456) "ward7")"#;
    let guest = Guest { more: tag.to_owned(), ..Guest::default() };
    let [one, other] = ["one", "other"].map(|name| load(&host, name, &guest).unwrap());
    bind(&host, &[(one, Mode::Enforce), (other, Mode::DryRun)]);
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), allowed(60));
    drop(host);
    let told: Vec<_> = told.iter().collect();
    assert_eq!(told.len(), 1);
    let sluice_base::event::Tagged { plugin, hook, allowed, tags, session, .. } = &told[0];
    assert_eq!((&**plugin, *hook, *allowed, &tags[..]), ("one", "allocate", true, &["ward7".to_owned()][..]));
    assert_eq!(*session, question(Hook::Allocate, 0).session);
}

#[test]
fn who_has_no_policies_is_not_asked() {
    let host = host(EngineChoice::Auto);
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), Verdict::Allow(Grant::default()));
    let plugin = load(&host, "p", &Guest { world: "base", ..Guest::default() }).unwrap();
    bind(&host, &[(plugin, Mode::Enforce)]);
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), Verdict::Allow(Grant::default()));
}

#[test]
fn what_a_tenant_that_is_gone_has_left_behind_stays_under_its_policies() {
    let (host, _) = bound(EngineChoice::Auto, &[Guest::allocating(DENY)]);
    let mut table = host.bind(Vec::new(), Node::default(), Arc::default()).unwrap();
    table.keep_gone(&host.table(), &[TenantId(0), TenantId(1)]);
    host.swap(table);
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), Verdict::Deny(Denial::Quota));
    host.swap(host.bind(Vec::new(), Node::default(), Arc::default()).unwrap());
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), Verdict::Allow(Grant::default()));
}

#[test]
fn a_dry_run_decides_nothing_and_is_counted() {
    let host = host(EngineChoice::Auto);
    let plugin = load(&host, "p", &Guest::allocating(DENY)).unwrap();
    bind(&host, &[(plugin.clone(), Mode::DryRun)]);
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), Verdict::Allow(Grant::default()));
    let second = load(&host, "q", &Guest::allocating(ALLOW)).unwrap();
    bind(&host, &[(plugin.clone(), Mode::DryRun), (second, Mode::Enforce)]);
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), allowed(60));
    // The rehearsal comes after the answer; that of the first question is over when a thread took the second.
    wait_for("the rehearsal", || plugin.stats().verdicts().iter().any(|(_, word, n)| *word == "would-deny" && *n >= 1));
}

/// What is captured, as long as there is room.
#[derive(Debug, Default)]
struct Kept {
    lines: Mutex<Vec<String>>,
    is_full: AtomicBool,
}

impl Capture for Kept {
    fn is_open(&self) -> bool {
        !self.is_full.load(Ordering::Relaxed)
    }

    fn take(&self, line: String, _: &Arc<AtomicU64>) {
        self.lines.lock().unwrap().push(line);
    }
}

/// Binds one plugin to tenant 0, whose questions are captured.
fn bind_captured(host: &Host, plugins: Vec<(Arc<Plugin>, Mode)>, kept: &Arc<Kept>) -> Result<(), String> {
    let name = plugins[0].0.name().to_owned();
    let captures: Captures = [((TenantId(0), name), kept.clone() as Arc<dyn Capture>)].into();
    let tenant = Tenant { id: TenantId(0), name: "clinic".to_owned(), plugins };
    let table = host.bind_capturing(vec![tenant], Node::default(), Arc::default(), captures);
    table.map(|table| host.swap(table)).map_err(|error| error.to_string())
}

/// A plugin that denies allocations and is told all that there is to be told.
fn curious() -> Guest {
    // The manifest, the list of its four facts, and their names.
    let more = r#"
        (data (i32.const 3584) "\40\04\00\00\04\00\00\00\48\04\00\00\05\00\00\00\40\0e\00\00\04\00\00\00")
        (data (i32.const 3648) "\80\0e\00\00\07\00\00\00\88\0e\00\00\04\00\00\00")
        (data (i32.const 3664) "\90\0e\00\00\09\00\00\00\a0\0e\00\00\07\00\00\00")
        (data (i32.const 3712) "address") (data (i32.const 3720) "port")
        (data (i32.const 3728) "pseudonym") (data (i32.const 3744) "subject")"#;
    Guest { describe: "(i32.const 3584)".to_owned(), more: more.to_owned(), ..Guest::allocating(DENY) }
}

#[test]
fn words_for_the_audit_of_a_plugin_that_is_told_addresses_are_a_failure() {
    let host = host(EngineChoice::Auto);
    let tag = r#"(data (i32.const 2080) "\50\0d\00\00\01\00\00\00") (data (i32.const 3408) "\80\0d\00\00\05\00\00\00")
        (data (i32.const 3456) "ward7")"#;
    let guest = Guest { more: format!("{}{tag}", curious().more), ..curious() };
    let guest = Guest { allocate: ALLOW.to_owned(), ..guest };
    for (grants, verdict) in [(&[][..], allowed(60)), (&[PolicyGrant::RawAddresses][..], LATER)] {
        let plugin = load_with(&host, "p", guest.bytes(), "{}", grants).unwrap();
        bind(&host, &[(plugin.clone(), Mode::Enforce)]);
        assert_eq!(ask(&host, question(Hook::Allocate, 0)), verdict);
        assert_eq!(failures(&plugin, Failure::Answer), u64::from(verdict == LATER));
    }
}

#[test]
fn a_capture_holds_what_was_asked_without_addresses_and_names_of_sessions_and_can_be_asked_again() {
    let (host, kept) = (host(EngineChoice::Auto), Arc::new(Kept::default()));
    let plugin = load_with(&host, "p", curious().bytes(), "{}", &[PolicyGrant::RawAddresses]).unwrap();
    bind_captured(&host, vec![(plugin.clone(), Mode::DryRun)], &kept).unwrap();
    for asked in [question(Hook::Allocate, 0), question(Hook::ChannelBind, 1)] {
        assert_eq!(ask(&host, asked), Verdict::Allow(Grant::default()));
    }
    wait_for("a line of each", || kept.lines.lock().unwrap().len() == 2);
    let lines = kept.lines.lock().unwrap().clone();
    let session = question(Hook::Allocate, 0).session.to_string();
    for line in &lines {
        for personal in ["203.0.113", "203,0,113", "\"address\"", "request-id", "alice", &session] {
            assert!(!line.contains(personal), "{personal} is in {line}");
        }
        assert!(line.contains("\"port\":4000") && !line.contains("\"pseudonym\":null"), "{line}");
    }
    let other = load(&host, "q", &Guest::default()).unwrap();
    let same = |plugin: &Plugin, line: &String| answers_the_same(&host, plugin, line);
    let is_allocation = |line: &&String| line.contains("admission.allocate");
    let (allocation, channel) = (lines.iter().find(is_allocation).unwrap(), lines.iter().find(|l| !is_allocation(l)));
    let channel = channel.unwrap();
    assert_eq!([same(&plugin, allocation), same(&plugin, channel)], [true, true]);
    assert_eq!([same(&other, allocation), same(&other, channel)], [false, true]);
}

#[test]
fn where_a_plugin_is_told_places_its_capture_says_of_nobody_who_it_is_and_can_be_asked_again() {
    let (host, kept, mut guest) = (host(EngineChoice::Auto), Arc::new(Kept::default()), curious());
    guest.more = guest.more.replace("\"address\"", "\"country\"");
    let plugin = load(&host, "p", &guest).unwrap();
    assert_eq!(plugin.facts().names(), ["port", "pseudonym", "country", "subject"]);
    bind_captured(&host, vec![(plugin.clone(), Mode::DryRun)], &kept).unwrap();
    for (asked, pseudonyms) in [(question(Hook::Allocate, 0), 1), (question(Hook::ChannelBind, 1), 2)] {
        ask(&host, asked);
        wait_for("a line", || !kept.lines.lock().unwrap().is_empty());
        let line = kept.lines.lock().unwrap().remove(0);
        assert!(line.contains(r#""subject":"subject-1""#), "{line}");
        let told = |n: usize| line.contains(&format!(r#""pseudonym":"pseudonym-{n}""#));
        assert!((1..=pseudonyms).all(told) && line.matches(r#""pseudonym":"#).count() == pseudonyms, "{line}");
        assert!(answers_the_same(&host, &plugin, &line));
    }
}

/// Whether what a line of a capture says comes again.
fn answers_the_same(host: &Host, plugin: &Plugin, line: &str) -> bool {
    let case = sluice_policy::Case::parse("c", line).unwrap().remove(0);
    case.compare(&host.answer_case(plugin, &case, &Arc::default()).unwrap()).is_ok()
}

#[test]
fn an_answer_that_is_not_taken_is_captured_as_its_failure_and_is_another_than_one_that_is() {
    let host = host(EngineChoice::Auto);
    // Of what is to be one word for the audit it makes two.
    let words = r#"(data (i32.const 2080) "\50\0d\00\00\01\00\00\00") (data (i32.const 3408) "\80\0d\00\00\09\00\00\00")
        (data (i32.const 3456) "two words")"#;
    let bad = load(&host, "bad", &Guest { more: words.to_owned(), ..Guest::default() }).unwrap();
    let good = load(&host, "good", &Guest::default()).unwrap();
    let captured = |plugin: &Arc<Plugin>| {
        let kept = Arc::new(Kept::default());
        bind_captured(&host, vec![(plugin.clone(), Mode::DryRun)], &kept).unwrap();
        ask(&host, question(Hook::Allocate, 0));
        wait_for("a line", || kept.lines.lock().unwrap().len() == 1);
        kept.lines.lock().unwrap().remove(0)
    };
    let [of_bad, of_good] = [&bad, &good].map(captured);
    assert!(of_bad.contains(r#""fails":"answer""#) && !of_bad.contains("two words"), "{of_bad}");
    assert!(answers_the_same(&host, &bad, &of_bad) && !answers_the_same(&host, &good, &of_bad));
    assert!(answers_the_same(&host, &good, &of_good) && !answers_the_same(&host, &bad, &of_good));
}

#[test]
fn what_a_capture_has_no_room_for_is_counted() {
    let (host, kept) = (host(EngineChoice::Auto), Arc::new(Kept::default()));
    kept.is_full.store(true, Ordering::Relaxed);
    let plugin = load(&host, "p", &Guest::default()).unwrap();
    bind_captured(&host, vec![(plugin.clone(), Mode::DryRun)], &kept).unwrap();
    ask(&host, question(Hook::Allocate, 0));
    wait_for("the count", || plugin.stats().uncaptured() == 1);
    assert!(kept.lines.lock().unwrap().is_empty());
}

#[test]
fn nothing_is_captured_of_who_decides_and_nothing_where_it_is_asked_nothing_or_a_plan_says_what_is_written() {
    let (host, kept) = (host(EngineChoice::Auto), Arc::new(Kept::default()));
    let asked = load(&host, "p", &Guest::default()).unwrap();
    bind_captured(&host, vec![(asked.clone(), Mode::Enforce)], &kept).unwrap();
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), allowed(60));
    assert!(kept.lines.lock().unwrap().is_empty() && asked.stats().uncaptured() == 0);
    let fence = load(&host, "fence", &fence(OPEN)).unwrap();
    let error = bind_captured(&host, vec![(fence, Mode::DryRun)], &kept).unwrap_err();
    assert!(error.contains("asked about no request"), "{error}");
    let planned = load(&host, "plan", &records(PLAN, SILENT)).unwrap();
    let error = bind_captured(&host, vec![(asked, Mode::DryRun), (planned, Mode::Enforce)], &kept).unwrap_err();
    assert!(error.contains("a plan of records"), "{error}");
}

/// Waits until it is so.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < end, "{what} did not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_failure_denies_and_is_counted_with_its_reason() {
    let eat = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";
    let recurse = "(call $deeper (i32.const 0))";
    let deeper = "(func $deeper (param i32) (result i32)
        (call $deeper (i32.add (local.get 0) (i32.const 1))) (drop (i32.const 0)))";
    let far = "(i32.store (i32.const 3584) (i32.const 0x7fffff00)) (i32.store (i32.const 3588) (i32.const 9))
        (i32.const 3584)";
    let spin = "(loop (br 0)) (unreachable)";
    let flood = "(loop (call $document (i32.const 700)) (br 0)) (unreachable)";
    let document = r#"(import "sluice:policy/settings@0.0.1" "document" (func $document (param i32)))"#;
    for (guest, hook, failure) in [
        (Guest::allocating("(unreachable)"), Hook::Allocate, Failure::Trap),
        (Guest::allocating("(i32.div_s (i32.const 1) (i32.const 0))"), Hook::Allocate, Failure::Trap),
        (Guest { more: deeper.to_owned(), ..Guest::allocating(recurse) }, Hook::Allocate, Failure::Trap),
        (Guest::allocating(spin), Hook::Allocate, Failure::Deadline),
        (Guest::allocating(eat), Hook::Allocate, Failure::Memory),
        (Guest { more: document.to_owned(), ..Guest::allocating(flood) }, Hook::Allocate, Failure::Flood),
        (Guest::allocating("(i32.const 0x7fffff00)"), Hook::Allocate, Failure::Answer),
        (Guest { permit: ALLOW_NONE.to_owned(), ..Guest::default() }, Hook::CreatePermission, Failure::Answer),
        (Guest { permit: far.to_owned(), ..Guest::default() }, Hook::ChannelBind, Failure::Answer),
        (
            Guest { permit: "(loop (br 0)) (unreachable)".to_owned(), ..Guest::default() },
            Hook::ChannelBind,
            Failure::Deadline,
        ),
    ] {
        for engine in [EngineChoice::Cranelift, EngineChoice::Pulley] {
            let (host, plugins) = bound(engine, std::slice::from_ref(&guest));
            let peers = usize::from(hook != Hook::Allocate);
            let verdict = if failure == Failure::Deadline { UNANSWERED } else { LATER };
            assert_eq!(ask(&host, question(hook, peers)), verdict, "{failure}");
            assert_eq!(failures(&plugins[0], failure), 1, "{failure} {:?}", plugins[0].stats().failures());
        }
    }
}

#[test]
fn a_list_of_the_wrong_length_denies_all() {
    let (host, plugins) = bound(EngineChoice::Auto, &[Guest { permit: ALLOW_ONE.to_owned(), ..Guest::default() }]);
    assert_eq!(ask(&host, question(Hook::CreatePermission, 2)), LATER);
    assert_eq!(failures(&plugins[0], Failure::Answer), 1);
}

#[test]
fn strings_that_are_all_the_same_bytes_do_not_fill_the_hosts_memory() {
    // A denial with 4096 audit tags, each of them 64 KiB of the same memory: 256 MiB here, none there.
    let body = "(local $i i32)
        (loop $next
          (i32.store (i32.add (i32.const 32768) (i32.mul (local.get $i) (i32.const 8))) (i32.const 0))
          (i32.store (i32.add (i32.const 32772) (i32.mul (local.get $i) (i32.const 8))) (i32.const 65536))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $i) (i32.const 4096))))
        (i32.store (i32.const 2344) (i32.const 32768)) (i32.store (i32.const 2348) (i32.const 4096))
        (i32.const 2304)";
    let (host, plugins) = bound(EngineChoice::Auto, &[Guest::allocating(body)]);
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), LATER);
    assert_eq!(failures(&plugins[0], Failure::Answer), 1);
}

#[test]
fn an_instance_knows_nothing_of_the_one_before() {
    let counts = "(global.set $n (i32.add (global.get $n) (i32.const 1)))
        (if (result i32) (i32.eq (global.get $n) (i32.const 1)) (then (i32.const 2048)) (else (i32.const 2304)))";
    let more = "(global $n (mut i32) (i32.const 0))".to_owned();
    let (host, _) = bound(EngineChoice::Auto, &[Guest { more, ..Guest::allocating(counts) }]);
    for _ in 0..3 {
        assert_eq!(ask(&host, question(Hook::Allocate, 0)), allowed(60));
    }
}

#[test]
fn who_missed_a_deadline_rests_and_leaves_the_threads_to_others() {
    let (host, plugins) = bound(EngineChoice::Auto, &[Guest::allocating("(loop (br 0)) (unreachable)")]);
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), UNANSWERED);
    for _ in 0..10 {
        assert_eq!(ask(&host, question(Hook::Allocate, 0)), UNANSWERED);
    }
    assert_eq!(failures(&plugins[0], Failure::Resting), 10);
}

#[test]
fn whom_others_left_no_time_does_not_rest() {
    let host = host(EngineChoice::Auto);
    let spins = load(&host, "spins", &Guest::allocating("(loop (br 0)) (unreachable)")).unwrap();
    let quick = load(&host, "quick", &Guest::allocating(ALLOW)).unwrap();
    bind(&host, &[(spins, Mode::Enforce), (quick.clone(), Mode::DryRun)]);
    for _ in 0..2 {
        assert_eq!(ask(&host, question(Hook::Allocate, 0)), UNANSWERED);
    }
    // The first question left none, the second found the other one resting.
    wait_for("the rehearsals", || quick.stats().durations().iter().any(|(_, d)| d.buckets.iter().sum::<u64>() == 2));
    assert_eq!((failures(&quick, Failure::NoTime), failures(&quick, Failure::Resting)), (1, 0));
    assert!(quick.stats().verdicts().iter().any(|(_, word, n)| *word == "would-allow" && *n == 1));
}

#[test]
fn a_plugin_that_rests_for_one_tenant_is_asked_for_another() {
    let host = host(EngineChoice::Auto);
    let spins = load(&host, "spins", &Guest::allocating("(loop (br 0)) (unreachable)")).unwrap();
    let tenant = |id: u16| Tenant {
        id: TenantId(id),
        name: format!("tenant-{id}"),
        plugins: vec![(spins.clone(), Mode::Enforce)],
    };
    host.swap(host.bind(vec![tenant(0), tenant(1)], Node::default(), Arc::default()).unwrap());
    for id in [0, 1, 0] {
        assert_eq!(ask(&host, Question { tenant: TenantId(id), ..question(Hook::Allocate, 0) }), UNANSWERED);
    }
    assert_eq!((failures(&spins, Failure::Deadline), failures(&spins, Failure::Resting)), (2, 1));
}

#[test]
fn a_full_queue_denies() {
    let host = host_of(EngineChoice::Auto, 1);
    let plugin = load(&host, "p", &Guest::allocating("(loop (br 0)) (unreachable)")).unwrap();
    bind(&host, &[(plugin.clone(), Mode::Enforce)]);
    let mut at_once = 0;
    for _ in 0..8 {
        let verdict = host.ask(question(Hook::Allocate, 0), Default::default, Box::new(|_| {}));
        at_once += u64::from(verdict == Some(UNANSWERED));
    }
    assert!(at_once >= 5, "{at_once}: two threads and one place are taken");
    assert_eq!(failures(&plugin, Failure::Overload), at_once);
}

#[test]
fn a_full_queue_denies_nothing_where_dry_runs_alone_are_asked() {
    let host = host_of(EngineChoice::Auto, 1);
    let plugin = load(&host, "p", &Guest::allocating("(loop (br 0)) (unreachable)")).unwrap();
    bind(&host, &[(plugin.clone(), Mode::DryRun)]);
    for _ in 0..8 {
        let verdict = host.ask(question(Hook::Allocate, 0), Default::default, Box::new(|_| panic!("nobody waits")));
        assert_eq!(verdict, Some(Verdict::Allow(Grant::default())));
    }
    assert!(failures(&plugin, Failure::Overload) >= 5, "two threads and one place are taken");
}

#[test]
fn a_tenant_that_floods_the_queue_leaves_places_to_another() {
    let host = host_of(EngineChoice::Auto, 4);
    let spins = load(&host, "spins", &Guest::allocating("(loop (br 0)) (unreachable)")).unwrap();
    let quick = load(&host, "quick", &Guest::default()).unwrap();
    let tenant = |id: u16, plugin: &Arc<Plugin>| Tenant {
        id: TenantId(id),
        name: format!("tenant-{id}"),
        plugins: vec![(plugin.clone(), Mode::Enforce)],
    };
    let tenants = vec![tenant(0, &spins), tenant(1, &quick)];
    host.swap(host.bind(tenants, Node::default(), Arc::default()).unwrap());
    for _ in 0..100 {
        host.ask(question(Hook::Allocate, 0), Default::default, Box::new(|_| {}));
    }
    let other = Question { tenant: TenantId(1), ..question(Hook::Allocate, 0) };
    let verdict = host.ask(other, Default::default, Box::new(|_| {}));
    assert_eq!((verdict, failures(&quick, Failure::Overload)), (None, 0));
}

#[test]
fn loads_and_bindings_take_no_instance_from_questions_and_have_theirs() {
    let (host, plugins) = bound(EngineChoice::Auto, &[Guest::allocating("(loop (br 0)) (unreachable)")]);
    let bytes = fence(OPEN).bytes();
    let loads = || {
        for _ in 0..20 {
            let plugin = load_with(&host, "fence", bytes.clone(), "{}", &[]).unwrap();
            let tenant = Tenant { id: TenantId(1), name: "b".to_owned(), plugins: vec![(plugin, Mode::Enforce)] };
            host.bind(vec![tenant], Node::default(), Arc::default()).map(drop).unwrap();
        }
    };
    std::thread::scope(|scope| {
        // Both threads are busy with these.
        for _ in 0..2 {
            host.ask(question(Hook::Allocate, 0), Default::default, Box::new(|_| {}));
        }
        (0..4).for_each(|_| drop(scope.spawn(loads)));
    });
    assert_eq!(failures(&plugins[0], Failure::Overload), 0);
}

#[test]
fn start_up_code_has_the_limits_of_any_other() {
    let spin = Guest { more: "(func $s (loop (br 0))) (start $s)".to_owned(), ..Guest::default() };
    let host = host(EngineChoice::Auto);
    let error = load(&host, "p", &spin).unwrap_err();
    assert!(matches!(error, LoadError::Failed { failure: Failure::Deadline, .. }), "{error}");
    let spin = Guest { describe: "(loop (br 0)) (unreachable)".to_owned(), ..Guest::default() };
    assert!(matches!(load(&host, "p", &spin), Err(LoadError::Failed { failure: Failure::Deadline, .. })));
    let spin = Guest { validate: "(loop (br 0)) (unreachable)".to_owned(), ..Guest::default() };
    assert!(matches!(load(&host, "p", &spin), Err(LoadError::Failed { failure: Failure::Deadline, .. })));
}

#[test]
fn who_spins_in_whatever_hook_is_ended_at_the_deadline() {
    const DEADLINE: Duration = Duration::from_millis(100);
    let spin = "(loop (br 0)) (unreachable)";
    let guest = Guest { world: "host", permit: spin.to_owned(), ..Guest::allocating(spin) };
    let bytes = with_hooks_that(&guest, spin);
    let admission = [("admission", "allocate"), ("admission", "permit-peers")];
    let others = HOOKS.iter().map(|(interface, function, _)| (*interface, *function));
    let hooks: Vec<_> = admission.into_iter().chain(others).collect();
    let on = |engine| {
        let host = Host::start(HostOptions { deadline: DEADLINE, ..support::options(engine, 64) }).unwrap();
        let plugin = load_with(&host, "p", bytes.clone(), "{}", &[]).unwrap();
        for (interface, function) in &hooks {
            let arguments = if *function == "review" { r#"{"event": "timer"}"# } else { "{}" };
            let case =
                format!(r#"{{"hook": "{interface}.{function}", "arguments": {arguments}, "fails": "deadline"}}"#);
            let case = sluice_policy::Case::parse("c", &case).unwrap().remove(0);
            let ran = host.answer_case(&plugin, &case, &Arc::default()).unwrap();
            assert_eq!(case.compare(&ran), Ok(()), "{interface}.{function}");
            assert!(ran.took >= DEADLINE / 2 && ran.took < DEADLINE * 5, "{interface}.{function}: {:?}", ran.took);
        }
    };
    std::thread::scope(|scope| {
        [EngineChoice::Cranelift, EngineChoice::Pulley].into_iter().for_each(|engine| {
            scope.spawn(move || on(engine));
        });
    });
}

#[test]
fn a_fence_that_spins_is_not_bound() {
    let spin = "(loop (br 0)) (unreachable)";
    let export = format!(r#"(func (export "sluice:policy/geofence@0.0.1#plan") {FLAT} (result i32) {spin})"#);
    let host = host(EngineChoice::Auto);
    let plugin = load(&host, "p", &Guest { world: "geofence-policy", more: export, ..Guest::default() }).unwrap();
    let tenant = Tenant { id: TenantId(0), name: "clinic".to_owned(), plugins: vec![(plugin, Mode::Enforce)] };
    let error = host.bind(vec![tenant], Node::default(), Arc::default()).map(drop).unwrap_err();
    assert!(matches!(error.error, LoadError::Failed { failure: Failure::Deadline, .. }), "{error}");
}

#[test]
fn fuel_is_the_same_each_time_and_is_counted_for_authors_alone() {
    let case = sluice_policy::Case::parse("c", r#"{"hook": "admission.allocate", "expect": {}}"#).unwrap().remove(0);
    let fuel = |fuel| {
        let mut options = support::options(EngineChoice::Auto, 64);
        options.fuel = fuel;
        let host = Host::start(options).unwrap();
        let plugin = load(&host, "p", &Guest::default()).unwrap();
        [(); 2].map(|()| host.answer_case(&plugin, &case, &Arc::default()).unwrap().fuel)
    };
    let [first, second] = fuel(true);
    assert!(first > Some(0) && first == second, "{first:?} {second:?}");
    assert_eq!(fuel(false), [None, None]);
}

/// A fence of these bytes.
fn fence(plan: &str) -> Guest {
    fence_that("(i32.const 3328)", &format!(r#"(data (i32.const 3328) "{plan}")"#))
}

/// A fence whose plan is what this says; its third parameter is the time.
fn fence_that(plans: &str, data: &str) -> Guest {
    let export = format!(r#"(func (export "sluice:policy/geofence@0.0.1#plan") {FLAT} (result i32)"#);
    Guest { world: "geofence-policy", more: format!("{export} {plans}) {data}"), ..Guest::default() }
}

/// Clients and peers anywhere; clients only in places of which there are none; peers likewise.
const OPEN: &str = r"\00";
const NO_CLIENTS: &str = r"\01";
const NO_PEERS: &str = r"\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\01";

#[test]
fn who_is_outside_of_a_fence_is_refused_without_a_question() {
    for (plan, peers, verdict) in [
        (OPEN, 1, Verdict::Allow(Grant::default())),
        (NO_CLIENTS, 0, Verdict::Deny(Denial::Forbidden)),
        (NO_PEERS, 0, Verdict::Allow(Grant::default())),
        (NO_PEERS, 1, Verdict::Deny(Denial::Forbidden)),
    ] {
        let (host, _) = bound(EngineChoice::Auto, &[fence(plan)]);
        let hook = if peers == 0 { Hook::Allocate } else { Hook::CreatePermission };
        let at_once = host.ask(question(hook, peers), Default::default, Box::new(|_| panic!("a question")));
        assert_eq!(at_once, Some(verdict), "{plan}");
    }
}

/// Counts what is logged on the thread that has it.
struct Counting(Arc<AtomicU64>);

impl Subscriber for Counting {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn who_puts_a_question_writes_no_line_of_the_log() {
    let lines = Arc::new(AtomicU64::new(0));
    tracing::subscriber::with_default(Counting(lines.clone()), || {
        tracing::info!("one");
        let (host, plugins) = bound(EngineChoice::Auto, &[fence(NO_CLIENTS)]);
        for _ in 0..20 {
            let verdict = host.ask(question(Hook::Allocate, 0), Default::default, Box::new(|_| {}));
            assert_eq!(verdict, Some(Verdict::Deny(Denial::Forbidden)));
        }
        assert!((1..=10).contains(&plugins[0].stats().denials_untold()), "{}", plugins[0].stats().denials_untold());
    });
    assert_eq!(lines.load(Ordering::Relaxed), 1);
}

#[test]
fn plans_are_asked_for_again_tenant_by_tenant_and_only_what_has_changed_is_told() {
    let host = host(EngineChoice::Auto);
    let later = 1000 * (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1);
    let is_later = format!("(i64.gt_u (local.get 2) (i64.const {later}))");
    // For two seconds each; the second one is that of `NO_CLIENTS`.
    let data = r#"(data (i32.const 3420) "\01\00\00\00\02") (data (i32.const 3456) "\01")
        (data (i32.const 3548) "\01\00\00\00\02")"#;
    let [open, closed] = ["(i32.const 3328)", "(i32.const 3456)"];
    let bodies = [
        format!("(if (result i32) {is_later} (then (unreachable)) (else {open}))"),
        format!("(if (result i32) {is_later} (then {closed}) (else {open}))"),
        open.to_owned(),
    ];
    let tenant = |(i, body): (usize, &String)| sluice_policy::Tenant {
        id: sluice_base::TenantId(i as u16),
        name: format!("t{i}"),
        plugins: vec![(load(&host, &format!("p{i}"), &fence_that(body, data)).unwrap(), Mode::Enforce)],
    };
    let tenants = bodies.iter().enumerate().map(tenant).collect();
    host.swap(host.bind(tenants, Default::default(), Arc::default()).unwrap());
    let asked = |tenant| {
        let question = sluice_base::policy::Question { tenant, ..question(Hook::Allocate, 0) };
        ask(&host, question)
    };
    let all = [0, 1, 2].map(sluice_base::TenantId);
    assert_eq!(all.map(asked), [Verdict::Allow(Grant::default()); 3]);
    let (mut changed, mut failed) = (Vec::new(), Vec::new());
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while changed.len() < 2 && std::time::Instant::now() < end {
        let renewed = host.renew();
        changed.extend(renewed.changed);
        failed.extend(renewed.failed.into_iter().map(|error| error.to_string()));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    changed.sort_unstable();
    assert_eq!(changed, all[..2], "{failed:?}");
    assert!(
        !failed.is_empty() && failed.iter().all(|error| error.starts_with("plugin p0 for tenant t0")),
        "{failed:?}"
    );
    let no = Verdict::Deny(Denial::Forbidden);
    assert_eq!(all.map(asked), [no, no, Verdict::Allow(Grant::default())]);
}

#[test]
fn tenants_whose_plans_take_long_do_not_keep_those_behind_them_from_being_asked() {
    let host = host(EngineChoice::Auto);
    // For no time at all: it is always to be renewed.
    let guest = fence_that("(i32.const 3328)", r#"(data (i32.const 3420) "\01")"#);
    let plugin = load(&host, "p", &guest).unwrap();
    let plugins = vec![(plugin, Mode::Enforce)];
    let tenant = |id| Tenant { id: TenantId(id), name: format!("t{id}"), plugins: plugins.clone() };
    host.swap(host.bind((0..4).map(tenant).collect(), Node::default(), Arc::default()).unwrap());
    // All have run out, which is told once.
    assert_eq!(host.renew_within(Duration::ZERO).changed.len(), 5);
    // From now on those that were asked.
    let mut asked: Vec<_> = (0..3).flat_map(|_| host.renew_within(Duration::ZERO).changed).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked, [0, 1, 2, 3].map(TenantId));
}

#[test]
fn plans_that_were_asked_for_again_give_way_to_a_newer_table() {
    let host = host(EngineChoice::Auto);
    // For no time at all: it is to be renewed at once.
    let brief = r#"(data (i32.const 3420) "\01")"#;
    let plugin = load(&host, "p", &fence_that("(i32.const 3328)", brief)).unwrap();
    bind(&host, &[(plugin, Mode::Enforce)]);
    let newer = host.clone();
    let closed = load(&host, "q", &fence(NO_CLIENTS)).unwrap();
    let swapping = std::thread::spawn(move || bind(&newer, &[(closed, Mode::Enforce)]));
    while !swapping.is_finished() {
        host.renew();
    }
    swapping.join().unwrap();
    host.renew();
    assert_eq!(host.table().plugins()[0].name(), "q");
    assert_eq!(ask(&host, question(Hook::Allocate, 0)), Verdict::Deny(Denial::Forbidden));
}

#[test]
fn a_peer_that_a_policy_denies_is_denied() {
    let no = "(i32.store (i32.const 3072) (i32.const 2304)) (i32.const 3072)";
    let (host, _) = bound(EngineChoice::Auto, &[Guest { permit: no.to_owned(), ..Guest::default() }]);
    for hook in [Hook::CreatePermission, Hook::ChannelBind, Hook::Review] {
        assert_eq!(ask(&host, question(hook, 1)), Verdict::Deny(Denial::Quota), "{hook:?}");
    }
    assert_eq!(ask(&host, question(Hook::Review, 0)), allowed(60), "the allocation itself");
}

/// A plan for records: what the function does, and the bytes that it answers with.
fn records(body: &str, plan: &str) -> Guest {
    let export = format!(
        r#"(func (export "sluice:policy/log-plan@0.0.1#plan")
            (param i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {body})"#
    );
    // A list of one kind: its name, no fields, no retention, sampling, not per record, no obligations.
    let more = format!(r#"{export} (data (i32.const 3328) "{plan}") (data (i32.const 3456) "control.beganx")"#);
    Guest { world: "log-policy", more, ..Guest::default() }
}

const PLAN: &str = "(i32.const 3328)";
const SILENT: &str = r"\00";
const BEGAN: &str = r"\40\0d\00\00\01\00\00\00";

/// What a plan leaves of a field of `control.began`, once it is bound.
fn left(guest: &Guest, mode: Mode) -> (String, Vec<Arc<Plugin>>, usize) {
    let host = host(EngineChoice::Auto);
    let plugin = load(&host, "p", guest).unwrap();
    bind(&host, &[(plugin.clone(), mode)]);
    let table = host.table();
    let left = table.plan(TenantId(0)).map(|plan| {
        let leaves = plan.leaves(Destination::Control, "began", &[0; 16]).unwrap();
        format!("{:?} {:?}", leaves.of("person"), leaves.of("lifetime_seconds"))
    });
    (left.unwrap_or_default(), vec![plugin], table.faults().count())
}

#[test]
fn a_plan_for_records_is_compiled_for_its_tenant() {
    // At 3392: the kind "control.began".
    let began = format!(r#"{BEGAN}") (data (i32.const 3392) "\80\0d\00\00\0d"#);
    for (plan, expected) in [(SILENT, "Value Value"), (&began, "Nothing Value")] {
        let (left, plugins, faults) = left(&records(PLAN, plan), Mode::Enforce);
        assert_eq!((left.as_str(), faults), (expected, 0));
        assert_eq!(plugins[0].stats().verdicts(), [(PolicyHook::LogPlan, "allow", 1)]);
    }
}

#[test]
fn a_plan_that_cannot_be_had_is_the_strictest_and_counted_with_its_reason() {
    let began = |rest: &str| format!(r#"{BEGAN}") (data (i32.const 3392) "\80\0d\00\00{rest}"#);
    let per_record = r"\0d\00\00\00".to_owned() + &r"\00".repeat(24) + r"\01";
    for (body, plan, failure) in [
        ("(unreachable)", SILENT, Failure::Trap),
        ("(loop $l (br $l)) (i32.const 3328)", SILENT, Failure::Deadline),
        (PLAN, &began(r"\0e"), Failure::Answer),
        (PLAN, &began(&per_record), Failure::Answer),
    ] {
        let (left, plugins, faults) = left(&records(body, plan), Mode::Enforce);
        assert_eq!((left.as_str(), faults, failures(&plugins[0], failure)), ("Nothing Nothing", 1, 1), "{failure:?}");
    }
    let (left, plugins, faults) = left(&records("(unreachable)", SILENT), Mode::DryRun);
    assert_eq!((left.as_str(), faults, failures(&plugins[0], Failure::Trap)), ("", 0, 1));
}

#[test]
fn a_plan_that_could_not_be_had_is_asked_for_again_and_then_holds() {
    let host = host(EngineChoice::Auto);
    let later = 1000 * (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1);
    let body = format!("(if (i64.lt_u (local.get 2) (i64.const {later})) (then (unreachable))) {PLAN}");
    let plugin = load(&host, "p", &records(&body, SILENT)).unwrap();
    bind(&host, &[(plugin, Mode::Enforce)]);
    let plan = || host.table().plan(TenantId(0)).cloned().unwrap();
    assert_eq!((*plan() == Plan::strictest(), host.table().faults().count()), (true, 1));
    let changed = loop {
        let renewed = host.renew();
        if !renewed.changed.is_empty() {
            break renewed.changed;
        }
        std::thread::yield_now();
    };
    assert_eq!((changed, host.table().faults().count()), (vec![TenantId(0)], 0));
    assert_eq!(*plan(), Plan::floor());
    assert!(host.renew().changed.is_empty());
}

#[test]
fn a_plan_that_the_host_does_not_carry_out_is_not_bound() {
    let host = host(EngineChoice::Auto);
    let plugin =
        load_with(&host, "p", with_all_hooks(&Guest { world: "host", ..Guest::default() }), "{}", &[]).unwrap();
    let tenant = sluice_policy::Tenant {
        id: sluice_base::TenantId(0),
        name: "clinic".to_owned(),
        plugins: vec![(plugin, Mode::DryRun)],
    };
    let error = host.bind(vec![tenant], Default::default(), Arc::default()).map(drop).unwrap_err().to_string();
    assert!(error.contains("log-filter") && error.contains("clinic"), "{error}");
}

#[test]
fn two_plugins_do_not_count_in_one_metric() {
    let counting = |counter: &str| {
        let length = counter.len();
        let more = format!(
            r#"(data (i32.const 1048) "\48\0d\00\00\01\00\00\00") (data (i32.const 3400) "\80\0d\00\00\0{length}")
               (data (i32.const 3456) "{counter}")"#
        );
        Guest { more, ..Guest::default() }
    };
    let host = host(EngineChoice::Auto);
    let plugins: Vec<_> = [("a", "b_c"), ("a_b", "c"), ("a_d", "c")]
        .map(|(name, counter)| (load(&host, name, &counting(counter)).unwrap(), Mode::Enforce))
        .into();
    let tenant = |plugins: &[_]| Tenant { id: TenantId(0), name: "clinic".to_owned(), plugins: plugins.to_vec() };
    let bind = |plugins: &[_]| host.bind(vec![tenant(plugins)], Node::default(), Arc::default()).map(drop);
    let error = bind(&plugins[..2]).unwrap_err().to_string();
    assert!(error.contains("sluice_plugin_a_b_c_total") && error.contains("plugin a_b"), "{error}");
    bind(&plugins[1..]).unwrap();
}

#[test]
fn settings_that_the_plugin_refuses_are_refused_with_their_place() {
    let host = host(EngineChoice::Auto);
    let strict = Guest { validate: "(i32.const 1568)".to_owned(), ..Guest::default() };
    let error = load(&host, "p", &strict).unwrap_err().to_string();
    assert!(error.contains("/most: too low"), "{error}");
    let not_json = load_with(&host, "p", Guest::default().bytes(), "[1]", &[]).unwrap_err().to_string();
    assert!(not_json.contains("not a JSON object"), "{not_json}");
}

#[test]
fn an_import_takes_its_grant() {
    let kv = r#"(import "sluice:policy/kv@0.0.1" "delete" (func (param i32 i32 i32)))"#;
    let bytes = Guest { world: "host", more: kv.to_owned(), ..Guest::default() };
    let host = host(EngineChoice::Auto);
    let text = with_all_hooks(&bytes);
    let error = load_with(&host, "p", text.clone(), "{}", &[]).unwrap_err().to_string();
    assert!(error.contains(r#"the grant "kv""#), "{error}");
    load_with(&host, "p", text, "{}", &[sluice_policy::Grant::Kv]).unwrap();
}

#[test]
fn a_component_is_looked_at_without_a_grant_and_says_what_it_calls_and_needs() {
    let calls = r#"(import "sluice:policy/kv@0.0.1" "delete" (func (param i32 i32 i32)))
                   (import "sluice:policy/settings@0.0.1" "document" (func (param i32)))"#;
    let guest = Guest { world: "host", more: calls.to_owned(), ..Guest::default() };
    let (name, settings) = ("p".to_owned(), "{}".to_owned());
    let source = Source { name, settings, bytes: with_all_hooks(&guest), ..Source::default() };
    let plugin = host(EngineChoice::Auto).inspect(&source, &Arc::default()).unwrap();
    assert_eq!(plugin.calls(), ["kv.delete", "settings.document"]);
    assert_eq!(plugin.grants(), [sluice_policy::Grant::Kv]);
    assert_eq!(plugin.interface(), "sluice:policy@0.0.1");
}

/// Parameters of most hooks that take a context.
const FLAT: &str = "(param i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32)";

/// Every hook beside those of admission.
const HOOKS: &[(&str, &str, &str)] = &[
    ("media", "join", "(param i32)"),
    ("media", "publish", "(param i32)"),
    ("media", "subscribe", "(param i32)"),
    ("recording", "may-start", "(param i32)"),
    ("recording", "review", "(param i32)"),
    ("geofence", "plan", FLAT),
    ("log-plan", "plan", FLAT),
    ("log-filter", "filter", FLAT),
    ("erasure", "erase", FLAT),
];

/// The world of the host has every hook: those that are not the point trap.
fn with_all_hooks(guest: &Guest) -> Vec<u8> {
    with_hooks_that(guest, "(unreachable)")
}

/// The same where they do that.
fn with_hooks_that(guest: &Guest, body: &str) -> Vec<u8> {
    let of = |(interface, function, params): &(&str, &str, &str)| {
        format!(r#"(func (export "sluice:policy/{interface}@0.0.1#{function}") {params} (result i32) {body})"#)
    };
    let more = guest.more.clone() + &HOOKS.iter().map(of).collect::<String>();
    Guest { more, ..guest.clone() }.bytes()
}

#[test]
fn what_is_no_policy_says_what_it_is() {
    let host = host(EngineChoice::Auto);
    let refused = |text: &str| load_with(&host, "p", wat::parse_str(text).unwrap(), "{}", &[]).unwrap_err().to_string();
    let wasi = refused(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#);
    assert!(wasi.contains("--stub-wasi"), "{wasi}");
    let later = refused(r#"(component (import "sluice:policy/kv@0.0.2" (instance)))"#);
    assert!(later.contains("sluice:policy/kv@0.0.2"), "{later}");
    let foreign = refused(r#"(component (import "acme:tools/x@1.0.0" (instance)))"#);
    assert!(foreign.contains("acme:tools/x@1.0.0"), "{foreign}");
    let none = refused("(component)");
    assert!(none.contains("sluice:policy/setup@0.0.1"), "{none}");
    let hook = refused(r#"(component (instance $i) (export "sluice:policy/teleport@0.0.1" (instance $i)))"#);
    assert!(hook.contains("teleport"), "{hook}");
    let error = load_with(&host, "p", b"\x7fELF".to_vec(), "{}", &[]).unwrap_err().to_string();
    assert!(error.contains("no WebAssembly component"), "{error}");
}

#[test]
fn a_fact_that_none_of_its_hooks_is_ever_told_refuses_a_plugin() {
    let host = host(EngineChoice::Auto);
    let fact = r#"(data (i32.const 1040) "\00\0f\00\00\01\00\00\00") (data (i32.const 3840) "\08\0f\00\00\0f\00\00\00")
        (data (i32.const 3848) "attributes.role")"#;
    let guest = Guest { more: fact.to_owned(), ..Guest::default() };
    let error = load(&host, "p", &guest).unwrap_err().to_string();
    assert!(error.contains("\"attributes.role\"") && error.contains("never come"), "{error}");
    let all = with_all_hooks(&Guest { world: "host", ..guest });
    let plugin = load_with(&host, "p", all, "{}", &[]).unwrap();
    assert_eq!(plugin.facts().names(), ["attributes.role"]);
}

#[test]
fn what_was_compiled_once_is_there_for_the_next_process() {
    let folder = std::env::temp_dir().join(format!("sluice-compiled-{}", std::process::id()));
    let cached = |engine| {
        let options = HostOptions { cache: Some(folder.clone()), ..support::options(engine, 64) };
        let host = Host::start(options).unwrap();
        load(&host, "p", &Guest::default()).unwrap();
        host.cached().unwrap()
    };
    let all = [EngineChoice::Cranelift, EngineChoice::Cranelift, EngineChoice::Pulley].map(cached);
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(all, [(0, 1), (1, 0), (0, 1)], "each engine has its own");
}

#[test]
fn another_component_than_the_pinned_one_does_not_load() {
    let host = host(EngineChoice::Auto);
    let bytes = Guest::default().bytes();
    let digest = sluice_policy::digest(&bytes);
    let mut source = Source { name: "p".to_owned(), bytes, settings: "{}".to_owned(), ..Source::default() };
    source.pinned = Some(digest);
    host.load(&source, &Arc::default()).unwrap();
    source.pinned = Some(format!("sha256:{}", "0".repeat(64)));
    assert!(matches!(host.load(&source, &Arc::default()), Err(LoadError::Digest { .. })));
}

#[test]
fn recorded_cases_are_run_at_load() {
    let host = host(EngineChoice::Auto);
    let case = |expect: &str| {
        let text = format!(
            r#"{{"hook": "admission.allocate", "expect": {expect},
                 "arguments": {{"request": {{"realm": "r", "client": {{"address-class": "public"}}}}}}}}"#
        );
        sluice_policy::Case::parse("first", &text).unwrap()
    };
    let source = |cases| Source {
        name: "p".to_owned(),
        bytes: Guest::default().bytes(),
        settings: "{}".to_owned(),
        cases,
        ..Source::default()
    };
    host.load(&source(case(r#"{"allow": {"grant": {"valid-for": 60}}}"#)), &Arc::default()).unwrap();
    let error = host.load(&source(case(r#"{"deny": {}}"#)), &Arc::default()).unwrap_err().to_string();
    assert!(error.contains("first") && error.contains("/deny"), "{error}");
}

/// Allows whom it counts for the first time, in a counter that names the person ("a") and in one that does not ("b").
/// `erase` is what it does when it is to forget somebody, whose token is its parameters 10 and 11.
fn counting(erase: &str) -> Guest {
    let more = format!(
        r#"(import "sluice:policy/kv@0.0.1" "increment" (func $increment (param i32 i32 i64 i32 i32 i32 i32)))
           (import "sluice:policy/kv@0.0.1" "delete" (func $delete (param i32 i32 i32)))
           (data (i32.const 1040) "\00\0f\00\00\01\00\00\00") (data (i32.const 3840) "\08\0f\00\00\07\00\00\00")
           (data (i32.const 3848) "subject") (data (i32.const 3900) "ab")
           (data (i32.const 4040) "\01\00\00\00") (data (i32.const 4064) "\00\00\00\00\00\30\00\00\15\00\00\00")
           (func (export "sluice:policy/erasure@0.0.1#erase") {FLAT} (result i32) {erase})"#
    );
    // The request is behind a context of 48 bytes, and begins with the subject.
    let allocate = format!(
        "(call $increment (i32.const 3900) (i32.const 1) (i64.const 1) (i32.const 600)
            (i32.add (local.get 0) (i32.const 52)) (i32.load8_u offset=48 (local.get 0)) (i32.const 4000))
         (call $increment (i32.const 3901) (i32.const 1) (i64.const 1) (i32.const 600)
            (i32.const 0) (i32.const 0) (i32.const 4016))
         (if (result i32) (i64.eq (i64.const 2) (i64.add (i64.load (i32.const 4008)) (i64.load (i32.const 4024))))
            (then {ALLOW}) (else {DENY}))"
    );
    Guest { world: "storing", more, ..Guest::allocating(&allocate) }
}

/// Deletes what it has derived, and says that it was one.
const FORGET: &str = "(call $delete (i32.const 3901) (i32.const 1) (i32.const 4000)) (i32.const 4040)";

fn user(name: &str) -> sluice_base::Pii<Arc<[u8]>> {
    sluice_base::Pii::new(name.as_bytes().into())
}

fn counting_host(erase: &str, mode: Mode) -> (Host, Arc<Plugin>) {
    let host = host(EngineChoice::Auto);
    let plugin = load_with(&host, "p", counting(erase).bytes(), "{}", &[sluice_policy::Grant::Kv]).unwrap();
    bind(&host, &[(plugin.clone(), mode)]);
    (host, plugin)
}

/// What became of what one plugin had of a person.
fn erased(entries: usize, answer: Option<Result<u32, Failure>>) -> Vec<Erased> {
    let forgotten = |deleted| Forgotten { deleted, kept: Vec::new() };
    vec![Erased { plugin: "p".to_owned(), entries, left: 0, answer: answer.map(|answer| answer.map(forgotten)) }]
}

#[test]
fn who_is_erased_is_unknown_to_the_plugins_of_their_tenant() {
    let (host, plugin) = counting_host(FORGET, Mode::Enforce);
    let no = Verdict::Deny(Denial::Quota);
    let verdict = || ask(&host, question(Hook::Allocate, 0));
    assert_eq!([verdict(), verdict()], [allowed(60), no]);
    assert_eq!(host.erase("clinic", &user("bob")), erased(0, Some(Ok(1))));
    assert_eq!(host.erase("school", &user("alice")), []);
    assert_eq!(verdict(), no, "what names alice is still there");
    assert_eq!(host.erase("clinic", &user("alice")), erased(1, Some(Ok(1))));
    assert_eq!(verdict(), allowed(60));
    assert!(plugin.stats().verdicts().contains(&(PolicyHook::Erasure, "allow", 2)));
    // What it has stored outlives its binding. It is not asked any more what is about whom: all goes.
    bind(&host, &[]);
    assert_eq!(host.erase("clinic", &user("alice")), erased(2, None));
    assert_eq!(host.erase("clinic", &user("alice")), []);
    bind(&host, &[(plugin, Mode::Enforce)]);
    assert_eq!(verdict(), allowed(60));
}

#[test]
fn what_stays_of_a_plugin_that_cannot_be_asked_is_told() {
    let host = host(EngineChoice::Auto);
    let Guest { more, .. } = counting(FORGET);
    let more = more.lines().filter(|line| !line.contains("erasure")).collect::<Vec<_>>().join("\n");
    let hookless = Guest { world: "noting", more, ..counting(FORGET) };
    let plugin = load_with(&host, "p", hookless.bytes(), "{}", &[sluice_policy::Grant::Kv]).unwrap();
    bind(&host, &[(plugin, Mode::Enforce)]);
    ask(&host, question(Hook::Allocate, 0));
    assert_eq!(host.erase("clinic", &user("alice")), [Erased { left: 1, ..erased(1, None).remove(0) }]);
}

#[test]
fn a_plugin_that_does_not_forget_is_told_and_what_names_the_person_is_gone() {
    for (erase, failure) in [
        ("(unreachable)", Failure::Trap),
        ("(loop (br 0)) (unreachable)", Failure::Deadline),
        ("(i32.const 0x7fffff00)", Failure::Answer),
        // It keeps 21 things.
        ("(i32.const 4064)", Failure::Answer),
    ] {
        let (host, plugin) = counting_host(erase, Mode::Enforce);
        ask(&host, question(Hook::Allocate, 0));
        assert_eq!(host.erase("clinic", &user("alice")), erased(1, Some(Err(failure))), "{erase}");
        assert_eq!(host.erase("clinic", &user("alice")), erased(0, Some(Err(failure))), "{erase}");
        assert_eq!(failures(&plugin, failure), 2, "{erase}");
        assert_eq!(ask(&host, question(Hook::Allocate, 0)), Verdict::Deny(Denial::Quota), "it derived something");
    }
}

#[test]
fn what_a_plugin_writes_of_a_person_who_is_being_erased_goes_too() {
    let again = format!(
        "(i32.store (i32.const 3960) (local.get 10)) (i32.store (i32.const 3964) (local.get 11))
         (call $increment (i32.const 3900) (i32.const 1) (i64.const 9) (i32.const 600)
            (i32.const 3960) (i32.const 1) (i32.const 4000))
         {FORGET}"
    );
    let (host, _) = counting_host(&again, Mode::DryRun);
    for _ in 0..2 {
        assert_eq!(host.erase("clinic", &user("alice")), erased(1, Some(Ok(1))));
    }
}
