//! Every field of a node's configuration, each value with the difference that it makes outside.

use std::sync::Arc;

use gjallar::store::SledStore;
use minidom::Element;

use crate::support::component::{
    ADMIN, EVENT, PUBSUB, STREAM, TestComponent, error, event, form, shown,
};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";
const NODE: &str = "n";

/// A node with this configuration, and a subscriber.
async fn with(fields: &[(&str, &str)]) -> TestComponent {
    let mut component = TestComponent::start().await;
    component.create(OWNER, NODE, fields).await;
    component.subscribe(READER, NODE).await;
    component
}

fn is_granted(answer: &Element) -> bool {
    answer.attr("type") == Some("result")
}

async fn title_of(component: &mut TestComponent) -> Option<String> {
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    let info = component.ask(READER, "get", query).await;
    let query = info.children().next().unwrap();
    query.children().next().unwrap().attr("name").map(str::to_owned)
}

async fn meta_data(component: &mut TestComponent, field: &str) -> String {
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    let info = component.ask(READER, "get", query).await;
    let form = info.children().next().unwrap().get_child("x", "jabber:x:data").unwrap();
    let field = form.children().find(|child| child.attr("var") == Some(field)).unwrap();
    field.children().map(Element::text).collect()
}

/// The values of a field of a form.
fn values(form: &Element, var: &str) -> Option<Vec<String>> {
    let field = form.children().find(|field| field.attr("var") == Some(var))?;
    let values = field.children().filter(|child| child.name() == "value");
    Some(values.map(Element::text).collect())
}

/// The form in the reply to a request of a node's configuration, or of options.
fn form_in(reply: &Element) -> &Element {
    let request = reply.children().next().unwrap().children().next().unwrap();
    request.children().next().unwrap()
}

#[tokio::test]
async fn title_names_the_node() {
    assert_eq!(title_of(&mut with(&[("title", "T")]).await).await.as_deref(), Some("T"));
    assert_eq!(title_of(&mut with(&[]).await).await, None);
}

#[tokio::test]
async fn description_is_shown() {
    let mut component = with(&[("description", "D")]).await;
    assert_eq!(meta_data(&mut component, "pubsub#description").await, "D");
}

#[tokio::test]
async fn language_and_contact_are_shown() {
    let mut component = with(&[("language", "da")]).await;
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
    // A form without the field leaves them, one with nothing in it does not.
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

/// §6.1.3.10, §12.12: subscribers stay, owners and publishers may subscribe, and an owner may subscribe others.
#[tokio::test]
async fn subscribe_lets_others_come_or_not() {
    let mut component = with(&[]).await;
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

/// The service does not run them.
#[tokio::test]
async fn body_xslt_and_dataform_xslt_are_kept_for_others() {
    let mut component = with(&[("body_xslt", "http://b"), ("dataform_xslt", "http://d")]).await;
    let form = component.owner(OWNER, "get", &format!("<configure node='{NODE}'/>")).await;
    let text = shown(&form);
    assert!(text.contains("http://b") && text.contains("http://d"), "{text}");
    component.publish(OWNER, NODE, "1").await;
    assert!(!shown(&component.message().await).contains("<body"));
}

const OTHER_OWNER: &str = "other@localhost/desk";

/// A node with two owners.
async fn with_two_owners() -> TestComponent {
    let mut component = with(&[]).await;
    add_owner(&mut component).await;
    component
}

async fn add_owner(component: &mut TestComponent) {
    let entry = "<affiliation jid='other@localhost' affiliation='owner'/>";
    let list = format!("<affiliations node='{NODE}'>{entry}</affiliations>");
    assert!(is_granted(&component.owner(OWNER, "set", &list).await));
    component.messages().await;
}

/// The hidden field of a form that somebody gets.
async fn revision(component: &mut TestComponent, by: &str, node: &str) -> String {
    let get = format!("<configure node='{node}'/>");
    let answer = component.owner(by, "get", &get).await;
    let configure = answer.children().next().unwrap().children().next().unwrap();
    let form = configure.children().next().unwrap();
    let is_revision = |field: &&Element| field.attr("var") == Some("x-gjallar#revision");
    let revision = form.children().find(is_revision).unwrap();
    assert_eq!(revision.attr("type"), Some("hidden"));
    revision.children().map(Element::text).collect()
}

/// A form with a title and the hidden field is submitted.
async fn submit(component: &mut TestComponent, by: &str, title: &str, revision: &str) -> Element {
    let field = format!("<field var='x-gjallar#revision'><value>{revision}</value></field></x>");
    let form = form(&[("title", title)]).replace("</x>", &field);
    component.owner(by, "set", &format!("<configure node='{NODE}'>{form}</configure>")).await
}

/// Two owners fill in the same form: the second one gets an error, and changes nothing.
#[tokio::test]
async fn two_owners_do_not_overwrite_each_other_unknowingly() {
    let mut component = with_two_owners().await;
    let seen = revision(&mut component, OWNER, NODE).await;
    assert_eq!(revision(&mut component, OTHER_OWNER, NODE).await, seen);
    assert!(is_granted(&submit(&mut component, OWNER, "A", &seen).await));
    let refused = submit(&mut component, OTHER_OWNER, "B", &seen).await;
    assert_eq!(error(&refused), "cancel conflict");
    assert_eq!(title_of(&mut component).await.as_deref(), Some("A"));
    // What would change nothing overwrites nothing.
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "A", &seen).await));
    let fresh = revision(&mut component, OTHER_OWNER, NODE).await;
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "B", &fresh).await));
    // The first owner's form is from before that, also where it was submitted before.
    assert_eq!(error(&submit(&mut component, OWNER, "C", &seen).await), "cancel conflict");
    let fresh = revision(&mut component, OWNER, NODE).await;
    assert!(is_granted(&submit(&mut component, OWNER, "C", &fresh).await));
    assert_eq!(error(&submit(&mut component, OWNER, "D", &seen).await), "cancel conflict");
    // A form without the field overwrites what is there.
    component.configure(OTHER_OWNER, NODE, &[("title", "E")]).await;
    assert_eq!(title_of(&mut component).await.as_deref(), Some("E"));
}

