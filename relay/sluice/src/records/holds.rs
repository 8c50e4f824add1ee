//! `sluice hold`, and `sluice lookup --hold`: asked over the control socket.

use clap::Subcommand;
use sluice_admin::{Method, api};

use super::commands::{moment, now};
use super::time;
use crate::ask::{self, AskArgs};
use crate::cli::Failure;

/// `sluice hold`.
#[derive(Subcommand, Debug)]
pub(crate) enum HoldCommand {
    /// Puts sessions under a hold: they are kept, and their addresses under a key of the hold's own, until it is
    /// lifted. What was shipped cannot be held.
    Add {
        /// Its name, which the audit keeps: lower-case letters, digits and hyphens, such as case-4711.
        name: String,
        /// The id of a session, as `sluice lookup` gives it; may be given several times.
        #[arg(long = "session", value_name = "ID", required = true)]
        sessions: Vec<String>,
        /// Why: the audit keeps it, so it must not name an address.
        #[arg(long)]
        reason: String,
        /// When it is to be looked at again (UTC). It is lifted by hand alone.
        #[arg(long, value_name = "DATE")]
        until: Option<String>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Lists the holds, without addresses.
    List(AskArgs),
    /// Lifts a hold: its key is destroyed, and what is overdue by then goes at once.
    Lift {
        /// Its name.
        name: String,
        /// Why: the audit keeps it.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// `sluice hold ...`.
pub(crate) fn hold(command: &HoldCommand) -> Result<(), Failure> {
    match command {
        HoldCommand::Add { name, sessions, reason, until, ask } => {
            let until = until.as_ref().map(|until| moment("--until", until, now())).transpose()?;
            let (name, sessions, reason) = (name.clone(), sessions.clone(), reason.clone());
            let request = api::HoldRequest { name, sessions, until_unix_seconds: until, reason };
            let made: api::NewHold = ask.call_with(api::HOLDS, &request)?;
            ask.print(&made, made_text)
        }
        HoldCommand::List(ask) => {
            let holds: api::Holds = ask.call(Method::GET, api::HOLDS)?;
            ask.print(&holds, holds_text)
        }
        HoldCommand::Lift { name, reason, ask } => {
            let request = api::NamedHold { name: name.clone(), reason: reason.clone() };
            let lifted: api::LiftedHold = ask.call_with(api::LIFT_HOLD, &request)?;
            ask.print(&lifted, |lifted| format!("lifted: {} sessions are held by it no longer\n", lifted.sessions))
        }
    }
}

/// `sluice lookup --hold NAME`.
pub(crate) fn read(name: &str, reason: &str, ask: &AskArgs) -> Result<(), Failure> {
    let request = api::NamedHold { name: name.to_owned(), reason: reason.to_owned() };
    let held: api::Held = ask.call_with(api::READ_HOLD, &request)?;
    ask.print(&held, held_text)
}

fn made_text(made: &api::NewHold) -> String {
    let held = made.sessions.iter().filter(|session| session.addresses == "held").count();
    let mut text = format!("held: {} sessions, {held} of them with their addresses\n", made.sessions.len());
    for session in made.sessions.iter().filter(|session| session.addresses != "held") {
        let why = match session.addresses.as_str() {
            "key-gone" => "the key of its day is no more, so that nobody can read them",
            _ => "none were written",
        };
        text += &format!("{}: without addresses: {why}\n", session.session);
    }
    text + &format!("Not held: {}.\n", made.not_held)
}

fn holds_text(holds: &api::Holds) -> String {
    if holds.holds.is_empty() {
        return "no hold\n".to_owned();
    }
    let head = ["HOLD", "SINCE (UTC)", "LOOK AGAIN (UTC)", "SESSIONS", "ADDRESSES", "REASON"].map(str::to_owned);
    let row = |hold: &api::Hold| {
        let until = hold.until_unix_seconds.map_or("-".to_owned(), time::shown);
        let addresses = if hold.key { hold.addresses.to_string() } else { "key lost".to_owned() };
        [
            hold.name.clone(),
            time::shown(hold.created_unix_seconds),
            if hold.due { format!("{until} (due)") } else { until },
            hold.sessions.to_string(),
            addresses,
            hold.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(holds.holds.iter().map(row)).collect();
    ask::table(&rows)
}

fn held_text(held: &api::Held) -> String {
    let head = ["SESSION", "TENANT", "USER", "CLIENT", "RELAYED", "BEGAN (UTC)", "ENDED (UTC)"].map(str::to_owned);
    let row = |session: &api::HeldSession| {
        [
            session.session.clone(),
            session.tenant.clone(),
            session.user.clone(),
            session.client.clone().unwrap_or("not held".to_owned()),
            session.relayed.join(" "),
            time::shown(session.began_unix_seconds),
            session.ended_unix_seconds.map_or("-".to_owned(), time::shown),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(held.sessions.iter().map(row)).collect();
    ask::table(&rows)
}
