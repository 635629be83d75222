//! Every limit, at its value and just above it.

use std::sync::Arc;

use gjallar::{
    config::Config,
    service::Error,
    store::{MemoryStore, SledStore, Store},
};
use gjallar_pubsub::Limits;
use minidom::Element;
use tokio::sync::Semaphore;

use crate::support::{
    component::{OWNER as OWNER_NS, PUBSUB, TestComponent, error, shown},
    failing_store::FailingStore,
    process::ServiceProcess,
    service::TestService,
};

const OWNER: &str = "owner@localhost/desk";

async fn limited(key: &str, value: usize) -> TestComponent {
    let key = key.to_owned();
    TestComponent::with(Arc::new(MemoryStore::new()), move |config| match key.as_str() {
        "max_nodes" => config.limits.max_nodes = value as u64,
        "max_items" => config.limits.max_items = value as u32,
        "max_batch" => config.limits.max_batch = value,
        "max_jid_rate" => config.limits.max_jid_requests_per_second = value as u32,
        "max_domain_rate" => config.limits.max_domain_requests_per_second = value as u32,
        "max_nodes_per_owner" => config.limits.max_nodes_per_owner = value as u64,
        "max_subscriptions_per_jid" => config.limits.max_subscriptions_per_jid = value,
        "max_subscriptions" => config.limits.max_subscriptions = value,
        "max_affiliations" => config.limits.max_affiliations = value,
        "max_reply_bytes" => config.limits.max_reply_bytes = value,
        "max_stanza_bytes" => config.link.max_stanza_bytes = value,
        "max_payload_bytes" => config.limits.max_payload_bytes = value as u32,
        _ => panic!("{key}"),
    })
    .await
}

/// Returns the text of an error; empty without an error.
fn text(answer: &Element) -> String {
    let error = answer.get_child("error", "jabber:component:accept");
    let text =
        error.and_then(|error| error.get_child("text", "urn:ietf:params:xml:ns:xmpp-stanzas"));
    text.map(Element::text).unwrap_or_default()
}

#[tokio::test]
async fn max_nodes_is_enforced() {
    let mut component = limited("max_nodes", 2).await;
    component.create(OWNER, "a", &[]).await;
    component.create(OWNER, "b", &[]).await;
    let refused = component.pubsub(OWNER, "set", "<create node='c'/>").await;
    assert_eq!(error(&refused), "cancel not-allowed max-nodes-exceeded");
    component.owner(OWNER, "set", "<delete node='a'/>").await;
    component.create(OWNER, "c", &[]).await;
}

#[tokio::test]
async fn max_nodes_per_owner_is_enforced() {
    let mut component = limited("max_nodes_per_owner", 2).await;
    component.create(OWNER, "a", &[]).await;
    component.create(OWNER, "b", &[]).await;
    let refused = component.pubsub(OWNER, "set", "<create node='c'/>").await;
    assert_eq!(error(&refused), "cancel not-allowed max-nodes-exceeded");
    component.create("other@localhost", "c", &[]).await;
    component.owner(OWNER, "set", "<delete node='a'/>").await;
    component.create(OWNER, "d", &[]).await;
}

/// Bare addresses that some servers treat as one account: its user may log in with each, and the
/// server stamps it unchanged. The service treats each as a separate entity, and all share one
/// allowance.
const NAMES: [&str; 4] = ["ssss@localhost", "ssß@localhost", "ßss@localhost", "ßß@localhost"];

