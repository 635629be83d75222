//! XEP-0485, PubSub Server Information.

use crate::{
    support::component::{PUBSUB, TestComponent, shown},
    xep0060::s16_4_node_config::{OWNER, READER, is_granted},
};

/// XEP-0485 §4, §5: an open first-level leaf node that keeps one item, which the server's bot replaces.
#[tokio::test]
async fn server_publishes_its_information() {
    let mut component = TestComponent::start().await;
    let fields = [("access_model", "open"), ("max_items", "1")];
    component.create(OWNER, "serverinfo", &fields).await;
    for peer in ["denmark.lit", "montague.net"] {
        let info = format!(
            "<serverinfo xmlns='urn:xmpp:serverinfo:0'><domain name='shakespeare.lit'><federation>\
             <remote-domain name='{peer}'><connection type='bidi'/></remote-domain>\
             </federation></domain></serverinfo>"
        );
        let item = format!("<publish node='serverinfo'><item id='current'>{info}</item></publish>");
        assert!(is_granted(&component.pubsub(OWNER, "set", &item).await));
    }
    let items = component.pubsub(READER, "get", "<items node='serverinfo'/>").await;
    let items = items.get_child("pubsub", PUBSUB).unwrap().get_child("items", PUBSUB).unwrap();
    assert_eq!(items.children().count(), 1);
    let info = items.children().next().unwrap();
    assert_eq!(info.attr("id"), Some("current"));
    let info = info.get_child("serverinfo", "urn:xmpp:serverinfo:0").unwrap();
    assert!(shown(info).contains("montague.net"), "{}", shown(info));
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='serverinfo'/>";
    let info = component.ask(READER, "get", query).await;
    assert!(shown(&info).contains("<identity category='pubsub' type='leaf'/>"), "{}", shown(&info));
}
