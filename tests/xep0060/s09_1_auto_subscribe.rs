//! Implicit subscriptions by presence and capabilities (§9.1.3, §9.2, §12.2).

use minidom::Element;

use super::s12_3_presence::{
    INFO, LAPTOP, OWNER, PHONE, READER, component_with_node, name_nodes, presence, sent_items,
    subscribe,
};
use crate::support::component::{EVENT, SERVICE, TestComponent};

/// §9.1.3, §9.2: a resource whose presence has capabilities receives events of the nodes that these
/// name with `+notify`, if it may subscribe to the nodes.
#[tokio::test]
async fn s9_1_3_resource_receives_events_of_nodes_in_its_capabilities() {
    let mut component = TestComponent::start().await;
    for (node, model) in [("n", "open"), ("m", "open"), ("closed", "whitelist")] {
        component.create(OWNER, node, &[("access_model", model), ("notify_delete", "1")]).await;
        component.publish(OWNER, node, "before").await;
    }
    let come = async |component: &mut TestComponent, from: &str, ver: &str| {
        let caps = format!(
            "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:client' ver='{ver}'/>"
        );
        component.send(&format!("<presence from='{from}' to='{SERVICE}'>{caps}</presence>")).await;
    };
    let can = |question: &Element, nodes: &[&str]| {
        let (id, to) = (question.attr("id").unwrap(), question.attr("to").unwrap());
        let feature = |node: &&str| format!("<feature var='{node}'/>");
        let features: String = nodes.iter().map(feature).collect();
        format!(
            "<iq type='result' from='{to}' to='{SERVICE}' id='{id}'><query xmlns='{INFO}'>\
             {features}</query></iq>"
        )
    };
    let received = async |component: &mut TestComponent| {
        let received = component.messages().await.into_iter().filter_map(|message| {
            let to = message.attr("to").unwrap().rsplit('/').next().unwrap();
            let items = message.get_child("event", EVENT)?.get_child("items", EVENT)?;
            let item = items.children().next()?.attr("id")?;
            Some(format!("{to} {} {item}", items.attr("node")?))
        });
        let mut received: Vec<_> = received.collect();
        received.sort_unstable();
        received
    };
    come(&mut component, PHONE, "1").await;
    let question = component.answer().await;
    assert_eq!(question.attr("to"), Some(PHONE));
    assert_eq!(question.get_child("query", INFO).unwrap().attr("node"), Some("urn:client#1"));
    // Replies from other addresses, or to other queries, are ignored.
    let names = ["n+notify", "closed+notify", "later+notify", "m", "+notify"];
    let forged = can(&question, &names).replace(PHONE, LAPTOP);
    component.send(&forged).await;
    component.send(&can(&question, &names).replace("capabilities-", "capabilities-0")).await;
    assert_eq!(received(&mut component).await, [""; 0]);
    component.send(&can(&question, &names)).await;
    component.ask(PHONE, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(received(&mut component).await, ["phone n before"]);
    component.publish(OWNER, "n", "1").await;
    component.publish(OWNER, "m", "1").await;
    component.publish(OWNER, "closed", "1").await;
    // The interest includes a node that did not exist.
    component.publish(OWNER, "later", "first").await;
    assert_eq!(received(&mut component).await, ["phone later first", "phone n 1"]);
    // Known capabilities are not queried again; an explicit subscriber receives no event twice.
    come(&mut component, PHONE, "1").await;
    subscribe(&mut component, READER, &[]).await;
    received(&mut component).await;
    component.publish(OWNER, "n", "2").await;
    assert_eq!(received(&mut component).await, [format!("{READER} n 2")]);
    component.granted(READER, &format!("<unsubscribe node='n' jid='{READER}'/>")).await;
    // Other capabilities name other nodes.
    come(&mut component, PHONE, "2").await;
    let question = component.answer().await;
    component.send(&can(&question, &["m+notify"])).await;
    component.ask(PHONE, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(received(&mut component).await, ["phone m 1"]);
    component.publish(OWNER, "n", "3").await;
    component.publish(OWNER, "m", "3").await;
    assert_eq!(received(&mut component).await, ["phone m 3"]);
    // A resource that loses access is not notified of the change.
    component.configure(OWNER, "m", &[("notify_config", "1")]).await;
    assert_eq!(component.messages().await.len(), 1);
    component.configure(OWNER, "m", &[("access_model", "whitelist")]).await;
    assert_eq!(component.messages().await.len(), 0);
    component.configure(OWNER, "m", &[("access_model", "open"), ("notify_config", "0")]).await;
    component.messages().await;
    // Outcasts and unavailable resources receive nothing.
    let outcast = |affiliation: &str| {
        let entry = format!("<affiliation jid='{READER}' affiliation='{affiliation}'/>");
        format!("<affiliations node='m'>{entry}</affiliations>")
    };
    component.owner(OWNER, "set", &outcast("outcast")).await;
    received(&mut component).await;
    component.publish(OWNER, "m", "4").await;
    assert_eq!(received(&mut component).await, [""; 0]);
    component.owner(OWNER, "set", &outcast("none")).await;
    received(&mut component).await;
    presence(&mut component, PHONE, "unavailable", "").await;
    component.publish(OWNER, "m", "5").await;
    assert_eq!(received(&mut component).await, [""; 0]);
    // Until presence arrives on a new connection, no resource counts as available.
    come(&mut component, PHONE, "2").await;
    let question = component.answer().await;
    component.send(&can(&question, &["m+notify"])).await;
    component.ask(PHONE, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(received(&mut component).await, ["phone m 5"]);
    // All resources are queried again; after a temporary error the interest of a resource is kept.
    component.reconnected_by_force().await;
    let question = component.answer().await;
    assert_eq!(question.attr("to"), Some(PHONE));
    let error = |question: &Element, kind: &str| {
        let (id, to) = (question.attr("id").unwrap(), question.attr("to").unwrap());
        format!("<iq type='error' from='{to}' to='{SERVICE}' id='{id}'><error type='{kind}'/></iq>")
    };
    component.send(&error(&question, "wait")).await;
    component.publish(OWNER, "m", "6").await;
    assert_eq!(received(&mut component).await, ["phone m 6"]);
    come(&mut component, PHONE, "2").await;
    let question = component.answer().await;
    component.send(&can(&question, &["m+notify"])).await;
    // The resource may have been away, so it is sent the last item again.
    component.ask(PHONE, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(received(&mut component).await, ["phone m 6"]);
    component.publish(OWNER, "m", "7").await;
    assert_eq!(received(&mut component).await, ["phone m 7"]);
    component.reconnected_by_force().await;
    let question = component.answer().await;
    component.send(&error(&question, "cancel")).await;
    component.publish(OWNER, "m", "8").await;
    assert_eq!(received(&mut component).await, [""; 0]);
}

/// §12.2: a resource that becomes available after a restart of the server is sent the last items of
/// the nodes in its capabilities, although the capabilities are known.
#[tokio::test]
async fn s12_2_resource_that_may_have_been_away_gets_last_items() {
    let mut component = component_with_node(&[]).await;
    component.publish(OWNER, "n", "1").await;
    name_nodes(&mut component, PHONE, &["n"]).await;
    component.ask(PHONE, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(sent_items(&mut component).await, [format!("{PHONE} n 1")]);
    component.reconnected_by_force().await;
    component.answer().await;
    sent_items(&mut component).await;
    presence(&mut component, PHONE, "", "").await;
    assert_eq!(sent_items(&mut component).await, [format!("{PHONE} n 1")]);
}

/// §12.2: implicit subscriptions for entities that may subscribe, at every access model; rosters
/// are in `it::xep::xep0356_privilege`.
#[tokio::test]
async fn s12_2_capabilities_count_for_entities_that_may_subscribe() {
    const ENTITIES: [(&str, &str); 6] = [
        ("owner", "owner"),
        ("publisher", "publisher"),
        ("publishonly", "publish-only"),
        ("member", "member"),
        ("outcast", "outcast"),
        ("stranger", "none"),
    ];
    let mut component = TestComponent::start().await;
    let mut entries = String::new();
    for (entity, affiliation) in ENTITIES {
        if !["owner", "none"].contains(&affiliation) {
            let jid = format!("jid='{entity}@localhost'");
            entries += &format!("<affiliation {jid} affiliation='{affiliation}'/>");
        }
    }
    let listed = ["member", "owner", "publisher"].as_slice();
    let with_stranger = ["member", "owner", "publisher", "stranger"].as_slice();
    for (model, subscribe, expected) in [
        ("open", "1", with_stranger),
        ("whitelist", "1", listed),
        ("authorize", "1", listed),
        // Entities that may not subscribe receive nothing; owners and publishers may always
        // subscribe (§12.12).
        ("open", "0", &["owner", "publisher"]),
        ("whitelist", "0", &["owner", "publisher"]),
    ] {
        let node = format!("{model}{subscribe}");
        let fields = [("access_model", model), ("subscribe", subscribe)];
        component.create(OWNER, &node, &fields).await;
        let list = format!("<affiliations node='{node}'>{entries}</affiliations>");
        assert_eq!(component.owner(OWNER, "set", &list).await.attr("type"), Some("result"));
        component.publish(OWNER, &node, "before").await;
        component.messages().await;
        for (entity, _) in ENTITIES {
            name_nodes(&mut component, &format!("{entity}@localhost/{node}"), &[&node]).await;
        }
        component.ask(OWNER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
        let of_all = |item: &str| -> Vec<String> {
            let one = |entity: &&str| format!("{entity}@localhost/{node} {node} {item}");
            expected.iter().map(one).collect()
        };
        let mut last = Vec::new();
        while last.len() < expected.len() {
            last.extend(sent_items(&mut component).await);
        }
        last.sort_unstable();
        assert_eq!(last, of_all("before"), "{node}");
        component.publish(OWNER, &node, "live").await;
        assert_eq!(sent_items(&mut component).await, of_all("live"), "{node}");
    }
    // Entities that gain access, including new members, are sent the last item; others are not.
    component.configure(OWNER, "whitelist1", &[("access_model", "open")]).await;
    let gained = "stranger@localhost/whitelist1 whitelist1 live";
    assert_eq!(sent_items(&mut component).await, [gained]);
    component.configure(OWNER, "open0", &[("subscribe", "1")]).await;
    let gained = ["member", "stranger"].map(|who| format!("{who}@localhost/open0 open0 live"));
    assert_eq!(sent_items(&mut component).await, gained);
    let member = "<affiliation jid='stranger@localhost' affiliation='member'/>";
    let list = format!("<affiliations node='authorize1'>{member}</affiliations>");
    component.owner(OWNER, "set", &list).await;
    let gained = "stranger@localhost/authorize1 authorize1 live";
    assert_eq!(sent_items(&mut component).await, [gained]);
    // Explicit subscribers are sent events as subscribers; unsubscribing sends no last item.
    component.subscribe("stranger@localhost/open1", "open1").await;
    sent_items(&mut component).await;
    component
        .granted(
            "stranger@localhost/open1",
            "<unsubscribe node='open1' jid='stranger@localhost/open1'/>",
        )
        .await;
    assert_eq!(sent_items(&mut component).await, [""; 0]);
    // Entities that lose access are sent nothing.
    component.configure(OWNER, "open1", &[("access_model", "whitelist")]).await;
    component.publish(OWNER, "open1", "late").await;
    let left = listed.iter().map(|who| format!("{who}@localhost/open1 open1 late"));
    assert_eq!(sent_items(&mut component).await, left.collect::<Vec<_>>());
}