#[tokio::test]
async fn max_nodes_per_owner_counts_all_names_of_an_account_together() {
    let store = Arc::new(MemoryStore::new());
    let limits = |config: &mut Config| {
        config.limits.max_nodes_per_owner = 2;
        config.limits.max_subscriptions_per_jid = 2;
    };
    let mut component = TestComponent::with(Arc::clone(&store) as Arc<dyn Store>, limits).await;
    for node in ["n", "m", "others"] {
        component.create(&format!("{node}@localhost"), node, &[]).await;
    }
    let create = "<create node='new'/>";
    let subscribe = |name: &str| format!("<subscribe node='others' jid='{name}'/>");
    component.create(NAMES[0], "a", &[]).await;
    component.create(NAMES[1], "b", &[]).await;
    component.subscribe(NAMES[1], "n").await;
    component.subscribe(NAMES[2], "m").await;
    let are_refused = async |component: &mut TestComponent| {
        for name in NAMES {
            let refused = component.pubsub(name, "set", create).await;
            assert_eq!(error(&refused), "cancel not-allowed max-nodes-exceeded", "{name}");
            let refused = component.pubsub(name, "set", &subscribe(name)).await;
            let expected = "wait policy-violation too-many-subscriptions";
            assert_eq!(error(&refused), expected, "{name}");
        }
    };
    are_refused(&mut component).await;
    // Counts survive a restart.
    drop(component);
    let mut component = TestComponent::with(store, limits).await;
    are_refused(&mut component).await;
    // Rights belong to a single spelling; released capacity is available to all spellings.
    let refused = component.owner(NAMES[0], "set", "<delete node='b'/>").await;
    assert_eq!(error(&refused), "auth forbidden");
    let deleted = component.owner(NAMES[1], "set", "<delete node='b'/>").await;
    assert_eq!(deleted.attr("type"), Some("result"));
    component.create(NAMES[3], "c", &[]).await;
    component.granted(NAMES[2], &format!("<unsubscribe node='m' jid='{}'/>", NAMES[2])).await;
    component.subscribe(NAMES[0], "m").await;
    are_refused(&mut component).await;
}

/// IDNA 2008: two domains of two owners. A domain has one allowance in both spellings.
#[tokio::test]
async fn similar_domains_are_counted_separately() {
    let limits = |config: &mut Config| {
        config.creators = vec!["anyone".into()];
        config.limits.max_nodes_per_owner = 1;
    };
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), limits).await;
    for (number, (user, is_first)) in [
        ("u@weiß.example", true),
        ("u@weiss.example", true),
        ("u@xn--wei-7ka.example", false),
        ("u@weiß.example", false),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = component.pubsub(user, "set", &format!("<create node='{number}'/>")).await;
        assert_eq!(answer.attr("type") == Some("result"), is_first, "{user}: {}", shown(&answer));
    }
}

#[tokio::test]
async fn max_subscriptions_per_jid_is_enforced() {
    let mut component = limited("max_subscriptions_per_jid", 2).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe("a@localhost/1", "n").await;
    component.subscribe("a@localhost/2", "n").await;
    let third = "<subscribe node='n' jid='a@localhost/3'/>";
    let refused = component.pubsub("a@localhost/3", "set", third).await;
    assert_eq!(error(&refused), "wait policy-violation too-many-subscriptions");
    component.subscribe("b@localhost/1", "n").await;
}

/// A burst of ten seconds' worth is accepted; one more request is rejected.
#[tokio::test]
async fn requests_per_second_is_enforced() {
    let ping = |from: &str, id: usize| {
        format!(
            "<iq type='get' id='{id}' from='{from}' to='pubsub.localhost'><ping xmlns='urn:xmpp:ping'/></iq>"
        )
    };
    for (key, same_sender) in [("max_jid_rate", true), ("max_domain_rate", false)] {
        let mut component = limited(key, 1).await;
        let from = |number: usize| match same_sender {
            true => format!("a@localhost/{number}"),
            false => format!("a{number}@localhost"),
        };
        let all: String = (0..11).map(|number| ping(&from(number), number)).collect();
        component.send(&all).await;
        let mut refused = Vec::new();
        for _ in 0..11 {
            let answer = component.answer().await;
            if answer.attr("type") == Some("error") {
                assert_eq!(error(&answer), "wait policy-violation");
                refused.push(answer.attr("id").unwrap().to_owned());
            }
        }
        assert_eq!(refused, ["10"]);
        let other = component.ask("b@elsewhere/x", "get", "<ping xmlns='urn:xmpp:ping'/>").await;
        assert_eq!(other.attr("type"), Some("result"));
    }
}

