//! How each refusal looks on the wire: one table, from the examples of XEP-0060 1.30.0.

#![deny(clippy::wildcard_enum_match_arm)]

use crate::wire::stanza::{ErrorDetail, StanzaError};

/// The stanza error for a refusal.
#[must_use]
pub fn stanza_error(refusal: &crate::pubsub::Error) -> StanzaError {
    let error = StanzaError::new;
    let rendered = match refusal {
        crate::pubsub::Error::BadRequest(_) | crate::pubsub::Error::UnexpectedChild(_) => {
            error("modify", "bad-request")
        }
        crate::pubsub::Error::BadSetting { .. }
        | crate::pubsub::Error::FormTooLarge { .. }
        | crate::pubsub::Error::IdTooLong { .. }
        | crate::pubsub::Error::NotAcceptable(_)
        | crate::pubsub::Error::UnknownField(_) => error("modify", "not-acceptable"),
        crate::pubsub::Error::ClosedNode => error("cancel", "not-allowed").pubsub("closed-node"),
        crate::pubsub::Error::ConfigurationRequired => {
            error("modify", "not-acceptable").pubsub("configuration-required")
        }
        crate::pubsub::Error::Forbidden
        | crate::pubsub::Error::ForeignItem
        | crate::pubsub::Error::NameReserved
        | crate::pubsub::Error::PublisherHidden => error("auth", "forbidden"),
        // SPEC: `gone` is of type `modify` in §6.1.3.11, and of type `cancel` in RFC 6120.
        crate::pubsub::Error::Gone { uri } => {
            StanzaError { detail: ErrorDetail::Uri(uri.as_str().into()), ..error("modify", "gone") }
        }
        crate::pubsub::Error::InvalidJid => error("modify", "bad-request").pubsub("invalid-jid"),
        crate::pubsub::Error::InvalidOptions(_) => {
            error("modify", "bad-request").pubsub("invalid-options")
        }
        crate::pubsub::Error::MalformedJid(_) => {
            error("modify", "jid-malformed").pubsub("invalid-jid")
        }
        crate::pubsub::Error::InvalidSubId => {
            error("modify", "not-acceptable").pubsub("invalid-subid")
        }
        crate::pubsub::Error::InvalidPayload(_) => {
            error("modify", "bad-request").pubsub("invalid-payload")
        }
        crate::pubsub::Error::ItemForbidden => {
            error("modify", "bad-request").pubsub("item-forbidden")
        }
        crate::pubsub::Error::ItemNotFound | crate::pubsub::Error::NodeNotFound => {
            error("cancel", "item-not-found")
        }
        crate::pubsub::Error::ItemRequired => {
            error("modify", "bad-request").pubsub("item-required")
        }
        crate::pubsub::Error::JidRequired => error("modify", "bad-request").pubsub("jid-required"),
        crate::pubsub::Error::MaxItemsExceeded { .. } => {
            error("cancel", "not-allowed").pubsub("max-items-exceeded")
        }
        // SPEC: `max-nodes-exceeded` is in the schema only; that it goes with `not-allowed` of type `cancel` is our choice.
        crate::pubsub::Error::MaxNodesExceeded | crate::pubsub::Error::MaxNodesOfOwnerExceeded => {
            error("cancel", "not-allowed").pubsub("max-nodes-exceeded")
        }
        crate::pubsub::Error::ChangedMeanwhile | crate::pubsub::Error::NodeExists => {
            error("cancel", "conflict")
        }
        crate::pubsub::Error::NodeFull => error("cancel", "conflict").pubsub("node-full"),
        crate::pubsub::Error::NoInstantNodes => {
            error("modify", "not-acceptable").pubsub("nodeid-required")
        }
        crate::pubsub::Error::NodeIdRequired => {
            error("modify", "bad-request").pubsub("nodeid-required")
        }
        crate::pubsub::Error::NotImplemented(_) => error("cancel", "feature-not-implemented"),
        crate::pubsub::Error::NotInRosterGroup => {
            error("auth", "not-authorized").pubsub("not-in-roster-group")
        }
        // Of another type than where somebody unsubscribes (§6.2.3.2), or retrieves items.
        crate::pubsub::Error::NoOptions => {
            error("modify", "unexpected-request").pubsub("not-subscribed")
        }
        crate::pubsub::Error::NotSubscribed => {
            error("cancel", "unexpected-request").pubsub("not-subscribed")
        }
        crate::pubsub::Error::Outdated { newest } => StanzaError {
            detail: ErrorDetail::Compared(newest.as_deref().map(Into::into)),
            ..error("modify", "conflict").pubsub("precondition-not-met")
        },
        crate::pubsub::Error::PayloadRequired => {
            error("modify", "bad-request").pubsub("payload-required")
        }
        crate::pubsub::Error::BatchTooBig { .. } | crate::pubsub::Error::PayloadTooBig { .. } => {
            error("modify", "not-acceptable").pubsub("payload-too-big")
        }
        crate::pubsub::Error::PendingSubscription => {
            error("auth", "not-authorized").pubsub("pending-subscription")
        }
        crate::pubsub::Error::PresenceRequired => {
            error("auth", "not-authorized").pubsub("presence-subscription-required")
        }
        crate::pubsub::Error::PreconditionNotMet { .. } => {
            error("cancel", "conflict").pubsub("precondition-not-met")
        }
        crate::pubsub::Error::SubIdRequired => {
            error("modify", "bad-request").pubsub("subid-required")
        }
        crate::pubsub::Error::SubscriptionRequired => {
            error("auth", "not-authorized").pubsub("not-subscribed")
        }
        // Not `wait`: there is never room for it.
        crate::pubsub::Error::TooManyNotifications => error("modify", "policy-violation"),
        crate::pubsub::Error::TooManyRedirects => error("wait", "resource-constraint"),
        crate::pubsub::Error::TooManyOwnSubscriptions
        | crate::pubsub::Error::TooManySpecial
        | crate::pubsub::Error::TooManySubscriptions => {
            error("wait", "policy-violation").pubsub("too-many-subscriptions")
        }
        crate::pubsub::Error::Unsupported(feature) => StanzaError {
            detail: ErrorDetail::Feature(feature.name()),
            ..error("cancel", "feature-not-implemented").pubsub("unsupported")
        },
        crate::pubsub::Error::UnsupportedAccessModel => {
            error("modify", "not-acceptable").pubsub("unsupported-access-model")
        }
    };
    match refusal.limit() {
        // Every limit names itself; the text of a field does that already.
        Some(limit) if !matches!(refusal, crate::pubsub::Error::BadSetting { .. }) => {
            rendered.text(format!("{limit}: {refusal}"))
        }
        _ => rendered.text(refusal.to_string()),
    }
}
