//! The error cases of XEP-0060, one test each, and requests that look like errors but succeed. Test names begin with
//! the clause: `cargo test s7_1_5`.

use minidom::Element;

use crate::support::component::{
    ADMIN, OWNER as OWNER_NS, PUBSUB, STREAM, TestComponent, error, error_text, form, shown,
};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";
const STRANGER: &str = "stranger@far.example/x";
const OUTCAST: &str = "outcast@localhost/x";
const PUBLISH_ONLY: &str = "bot@localhost/x";
const PAYLOAD: &str = "<x xmlns='urn:x'/>";
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

/// Nodes that requests may name, with their configurations.
const NODES: [(&str, &[(&str, &str)]); 8] = [
    ("open", &[]),
    ("whitelist", &[("access_model", "whitelist")]),
    ("authorize", &[("access_model", "authorize")]),
    ("no-subscriptions", &[("subscribe", "0")]),
    ("limited", &[("type", "urn:x"), ("max_payload_size", "100"), ("max_items", "2")]),
    ("transient", &[("persist_items", "0")]),
    ("no-payloads", &[("deliver_payloads", "0")]),
    ("transient-no-payloads", &[("persist_items", "0"), ("deliver_payloads", "0")]),
];

/// Starts a component with the nodes of [`NODES`] that a text names, each with an outcast and an
/// entity with the affiliation publish-only. At `open`, `READER` is subscribed, and there is one
/// item. `moved` was deleted with a redirect.
async fn component_with_nodes_in(text: &str) -> TestComponent {
    let mut component = TestComponent::start().await;
    let is_named = |node: &str| text.contains(&format!("'{node}'"));
    for (node, fields) in NODES.into_iter().filter(|(node, _)| is_named(node)) {
        component.create(OWNER, node, fields).await;
        let entries = "<affiliation jid='outcast@localhost' affiliation='outcast'/>\
                       <affiliation jid='bot@localhost' affiliation='publish-only'/>";
        let reply = component.owner(OWNER, "set", &affiliations(node, entries)).await;
        assert_eq!(reply.attr("type"), Some("result"));
    }
    if is_named("open") {
        component.subscribe(READER, "open").await;
        component.publish(OWNER, "open", "1").await;
    }
    if is_named("moved") {
        component.create(OWNER, "moved", &[]).await;
        let delete = "<delete node='moved'><redirect uri='xmpp:new.example?;node=new'/></delete>";
        assert_eq!(component.owner(OWNER, "set", delete).await.attr("type"), Some("result"));
    }
    component
}

/// Sends requests of one entity, all but the last of which must succeed. The last one must have the
/// expected result: `result`, or an error as its type, its condition, the condition of XEP-0060,
/// and the missing feature.
async fn check(from: &str, kind: &str, ns: &str, contents: &[String], expected: &str) {
    let mut component = component_with_nodes_in(&contents.concat()).await;
    let (last, others) = contents.split_last().unwrap();
    let request = |content: &str| format!("<pubsub xmlns='{ns}'>{content}</pubsub>");
    for content in others {
        let reply = component.ask(from, kind, &request(content)).await;
        assert_eq!(reply.attr("type"), Some("result"), "{}", shown(&reply));
    }
    let reply = component.ask(from, kind, &request(last)).await;
    let result = match reply.attr("type") {
        Some("result") => "result".to_owned(),
        _ => error(&reply),
    };
    assert_eq!(result, expected, "{}", shown(&reply));
}

/// One test for each row: name, requester, `get` or `set`, namespace, content of the request (or of several requests in
/// a row), and the result as [`check`] writes it.
macro_rules! cases {
    ($($name:ident: $from:ident $kind:ident $ns:ident $($content:expr),+ => $expected:literal;)*) => {
        $(#[tokio::test]
        async fn $name() {
            check($from, stringify!($kind), $ns, &[$(String::from($content)),+], $expected).await;
        })*
    };
}

fn item(content: &str) -> String {
    format!("<item id='1'>{content}</item>")
}

fn subscribe(node: &str, jid: &str) -> String {
    format!("<subscribe node='{node}' jid='{jid}'/>")
}

fn unsubscribe(node: &str, jid: &str) -> String {
    format!("<unsubscribe node='{node}' jid='{jid}'/>")
}

fn options(node: &str, jid: &str) -> String {
    format!("<options node='{node}' jid='{jid}'/>")
}

