//! Archives of nodes (XEP-0313, XEP-0442), and the order of items (XEP-0413).

use std::sync::Arc;

use gjallar::store::{SledStore, Store};
use minidom::Element;

use crate::support::component::{
    EVENT, OWNER as OWNER_NS, PUBSUB, TestComponent, error, event, shown,
};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";
const MAM: &str = "urn:xmpp:mam:2";
const RSM: &str = "http://jabber.org/protocol/rsm";
const FORWARD: &str = "urn:xmpp:forward:0";
const DELAY: &str = "urn:xmpp:delay";
const STANZA_ID: &str = "urn:xmpp:sid:0";
const CAP: &str = "urn:xmpp:pubsub:cap:0";
const ORDER: &str = "<order xmlns='urn:xmpp:order-by:1'";

fn form(fields: &[(&str, &[&str])]) -> String {
    let field = |(var, values): &(&str, &[&str])| {
        let values: String = values.iter().map(|v| format!("<value>{v}</value>")).collect();
        format!("<field var='{var}'>{values}</field>")
    };
    let fields: String = fields.iter().map(field).collect();
    let form_type = format!("<field var='FORM_TYPE'><value>{MAM}</value></field>");
    format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x>")
}

async fn query(component: &mut TestComponent, by: &str, content: &str) -> Element {
    let query = format!("<query xmlns='{MAM}' queryid='q1' node='n'>{content}</query>");
    component.ask(by, "set", &query).await
}

/// Runs a query; returns the names of the items and a summary of the page.
async fn found(component: &mut TestComponent, content: &str) -> (String, String) {
    let answer = query(component, READER, content).await;
    let fin = answer.get_child("fin", MAM).unwrap_or_else(|| panic!("{}", shown(&answer)));
    let set = fin.get_child("set", RSM).unwrap();
    let text = |name| set.get_child(name, RSM).map_or_else(|| "-".to_owned(), Element::text);
    let (mut names, mut ids) = (Vec::new(), Vec::new());
    // The results precede the answer.
    for message in component.take_messages() {
        assert_eq!(message.attr("to"), Some(READER));
        let result = message.get_child("result", MAM).unwrap();
        assert_eq!(result.attr("queryid"), Some("q1"));
        ids.push(result.attr("id").unwrap().to_owned());
        let forwarded = result.get_child("forwarded", FORWARD).unwrap();
        assert!(forwarded.get_child("delay", DELAY).unwrap().attr("stamp").is_some());
        let message = forwarded.get_child("message", "jabber:client").unwrap();
        let items = message.get_child("event", EVENT).unwrap().get_child("items", EVENT).unwrap();
        assert_eq!(items.children().count(), 1, "XEP-0442 §3");
        names.push(items.children().next().unwrap().attr("id").unwrap().to_owned());
    }
    if content.contains("flip-page") {
        ids.reverse();
    }
    assert_eq!(text("first"), ids.first().map_or("-", String::as_str));
    assert_eq!(text("last"), ids.last().map_or("-", String::as_str));
    let is_complete = fin.attr("complete").unwrap_or("-");
    (names.join(" "), format!("{is_complete} {}", text("count")))
}

fn expected_page(names: &str, summary: &str) -> (String, String) {
    (names.to_owned(), summary.to_owned())
}

/// Creates a node with the items a to e, of which the owner published b and d. Returns their
/// archive ids, taken from the events.
async fn filled(component: &mut TestComponent) -> Vec<String> {
    let fields = [("publish_model", "open"), ("itemreply", "publisher")];
    component.create(OWNER, "n", &fields).await;
    component.subscribe(READER, "n").await;
    for (who, id) in [(READER, "a"), (OWNER, "b"), (READER, "c"), (OWNER, "d"), (READER, "e")] {
        component.publish(who, "n", id).await;
    }
    let ids = component.messages().await.into_iter().map(|message| {
        assert_eq!(event(&message).name(), "items");
        message.get_child("stanza-id", STANZA_ID).unwrap().attr("id").unwrap().to_owned()
    });
    ids.collect()
}

