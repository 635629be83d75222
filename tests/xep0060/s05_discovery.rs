//! Discovery (§5) beyond the scripts: meta-data, own subscriptions and affiliations.

use super::{
    s04_1_affiliations::{NURSE, publish},
    s16_4_node_config::{OWNER, READER, component_with_subscriber, values},
};
use crate::support::component::{PUBSUB, TestComponent, error, shown};

/// §5.6, §5.7: a reply about one node names the node.
#[tokio::test]
async fn s5_6_own_lists_at_one_node_name_the_node() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    for (list, node) in [
        ("<subscriptions node='n'/>", Some("n")),
        ("<affiliations node='n'/>", Some("n")),
        ("<subscriptions/>", None),
        ("<affiliations/>", None),
    ] {
        let reply = component.pubsub(READER, "get", list).await;
        let pubsub = reply.get_child("pubsub", PUBSUB).unwrap();
        assert_eq!(pubsub.children().next().unwrap().attr("node"), node, "{list}");
    }
}

/// §5.4: "values for all configured options". Group names of an owner's roster are hidden from
/// others.
#[tokio::test]
async fn s5_4_meta_data_have_every_configured_option() {
    let mut component = component_with_subscriber(&[("title", "T"), ("notify_sub", "1")]).await;
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    let info = component.ask(READER, "get", query).await;
    let data = info.children().next().unwrap().get_child("x", "jabber:x:data").unwrap();
    let configured = component.owner(OWNER, "get", "<configure node='n'/>").await;
    let configured = configured.get_child("pubsub", crate::support::component::OWNER).unwrap();
    let form = configured.children().next().unwrap().children().next().unwrap();
    for var in form.children().filter_map(|field| field.attr("var")) {
        let expected = match var {
            "FORM_TYPE" | "pubsub#roster_groups_allowed" | "x-gjallar#revision" => continue,
            // XEP-0460 §4.2: the field shows the number if it is known.
            "pubsub#max_items" => vec!["10000".to_owned()],
            _ => values(form, var).unwrap(),
        };
        assert_eq!(values(data, var), Some(expected), "{var}");
    }
    assert_eq!(values(data, "pubsub#roster_groups_allowed"), None);
}

/// Entities that may publish to a node see it, even if they may not retrieve its items.
#[tokio::test]
async fn s5_3_publishers_discover_closed_nodes() {
    for (model, is_seen) in [("open", true), ("publishers", false)] {
        let mut component = TestComponent::start().await;
        let fields = [("access_model", "whitelist"), ("publish_model", model)];
        component.create(OWNER, "n", &fields).await;
        let outcast = "<affiliations node='n'><affiliation jid='out@localhost' affiliation='outcast'/>\
                       </affiliations>";
        component.owner(OWNER, "set", outcast).await;
        let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
        let list = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
        for (jid, sees) in [(NURSE, is_seen), (OWNER, true), ("out@localhost/x", false)] {
            let published = component.pubsub(jid, "set", &publish(jid, "x")).await;
            assert_eq!(published.attr("type") == Some("result"), sees, "{jid} {model}");
            let info = component.ask(jid, "get", info).await;
            assert_eq!(info.attr("type") == Some("result"), sees, "{jid} {model}");
            let list = shown(&component.ask(jid, "get", list).await);
            assert_eq!(list.contains("node='n'"), sees, "{jid} {model}: {list}");
        }
        let items = component.pubsub(NURSE, "get", "<items node='n'/>").await;
        assert_eq!(error(&items), "cancel not-allowed closed-node");
    }
}

/// §5.4: an entity that may ask to subscribe sees the node with its owners and publishers. The access model
/// `authorize` hides items, not entities.
#[tokio::test]
async fn s5_4_meta_data_of_closed_nodes_are_hidden_and_those_with_approval_are_shown() {
    let mut component = TestComponent::start().await;
    let list = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    component.create(OWNER, "n", &[]).await;
    let publisher = "<affiliation jid='bot@localhost' affiliation='publisher'/>";
    let publisher = format!("<affiliations node='n'>{publisher}</affiliations>");
    component.owner(OWNER, "set", &publisher).await;
    for (access_model, publish_model, is_shown) in [
        ("whitelist", "publishers", false),
        ("whitelist", "open", true),
        ("authorize", "publishers", true),
    ] {
        let fields = [("access_model", access_model), ("publish_model", publish_model)];
        component.configure(OWNER, "n", &fields).await;
        let items = component.pubsub(READER, "get", "<items node='n'/>").await;
        assert_eq!(items.attr("type"), Some("error"), "{fields:?}");
        let listed = component.ask(READER, "get", list).await;
        let entries = listed.children().next().unwrap().children();
        assert_eq!(entries.count(), usize::from(is_shown), "{fields:?}");
        let info = component.ask(READER, "get", query).await;
        if !is_shown {
            assert_eq!(error(&info), "auth forbidden", "{fields:?}");
            continue;
        }
        let data = info.children().next().unwrap().get_child("x", "jabber:x:data").unwrap();
        assert_eq!(values(data, "pubsub#owner"), Some(vec!["owner@localhost".to_owned()]));
        assert_eq!(values(data, "pubsub#publisher"), Some(vec!["bot@localhost".to_owned()]));
        assert_eq!(values(data, "pubsub#num_subscribers"), Some(vec!["0".to_owned()]));
    }
}
