//! The access models `presence` and `roster` (§4.5), and roster access granted by the server
//! (XEP-0356).

use std::sync::Arc;

use gjallar::{config::Config, store::MemoryStore};
use minidom::Element;

use crate::{
    support::component::{SERVICE, TestComponent, error, event, shown},
    xep0060::s12_3_presence::name_nodes,
};

const OWNER: &str = "owner@localhost/desk";
const FRIEND: &str = "friend@localhost/phone";
const FOLLOWER: &str = "follower@localhost/phone";
const STRANGER: &str = "stranger@far.example/x";

/// Server that grants access to rosters; all rosters have the same content.
struct Server {
    component: TestComponent,
    roster: String,
    is_readable: bool,
    read: usize,
}

fn entry(jid: &str, subscription: &str, group: &str) -> String {
    format!("<item jid='{jid}' subscription='{subscription}'><group>{group}</group></item>")
}

async fn start(roster_seconds: u64) -> Server {
    let configure = |config: &mut Config| {
        config.limits.roster_seconds = roster_seconds;
        // With this policy, owners of deleted nodes are irrelevant.
        let own_creators = "nodes = '*'\ncreators = ['server']";
        config.policies.push(toml::from_str(own_creators).unwrap());
    };
    let component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    let roster =
        entry("friend@localhost", "both", "Friends") + &entry("follower@localhost", "to", "Family");
    Server { component, roster, is_readable: true, read: 0 }
}

