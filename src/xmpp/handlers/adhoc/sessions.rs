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

/// Maximum number of sessions in total; a further session ends the oldest.
const MAX_SESSIONS: usize = 1000;
/// Maximum number of sessions of one requester; a further session ends the requester's oldest.
const MAX_SESSIONS_PER_REQUESTER: usize = 10;
/// Approximate maximum total number of bytes of all sessions. Above it, the oldest sessions end.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Time for which a session waits for its next form.
const LIFETIME: Duration = Duration::from_secs(600);

/// Beginning of the session ids that the service chooses.
pub(super) const OWN_ID: &str = "gjallar-";

/// Returns the error for a session that has ended: it was completed, cancelled or waited too long.
fn expired() -> StanzaError {
    StanzaError::new("cancel", "not-allowed")
        .command("session-expired")
        .text("the session has expired")
}

/// Session of a command that waits for a submitted form.
#[derive(Debug)]
pub(super) struct CommandSession {
    requester: Jid,
    command: &'static str,
    /// Time at which the current form was shown.
    shown_at: Instant,
    /// Submitted forms.
    pub(super) submitted: Vec<FormValues>,
    /// Form that waits for its submission.
    pub(super) shown: DataForm,
    /// Continuation after the shown form.
    pub(super) next: NextActions,
}

impl CommandSession {
    pub(super) fn new(
        actor: &Actor,
        command: &'static str,
        shown: DataForm,
        next: NextActions,
    ) -> Self {
        let requester = actor.jid.clone();
        Self { requester, command, shown_at: Instant::now(), submitted: Vec::new(), shown, next }
    }

    /// Returns the session with the submitted forms `submitted`. The form `shown` waits for its submission.
    pub(super) fn after(
        &self,
        submitted: Vec<FormValues>,
        shown: DataForm,
        next: NextActions,
    ) -> Self {
        let (requester, shown_at) = (self.requester.clone(), Instant::now());
        Self { requester, command: self.command, shown_at, submitted, shown, next }
    }

    fn bytes(&self) -> usize {
        let field = |field: &xmpp_parsers::data_forms::Field| {
            200 + field.values.iter().map(|value| 30 + value.len()).sum::<usize>()
                + field.options.iter().map(|option| 50 + option.value.len()).sum::<usize>()
        };
        let shown: usize = self.shown.fields.iter().map(field).sum();
        500 + shown + self.submitted.iter().map(FormValues::bytes).sum::<usize>()
    }
}

/// Requester of a session, and id of the session. The requester may choose the id.
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
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.end(|other| other.shown_at.elapsed() >= LIFETIME);
        // A new session replaces an older one with the same id.
        let key = (session.requester.clone(), id.to_owned());
        table.remove(&key);
        let own = |other: &CommandSession| other.requester == session.requester;
        while table.sessions.values().filter(|other| own(other)).count()
            >= MAX_SESSIONS_PER_REQUESTER
        {
            table.end_oldest(own);
        }
        let bytes = session.bytes();
        while table.sessions.len() >= MAX_SESSIONS
            || table.bytes + bytes > MAX_BYTES && !table.sessions.is_empty()
        {
            table.end_oldest(|_| true);
        }
        table.bytes += bytes;
        table.sessions.insert(key, session);
    }

    /// Returns `true` if the requester has a session of a command with this id.
    pub(super) fn has(&self, id: &str, actor: &Actor, command: &str) -> bool {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = table.sessions.get(&(actor.jid.clone(), id.to_owned()));
        session.is_some_and(|session| session.command == command)
    }

    /// Removes and returns a session of the requester.
    pub(super) fn take(
        &self,
        id: &str,
        actor: &Actor,
        command: &str,
    ) -> Result<CommandSession, StanzaError> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (actor.jid.clone(), id.to_owned());
        if id.starts_with(OWN_ID) && !table.sessions.contains_key(&key) {
            return Err(expired());
        }
        if table.sessions.get(&key).is_none_or(|session| session.command != command) {
            return Err(StanzaError::new("modify", "bad-request")
                .command("bad-sessionid")
                .text("unknown session id for this command and requester"));
        }
        let session = table.remove(&key);
        session.filter(|session| session.shown_at.elapsed() < LIFETIME).ok_or_else(expired)
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
        let oldest = among.min_by_key(|(_, session)| session.shown_at).map(|(key, _)| key.clone());
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
        let (sessions, requester) = (CommandSessions::default(), actor("a@b/c"));
        sessions.put("1", session(&requester));
        tokio::time::advance(LIFETIME - Duration::from_secs(1)).await;
        let taken = sessions.take("1", &requester, "x").unwrap();
        sessions.put("2", taken.after(Vec::new(), asking("", Vec::new()), NextActions::Last));
        sessions.put("1", taken);
        tokio::time::advance(Duration::from_secs(1)).await;
        let expired = sessions.take("1", &requester, "x").unwrap_err();
        assert_eq!(expired.application.unwrap().0, "session-expired");
        // The timeout starts anew with each form.
        assert!(sessions.take("2", &requester, "x").is_ok());
    }

    #[tokio::test]
    async fn sessions_are_bounded_and_belong_to_their_requester() {
        let (sessions, requester) = (CommandSessions::default(), actor("a@b/c"));
        for number in 0..=MAX_SESSIONS_PER_REQUESTER {
            sessions.put(&number.to_string(), session(&requester));
        }
        assert!(sessions.take("0", &requester, "x").is_err());
        assert!(sessions.take("1", &actor("a@b/other"), "x").is_err());
        assert!(sessions.take("1", &requester, "y").is_err());
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
        let table = sessions.0.lock().unwrap();
        assert_eq!(table.sessions.len(), 2);
        assert!(table.bytes <= MAX_BYTES);
    }
}
