//! `sluice lookup`, `ban`, `audit`, `retention`, `compliance`, `backup`: asked over the control socket.

use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sluice_admin::{Method, api};

use super::{holds, time};
use crate::ask::{self, AskArgs};
use crate::cli::Failure;

/// A look-up without a beginning goes back so far.
const LOOKUP_FROM: &str = "24h";

/// Options of `sluice lookup`.
#[derive(Args, Debug)]
pub(crate) struct LookupArgs {
    /// The address, with a port if that matters (`192.0.2.7`, `192.0.2.7:4000`, `[2001:db8::7]:443`): a client's; with
    /// a port also one that the relay gave out. `-` reads it from standard input, where no list of processes shows it.
    #[arg(value_name = "ADDRESS[:PORT]", required_unless_present = "hold")]
    address: Option<String>,
    /// In place of an address: the sessions of this legal hold, with the addresses that it has.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["address", "from", "to"])]
    hold: Option<String>,
    /// Sessions that went on at or after this: a time of UTC (`2026-11-28T10:30`), or so long ago (`12h`, `3d`).
    #[arg(long, default_value = LOOKUP_FROM)]
    from: String,
    /// Sessions that began at or before this.
    #[arg(long, default_value = "0s")]
    to: String,
    /// Why: the audit keeps it, so it must not name the address.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    ask: AskArgs,
}

