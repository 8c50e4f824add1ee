//! Ninety days of a record plane, and an adversary who has a copy of its disk of each of them.
//!
//! `ninety_days PYTHON FOLDER` fails unless the adversary reads the addresses of exactly those tenants and days whose
//! key is there, and finds none in clear. `--idle-destroyer` leaves every key where it is, and `--no-plans` writes what
//! tenants' plans do not leave: both have to be found out.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_base::event::{Began, Denied, EndReason, Ended, RelayEvent, StreamEnded};
use sluice_base::message::Traffic;
use sluice_base::stats::media::MediaKind;
use sluice_base::stats::{Code, Leg, Method};
use sluice_base::{Pii, SessionId, TenantId};
use sluice_crypto::sha256;
use sluice_privacy::Plan;
use sluice_privacy::date::DAY_SECONDS;
use sluice_privacy::plan::{Action, Prefix, Proposal, Rule};
use sluice_privacy::schema::{Field, Kind};
use sluice_record::plane::{self, Asker, Plane, PlaneOptions, Request, Response, Tenant, TenantTable};
use sluice_record::spool::{SinkOptions, SpoolOptions};
use sluice_record::store::BanTarget;
use sluice_record::testing::Machine;
use sluice_record::vault::{Destroyer, Platform as _, VaultOptions};

const DAYS: u32 = 90;
const CLIENTS: u32 = 1000;
const SESSIONS_OF_A_DAY: u32 = 60;

/// Days between two judgements: the first ones see what is not yet due.
const JUDGED: [u32; 8] = [0, 3, 6, 7, 12, 30, 60, DAYS - 1];

/// Sessions of this day are put under a legal hold, and on the other it is lifted: no start between that and the last
/// judgement does what the lifting has left undone.
const HELD_DAY: u32 = 8;
const LIFTED_DAY: u32 = 85;
/// So many of them: each tenant has one.
const HELD: u32 = 6;

/// A tenant and the days for which it keeps addresses; the last three say by a plan what is kept of them.
const TENANTS: [(&str, Option<u8>); 6] =
    [("clinic", None), ("school", Some(3)), ("bank", Some(0)), ("hotel", None), ("office", None), ("lab", None)];

/// A plan's rule for addresses: for three days, never, and in a form that is nobody's.
fn rule(tenant: &str) -> Option<Rule> {
    let keep = |seconds: u64| Some((Action::Keep, u32::try_from(seconds).unwrap_or(0)));
    match tenant {
        "hotel" => Some(Rule { durable: Action::Drop, expiring: keep(3 * DAY_SECONDS) }),
        "office" => Some(Rule { durable: Action::Drop, expiring: None }),
        "lab" => Some(Rule { durable: Action::TruncateAddress(Prefix { v4: 8, v6: 16 }), expiring: None }),
        _ => None,
    }
}

fn tenant(name: &str, days: Option<u8>, has_plans: bool) -> Result<Arc<Tenant>, Failure> {
    let floor = Tenant::new(name, days);
    let Some(rule) = rule(name).filter(|_| has_plans) else { return Ok(Arc::new(floor)) };
    let keep = Rule { durable: Action::Keep, expiring: None };
    let fields = |kind: &Kind| {
        let rule = |field: &Field| if field.form.is_address() { rule.clone() } else { keep.clone() };
        kind.fields.iter().map(|field| (field.name.to_owned(), rule(field))).collect()
    };
    let said = |kind: &Kind| Proposal { kind: kind.plan_name(), fields: fields(kind), one_in: 1, retention: None };
    let plan = Plan::of(&Kind::TABLE.iter().map(said).collect::<Vec<_>>())?;
    Ok(Arc::new(Tenant { plan: Arc::new(plan), ..floor }))
}

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut is_there = |option: &str| arguments.pop_if(|last| last == option).is_some();
    let (is_idle, has_plans) = (is_there("--idle-destroyer"), !is_there("--no-plans"));
    let [python, folder] = arguments.as_slice() else {
        return Err("usage: ninety_days PYTHON FOLDER [--no-plans] [--idle-destroyer]".into());
    };
    let begin = Instant::now();
    let mut world = World::new(Path::new(folder), python, is_idle, has_plans)?;
    for day in 0..DAYS {
        world.day(day)?;
    }
    println!("{DAYS} days in {:.1} s; {}", begin.elapsed().as_secs_f32(), world.summary);
    Ok(())
}

