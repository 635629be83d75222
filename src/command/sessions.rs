//! Commands that wait for their next stage: bounded, and forgotten after a while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jid::Jid;
use tokio::time::Instant;

use crate::{
    pubsub::{Actor, NodeId},
    wire::stanza::StanzaError,
};

/// Sessions at the same time, and those of one asker; a further one ends the oldest.
const MAX_SESSIONS: usize = 1000;
const MAX_SESSIONS_OF_ONE: usize = 10;
/// How long a session waits for its next stage.
const LIFETIME: Duration = Duration::from_secs(600);

/// A command between two stages.
#[derive(Debug)]
pub(super) struct Session {
    asker: Jid,
    command: &'static str,
    /// The node that was chosen in the stage before.
    pub(super) node: Option<NodeId>,
    began: Instant,
}

impl Session {
    pub(super) fn new(actor: &Actor, command: &'static str, node: Option<NodeId>) -> Self {
        Self { asker: actor.jid.clone(), command, node, began: Instant::now() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Session>>);

impl Sessions {
    pub(super) fn put(&self, id: &str, session: Session) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.began.elapsed() < LIFETIME);
        let own = sessions.values().filter(|other| other.asker == session.asker).count();
        if own >= MAX_SESSIONS_OF_ONE || sessions.len() >= MAX_SESSIONS {
            let oldest = sessions
                .iter()
                .filter(|(_, other)| own < MAX_SESSIONS_OF_ONE || other.asker == session.asker)
                .min_by_key(|(_, session)| session.began);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(id.to_owned(), session);
    }

    /// Takes the session of an asker; nobody else can.
    pub(super) fn take(
        &self,
        id: &str,
        actor: &Actor,
        command: &str,
    ) -> Result<Session, StanzaError> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_theirs =
            |session: &&Session| session.asker == actor.jid && session.command == command;
        if sessions.get(id).filter(is_theirs).is_none() {
            return Err(StanzaError::new("modify", "bad-request").command("bad-sessionid"));
        }
        sessions
            .remove(id)
            .filter(|session| session.began.elapsed() < LIFETIME)
            .ok_or_else(|| StanzaError::new("cancel", "not-allowed").command("session-expired"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(name: &str) -> Actor {
        let jid = Jid::new(name).unwrap();
        Actor { jid, is_administrator: false, may_create: false }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_forgotten_after_a_while() {
        let (sessions, asker) = (Sessions::default(), actor("a@b/c"));
        sessions.put("1", Session::new(&asker, "x", None));
        tokio::time::advance(LIFETIME - Duration::from_secs(1)).await;
        let session = sessions.take("1", &asker, "x").unwrap();
        sessions.put("1", session);
        tokio::time::advance(Duration::from_secs(1)).await;
        let expired = sessions.take("1", &asker, "x").unwrap_err();
        assert_eq!(expired.application.unwrap().0, "session-expired");
    }

    #[tokio::test]
    async fn sessions_are_bounded_and_ones_own() {
        let (sessions, asker) = (Sessions::default(), actor("a@b/c"));
        for number in 0..=MAX_SESSIONS_OF_ONE {
            sessions.put(&number.to_string(), Session::new(&asker, "x", None));
        }
        assert!(sessions.take("0", &asker, "x").is_err());
        assert!(sessions.take("1", &actor("a@b/other"), "x").is_err());
        assert!(sessions.take("1", &asker, "y").is_err());
        for number in 0..2 * MAX_SESSIONS {
            let other = actor(&format!("{number}@b/c"));
            sessions.put(&format!("o{number}"), Session::new(&other, "x", None));
        }
        assert_eq!(sessions.0.lock().unwrap().len(), MAX_SESSIONS);
    }
}
