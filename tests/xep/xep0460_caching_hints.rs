//! XEP-0460, Pubsub Caching Hints: meta-data about the lifetime of items, and events for all
//! removed items.

use crate::{
    support::component::shown,
    xep0060::s16_4_node_config::{NODE, OWNER, component_with_subscriber, meta_data},
};

/// XEP-0460.
#[tokio::test]
async fn meta_data_have_caching_hints() {
    let caching = |name: &str| format!("{{urn:xmpp:pubsub-caching:0}}{name}");
    let mut component = component_with_subscriber(&[("item_expire", "60")]).await;
    for (name, expected) in [
        ("persistence", "semi-persistent"),
        ("consistent-items", "true"),
        ("consistent-set", "true"),
        ("stable-items", "true"),
        ("always-notify", "false"),
        ("allowed-for-suggestions", "false"),
        ("purge-keep-last-item", "false"),
    ] {
        assert_eq!(meta_data(&mut component, &caching(name)).await, expected, "{name}");
    }
    assert_eq!(meta_data(&mut component, "pubsub#item_expire").await, "60");
    let fields = [("persist_items", "0"), ("notify_retract", "0"), ("notify_config", "1")];
    component.configure(OWNER, NODE, &fields).await;
    assert_eq!(meta_data(&mut component, &caching("persistence")).await, "transient");
    // Without announcements of the configuration, a change of it may remove items without an event.
    for (field, value, always) in [
        ("notify_retract", "1", "true"),
        ("notify_config", "0", "false"),
        ("notify_config", "1", "true"),
        ("deliver_notifications", "0", "false"),
    ] {
        component.configure(OWNER, NODE, &[(field, value)]).await;
        let notify = meta_data(&mut component, &caching("always-notify")).await;
        assert_eq!(notify, always, "{field}={value}");
    }
}

/// If `always-notify` is true, an event lists the items that a change of the configuration removes.
#[tokio::test]
async fn removal_by_a_configuration_is_announced_at_nodes_with_always_notify() {
    let mut component = component_with_subscriber(&[("notify_config", "1")]).await;
    for id in ["1", "2", "3"] {
        component.publish(OWNER, NODE, id).await;
    }
    component.messages().await;
    for (field, value) in [("max_items", "1"), ("persist_items", "0")] {
        component.configure(OWNER, NODE, &[(field, value)]).await;
        let message = shown(&component.message().await);
        let value = if value == "0" { "false" } else { value };
        let field = message.split(&format!("var='pubsub#{field}'")).nth(1).unwrap();
        assert!(
            field.split("</field>").next().unwrap().contains(&format!(">{value}<")),
            "{message}"
        );
    }
}