/// Limits of uncommitted requests: 4 MiB for one sender, half of 64 MiB for a domain, 64 MiB in
/// total.
#[tokio::test]
async fn bytes_of_queued_stanzas_are_limited() {
    let gate = Arc::new(Semaphore::new(1));
    let mut component =
        TestComponent::with(FailingStore::gated(Arc::new(MemoryStore::new()), &gate), |_| {}).await;
    component.create(OWNER, "n", &[("publish_model", "open")]).await;
    let closed = gate.acquire().await.unwrap();
    let text = "x".repeat(64_000);
    let publish = |from: &str, id: &str| {
        let stanza = |text: &str| {
            format!(
                "<iq type='set' id='{id}' from='{from}' to='pubsub.localhost'><pubsub \
                 xmlns='{PUBSUB}'><publish node='n'><item id='{id}'><x xmlns='urn:x'>{text}</x>\
                 </item></publish></pubsub></iq>"
            )
        };
        stanza(&text[stanza("").len()..])
    };
    let send = async |component: &mut TestComponent, from: &str, number: usize| {
        let all = (0..number).map(|n| publish(from, &format!("{from}-{n}")));
        component.send(&all.collect::<String>()).await;
    };
    let mut accepted = 0;
    let refused = async |component: &mut TestComponent, from: &str, limit: &str, ids| {
        for id in ids {
            let refused = component.answer().await;
            assert_eq!(refused.attr("id"), Some(format!("{from}-{id}").as_str()));
            assert_eq!(error(&refused), "wait resource-constraint");
            assert!(shown(&refused).contains(limit), "{}", shown(&refused));
        }
    };
    // 65 requests of 64 000 bytes are less than 4 MiB.
    send(&mut component, "a@x", 66).await;
    accepted += 65;
    refused(&mut component, "a@x", "limits.max_queued_bytes_per_jid", 65..66).await;
    // 522 requests with 256 bytes more each are less than 32 MiB; 65 of them are already queued.
    for sender in 0..7 {
        send(&mut component, &format!("b{sender}@x"), 65).await;
    }
    accepted += 7 * 65;
    send(&mut component, "c@x", 3).await;
    accepted += 2;
    let of_domain =
        "33554432 bytes of requests of one domain are waiting (limits.max_queued_bytes)";
    refused(&mut component, "c@x", of_domain, 2..3).await;
    // 1 044 requests are less than 64 MiB.
    for sender in 0..8 {
        send(&mut component, &format!("d{sender}@y"), 65).await;
    }
    accepted += 8 * 65;
    send(&mut component, "e@z", 3).await;
    accepted += 2;
    let of_all = "67108864 bytes of requests are waiting (limits.max_queued_bytes)";
    refused(&mut component, "e@z", of_all, 2..3).await;
    drop(closed);
    for _ in 0..accepted {
        assert_eq!(component.answer().await.attr("type"), Some("result"));
    }
}

#[tokio::test]
async fn stanza_depth_and_namespaces_are_limited() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    // The nested elements are inside iq, pubsub, publish, item and the payload.
    for (levels, is_taken) in [(123, true), (124, false)] {
        let (open, close) = ("<x>".repeat(levels), "</x>".repeat(levels));
        let nested = format!("<x xmlns='urn:x'>{open}{close}</x>");
        let content = format!("<publish node='n'><item>{nested}</item></publish>");
        let answer = component.pubsub(OWNER, "set", &content).await;
        assert_eq!(answer.attr("type") == Some("result"), is_taken, "{levels}");
        let is_named = text(&answer) == "nesting: a stanza has at most 128 levels";
        assert!(is_named != is_taken, "{}", shown(&answer));
    }
    // The stream declares two namespaces; pubsub and the payload declare one each.
    for (number, is_taken) in [(252, true), (253, false)] {
        let prefixes: String = (0..number).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect();
        let content =
            format!("<publish node='n'><item><x xmlns='urn:x'{prefixes}/></item></publish>");
        let answer = component.pubsub(OWNER, "set", &content).await;
        assert_eq!(answer.attr("type") == Some("result"), is_taken, "{number}");
        let is_named =
            text(&answer) == "namespaces: at most 256 declarations may apply to an element";
        assert!(is_named != is_taken, "{}", shown(&answer));
    }
}

