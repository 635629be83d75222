//! Every field of the node configuration, each value with its observable effect.

use minidom::Element;

use crate::support::component::{ADMIN, EVENT, PUBSUB, TestComponent, error, event, form, shown};

pub const OWNER: &str = "owner@localhost/desk";
pub const READER: &str = "reader@localhost/phone";
pub const NODE: &str = "n";

/// Starts a component with a node of this configuration, and a subscriber.
pub async fn component_with_subscriber(fields: &[(&str, &str)]) -> TestComponent {
    let mut component = TestComponent::start().await;
    component.create(OWNER, NODE, fields).await;
    component.subscribe(READER, NODE).await;
    component
}

pub fn is_granted(answer: &Element) -> bool {
    answer.attr("type") == Some("result")
}

pub async fn title_of(component: &mut TestComponent) -> Option<String> {
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    let info = component.ask(READER, "get", query).await;
    let query = info.children().next().unwrap();
    query.children().next().unwrap().attr("name").map(str::to_owned)
}

pub async fn meta_data(component: &mut TestComponent, field: &str) -> String {
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    let info = component.ask(READER, "get", query).await;
    let form = info.children().next().unwrap().get_child("x", "jabber:x:data").unwrap();
    let field = form.children().find(|child| child.attr("var") == Some(field)).unwrap();
    field.children().map(Element::text).collect()
}

/// Returns the values of a field of a form.
pub fn values(form: &Element, var: &str) -> Option<Vec<String>> {
    let field = form.children().find(|field| field.attr("var") == Some(var))?;
    let values = field.children().filter(|child| child.name() == "value");
    Some(values.map(Element::text).collect())
}

/// Returns the form in a reply with a node's configuration, or with options.
pub fn form_in(reply: &Element) -> &Element {
    let request = reply.children().next().unwrap().children().next().unwrap();
    request.children().next().unwrap()
}

#[tokio::test]
async fn s16_4_4_title_is_the_name_in_disco() {
    assert_eq!(
        title_of(&mut component_with_subscriber(&[("title", "T")]).await).await.as_deref(),
        Some("T")
    );
    assert_eq!(title_of(&mut component_with_subscriber(&[]).await).await, None);
}

#[tokio::test]
async fn s16_4_4_description_is_in_the_meta_data() {
    let mut component = component_with_subscriber(&[("description", "D")]).await;
    assert_eq!(meta_data(&mut component, "pubsub#description").await, "D");
}

