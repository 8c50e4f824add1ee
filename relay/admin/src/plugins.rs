//! Orders to the policies over the control socket.

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use sluice_base::{Pii, limits};
use tokio::sync::mpsc;

use crate::api;
use crate::control::{Caller, Command, problem};
use crate::http::Answer;
use crate::records::{Commands, Told, ask, read, refuse};

/// Whom policies are to forget.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedErasure {
    /// The tenant whose user that is.
    pub tenant: String,
    /// The user's name.
    pub user: Pii<Arc<[u8]>>,
}

/// The routes of orders.
pub(crate) fn routes() -> Router<mpsc::Sender<Command>> {
    Router::new().route(api::ERASE, post(erase)).route(api::REVIEW, post(review))
}

async fn erase(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    match wanted(&body) {
        Ok(wanted) => ask(&commands, |reply| Command::Erase(caller, wanted, reply)).await,
        Err(refused) => problem(&refused),
    }
}

async fn review(State(commands): Commands, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    match read::<api::ReviewRequest>(&body) {
        Ok(request) => ask(&commands, |reply| Command::Review(caller, request.tenant, reply)).await,
        Err(refused) => problem(&refused),
    }
}

fn wanted(body: &[u8]) -> Told<WantedErasure> {
    let api::EraseRequest { tenant, user } = read(body)?;
    let max = limits::USERNAME_BYTES_MAX;
    if !(1..=max).contains(&user.len()) {
        return Err(refuse("nobody to forget", &format!("a user's name has 1 to {max} bytes")));
    }
    Ok(WantedErasure { tenant, user: Pii::new(user.into_bytes().into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_named_and_not_told_again() {
        let told = |user: &str| wanted(format!(r#"{{"tenant": "clinic", "user": {user}}}"#).as_bytes());
        let alice = told("\"alice\"").unwrap();
        assert_eq!(alice.user, Pii::new(b"alice"[..].into()));
        assert!(!format!("{alice:?}").contains("alice"));
        assert!(told("\"\"").is_err());
        let long = format!("\"{}\"", "alice".repeat(100));
        for wrong in [&long, "[\"alice\"]"] {
            assert!(told(wrong).is_err_and(|problem| !format!("{problem:?}").contains("alice")), "{wrong}");
        }
    }
}