#[tokio::test]
async fn max_payload_size_and_batch_bytes_are_enforced() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), |config| {
        config.limits.max_reply_bytes = 1000;
    })
    .await;
    component.create(OWNER, "n", &[("max_payload_size", "100")]).await;
    let publish = |bytes: usize| {
        let text = "x".repeat(bytes - "<x xmlns='urn:x'></x>".len());
        format!("<publish node='n'><item><x xmlns='urn:x'>{text}</x></item></publish>")
    };
    component.granted(OWNER, &publish(100)).await;
    let refused = component.pubsub(OWNER, "set", &publish(101)).await;
    assert_eq!(error(&refused), "modify not-acceptable payload-too-big");
    // Each item costs 20 bytes plus its id.
    let retract = |last: usize| {
        let names = (0..9).map(|n| (n, 80)).chain([(9, last)]);
        let items = names.map(|(n, bytes)| format!("<item id='{n}{}'/>", "i".repeat(bytes - 1)));
        format!("<retract node='n'>{}</retract>", items.collect::<String>())
    };
    let absent = component.pubsub(OWNER, "set", &retract(80)).await;
    assert_eq!(error(&absent), "cancel item-not-found");
    let refused = component.pubsub(OWNER, "set", &retract(81)).await;
    assert_eq!(error(&refused), "modify not-acceptable payload-too-big");
}

#[tokio::test]
async fn max_backlog_bytes_is_enforced() {
    // An event counts its payload plus 1000 bytes, and an audience 100 bytes for each recipient.
    let limits = Limits { max_backlog_bytes: 10_000, ..Limits::default() };
    let fixture = TestService::limited(Arc::new(MemoryStore::new()), limits).await;
    for node in ["a", "b"] {
        fixture.create("owner@localhost", node).await.unwrap();
        fixture.subscribe("x@localhost", node).await.unwrap();
    }
    let xml = format!("<x xmlns='urn:x'>{}</x>", "x".repeat(200 - 21));
    // Alternating between two nodes, whose audiences count once each: 2 * 100 + 4 * 1200 is half of
    // the limit.
    for (id, node) in ["a", "b", "a", "b"].into_iter().enumerate() {
        fixture.publish_xml("owner@localhost", node, &id.to_string(), &xml).await.unwrap();
    }
    assert_eq!(fixture.service.log_window().size(), (4, 5_000));
    let refused = fixture.publish_xml("owner@localhost", "a", "over", &xml).await;
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    fixture.create("other@localhost", "c").await.unwrap();
    fixture.subscribe("x@localhost", "c").await.unwrap();
    fixture.publish_xml("other@localhost", "c", "1", &xml).await.unwrap();
    assert_eq!(fixture.drain_log().len(), 5);
    assert_eq!(fixture.service.log_window().size(), (0, 0));
}