#[tokio::test]
async fn s16_4_4_language_and_contact_are_in_the_meta_data() {
    let mut component = component_with_subscriber(&[("language", "da")]).await;
    assert_eq!(meta_data(&mut component, "pubsub#language").await, "da");
    let shown = component.owner(OWNER, "get", &format!("<configure node='{NODE}'/>")).await;
    let option = "<option label='da'><value>da</value></option>";
    assert!(crate::support::component::shown(&shown).contains(option), "the form keeps it");
    assert_eq!(meta_data(&mut component, "pubsub#contact").await, "");
    let contacts = |values: &[&str]| {
        let values: String = values.iter().map(|jid| format!("<value>{jid}</value>")).collect();
        let field = format!("<field var='pubsub#contact'>{values}</field>");
        format!(
            "<configure node='{NODE}'>{}</configure>",
            form(&[]).replace("</x>", &(field + "</x>"))
        )
    };
    let two = contacts(&["bard@localhost", "hamlet@localhost"]);
    assert!(is_granted(&component.owner(OWNER, "set", &two).await));
    let shown = meta_data(&mut component, "pubsub#contact").await;
    assert_eq!(shown, "bard@localhosthamlet@localhost");
    // A form without the field keeps the contacts; one with an empty field removes them.
    component.configure(OWNER, NODE, &[("title", "T")]).await;
    assert_eq!(meta_data(&mut component, "pubsub#contact").await, shown);
    // XEP-0004 §3.3: "duplicate JIDs MUST be ignored".
    let twice = contacts(&["bard@localhost", "hamlet@localhost", "bard@LOCALHOST"]);
    assert!(is_granted(&component.owner(OWNER, "set", &twice).await));
    assert_eq!(meta_data(&mut component, "pubsub#contact").await, shown);
    let many: Vec<_> = (0..11).map(|number| format!("a{number}@b")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for bad in [contacts(&["@"]), contacts(&many)] {
        let refused = component.owner(OWNER, "set", &bad).await;
        assert_eq!(error(&refused), "modify not-acceptable");
        assert_eq!(meta_data(&mut component, "pubsub#contact").await, shown);
    }
    assert!(is_granted(&component.owner(OWNER, "set", &contacts(&[])).await));
    assert_eq!(meta_data(&mut component, "pubsub#contact").await, "");
}

/// §6.1.3.10, §12.12: subscribers keep their subscription, owners and publishers may subscribe, and
/// an owner may subscribe others.
#[tokio::test]
async fn s16_4_4_subscribe_false_refuses_new_subscribers() {
    let mut component = component_with_subscriber(&[]).await;
    component.configure(OWNER, NODE, &[("subscribe", "0")]).await;
    let request = |jid: &str| format!("<subscribe node='{NODE}' jid='{jid}'/>");
    for affiliation in ["publisher", "member", "publish-only"] {
        let jid = format!("{affiliation}@localhost");
        let entry = format!("<affiliation jid='{jid}' affiliation='{affiliation}'/>");
        let list = format!("<affiliations node='{NODE}'>{entry}</affiliations>");
        assert!(is_granted(&component.owner(OWNER, "set", &list).await));
    }
    for (jid, expected) in [
        (OWNER, None),
        ("publisher@localhost", None),
        (ADMIN, None),
        (READER, None),
        ("member@localhost", Some("cancel feature-not-implemented unsupported subscribe")),
        ("stranger@localhost", Some("cancel feature-not-implemented unsupported subscribe")),
        ("publish-only@localhost", Some("auth forbidden")),
    ] {
        let answer = component.pubsub(jid, "set", &request(jid)).await;
        match expected {
            None => assert!(is_granted(&answer), "{jid}"),
            Some(expected) => assert_eq!(error(&answer), expected, "{jid}"),
        }
    }
    let entry = "<subscription jid='late@localhost' subscription='subscribed'/>";
    let list = format!("<subscriptions node='{NODE}'>{entry}</subscriptions>");
    assert!(is_granted(&component.owner(OWNER, "set", &list).await));
    component.messages().await;
    component.publish(OWNER, NODE, "1").await;
    assert_eq!(component.messages().await.len(), 5);
    component.configure(OWNER, NODE, &[("subscribe", "1")]).await;
    assert!(is_granted(&component.pubsub("x@localhost", "set", &request("x@localhost")).await));
}

/// The service does not execute the stylesheets.
#[tokio::test]
async fn s16_4_4_body_xslt_and_dataform_xslt_are_only_stored() {
    let mut component =
        component_with_subscriber(&[("body_xslt", "http://b"), ("dataform_xslt", "http://d")])
            .await;
    let form = component.owner(OWNER, "get", &format!("<configure node='{NODE}'/>")).await;
    let text = shown(&form);
    assert!(text.contains("http://b") && text.contains("http://d"), "{text}");
    component.publish(OWNER, NODE, "1").await;
    assert!(!shown(&component.message().await).contains("<body"));
}

/// §16.4.4: the field describes the data.
#[tokio::test]
async fn s16_4_4_type_is_in_the_meta_data_and_restricts_no_payload() {
    let mut component = component_with_subscriber(&[("type", "urn:x")]).await;
    assert_eq!(meta_data(&mut component, "pubsub#type").await, "urn:x");
    assert!(is_granted(&component.publish(OWNER, NODE, "1").await));
    let other = "<publish node='n'><item><y xmlns='urn:y'/></item></publish>";
    assert!(is_granted(&component.pubsub(OWNER, "set", other).await));
}

#[tokio::test]
async fn s16_4_4_access_model_open_admits_all_entities() {
    let mut component = component_with_subscriber(&[("access_model", "open")]).await;
    component.subscribe("stranger@far.example/x", NODE).await;
    assert!(component.items("stranger@far.example/x", NODE).await.is_empty());
}

#[tokio::test]
async fn s16_4_4_access_model_whitelist_admits_listed_entities() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, NODE, &[("access_model", "whitelist")]).await;
    let subscribe = format!("<subscribe node='n' jid='{READER}'/>");
    let refused = component.pubsub(READER, "set", &subscribe).await;
    assert_eq!(error(&refused), "cancel not-allowed closed-node");
    for affiliation in ["member", "publisher", "owner"] {
        let content = format!(
            "<affiliations node='n'><affiliation jid='reader@localhost' \
             affiliation='{affiliation}'/></affiliations>"
        );
        assert!(is_granted(&component.owner(OWNER, "set", &content).await));
        component.subscribe(READER, NODE).await;
    }
}

