//! Subscriptions that need the approval of an owner (§8.6, §8.7).

use std::sync::Arc;

use gjallar::store::SledStore;
use minidom::Element;

use crate::support::component::{EVENT, PUBSUB, SERVICE, TestComponent, error, shown};

const OWNER: &str = "owner@localhost/desk";
const OTHER: &str = "other@localhost/desk";
pub const READER: &str = "reader@localhost/phone";
const STRANGER: &str = "stranger@far.example/x";
const AUTHORIZATION: &str = "http://jabber.org/protocol/pubsub#subscribe_authorization";
const GET_PENDING: &str = "http://jabber.org/protocol/pubsub#get-pending";

/// Starts a component with an `authorize` node that has two owners and an item.
async fn component_with_authorize_node(fields: &[(&str, &str)]) -> TestComponent {
    let mut component = TestComponent::start().await;
    create_authorize_node(&mut component, fields).await;
    component
}

async fn create_authorize_node(component: &mut TestComponent, fields: &[(&str, &str)]) {
    let fields = [&[("access_model", "authorize")], fields].concat();
    component.create(OWNER, "n", &fields).await;
    affiliate(component, "other@localhost", "owner").await;
    component.publish(OWNER, "n", "1").await;
    component.messages().await;
}

pub async fn affiliate(component: &mut TestComponent, entity: &str, affiliation: &str) {
    let entry = format!("<affiliation jid='{entity}' affiliation='{affiliation}'/>");
    let content = format!("<affiliations node='n'>{entry}</affiliations>");
    let answer = component.owner(OWNER, "set", &content).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
}

async fn request(component: &mut TestComponent, jid: &str) -> Element {
    component.pubsub(jid, "set", &format!("<subscribe node='n' jid='{jid}'/>")).await
}

/// Returns the state in the reply to a subscribe request, or in an event about a subscription.
pub fn state(answer: &Element) -> String {
    let outer = answer.get_child("pubsub", PUBSUB).or_else(|| answer.get_child("event", EVENT));
    let subscription = outer.unwrap_or_else(|| panic!("{}", shown(answer)));
    let subscription = subscription.children().next().unwrap();
    assert_eq!(subscription.name(), "subscription", "{}", shown(answer));
    let attr = |name| subscription.attr(name).unwrap();
    format!("{} {} {}", attr("node"), attr("jid"), attr("subscription"))
}

/// Returns recipient and kind of each message received so far.
pub async fn received_messages(component: &mut TestComponent) -> Vec<String> {
    let kind = |message: &Element| {
        let content = message.children().next().unwrap();
        let inner = content.children().next().unwrap();
        let what = match (content.name(), inner.name()) {
            ("x", _) => format!("asked about {}", field(content, "pubsub#subscriber_jid")),
            ("event", "subscription") => state(message),
            ("pubsub", "affiliations") => {
                let entry = inner.children().next().unwrap();
                assert_eq!(entry.attr("jid"), message.attr("to"));
                entry.attr("affiliation").unwrap().to_owned()
            }
            (_, other) => other.to_owned(),
        };
        format!("{}: {what}", message.attr("to").unwrap())
    };
    let mut messages: Vec<_> = component.messages().await.iter().map(kind).collect();
    messages.sort_unstable();
    messages
}

fn field(form: &Element, var: &str) -> String {
    let field = form.children().find(|child| child.attr("var") == Some(var));
    field.unwrap_or_else(|| panic!("{var}")).children().map(Element::text).collect()
}

fn form(kind: &str, fields: &[(&str, &str)]) -> String {
    let field =
        |(var, value): &(&str, &str)| format!("<field var='{var}'><value>{value}</value></field>");
    let fields: String = fields.iter().map(field).collect();
    format!(
        "<x xmlns='jabber:x:data' type='{kind}'>\
         <field var='FORM_TYPE'><value>{AUTHORIZATION}</value></field>{fields}</x>"
    )
}

async fn answer(component: &mut TestComponent, by: &str, jid: &str, allow: &str) {
    let fields = [("pubsub#node", "n"), ("pubsub#subscriber_jid", jid), ("pubsub#allow", allow)];
    message(component, by, &form("submit", &fields)).await;
}