/// §8.2.5.1: programs keep a form and submit it again, and make a form for one node of that for another.
#[tokio::test]
async fn a_form_can_be_submitted_again_and_for_another_node() {
    let mut component = with_two_owners().await;
    component.create(OWNER, "template", &[("title", "T")]).await;
    let seen = revision(&mut component, OWNER, NODE).await;
    for title in ["first", "second", "third"] {
        assert!(is_granted(&submit(&mut component, OWNER, title, &seen).await), "{title}");
        assert_eq!(title_of(&mut component).await.as_deref(), Some(title));
    }
    let template = revision(&mut component, OWNER, "template").await;
    assert_ne!(template, seen);
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "copy", &template).await));
    // A hidden field that lost its value says nothing.
    assert!(is_granted(&submit(&mut component, OWNER, "emptied", "").await));
    let refused = submit(&mut component, OWNER, "X", "no number").await;
    assert_eq!(error(&refused), "modify not-acceptable");
    // The form of the default configuration is no node's.
    let default = component.owner(OWNER, "get", "<default/>").await;
    assert!(!shown(&default).contains("x-gjallar#revision"), "{}", shown(&default));
    // Nor is that of a node that was deleted meanwhile.
    let seen = revision(&mut component, OTHER_OWNER, NODE).await;
    component.owner(OWNER, "set", "<delete node='n'/>").await;
    component.create(OWNER, NODE, &[]).await;
    add_owner(&mut component).await;
    assert!(is_granted(&submit(&mut component, OWNER, "anew", "").await));
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "kept", &seen).await));
}

/// Only changes of the configuration by others are a conflict: neither those of the requester, who may be an administrator,
/// nor changes of affiliations.
#[tokio::test]
async fn an_administrator_may_submit_a_form_again() {
    let mut component = with(&[]).await;
    for requester in [ADMIN, OWNER] {
        let seen = revision(&mut component, requester, NODE).await;
        for title in ["first", "second"] {
            assert!(is_granted(&submit(&mut component, requester, title, &seen).await), "{title}");
            let member = format!("<affiliation jid='{title}@localhost' affiliation='member'/>");
            let list = format!("<affiliations node='{NODE}'>{member}</affiliations>");
            let set = component.owner(OWNER, "set", &list).await;
            assert_eq!(set.attr("type"), Some("result"), "{}", shown(&set));
        }
    }
}