fn items(node: &str) -> String {
    format!("<items node='{node}'/>")
}

fn publish(node: &str, items: &str) -> String {
    format!("<publish node='{node}'>{items}</publish>")
}

fn retract(node: &str, items: &str) -> String {
    format!("<retract node='{node}'>{items}</retract>")
}

fn create(node: &str, form: &str) -> String {
    format!("<create node='{node}'/><configure>{form}</configure>")
}

fn configure(node: &str, fields: &[(&str, &str)]) -> String {
    format!("<configure node='{node}'>{}</configure>", form(fields))
}

fn subscriptions(node: &str, entries: &str) -> String {
    format!("<subscriptions node='{node}'>{entries}</subscriptions>")
}

fn affiliations(node: &str, entries: &str) -> String {
    format!("<affiliations node='{node}'>{entries}</affiliations>")
}

/// Returns an entry of an owner's subscription list, in this namespace.
fn subscription(ns: &str, state: &str) -> String {
    format!("<subscription xmlns='{ns}' jid='a@localhost' subscription='{state}'/>")
}

/// Returns an entry of an owner's affiliation list, in this namespace.
fn affiliation(ns: &str) -> String {
    format!("<affiliation xmlns='{ns}' jid='a@localhost' affiliation='member'/>")
}

/// Returns a publish-options form with these fields.
fn publish_options(form_type: &str, fields: &[(&str, &str)]) -> String {
    let field = |(var, value): &(&str, &str)| {
        format!("<field var='pubsub#{var}'><value>{value}</value></field>")
    };
    let fields: String = fields.iter().map(field).collect();
    format!(
        "<publish-options><x xmlns='jabber:x:data' type='submit'>\
         <field var='FORM_TYPE'><value>{form_type}</value></field>{fields}</x></publish-options>"
    )
}

/// Returns a publish request at `open` with a precondition.
fn publish_if(var: &str, value: &str) -> String {
    publish("open", &item(PAYLOAD)) + &publish_options(PUBLISH_OPTIONS, &[(var, value)])
}

/// Returns a publish request whose item element is in the owner namespace.
fn item_in_owner_namespace() -> String {
    format!("<item xmlns='{OWNER_NS}' id='1'>{PAYLOAD}</item>")
}

/// Returns publish-options that `open` does not meet.
fn unmet_publish_options() -> String {
    publish_options(PUBLISH_OPTIONS, &[("access_model", "whitelist")])
}

cases! {
    s5_6_own_subscriptions_are_empty_for_strangers:
        STRANGER get PUBSUB "<subscriptions/>" => "result";
    s5_6_own_subscriptions_at_one_node_are_empty_for_strangers:
        STRANGER get PUBSUB "<subscriptions node='open'/>" => "result";
    s5_7_own_affiliations_are_empty_for_strangers:
        STRANGER get PUBSUB "<affiliations/>" => "result";
}

cases! {
    s6_1_subscribe_with_an_empty_options_child_is_a_bad_request:
        STRANGER set PUBSUB format!("<subscribe node='open' jid='{STRANGER}'><options/></subscribe>")
            => "modify bad-request";
    s6_1_3_1_jid_of_another_entity_is_invalid:
        STRANGER set PUBSUB subscribe("open", READER) => "modify bad-request invalid-jid";
    s6_1_3_1_malformed_jid_is_invalid:
        STRANGER set PUBSUB subscribe("open", "@") => "modify jid-malformed invalid-jid";
    s6_1_3_4_unlisted_entity_is_not_allowed_at_a_whitelist_node:
        STRANGER set PUBSUB subscribe("whitelist", STRANGER) => "cancel not-allowed closed-node";
    s6_1_3_7_first_request_at_an_authorize_node_succeeds:
        STRANGER set PUBSUB subscribe("authorize", STRANGER) => "result";
    s6_1_3_7_second_request_at_an_authorize_node_finds_the_pending_one:
        STRANGER set PUBSUB subscribe("authorize", STRANGER), subscribe("authorize", STRANGER)
            => "auth not-authorized pending-subscription";
    s6_1_3_8_outcast_is_forbidden:
        OUTCAST set PUBSUB subscribe("open", OUTCAST) => "auth forbidden";
    s6_1_3_10_subscribe_is_unsupported_where_subscriptions_are_disabled:
        STRANGER set PUBSUB subscribe("no-subscriptions", STRANGER)
            => "cancel feature-not-implemented unsupported subscribe";
    s6_1_3_11_subscribe_at_a_moved_node_is_gone:
        STRANGER set PUBSUB subscribe("moved", STRANGER) => "modify gone";
    s6_1_3_11_retrieval_at_a_moved_node_is_gone:
        STRANGER get PUBSUB items("moved") => "modify gone";
    s6_1_3_11_publish_at_a_moved_node_is_gone:
        STRANGER set PUBSUB publish("moved", "<item><x xmlns='urn:x'/></item>") => "modify gone";
    s6_1_3_12_unknown_node_is_not_found:
        STRANGER set PUBSUB subscribe("none", STRANGER) => "cancel item-not-found";
    s6_1_6_second_subscribe_of_a_subscriber_succeeds:
        READER set PUBSUB subscribe("open", READER) => "result";
}

