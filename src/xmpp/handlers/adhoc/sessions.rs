//! Sessions of commands that wait for the next form; their number, size and lifetime are limited.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jid::Jid;
use tokio::time::Instant;
use xmpp_parsers::data_forms::DataForm;

use crate::xmpp::stanza::envelope::StanzaError;
use gjallar_pubsub::Actor;

use super::{command::NextActions, form_values::FormValues};

/// Maximum number of sessions, in total and of one requester; a further session ends the oldest.
const MAX_SESSIONS: usize = 1000;
const MAX_SESSIONS_OF_ONE: usize = 10;
/// Approximate maximum of bytes of all sessions; the oldest end first.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Time for which a session waits for its next form.
const LIFETIME: Duration = Duration::from_secs(600);

/// Command between two forms.
#[derive(Debug)]
pub(super) struct CommandSession {
    asker: Jid,
    command: &'static str,
    /// Time at which the current form was shown.
    began: Instant,
    /// Submitted forms.
    pub(super) answers: Vec<FormValues>,
    /// Form that waits for its submission.
    pub(super) shown: DataForm,
    /// Continuation after that form.
    pub(super) more: NextActions,
}

impl CommandSession {
    pub(super) fn new(
        actor: &Actor,
        command: &'static str,
        shown: DataForm,
        more: NextActions,
    ) -> Self {
        let asker = actor.jid.clone();
        Self { asker, command, began: Instant::now(), answers: Vec::new(), shown, more }
    }

    /// Returns the session after the submitted forms `answers`, with the next form.
    pub(super) fn after(
        &self,
        answers: Vec<FormValues>,
        shown: DataForm,
        more: NextActions,
    ) -> Self {
        let (asker, began) = (self.asker.clone(), Instant::now());
        Self { asker, command: self.command, began, answers, shown, more }
    }

    fn bytes(&self) -> usize {
        let field = |field: &xmpp_parsers::data_forms::Field| {
            200 + field.values.iter().map(|value| 30 + value.len()).sum::<usize>()
                + field.options.iter().map(|option| 50 + option.value.len()).sum::<usize>()
        };
        let shown: usize = self.shown.fields.iter().map(field).sum();
        500 + shown + self.answers.iter().map(FormValues::bytes).sum::<usize>()
    }
}

/// Requester, and id of the session, which the requester may choose.
type SessionKey = (Jid, String);

#[derive(Debug, Default)]
pub(super) struct CommandSessions(Mutex<SessionTable>);

#[derive(Debug, Default)]
struct SessionTable {
    sessions: HashMap<SessionKey, CommandSession>,
    bytes: usize,
}

impl CommandSessions {
    pub(super) fn put(&self, id: &str, session: CommandSession) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.end(|other| other.began.elapsed() >= LIFETIME);
        // A new session replaces an older one with the same id.
        let key = (session.asker.clone(), id.to_owned());
        waiting.remove(&key);
        let own = |other: &CommandSession| other.asker == session.asker;
        while waiting.sessions.values().filter(|other| own(other)).count() >= MAX_SESSIONS_OF_ONE {
            waiting.end_oldest(own);
        }
        let bytes = session.bytes();
        while waiting.sessions.len() >= MAX_SESSIONS
            || waiting.bytes + bytes > MAX_BYTES && !waiting.sessions.is_empty()
        {
            waiting.end_oldest(|_| true);
        }
        waiting.bytes += bytes;
        waiting.sessions.insert(key, session);
    }

    /// Returns `true` if the requester has a session of a command with this id.
    pub(super) fn has(&self, id: &str, actor: &Actor, command: &str) -> bool {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = waiting.sessions.get(&(actor.jid.clone(), id.to_owned()));
        session.is_some_and(|session| session.command == command)
    }

    /// Removes and returns a session of the requester.
    pub(super) fn take(
        &self,
        id: &str,
        actor: &Actor,
        command: &str,
    ) -> Result<CommandSession, StanzaError> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (actor.jid.clone(), id.to_owned());
        if waiting.sessions.get(&key).is_none_or(|session| session.command != command) {
            return Err(StanzaError::new("modify", "bad-request")
                .command("bad-sessionid")
                .text("unknown session id for this command and requester"));
        }
        waiting.remove(&key).filter(|session| session.began.elapsed() < LIFETIME).ok_or_else(|| {
            StanzaError::new("cancel", "not-allowed")
                .command("session-expired")
                .text("the session has expired")
        })
    }
}

impl SessionTable {
    fn remove(&mut self, key: &SessionKey) -> Option<CommandSession> {
        let session = self.sessions.remove(key)?;
        self.bytes = self.bytes.saturating_sub(session.bytes());
        Some(session)
    }

    fn end(&mut self, ends: impl Fn(&CommandSession) -> bool) {
        let ending = self.sessions.iter().filter(|(_, session)| ends(session));
        let ending: Vec<_> = ending.map(|(key, _)| key.clone()).collect();
        ending.iter().for_each(|key| drop(self.remove(key)));
    }

    fn end_oldest(&mut self, among: impl Fn(&CommandSession) -> bool) {
        let among = self.sessions.iter().filter(|(_, session)| among(session));
        let oldest = among.min_by_key(|(_, session)| session.began).map(|(key, _)| key.clone());
        oldest.iter().for_each(|key| drop(self.remove(key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::handlers::adhoc::forms::{asking, lines};

    fn actor(name: &str) -> Actor {
        let jid = Jid::new(name).unwrap();
        Actor { jid, is_administrator: false }
    }

    fn session(of: &Actor) -> CommandSession {
        CommandSession::new(of, "x", asking("", Vec::new()), NextActions::Last)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_forgotten_after_a_while() {
        let (sessions, asker) = (CommandSessions::default(), actor("a@b/c"));
        sessions.put("1", session(&asker));
        tokio::time::advance(LIFETIME - Duration::from_secs(1)).await;
        let taken = sessions.take("1", &asker, "x").unwrap();
        sessions.put("2", taken.after(Vec::new(), asking("", Vec::new()), NextActions::Last));
        sessions.put("1", taken);
        tokio::time::advance(Duration::from_secs(1)).await;
        let expired = sessions.take("1", &asker, "x").unwrap_err();
        assert_eq!(expired.application.unwrap().0, "session-expired");
        // The timeout starts anew with each form.
        assert!(sessions.take("2", &asker, "x").is_ok());
    }

    #[tokio::test]
    async fn sessions_are_bounded_and_belong_to_their_requester() {
        let (sessions, asker) = (CommandSessions::default(), actor("a@b/c"));
        for number in 0..=MAX_SESSIONS_OF_ONE {
            sessions.put(&number.to_string(), session(&asker));
        }
        assert!(sessions.take("0", &asker, "x").is_err());
        assert!(sessions.take("1", &actor("a@b/other"), "x").is_err());
        assert!(sessions.take("1", &asker, "y").is_err());
        for number in 0..2 * MAX_SESSIONS {
            sessions.put(&format!("o{number}"), session(&actor(&format!("{number}@b/c"))));
        }
        assert_eq!(sessions.0.lock().unwrap().sessions.len(), MAX_SESSIONS);
        let large = || asking("", vec![lines("", "", ["x".repeat(MAX_BYTES / 3)])]);
        for number in 0..10 {
            let of = actor(&format!("large{number}@b/c"));
            sessions.put(
                &format!("l{number}"),
                CommandSession::new(&of, "x", large(), NextActions::Last),
            );
        }
        let waiting = sessions.0.lock().unwrap();
        assert_eq!(waiting.sessions.len(), 2);
        assert!(waiting.bytes <= MAX_BYTES);
    }
}