async fn message(component: &mut TestComponent, by: &str, content: &str) {
    component
        .send(&format!("<message from='{by}' to='{SERVICE}' id='a1'>{content}</message>"))
        .await;
}

#[tokio::test]
async fn s8_6_owner_approves_a_subscription() {
    let mut component = component_with_authorize_node(&[]).await;
    let pending = request(&mut component, READER).await;
    assert_eq!(state(&pending), format!("n {READER} pending"));
    let asked = component.messages().await;
    let to: Vec<_> = asked.iter().map(|message| message.attr("to").unwrap()).collect();
    assert_eq!(to, ["other@localhost", "owner@localhost"]);
    let form = asked[0].get_child("x", "jabber:x:data").unwrap();
    assert_eq!(form.attr("type"), Some("form"));
    for (var, value) in [
        ("FORM_TYPE", AUTHORIZATION),
        ("pubsub#node", "n"),
        ("pubsub#subscriber_jid", READER),
        ("pubsub#allow", "false"),
    ] {
        assert_eq!(field(form, var), value);
    }
    // A pending subscriber receives nothing (§6.5.9.3), and a repeated request is an error
    // (§6.1.3.7).
    component.publish(OWNER, "n", "2").await;
    let again = request(&mut component, READER).await;
    assert_eq!(error(&again), "auth not-authorized pending-subscription");
    let items = component.pubsub(READER, "get", "<items node='n'/>").await;
    assert_eq!(error(&items), "auth not-authorized not-subscribed");
    assert_eq!(received_messages(&mut component).await, Vec::<String>::new());

    answer(&mut component, OTHER, READER, "true").await;
    let approved = [format!("{READER}: items"), format!("{READER}: n {READER} subscribed")];
    assert_eq!(received_messages(&mut component).await, approved);
    assert_eq!(component.items(READER, "n").await, ["1", "2"]);
    component.publish(OWNER, "n", "3").await;
    assert_eq!(received_messages(&mut component).await, [format!("{READER}: items")]);
    // The second owner's answer is too late, and changes nothing.
    answer(&mut component, OWNER, READER, "0").await;
    assert_eq!(received_messages(&mut component).await, Vec::<String>::new());
    assert_eq!(state(&request(&mut component, READER).await), format!("n {READER} subscribed"));
}

#[tokio::test]
async fn s8_6_owner_denies_or_postpones_a_subscription() {
    let mut component = component_with_authorize_node(&[]).await;
    request(&mut component, READER).await;
    component.messages().await;
    message(&mut component, OWNER, &form("cancel", &[])).await;
    let again = request(&mut component, READER).await;
    assert_eq!(error(&again), "auth not-authorized pending-subscription");
    answer(&mut component, OWNER, READER, "false").await;
    assert_eq!(received_messages(&mut component).await, [format!("{READER}: n {READER} none")]);
    assert_eq!(state(&request(&mut component, READER).await), format!("n {READER} pending"));
}