cases! {
    s6_2_3_2_unsubscribe_of_a_stranger_is_unexpected:
        STRANGER set PUBSUB unsubscribe("open", STRANGER)
            => "cancel unexpected-request not-subscribed";
    s6_2_3_3_unsubscribe_of_another_entity_is_forbidden:
        STRANGER set PUBSUB unsubscribe("open", READER) => "auth forbidden";
    s6_2_3_4_unknown_node_is_not_found:
        STRANGER set PUBSUB unsubscribe("none", STRANGER) => "cancel item-not-found";
    s6_3_4_1_options_of_another_entity_are_forbidden:
        STRANGER get PUBSUB options("open", READER) => "auth forbidden";
    s6_3_4_2_options_of_a_stranger_are_unexpected:
        STRANGER get PUBSUB options("open", STRANGER) => "modify unexpected-request not-subscribed";
    s6_3_4_3_options_without_jid_are_a_bad_request:
        STRANGER get PUBSUB "<options node='open'/>" => "modify bad-request jid-required";
    s6_3_4_7_unknown_node_is_not_found:
        STRANGER get PUBSUB options("none", STRANGER) => "cancel item-not-found";
    s6_4_default_options_of_the_service_are_returned:
        STRANGER get PUBSUB "<default/>" => "result";
}

cases! {
    s6_5_empty_max_items_is_ignored:
        STRANGER get PUBSUB "<items node='open' max_items=''/>" => "result";
    s6_5_max_items_may_have_spaces_around_the_number:
        STRANGER get PUBSUB "<items node='open' max_items=' 1 '/>" => "result";
    s6_5_item_in_the_owner_namespace_is_a_bad_request:
        OWNER get PUBSUB format!("<items node='open'>{}</items>", item_in_owner_namespace())
            => "modify bad-request";
    s6_5_9_3_subscriber_of_another_node_is_not_authorized:
        READER get PUBSUB items("authorize") => "auth not-authorized not-subscribed";
    s6_5_9_3_stranger_is_not_authorized:
        STRANGER get PUBSUB items("authorize") => "auth not-authorized not-subscribed";
    s6_5_9_4_retrieval_is_unsupported_at_a_transient_node:
        OWNER get PUBSUB items("transient")
            => "cancel feature-not-implemented unsupported persistent-items";
    s6_5_9_8_unlisted_entity_is_not_allowed_at_a_whitelist_node:
        STRANGER get PUBSUB items("whitelist") => "cancel not-allowed closed-node";
    s6_5_9_10_outcast_is_forbidden:
        OUTCAST get PUBSUB items("open") => "auth forbidden";
    s6_5_9_10_publish_only_entity_is_forbidden:
        PUBLISH_ONLY get PUBSUB items("open") => "auth forbidden";
    s6_5_9_11_unknown_node_is_not_found:
        STRANGER get PUBSUB items("none") => "cancel item-not-found";
    s6_5_9_11_node_name_beyond_1023_bytes_is_not_found:
        STRANGER get PUBSUB items(&"n".repeat(1024)) => "cancel item-not-found";
    s6_5_9_12_unknown_item_is_left_out:
        STRANGER get PUBSUB "<items node='open'><item id='none'/></items>" => "result";
    s6_5_9_12_more_items_than_the_batch_limit_are_not_allowed:
        STRANGER get PUBSUB format!("<items node='open'>{}</items>", "<item id='1'/>".repeat(101))
            => "cancel not-allowed max-items-exceeded";
}