/// A relay, its disk, and whoever copies it.
struct World {
    folder: PathBuf,
    machine: Arc<Machine>,
    options: PlaneOptions,
    plane: Option<Plane>,
    adversary: Adversary,
    summary: String,
}

impl World {
    fn new(folder: &Path, python: &str, is_idle: bool, has_plans: bool) -> Result<Self, Failure> {
        for part in ["state", "keys", "shipped", "log"] {
            fs::create_dir_all(folder.join(part))?;
        }
        log_to(&folder.join("log/relay.log"))?;
        let mut vault = VaultOptions::new(folder.join("state"), Some(folder.join("keys")));
        if is_idle {
            vault.destroyer = Arc::new(Idle);
        }
        let tenants =
            TENANTS.map(|(name, days)| tenant(name, days, has_plans)).into_iter().collect::<Result<_, _>>()?;
        let mut options = PlaneOptions::new(vault, TenantTable { ip_retention_days: 7, tenants });
        let shipped = SinkOptions::File { path: folder.join("shipped/lines.jsonl") };
        // Nobody listens there: lines wait for as long as they may.
        let down = SinkOptions::Http { url: "http://127.0.0.1:1/".to_owned(), allow_plaintext: false };
        let mut spool = SpoolOptions::new(folder.join("state/spool"), "node".to_owned(), vec![shipped, down]);
        spool.segment_bytes = 64 * 1024;
        options.spool = Some(spool);
        let addresses = folder.join("addresses");
        fs::write(&addresses, every_address())?;
        let adversary = Adversary::start(python, &addresses)?;
        let (folder, machine) = (folder.to_owned(), Arc::new(Machine::new(u64::from(std::process::id()))));
        Ok(World { folder, machine, options, plane: None, adversary, summary: String::new() })
    }

    fn day(&mut self, day: u32) -> Result<(), Failure> {
        if self.plane.is_none() {
            self.plane = Some(plane::start(self.options.clone(), self.machine.clone())?);
        }
        let plane = self.plane.as_ref().ok_or("no plane")?;
        // What a worker does before the first packet of its tick.
        plane.vault.gate().check(self.machine.moment().unix_seconds);
        for number in 0..SESSIONS_OF_A_DAY {
            self.session(plane, day, number);
        }
        self.ban(plane, day)?;
        hold(plane, day)?;
        let is_restarted = day % 10 == 9;
        if is_restarted && !self.plane.take().ok_or("no plane")?.stop() {
            return Err("the record plane does not stop".into());
        }
        self.copy()?;
        if JUDGED.contains(&day) {
            self.judge(day)?;
        }
        self.machine.pass(Duration::from_secs(DAY_SECONDS));
        Ok(())
    }

    fn session(&self, plane: &Plane, day: u32, number: u32) {
        let session = session_of(day, number);
        let who = (day * 61 + number) % CLIENTS;
        let (user, client) = (Pii::new(Arc::from(format!("user{who}").as_bytes())), Pii::new(client(who)));
        let tenant = TenantId(u16::try_from(who % TENANTS.len() as u32).unwrap_or(0));
        let unix_seconds = self.machine.moment().unix_seconds;
        let relayed = [Some(Pii::new(relayed(number))), None];
        let lifetime = Duration::from_secs(600);
        let began = Began { session, tenant, user, client, relayed, unix_seconds, lifetime };
        for event in events(&began, number) {
            // The queue holds more than this; nothing is to be lost.
            while !plane.handle.event(event.clone()) {
                std::thread::yield_now();
            }
        }
    }

