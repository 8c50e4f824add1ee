//! What administrators ask of records, and the answers: over the control socket alone, and each of it audited.
//!
//! **What is personal in a request is [`Pii`] before anything else is done with it.**

use std::net::IpAddr;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::Uri;
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use sluice_base::{Pii, limits};
use tokio::sync::mpsc;

use crate::api::{self, Problem};
use crate::control::{Caller, Command, Reply, ask_in, problem};
use crate::http::Answer;
use crate::{holds, plugins};

/// The answer to something that may be refused.
pub type Told<T> = Result<T, Problem>;

/// Whose sessions are looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The address: a client's, or a relayed one.
    pub address: Pii<IpAddr>,
    /// Its port, if that matters.
    pub port: Option<u16>,
    /// Sessions that went on at or after this, in seconds since the Unix epoch.
    pub from: u64,
    /// Sessions that began at or before this.
    pub to: u64,
    /// Why, in the words of whoever asks.
    pub reason: String,
}

/// Whom a ban is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A network: the first bits of an address; for a single address all of them.
    Network(Pii<IpAddr>, u8),
    /// A client whose allocation lives, by the pseudonym in the list of allocations.
    Pseudonym(String),
    /// A ban that there is, by its id.
    Ban([u8; 16]),
}

/// A ban that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedBan {
    /// Whom it is for.
    pub target: Target,
    /// For how long.
    pub seconds: u64,
    /// Why, in the words of whoever asks.
    pub reason: String,
}

/// Bans that are to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedLift {
    /// Which.
    pub target: Target,
    /// Why, where somebody said so.
    pub reason: Option<String>,
}

impl Target {
    /// Reads an address, a network in CIDR form, a pseudonym (16 hexadecimal digits, after `ip-` where it is one of a
    /// day) or a ban's id (32).
    ///
    /// # Errors
    /// What is allowed, without what was given.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digits = text.strip_prefix(PSEUDONYM_PREFIX).unwrap_or(text);
        if is_hex(digits) && digits.len() == 16 {
            return Ok(Target::Pseudonym(text.to_ascii_lowercase()));
        }
        if is_hex(text) && text.len() == 32 {
            let id = u128::from_str_radix(text, 16).map_err(|error| error.to_string())?;
            return Ok(Target::Ban(id.to_be_bytes()));
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: Option<IpAddr> = address.parse().ok();
        let width = address.map_or(0, |address| if address.is_ipv4() { 32 } else { 128 });
        let bits = bits.map_or(Some(width), |bits| bits.parse().ok()).filter(|bits| *bits <= width);
        match (address, bits) {
            (Some(_), Some(bits)) if bits < limits::BAN_BITS_MIN => {
                Err(format!("a network of fewer than {} bits is no network of anybody", limits::BAN_BITS_MIN))
            }
            (Some(address), Some(bits)) => Ok(Target::Network(Pii::new(address), bits)),
            _ => Err("not an address, a network such as 192.0.2.0/24 or 2001:db8::/32, a client's pseudonym of \
                      `sluice allocations`, or the id of a ban"
                .to_owned()),
        }
    }
}

/// What pseudonyms of addresses begin with that are of a day.
const PSEUDONYM_PREFIX: &str = "ip-";

/// The routes of records.
pub(crate) fn routes() -> Router<mpsc::Sender<Command>> {
    Router::new()
        .route(api::LOOKUP, post(lookup))
        .route(api::BANS, get(bans).post(ban))
        .route(api::LIFT, post(lift))
        .route(api::AUDIT, get(audit))
        .route(api::RETENTION, get(retention))
        .route(api::SWEEP, post(sweep))
        .route(api::BACKUP, post(backup))
        .route(api::COMPLIANCE, get(compliance))
        .merge(holds::routes())
        .merge(plugins::routes())
        .layer(DefaultBodyLimit::max(limits::CONTROL_REQUEST_BYTES_MAX))
}

pub(crate) type Commands = State<mpsc::Sender<Command>>;

async fn lookup(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let read = || {
        let request: api::LookupRequest = read(&body)?;
        let address = request.address.parse().map_err(|_| refuse("no address", "`address` is an IP address"))?;
        let reason = reason(request.reason)?;
        if request.from_unix_seconds > request.to_unix_seconds {
            return Err(refuse("no time", "the time begins after it ends"));
        }
        let (from, to) = (request.from_unix_seconds, request.to_unix_seconds);
        Ok(Wanted { address: Pii::new(address), port: request.port, from, to, reason })
    };
    match read() {
        Ok(wanted) => ask(&commands, |reply| Command::Lookup(caller, wanted, reply)).await,
        Err(refused) => problem(&refused),
    }
}

async fn bans(State(commands): Commands, Extension(caller): Extension<Caller>) -> Answer {
    ask(&commands, |reply| Command::Bans(caller, reply)).await
}

