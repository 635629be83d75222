//! How each refusal looks on the wire: one table, from the examples of XEP-0060 1.30.0.

#![deny(clippy::wildcard_enum_match_arm)]

use crate::{
    pubsub::Refusal,
    wire::stanza::{Detail, StanzaError},
};

/// The stanza error for a refusal.
#[must_use]
pub fn stanza_error(refusal: &Refusal) -> StanzaError {
    let error = StanzaError::new;
    let rendered = match refusal {
        Refusal::BadRequest(_) | Refusal::UnexpectedChild(_) => error("modify", "bad-request"),
        Refusal::BadSetting { .. }
        | Refusal::FormTooLarge { .. }
        | Refusal::IdTooLong { .. }
        | Refusal::NotAcceptable(_)
        | Refusal::UnknownField(_) => error("modify", "not-acceptable"),
        Refusal::ClosedNode => error("cancel", "not-allowed").pubsub("closed-node"),
        Refusal::ConfigurationRequired => {
            error("modify", "not-acceptable").pubsub("configuration-required")
        }
        Refusal::Forbidden
        | Refusal::ForeignItem
        | Refusal::NameReserved
        | Refusal::PublisherHidden => error("auth", "forbidden"),
        // SPEC: `gone` is of type `modify` in §6.1.3.11, and of type `cancel` in RFC 6120.
        Refusal::Gone { uri } => {
            StanzaError { detail: Detail::Uri(uri.as_str().into()), ..error("modify", "gone") }
        }
        Refusal::InvalidJid => error("modify", "bad-request").pubsub("invalid-jid"),
        Refusal::InvalidOptions(_) => error("modify", "bad-request").pubsub("invalid-options"),
        Refusal::MalformedJid(_) => error("modify", "jid-malformed").pubsub("invalid-jid"),
        Refusal::InvalidSubId => error("modify", "not-acceptable").pubsub("invalid-subid"),
        Refusal::InvalidPayload(_) => error("modify", "bad-request").pubsub("invalid-payload"),
        Refusal::ItemForbidden => error("modify", "bad-request").pubsub("item-forbidden"),
        Refusal::ItemNotFound | Refusal::NodeNotFound => error("cancel", "item-not-found"),
        Refusal::ItemRequired => error("modify", "bad-request").pubsub("item-required"),
        Refusal::JidRequired => error("modify", "bad-request").pubsub("jid-required"),
        Refusal::MaxItemsExceeded { .. } => {
            error("cancel", "not-allowed").pubsub("max-items-exceeded")
        }
        // SPEC: `max-nodes-exceeded` is in the schema only; that it goes with `not-allowed` of type `cancel` is our choice.
        Refusal::MaxNodesExceeded | Refusal::MaxNodesOfOwnerExceeded => {
            error("cancel", "not-allowed").pubsub("max-nodes-exceeded")
        }
        Refusal::ChangedMeanwhile | Refusal::NodeExists => error("cancel", "conflict"),
        Refusal::NodeFull => error("cancel", "conflict").pubsub("node-full"),
        Refusal::NoInstantNodes => error("modify", "not-acceptable").pubsub("nodeid-required"),
        Refusal::NodeIdRequired => error("modify", "bad-request").pubsub("nodeid-required"),
        Refusal::NotImplemented(_) => error("cancel", "feature-not-implemented"),
        Refusal::NotInRosterGroup => error("auth", "not-authorized").pubsub("not-in-roster-group"),
        // Of another type than where somebody unsubscribes (§6.2.3.2), or retrieves items.
        Refusal::NoOptions => error("modify", "unexpected-request").pubsub("not-subscribed"),
        Refusal::NotSubscribed => error("cancel", "unexpected-request").pubsub("not-subscribed"),
        Refusal::Outdated { newest } => StanzaError {
            detail: Detail::Compared(newest.as_deref().map(Into::into)),
            ..error("modify", "conflict").pubsub("precondition-not-met")
        },
        Refusal::PayloadRequired => error("modify", "bad-request").pubsub("payload-required"),
        Refusal::BatchTooBig { .. } | Refusal::PayloadTooBig { .. } => {
            error("modify", "not-acceptable").pubsub("payload-too-big")
        }
        Refusal::PendingSubscription => {
            error("auth", "not-authorized").pubsub("pending-subscription")
        }
        Refusal::PresenceRequired => {
            error("auth", "not-authorized").pubsub("presence-subscription-required")
        }
        Refusal::PreconditionNotMet { .. } => {
            error("cancel", "conflict").pubsub("precondition-not-met")
        }
        Refusal::SubIdRequired => error("modify", "bad-request").pubsub("subid-required"),
        Refusal::SubscriptionRequired => error("auth", "not-authorized").pubsub("not-subscribed"),
        // Not `wait`: there is never room for it.
        Refusal::TooManyNotifications => error("modify", "policy-violation"),
        Refusal::TooManyRedirects => error("wait", "resource-constraint"),
        Refusal::TooManyOwnSubscriptions
        | Refusal::TooManySpecial
        | Refusal::TooManySubscriptions => {
            error("wait", "policy-violation").pubsub("too-many-subscriptions")
        }
        Refusal::Unsupported(feature) => StanzaError {
            detail: Detail::Feature(feature.name()),
            ..error("cancel", "feature-not-implemented").pubsub("unsupported")
        },
        Refusal::UnsupportedAccessModel => {
            error("modify", "not-acceptable").pubsub("unsupported-access-model")
        }
    };
    match refusal.limit() {
        // Every limit names itself; the text of a field does that already.
        Some(limit) if !matches!(refusal, Refusal::BadSetting { .. }) => {
            rendered.text(format!("{limit}: {refusal}"))
        }
        _ => rendered.text(refusal.to_string()),
    }
}