#[tokio::test]
async fn s16_4_4_new_whitelist_ends_subscriptions_of_unlisted_entities() {
    let mut component = component_with_subscriber(&[]).await;
    component.publish(OWNER, NODE, "1").await;
    component.configure(OWNER, NODE, &[("access_model", "whitelist")]).await;
    component.publish(OWNER, NODE, "2").await;
    let kinds: Vec<_> =
        component.events_for(READER).await.iter().map(|e| e.name().to_owned()).collect();
    assert_eq!(kinds, ["items", "subscription"]);
    component.configure(OWNER, NODE, &[("access_model", "open")]).await;
    component.publish(OWNER, NODE, "3").await;
    assert_eq!(component.events_for(READER).await.len(), 0);
}

#[tokio::test]
async fn s16_4_4_publish_model_publishers_refuses_subscribers() {
    let mut component = component_with_subscriber(&[("publish_model", "publishers")]).await;
    assert_eq!(error(&component.publish(READER, NODE, "1").await), "auth forbidden");
}

#[tokio::test]
async fn s16_4_4_publish_model_subscribers_accepts_items_of_subscribers() {
    let mut component = component_with_subscriber(&[("publish_model", "subscribers")]).await;
    assert!(is_granted(&component.publish(READER, NODE, "1").await));
    assert!(is_granted(&component.publish("reader@localhost/other", NODE, "2").await));
    assert!(is_granted(&component.publish(OWNER, NODE, "3").await));
    let refused = component.publish("stranger@far.example/x", NODE, "4").await;
    assert_eq!(error(&refused), "auth forbidden");
}

#[tokio::test]
async fn s16_4_4_publish_model_open_accepts_items_of_all_entities() {
    let mut component = component_with_subscriber(&[("publish_model", "open")]).await;
    assert!(is_granted(&component.publish("stranger@far.example/x", NODE, "1").await));
}

#[tokio::test]
async fn s16_4_4_persist_items_stores_items() {
    let mut component = component_with_subscriber(&[("persist_items", "1")]).await;
    component.publish(OWNER, NODE, "1").await;
    assert_eq!(component.items(READER, NODE).await, ["1"]);
    component.configure(OWNER, NODE, &[("persist_items", "0")]).await;
    component.publish(OWNER, NODE, "2").await;
    let refused = component.pubsub(READER, "get", "<items node='n'/>").await;
    assert_eq!(error(&refused), "cancel feature-not-implemented unsupported persistent-items");
    component.configure(OWNER, NODE, &[("persist_items", "1")]).await;
    assert!(component.items(READER, NODE).await.is_empty());
    assert_eq!(component.events_for(READER).await.len(), 2);
}

#[tokio::test]
async fn s16_4_4_max_items_keeps_the_newest() {
    let mut component = component_with_subscriber(&[("max_items", "2")]).await;
    for id in ["1", "2", "3"] {
        component.publish(OWNER, NODE, id).await;
    }
    assert_eq!(component.items(READER, NODE).await, ["2", "3"]);
    component.configure(OWNER, NODE, &[("max_items", "max")]).await;
    for id in ["4", "5", "6"] {
        component.publish(OWNER, NODE, id).await;
    }
    assert_eq!(component.items(READER, NODE).await, ["2", "3", "4", "5", "6"]);
    // Evicted items are not announced as retracted.
    let events = component.events_for(READER).await;
    assert!(events.iter().all(|event| !event.has_child("retract", EVENT)));
}