cases! {
    s7_1_item_is_published:
        OWNER set PUBSUB publish("open", &item(PAYLOAD)) => "result";
    s7_1_item_in_the_owner_namespace_is_a_bad_request:
        OWNER set PUBSUB publish("open", &item_in_owner_namespace()) => "modify bad-request";
    s7_1_unknown_child_of_xep_0060_is_a_bad_request:
        OWNER set PUBSUB publish("open", &(item(PAYLOAD) + "<retract/>")) => "modify bad-request";
    s7_1_unknown_child_of_another_namespace_is_ignored:
        OWNER set PUBSUB publish("open", &(item(PAYLOAD) + "<note xmlns='urn:x'/>")) => "result";
    s7_1_3_1_stranger_is_forbidden:
        STRANGER set PUBSUB publish("open", &item(PAYLOAD)) => "auth forbidden";
    s7_1_3_1_outcast_is_forbidden:
        OUTCAST set PUBSUB publish("open", &item(PAYLOAD)) => "auth forbidden";
    s7_1_3_3_unknown_node_is_not_found:
        STRANGER set PUBSUB publish("none", &item(PAYLOAD)) => "cancel item-not-found";
    s7_1_3_5_payload_beyond_max_payload_size_is_not_acceptable:
        OWNER set PUBSUB publish("limited", &item(&format!("<x xmlns='urn:x'>{}</x>", "x".repeat(100))))
            => "modify not-acceptable payload-too-big";
    s7_1_3_6_two_payloads_in_one_item_are_invalid:
        OWNER set PUBSUB publish("open", &item(&PAYLOAD.repeat(2)))
            => "modify bad-request invalid-payload";
    s7_1_3_7_persistent_node_requires_an_item:
        OWNER set PUBSUB publish("open", "") => "modify bad-request item-required";
    s7_1_3_7_transient_node_requires_an_item:
        OWNER set PUBSUB publish("transient", "") => "modify bad-request item-required";
    s7_1_3_7_node_that_delivers_payloads_requires_a_payload:
        OWNER set PUBSUB publish("open", &item("")) => "modify bad-request payload-required";
    s7_1_3_7_transient_node_without_payloads_forbids_items:
        OWNER set PUBSUB publish("transient-no-payloads", &item(PAYLOAD))
            => "modify bad-request item-forbidden";
    s7_1_3_7_persistent_node_without_payloads_requires_no_payload:
        OWNER set PUBSUB publish("no-payloads", &item("")) => "result";
    s12_11_more_items_than_max_items_are_not_allowed:
        OWNER set PUBSUB publish("limited", &item(PAYLOAD).repeat(3))
            => "cancel not-allowed max-items-exceeded";
    s16_4_4_payload_of_another_type_is_published:
        OWNER set PUBSUB publish("limited", &item("<y xmlns='urn:y'/>")) => "result";
}

cases! {
    s7_1_5_precondition_not_met:
        OWNER set PUBSUB publish_if("max_items", "7") => "cancel conflict precondition-not-met";
    s7_1_5_precondition_on_an_unknown_field_is_not_acceptable:
        OWNER set PUBSUB publish_if("none", "7") => "modify not-acceptable";
    s7_1_5_max_items_of_the_node_is_met:
        OWNER set PUBSUB publish_if("max_items", "10000") => "result";
    s7_1_5_max_items_max_is_met:
        OWNER set PUBSUB publish_if("max_items", "max") => "result";
    s7_1_5_max_items_beyond_the_limit_is_not_met:
        OWNER set PUBSUB publish_if("max_items", "20000") => "cancel conflict precondition-not-met";
    s7_1_5_max_payload_size_of_the_node_is_met:
        OWNER set PUBSUB publish_if("max_payload_size", "65536") => "result";
    s7_1_5_max_payload_size_beyond_the_limit_is_not_met:
        OWNER set PUBSUB publish_if("max_payload_size", "9999999")
            => "cancel conflict precondition-not-met";
    s7_1_5_form_of_another_type_is_not_acceptable:
        OWNER set PUBSUB publish("open", &item(PAYLOAD)) + &publish_options("urn:other", &[])
            => "modify not-acceptable";
    s7_1_5_publish_options_without_form_are_a_bad_request:
        OWNER set PUBSUB publish("open", &item(PAYLOAD)) + "<publish-options/>" => "modify bad-request";
    s7_1_5_publish_options_inside_publish_are_not_met:
        OWNER set PUBSUB publish("open", &(item(PAYLOAD) + &unmet_publish_options()))
            => "cancel conflict precondition-not-met";
    s7_1_5_publish_options_beside_publish_are_not_met:
        OWNER set PUBSUB publish("open", &item(PAYLOAD)) + &unmet_publish_options()
            => "cancel conflict precondition-not-met";
    s7_1_5_publish_options_inside_and_beside_publish_are_a_bad_request:
        OWNER set PUBSUB publish("open", &(item(PAYLOAD) + &unmet_publish_options())) + &unmet_publish_options()
            => "modify bad-request";
    s7_1_5_publish_options_in_the_owner_namespace_are_a_bad_request:
        OWNER set PUBSUB publish("open", &item(PAYLOAD))
            + &unmet_publish_options().replace("<publish-options", &format!("<publish-options xmlns='{OWNER_NS}'"))
            => "modify bad-request";
}