/// XEP-0004 §3.6: a field without a value unsets a text or a list, so a form of the defaults or of another node leaves
/// nothing of what was there; a flag, a number or a choice keeps its value.
#[tokio::test]
async fn a_field_without_a_value_unsets_it() {
    let mut component = with(&[("title", "T"), ("type", "urn:x"), ("max_items", "7")]).await;
    let empty = |vars: &[&str], form_type: &str| {
        let fields: String = vars.iter().map(|var| format!("<field var='{var}'/>")).collect();
        let form_type = format!("http://jabber.org/protocol/pubsub#{form_type}");
        format!(
            "<x xmlns='jabber:x:data' type='submit'>\
             <field var='FORM_TYPE'><value>{form_type}</value></field>{fields}</x>"
        )
    };
    let fields = ["title", "type", "max_items", "access_model", "persist_items", "contact"];
    let fields = fields.map(|name| format!("pubsub#{name}"));
    let configuration = empty(&fields.each_ref().map(String::as_str), "node_config");
    let configure = format!("<configure node='n'>{configuration}</configure>");
    let answer = component.owner(OWNER, "set", &configure).await;
    assert!(is_granted(&answer), "{}", shown(&answer));
    let shown_form = component.owner(OWNER, "get", "<configure node='n'/>").await;
    let shown_form = form_in(&shown_form);
    assert_eq!(values(shown_form, "pubsub#title"), Some(vec![]));
    assert_eq!(values(shown_form, "pubsub#type"), Some(vec![]));
    assert_eq!(values(shown_form, "pubsub#max_items"), Some(vec!["7".to_owned()]));

    let subscribe = format!("<subscribe node='n' jid='{READER}'/>");
    assert!(is_granted(&component.pubsub(READER, "set", &subscribe).await));
    let set = |form: &str| format!("<options node='n' jid='{READER}'>{form}</options>");
    let full = empty(&[], "subscribe_options").replace(
        "</x>",
        "<field var='x-gjallar#keyword'><value>rogue</value></field>\
         <field var='pubsub#expire'><value>2099-01-01T00:00:00Z</value></field>\
         <field var='pubsub#digest'><value>true</value></field></x>",
    );
    assert!(is_granted(&component.pubsub(READER, "set", &set(&full)).await));
    let unset = ["x-gjallar#keyword", "pubsub#expire", "pubsub#digest"];
    let unset = set(&empty(&unset, "subscribe_options"));
    assert!(is_granted(&component.pubsub(READER, "set", &unset).await));
    let options = component.pubsub(READER, "get", &set("")).await;
    let options = form_in(&options);
    assert_eq!(values(options, "x-gjallar#keyword"), Some(vec![]));
    assert_eq!(values(options, "pubsub#expire"), Some(vec![]));
    assert_eq!(values(options, "pubsub#digest"), Some(vec!["true".to_owned()]));
}

/// The revision is kept with the node.
#[tokio::test]
async fn a_conflict_of_configurations_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, NODE, &[]).await;
    add_owner(&mut component).await;
    let seen = revision(&mut component, OWNER, NODE).await;
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "A", &seen).await));
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    assert_eq!(error(&submit(&mut component, OWNER, "B", &seen).await), "cancel conflict");
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "B", &seen).await));
    component.finish().await;
}

/// §16.4.4: it says what the data means.
#[tokio::test]
async fn type_is_shown_and_limits_no_payload() {
    let mut component = with(&[("type", "urn:x")]).await;
    assert_eq!(meta_data(&mut component, "pubsub#type").await, "urn:x");
    assert!(is_granted(&component.publish(OWNER, NODE, "1").await));
    let other = "<publish node='n'><item><y xmlns='urn:y'/></item></publish>";
    assert!(is_granted(&component.pubsub(OWNER, "set", other).await));
}

#[tokio::test]
async fn access_model_open_lets_anyone_in() {
    let mut component = with(&[("access_model", "open")]).await;
    component.subscribe("stranger@far.example/x", NODE).await;
    assert!(component.items("stranger@far.example/x", NODE).await.is_empty());
}

