//! Configuration of a node (§8.2): submitted forms, their values, and conflicts of two owners.

use std::sync::Arc;

use gjallar::store::SledStore;
use minidom::Element;

use super::s16_4_node_config::{
    NODE, OWNER, READER, component_with_subscriber, form_in, is_granted, meta_data, title_of,
    values,
};
use crate::support::component::{ADMIN, TestComponent, error, error_text, form, shown};

const OTHER_OWNER: &str = "other@localhost/desk";

/// Starts a component with a node that has two owners.
async fn with_two_owners() -> TestComponent {
    let mut component = component_with_subscriber(&[]).await;
    add_owner(&mut component).await;
    component
}

async fn add_owner(component: &mut TestComponent) {
    let entry = "<affiliation jid='other@localhost' affiliation='owner'/>";
    let list = format!("<affiliations node='{NODE}'>{entry}</affiliations>");
    assert!(is_granted(&component.owner(OWNER, "set", &list).await));
    component.messages().await;
}

/// Returns the hidden revision field of an owner's configuration form.
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

/// Submits a form with a title and the hidden field.
async fn submit(component: &mut TestComponent, by: &str, title: &str, revision: &str) -> Element {
    let field = format!("<field var='x-gjallar#revision'><value>{revision}</value></field></x>");
    let form = form(&[("title", title)]).replace("</x>", &field);
    component.owner(by, "set", &format!("<configure node='{NODE}'>{form}</configure>")).await
}

/// Two owners fill in the same form: the second submission gets an error, and changes nothing.
#[tokio::test]
async fn s8_2_second_owner_that_submits_an_outdated_form_gets_a_conflict() {
    let mut component = with_two_owners().await;
    let seen = revision(&mut component, OWNER, NODE).await;
    assert_eq!(revision(&mut component, OTHER_OWNER, NODE).await, seen);
    assert!(is_granted(&submit(&mut component, OWNER, "A", &seen).await));
    let refused = submit(&mut component, OTHER_OWNER, "B", &seen).await;
    assert_eq!(error(&refused), "cancel conflict");
    assert_eq!(title_of(&mut component).await.as_deref(), Some("A"));
    // A form without changes causes no conflict.
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "A", &seen).await));
    let fresh = revision(&mut component, OTHER_OWNER, NODE).await;
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "B", &fresh).await));
    // The first owner's form is older than the change, even though it was submitted before.
    assert_eq!(error(&submit(&mut component, OWNER, "C", &seen).await), "cancel conflict");
    let fresh = revision(&mut component, OWNER, NODE).await;
    assert!(is_granted(&submit(&mut component, OWNER, "C", &fresh).await));
    assert_eq!(error(&submit(&mut component, OWNER, "D", &seen).await), "cancel conflict");
    // A form without the hidden field overwrites the present configuration.
    component.configure(OTHER_OWNER, NODE, &[("title", "E")]).await;
    assert_eq!(title_of(&mut component).await.as_deref(), Some("E"));
}

/// §8.2.5.1: programs store a form and submit it again, and use the form of one node for another.
#[tokio::test]
async fn s8_2_form_is_accepted_again_and_for_another_node() {
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
    // A hidden field without a value is ignored.
    assert!(is_granted(&submit(&mut component, OWNER, "emptied", "").await));
    let refused = submit(&mut component, OWNER, "X", "no number").await;
    assert_eq!(error(&refused), "modify not-acceptable");
    // The form of the default configuration has no revision.
    let default = component.owner(OWNER, "get", "<default/>").await;
    assert!(!shown(&default).contains("x-gjallar#revision"), "{}", shown(&default));
    // The revision of a deleted node does not match a recreated node.
    let seen = revision(&mut component, OTHER_OWNER, NODE).await;
    component.owner(OWNER, "set", "<delete node='n'/>").await;
    component.create(OWNER, NODE, &[]).await;
    add_owner(&mut component).await;
    assert!(is_granted(&submit(&mut component, OWNER, "anew", "").await));
    assert!(is_granted(&submit(&mut component, OTHER_OWNER, "kept", &seen).await));
}

/// Only configuration changes by others are a conflict: neither changes by the requester, who may
/// be an administrator, nor changes of affiliations.
#[tokio::test]
async fn s8_2_form_of_an_administrator_is_accepted_again() {
    let mut component = component_with_subscriber(&[]).await;
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

/// The revision is stored with the node.
#[tokio::test]
async fn s8_2_configuration_conflict_is_detected_after_a_restart() {
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

/// XEP-0004 §3.6: a field without a value unsets a text or a list, so a form of the defaults or of
/// another node replaces all previous values; a flag, a number or a choice keeps its value.
#[tokio::test]
async fn s8_2_field_without_a_value_is_unset() {
    let mut component =
        component_with_subscriber(&[("title", "T"), ("type", "urn:x"), ("max_items", "7")]).await;
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

/// XEP-0004 §3.3: an unset field has no value, because an empty value is no valid JID, time or
/// number.
#[tokio::test]
async fn s8_2_unset_fields_have_no_value() {
    let mut component = component_with_subscriber(&[]).await;
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

/// XEP-0004 §3.1: "the form-processing entity MUST ignore any fields that it does not understand".
/// The first request is the form that Wokkel's users send for each node of comments, tickets or
/// forums.
#[tokio::test]
async fn s8_2_unknown_fields_of_a_configuration_are_ignored() {
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
async fn s8_2_error_names_the_field_with_an_invalid_value() {
    let mut component =
        component_with_subscriber(&[("node_type", "leaf"), ("node_type", "leaf")]).await;
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
        assert!(
            error_text(&refused).contains(&format!("pubsub#{field}: ")),
            "{}",
            error_text(&refused)
        );
    }
    assert_eq!(meta_data(&mut component, "pubsub#description").await, "");
}

/// Lexical space of the XML Schema types: white space around a value is not part of it; a plus sign
/// and leading zeros are.
#[tokio::test]
async fn s8_2_numbers_and_booleans_have_the_lexical_space_of_xml_schema() {
    let mut component = component_with_subscriber(&[]).await;
    for (value, number) in [(" 5 ", "5"), ("+6", "6"), ("007", "7"), ("&#13;&#10;\t8", "8")] {
        let fields = [("max_items", value), ("item_expire", value), ("persist_items", " true\n")];
        assert!(is_granted(&component.configure(OWNER, NODE, &fields).await), "{value:?}");
        assert_eq!(meta_data(&mut component, "pubsub#max_items").await, number);
        assert_eq!(meta_data(&mut component, "pubsub#item_expire").await, number);
    }
}

/// §8.1.3: the text names the type of the submitted form, and the expected type.
#[tokio::test]
async fn s8_1_3_error_names_the_type_of_a_wrong_form() {
    let mut component = component_with_subscriber(&[]).await;
    let other = "http://jabber.org/protocol/pubsub#publish-options";
    let form = form(&[]).replace("http://jabber.org/protocol/pubsub#node_config", other);
    let create = format!("<create node='new'/><configure>{form}</configure>");
    let refused = component.pubsub(OWNER, "set", &create).await;
    assert_eq!(error(&refused), "modify not-acceptable");
    let text = error_text(&refused);
    assert!(text.contains(other) && text.contains("pubsub#node_config"), "{text}");
}
