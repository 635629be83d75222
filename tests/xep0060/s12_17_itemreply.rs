//! The publisher that items show (§12.17, §7.1.2.3): `pubsub#itemreply`.

use super::{
    s04_1_affiliations::{NURSE, publish},
    s16_4_node_config::{NODE, OWNER, READER, component_with_subscriber, is_granted},
};
use crate::support::component::{ADMIN, PUBSUB, TestComponent, error, event, form, shown};

/// §12.17, §7.1.2.3: every form of retrieval shows the same publisher as the event, and nothing
/// else reveals publishers.
#[tokio::test]
async fn s12_17_itemreply_selects_the_publisher_of_items() {
    for (value, jid) in
        [("owner", Some("owner@localhost")), ("publisher", Some("bot@localhost")), ("none", None)]
    {
        let mut component =
            component_with_subscriber(&[("itemreply", value), ("publish_model", "open")]).await;
        component.publish("bot@localhost/x", NODE, "1").await;
        component.subscribe("late@localhost/x", NODE).await;
        let mut shown_items = Vec::new();
        for message in component.messages().await {
            assert!(!message.children().any(|child| child.name() == "addresses"));
            shown_items.push(event(&message).children().next().unwrap().clone());
        }
        assert_eq!(shown_items.len(), 2, "an event, and a last item");
        for which in ["", " max_items='1'", "><item id='1'/></items"] {
            let items = match which.starts_with('>') {
                true => format!("<items node='{NODE}'{which}>"),
                false => format!("<items node='{NODE}'{which}/>"),
            };
            for reader in [READER, OWNER] {
                let answer = component.pubsub(reader, "get", &items).await;
                let items = answer.get_child("pubsub", PUBSUB).unwrap();
                let items = items.get_child("items", PUBSUB).unwrap();
                shown_items.push(items.children().next().unwrap().clone());
            }
        }
        for item in shown_items {
            assert_eq!(item.attr("publisher"), jid, "{}", shown(&item));
        }
        let query = format!("<query xmlns='urn:xmpp:mam:2' node='{NODE}'/>");
        component.ask(READER, "set", &query).await;
        let result = shown(&component.message().await);
        let attribute =
            jid.map_or_else(|| "publisher=".to_owned(), |jid| format!("publisher='{jid}'"));
        assert_eq!(result.contains(&attribute), jid.is_some(), "{result}");
        assert!(!result.contains("bot@localhost") || value == "publisher", "{result}");
    }
}

/// The owner that items show is the creator of the node while the creator owns it; afterwards the
/// owner who changed the configuration last, regardless of later changes by an administrator. An
/// owner appointed by others is not shown.
#[tokio::test]
async fn s12_17_itemreply_owner_names_the_responsible_owner() {
    let mut component = component_with_subscriber(&[("itemreply", "owner")]).await;
    let set = |owner: &str, jid: &str, affiliation: &str| {
        let entry = format!("<affiliation jid='{jid}' affiliation='{affiliation}'/>");
        (owner.to_owned(), format!("<affiliations node='{NODE}'>{entry}</affiliations>"))
    };
    for (owner, content) in
        [set(OWNER, "another@localhost", "owner"), set(OWNER, "owner@localhost", "publisher")]
    {
        let answer = component.owner(&owner, "set", &content).await;
        assert_eq!(answer.attr("type"), Some("result"));
    }
    let another = "another@localhost";
    for (id, shown_publisher, next) in [
        ("1", None, ADMIN),
        ("2", None, another),
        ("3", Some(another), ADMIN),
        ("4", Some(another), ADMIN),
    ] {
        component.publish(OWNER, NODE, id).await;
        let last = component.events_for(READER).await.pop().unwrap();
        let item = last.children().next().unwrap().clone();
        assert_eq!((item.attr("id"), item.attr("publisher")), (Some(id), shown_publisher));
        let items = format!("<items node='{NODE}'><item id='{id}'/></items>");
        let retrieved = shown(&component.pubsub(READER, "get", &items).await);
        let has_publisher = retrieved.contains("publisher='another@localhost'");
        assert_eq!(has_publisher, shown_publisher.is_some(), "{retrieved}");
        assert!(has_publisher || !retrieved.contains("publisher="), "{retrieved}");
        assert!(is_granted(&component.configure(next, NODE, &[("title", id)]).await));
    }
    // A node created by its first item has its owner at once.
    component.subscribe(READER, NODE).await;
    let options = form(&[("itemreply", "owner")]).replace("node_config", "publish-options");
    let publish = format!(
        "<publish node='auto'><item id='1'><x xmlns='urn:x'/></item></publish><publish-options>\
         {options}</publish-options>"
    );
    component.granted("bot@localhost/x", &publish).await;
    let answer = component.pubsub(READER, "get", "<items node='auto'/>").await;
    assert!(shown(&answer).contains("publisher='bot@localhost'"), "{}", shown(&answer));
}

/// §12.17: with `itemreply=none`, the default, the publisher is not revealed.
#[tokio::test]
async fn s12_17_itemreply_none_discloses_no_publisher() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("publish_model", "open"), ("notify_retract", "1")]).await;
    component.subscribe(NURSE, "n").await;
    let (reader, publisher) = (NURSE, "whistleblower@localhost");
    component.granted(&format!("{publisher}/x"), &publish("1", "secret")).await;
    component.subscribe("late@localhost/x", "n").await;
    let mut seen: Vec<_> = component.messages().await.iter().map(shown).collect();
    assert_eq!(seen.len(), 2);
    for (kind, content) in [
        ("get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'/></pubsub>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#items' node='n'/>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>"),
        ("set", "<query xmlns='urn:xmpp:mam:2' node='n'/>"),
        ("get", "<metadata xmlns='urn:xmpp:mam:2' node='n'/>"),
    ] {
        let answer = component.ask(reader, kind, content).await;
        assert_ne!(answer.attr("type"), Some("error"), "{}", shown(&answer));
        seen.push(shown(&answer));
    }
    seen.extend(component.take_messages().iter().map(shown));
    assert_eq!(seen.len(), 2 + 5 + 1);
    for stanza in seen {
        assert!(!stanza.contains(publisher) && !stanza.contains("publisher='"), "{stanza}");
    }
    // The filter must not reveal publishers: the answer is the same for every publisher.
    for with in [publisher, "nobody@localhost"] {
        let filter = format!(
            "<query xmlns='urn:xmpp:mam:2' node='n'><x xmlns='jabber:x:data' type='submit'><field \
             var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='with'><value>{with}\
             </value></field></x></query>"
        );
        let refused = component.ask(reader, "set", &filter).await;
        assert_eq!(error(&refused), "auth forbidden");
        assert!(shown(&refused).contains("does not show the publishers"), "{}", shown(&refused));
    }
}