#[tokio::test]
async fn s16_4_4_max_payload_size_limits_payloads() {
    let payload = |bytes: usize| {
        let text = "x".repeat(bytes - "<x xmlns='urn:x'></x>".len());
        format!("<publish node='n'><item><x xmlns='urn:x'>{text}</x></item></publish>")
    };
    let mut component = component_with_subscriber(&[("max_payload_size", "100")]).await;
    assert!(is_granted(&component.pubsub(OWNER, "set", &payload(100)).await));
    let refused = component.pubsub(OWNER, "set", &payload(101)).await;
    assert_eq!(error(&refused), "modify not-acceptable payload-too-big");
}

#[tokio::test]
async fn s16_4_4_deliver_notifications_enables_events() {
    let mut component =
        component_with_subscriber(&[("deliver_notifications", "0"), ("notify_config", "1")]).await;
    component.publish(OWNER, NODE, "1").await;
    component.subscribe("late@localhost/x", NODE).await;
    component.configure(OWNER, NODE, &[("title", "T")]).await;
    component.granted(OWNER, "<retract node='n' notify='true'><item id='1'/></retract>").await;
    component.owner(OWNER, "set", "<purge node='n'/>").await;
    assert!(component.messages().await.is_empty());
    component.configure(OWNER, NODE, &[("deliver_notifications", "1")]).await;
    component.publish(OWNER, NODE, "2").await;
    assert_eq!(component.events_for(READER).await.len(), 2);
}

/// §8.4.2: "the service MUST also send notification of node deletion to all subscribers (which SHOULD include pending …)".
#[tokio::test]
async fn s8_4_2_deletion_is_delivered_without_deliver_notifications() {
    for (notify_delete, expected) in [("1", vec!["mem@localhost", "pend@localhost"]), ("0", vec![])]
    {
        let mut component = TestComponent::start().await;
        let fields = [
            ("deliver_notifications", "0"),
            ("access_model", "authorize"),
            ("notify_delete", notify_delete),
        ];
        component.create(OWNER, NODE, &fields).await;
        component.subscribe("pend@localhost", NODE).await;
        let entry = "<subscription jid='mem@localhost' subscription='subscribed'/>";
        let list = format!("<subscriptions node='{NODE}'>{entry}</subscriptions>");
        component.owner(OWNER, "set", &list).await;
        component.messages().await;
        component.owner(OWNER, "set", &format!("<delete node='{NODE}'/>")).await;
        let messages = component.messages().await;
        let mut recipients: Vec<_> =
            messages.iter().map(|message| message.attr("to").unwrap()).collect();
        recipients.sort_unstable();
        assert_eq!(recipients, expected);
        assert!(messages.iter().all(|message| event(message).name() == "delete"));
    }
}

#[tokio::test]
async fn s16_4_4_deliver_payloads_adds_payloads_to_events() {
    for (value, delivered) in [("1", true), ("0", false)] {
        let mut component = component_with_subscriber(&[("deliver_payloads", value)]).await;
        component.publish(OWNER, NODE, "1").await;
        let events = component.events_for(READER).await;
        let item = events[0].get_child("item", EVENT).unwrap();
        assert_eq!(item.children().next().is_some(), delivered);
        // Retrieval returns the whole item.
        let items = component.pubsub(READER, "get", "<items node='n'/>").await;
        let items = items.children().next().unwrap().get_child("items", PUBSUB).unwrap();
        assert!(items.children().next().unwrap().has_child("x", "urn:x"));
    }
}

#[tokio::test]
async fn s16_4_4_notify_config_enables_configuration_events() {
    for (value, events) in [("1", 1), ("0", 0)] {
        let mut component = component_with_subscriber(&[("notify_config", value)]).await;
        component.configure(OWNER, NODE, &[("title", "T")]).await;
        assert_eq!(component.events_for(READER).await.len(), events);
    }
}