cases! {
    s7_2_item_in_the_owner_namespace_is_a_bad_request:
        OWNER set PUBSUB retract("open", &item_in_owner_namespace()) => "modify bad-request";
    s7_2_3_1_stranger_is_forbidden:
        STRANGER set PUBSUB retract("open", "<item id='1'/>") => "auth forbidden";
    s7_2_3_2_unknown_item_is_not_found:
        OWNER set PUBSUB retract("open", "<item id='none'/>") => "cancel item-not-found";
    s7_2_3_2_unknown_node_is_not_found:
        OWNER set PUBSUB retract("none", "<item id='1'/>") => "cancel item-not-found";
    s7_2_3_3_retract_without_node_is_a_bad_request:
        OWNER set PUBSUB "<retract><item id='1'/></retract>" => "modify bad-request nodeid-required";
    s7_2_3_4_retract_without_item_is_a_bad_request:
        OWNER set PUBSUB retract("open", "") => "modify bad-request item-required";
    s7_2_3_4_retract_without_item_id_is_a_bad_request:
        OWNER set PUBSUB retract("open", "<item/>") => "modify bad-request item-required";
    s7_2_3_5_retract_is_unsupported_at_a_transient_node:
        OWNER set PUBSUB retract("transient", "<item id='1'/>")
            => "cancel feature-not-implemented unsupported persistent-items";
}

cases! {
    s8_1_associate_is_unsupported:
        OWNER set OWNER_NS "<collection node='open'><associate node='whitelist'/></collection>"
            => "cancel feature-not-implemented unsupported collections";
    s8_1_node_of_unknown_type_is_created:
        OWNER set PUBSUB "<create node='new' type='push'/>" => "result";
    s8_1_node_with_an_empty_configure_element_is_created:
        OWNER set PUBSUB "<create node='new'/><configure/>" => "result";
    s8_1_configure_with_an_unknown_child_of_xep_0060_is_a_bad_request:
        OWNER set PUBSUB "<create node='new'/><configure><y/></configure>" => "modify bad-request";
    s8_1_configure_with_an_element_that_is_no_form_is_a_bad_request:
        OWNER set PUBSUB "<create node='new'/><configure><x xmlns='urn:x'/></configure>"
            => "modify bad-request";
    s8_1_1_stranger_is_forbidden:
        STRANGER set PUBSUB "<create node='new'/>" => "auth forbidden";
    s8_1_1_existing_node_is_a_conflict:
        OWNER set PUBSUB "<create node='open'/>" => "cancel conflict";
    s8_1_2_unknown_access_model_is_not_acceptable:
        OWNER set PUBSUB create("new", &form(&[("access_model", "none")]))
            => "modify not-acceptable unsupported-access-model";
    s8_1_3_configure_before_create_is_a_bad_request:
        OWNER set PUBSUB format!("<configure>{}</configure><create node='new'/>", form(&[]))
            => "modify bad-request";
    s8_1_3_configure_with_a_node_beside_create_is_a_bad_request:
        OWNER set PUBSUB "<create node='new'/><configure node='new'/>" => "modify bad-request";
    s8_1_3_collection_by_attribute_is_unsupported:
        OWNER set PUBSUB "<create node='new' type='collection'/>"
            => "cancel feature-not-implemented unsupported collections";
    s8_1_3_collection_by_form_is_unsupported:
        OWNER set PUBSUB create("new", &form(&[("node_type", "collection")]))
            => "cancel feature-not-implemented unsupported collections";
}

