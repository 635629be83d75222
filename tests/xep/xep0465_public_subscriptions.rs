//! XEP-0465, Pubsub Public Subscriptions.

use std::sync::Arc;

use gjallar::store::SledStore;
use minidom::Element;

use crate::{
    support::component::{PUBSUB, TestComponent, error, shown},
    xep0060::s06_3_subscription_options::{OPTIONS, OWNER},
};

/// XEP-0465 §4.1 to §5.
#[tokio::test]
async fn public_subscriptions_are_shown_to_entities_that_see_the_node() {
    const PUBLIC: &str = "<public xmlns='urn:xmpp:pps:0'/>";
    const AT: &str = "urn:xmpp:pps:subscribers:0/n";
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[("access_model", "open")]).await;
    let subscribe = async |component: &mut TestComponent, jid: &str, public: &str| {
        let content = format!("<subscribe node='n' jid='{jid}'>{public}</subscribe>");
        shown(&component.granted(jid, &content).await)
    };
    let read = async |component: &mut TestComponent, items: &str| {
        let answer = component.pubsub(OWNER, "get", &format!("<items node='{AT}'{items}")).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        let items = answer.get_child("pubsub", PUBSUB).unwrap().get_child("items", PUBSUB).unwrap();
        assert_eq!(items.attr("node"), Some(AT));
        let jid = |item: &Element| {
            let jid = item.get_child("subscriber", "urn:xmpp:pps:0").unwrap().attr("jid").unwrap();
            assert_eq!(item.attr("id"), Some(jid));
            jid.to_owned()
        };
        items.children().map(jid).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(read(&mut component, "/>").await, "");
    for (jid, public) in
        [("b@x/r", PUBLIC), ("a@x", PUBLIC), ("b@x", PUBLIC), ("c@x", ""), ("d@x", PUBLIC)]
    {
        let answer = subscribe(&mut component, jid, public).await;
        assert!(!answer.contains("jabber:x:data"), "{answer}");
    }
    assert_eq!(read(&mut component, "/>").await, "a@x b@x d@x");
    assert_eq!(read(&mut component, " max_items='2'/>").await, "b@x d@x");
    assert_eq!(read(&mut component, "><item id='c@x'/><item id='d@x'/></items>").await, "d@x");
    let page = "/><set xmlns='http://jabber.org/protocol/rsm'><max>1</max><after>a@x</after></set>";
    assert_eq!(read(&mut component, page).await, "b@x");
    // Setting options keeps a subscription public; subscribing again without the element, or
    // unsubscribing, ends that.
    let body = "<field var='pubsub#include_body'><value>1</value></field>";
    let form_type = format!("<field var='FORM_TYPE'><value>{OPTIONS}</value></field>");
    let form = format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{body}</x>");
    component.granted("a@x", &format!("<options node='n' jid='a@x'>{form}</options>")).await;
    subscribe(&mut component, "d@x", "").await;
    component.granted("b@x", "<unsubscribe node='n' jid='b@x'/>").await;
    assert_eq!(read(&mut component, "/>").await, "a@x b@x");
    component.granted("b@x/r", "<unsubscribe node='n' jid='b@x/r'/>").await;
    subscribe(&mut component, "c@x", PUBLIC).await;
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    assert_eq!(read(&mut component, "/>").await, "a@x c@x");
    // Clients cannot change these nodes, or see the subscribers of a node that they cannot see.
    for content in [
        format!("<create node='{AT}'/>"),
        "<create node='urn:xmpp:pps:subscriptions:0'/>".to_owned(),
        format!("<publish node='{AT}'><item/></publish>"),
        format!("<retract node='{AT}'><item id='a@x'/></retract>"),
        format!("<subscribe node='{AT}' jid='owner@localhost'/>"),
    ] {
        let refused = component.pubsub(OWNER, "set", &content).await;
        assert_eq!(error(&refused), "auth forbidden", "{content}");
    }
    for content in [format!("<purge node='{AT}'/>"), format!("<delete node='{AT}'/>")] {
        let refused = component.owner(OWNER, "set", &content).await;
        assert_eq!(error(&refused), "auth forbidden", "{content}");
    }
    component.configure(OWNER, "n", &[("access_model", "whitelist")]).await;
    for (node, refused) in [("n", "auth forbidden"), ("x", "cancel item-not-found")] {
        let content = format!("<items node='urn:xmpp:pps:subscribers:0/{node}'/>");
        let answer = component.pubsub("stranger@localhost", "get", &content).await;
        assert_eq!(error(&answer), refused);
    }
}