impl Server {
    async fn grant(&mut self, from: &str, version: u8, perm: &str) {
        let privilege =
            format!("<privilege xmlns='urn:xmpp:privilege:{version}'>{perm}</privilege>");
        self.component
            .send(&format!("<message from='{from}' to='{SERVICE}' id='p'>{privilege}</message>"))
            .await;
        // Stanzas of one sender are processed in order.
        self.component.ask(from, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    }

    /// Sends a request; answers roster queries until the reply arrives.
    async fn ask(&mut self, from: &str, kind: &str, content: &str) -> Element {
        let iq = format!("<iq type='{kind}' id='q' from='{from}' to='{SERVICE}'>{content}</iq>");
        self.component.send(&iq).await;
        loop {
            let stanza = self.component.answer().await;
            if stanza.attr("id") == Some("q") {
                return stanza;
            }
            assert!(shown(&stanza).contains("jabber:iq:roster"), "{}", shown(&stanza));
            self.read += 1;
            let (to, id) = (stanza.attr("to").unwrap(), stanza.attr("id").unwrap());
            let items = if to == "owner@localhost" { self.roster.as_str() } else { "" };
            let (kind, content) = match to {
                "gone@localhost" => ("error", refused("item-not-found")),
                _ if !self.is_readable => ("error", refused("resource-constraint")),
                _ => ("result", format!("<query xmlns='jabber:iq:roster'>{items}</query>")),
            };
            let answer =
                format!("<iq type='{kind}' from='{to}' to='{SERVICE}' id='{id}'>{content}</iq>");
            self.component.send(&answer).await;
        }
    }

    async fn pubsub(&mut self, from: &str, kind: &str, content: &str) -> Element {
        let content =
            format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub>");
        self.ask(from, kind, &content).await
    }

    async fn create(&mut self, node: &str, fields: &str) -> Element {
        let form_type = "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#node_config</value></field>";
        let form = format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x>");
        self.pubsub(OWNER, "set", &format!("<create node='{node}'/><configure>{form}</configure>"))
            .await
    }

    async fn configure(&mut self, from: &str, node: &str, fields: &str) -> Element {
        let form_type = "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#node_config</value></field>";
        let form = format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x>");
        let configure = format!("<configure node='{node}'>{form}</configure>");
        self.ask(from, "set", &format!("<pubsub xmlns='{OWNERS}'>{configure}</pubsub>")).await
    }

    async fn configured(&mut self, from: &str, node: &str, fields: &str) {
        let answer = self.configure(from, node, fields).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    }

    async fn affiliate(&mut self, from: &str, node: &str, jid: &str, affiliation: &str) {
        let entry = format!("<affiliation jid='{jid}' affiliation='{affiliation}'/>");
        let list = format!("<affiliations node='{node}'>{entry}</affiliations>");
        let content = format!("<pubsub xmlns='{OWNERS}'>{list}</pubsub>");
        assert_eq!(self.ask(from, "set", &content).await.attr("type"), Some("result"));
    }

    async fn subscribe(&mut self, jid: &str, node: &str) -> String {
        let answer =
            self.pubsub(jid, "set", &format!("<subscribe node='{node}' jid='{jid}'/>")).await;
        let is_granted = answer.attr("type") == Some("result");
        if is_granted { "subscribed".to_owned() } else { error(&answer) }
    }
}

fn refused(condition: &str) -> String {
    let condition = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>");
    format!("<error type='wait'>{condition}</error>")
}

fn field(name: &str, values: &[&str]) -> String {
    let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
    format!("<field var='pubsub#{name}'>{values}</field>")
}

const OWNERS: &str = "http://jabber.org/protocol/pubsub#owner";
const ROSTER: &str = "<perm access='roster' type='both'/>";

/// A roster may spell the domain of a contact differently than its server stamps it.
#[tokio::test]
async fn contacts_have_access_in_both_spellings_of_their_domains() {
    let (stamped, with_u_labels) = ("u@xn--bcher-kva.example", "u@bücher.example");
    for (contact, who) in [(with_u_labels, stamped), (stamped, with_u_labels)] {
        let mut server = start(60).await;
        server.roster = entry(contact, "both", "Family");
        server.grant("localhost", 2, ROSTER).await;
        server.create("presence", &field("access_model", &["presence"])).await;
        let groups = field("roster_groups_allowed", &["Family"]);
        server.create("roster", &(field("access_model", &["roster"]) + &groups)).await;
        for node in ["presence", "roster"] {
            assert_eq!(server.subscribe(who, node).await, "subscribed", "{who} {node}");
        }
    }
}

#[tokio::test]
async fn an_empty_name_is_no_roster_group() {
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    let groups = field("roster_groups_allowed", &["", "Family"]);
    server.create("roster", &(field("access_model", &["roster"]) + &groups)).await;
    let configure = format!("<pubsub xmlns='{OWNERS}'><configure node='roster'/></pubsub>");
    let form = shown(&server.ask(OWNER, "get", &configure).await);
    let (_, groups) = form.split_once("pubsub#roster_groups_allowed").unwrap();
    let (groups, _) = groups.split_once("</field>").unwrap();
    assert!(groups.contains("<value>Family</value>"), "{groups}");
    assert!(!groups.contains("<value/>") && !groups.contains("<value></value>"), "{groups}");
}

#[tokio::test]
async fn rosters_decide_access() {
    for version in [1, 2] {
        let mut server = start(60).await;
        server.grant("localhost", version, ROSTER).await;
        server.create("presence", &field("access_model", &["presence"])).await;
        let groups = field("roster_groups_allowed", &["Family", "Colleagues"]);
        server.create("roster", &(field("access_model", &["roster"]) + &groups)).await;
        let (no_presence, no_group) = (
            "auth not-authorized presence-subscription-required",
            "auth not-authorized not-in-roster-group",
        );
        for (jid, presence, roster) in [
            (FRIEND, "subscribed", no_group),
            (FOLLOWER, no_presence, "subscribed"),
            (STRANGER, no_presence, no_group),
            (OWNER, "subscribed", "subscribed"),
        ] {
            assert_eq!(server.subscribe(jid, "presence").await, presence, "{jid}");
            assert_eq!(server.subscribe(jid, "roster").await, roster, "{jid}");
            for (node, expected) in [("presence", presence), ("roster", roster)] {
                let items = server.pubsub(jid, "get", &format!("<items node='{node}'/>")).await;
                let got = match items.attr("type") {
                    Some("result") => "subscribed".to_owned(),
                    _ => error(&items),
                };
                assert_eq!(got, expected, "{jid} {node}");
                let query =
                    format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/>");
                let info = server.ask(jid, "get", &query).await;
                assert_eq!(
                    info.attr("type") == Some("result"),
                    expected == "subscribed",
                    "{jid} {node}"
                );
            }
        }
        // One read serves all requests.
        assert_eq!(server.read, 1);
    }
}

#[tokio::test]
async fn roster_access_models_are_refused_without_the_privilege() {
    let mut server = start(60).await;
    let refused = "modify not-acceptable unsupported-access-model";
    let is_refused =
        |answer: &Element| answer.attr("type") == Some("error") && error(answer) == refused;
    for (from, perm) in [
        ("localhost", "<perm access='message' type='outgoing'/>"),
        ("localhost", "<perm access='roster' type='none'/>"),
        ("localhost", "<perm access='roster' type='set'/>"),
        // Grants by other entities do not count.
        ("far.example", ROSTER),
        ("user@localhost", ROSTER),
        ("other.localhost", ROSTER),
    ] {
        server.grant(from, 2, perm).await;
        for model in ["presence", "roster"] {
            let answer = server.create("n", &field("access_model", &[model])).await;
            assert!(is_refused(&answer), "{}", shown(&answer));
        }
        let default = "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><default/></pubsub>";
        let default = shown(&server.ask(OWNER, "get", default).await);
        assert!(
            !default.contains("<value>presence</value>") && !default.contains("roster_groups"),
            "{default}"
        );
    }
    server.grant("localhost", 2, ROSTER).await;
    let default = "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><default/></pubsub>";
    let default = shown(&server.ask(OWNER, "get", default).await);
    assert!(
        default.contains("<value>presence</value>") && default.contains("roster_groups"),
        "{default}"
    );
    assert_eq!(
        server.create("n", &field("access_model", &["roster"])).await.attr("type"),
        Some("result")
    );
    // A roster of an owner at another server can never admit anybody (§8.1.2).
    let far = "far@other.localhost/x";
    let form = |fields: &str| {
        let form_type = "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#node_config</value></field>";
        format!(
            "<configure><x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x></configure>"
        )
    };
    for model in ["presence", "roster"] {
        let create = format!("<create node='far'/>{}", form(&field("access_model", &[model])));
        let answer = server.pubsub(far, "set", &create).await;
        assert!(is_refused(&answer), "{}", shown(&answer));
    }
    let made = server.pubsub(far, "set", "<create node='far'/>").await;
    assert_eq!(made.attr("type"), Some("result"));
    let configure = form(&field("access_model", &["presence"]));
    let configure = configure.replacen("<configure>", "<configure node='far'>", 1);
    let configure =
        format!("<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'>{configure}</pubsub>");
    let answer = server.ask(far, "set", &configure).await;
    assert!(is_refused(&answer), "{}", shown(&answer));
    // The node stays; a new connection begins without the grant.
    server.component.reconnected_by_force().await;
    let answer = server.create("m", &field("access_model", &["presence"])).await;
    assert!(is_refused(&answer), "{}", shown(&answer));
}

#[tokio::test]
async fn a_former_contact_loses_its_subscription() {
    let mut server = start(1).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("n", &field("access_model", &["presence"])).await;
    assert_eq!(server.subscribe(FRIEND, "n").await, "subscribed");
    server.roster = entry("friend@localhost", "none", "Friends");
    // The service rereads the roster on its own.
    let ended = loop {
        let stanza = server.component.link.receive().await.unwrap();
        if stanza.name() == "message" {
            break stanza;
        }
        let (to, id) = (stanza.attr("to").unwrap(), stanza.attr("id").unwrap());
        let query = format!("<query xmlns='jabber:iq:roster'>{}</query>", server.roster);
        let answer = format!("<iq type='result' from='{to}' to='{SERVICE}' id='{id}'>{query}</iq>");
        server.component.send(&answer).await;
    };
    assert_eq!(ended.attr("to"), Some(FRIEND));
    assert_eq!(event(&ended).attr("subscription"), Some("none"));
    let answer = server.subscribe(FRIEND, "n").await;
    assert_eq!(answer, "auth not-authorized presence-subscription-required");
}

#[tokio::test]
async fn a_new_roster_model_ends_subscriptions_outside_the_roster() {
    let mut server = start(60).await;
    server.grant("localhost", 1, "<perm access='roster' type='get'/>").await;
    server.create("n", "").await;
    for jid in [FRIEND, STRANGER] {
        assert_eq!(server.subscribe(jid, "n").await, "subscribed");
    }
    server.configured(OWNER, "n", &field("access_model", &["presence"])).await;
    let publish = "<publish node='n'><item id='1'><x xmlns='urn:x'/></item></publish>";
    assert_eq!(server.pubsub(OWNER, "set", publish).await.attr("type"), Some("result"));
    let messages = [server.component.message().await, server.component.message().await];
    assert_eq!(messages[0].attr("to"), Some(STRANGER));
    assert_eq!(event(&messages[0]).attr("subscription"), Some("none"));
    assert_eq!((messages[1].attr("to"), event(&messages[1]).name()), (Some(FRIEND), "items"));
}

#[tokio::test]
async fn only_owners_end_subscriptions_while_rosters_cannot_be_read() {
    for affiliation in ["none", "outcast"] {
        let mut server = start(0).await;
        server.grant("localhost", 2, ROSTER).await;
        let groups = field("roster_groups_allowed", &["Family"]);
        server.create("n", &(field("access_model", &["roster"]) + &groups)).await;
        assert_eq!(server.subscribe(FOLLOWER, "n").await, "subscribed");
        server.is_readable = false;
        let form_type = "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#node_config</value></field>";
        let form = format!(
            "<x xmlns='jabber:x:data' type='submit'>{form_type}{}</x>",
            field("roster_groups_allowed", &["Family", "Friends"])
        );
        let configure = format!("<configure node='n'>{form}</configure>");
        let affiliate = |affiliation: &str| {
            let follower =
                format!("<affiliation jid='follower@localhost' affiliation='{affiliation}'/>");
            format!("<affiliations node='n'>{follower}</affiliations>")
        };
        for (content, is_left) in
            [(configure, true), (affiliate("member"), true), (affiliate(affiliation), false)]
        {
            let content = format!("<pubsub xmlns='{OWNERS}'>{content}</pubsub>");
            assert_eq!(server.ask(OWNER, "set", &content).await.attr("type"), Some("result"));
            let own = server.pubsub(FOLLOWER, "get", "<subscriptions node='n'/>").await;
            assert_eq!(shown(&own).contains("subscribed"), is_left, "{content}");
        }
    }
}

#[tokio::test]
async fn a_deleted_owner_account_has_no_contacts() {
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    server.component.create("gone@localhost", "n", &[("access_model", "presence")]).await;
    let no_presence = "auth not-authorized presence-subscription-required";
    assert_eq!(server.subscribe(FRIEND, "n").await, no_presence);
    assert_eq!(server.read, 1);
}

/// An owner that appoints another owner learns nothing about the roster of that owner, neither
/// through subscriptions nor through lists.
#[tokio::test]
async fn rosters_of_appointed_owners_are_not_read() {
    const CREATOR: &str = "creator@localhost/x";
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    let groups = [("access_model", "roster"), ("roster_groups_allowed", "Friends")];
    for (node, fields) in [("presence", &[("access_model", "presence")][..]), ("roster", &groups)] {
        server.component.create(CREATOR, node, fields).await;
        server.affiliate(CREATOR, node, "owner@localhost", "owner").await;
        let refused = server.subscribe(FRIEND, node).await;
        assert!(refused.starts_with("auth not-authorized"), "{refused}");
        let friend = format!("<subscription jid='{FRIEND}' subscription='subscribed'/>");
        let list = format!("<subscriptions node='{node}'>{friend}</subscriptions>");
        let content = format!("<pubsub xmlns='{OWNERS}'>{list}</pubsub>");
        assert_eq!(server.ask(CREATOR, "set", &content).await.attr("type"), Some("error"));
        // The same applies after the creator has left the node.
        server.affiliate(CREATOR, node, "creator@localhost", "publisher").await;
        let refused = server.subscribe(FRIEND, node).await;
        assert!(refused.starts_with("auth not-authorized"), "{refused}");
    }
    // Only the roster of the creator was read, once.
    assert_eq!(server.read, 1);
    for node in ["presence", "roster"] {
        // Other changes do not select a roster.
        server.configured(OWNER, node, &field("title", &["T"])).await;
        server.affiliate(OWNER, node, "creator@localhost", "none").await;
        let refused = server.subscribe(FRIEND, node).await;
        assert!(refused.starts_with("auth not-authorized"), "{refused}");
        assert_eq!(server.read, if node == "presence" { 1 } else { 2 });
        // The owner that submits the access model consents to the use of its roster.
        server.configured(OWNER, node, &field("access_model", &[node])).await;
        assert_eq!(server.subscribe(FRIEND, node).await, "subscribed");
    }
    assert_eq!(server.read, 2);
}

/// An owner learns nothing about the roster of the creator by choosing the access model or the
/// groups, neither before nor after the choosing owner has left.
#[tokio::test]
async fn a_roster_is_not_read_for_the_choice_of_another_owner() {
    const CHOOSER: &str = "chooser@localhost/x";
    const HELPER: &str = "helper@localhost/x";
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    let friends = field("roster_groups_allowed", &["Friends"]);
    let family = field("access_model", &["roster"]) + &field("roster_groups_allowed", &["Family"]);
    for (node, creation, choice) in [
        ("presence", String::new(), field("access_model", &["presence"])),
        ("roster", String::new(), field("access_model", &["roster"]) + &friends),
        ("groups", family, friends.clone()),
    ] {
        assert_eq!(server.create(node, &creation).await.attr("type"), Some("result"));
        let read = server.read;
        for owner in ["chooser@localhost", "helper@localhost"] {
            server.affiliate(OWNER, node, owner, "owner").await;
        }
        // An owner's form without a change of these fields does not select a roster.
        server.configured(HELPER, node, &creation).await;
        server.configured(CHOOSER, node, &choice).await;
        // Nor does the form of another owner with the chosen model.
        server.configured(OWNER, node, &(choice.clone() + &field("title", &["T"]))).await;
        let enrol = format!("<subscription jid='{FRIEND}' subscription='subscribed'/>");
        let enrol = format!("<subscriptions node='{node}'>{enrol}</subscriptions>");
        let enrol = format!("<pubsub xmlns='{OWNERS}'>{enrol}</pubsub>");
        for is_left in [false, true] {
            if is_left {
                server.affiliate(HELPER, node, "chooser@localhost", "none").await;
                server.configured(OWNER, node, &field("description", &["D"])).await;
            }
            let refused = server.subscribe(FRIEND, node).await;
            assert!(refused.starts_with("auth not-authorized"), "{node} {refused}");
            assert_eq!(server.ask(HELPER, "set", &enrol).await.attr("type"), Some("error"));
        }
        // Besides the roster that the creator selected, at most the roster of the chooser was read.
        assert!(server.read <= read + 1, "{node}");
        server.configured(OWNER, node, &choice).await;
        assert_eq!(server.subscribe(FRIEND, node).await, "subscribed", "{node}");
    }
    // A configuration request without rights reads no roster.
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("n", "").await;
    let answer = server.configure(STRANGER, "n", &field("access_model", &["presence"])).await;
    assert_eq!((error(&answer).as_str(), server.read), ("auth forbidden", 0));
}

#[tokio::test]
async fn publishing_does_not_wait_for_rosters() {
    let mut server = start(0).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("n", &field("access_model", &["presence"])).await;
    let read = server.read;
    let publish = "<publish node='n'><item id='1'><x xmlns='urn:x'/></item></publish>";
    assert_eq!(server.pubsub(OWNER, "set", publish).await.attr("type"), Some("result"));
    assert_eq!(server.read, read);
    assert_eq!(server.subscribe(FRIEND, "n").await, "subscribed");
    assert!(server.read > read);
}

/// Sends a subscribe request without waiting for the answer.
async fn send_subscribe(server: &mut Server) {
    let content = format!("<subscribe node='n' jid='{FRIEND}'/>");
    let content = format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub>");
    let iq = format!("<iq type='set' id='late' from='{FRIEND}' to='{SERVICE}'>{content}</iq>");
    server.component.send(&iq).await;
}

/// Returns the next roster query.
async fn roster_request(server: &mut Server, owner: &str) -> Element {
    let asked = server.component.answer().await;
    assert!(shown(&asked).contains("jabber:iq:roster"), "{}", shown(&asked));
    assert_eq!(asked.attr("to"), Some(owner));
    asked
}

async fn send_roster(server: &mut Server, asked: &Element, items: &str) {
    let (to, id) = (asked.attr("to").unwrap(), asked.attr("id").unwrap());
    let query = format!("<query xmlns='jabber:iq:roster'>{items}</query>");
    let answer = format!("<iq type='result' from='{to}' to='{SERVICE}' id='{id}'>{query}</iq>");
    server.component.send(&answer).await;
}

/// The node is not locked while rosters are read. If the node has other owners afterwards, their
/// rosters are read too.
#[tokio::test]
async fn missing_roster_delays_no_publish_at_the_node() {
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("n", &field("access_model", &["presence"])).await;
    send_subscribe(&mut server).await;
    let first = roster_request(&mut server, "owner@localhost").await;
    let published = server.component.publish(OWNER, "n", "1").await;
    assert_eq!(published.attr("type"), Some("result"));
    let deleted = server.component.owner(OWNER, "set", "<delete node='n'/>").await;
    assert_eq!(deleted.attr("type"), Some("result"));
    server
        .component
        .create("second@localhost/x", "n", &[("access_model", "presence"), ("title", "of another")])
        .await;
    send_roster(&mut server, &first, "").await;
    let second = roster_request(&mut server, "second@localhost").await;
    let published = server.component.publish("second@localhost/x", "n", "2").await;
    assert_eq!(published.attr("type"), Some("result"));
    send_roster(&mut server, &second, &entry("friend@localhost", "from", "Friends")).await;
    let subscribed = server.component.answer().await;
    assert_eq!(subscribed.attr("id"), Some("late"));
    assert_eq!(subscribed.attr("type"), Some("result"), "{}", shown(&subscribed));
}

/// §12.2 at nodes with roster access: contacts receive events of the nodes that their capabilities
/// name. A publish does not wait for rosters.
#[tokio::test]
async fn s12_2_capabilities_work_for_contacts() {
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("presence", &field("access_model", &["presence"])).await;
    let groups = field("roster_groups_allowed", &["Family"]);
    server.create("roster", &(field("access_model", &["roster"]) + &groups)).await;
    server.create("later", &field("access_model", &["whitelist"])).await;
    let nodes = ["presence", "roster", "later"];
    for node in nodes {
        let publish =
            format!("<publish node='{node}'><item id='1'><x xmlns='urn:x'/></item></publish>");
        assert_eq!(server.pubsub(OWNER, "set", &publish).await.attr("type"), Some("result"));
    }
    name_nodes(&mut server.component, FRIEND, &nodes).await;
    let asked = roster_request(&mut server, "owner@localhost").await;
    let published = server.component.publish(OWNER, "presence", "2").await;
    assert_eq!(published.attr("type"), Some("result"), "it waits for a roster");
    let roster = server.roster.clone();
    send_roster(&mut server, &asked, &roster).await;
    let sent = async |server: &mut Server| {
        let message = server.component.message().await;
        let items = event(&message);
        let item = items.children().next().unwrap().attr("id").unwrap().to_owned();
        format!("{} {} {item}", message.attr("to").unwrap(), items.attr("node").unwrap())
    };
    assert_eq!(sent(&mut server).await, format!("{FRIEND} presence 2"));
    for from in [FOLLOWER, STRANGER] {
        name_nodes(&mut server.component, from, &nodes).await;
    }
    assert_eq!(sent(&mut server).await, format!("{FOLLOWER} roster 1"));
    for node in nodes {
        server.component.publish(OWNER, node, "3").await;
    }
    assert_eq!(sent(&mut server).await, format!("{FRIEND} presence 3"));
    assert_eq!(sent(&mut server).await, format!("{FOLLOWER} roster 3"));
    server.component.configure(OWNER, "later", &[("access_model", "presence")]).await;
    assert_eq!(sent(&mut server).await, format!("{FRIEND} later 3"));
    assert_eq!(server.component.messages().await.len(), 0);
}

/// Formats a message with an item: `recipient node item`.
fn sent_item(message: &Element) -> String {
    let items = event(message);
    let item = items.children().next().unwrap().attr("id").unwrap().to_owned();
    format!("{} {} {item}", message.attr("to").unwrap(), items.attr("node").unwrap())
}

/// Returns the next message; answers roster queries before it.
async fn message_with_rosters(server: &mut Server) -> Element {
    if let Some(message) = server.component.take_messages().pop() {
        return message;
    }
    loop {
        let stanza = server.component.link.receive().await.unwrap();
        if stanza.name() == "message" {
            return stanza;
        }
        let roster = server.roster.clone();
        send_roster(server, &stanza, &roster).await;
    }
}

/// Creates a presence node and a roster node with an item each, and an implicit subscription of a
/// stranger to both.
async fn with_interested_stranger(roster_seconds: u64) -> Server {
    let mut server = start(roster_seconds).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("presence", &field("access_model", &["presence"])).await;
    let groups = field("roster_groups_allowed", &["Family"]);
    server.create("roster", &(field("access_model", &["roster"]) + &groups)).await;
    for node in ["presence", "roster"] {
        let item = "<item id='1'><x xmlns='urn:x'/></item>";
        let publish = format!("<publish node='{node}'>{item}</publish>");
        assert_eq!(server.pubsub(OWNER, "set", &publish).await.attr("type"), Some("result"));
    }
    name_nodes(&mut server.component, STRANGER, &["presence", "roster"]).await;
    server.ask(STRANGER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    server
}

/// §12.2: a contact that gets a presence subscription, or is added to a group in the roster of an
/// owner, receives the last item once.
#[tokio::test]
async fn s12_2_contacts_that_gain_access_by_a_roster_are_sent_the_last_item() {
    let mut server = with_interested_stranger(1).await;
    assert_eq!(server.component.take_messages(), []);
    for (subscription, group, node) in
        [("from", "Friends", "presence"), ("both", "Family", "roster")]
    {
        server.roster = entry("stranger@far.example", subscription, group);
        let message = message_with_rosters(&mut server).await;
        assert_eq!(sent_item(&message), format!("{STRANGER} {node} 1"));
    }
    // Both nodes now admit the contact, and the last item is not sent again.
    for node in ["presence", "roster"] {
        let publish =
            format!("<publish node='{node}'><item id='2'><x xmlns='urn:x'/></item></publish>");
        assert_eq!(server.pubsub(OWNER, "set", &publish).await.attr("type"), Some("result"));
        let message = message_with_rosters(&mut server).await;
        assert_eq!(sent_item(&message), format!("{STRANGER} {node} 2"));
    }
}

/// The server grants roster access at the start of a connection, and may withdraw it at any time.
#[tokio::test]
async fn withdrawn_permission_ends_the_wait_for_rosters() {
    let refused = "auth not-authorized presence-subscription-required";
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("n", &field("access_model", &["presence"])).await;
    server.grant("localhost", 2, "<perm access='roster' type='none'/>").await;
    let seconds = std::time::Duration::from_secs;
    let answer = tokio::time::timeout(seconds(1), server.subscribe(FRIEND, "n")).await;
    assert_eq!(answer.expect("a roster is awaited"), refused);
    server.component.reconnected_by_force().await;
    let answer = tokio::time::timeout(seconds(4), server.subscribe(FRIEND, "n")).await;
    assert_eq!(answer.expect("a roster is awaited"), refused);
    server.component.reconnected_by_force().await;
    send_subscribe(&mut server).await;
    server.component.send(&format!(
        "<message from='localhost' to='{SERVICE}'><privilege xmlns='urn:xmpp:privilege:2'>{ROSTER}</privilege></message>"
    )).await;
    let asked = roster_request(&mut server, "owner@localhost").await;
    send_roster(&mut server, &asked, &entry("friend@localhost", "from", "Friends")).await;
    let subscribed = server.component.answer().await;
    assert_eq!(subscribed.attr("type"), Some("result"), "{}", shown(&subscribed));
}

/// A roster in a stanza above the size limit counts as unreadable: no request waits for it.
#[tokio::test]
async fn oversized_roster_ends_the_wait() {
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("n", &field("access_model", &["presence"])).await;
    let friend = |n| entry(&format!("friend{n}@localhost"), "both", "Friends");
    server.roster.extend((0..8000).map(friend));
    let refused = tokio::time::timeout(std::time::Duration::from_secs(4), async {
        server.pubsub(FRIEND, "set", &format!("<subscribe node='n' jid='{FRIEND}'/>")).await
    });
    let refused = refused.await.expect("it waits until the roster does not come");
    assert_eq!(error(&refused), "auth not-authorized presence-subscription-required");
}

/// §12.13: administrators may subscribe anywhere, and stay subscribed when others lose access.
#[tokio::test]
async fn administrators_stay_subscribed_where_others_lose_access() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    for jid in [crate::support::component::ADMIN, FOLLOWER] {
        component.subscribe(jid, "n").await;
    }
    component.configure(OWNER, "n", &[("access_model", "whitelist")]).await;
    component.messages().await;
    component.publish(OWNER, "n", "1").await;
    let recipients = component.messages().await;
    let recipients: Vec<_> = recipients.iter().map(|message| message.attr("to").unwrap()).collect();
    assert_eq!(recipients, [crate::support::component::ADMIN]);
}

/// Sends requests from different senders without waiting for the answers; returns their number.
async fn send_all(server: &mut Server, content: &str) -> usize {
    for number in 0..WAITING {
        let from = format!("reader{number}@far.example/x");
        let iq = format!("<iq type='get' id='late' from='{from}' to='{SERVICE}'>{content}</iq>");
        server.component.send(&iq).await;
    }
    WAITING
}

/// More senders than are served concurrently.
const WAITING: usize = 80;

/// Requests that wait for rosters do not delay other requests, whatever their number.
#[tokio::test]
async fn requests_that_wait_for_rosters_do_not_block_other_senders() {
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("n", &field("access_model", &["presence"])).await;
    server.create("open", "").await;
    let items = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'/></pubsub>";
    let disco =
        |name: &str| format!("<query xmlns='http://jabber.org/protocol/disco#{name}' node='n'/>");
    let mut waiting = send_all(&mut server, items).await;
    let asked = roster_request(&mut server, "owner@localhost").await;
    waiting += send_all(&mut server, &disco("info")).await;
    waiting += send_all(&mut server, &disco("items")).await;
    // Capabilities wait for rosters too, and later requests of their resource wait behind them.
    for number in 0..WAITING {
        let from = format!("contact{number}@far.example/x");
        name_nodes(&mut server.component, &from, &["n"]).await;
    }
    let other = "other@far.example/x";
    let began = tokio::time::Instant::now();
    server.component.ask(other, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    for (from, node) in [(OWNER, "n"), (OWNER, "open")] {
        let published = server.component.publish(from, node, "1").await;
        assert_eq!(published.attr("type"), Some("result"));
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
    send_roster(&mut server, &asked, &entry("reader7@far.example", "from", "Friends")).await;
    let mut granted = 0;
    for _ in 0..waiting {
        let answer = server.component.answer().await;
        assert_eq!(answer.attr("id"), Some("late"), "{}", shown(&answer));
        granted += usize::from(answer.attr("type") == Some("result"));
    }
    assert_eq!(granted, 3);
}

/// A later request of a sender whose request waits for a roster is answered after it.
#[tokio::test]
async fn requests_of_one_sender_keep_their_order_while_one_waits_for_a_roster() {
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    server.create("n", &field("access_model", &["presence"])).await;
    send_subscribe(&mut server).await;
    let asked = roster_request(&mut server, "owner@localhost").await;
    for id in ["1", "2"] {
        let ping = "<ping xmlns='urn:xmpp:ping'/>";
        let iq = format!("<iq type='get' id='{id}' from='{FRIEND}' to='{SERVICE}'>{ping}</iq>");
        server.component.send(&iq).await;
    }
    server.component.ask(OWNER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    send_roster(&mut server, &asked, &entry("friend@localhost", "from", "Friends")).await;
    for id in ["late", "1", "2"] {
        assert_eq!(server.component.answer().await.attr("id"), Some(id));
    }
}

/// Missing rosters delay timer-driven operations at no other node, and nothing else at their own
/// nodes.
#[tokio::test]
async fn missing_rosters_delay_no_timers_at_other_nodes() {
    let mut server = start(1).await;
    server.grant("localhost", 2, ROSTER).await;
    server.roster = entry("friend@localhost", "both", "Friends");
    let model = ("access_model", "presence");
    for number in 0..4 {
        let owner = format!("silent{number}@localhost");
        let node = format!("a{number}");
        let fields = [model, ("item_expire", "1"), ("notify_retract", "1")];
        server.component.create(&owner, &node, &fields).await;
        let friend = format!("<subscription jid='{FRIEND}' subscription='subscribed'/>");
        let list = format!(
            "<affiliations node='{node}'><affiliation jid='friend@localhost' affiliation='member'/></affiliations>"
        );
        for content in [list, format!("<subscriptions node='{node}'>{friend}</subscriptions>")] {
            let content = format!("<pubsub xmlns='{OWNERS}'>{content}</pubsub>");
            assert_eq!(server.ask(&owner, "set", &content).await.attr("type"), Some("result"));
        }
    }
    server.create("n", &field("access_model", &["presence"])).await;
    assert_eq!(server.subscribe(FRIEND, "n").await, "subscribed");
    let began = tokio::time::Instant::now();
    server.roster = entry("friend@localhost", "none", "Friends");
    let mut silent = std::collections::BTreeSet::new();
    let (mut has_ended, mut expired) = (false, 0);
    // From now on the roster of one owner is answered, and those of the others are not.
    for number in 0..4 {
        let content =
            format!("<publish node='a{number}'><item id='1'><x xmlns='urn:x'/></item></publish>");
        let content =
            format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub>");
        let from = format!("silent{number}@localhost");
        let iq = format!("<iq type='set' id='p' from='{from}' to='{SERVICE}'>{content}</iq>");
        server.component.send(&iq).await;
    }
    while silent.len() < 4 || !has_ended || expired < 4 {
        let stanza = server.component.link.receive().await.unwrap();
        if stanza.name() == "message" {
            let event = stanza.get_child("event", crate::support::component::EVENT).unwrap();
            let items = event.children().find(|child| child.name() == "items");
            let mut gone = items.into_iter().flat_map(Element::children);
            expired += usize::from(gone.any(|child| child.name() == "retract"));
            let ended = event.children().find(|child| child.name() == "subscription");
            has_ended |= ended.is_some_and(|ended| {
                (ended.attr("node"), ended.attr("subscription")) == (Some("n"), Some("none"))
            });
        } else if stanza.attr("id") == Some("p") {
            assert_eq!(stanza.attr("type"), Some("result"), "{}", shown(&stanza));
        } else if stanza.attr("to") == Some("owner@localhost") {
            let roster = server.roster.clone();
            send_roster(&mut server, &stanza, &roster).await;
        } else {
            silent.insert(stanza.attr("to").unwrap().to_owned());
        }
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}

/// Returns the options of the groups field in a form, and whether the field is open to other
/// values.
fn offered(reply: &Element) -> (Vec<String>, bool) {
    let shown = shown(reply);
    let (_, rest) = shown.split_once("'pubsub#roster_groups_allowed'").expect("the field");
    let (field, _) = rest.split_once("</field>").unwrap();
    let options = field.split("<option label='").skip(1);
    let options = options.map(|option| option.split_once('\'').unwrap().0.to_owned()).collect();
    (options, field.contains("<open/>"))
}

/// Clients such as Psi and Converse choose among the options of a list, and unset a field without
/// options.
#[tokio::test]
async fn roster_groups_field_offers_allowed_and_own_groups() {
    let mut server = start(60).await;
    server.grant("localhost", 2, ROSTER).await;
    let default = format!("<pubsub xmlns='{OWNERS}'><default/></pubsub>");
    assert_eq!(offered(&server.ask(OWNER, "get", &default).await), (Vec::new(), true));
    let allowed = field("roster_groups_allowed", &["Work", "Friends"]);
    server.create("n", &(field("access_model", &["roster"]) + &allowed)).await;
    let configuration = format!("<pubsub xmlns='{OWNERS}'><configure node='n'/></pubsub>");
    let options = |names: &[&str]| (names.iter().map(|name| (*name).to_owned()).collect(), true);
    assert_eq!(
        offered(&server.ask(OWNER, "get", &configuration).await),
        options(&["Work", "Friends"])
    );
    assert_eq!(server.subscribe(FRIEND, "n").await, "subscribed");
    server.affiliate(OWNER, "n", "co-owner@localhost", "owner").await;
    for (from, names) in [
        (OWNER, &["Family", "Friends", "Work"][..]),
        ("co-owner@localhost/x", &["Work", "Friends"]),
        ("admin@localhost/x", &["Work", "Friends"]),
    ] {
        assert_eq!(offered(&server.ask(from, "get", &configuration).await), options(names));
    }
    assert_eq!(offered(&server.ask(OWNER, "get", &default).await), options(&["Family", "Friends"]));
    // Such a client submits only those values of each list that are options.
    let form = server.ask(OWNER, "get", &configuration).await;
    let form = form.children().next().unwrap().children().next().unwrap().children().next();
    let mut fields = String::new();
    for field in form.unwrap().children().filter(|child| child.name() == "field") {
        let values = |parent: &Element| {
            let values = parent.children().filter(|child| child.name() == "value");
            values.map(Element::text).collect::<Vec<_>>()
        };
        let options = field.children().filter(|child| child.name() == "option");
        let options: Vec<_> = options.flat_map(values).collect();
        let is_list = field.attr("type").unwrap().starts_with("list-");
        let kept = values(field).into_iter().filter(|value| !is_list || options.contains(value));
        let (var, title) = (field.attr("var").unwrap(), "<value>Other</value>".to_owned());
        let values = kept.map(|value| format!("<value>{value}</value>")).collect();
        let values = if var == "pubsub#title" { title } else { values };
        fields += &format!("<field var='{var}'>{values}</field>");
    }
    server.configured(OWNER, "n", &fields).await;
    let form = shown(&server.ask(OWNER, "get", &configuration).await);
    assert!(form.contains("<value>Other</value>"), "{form}");
    assert_eq!(server.subscribe(FRIEND, "n").await, "subscribed");
}
