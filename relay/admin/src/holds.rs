//! Legal holds over the control socket.

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use sluice_base::SessionId;
use tokio::sync::mpsc;

use crate::api;
use crate::control::{Caller, Command, problem};
use crate::http::Answer;
use crate::records::{Commands, Told, ask, read, reason, refuse};

/// A hold that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedHold {
    /// Its name.
    pub name: String,
    /// The sessions.
    pub sessions: Vec<SessionId>,
    /// When it is to be looked at again, in seconds since the Unix epoch.
    pub until: Option<u64>,
    /// Why.
    pub reason: String,
}

/// The routes of holds.
pub(crate) fn routes() -> Router<mpsc::Sender<Command>> {
    Router::new()
        .route(api::HOLDS, get(holds).post(hold))
        .route(api::LIFT_HOLD, post(lift))
        .route(api::READ_HOLD, post(read_hold))
}

async fn holds(State(commands): Commands) -> Answer {
    ask(&commands, Command::Holds).await
}

async fn hold(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    match wanted(&body) {
        Ok(wanted) => ask(&commands, |reply| Command::Hold(caller, wanted, reply)).await,
        Err(refused) => problem(&refused),
    }
}

async fn lift(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    match named(&body) {
        Ok(named) => ask(&commands, |reply| Command::LiftHold(caller, named, reply)).await,
        Err(refused) => problem(&refused),
    }
}

async fn read_hold(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    match named(&body) {
        Ok(named) => ask(&commands, |reply| Command::ReadHold(caller, named, reply)).await,
        Err(refused) => problem(&refused),
    }
}

fn wanted(body: &[u8]) -> Told<WantedHold> {
    let request: api::HoldRequest = read(body)?;
    let sessions: Option<Vec<SessionId>> = request.sessions.iter().map(|text| session(text)).collect();
    let detail = "a session's id has 32 hexadecimal digits: `sluice lookup` gives it";
    let sessions = sessions.ok_or_else(|| refuse("no such session", detail))?;
    let reason = reason(request.reason)?;
    Ok(WantedHold { name: request.name, sessions, until: request.until_unix_seconds, reason })
}

fn named(body: &[u8]) -> Told<api::NamedHold> {
    let request: api::NamedHold = read(body)?;
    Ok(api::NamedHold { name: request.name, reason: reason(request.reason)? })
}

fn session(text: &str) -> Option<SessionId> {
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_id)?;
    Some(SessionId(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_named_by_their_ids() {
        assert_eq!(session(&"0A".repeat(16)), Some(SessionId([10; 16])));
        for wrong in ["", "192.0.2.7", "0a", &"0a".repeat(17), &format!("+{}", "0".repeat(31))] {
            assert_eq!(session(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hold_needs_a_reason_and_ids() {
        let request = |session: &str, reason: &str| {
            let sessions = vec![session.to_owned()];
            let request = api::HoldRequest {
                name: "case-1".to_owned(),
                sessions,
                until_unix_seconds: None,
                reason: reason.to_owned(),
            };
            wanted(&serde_json::to_vec(&request).unwrap())
        };
        assert!(request(&"00".repeat(16), "complaint 12").is_ok());
        assert!(request(&"00".repeat(16), " ").is_err());
        assert!(request("192.0.2.7", "complaint 12").is_err_and(|told| !format!("{told:?}").contains("192.0.2.7")));
    }
}