#[tokio::test]
async fn archive_of_a_node_is_queried() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(store, |_| {}).await;
    let ids = filled(&mut component).await;
    let set = |set: &str| format!("<set xmlns='{RSM}'>{set}</set>");
    let one = |var, value: &str| form(&[(var, &[value])]);
    let [a, b, _, d, e] = ids.as_slice() else { panic!("{ids:?}") };
    for (content, names, summary) in [
        (String::new(), "a b c d e", "true 5"),
        (set("<max>2</max>"), "a b", "- 5"),
        (set(&format!("<max>2</max><after>{b}</after>")), "c d", "- 5"),
        (set(&format!("<max>2</max><after>{d}</after>")), "e", "true 5"),
        (set("<max>2</max><before/>"), "d e", "- 5"),
        (set(&format!("<max>3</max><before>{d}</before>")), "a b c", "true 5"),
        (set("<max>2</max><before/>") + "<flip-page/>", "e d", "- 5"),
        (set("<max>0</max>"), "", "- 5"),
        (one("with", "owner@localhost"), "b d", "true -"),
        (one("with", "owner@localhost") + &set("<max>1</max>"), "b", "- -"),
        (one("with", OWNER), "", "true -"),
        (one("with", "nobody@localhost"), "", "true -"),
        (one("after-id", b), "c d e", "true -"),
        (one("before-id", b), "a", "true -"),
        (form(&[("after-id", &[a]), ("before-id", &[e])]), "b c d", "true -"),
        (form(&[("after-id", &[a]), ("with", &["reader@localhost"])]), "c e", "true -"),
        (form(&[("ids", &[d, a])]), "a d", "true -"),
        (one("start", "2020-01-01T00:00:00Z"), "a b c d e", "true -"),
        (one("end", "2020-01-01T00:00:00Z"), "", "true -"),
        (one("start", "2999-01-01T00:00:00.123+01:00"), "", "true -"),
        (form(&[("start", &[]), ("with", &[])]), "a b c d e", "true 5"),
        (format!("{ORDER} by='modification' desc='true'/>"), "e d c b a", "true 5"),
    ] {
        assert_eq!(
            found(&mut component, &content).await,
            expected_page(names, summary),
            "{content}"
        );
    }
    let long = "x".repeat(257);
    for (content, refused) in [
        (set("<after>x</after>"), "cancel item-not-found"),
        (set("<after>0000000000000001-1</after>"), "cancel item-not-found"),
        (set("<index>2</index>"), "cancel feature-not-implemented"),
        (one("after-id", &format!("{a}00")), "cancel item-not-found"),
        (one("before-id", "x"), "cancel item-not-found"),
        (form(&[("ids", &[a]), ("with", &[OWNER]), ("after-id", &["x"])]), "cancel item-not-found"),
        (form(&[("ids", &[a, "x"])]), "cancel item-not-found"),
        (one("start", "yesterday"), "modify bad-request"),
        (
            form(&[("start", &["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"])]),
            "modify bad-request",
        ),
        (one("with", "@"), "modify jid-malformed invalid-jid"),
        (one("{urn:x}text", "x"), "cancel feature-not-implemented"),
        (one("FORM_TYPE", "urn:x"), "modify bad-request"),
        ("<x xmlns='jabber:x:data' type='form'/>".to_owned(), "modify bad-request"),
        (format!("{ORDER} by='{{urn:x}}name'/>"), "cancel feature-not-implemented"),
        (format!("{ORDER}/>"), "modify bad-request"),
    ] {
        assert_eq!(error(&query(&mut component, READER, &content).await), refused, "{content}");
    }
    for (content, refused) in [
        (format!("<query xmlns='{MAM}'/>"), "modify bad-request nodeid-required"),
        (format!("<query xmlns='{MAM}' node='x'/>"), "cancel item-not-found"),
        (format!("<query xmlns='{MAM}' node='n' queryid='{long}'/>"), "modify not-acceptable"),
    ] {
        assert_eq!(error(&component.ask(READER, "set", &content).await), refused, "{content}");
    }
    assert_eq!(component.take_messages(), []);
}