cases! {
    s8_2_3_2_stranger_is_forbidden_to_read_the_configuration:
        STRANGER get OWNER_NS "<configure node='open'/>" => "auth forbidden";
    s8_2_3_2_stranger_is_forbidden_to_change_the_configuration:
        STRANGER set OWNER_NS configure("open", &[]) => "auth forbidden";
    s8_2_3_3_configuration_request_without_node_is_a_bad_request:
        OWNER get OWNER_NS "<configure/>" => "modify bad-request nodeid-required";
    s8_2_3_3_configuration_with_empty_node_is_a_bad_request:
        OWNER set OWNER_NS configure("", &[]) => "modify bad-request nodeid-required";
    s8_2_3_5_configuration_of_an_unknown_node_is_not_found:
        OWNER get OWNER_NS "<configure node='none'/>" => "cancel item-not-found";
    s8_2_3_5_unknown_node_is_not_configured:
        OWNER set OWNER_NS configure("none", &[]) => "cancel item-not-found";
    s8_2_4_cancelled_form_succeeds:
        OWNER set OWNER_NS "<configure node='open'><x xmlns='jabber:x:data' type='cancel'/></configure>"
            => "result";
    s8_2_5_1_unknown_field_is_ignored:
        OWNER set OWNER_NS configure("open", &[("none", "1")]) => "result";
    s8_2_5_2_number_that_is_none_is_not_acceptable:
        OWNER set OWNER_NS configure("open", &[("max_items", "some")]) => "modify not-acceptable";
    s8_2_5_2_boolean_that_is_none_is_not_acceptable:
        OWNER set OWNER_NS configure("open", &[("notify_sub", "none")]) => "modify not-acceptable";
    s8_3_default_configuration_of_collections_is_unsupported:
        OWNER get OWNER_NS "<default type='collection'/>"
            => "cancel feature-not-implemented unsupported collections";
    s8_3_default_configuration_of_an_unknown_type_is_returned:
        OWNER get OWNER_NS "<default type='push'/>" => "result";
}

cases! {
    s8_4_empty_redirect_is_a_bad_request:
        OWNER set OWNER_NS "<delete node='open'><redirect uri=''/></delete>" => "modify bad-request";
    s8_4_redirect_without_a_uri_is_a_bad_request:
        OWNER set OWNER_NS "<delete node='open'><redirect uri='over there'/></delete>"
            => "modify bad-request";
    s8_4_delete_without_node_is_a_bad_request:
        OWNER set OWNER_NS "<delete/>" => "modify bad-request nodeid-required";
    s8_4_2_configuration_of_a_moved_node_is_gone:
        OWNER get OWNER_NS "<configure node='moved'/>" => "modify gone";
    s8_4_2_purge_of_a_moved_node_is_gone:
        OWNER set OWNER_NS "<purge node='moved'/>" => "modify gone";
    s8_4_3_1_stranger_is_forbidden:
        STRANGER set OWNER_NS "<delete node='open'/>" => "auth forbidden";
    s8_4_3_2_unknown_node_is_not_found:
        OWNER set OWNER_NS "<delete node='none'/>" => "cancel item-not-found";
    s8_5_purge_without_node_is_a_bad_request:
        OWNER set OWNER_NS "<purge/>" => "modify bad-request nodeid-required";
    s8_5_3_2_stranger_is_forbidden:
        STRANGER set OWNER_NS "<purge node='open'/>" => "auth forbidden";
    s8_5_3_3_purge_is_unsupported_at_a_transient_node:
        OWNER set OWNER_NS "<purge node='transient'/>"
            => "cancel feature-not-implemented unsupported persistent-items";
    s8_5_3_4_unknown_node_is_not_found:
        OWNER set OWNER_NS "<purge node='none'/>" => "cancel item-not-found";
}