#[tokio::test]
async fn s8_6_invalid_submission_changes_nothing() {
    let mut component = component_with_authorize_node(&[]).await;
    request(&mut component, READER).await;
    component.messages().await;
    let fields = |node, jid, allow| {
        [("pubsub#node", node), ("pubsub#subscriber_jid", jid), ("pubsub#allow", allow)]
    };
    for (by, content, refused) in [
        (STRANGER, form("submit", &fields("n", READER, "1")), Some("auth forbidden")),
        (READER, form("submit", &fields("n", READER, "1")), Some("auth forbidden")),
        (OWNER, form("submit", &fields("none", READER, "1")), Some("cancel item-not-found")),
        (OWNER, form("submit", &fields("n", "@", "1")), Some("modify not-acceptable")),
        (OWNER, form("submit", &fields("n", READER, "2")), Some("modify not-acceptable")),
        (OWNER, form("submit", &fields("n", READER, "1")[..2]), Some("modify not-acceptable")),
        (OWNER, form("result", &fields("n", READER, "1")), Some("modify bad-request")),
        // Unknown fields are ignored (XEP-0004 §3.1); the others are validated.
        (
            OWNER,
            form("submit", &[&[("x#y", "1")], &fields("n", READER, "2")[..]].concat()),
            Some("modify not-acceptable"),
        ),
        // An answer does not subscribe a JID without a request, and messages that are not answers
        // get no reply.
        (OWNER, form("submit", &fields("n", STRANGER, "1")), None),
        (OWNER, "<body>yes</body>".to_owned(), None),
        (OWNER, "<x xmlns='jabber:x:data' type='submit'/>".to_owned(), None),
    ] {
        message(&mut component, by, &content).await;
        let ping = component.ask(OWNER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
        assert_eq!(ping.attr("type"), Some("result"));
        let answers = component.messages().await;
        let answers: Vec<_> =
            answers.iter().map(|answer| (answer.attr("to"), error(answer))).collect();
        let expected: Vec<_> =
            refused.map(|refused| (Some(by), refused.to_owned())).into_iter().collect();
        assert_eq!(answers, expected, "{content}");
    }
    let again = request(&mut component, READER).await;
    assert_eq!(error(&again), "auth not-authorized pending-subscription");
    assert_eq!(state(&request(&mut component, STRANGER).await), format!("n {STRANGER} pending"));
}

/// §6.1.4, §8.7.4: an entity on the whitelist, or added to it, needs no approval; an outcast is
/// refused.
#[tokio::test]
async fn s6_1_4_affiliation_admits_or_rejects_without_approval() {
    let mut component = component_with_authorize_node(&[]).await;
    for (jid, affiliation, becomes) in [
        (READER, "member", "subscribed"),
        ("a@localhost", "publisher", "subscribed"),
        ("b@localhost", "owner", "subscribed"),
        ("c@localhost", "outcast", "none"),
        ("d@localhost", "publish-only", "none"),
    ] {
        request(&mut component, jid).await;
        component.messages().await;
        let bare = jid.split('/').next().unwrap();
        affiliate(&mut component, bare, affiliation).await;
        let mut expected =
            vec![format!("{bare}: {affiliation}"), format!("{jid}: n {jid} {becomes}")];
        // An admitted subscriber is sent the last item (§12.2).
        expected.extend((becomes == "subscribed").then(|| format!("{jid}: items")));
        expected.sort_unstable();
        assert_eq!(received_messages(&mut component).await, expected);
    }
    affiliate(&mut component, "e@localhost", "member").await;
    assert_eq!(component.items("e@localhost/x", "n").await, ["1"]);
    let answer = request(&mut component, "e@localhost/x").await;
    assert_eq!(state(&answer), "n e@localhost/x subscribed");
}

#[tokio::test]
async fn s8_6_new_access_model_admits_or_ends_pending_subscriptions() {
    let mut component = component_with_authorize_node(&[]).await;
    request(&mut component, READER).await;
    component.messages().await;
    component.configure(OWNER, "n", &[("access_model", "open")]).await;
    let let_in = [format!("{READER}: items"), format!("{READER}: n {READER} subscribed")];
    assert_eq!(received_messages(&mut component).await, let_in);
    // A subscriber keeps its subscription when the access model becomes `authorize`.
    component.configure(OWNER, "n", &[("access_model", "authorize")]).await;
    request(&mut component, STRANGER).await;
    component.messages().await;
    component.configure(OWNER, "n", &[("access_model", "whitelist")]).await;
    let shut_out = [format!("{READER}: n {READER} none"), format!("{STRANGER}: n {STRANGER} none")];
    assert_eq!(received_messages(&mut component).await, shut_out);
}

/// §6.1.7: a configuration that removes all items leaves no last item for the subscribers that it
/// admits.
#[tokio::test]
async fn s6_1_7_new_subscribers_get_no_removed_items() {
    for dropping in ["persist_items", "max_items"] {
        let mut component = component_with_authorize_node(&[]).await;
        request(&mut component, READER).await;
        component.messages().await;
        component.configure(OWNER, "n", &[("access_model", "open"), (dropping, "0")]).await;
        assert_eq!(
            received_messages(&mut component).await,
            [format!("{READER}: n {READER} subscribed")]
        );
    }
}

#[tokio::test]
async fn s8_8_owners_manage_pending_subscriptions() {
    let mut component = component_with_authorize_node(&[]).await;
    for jid in ["a@localhost", "b@localhost", "c@localhost"] {
        request(&mut component, jid).await;
    }
    component.messages().await;
    // Pending subscriptions are not in the owner's list (§8.8.1.2), but in the list of the
    // subscriber (§5.6).
    let list = component.owner(OWNER, "get", "<subscriptions node='n'/>").await;
    assert!(!shown(&list).contains("localhost' subscription"), "{}", shown(&list));
    let own = component.pubsub("a@localhost/x", "get", "<subscriptions/>").await;
    assert!(shown(&own).contains("subscription='pending'"), "{}", shown(&own));
    let entries = "<subscription jid='a@localhost' subscription='subscribed'/>\
                   <subscription jid='b@localhost' subscription='none'/>\
                   <subscription jid='c@localhost' subscription='pending'/>";
    let set = format!("<subscriptions node='n'>{entries}</subscriptions>");
    let answer = component.owner(OWNER, "set", &set).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    assert_eq!(
        received_messages(&mut component).await,
        [
            "a@localhost: items",
            "a@localhost: items",
            "a@localhost: n a@localhost subscribed",
            "b@localhost: n b@localhost none"
        ][1..]
    );
    // Unsubscribing withdraws a request (§8.6), without a notification.
    component.granted("c@localhost/x", "<unsubscribe node='n' jid='c@localhost'/>").await;
    assert_eq!(received_messages(&mut component).await, Vec::<String>::new());
    assert_eq!(state(&request(&mut component, "c@localhost").await), "n c@localhost pending");
    component.messages().await;
    // An owner cannot set the state `pending`.
    let entry = "<subscription jid='a@localhost' subscription='pending'/>";
    let set = format!("<subscriptions node='n'>{entry}</subscriptions>");
    let refused = component.owner(OWNER, "set", &set).await;
    assert_eq!(error(&refused), "modify not-acceptable");
    assert!(shown(&refused).contains("subscription='subscribed'"), "{}", shown(&refused));
    // Pending subscribers are notified of a deletion too (§8.4.2).
    component.owner(OWNER, "set", "<delete node='n'/>").await;
    assert_eq!(
        received_messages(&mut component).await,
        ["a@localhost: delete", "c@localhost: delete"]
    );
}

#[tokio::test]
async fn s8_7_owner_retrieves_pending_subscriptions() {
    let mut component = component_with_authorize_node(&[]).await;
    let command = |session: &str, form: &str| {
        format!(
            "<command xmlns='http://jabber.org/protocol/commands' node='{GET_PENDING}' \
             action='execute'{session}>{form}</command>"
        )
    };
    let stranger = component.ask(STRANGER, "set", &command("", "")).await;
    assert_eq!(error(&stranger), "cancel forbidden");
    request(&mut component, READER).await;
    request(&mut component, STRANGER).await;
    component.messages().await;
    for (node, expected) in [("none", "cancel item-not-found"), ("n", "")] {
        let begun = component.ask(OWNER, "set", &command("", "")).await;
        let stage = begun.children().next().unwrap();
        assert_eq!(stage.attr("status"), Some("executing"));
        let offered = stage.get_child("x", "jabber:x:data").unwrap();
        assert_eq!(field(offered, "FORM_TYPE"), AUTHORIZATION);
        // The field has the type of §8.6, for libraries that check it; the names of the nodes are
        // readable.
        let chosen = offered.children().find(|field| field.attr("var") == Some("pubsub#node"));
        assert_eq!(chosen.unwrap().attr("type"), Some("text-single"));
        assert_eq!(field(offered, "pubsub#node"), "n");
        assert!(shown(offered).contains("type='fixed'><value>n</value>"), "{}", shown(offered));
        let session = format!(" sessionid='{}'", stage.attr("sessionid").unwrap());
        let done = form("submit", &[("pubsub#node", node)]);
        let done = component.ask(OWNER, "set", &command(&session, &done)).await;
        match expected {
            "" => assert_eq!(done.children().next().unwrap().attr("status"), Some("completed")),
            refused => assert_eq!(error(&done), refused),
        }
    }
    let asked = [READER, STRANGER].map(|jid| format!("{OWNER}: asked about {jid}"));
    assert_eq!(received_messages(&mut component).await, asked);
}

#[tokio::test]
async fn s8_6_pending_subscription_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    create_authorize_node(&mut component, &[]).await;
    request(&mut component, READER).await;
    component.messages().await;
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    let own = component.pubsub(READER, "get", "<subscriptions/>").await;
    assert!(shown(&own).contains("subscription='pending'"), "{}", shown(&own));
    component.publish(OWNER, "n", "2").await;
    assert_eq!(received_messages(&mut component).await, Vec::<String>::new());
    answer(&mut component, OWNER, READER, "1").await;
    let approved = [format!("{READER}: items"), format!("{READER}: n {READER} subscribed")];
    assert_eq!(received_messages(&mut component).await, approved);
}

