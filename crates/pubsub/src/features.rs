//! Features of XEP-0060 that the service implements and announces (§10).
//!
//! Each file of [`op`] declares the features that it implements, and this module collects them. So the service
//! announces no feature without code. The order of the features is arbitrary: service discovery sorts them.

use crate::{AccessModel, Policy, op};

/// Returns the names of the features that are implemented and allowed by the service's policy, without the namespace
/// and `#`.
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

/// SPEC: `access-X` says that X is the default model (§10), so only one such feature is announced.
fn access(model: AccessModel) -> &'static str {
    match model {
        AccessModel::Authorize => "access-authorize",
        AccessModel::Open => "access-open",
        AccessModel::Presence => "access-presence",
        AccessModel::Roster => "access-roster",
        AccessModel::Whitelist => "access-whitelist",
    }
}

/// Features for the affiliations (§4.1).
const AFFILIATIONS: &[&str] = &[
    "member-affiliation",
    "outcast-affiliation",
    "publish-only-affiliation",
    "publisher-affiliation",
];