cases! {
    s8_8_subscriptions_without_node_are_a_bad_request:
        OWNER get OWNER_NS "<subscriptions/>" => "modify bad-request nodeid-required";
    s8_8_1_3_2_subscriber_is_forbidden_to_read_subscriptions:
        READER get OWNER_NS subscriptions("open", "") => "auth forbidden";
    s8_8_1_3_3_unknown_node_is_not_found:
        READER get OWNER_NS subscriptions("none", "") => "cancel item-not-found";
    s8_8_2_3_2_subscriber_is_forbidden_to_change_subscriptions:
        READER set OWNER_NS subscriptions("open", &subscription(OWNER_NS, "subscribed")) => "auth forbidden";
    s8_8_2_3_3_unknown_node_is_not_found:
        READER set OWNER_NS subscriptions("none", &subscription(OWNER_NS, "subscribed"))
            => "cancel item-not-found";
    s8_8_2_4_pending_is_not_acceptable:
        OWNER set OWNER_NS subscriptions("open", &subscription(OWNER_NS, "pending"))
            => "modify not-acceptable";
    s8_8_2_4_repeated_entry_is_a_bad_request:
        OWNER set OWNER_NS subscriptions("open", &subscription(OWNER_NS, "subscribed").repeat(2))
            => "modify bad-request";
    s8_8_2_4_entry_in_the_pubsub_namespace_is_applied:
        OWNER set OWNER_NS subscriptions("open", &subscription(PUBSUB, "subscribed")) => "result";
    s8_8_2_4_entry_in_the_owner_namespace_is_applied:
        OWNER set OWNER_NS subscriptions("open", &subscription(OWNER_NS, "subscribed")) => "result";
    s8_8_2_4_entry_in_another_namespace_is_a_bad_request:
        OWNER set OWNER_NS subscriptions("open", &subscription("urn:x", "subscribed"))
            => "modify bad-request";
    s8_8_2_4_affiliation_among_subscriptions_is_a_bad_request:
        OWNER set OWNER_NS subscriptions("open", &affiliation(OWNER_NS)) => "modify bad-request";
}

cases! {
    s8_9_affiliations_without_node_are_a_bad_request:
        OWNER get OWNER_NS "<affiliations/>" => "modify bad-request nodeid-required";
    s8_9_1_3_2_subscriber_is_forbidden_to_read_affiliations:
        READER get OWNER_NS affiliations("open", "") => "auth forbidden";
    s8_9_1_3_3_unknown_node_is_not_found:
        READER get OWNER_NS affiliations("none", "") => "cancel item-not-found";
    s8_9_2_3_3_subscriber_is_forbidden_to_change_affiliations:
        READER set OWNER_NS affiliations("open", &affiliation(OWNER_NS)) => "auth forbidden";
    s8_9_2_3_4_unknown_node_is_not_found:
        READER set OWNER_NS affiliations("none", &affiliation(OWNER_NS)) => "cancel item-not-found";
    s8_9_2_4_removal_of_the_last_owner_is_not_acceptable:
        OWNER set OWNER_NS affiliations("open", "<affiliation jid='owner@localhost' affiliation='none'/>")
            => "modify not-acceptable";
    s8_9_2_4_repeated_entry_is_a_bad_request:
        OWNER set OWNER_NS affiliations("open", &affiliation(OWNER_NS).repeat(2)) => "modify bad-request";
    s8_9_2_4_entry_in_the_pubsub_namespace_is_applied:
        OWNER set OWNER_NS affiliations("open", &affiliation(PUBSUB)) => "result";
    s8_9_2_4_entry_in_the_owner_namespace_is_applied:
        OWNER set OWNER_NS affiliations("open", &affiliation(OWNER_NS)) => "result";
    s8_9_2_4_entry_in_another_namespace_is_a_bad_request:
        OWNER set OWNER_NS affiliations("open", &(affiliation(OWNER_NS) + &affiliation("urn:x")))
            => "modify bad-request";
    s8_9_2_4_entry_without_jid_is_a_bad_request:
        OWNER set OWNER_NS affiliations("open", "<affiliation affiliation='member'/>")
            => "modify bad-request jid-required";
    administrator_retrieves_the_affiliations_of_a_node_of_others:
        ADMIN get OWNER_NS affiliations("whitelist", "") => "result";
}

/// §6.1.3.11: the error has the redirect, until a node of that name exists again.
#[tokio::test]
async fn s6_1_3_11_error_has_the_redirect_until_the_node_is_created_again() {
    let mut component = component_with_nodes_in("'moved'").await;
    let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='moved'/>";
    let reply = component.ask(STRANGER, "get", info).await;
    let gone = reply.get_child("error", STREAM).unwrap().children().next().unwrap();
    assert_eq!((gone.name(), gone.text().as_str()), ("gone", "xmpp:new.example?;node=new"));
    component.create(OWNER, "moved", &[]).await;
    assert_eq!(component.ask(STRANGER, "get", info).await.attr("type"), Some("result"));
    let deleted = component.owner(OWNER, "set", "<delete node='moved'/>").await;
    assert_eq!(deleted.attr("type"), Some("result"));
    assert_eq!(error(&component.ask(STRANGER, "get", info).await), "cancel item-not-found");
}