/// Limits that `process::monitoring::rejections_are_counted_by_limit` does not cover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejections_of_forms_rates_replies_and_the_backlog_are_counted() {
    let small = [
        ("LIMITS_MAX_JID_REQUESTS_PER_SECOND", "1"),
        ("LIMITS_MAX_DOMAIN_REQUESTS_PER_SECOND", "2"),
        ("LIMITS_MAX_BACKLOG_EVENTS", "2"),
        ("LIMITS_MAX_PAYLOAD_BYTES", "500"),
        ("LIMITS_MAX_REPLY_BYTES", "1000"),
        ("LINK_MAX_STANZA_BYTES", "21000"),
    ];
    let mut served = ServiceProcess::start(&small, &[]).await;
    served.granted(OWNER, "<create node='n'/>").await;
    let configure = format!(
        "<pubsub xmlns='{OWNER_NS}'><configure node='n'>{}</configure></pubsub>",
        crate::support::component::form(&vec![("title", "x"); 128])
    );
    served.ask(OWNER, "set", &configure).await;
    for domain in ["a", "b"] {
        let entry = |number| {
            format!("<subscription jid='{number:09}@{domain}' subscription='subscribed'/>")
        };
        let entries: String = (0..200).map(entry).collect();
        served.granted(OWNER, &format!("<subscriptions node='n'>{entries}</subscriptions>")).await;
        served.confirm_notices(200).await;
        while served.stat("log_backlog_entries").await > 0 {}
    }
    let list = format!("<pubsub xmlns='{OWNER_NS}'><subscriptions node='n'/></pubsub>");
    let refused = served.ask(OWNER, "get", &list).await;
    assert_eq!(error(&refused), "modify policy-violation");
    served.link.hold_barriers();
    for id in ["1", "2"] {
        let publish =
            format!("<publish node='n'><item id='{id}'><x xmlns='urn:x'/></item></publish>");
        served.ask(OWNER, "set", &format!("<pubsub xmlns='{PUBSUB}'>{publish}</pubsub>")).await;
    }
    for limit in ["form_fields", "answer_bytes", "max_backlog"] {
        let name = format!("limit_rejections_total{{limit=\"{limit}\"}}");
        assert_eq!(served.stat(&name).await, 1, "{limit}");
    }
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    for number in 0..30 {
        served.request("one@here", &number.to_string(), "get", ping).await;
    }
    for number in 0..60 {
        served.request(&format!("{number}@elsewhere"), "ping", "get", ping).await;
    }
    // Rejections of earlier requests are counted before this answer is sent.
    served.ask("last@there", "get", ping).await;
    for limit in ["max_jid_requests_per_second", "max_domain_requests_per_second"] {
        let name = format!("limit_rejections_total{{limit=\"{limit}\"}}");
        assert!(served.stat(&name).await > 0, "{limit}");
    }
}

#[tokio::test]
async fn request_ids_have_at_most_1024_bytes() {
    let mut component = TestComponent::start().await;
    for (bytes, expected) in [(1024, "result"), (1025, "error")] {
        let id = "i".repeat(bytes);
        component
            .send(&format!(
                "<iq type='get' id='{id}' from='{OWNER}' to='pubsub.localhost'><ping \
                 xmlns='urn:xmpp:ping'/></iq>"
            ))
            .await;
        let answer = component.answer().await;
        assert_eq!((answer.attr("type"), answer.attr("id")), (Some(expected), Some(id.as_str())));
        let is_named = text(&answer) == "id_bytes: an id has at most 1024 bytes";
        assert_eq!(is_named, expected == "error", "{}", shown(&answer));
    }
}

/// A request that succeeded is answered with a result, even if the complete answer would exceed the
/// stanza limit.
#[tokio::test]
async fn oversized_reply_to_a_change_is_shortened() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    // An apostrophe is serialized as five bytes.
    let long = "'".repeat(1000);
    let entry =
        |number| format!("<subscription jid=\"a@b/{number:03}{long}\" subscription='pending'/>");
    let entries: String = (0..120).map(entry).collect();
    let good = "<subscription jid='c@d' subscription='subscribed'/>";
    let content = format!("<subscriptions node='n'>{good}{entries}</subscriptions>");
    let answer = component.owner(OWNER, "set", &content).await;
    assert_eq!(error(&answer), "modify not-acceptable");
    // The error repeats the beginning of the request without its entries.
    let repeated = answer.get_child("pubsub", OWNER_NS).unwrap().children().next().unwrap();
    assert_eq!(repeated.children().count(), 0);
    let stored = component.owner(OWNER, "get", "<subscriptions node='n'/>").await;
    assert_eq!(
        stored.get_child("pubsub", OWNER_NS).unwrap().children().next().unwrap().children().count(),
        1
    );
}

/// A dead domain may send back more bounces than its request rate allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounced_notifications_do_not_count_as_requests() {
    let one = [
        ("LIMITS_MAX_JID_REQUESTS_PER_SECOND", "1"),
        ("LIMITS_MAX_DOMAIN_REQUESTS_PER_SECOND", "1"),
    ];
    let mut served = ServiceProcess::start(&one, &[]).await;
    let bounce = format!("<message type='error' id='1' from='{OWNER}' to='pubsub.localhost'/>");
    served.link.send(&bounce.repeat(300)).await;
    let answer = served.ask(OWNER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(answer.attr("type"), Some("result"));
    assert_eq!(served.stat("notification_bounces_total").await, 300);
}