    /// A ban is sealed for the relay itself. Its answer also says that everything before it is written.
    fn ban(&self, plane: &Plane, day: u32) -> Result<(), Failure> {
        let address = Pii::new(client(day % CLIENTS).ip());
        let target = BanTarget { address, bits: if client(day).is_ipv4() { 32 } else { 128 } };
        let asker = Asker { role: "abuse".to_owned(), uid: 0, reason: "a report".to_owned() };
        let (by_pseudonym, seconds) = (false, 7 * DAY_SECONDS);
        match ask(plane, Request::BanAdd { target, by_pseudonym, seconds, asker })? {
            Response::Banned(_) => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// The adversary gets everything but the keys of the day and those of holds.
    fn copy(&mut self) -> Result<(), Failure> {
        let copy = self.folder.join("copy");
        for part in ["state", "shipped", "log"] {
            copy_all(&self.folder.join(part), &copy.join(part))?;
        }
        fs::remove_dir_all(copy.join("state/holds"))?;
        self.adversary.say(&format!("take {}", copy.display()))?;
        Ok(fs::remove_dir_all(&copy)?)
    }

    fn judge(&mut self, day: u32) -> Result<(), Failure> {
        let how = if day == DAYS - 1 { "force" } else { "judge" };
        let told = self.adversary.say(&format!("{how} {}", self.folder.join("keys").display()))?;
        let found: BTreeSet<String> = keys_of(&told["recovered"]);
        let today = self.machine.moment().unix_seconds / DAY_SECONDS;
        let live = |tenant: &str, days: u64| {
            let days = days.min(u64::from(day) + 1);
            (0..days).map(move |back| format!("{tenant} {}", today - back)).collect::<Vec<_>>()
        };
        let expected: BTreeSet<String> =
            [live("clinic", 7), live("school", 3), live("hotel", 3), live("", 7)].concat().into_iter().collect();
        let clear = &told["in_clear"];
        if clear.as_array().is_none_or(|found| !found.is_empty()) {
            return Err(format!("day {day}: addresses in clear: {clear}").into());
        }
        if told["more_than_chance"].as_object().is_none_or(|forms| !forms.is_empty()) {
            return Err(format!("day {day}: more than chance: {}", told["more_than_chance"]).into());
        }
        if let Some(beyond) = found.difference(&expected).next() {
            return Err(format!("day {day}: addresses that have outlived their days: {beyond}, of {found:?}").into());
        }
        if let Some(missed) = expected.difference(&found).next() {
            return Err(format!("day {day}: the adversary did not read {missed}, whose key is there").into());
        }
        let gone: BTreeSet<String> = keys_of(&told["unreadable"]);
        if day > 10 && gone.len() < usize::try_from(day)? {
            return Err(format!("day {day}: only {} tenants and days are unreadable", gone.len()).into());
        }
        self.judge_hold(day)?;
        let (bytes, keys) = (&told["bytes"], &told["keys"]);
        self.summary = format!(
            "{bytes} different bytes searched, {keys} likely keys, {} tenants and days read, {} unreadable",
            found.len(),
            gone.len()
        );
        Ok(())
    }
}

impl World {
    /// With the key of the hold, and nothing else, the adversary reads what is held; and nothing once it is lifted.
    fn judge_hold(&mut self, day: u32) -> Result<(), Failure> {
        let told = self.adversary.say(&format!("judge {}", self.folder.join("state/holds").display()))?;
        let expected = match day {
            HELD_DAY..LIFTED_DAY => json!({ "hold clinic": 1, "hold school": 1, "hold hotel": 1 }),
            _ => json!({}),
        };
        if told["recovered"] == expected {
            return Ok(());
        }
        Err(format!("day {day}: with the keys of holds {} is read, and {expected} is held", told["recovered"]).into())
    }
}

/// Sessions are put under a hold, or it is lifted, if it is the day for that.
fn hold(plane: &Plane, day: u32) -> Result<(), Failure> {
    let asker = Asker { role: "test".to_owned(), uid: 0, reason: "complaint 12".to_owned() };
    let name = "case-1".to_owned();
    match day {
        HELD_DAY => {
            let sessions = (0..HELD).map(|number| session_of(day, number)).collect();
            ask(plane, Request::HoldAdd { name, sessions, until: None, asker }).map(drop)
        }
        LIFTED_DAY => ask(plane, Request::HoldLift { name, asker }).map(drop),
        _ => Ok(()),
    }
}

fn session_of(day: u32, number: u32) -> SessionId {
    let unique = sha256(&[&day.to_be_bytes(), &number.to_be_bytes()]);
    let mut session = SessionId([0; 16]);
    session.0.copy_from_slice(&unique[..16]);
    session
}

/// Destroys nothing, and says that it did.
struct Idle;

impl Destroyer for Idle {
    fn destroy(&self, _file: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

struct Adversary {
    // Ends with its input.
    _process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Adversary {
    fn start(python: &str, addresses: &Path) -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = Command::new(python);
        command.arg(root.join("tests/privacy/adversary.py"));
        command.arg("--formats").arg(root.join("docs/records.md")).arg("--addresses").arg(addresses);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = process.stdin.take().ok_or("no input")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no output")?);
        Ok(Adversary { _process: process, commands, answers })
    }

    fn say(&mut self, command: &str) -> Result<Value, Failure> {
        writeln!(self.commands, "{command}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer).map_err(|why| format!("the adversary has ended: {why}").into())
    }
}

fn events(began: &Began, number: u32) -> Vec<RelayEvent> {
    let Began { session, tenant, ref user, client, unix_seconds, .. } = *began;
    let (user, age) = (user.clone(), Duration::from_secs(60));
    if number % 10 == 9 {
        let (method, code) = (Method::Allocate, Code::QuotaReached);
        let session = Some(session);
        return vec![RelayEvent::Denied(Denied { session, tenant, user, client, unix_seconds, method, code })];
    }
    let traffic =
        Traffic { packets_from_client: 10, bytes_from_client: 100, packets_to_client: 9, bytes_to_client: 90 };
    let (reason, permissions, channels) = (EndReason::Client, 1, 1);
    let stream = StreamEnded {
        session,
        tenant,
        leg: Leg::Client,
        kind: MediaKind::Audio,
        unix_seconds,
        duration: age,
        packets_expected: 3000,
        packets_lost: 3,
        packets_received: 2997,
        bytes: 300_000,
        jitter: Some(Duration::from_millis(4)),
    };
    vec![
        RelayEvent::Began(began.clone()),
        RelayEvent::StreamEnded(stream),
        RelayEvent::Ended(Ended {
            session,
            tenant,
            user,
            client,
            unix_seconds,
            age,
            reason,
            traffic,
            permissions,
            channels,
        }),
    ]
}

/// Three in four come by IPv4.
fn client(number: u32) -> SocketAddr {
    let port = 20_000 + u16::try_from(number * 31 % 40_000).unwrap_or(0);
    let ip = if number % 4 == 3 {
        IpAddr::V6(Ipv6Addr::from_bits(
            (0x2001_0db8_u128 << 96) | (u128::from(number * 7919) << 40) | u128::from(number),
        ))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + number * 59))
    };
    SocketAddr::new(ip, port)
}

fn relayed(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(203, 0, 113, 9).into(), 50_000 + u16::try_from(number).unwrap_or(0))
}

fn every_address() -> String {
    let lines = (0..CLIENTS).map(client).map(|client: SocketAddr| format!("{} {}\n", client.ip(), client.port()));
    lines.collect()
}

fn ask(plane: &Plane, request: Request) -> Result<Response, Failure> {
    let (sender, answer) = channel();
    plane.handle.request(request, Box::new(move |told| drop(sender.send(told))));
    Ok(answer.recv()??)
}

fn keys_of(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// What the record plane logs, at the lowest level.
fn log_to(path: &Path) -> Result<(), Failure> {
    let log =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(Mutex::new(File::create(path)?));
    log.try_init().map_err(|why| why.to_string().into())
}

fn copy_all(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else if let Err(why) = fs::copy(entry.path(), &target) {
            // A segment of the spool that has just gone.
            if why.kind() != std::io::ErrorKind::NotFound {
                return Err(why.into());
            }
        }
    }
    Ok(())
}