/// `sluice ban`.
#[derive(Subcommand, Debug)]
pub(crate) enum BanCommand {
    /// Bans a client or a network: nobody from there is answered any more, and whoever is there ends at once.
    Add {
        /// An address, a network (`192.0.2.0/24`), or the client's pseudonym in `sluice allocations`. `-` reads it from
        /// standard input.
        target: String,
        /// For how long, at most 7d.
        #[arg(long = "for", value_name = "TIME", default_value = "24h")]
        time: String,
        /// Why: the audit keeps it, so it must not name the address.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Lists the bans that hold, without addresses.
    List(AskArgs),
    /// Lifts bans.
    Remove {
        /// What was banned, the client's pseudonym, or the ban's id. `-` reads it from standard input.
        target: String,
        /// Why: the audit keeps it, so it must not name the address.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// `sluice retention`.
#[derive(Subcommand, Debug)]
pub(crate) enum RetentionCommand {
    /// Says what is kept, until when, and what is late.
    Status(AskArgs),
    /// Removes what has reached the end of its retention; that happens by itself each hour.
    Sweep {
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
        /// The clock is right although it is more than 24 hours ahead of what it was.
        #[arg(long)]
        beyond_24h: bool,
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// `sluice backup`.
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// A directory that is not there yet, and that the relay may write to: it gets the store without any key.
    #[arg(long, value_name = "DIRECTORY")]
    to: PathBuf,
    #[command(flatten)]
    ask: AskArgs,
}

/// `sluice lookup`.
pub(crate) fn lookup(args: &LookupArgs) -> Result<(), Failure> {
    if let Some(hold) = &args.hold {
        return holds::read(hold, &args.reason, &args.ask);
    }
    let now = now();
    let given = given(args.address.as_deref().unwrap_or_default())?;
    let (address, port) = match (given.parse::<IpAddr>(), given.parse::<SocketAddr>()) {
        (Ok(ip), _) => (ip, None),
        (_, Ok(address)) => (address.ip(), Some(address.port())),
        _ => return Err("that is no address: 192.0.2.7, 192.0.2.7:4000, 2001:db8::7 or [2001:db8::7]:443".to_owned()),
    };
    let request = api::LookupRequest {
        address: address.to_string(),
        port,
        from_unix_seconds: moment("--from", &args.from, now)?,
        to_unix_seconds: moment("--to", &args.to, now)?,
        reason: args.reason.clone(),
    };
    let found: api::Lookup = args.ask.call_with(api::LOOKUP, &request)?;
    args.ask.print(&found, lookup_text)
}

/// `sluice ban ...`.
pub(crate) fn ban(command: &BanCommand) -> Result<(), Failure> {
    match command {
        BanCommand::Add { target, time, reason, ask } => {
            let seconds = time::duration(time).ok_or(format!("--for {time}: write 30m, 24h or 7d"))?;
            let request = api::BanRequest { target: given(target)?, seconds, reason: reason.clone() };
            let ban: api::Ban = ask.call_with(api::BANS, &request)?;
            ask.print(&ban, |ban| {
                format!("banned until {} UTC; ban {}\n", time::shown(ban.expires_unix_seconds), ban.ban)
            })
        }
        BanCommand::List(ask) => {
            let bans: api::Bans = ask.call(Method::GET, api::BANS)?;
            ask.print(&bans, bans_text)
        }
        BanCommand::Remove { target, reason, ask } => {
            let request = api::LiftRequest { target: given(target)?, reason: reason.clone() };
            let lifted: api::Lifted = ask.call_with(api::LIFT, &request)?;
            ask.print(&lifted, |lifted| format!("lifted: {}\n", lifted.lifted))
        }
    }
}

/// `sluice retention ...`.
pub(crate) fn retention(command: &RetentionCommand) -> Result<(), Failure> {
    match command {
        RetentionCommand::Status(ask) => {
            let retention: api::Retention = ask.call(Method::GET, api::RETENTION)?;
            ask.print(&retention, retention_text)
        }
        RetentionCommand::Sweep { dry_run, beyond_24h, ask } => {
            let request = api::SweepRequest { dry_run: *dry_run, beyond_24h: *beyond_24h };
            let swept: api::Swept = ask.call_with(api::SWEEP, &request)?;
            ask.print(&swept, |swept| {
                let verb = if swept.dry_run { "would go" } else { "gone" };
                let api::Swept { sessions, denials, entries, .. } = swept;
                format!("{verb}: {sessions} sessions, {denials} refusals, {entries} entries of the audit\n")
            })
        }
    }
}

/// `sluice audit tail`.
pub(crate) fn audit_tail(last: usize, ask: &AskArgs) -> Result<(), Failure> {
    let audit: api::Audit = ask.call(Method::GET, &format!("{}?last={last}", api::AUDIT))?;
    ask.print(&audit, audit_text)
}

/// `sluice backup`.
pub(crate) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let to = std::path::absolute(&args.to).map_err(|error| format!("{}: {error}", args.to.display()))?;
    let request = api::BackupRequest { to: to.display().to_string() };
    let backup: api::Backup = args.ask.call_with(api::BACKUP, &request)?;
    args.ask.print(&backup, |backup| format!("{}: a copy of the store, without any key\n", backup.to))
}

/// What was given as an argument, or the line on standard input for `-`.
fn given(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| format!("standard input: {error}"))?;
    Ok(line.trim().to_owned())
}

pub(crate) fn moment(option: &str, text: &str, now: u64) -> Result<u64, Failure> {
    let wrong =
        || format!("{option} {text}: write a time of UTC such as 2026-11-28T10:30, or so long ago as 12h or 3d");
    time::parse(text, now).ok_or_else(wrong)
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn lookup_text(found: &api::Lookup) -> String {
    let mut text = String::new();
    if !found.sessions.is_empty() {
        let head = ["SESSION", "TENANT", "USER", "ADDRESS", "BEGAN (UTC)", "ENDED (UTC)", "BYTES"].map(str::to_owned);
        let row = |session: &api::Session| {
            let ended = session.ended_unix_seconds.map_or("-".to_owned(), time::shown);
            [
                session.session.clone(),
                session.tenant.clone(),
                session.user.clone(),
                session.role.clone(),
                time::shown(session.began_unix_seconds),
                ended,
                session.bytes.map_or("-".to_owned(), |bytes| bytes.to_string()),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(found.sessions.iter().map(row)).collect();
        text += &ask::table(&rows);
    }
    if found.more {
        text += "There are more: ask for less time.\n";
    }
    for gone in &found.gone {
        let when = match gone.destroyed_unix_seconds {
            Some(when) => format!("was destroyed at {} UTC", time::shown(when)),
            None => "is gone".to_owned(),
        };
        let of = if gone.tenant.is_empty() { "the relay".to_owned() } else { format!("tenant {}", gone.tenant) };
        text += &format!("The key of {} of {of} {when}: nobody can say any more who was there.\n", gone.day);
    }
    if text.is_empty() {
        text += "no session of that address in that time\n";
    }
    text
}

fn bans_text(bans: &api::Bans) -> String {
    if bans.bans.is_empty() {
        return "no ban\n".to_owned();
    }
    let head = ["BAN", "CLIENT", "FAMILY", "BITS", "UNTIL (UTC)", "REASON"].map(str::to_owned);
    let row = |ban: &api::Ban| {
        let until = time::shown(ban.expires_unix_seconds);
        let client = ban.client.clone().unwrap_or("-".to_owned());
        [ban.ban.clone(), client, ban.family.clone(), ban.bits.to_string(), until, ban.reason.clone()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(bans.bans.iter().map(row)).collect();
    ask::table(&rows)
}

fn retention_text(retention: &api::Retention) -> String {
    let at = |seconds: Option<u64>| seconds.map_or("-".to_owned(), time::shown);
    let head = ["CLASS", "OLDEST (UTC)", "NEXT GOES (UTC)", "LATE", "HELD"].map(str::to_owned);
    let row = |class: &api::ClassStanding| {
        let (oldest, next) = (at(class.oldest_unix_seconds), at(class.next_unix_seconds));
        [class.class.clone(), oldest, next, ask::time(class.late_seconds), class.held.to_string()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(retention.classes.iter().map(row)).collect();
    let mut text = ask::table(&rows);
    let head = ["KEY OF", "TENANT", "DIES (UTC)", "LATE"].map(str::to_owned);
    let row = |key: &api::KeyStanding| {
        [key.day.clone(), key.tenant.clone(), time::shown(key.dies_unix_seconds), ask::time(key.late_seconds)]
    };
    let rows: Vec<_> = std::iter::once(head).chain(retention.keys.iter().map(row)).collect();
    text.push('\n');
    text + &ask::table(&rows)
}

fn audit_text(audit: &api::Audit) -> String {
    let head = ["ENTRY", "WHEN (UTC)", "WHAT", "TENANT", "SESSION", ""].map(str::to_owned);
    let row = |entry: &api::Entry| {
        [
            entry.seq.to_string(),
            time::shown(entry.unix_seconds),
            entry.kind.clone(),
            entry.tenant.clone(),
            entry.session.clone().unwrap_or_default(),
            entry.body.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(audit.entries.iter().map(row)).collect();
    ask::table(&rows)
}