/// Subscriptions that others create for a JID do not use up the allowance of this JID.
#[tokio::test]
async fn subscriptions_set_by_owners_leave_room_for_own_subscriptions() {
    let mut component = limited("max_subscriptions_per_jid", 2).await;
    component.create(OWNER, "n", &[]).await;
    for resource in ["1", "2", "3"] {
        let entry =
            format!("<subscription jid='victim@localhost/{resource}' subscription='subscribed'/>");
        let content = format!("<subscriptions node='n'>{entry}</subscriptions>");
        assert_eq!(component.owner(OWNER, "set", &content).await.attr("type"), Some("result"));
    }
    component.subscribe("victim@localhost/a", "n").await;
    component.subscribe("victim@localhost/b", "n").await;
    let third = "<subscribe node='n' jid='victim@localhost/c'/>";
    let refused = component.pubsub("victim@localhost/c", "set", third).await;
    assert_eq!(error(&refused), "wait policy-violation too-many-subscriptions");
}

#[tokio::test]
async fn form_fields_are_limited() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    // Each field has one value; the form type is one more field.
    let fields = |number: usize| vec![("title", "x"); number];
    let set = component.configure(OWNER, "n", &fields(127)).await;
    assert_eq!(set.attr("type"), Some("result"));
    let refused = component.configure(OWNER, "n", &fields(128)).await;
    assert_eq!(error(&refused), "modify not-acceptable");
}

#[tokio::test]
async fn max_items_is_enforced() {
    let mut component = limited("max_items", 3).await;
    component.create(OWNER, "n", &[("max_items", "3")]).await;
    let refused = component.configure(OWNER, "n", &[("max_items", "4")]).await;
    assert_eq!(error(&refused), "modify not-acceptable");
    component.create(OWNER, "m", &[("max_items", "max")]).await;
    for id in ["1", "2", "3", "4"] {
        component.publish(OWNER, "m", id).await;
    }
    assert_eq!(component.items(OWNER, "m").await, ["2", "3", "4"]);
}

#[tokio::test]
async fn max_batch_is_enforced() {
    let mut component = limited("max_batch", 3).await;
    component.create(OWNER, "n", &[]).await;
    let batch = |number: usize| {
        let items = (0..number).map(|n| format!("<item id='{n}'><x xmlns='urn:x'/></item>"));
        format!("<publish node='n'>{}</publish>", items.collect::<String>())
    };
    component.granted(OWNER, &batch(3)).await;
    let refused = component.pubsub(OWNER, "set", &batch(4)).await;
    assert_eq!(error(&refused), "cancel not-allowed max-items-exceeded");
    let ids = |number: usize| (0..number).map(|n| format!("<item id='{n}'/>")).collect::<String>();
    let items = format!("<items node='n'>{}</items>", ids(4));
    let refused = component.pubsub(OWNER, "get", &items).await;
    assert_eq!(error(&refused), "cancel not-allowed max-items-exceeded");
    let retract = format!("<retract node='n'>{}</retract>", ids(4));
    let refused = component.pubsub(OWNER, "set", &retract).await;
    assert_eq!(error(&refused), "cancel not-allowed max-items-exceeded");
    component.granted(OWNER, &format!("<retract node='n'>{}</retract>", ids(3))).await;
}

#[tokio::test]
async fn max_payload_bytes_is_enforced() {
    let mut component = limited("max_payload_bytes", 100).await;
    component.create(OWNER, "n", &[("max_payload_size", "100")]).await;
    let refused = component.configure(OWNER, "n", &[("max_payload_size", "101")]).await;
    assert_eq!(error(&refused), "modify not-acceptable");
}