async fn ban(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let read = || {
        let request: api::BanRequest = read(&body)?;
        let target = Target::parse(&request.target).map_err(|why| refuse("nobody to ban", &why))?;
        let reason = reason(request.reason)?;
        let max = limits::BAN_LIFETIME_MAX.as_secs();
        if !(1..=max).contains(&request.seconds) {
            let detail = format!(
                "a ban lasts 1 to {max} seconds, since it holds an address; for longer write the range into \
                 guard.deny_clients of the configuration"
            );
            return Err(refuse("too long or too short", &detail));
        }
        Ok(WantedBan { target, seconds: request.seconds, reason })
    };
    match read() {
        Ok(wanted) => ask(&commands, |reply| Command::Ban(caller, wanted, reply)).await,
        Err(refused) => problem(&refused),
    }
}

async fn lift(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let read = || -> Result<WantedLift, Problem> {
        let request: api::LiftRequest = read(&body)?;
        let target = Target::parse(&request.target).map_err(|why| refuse("no such ban", &why))?;
        Ok(WantedLift { target, reason: request.reason.map(reason).transpose()? })
    };
    match read() {
        Ok(wanted) => ask(&commands, |reply| Command::Lift(caller, wanted, reply)).await,
        Err(refused) => problem(&refused),
    }
}

async fn audit(State(commands): Commands, Extension(caller): Extension<Caller>, uri: Uri) -> Answer {
    let last = match uri.query() {
        None => Some(limits::AUDIT_TAIL_DEFAULT),
        Some(query) => query.strip_prefix("last=").and_then(|last| last.parse().ok()),
    };
    match last.filter(|last| (1..=limits::AUDIT_TAIL_MAX).contains(last)) {
        Some(last) => ask(&commands, |reply| Command::Audit(caller, last, reply)).await,
        None => {
            let detail = format!("there is ?last=N, with 1 to {}", limits::AUDIT_TAIL_MAX);
            problem(&refuse("no such query", &detail))
        }
    }
}

async fn retention(State(commands): Commands) -> Answer {
    ask(&commands, Command::Retention).await
}

async fn sweep(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    match read::<api::SweepRequest>(&body) {
        Ok(request) => ask(&commands, |reply| Command::Sweep(caller, request, reply)).await,
        Err(refused) => problem(&refused),
    }
}

async fn backup(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    match read::<api::BackupRequest>(&body) {
        Ok(request) => ask(&commands, |reply| Command::Backup(caller, request, reply)).await,
        Err(refused) => problem(&refused),
    }
}

async fn compliance(State(commands): Commands) -> Answer {
    ask(&commands, Command::Compliance).await
}

pub(crate) async fn ask<T: serde::Serialize>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(Reply<Told<T>>) -> Command,
) -> Answer {
    ask_in(commands, limits::CONTROL_RECORDS_TIMEOUT, command).await
}

/// Reads a request; what was wrong with it is told without any of it.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Told<T> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        refuse("no such request", &format!("the body is JSON with the fields of this path: see {place}"))
    })
}

/// Why something is done, which the audit will say for years.
pub(crate) fn reason(reason: String) -> Told<String> {
    let max = limits::REASON_BYTES_MAX;
    if reason.trim().is_empty() || reason.len() > max || reason.chars().any(char::is_control) {
        return Err(refuse("no reason", &format!("a reason has 1 to {max} bytes in one line, and the audit keeps it")));
    }
    Ok(reason)
}

/// What was asked is wrong.
pub(crate) fn refuse(title: &str, detail: &str) -> Problem {
    Problem::new(400, title, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let network = |text: &str, bits| Ok(Target::Network(Pii::new(text.parse().unwrap()), bits));
        assert_eq!(Target::parse("192.0.2.7"), network("192.0.2.7", 32));
        assert_eq!(Target::parse("192.0.2.0/24"), network("192.0.2.0", 24));
        assert_eq!(Target::parse("2001:db8::/32"), network("2001:db8::", 32));
        assert_eq!(Target::parse("00000000000000AB"), Ok(Target::Pseudonym("00000000000000ab".to_owned())));
        assert_eq!(Target::parse(&"00".repeat(16)), Ok(Target::Ban([0; 16])));
        assert_eq!(Target::parse("ip-00000000000000ab"), Ok(Target::Pseudonym("ip-00000000000000ab".to_owned())));
        for wrong in ["", "alice", "192.0.2.7/33", "192.0.2.7/x", "00ab", "0.0.0.0/0", "::/4"] {
            assert!(Target::parse(wrong).is_err_and(|why| wrong.is_empty() || !why.contains(wrong)), "{wrong}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_read_is_not_told_again() {
        let told = read::<api::LookupRequest>(br#"{"address": "192.0.2.7", "port": "192.0.2.7"}"#);
        assert!(told.is_err_and(|problem| !format!("{problem:?}").contains("192.0.2")));
    }
}