#[tokio::test]
async fn archive_describes_its_extent_and_its_form() {
    let mut component = TestComponent::start().await;
    let ids = filled(&mut component).await;
    let answer = component.ask(READER, "get", &format!("<metadata xmlns='{MAM}' node='n'/>")).await;
    let metadata = answer.get_child("metadata", MAM).unwrap();
    for (name, id) in [("start", &ids[0]), ("end", &ids[4])] {
        let end = metadata.get_child(name, MAM).unwrap();
        assert_eq!(end.attr("id"), Some(id.as_str()));
        assert!(end.attr("timestamp").unwrap().ends_with('Z'));
    }
    let purge = component.owner(OWNER, "set", "<purge node='n'/>").await;
    assert_eq!(purge.attr("type"), Some("result"));
    let answer = component.ask(READER, "get", &format!("<metadata xmlns='{MAM}' node='n'/>")).await;
    assert_eq!(answer.get_child("metadata", MAM).unwrap().children().count(), 0);

    let answer = component.ask(READER, "get", &format!("<query xmlns='{MAM}' node='n'/>")).await;
    let form = answer.get_child("query", MAM).unwrap().get_child("x", "jabber:x:data").unwrap();
    let fields = form.children().map(|f| (f.attr("var").unwrap(), f.attr("type").unwrap()));
    assert_eq!(
        fields.collect::<Vec<_>>(),
        [
            ("FORM_TYPE", "hidden"),
            ("with", "jid-single"),
            ("start", "text-single"),
            ("end", "text-single"),
            ("after-id", "text-single"),
            ("before-id", "text-single"),
            ("ids", "list-multi"),
        ]
    );
    assert!(shown(form).contains("<open"), "{}", shown(form));

    // The service announces the archive, and so do nodes with one.
    let info = async |component: &mut TestComponent, node: &str| {
        let query = format!("<query xmlns='http://jabber.org/protocol/disco#info'{node}/>");
        let answer = component.ask(READER, "get", &query).await;
        let features = answer.children().next().unwrap().children();
        features.filter_map(|f| f.attr("var").map(str::to_owned)).collect::<Vec<_>>()
    };
    let announced = ["urn:xmpp:mam:2", "urn:xmpp:mam:2#extended"];
    let service = info(&mut component, "").await;
    let orders = [
        "urn:xmpp:order-by:1",
        "urn:xmpp:order-by:1@http://jabber.org/protocol/pubsub",
        "urn:xmpp:order-by:1@urn:xmpp:mam:2",
    ];
    for name in announced.iter().chain(&orders) {
        assert!(service.iter().any(|feature| feature == name), "{name}");
    }
    component.create(OWNER, "keeps nothing", &[("persist_items", "false")]).await;
    for (node, has) in [("n", true), ("keeps nothing", false)] {
        let features = info(&mut component, &format!(" node='{node}'")).await;
        for name in announced {
            assert_eq!(features.iter().any(|feature| feature == name), has, "{node} {name}");
        }
    }
    let refused = format!("<query xmlns='{MAM}' node='keeps nothing'/>");
    let refused = component.ask(OWNER, "set", &refused).await;
    assert_eq!(error(&refused), "cancel feature-not-implemented unsupported persistent-items");
}

/// XEP-0313 §8.1: entities that may not retrieve items must not query.
#[tokio::test]
async fn archive_query_without_access_is_forbidden() {
    let mut component = TestComponent::start().await;
    filled(&mut component).await;
    let outcast = "<affiliations node='n'><affiliation jid='reader@localhost' affiliation='outcast'/></affiliations>";
    component.owner(OWNER, "set", outcast).await;
    assert_eq!(error(&query(&mut component, READER, "").await), "auth forbidden");
    for model in ["whitelist", "authorize"] {
        component.create(OWNER, model, &[("access_model", model)]).await;
        let content = format!("<query xmlns='{MAM}' node='{model}'/>");
        assert_eq!(error(&component.ask(READER, "set", &content).await), "auth forbidden");
        let content = format!("<metadata xmlns='{MAM}' node='{model}'/>");
        assert_eq!(error(&component.ask(READER, "get", &content).await), "auth forbidden");
        let content = format!("<query xmlns='{MAM}' node='{model}'/>");
        assert_eq!(component.ask(OWNER, "set", &content).await.attr("type"), Some("result"));
    }
}