/// A node keeps the limit that it was created with; the error names the lower of the limits.
#[tokio::test]
async fn oversized_payload_error_names_the_lower_limit() {
    let mut component = limited("max_payload_bytes", 100).await;
    component.create(OWNER, "by_service", &[]).await;
    component.create(OWNER, "by_node", &[("max_payload_size", "50")]).await;
    let publish = |node: &str, bytes| {
        let text = "x".repeat(bytes - "<x xmlns='urn:x'></x>".len());
        format!("<publish node='{node}'><item><x xmlns='urn:x'>{text}</x></item></publish>")
    };
    for (node, bytes, name) in [
        ("by_service", 100, "max_payload_bytes: a payload has at most 100 bytes"),
        ("by_node", 50, "pubsub#max_payload_size: a payload has at most 50 bytes"),
    ] {
        let answer = component.pubsub(OWNER, "set", &publish(node, bytes)).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        let refused = component.pubsub(OWNER, "set", &publish(node, bytes + 1)).await;
        assert_eq!(error(&refused), "modify not-acceptable payload-too-big");
        assert!(shown(&refused).contains(&format!(">{name}<")), "{}", shown(&refused));
    }
}

#[tokio::test]
async fn max_subscriptions_is_enforced() {
    let mut component = limited("max_subscriptions", 2).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe("a@localhost", "n").await;
    component.subscribe("b@localhost", "n").await;
    component.subscribe("b@localhost", "n").await;
    let third = "<subscribe node='n' jid='c@localhost'/>";
    let refused = component.pubsub("c@localhost", "set", third).await;
    assert_eq!(error(&refused), "wait policy-violation too-many-subscriptions");
    let set = "<subscriptions node='n'><subscription jid='c@localhost' subscription='subscribed'/>\
               </subscriptions>";
    let refused = component.owner(OWNER, "set", set).await;
    assert_eq!(error(&refused), "modify not-acceptable");
}

#[tokio::test]
async fn max_affiliations_is_enforced() {
    let mut component = limited("max_affiliations", 2).await;
    component.create(OWNER, "n", &[]).await;
    let set = |jid: &str| {
        format!(
            "<affiliations node='n'><affiliation jid='{jid}' affiliation='member'/></affiliations>"
        )
    };
    let answer = component.owner(OWNER, "set", &set("a@localhost")).await;
    assert_eq!(answer.attr("type"), Some("result"));
    let refused = component.owner(OWNER, "set", &set("b@localhost")).await;
    assert_eq!(error(&refused), "modify not-acceptable");
    let answer = component.owner(OWNER, "set", &set("a@localhost")).await;
    assert_eq!(answer.attr("type"), Some("result"));
}

#[tokio::test]
async fn max_reply_bytes_is_enforced() {
    let mut component = limited("max_reply_bytes", 100).await;
    component.create(OWNER, "n", &[]).await;
    for id in ["1", "2", "3", "4"] {
        component.publish(OWNER, "n", id).await;
    }
    // Each item has 42 bytes: 19, its id and its payload. No item shows its publisher.
    assert_eq!(component.items(OWNER, "n").await, ["3", "4"]);
}

#[tokio::test]
async fn max_stanza_bytes_limits_incoming_stanzas() {
    let mut component = limited("max_stanza_bytes", 20_000).await;
    component.create(OWNER, "n", &[]).await;
    let publish = |bytes: usize| {
        let (head, tail) = (
            format!(
                "<iq type='set' id='1' from='{OWNER}' to='pubsub.localhost'><pubsub \
                 xmlns='{PUBSUB}'><publish node='n'><item><x xmlns='urn:x'>"
            ),
            "</x></item></publish></pubsub></iq>",
        );
        let text = "x".repeat(bytes - head.len() - tail.len());
        format!("{head}{text}{tail}")
    };
    for (bytes, expected) in [(20_000, "result"), (20_001, "error"), (20_000, "result")] {
        component.send(&publish(bytes)).await;
        let answer = component.answer().await;
        assert_eq!(answer.attr("type"), Some(expected), "{bytes}");
        if expected == "error" {
            assert_eq!(error(&answer), "modify policy-violation");
            assert_eq!(text(&answer), "max_stanza_bytes: a stanza has at most 20000 bytes");
        }
    }
}

