//! What of XEP-0060 is implemented, hence announced (§10).
//!
//! Every use case names its features beside its rule; this is their sum, so nothing can be announced
//! that has no code. The order does not matter: service discovery sorts.

use crate::{AccessModel, Policy, op};

/// The names of the implemented features, without the namespace and `#`, as far as the service's policy lets them be.
pub fn implemented(policy: &Policy) -> impl Iterator<Item = &'static str> {
    let many = if policy.limits.max_subids > 1 { op::subscribe::FEATURES_OF_MANY } else { &[] };
    [
        many,
        AFFILIATIONS,
        op::affiliations::FEATURES,
        op::authorize::FEATURES,
        op::auto_subscribe::FEATURES,
        op::configure::FEATURES,
        op::create::FEATURES,
        op::delete::FEATURES,
        op::discover::FEATURES,
        op::subscription_options::FEATURES,
        op::presence_change::FEATURES,
        op::publish::FEATURES,
        op::purge::FEATURES,
        op::retract::FEATURES,
        op::retrieve::FEATURES,
        op::subscribe::FEATURES,
        op::subscriptions::FEATURES,
    ]
    .into_iter()
    .flatten()
    .copied()
    .chain([access(policy.initial().access_model)])
    .filter(|name| match *name {
        "auto-create" => policy.auto_create,
        "instant-nodes" => policy.instant_nodes,
        _ => true,
    })
}

/// SPEC: `access-X` says that X is the default model (§10), so there is only one.
fn access(model: AccessModel) -> &'static str {
    match model {
        AccessModel::Authorize => "access-authorize",
        AccessModel::Open => "access-open",
        AccessModel::Presence => "access-presence",
        AccessModel::Roster => "access-roster",
        AccessModel::Whitelist => "access-whitelist",
    }
}

/// §4.1.
const AFFILIATIONS: &[&str] = &[
    "member-affiliation",
    "outcast-affiliation",
    "publish-only-affiliation",
    "publisher-affiliation",
];