/// Items of one event are separate results, and each looks like the notification.
#[tokio::test]
async fn archive_results_equal_the_notifications() {
    let mut component = TestComponent::start().await;
    let fields = [("deliver_payloads", "false"), ("notification_type", "normal")];
    component.create(OWNER, "n", &fields).await;
    component.subscribe(READER, "n").await;
    let batch = "<publish node='n'><item id='1'><x xmlns='urn:x'/></item>\
                 <item id='2'><x xmlns='urn:x'/></item></publish>";
    component.granted(OWNER, batch).await;
    let notifications = component.messages().await;
    let stanza_ids: Vec<_> = notifications
        .iter()
        .map(|m| m.get_child("stanza-id", STANZA_ID).unwrap().attr("id").unwrap().to_owned())
        .collect();
    assert_eq!(query(&mut component, READER, "").await.attr("type"), Some("result"));
    let results = component.take_messages();
    let ids = results.iter().map(|m| m.get_child("result", MAM).unwrap().attr("id").unwrap());
    assert_eq!(ids.collect::<Vec<_>>(), stanza_ids);
    assert_eq!(notifications.len(), 2);
    for (result, notification) in results.iter().zip(&notifications) {
        let forwarded = result.get_child("result", MAM).unwrap().get_child("forwarded", FORWARD);
        let message = forwarded.unwrap().get_child("message", "jabber:client").unwrap();
        assert_eq!(message.attr("type"), Some("normal"));
        assert_eq!(event(message).children().next(), event(notification).children().next());
    }
    let page = format!("<set xmlns='{RSM}'><max>1</max><after>{}</after></set>", stanza_ids[0]);
    assert_eq!(found(&mut component, &page).await, expected_page("2", "true 2"));
}

/// The stanza id of an event remains a valid position, whatever happens to its items; the last item
/// sent on subscribing has its own id.
#[tokio::test]
async fn an_acknowledged_stanza_id_is_a_position_for_catch_up() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("itemreply", "publisher")]).await;
    let batch = "<publish node='n'><item id='1'><x xmlns='urn:x'/></item>\
                 <item id='2'><x xmlns='urn:x'/></item></publish>";
    component.granted(OWNER, batch).await;
    component.subscribe(READER, "n").await;
    let stanza_id = |message: &Element| {
        message.get_child("stanza-id", STANZA_ID).unwrap().attr("id").unwrap().to_owned()
    };
    let last = component.messages().await.remove(0);
    let ids = form(&[("ids", &[&stanza_id(&last)])]);
    assert_eq!(found(&mut component, &ids).await.0, "2");
    component.publish(OWNER, "n", "3").await;
    let third = stanza_id(&component.messages().await[0]);
    component.granted(OWNER, "<retract node='n' notify='1'><item id='1'/></retract>").await;
    let retracted = stanza_id(&component.messages().await[0]);
    for id in ["3", "4"] {
        component.publish(OWNER, "n", id).await;
    }
    component.messages().await;
    for known in [&third, &retracted] {
        let page = format!("<set xmlns='{RSM}'><after>{known}</after></set>");
        assert_eq!(found(&mut component, &page).await.0, "3 4");
        assert_eq!(found(&mut component, &form(&[("after-id", &[known])])).await.0, "3 4");
        let ids = form(&[("ids", &[known])]);
        assert_eq!(error(&query(&mut component, READER, &ids).await), "cancel item-not-found");
    }
    query(&mut component, READER, "<set xmlns='http://jabber.org/protocol/rsm'><max>1</max></set>")
        .await;
    let result = shown(&component.take_messages()[0]);
    assert!(result.contains("publisher='owner@localhost'"), "{result}");
}

