//! Leases of subscriptions (§12.19), also as a required option (§6.1.5).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gjallar::{
    config::Config,
    store::{MemoryStore, SledStore, Store},
};

use super::s06_3_subscription_options::{
    OWNER, PLAIN, READER, component_with_subscribers, configure_options, form, from_now, item_ids,
    messages_for, now, option, publish,
};
use crate::support::component::{TestComponent, error, event, shown};

/// §12.19: a lease is limited to the maximum of the service, announced before it ends, renewed, and
/// ends.
#[tokio::test]
async fn s12_19_lease_ends_with_a_notification_unless_it_is_renewed() {
    let mut component = component_with_subscribers(
        |config| config.limits.max_lease_seconds = 2,
        &[("notify_sub", "1")],
    )
    .await;
    messages_for(&mut component, READER).await;
    configure_options(&mut component, &[("expire", &from_now(86_400_000))]).await;
    let end = option(&mut component, "pubsub#expire").await.unwrap();
    let end = DateTime::parse_from_rfc3339(&end).unwrap().with_timezone(&Utc);
    let left = end - now();
    assert!(left > chrono::Duration::zero() && left <= chrono::Duration::seconds(2), "{left}");
    // The lease is renewed before its end was announced.
    configure_options(&mut component, &[("expire", &from_now(1500))]).await;
    let warning = component.message().await;
    assert_eq!(warning.attr("to"), Some(READER));
    let ending = event(&warning);
    assert_eq!(ending.attr("subscription"), Some("subscribed"));
    assert_eq!(ending.attr("jid"), Some(READER));
    let expiry = DateTime::parse_from_rfc3339(ending.attr("expiry").unwrap()).unwrap();
    assert!(expiry > now());
    publish(&mut component, "1", "<x xmlns='urn:x'/>").await;
    assert_eq!(messages_for(&mut component, READER).await.len(), 1);
    let mut ends = [component.message().await, component.message().await];
    ends.sort_by_key(|message| message.attr("to").unwrap().to_owned());
    assert_eq!(ends[0].attr("to"), Some("owner@localhost"));
    assert_eq!(ends[1].attr("to"), Some(READER));
    for end in &ends {
        assert_eq!(event(end).attr("subscription"), Some("none"), "{}", shown(end));
        assert_eq!(event(end).attr("jid"), Some(READER));
    }
    assert!(now() >= expiry);
    publish(&mut component, "2", "<x xmlns='urn:x'/>").await;
    assert!(messages_for(&mut component, READER).await.is_empty());
    let gone =
        component.pubsub(READER, "get", &format!("<options node='n' jid='{READER}'/>")).await;
    assert_eq!(error(&gone), "modify unexpected-request not-subscribed");
}

#[tokio::test]
async fn s12_19_lease_and_its_options_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    let expire = from_now(2000);
    configure_options(&mut component, &[("expire", &expire), ("x-gjallar#keyword", "be")]).await;
    component.finish().await;
    let store = open();
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    let mut component = TestComponent::with(store, |_| {}).await;
    assert_eq!(option(&mut component, "pubsub#expire").await, Some(expire));
    assert_eq!(option(&mut component, "x-gjallar#keyword").await.as_deref(), Some("be"));
    publish(&mut component, "1", "<x xmlns='urn:x'>not</x>").await;
    publish(&mut component, "2", "<x xmlns='urn:x'>to be</x>").await;
    assert_eq!(item_ids(&component.message().await), ["2"]);
    let (warning, end) = (component.message().await, component.message().await);
    assert!(event(&warning).attr("expiry").is_some(), "{}", shown(&warning));
    assert_eq!(event(&end).attr("subscription"), Some("none"));
    component.finish().await;
    let store = open();
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.nodes_with_timers().await.unwrap(), []);
}

/// §6.1.5: if every subscription needs a lease, one without a lease is refused, and no lease can be
/// removed.
#[tokio::test]
async fn s6_1_5_subscription_without_a_required_lease_is_refused() {
    let configure = |config: &mut Config| config.limits.require_lease = true;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    component.create(OWNER, "n", &[]).await;
    let subscribe = format!("<subscribe node='n' jid='{READER}'/>");
    let required = "modify not-acceptable configuration-required";
    let answer = component.pubsub(READER, "set", &subscribe).await;
    assert_eq!(error(&answer), required);
    let without = format!("{subscribe}<options>{}</options>", form(&[("deliver", "1")]));
    assert_eq!(error(&component.pubsub(READER, "set", &without).await), required);
    let lease = [("expire", from_now(86_400_000))];
    let lease = lease.iter().map(|(var, value)| (*var, value.as_str())).collect::<Vec<_>>();
    let with = format!("{subscribe}<options>{}</options>", form(&lease));
    component.granted(READER, &with).await;
    // A repeated subscribe request is confirmed; the lease stays.
    component.granted(READER, &subscribe).await;
    let free = form(&[("expire", "")]);
    let free = format!("<options node='n' jid='{READER}'>{free}</options>");
    let answer = component.pubsub(READER, "set", &free).await;
    assert_eq!(error(&answer), "modify bad-request invalid-options");
    // An owner may create a subscription without a lease.
    let enrolled = format!("<subscription jid='{PLAIN}' subscription='subscribed'/>");
    let content = format!("<subscriptions node='n'>{enrolled}</subscriptions>");
    assert_eq!(component.owner(OWNER, "set", &content).await.attr("type"), Some("result"));
}
