//! Maps the errors of the crate `gjallar_pubsub` ([`gjallar_pubsub::Error`]) and those of the service to stanza errors.
//! Errors of the crate get the stanza errors in the examples of XEP-0060 1.30.0.

#![deny(clippy::wildcard_enum_match_arm)]

use tracing::{debug, error};

use crate::{
    service::{Error, Service},
    xmpp::stanza::envelope::{ErrorDetail, StanzaError},
};

/// Returns the stanza error for an error of the service, and counts the error. A failure of the store is logged with an
/// incident number, which is also in the text of the stanza error.
#[must_use]
pub(crate) fn service_error(service: &Service, error: &Error) -> StanzaError {
    error.limit().into_iter().for_each(|limit| service.metrics().count_rejection(limit));
    match error {
        Error::Refused(refusal) => {
            debug!(error = %refusal, "refused a request");
            stanza_error(refusal)
        }
        Error::Busy { limit } => StanzaError::new("wait", "resource-constraint")
            .text(format!("max_backlog: the backlog is full ({limit}): retry later")),
        Error::Quarantined => StanzaError::new("wait", "internal-server-error")
            .text("the node is unavailable: its stored data is damaged"),
        Error::Unknown(error) => {
            let incident = format!("{:08x}", service.next_u64() >> 32);
            error!(
                event = "request_failed",
                %error,
                incident,
                "request failed; its outcome is unknown"
            );
            StanzaError::new("wait", "internal-server-error")
                .text(format!("internal error, incident {incident}"))
        }
    }
}