#[tokio::test]
async fn access_model_whitelist_admits_listed_entities() {
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
async fn a_whitelist_ends_subscriptions_of_unlisted_entities() {
    let mut component = with(&[]).await;
    component.publish(OWNER, NODE, "1").await;
    component.configure(OWNER, NODE, &[("access_model", "whitelist")]).await;
    component.publish(OWNER, NODE, "2").await;
    let told: Vec<_> =
        component.events_for(READER).await.iter().map(|e| e.name().to_owned()).collect();
    assert_eq!(told, ["items", "subscription"]);
    component.configure(OWNER, NODE, &[("access_model", "open")]).await;
    component.publish(OWNER, NODE, "3").await;
    assert_eq!(component.events_for(READER).await.len(), 0);
}

#[tokio::test]
async fn publish_model_publishers_refuses_others() {
    let mut component = with(&[("publish_model", "publishers")]).await;
    assert_eq!(error(&component.publish(READER, NODE, "1").await), "auth forbidden");
}

#[tokio::test]
async fn publish_model_subscribers_takes_items_of_subscribers() {
    let mut component = with(&[("publish_model", "subscribers")]).await;
    assert!(is_granted(&component.publish(READER, NODE, "1").await));
    assert!(is_granted(&component.publish("reader@localhost/other", NODE, "2").await));
    assert!(is_granted(&component.publish(OWNER, NODE, "3").await));
    let refused = component.publish("stranger@far.example/x", NODE, "4").await;
    assert_eq!(error(&refused), "auth forbidden");
}

#[tokio::test]
async fn publish_model_open_takes_items_of_anyone() {
    let mut component = with(&[("publish_model", "open")]).await;
    assert!(is_granted(&component.publish("stranger@far.example/x", NODE, "1").await));
}

#[tokio::test]
async fn persist_items_keeps_items_or_not() {
    let mut component = with(&[("persist_items", "1")]).await;
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
async fn max_items_keeps_the_newest() {
    let mut component = with(&[("max_items", "2")]).await;
    for id in ["1", "2", "3"] {
        component.publish(OWNER, NODE, id).await;
    }
    assert_eq!(component.items(READER, NODE).await, ["2", "3"]);
    component.configure(OWNER, NODE, &[("max_items", "max")]).await;
    for id in ["4", "5", "6"] {
        component.publish(OWNER, NODE, id).await;
    }
    assert_eq!(component.items(READER, NODE).await, ["2", "3", "4", "5", "6"]);
    // What was pushed out is not announced as retracted.
    let events = component.events_for(READER).await;
    assert!(events.iter().all(|event| !event.has_child("retract", EVENT)));
}

#[tokio::test]
async fn max_payload_size_is_the_limit() {
    let payload = |bytes: usize| {
        let text = "x".repeat(bytes - "<x xmlns='urn:x'></x>".len());
        format!("<publish node='n'><item><x xmlns='urn:x'>{text}</x></item></publish>")
    };
    let mut component = with(&[("max_payload_size", "100")]).await;
    assert!(is_granted(&component.pubsub(OWNER, "set", &payload(100)).await));
    let refused = component.pubsub(OWNER, "set", &payload(101)).await;
    assert_eq!(error(&refused), "modify not-acceptable payload-too-big");
}

#[tokio::test]
async fn deliver_notifications_sends_events_or_none() {
    let mut component = with(&[("deliver_notifications", "0"), ("notify_config", "1")]).await;
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
async fn deletion_is_delivered_without_deliver_notifications() {
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
        let mut told: Vec<_> = messages.iter().map(|message| message.attr("to").unwrap()).collect();
        told.sort_unstable();
        assert_eq!(told, expected);
        assert!(messages.iter().all(|message| event(message).name() == "delete"));
    }
}

#[tokio::test]
async fn deliver_payloads_puts_them_into_events_or_not() {
    for (value, delivered) in [("1", true), ("0", false)] {
        let mut component = with(&[("deliver_payloads", value)]).await;
        component.publish(OWNER, NODE, "1").await;
        let events = component.events_for(READER).await;
        let item = events[0].get_child("item", EVENT).unwrap();
        assert_eq!(item.children().next().is_some(), delivered);
        // Who retrieves an item gets all of it.
        let items = component.pubsub(READER, "get", "<items node='n'/>").await;
        let items = items.children().next().unwrap().get_child("items", PUBSUB).unwrap();
        assert!(items.children().next().unwrap().has_child("x", "urn:x"));
    }
}

#[tokio::test]
async fn notify_config_announces_a_configuration_or_not() {
    for (value, events) in [("1", 1), ("0", 0)] {
        let mut component = with(&[("notify_config", value)]).await;
        component.configure(OWNER, NODE, &[("title", "T")]).await;
        assert_eq!(component.events_for(READER).await.len(), events);
    }
}

#[tokio::test]
async fn notify_delete_announces_the_end_or_not() {
    for (value, events) in [("1", 1), ("0", 0)] {
        let mut component = with(&[("notify_delete", value)]).await;
        component.owner(OWNER, "set", "<delete node='n'/>").await;
        assert_eq!(component.events_for(READER).await.len(), events);
    }
}

#[tokio::test]
async fn notify_retract_announces_what_goes_or_not() {
    for (value, events) in [("1", 3), ("0", 1)] {
        let mut component = with(&[("notify_retract", value)]).await;
        component.publish(OWNER, NODE, "1").await;
        component.granted(OWNER, "<retract node='n'><item id='1'/></retract>").await;
        component.owner(OWNER, "set", "<purge node='n'/>").await;
        assert_eq!(component.events_for(READER).await.len(), events);
    }
    // A request may ask for it all the same (§7.2.2.1).
    let mut component = with(&[("notify_retract", "0")]).await;
    component.publish(OWNER, NODE, "1").await;
    component.granted(OWNER, "<retract node='n' notify='true'><item id='1'/></retract>").await;
    assert_eq!(component.events_for(READER).await.len(), 2);
}

#[tokio::test]
async fn notification_type_is_that_of_the_messages() {
    for (value, has_hint) in [("headline", true), ("normal", false)] {
        let mut component = with(&[("notification_type", value)]).await;
        component.publish(OWNER, NODE, "1").await;
        let message = component.messages().await.remove(0);
        assert_eq!(message.attr("type"), Some(value));
        assert_eq!(message.has_child("no-store", "urn:xmpp:hints"), has_hint);
    }
}

#[tokio::test]
async fn send_last_published_item_greets_a_new_subscriber_or_not() {
    for (value, events) in [("on_sub", 1), ("never", 0)] {
        let mut component = with(&[("send_last_published_item", value)]).await;
        component.publish(OWNER, NODE, "1").await;
        component.publish(OWNER, NODE, "2").await;
        component.messages().await;
        component.subscribe("late@localhost/x", NODE).await;
        let told = component.messages().await;
        assert_eq!(told.len(), events);
        for message in told {
            assert_eq!(event(&message).children().next().unwrap().attr("id"), Some("2"));
            assert!(message.has_child("delay", "urn:xmpp:delay"));
        }
    }
}

/// §12.17, §7.1.2.3: what an event shows every form of retrieval shows too, and nothing else is said of publishers.
#[tokio::test]
async fn itemreply_says_which_publisher_items_show() {
    for (value, jid) in
        [("owner", Some("owner@localhost")), ("publisher", Some("bot@localhost")), ("none", None)]
    {
        let mut component = with(&[("itemreply", value), ("publish_model", "open")]).await;
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

/// The owner that items show is the creator of the node, as long as that owns it; then the owner who changed the
/// configuration last, whatever an administrator changed since. An owner appointed by others is not shown.
#[tokio::test]
async fn itemreply_owner_is_one_that_is_responsible_for_the_node() {
    let mut component = with(&[("itemreply", "owner")]).await;
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
    // A node that is created by its first item has its owner at once.
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

/// The text of a refusal.
fn text_of(refused: &Element) -> String {
    let error = refused.get_child("error", STREAM).unwrap();
    error.get_child("text", "urn:ietf:params:xml:ns:xmpp-stanzas").unwrap().text()
}

/// XEP-0004 §3.1: "the form-processing entity MUST ignore any fields that it does not understand". The first request is
/// what Wokkel's users send for each node of comments, tickets or forums.
#[tokio::test]
async fn unknown_fields_of_a_configuration_are_ignored() {
    let mut component = TestComponent::start().await;
    let unknown = "<field var='pubsub#send_item_subscribe'><value>1</value></field>\
                   <field var='x-example#frob'><value>a</value><value>b</value></field>\
                   <field var='pubsub#collection'/>\
                   <field var='{urn:xmpp:pubsub-caching:0}allowed-for-suggestions'><value>1</value></field>";
    let fields = |fields| form(fields).replace("</x>", &format!("{unknown}</x>"));
    let known =
        fields(&[("access_model", "open"), ("persist_items", "1"), ("publish_model", "open")]);
    let create = format!("<create node='{NODE}'/><configure>{known}</configure>");
    assert!(is_granted(&component.pubsub(OWNER, "set", &create).await));
    assert_eq!(meta_data(&mut component, "pubsub#publish_model").await, "open");
    let configure = |form| format!("<configure node='{NODE}'>{form}</configure>");
    let titled = configure(fields(&[("title", "T"), ("deliver", "1")]));
    assert!(is_granted(&component.owner(OWNER, "set", &titled).await));
    assert_eq!(title_of(&mut component).await.as_deref(), Some("T"));
}

#[tokio::test]
async fn wrong_values_of_known_fields_are_refused_by_name() {
    let mut component = with(&[("node_type", "leaf"), ("node_type", "leaf")]).await;
    for (field, value) in [
        ("tempsub", "perhaps"),
        ("item_expire", "0"),
        ("max_items", "-1"),
        ("max_items", "4294967296"),
        ("max_payload_size", "1 0"),
        ("node_type", "branch"),
        ("title", "one</value><value>two"),
    ] {
        let refused =
            component.configure(OWNER, NODE, &[("description", "D"), (field, value)]).await;
        assert_eq!(error(&refused), "modify not-acceptable", "{field}");
        assert!(text_of(&refused).contains(&format!("pubsub#{field}: ")), "{}", text_of(&refused));
    }
    assert_eq!(meta_data(&mut component, "pubsub#description").await, "");
}

/// The lexical space of XML Schema's types: white space around a value is no part of it, a plus sign and leading zeros are.
#[tokio::test]
async fn numbers_and_flags_are_read_as_xml_schema_has_them() {
    let mut component = with(&[]).await;
    for (value, number) in [(" 5 ", "5"), ("+6", "6"), ("007", "7"), ("&#13;&#10;\t8", "8")] {
        let fields = [("max_items", value), ("item_expire", value), ("persist_items", " true\n")];
        assert!(is_granted(&component.configure(OWNER, NODE, &fields).await), "{value:?}");
        assert_eq!(meta_data(&mut component, "pubsub#max_items").await, number);
        assert_eq!(meta_data(&mut component, "pubsub#item_expire").await, number);
    }
}

/// §8.1.3: the text names the type of the form that was sent, and the one that is expected.
#[tokio::test]
async fn a_form_of_another_type_is_refused_by_its_name() {
    let mut component = with(&[]).await;
    let other = "http://jabber.org/protocol/pubsub#publish-options";
    let form = form(&[]).replace("http://jabber.org/protocol/pubsub#node_config", other);
    let create = format!("<create node='new'/><configure>{form}</configure>");
    let refused = component.pubsub(OWNER, "set", &create).await;
    assert_eq!(error(&refused), "modify not-acceptable");
    let text = text_of(&refused);
    assert!(text.contains(other) && text.contains("pubsub#node_config"), "{text}");
}

/// §7.1.2.1, §7.1.3.4.
#[tokio::test]
async fn publish_node_full_makes_room_or_does_not() {
    let told = |messages: &[Element]| {
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
        let mut component = with(&[("publish_node_full", value), ("max_items", "2")]).await;
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
        assert_eq!(told(&component.messages().await), expected, "{value}");
        assert_eq!(component.items(READER, NODE).await, kept, "{value}");
        // What replaces an item needs no room.
        assert!(is_granted(&component.pubsub(OWNER, "set", &item("2")).await));
        assert_eq!(told(&component.messages().await), ["item 2"], "{value}");
    }
}

/// XEP-0460.
#[tokio::test]
async fn meta_data_say_how_items_may_be_kept_by_others() {
    let caching = |name: &str| format!("{{urn:xmpp:pubsub-caching:0}}{name}");
    let mut component = with(&[("item_expire", "60")]).await;
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
    // Where another configuration is not announced, it may remove items without an event.
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

/// Where `always-notify` is true, an event says what became of items that a configuration removes.
#[tokio::test]
async fn a_configuration_that_removes_items_is_announced_if_subscribers_rely_on_it() {
    let mut component = with(&[("notify_config", "1")]).await;
    for id in ["1", "2", "3"] {
        component.publish(OWNER, NODE, id).await;
    }
    component.messages().await;
    for (field, value) in [("max_items", "1"), ("persist_items", "0")] {
        component.configure(OWNER, NODE, &[(field, value)]).await;
        let told = shown(&component.message().await);
        let value = if value == "0" { "false" } else { value };
        let field = told.split(&format!("var='pubsub#{field}'")).nth(1).unwrap();
        assert!(field.split("</field>").next().unwrap().contains(&format!(">{value}<")), "{told}");
    }
}

/// §5.4: "values for all configured options". Names of groups in an owner's roster are not shown to others.
#[tokio::test]
async fn meta_data_have_every_configured_option() {
    let mut component = with(&[("title", "T"), ("notify_sub", "1")]).await;
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    let info = component.ask(READER, "get", query).await;
    let data = info.children().next().unwrap().get_child("x", "jabber:x:data").unwrap();
    let configured = component.owner(OWNER, "get", "<configure node='n'/>").await;
    let configured = configured.get_child("pubsub", crate::support::component::OWNER).unwrap();
    let form = configured.children().next().unwrap().children().next().unwrap();
    for var in form.children().filter_map(|field| field.attr("var")) {
        let expected = match var {
            "FORM_TYPE" | "pubsub#roster_groups_allowed" | "x-gjallar#revision" => continue,
            // XEP-0460 §4.2: where the number is known, it is shown.
            "pubsub#max_items" => vec!["10000".to_owned()],
            _ => values(form, var).unwrap(),
        };
        assert_eq!(values(data, var), Some(expected), "{var}");
    }
    assert_eq!(values(data, "pubsub#roster_groups_allowed"), None);
}

/// XEP-0004 §3.3: a field that is unset has no value, for an empty one is no JID, time or number.
#[tokio::test]
async fn fields_that_are_unset_have_no_value() {
    let mut component = with(&[]).await;
    let no_empty_value = |answer: &Element| {
        let text = shown(answer);
        assert!(text.contains("<field"), "{text}");
        assert!(!text.contains("<value/>") && !text.contains("<value></value>"), "{text}");
    };
    for question in ["<configure node='n'/>", "<default/>"] {
        no_empty_value(&component.owner(OWNER, "get", question).await);
    }
    let options = format!("<options node='n' jid='{READER}'/>");
    for question in [options.as_str(), "<default node='n'/>", "<default/>"] {
        no_empty_value(&component.pubsub(READER, "get", question).await);
    }
    let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    no_empty_value(&component.ask(READER, "get", info).await);
    let archive = "<query xmlns='urn:xmpp:mam:2' node='n'/>";
    let archive = component.ask(READER, "get", archive).await;
    assert!(!shown(&archive).contains("<value/>"), "{}", shown(&archive));
}

/// XEP-0485 §4, §5: an open first-level leaf node that keeps one item, which the server's bot replaces.
#[tokio::test]
async fn a_server_publishes_its_information() {
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

/// §7.1.5: a precondition is compared as it is meant. Fields with several values are sets, `max` is a number, and a text
/// names the field that has another value.
#[tokio::test]
async fn preconditions_are_compared_by_their_meaning() {
    let mut component = with(&[("max_items", "10000")]).await;
    let field = |var: &str, values: &[&str]| {
        let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
        format!("<field var='pubsub#{var}'>{values}</field>")
    };
    let contacts = field("contact", &["a@localhost", "b@localhost"]);
    let configured = form(&[]).replace("</x>", &format!("{contacts}</x>"));
    let configure = format!("<configure node='{NODE}'>{configured}</configure>");
    assert!(is_granted(&component.owner(OWNER, "set", &configure).await));
    for (wanted, is_met) in [
        (field("contact", &["b@localhost", "a@localhost"]), true),
        (field("contact", &["b@localhost", "a@localhost", "b@localhost"]), true),
        (field("contact", &["a@localhost"]), false),
        (field("contact", &["a@localhost", "b@localhost", "c@localhost"]), false),
        (field("contact", &[]), false),
        (field("max_items", &["max"]), true),
        (field("max_items", &["10000"]), true),
        (field("max_items", &["9999"]), false),
        (field("max_items", &["10001"]), false),
        (field("max_payload_size", &["65536"]), true),
        (field("max_payload_size", &["65537"]), false),
        (field("item_expire", &["max"]), true),
    ] {
        let options = form(&[]).replace("node_config", "publish-options");
        let options = options.replace("</x>", &format!("{wanted}</x>"));
        let publish = format!(
            "<publish node='{NODE}'><item><x xmlns='urn:x'/></item></publish>\
             <publish-options>{options}</publish-options>"
        );
        let answer = component.pubsub(OWNER, "set", &publish).await;
        assert_eq!(is_granted(&answer), is_met, "{wanted}: {}", shown(&answer));
        if !is_met {
            assert_eq!(error(&answer), "cancel conflict precondition-not-met");
            let name = wanted.split('\'').nth(1).unwrap();
            assert!(text_of(&answer).contains(name), "{}", text_of(&answer));
        }
    }
}