/// Matches of a filter may be far apart: a page ends after a limited number of examined items, and
/// is then marked incomplete.
#[tokio::test]
async fn selective_filter_is_evaluated_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(store, |_| {}).await;
    let fields = [("publish_model", "open"), ("max_items", "max"), ("itemreply", "publisher")];
    component.create(OWNER, "n", &fields).await;
    component.publish(READER, "n", "first").await;
    for batch in 0..21 {
        let item = |n| format!("<item id='{batch}-{n}'><x xmlns='urn:x'/></item>");
        let items: String = (0..100).map(item).collect();
        component.granted(OWNER, &format!("<publish node='n'>{items}</publish>")).await;
    }
    component.publish(READER, "n", "last").await;
    let with = form(&[("with", &["reader@localhost"])]);
    for backward in [false, true] {
        let (mut names, mut edge, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = if backward {
                format!("<before>{edge}</before>")
            } else if edge.is_empty() {
                String::new()
            } else {
                format!("<after>{edge}</after>")
            };
            let answer =
                query(&mut component, READER, &format!("{with}<set xmlns='{RSM}'>{page}</set>"))
                    .await;
            pages += 1;
            for message in component.take_messages() {
                names.push(shown(&message).contains("id='last'"));
            }
            let fin = answer.get_child("fin", MAM).unwrap();
            if fin.attr("complete") == Some("true") {
                break;
            }
            let end = if backward { "first" } else { "last" };
            edge = fin.get_child("set", RSM).unwrap().get_child(end, RSM).unwrap().text();
        }
        assert_eq!((names, pages), (vec![backward, !backward], 2));
    }
    // Times are found without reading all items.
    for (field, time) in [("end", "2001-01-01T00:00:00Z"), ("start", "2999-01-01T00:00:00Z")] {
        let answer = query(&mut component, READER, &form(&[(field, &[time])])).await;
        assert_eq!(answer.get_child("fin", MAM).unwrap().attr("complete"), Some("true"), "{field}");
    }
    // The order of creation needs all items sorted.
    let fields = [("access_model", "open")];
    component.configure(OWNER, "n", &fields).await;
    let page = format!("<set xmlns='{RSM}'><max>1</max></set>{ORDER} by='creation' desc='true'/>");
    assert_eq!(found(&mut component, &page).await.0, "last");
}

/// XEP-0413 §4.1 to §4.5.
#[tokio::test]
async fn items_are_retrieved_in_the_requested_order() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    for id in ["A", "B", "C", "D", "C", "A"] {
        component.publish(OWNER, "n", id).await;
    }
    let page = |max, edge: &str| format!("<set xmlns='{RSM}'><max>{max}</max>{edge}</set>");
    for (items, order, set, expected) in [
        ("", "by='modification'", page(2, ""), "B D"),
        ("", "by='modification'", page(2, "<after>D</after>"), "C A"),
        ("", "by='creation' desc='true'", page(2, ""), "D C"),
        ("", "by='creation' desc='1'", page(2, "<after>C</after>"), "B A"),
        ("", "by='creation' desc='false'", page(2, "<before/>"), "C D"),
        (" max_items='3'", "by='creation' desc='true'", String::new(), "D C B"),
        (" max_items='3'", "by='creation'", String::new(), "B C D"),
        (" max_items='3'", "by='modification' desc='true'", String::new(), "A C D"),
        (" max_items='1'", "by='creation'", String::new(), "D"),
        (" max_items='1'", "by='modification'", String::new(), "A"),
        ("", "by='creation'", String::new(), "A B C D"),
    ] {
        let content = format!("<items node='n'{items}/>{ORDER} {order}/>{set}");
        let answer = component.pubsub(READER, "get", &content).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        let pubsub = answer.get_child("pubsub", PUBSUB).unwrap();
        let ids =
            pubsub.get_child("items", PUBSUB).unwrap().children().map(|i| i.attr("id").unwrap());
        assert_eq!(ids.collect::<Vec<_>>().join(" "), expected, "{content}");
    }
    // The first of several orders applies, and all are validated.
    let both = format!("<items node='n'/>{ORDER} by='creation'/>{ORDER} by='modification'/>");
    let answer = component.pubsub(READER, "get", &both).await;
    assert!(shown(&answer).find("id='A'") < shown(&answer).find("id='D'"));
    let named = format!(
        "<items node='n'><item id='A'/><item id='D'/></items>{ORDER} by='modification' desc='1'/>"
    );
    let answer = component.pubsub(READER, "get", &named).await;
    assert!(shown(&answer).find("id='A'") < shown(&answer).find("id='D'"));
    for order in ["by='creation'/><order xmlns='urn:xmpp:order-by:1' by='size'", "by='size'"] {
        let content = format!("<items node='n'/>{ORDER} {order}/>");
        let refused = component.pubsub(READER, "get", &content).await;
        assert_eq!(error(&refused), "cancel feature-not-implemented");
    }
    let content = format!("<items node='n'/>{ORDER} by='creation' desc='maybe'/>");
    assert_eq!(error(&component.pubsub(READER, "get", &content).await), "modify bad-request");
    let purged = component
        .ask(OWNER, "set", &format!("<pubsub xmlns='{OWNER_NS}'><purge node='n'/></pubsub>"))
        .await;
    assert_eq!(purged.attr("type"), Some("result"));
    let content = format!("<items node='n'/>{ORDER} by='creation'/>");
    let answer = component.pubsub(READER, "get", &content).await;
    assert!(!shown(&answer).contains("<item "), "{}", shown(&answer));
}

