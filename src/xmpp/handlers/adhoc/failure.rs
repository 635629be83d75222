//! How it is answered that something was not done.

use tracing::{debug, error};

use crate::{
    service::{Error, Service},
    xmpp::{
        error::stanza_error,
        stanza::{envelope::StanzaError, ns},
    },
};

use super::command::{CommandError, CommandInfo};

/// How an error of the service is answered. A failure is logged here, under an incident number that
/// the asker is given too.
#[must_use]
pub(crate) fn service_error(service: &Service, error: &Error) -> StanzaError {
    match error {
        Error::Refused(refusal) => {
            debug!(%refusal, "refused");
            refusal.limit().into_iter().for_each(|limit| service.metrics().count_rejection(limit));
            stanza_error(refusal)
        }
        Error::Busy { limit } => {
            service.metrics().count_rejection("max_backlog");
            StanzaError::new("wait", "resource-constraint").text(format!(
                "max_backlog: the events that wait for delivery take all their room ({limit}): \
                 retry later"
            ))
        }
        Error::Quarantined => StanzaError::new("wait", "internal-server-error")
            .text("the node is closed, for what is stored of it is damaged"),
        Error::Unknown(reason) => {
            let incident = format!("{:08x}", service.next_u64() >> 32);
            error!(%reason, incident, "a request failed: what became of it is unknown");
            StanzaError::new("wait", "internal-server-error").text(format!("incident {incident}"))
        }
    }
}

/// How it is answered that a command does not go on.
///
/// SPEC: `forbidden` is of type `cancel` in §8.7.3.3, and of type `auth` everywhere else.
pub(super) fn failure(service: &Service, about: CommandInfo, trouble: CommandError) -> StanzaError {
    match trouble {
        CommandError::Payload(text) => {
            StanzaError::new("modify", "bad-request").command("bad-payload").text(text)
        }
        CommandError::Service(error) => {
            let error = service_error(service, &error);
            let is_other = about.node == ns::GET_PENDING && error.condition == "forbidden";
            if is_other { StanzaError { kind: "cancel", ..error } } else { error }
        }
    }
}