/// §8.6: the form has the SubID of the subscription, and the answer returns it.
#[tokio::test]
async fn s8_6_authorization_form_has_the_subid() {
    let configure = |config: &mut gjallar::config::Config| config.limits.max_subids = 2;
    let store = Arc::new(gjallar::store::MemoryStore::new());
    let mut component = TestComponent::with(store, configure).await;
    create_authorize_node(&mut component, &[]).await;
    let pending = request(&mut component, READER).await;
    let pending = pending.get_child("pubsub", PUBSUB).unwrap().children().next().unwrap();
    let subid = pending.attr("subid").unwrap().to_owned();
    let asked = component.messages().await;
    assert_eq!(asked.len(), 2);
    for message in &asked {
        let asked = message.get_child("x", "jabber:x:data").unwrap();
        assert_eq!(field(asked, "pubsub#subid"), subid);
        assert!(!message.children().any(|child| child.name() == "headers"));
    }
    let answer = form(
        "submit",
        &[
            ("pubsub#subid", &subid),
            ("pubsub#node", "n"),
            ("pubsub#subscriber_jid", READER),
            ("pubsub#allow", "true"),
        ],
    );
    component.send(&format!("<message from='{OWNER}' to='{SERVICE}'>{answer}</message>")).await;
    let messages = component.messages().await;
    let notice = messages.iter().find(|message| message.attr("to") == Some(READER)).unwrap();
    assert_eq!(state(notice), format!("n {READER} subscribed"));
}