/// XEP-0395: an item is only published if the newest item is the one that the publisher expects.
#[tokio::test]
async fn compare_and_publish_requires_the_newest_item() {
    let configure = |config: &mut gjallar::config::Config| config.compare_and_publish = true;
    let store = Arc::new(gjallar::store::MemoryStore::new());
    let mut component = TestComponent::with(store, configure).await;
    component.create(OWNER, "n", &[("publish_model", "open")]).await;
    let publish = async |component: &mut TestComponent,
                         by: &str,
                         node: &str,
                         id: &str,
                         compared: &str| {
        let form = "http://jabber.org/protocol/pubsub#publish-options";
        let field =
            |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
        let fields = field("FORM_TYPE", form) + &field("pubsub#prev_item_cap_value", compared);
        let options = format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
        let item = format!("<item id='{id}'><x xmlns='urn:x'/></item>");
        let content = format!(
            "<publish node='{node}'>{item}</publish><publish-options>{options}</publish-options>"
        );
        component.pubsub(by, "set", &content).await
    };
    let newest = |answer: &Element| {
        let error = answer.get_child("error", crate::support::component::STREAM).unwrap();
        let failed = error.get_child("compare-and-publish-failed", CAP).unwrap();
        failed.attr("cap-id").map(str::to_owned)
    };
    let refused = "modify conflict precondition-not-met compare-and-publish-failed";
    let affiliation = "<affiliation jid='blind@localhost' affiliation='publish-only'/>";
    let content = format!("<affiliations node='n'>{affiliation}</affiliations>");
    component.owner(OWNER, "set", &content).await;
    let blind = publish(&mut component, "blind@localhost", "n", "1", "x").await;
    assert_eq!(error(&blind), "auth forbidden");
    // Without items: at an existing node, and at one that auto-create would create.
    for node in ["n", "new"] {
        let answer = publish(&mut component, OWNER, node, "1", "x").await;
        assert_eq!((error(&answer).as_str(), newest(&answer)), (refused, None));
    }
    for id in ["1", "2"] {
        component.publish(OWNER, "n", id).await;
    }
    let map = async |component: &mut TestComponent| {
        let answer = component.pubsub(READER, "get", "<items node='n'/>").await;
        let items = answer.get_child("pubsub", PUBSUB).unwrap().get_child("items", PUBSUB).unwrap();
        let map = items.get_child("cap-v-map", CAP).unwrap();
        let entry = |entry: &Element| {
            assert_eq!(entry.name(), "cap-v-map-entry");
            let attr = |name| entry.attr(name).unwrap().to_owned();
            (attr("item-id"), attr("cap-value"))
        };
        map.children().map(entry).collect::<Vec<_>>()
    };
    let before = map(&mut component).await;
    assert_eq!(before.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert_ne!(before[0].1, before[1].1);
    let answer = publish(&mut component, OWNER, "n", "3", &before[0].1).await;
    assert_eq!((error(&answer).as_str(), newest(&answer)), (refused, Some(before[1].1.clone())));
    assert_eq!(
        publish(&mut component, OWNER, "n", "2", &before[1].1).await.attr("type"),
        Some("result")
    );
    // Of two publishers with the same expectation, the second is refused; new content of an item
    // counts as a new value.
    let answer = publish(&mut component, OWNER, "n", "3", &before[1].1).await;
    let after = map(&mut component).await;
    assert_eq!(newest(&answer), Some(after[1].1.clone()));
    assert_ne!(after[1].1, before[1].1);
    assert_eq!(after[0], before[0]);
    // After the newest item is retracted, the previous item counts.
    component.granted(OWNER, "<retract node='n'><item id='2'/></retract>").await;
    assert_eq!(
        publish(&mut component, OWNER, "n", "4", &after[0].1).await.attr("type"),
        Some("result")
    );
    let left = map(&mut component).await;
    assert_eq!(left.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["1", "4"]);
}