#[tokio::test]
async fn max_stanza_bytes_limits_outgoing_stanzas() {
    let mut component = limited("max_stanza_bytes", 20_000).await;
    component.create(OWNER, "n", &[]).await;
    for number in 0..300 {
        component.subscribe(&format!("{number}@{}.localhost", "d".repeat(30)), "n").await;
    }
    let refused = component.owner(OWNER, "get", "<subscriptions node='n'/>").await;
    assert_eq!(error(&refused), "modify policy-violation");
    let configuration = component.owner(OWNER, "get", "<configure node='n'/>").await;
    assert!(configuration.has_child("pubsub", OWNER_NS));
}

#[tokio::test]
async fn names_have_at_most_1023_bytes() {
    let mut component = TestComponent::start().await;
    let (longest, longer) = ("n".repeat(1023), "n".repeat(1024));
    component.create(OWNER, &longest, &[]).await;
    let refused = component.pubsub(OWNER, "set", &format!("<create node='{longer}'/>")).await;
    assert_eq!(error(&refused), "modify not-acceptable");
    let answer = component.publish(OWNER, &longest, &longest).await;
    assert!(answer.has_child("pubsub", PUBSUB));
    assert_eq!(error(&component.publish(OWNER, &longest, &longer).await), "modify not-acceptable");
}

#[tokio::test]
async fn configuration_texts_are_limited() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    for (field, max) in [("title", 200), ("description", 512), ("type", 200)] {
        // A letter of two bytes.
        for (longest, longer) in [("x".repeat(max), "x"), ("ж".repeat(max / 2), "ж")] {
            let set = component.configure(OWNER, "n", &[(field, &longest)]).await;
            assert_eq!(set.attr("type"), Some("result"));
            let refused = component.configure(OWNER, "n", &[(field, &(longest + longer))]).await;
            assert_eq!(error(&refused), "modify not-acceptable");
            assert_eq!(text(&refused), format!("pubsub#{field}: at most {max} bytes"));
        }
    }
}

/// A node has to fit into a row of the store, even if each of its texts has the maximum length.
#[tokio::test]
async fn texts_of_one_node_are_limited_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(store, |_| {}).await;
    let name = "n".repeat(1023);
    component.create(OWNER, &name, &[]).await;
    let xslt = "x".repeat(1024);
    for (field, value) in [("body_xslt", xslt.as_str()), ("dataform_xslt", &xslt), ("title", "t")] {
        let set = component.configure(OWNER, &name, &[(field, value)]).await;
        assert_eq!(set.attr("type"), Some("result"), "{field}");
    }
    let refused = component.configure(OWNER, &name, &[("description", &"d".repeat(512))]).await;
    assert_eq!(refused.attr("type"), Some("result"));
    let refused = component.configure(OWNER, &name, &[("type", &"t".repeat(200))]).await;
    assert_eq!(error(&refused), "modify not-acceptable");
    let longer = component.configure(OWNER, &name, &[("type", &"t".repeat(150))]).await;
    assert_eq!(longer.attr("type"), Some("result"), "{}", shown(&longer));
}

/// An error that would exceed the stanza limit is sent with its conditions only.
#[tokio::test]
async fn error_beyond_max_stanza_bytes_is_shortened() {
    let mut component = limited("max_stanza_bytes", 10_000).await;
    component.create(OWNER, "n", &[]).await;
    // Each `&` is serialized as five bytes, in the request and in the error.
    let uri = format!("xmpp:{}", "&amp;".repeat(1850));
    let delete = format!("<delete node='n'><redirect uri='{uri}'/></delete>");
    let deleted = component.owner(OWNER, "set", &delete).await;
    assert_eq!(deleted.attr("type"), Some("result"), "{}", shown(&deleted));
    let long = format!("reader@localhost/{}", "x".repeat(1000));
    for (by, is_short) in [("reader@localhost/x", false), (long.as_str(), true)] {
        let gone = component.pubsub(by, "get", "<items node='n'/>").await;
        assert_eq!(error(&gone), "modify gone");
        assert_eq!(!shown(&gone).contains(&uri), is_short, "{} bytes", shown(&gone).len());
    }
}