/// Returns the stanza error for an error of the crate `gjallar_pubsub`.
#[must_use]
pub fn stanza_error(refusal: &gjallar_pubsub::Error) -> StanzaError {
    let error = StanzaError::new;
    let rendered = match refusal {
        gjallar_pubsub::Error::BadRequest(_) | gjallar_pubsub::Error::UnexpectedChild(_) => {
            error("modify", "bad-request")
        }
        gjallar_pubsub::Error::BadSetting { .. }
        | gjallar_pubsub::Error::FormTooLarge { .. }
        | gjallar_pubsub::Error::IdTooLong { .. }
        | gjallar_pubsub::Error::NotAcceptable(_)
        | gjallar_pubsub::Error::UnknownField(_) => error("modify", "not-acceptable"),
        gjallar_pubsub::Error::ClosedNode => error("cancel", "not-allowed").pubsub("closed-node"),
        gjallar_pubsub::Error::ConfigurationRequired => {
            error("modify", "not-acceptable").pubsub("configuration-required")
        }
        gjallar_pubsub::Error::Forbidden
        | gjallar_pubsub::Error::ForeignItem
        | gjallar_pubsub::Error::NameReserved
        | gjallar_pubsub::Error::PublisherHidden => error("auth", "forbidden"),
        // SPEC: `gone` is of type `modify` in §6.1.3.11, and of type `cancel` in RFC 6120.
        gjallar_pubsub::Error::Gone { uri } => {
            StanzaError { detail: ErrorDetail::Uri(uri.as_str().into()), ..error("modify", "gone") }
        }
        gjallar_pubsub::Error::InvalidJid => error("modify", "bad-request").pubsub("invalid-jid"),
        gjallar_pubsub::Error::InvalidOptions(_) => {
            error("modify", "bad-request").pubsub("invalid-options")
        }
        gjallar_pubsub::Error::MalformedJid(_) => {
            error("modify", "jid-malformed").pubsub("invalid-jid")
        }
        gjallar_pubsub::Error::InvalidSubId => {
            error("modify", "not-acceptable").pubsub("invalid-subid")
        }
        gjallar_pubsub::Error::InvalidPayload(_) => {
            error("modify", "bad-request").pubsub("invalid-payload")
        }
        gjallar_pubsub::Error::ItemForbidden => {
            error("modify", "bad-request").pubsub("item-forbidden")
        }
        gjallar_pubsub::Error::ItemNotFound | gjallar_pubsub::Error::NodeNotFound => {
            error("cancel", "item-not-found")
        }
        gjallar_pubsub::Error::ItemRequired => {
            error("modify", "bad-request").pubsub("item-required")
        }
        gjallar_pubsub::Error::JidRequired => error("modify", "bad-request").pubsub("jid-required"),
        gjallar_pubsub::Error::MaxItemsExceeded { .. } => {
            error("cancel", "not-allowed").pubsub("max-items-exceeded")
        }
        // SPEC: `max-nodes-exceeded` is in the schema only; the condition `not-allowed` of type `cancel` is our choice.
        gjallar_pubsub::Error::MaxNodesExceeded
        | gjallar_pubsub::Error::MaxNodesOfPolicyExceeded
        | gjallar_pubsub::Error::MaxNodesOfOwnerExceeded => {
            error("cancel", "not-allowed").pubsub("max-nodes-exceeded")
        }
        gjallar_pubsub::Error::ChangedMeanwhile | gjallar_pubsub::Error::NodeExists => {
            error("cancel", "conflict")
        }
        gjallar_pubsub::Error::NodeFull => error("cancel", "conflict").pubsub("node-full"),
        gjallar_pubsub::Error::NoInstantNodes => {
            error("modify", "not-acceptable").pubsub("nodeid-required")
        }
        gjallar_pubsub::Error::NodeIdRequired => {
            error("modify", "bad-request").pubsub("nodeid-required")
        }
        gjallar_pubsub::Error::NotImplemented(_) => error("cancel", "feature-not-implemented"),
        gjallar_pubsub::Error::NotInRosterGroup => {
            error("auth", "not-authorized").pubsub("not-in-roster-group")
        }
        // The type differs from the error type of unsubscribing (§6.2.3.2) and of item retrieval.
        gjallar_pubsub::Error::NoOptions => {
            error("modify", "unexpected-request").pubsub("not-subscribed")
        }
        gjallar_pubsub::Error::NotSubscribed => {
            error("cancel", "unexpected-request").pubsub("not-subscribed")
        }
        gjallar_pubsub::Error::Outdated { newest } => StanzaError {
            detail: ErrorDetail::Compared(newest.as_deref().map(Into::into)),
            ..error("modify", "conflict").pubsub("precondition-not-met")
        },
        gjallar_pubsub::Error::PayloadRequired => {
            error("modify", "bad-request").pubsub("payload-required")
        }
        gjallar_pubsub::Error::BatchTooBig { .. } | gjallar_pubsub::Error::PayloadTooBig { .. } => {
            error("modify", "not-acceptable").pubsub("payload-too-big")
        }
        gjallar_pubsub::Error::PendingSubscription => {
            error("auth", "not-authorized").pubsub("pending-subscription")
        }
        gjallar_pubsub::Error::PresenceRequired => {
            error("auth", "not-authorized").pubsub("presence-subscription-required")
        }
        gjallar_pubsub::Error::PreconditionNotMet { .. } => {
            error("cancel", "conflict").pubsub("precondition-not-met")
        }
        gjallar_pubsub::Error::SubIdRequired => {
            error("modify", "bad-request").pubsub("subid-required")
        }
        gjallar_pubsub::Error::SubscriptionRequired => {
            error("auth", "not-authorized").pubsub("not-subscribed")
        }
        // The type is not `wait`: a retry never succeeds.
        gjallar_pubsub::Error::TooManyNotifications => error("modify", "policy-violation"),
        gjallar_pubsub::Error::TooManyRedirects => error("wait", "resource-constraint"),
        gjallar_pubsub::Error::TooManyOwnSubscriptions
        | gjallar_pubsub::Error::TooManySpecial
        | gjallar_pubsub::Error::TooManySubscriptions => {
            error("wait", "policy-violation").pubsub("too-many-subscriptions")
        }
        gjallar_pubsub::Error::Unsupported(feature) => StanzaError {
            detail: ErrorDetail::Feature(feature.name()),
            ..error("cancel", "feature-not-implemented").pubsub("unsupported")
        },
        gjallar_pubsub::Error::UnsupportedAccessModel => {
            error("modify", "not-acceptable").pubsub("unsupported-access-model")
        }
    };
    rendered.text(refusal.text())
}