/// RFC 6120 §8.3.1: an error repeats the beginning of the request, at most 512 bytes of it.
#[tokio::test]
async fn errors_repeat_the_beginning_of_the_request() {
    let mut component = TestComponent::start().await;
    let publish = "<publish node='none'><item id='1'><x xmlns='urn:x'/></item></publish>";
    let reply = component.pubsub(OWNER, "set", &format!("{publish}{publish}")).await;
    let repeated = reply.children().next().unwrap();
    let expected: Element =
        format!("<pubsub xmlns='{PUBSUB}'><publish node='none'/></pubsub>").parse().unwrap();
    assert_eq!(repeated, &expected, "{}", shown(&reply));
    let reply = component.owner(OWNER, "get", "<configure node='none'/>").await;
    assert!(reply.get_child("pubsub", OWNER_NS).unwrap().has_child("configure", OWNER_NS));
    for (length, is_repeated) in [(400, true), (500, false)] {
        let long = format!("<items node='{}'/>", "n".repeat(length));
        let reply = component.pubsub(OWNER, "get", &long).await;
        assert_eq!(error(&reply), "cancel item-not-found");
        assert_eq!(reply.has_child("pubsub", PUBSUB), is_repeated, "{length}");
    }
    let version = "<query xmlns='jabber:iq:version'/>";
    let reply = component.ask(OWNER, "set", version).await;
    assert_eq!(reply.children().count(), 1, "{}", shown(&reply));
}

/// Every error has a text; the text of a reached limit begins with the name of the limit.
#[tokio::test]
async fn errors_have_texts_that_name_the_limit() {
    let mut component = component_with_nodes_in("'open' 'limited'").await;
    let retrieve = format!("<items node='open'>{}</items>", "<item id='1'/>".repeat(101));
    let reply = component.pubsub(OWNER, "get", &retrieve).await;
    assert_eq!(error_text(&reply), "max_batch: at most 100 items in one request");
    let item = "<item><x xmlns='urn:x'/></item>";
    let reply = component.pubsub(OWNER, "set", &publish("open", &item.repeat(101))).await;
    assert_eq!(error_text(&reply), "max_batch: at most 100 items in one request");
    let reply = component.pubsub(OWNER, "set", &publish("limited", &item.repeat(3))).await;
    assert_eq!(error_text(&reply), "pubsub#max_items: at most 2 items in one request");
    for (to, kind, content) in [
        ("pubsub.localhost/x", "get", "<ping xmlns='urn:xmpp:ping'/>"),
        ("pubsub.localhost", "set", "<ping xmlns='urn:xmpp:ping'/>"),
        ("pubsub.localhost", "get", "<query xmlns='urn:unknown'/>"),
        ("pubsub.localhost", "get", "<ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/>"),
        ("pubsub.localhost", "other", "<ping xmlns='urn:xmpp:ping'/>"),
        (
            "pubsub.localhost",
            "set",
            "<command xmlns='http://jabber.org/protocol/commands' node='x'/>",
        ),
    ] {
        let iq = format!("<iq type='{kind}' from='{OWNER}' to='{to}' id='1'>{content}</iq>");
        component.send(&iq).await;
        assert!(!error_text(&component.answer().await).is_empty());
    }
}

/// A node name has at most 1023 bytes, so every request for a longer name finds no node.
#[tokio::test]
async fn node_name_beyond_1023_bytes_is_not_found() {
    let mut component = TestComponent::start().await;
    let long = "n".repeat(1024);
    for query in ["disco#info", "disco#items"] {
        let query = format!("<query xmlns='http://jabber.org/protocol/{query}' node='{long}'/>");
        assert_eq!(error(&component.ask(OWNER, "get", &query).await), "cancel item-not-found");
    }
    for list in ["subscriptions", "affiliations", "default", "items"] {
        let reply = component.pubsub(OWNER, "get", &format!("<{list} node='{long}'/>")).await;
        assert_eq!(error(&reply), "cancel item-not-found", "{list}");
    }
}