/// A digest period begins with the subscription, not with the request for it.
#[tokio::test]
async fn s8_6_digest_has_no_items_from_before_the_approval() {
    let mut component =
        component_with_authorize_node(&[("send_last_published_item", "never")]).await;
    let options = "http://jabber.org/protocol/pubsub#subscribe_options";
    let field =
        |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
    let fields = field("FORM_TYPE", options)
        + &field("pubsub#digest", "1")
        + &field("pubsub#digest_frequency", "1000");
    let form_of_options = format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
    component
        .granted(
            READER,
            &format!("<subscribe node='n' jid='{READER}'/><options>{form_of_options}</options>"),
        )
        .await;
    component.publish(OWNER, "n", "before").await;
    component.messages().await;
    let allow = [("pubsub#node", "n"), ("pubsub#subscriber_jid", READER), ("pubsub#allow", "1")];
    let answer = form("submit", &allow);
    component.send(&format!("<message from='{OWNER}' to='{SERVICE}'>{answer}</message>")).await;
    component.messages().await;
    component.publish(OWNER, "n", "after").await;
    let digest = loop {
        let message = component.message().await;
        if message.attr("to") == Some(READER) {
            break shown(&message);
        }
    };
    assert!(digest.contains("id='after'") && !digest.contains("id='before'"), "{digest}");
}