#[tokio::test]
async fn s16_4_4_notify_delete_enables_deletion_events() {
    for (value, events) in [("1", 1), ("0", 0)] {
        let mut component = component_with_subscriber(&[("notify_delete", value)]).await;
        component.owner(OWNER, "set", "<delete node='n'/>").await;
        assert_eq!(component.events_for(READER).await.len(), events);
    }
}

#[tokio::test]
async fn s16_4_4_notify_retract_enables_retraction_events() {
    for (value, events) in [("1", 3), ("0", 1)] {
        let mut component = component_with_subscriber(&[("notify_retract", value)]).await;
        component.publish(OWNER, NODE, "1").await;
        component.granted(OWNER, "<retract node='n'><item id='1'/></retract>").await;
        component.owner(OWNER, "set", "<purge node='n'/>").await;
        assert_eq!(component.events_for(READER).await.len(), events);
    }
    // A request may ask for a notification all the same (§7.2.2.1).
    let mut component = component_with_subscriber(&[("notify_retract", "0")]).await;
    component.publish(OWNER, NODE, "1").await;
    component.granted(OWNER, "<retract node='n' notify='true'><item id='1'/></retract>").await;
    assert_eq!(component.events_for(READER).await.len(), 2);
}

#[tokio::test]
async fn s16_4_4_notification_type_is_the_message_type() {
    for (value, has_hint) in [("headline", true), ("normal", false)] {
        let mut component = component_with_subscriber(&[("notification_type", value)]).await;
        component.publish(OWNER, NODE, "1").await;
        let message = component.messages().await.remove(0);
        assert_eq!(message.attr("type"), Some(value));
        assert_eq!(message.has_child("no-store", "urn:xmpp:hints"), has_hint);
    }
}

#[tokio::test]
async fn s16_4_4_send_last_published_item_sends_new_subscribers_the_last_item() {
    for (value, events) in [("on_sub", 1), ("never", 0)] {
        let mut component = component_with_subscriber(&[("send_last_published_item", value)]).await;
        component.publish(OWNER, NODE, "1").await;
        component.publish(OWNER, NODE, "2").await;
        component.messages().await;
        component.subscribe("late@localhost/x", NODE).await;
        let events_received = component.messages().await;
        assert_eq!(events_received.len(), events);
        for message in events_received {
            assert_eq!(event(&message).children().next().unwrap().attr("id"), Some("2"));
            assert!(message.has_child("delay", "urn:xmpp:delay"));
        }
    }
}

/// §7.1.2.1, §7.1.3.4.
#[tokio::test]
async fn s16_4_4_publish_node_full_evicts_items_or_refuses() {
    let changes = |messages: &[Element]| {
        let one = |message: &Element| {
            let event = event(message);
            let ids = event
                .children()
                .map(|item| format!("{} {}", item.name(), item.attr("id").unwrap()));
            ids.collect::<Vec<_>>().join(", ")
        };
        messages.iter().map(one).collect::<Vec<_>>()
    };
    for (value, expected, kept) in [
        ("discard-oldest", vec!["item 3"], ["2", "3"]),
        ("retract-oldest", vec!["item 3", "retract 1"], ["2", "3"]),
        ("reject", vec![], ["1", "2"]),
    ] {
        let mut component =
            component_with_subscriber(&[("publish_node_full", value), ("max_items", "2")]).await;
        for id in ["1", "2"] {
            component.publish(OWNER, NODE, id).await;
        }
        component.messages().await;
        let item = |id: &str| {
            format!("<publish node='{NODE}'><item id='{id}'><x xmlns='urn:x'/></item></publish>")
        };
        let answer = component.pubsub(OWNER, "set", &item("3")).await;
        match value {
            "reject" => assert_eq!(error(&answer), "cancel conflict node-full"),
            _ => assert!(is_granted(&answer)),
        }
        assert_eq!(changes(&component.messages().await), expected, "{value}");
        assert_eq!(component.items(READER, NODE).await, kept, "{value}");
        // Overwriting an item needs no space.
        assert!(is_granted(&component.pubsub(OWNER, "set", &item("2")).await));
        assert_eq!(changes(&component.messages().await), ["item 2"], "{value}");
    }
}
