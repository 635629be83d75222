//! Order: events as committed, requests of a sender as sent, answers before large audiences, and
//! revocation.

use std::sync::Arc;

use gjallar::store::{MemoryStore, SledStore, Store};

use crate::support::{
    component::{ADMIN, SERVICE, TestComponent, event, form, is_about_a_subscription, shown},
    service::TestService,
};

const OWNER: &str = "owner@localhost/desk";

fn sequence(message: &minidom::Element) -> u64 {
    let id = message.get_child("stanza-id", "urn:xmpp:sid:0").unwrap().attr("id").unwrap();
    id.split_once('-').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_many_publishers_arrive_in_commit_order() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(store, |_| {}).await;
    component.create(OWNER, "n", &[("publish_model", "open")]).await;
    component.subscribe("reader@localhost/r", "n").await;
    for publisher in 0..20 {
        for number in 0..10 {
            component
                .send(&format!(
                    "<iq type='set' id='p' from='p{publisher}@localhost/x' to='{SERVICE}'><pubsub \
                     xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item \
                     id='{publisher}-{number}'><x xmlns='urn:x'/></item></publish></pubsub></iq>"
                ))
                .await;
        }
    }
    for _ in 0..200 {
        assert_eq!(component.answer().await.attr("type"), Some("result"));
    }
    let messages = component.messages().await;
    let delivered: Vec<String> = messages
        .iter()
        .map(|message| {
            let event = event(message);
            event.children().next().unwrap().attr("id").unwrap().to_owned()
        })
        .collect();
    let sequences: Vec<_> = messages.iter().map(sequence).collect();
    assert_eq!(sequences, (1..=200).collect::<Vec<_>>());
    assert_eq!(delivered, component.items(OWNER, "n").await);
    for publisher in 0..20 {
        let own: Vec<_> =
            delivered.iter().filter_map(|id| id.strip_prefix(&format!("{publisher}-"))).collect();
        assert_eq!(own, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    }
}

#[tokio::test]
async fn replies_overtake_notifications_to_a_large_audience() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe_many(OWNER, "n", 1000).await;
    component.publish_much(OWNER, "n").await;
    component
        .send(&format!(
            "<iq type='get' id='ping' from='{OWNER}' to='{SERVICE}'><ping xmlns='urn:xmpp:ping'/></iq>"
        ))
        .await;
    let mut before = 0;
    loop {
        let stanza = component.link.receive().await.unwrap();
        match stanza.name() {
            "message" => before += 1,
            _ => break,
        }
    }
    assert!(before < 1000, "the answer came after the whole audience");
    assert_eq!(component.messages().await.len() + before, 1000);
}

/// Returns `true` if a message reports an event of a node.
fn is_event(message: &minidom::Element) -> bool {
    message.has_child("stanza-id", "urn:xmpp:sid:0")
}

/// Publishes to 1 001 recipients, of which `zz` is the last and cannot have been served yet.
async fn publish_to_a_large_audience(component: &mut TestComponent) {
    component.subscribe_many(OWNER, "n", 1001).await;
    component.publish_much(OWNER, "n").await;
    assert!(component.take_messages().len() < 500, "the audience is too small for this test");
}

#[tokio::test]
async fn revoked_entity_gets_no_event_after_the_reply() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    publish_to_a_large_audience(&mut component).await;
    let content = "<affiliations node='n'><affiliation jid='zz@far.example' affiliation='outcast'/>\
                   </affiliations>";
    let answer = component.owner(OWNER, "set", content).await;
    assert_eq!(answer.attr("type"), Some("result"));
    let before = component.take_messages().len();
    component.publish(OWNER, "n", "2").await;
    let (after, notices): (Vec<_>, Vec<_>) =
        component.messages().await.into_iter().partition(is_event);
    // `zz` was removed from the first event, and is not in the audience of the second.
    assert_eq!(before + after.len(), 2 * 1000);
    assert!(after.iter().all(|message| message.attr("to") != Some("zz@far.example")));
    // `zz` is notified of the affiliation outcast and of the lost subscription, and of nothing
    // else.
    assert_eq!(notices.len(), 2);
    assert!(notices.iter().all(|message| message.attr("to") == Some("zz@far.example")));
}

#[tokio::test]
async fn every_event_has_its_event_id() {
    let mut component = TestComponent::start().await;
    let reader = "reader@localhost/r";
    let mut lives = Vec::new();
    for _ in 0..2 {
        component.create(OWNER, "n", &[("notify_config", "1")]).await;
        component.publish(OWNER, "n", "1").await;
        component.subscribe(reader, "n").await;
        component.publish(OWNER, "n", "2").await;
        component.granted(OWNER, "<retract node='n'><item id='1'/></retract>").await;
        component.configure(OWNER, "n", &[("title", "T")]).await;
        component.owner(OWNER, "set", "<purge node='n'/>").await;
        component.owner(OWNER, "set", "<delete node='n'/>").await;
        let messages = component.messages().await;
        let ids: Vec<_> = messages
            .iter()
            .map(|message| {
                let id = message.get_child("stanza-id", "urn:xmpp:sid:0").unwrap();
                assert_eq!(id.attr("by"), Some(SERVICE));
                id.attr("id").unwrap().to_owned()
            })
            .collect();
        let (epoch, _) = ids[0].split_once('-').unwrap();
        assert!(epoch.len() == 16 && epoch.chars().all(|c| c.is_ascii_hexdigit()));
        // The last item on subscribing has its own sequence.
        let expected: Vec<_> = (1..=6).map(|seq| format!("{epoch}-{seq}")).collect();
        assert_eq!(ids, expected);
        lives.push(epoch.to_owned());
    }
    assert_ne!(lives[0], lives[1]);
}

/// Decisions are the same for pipelined and for sequential requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_at_a_node_are_serialized() {
    let stage = Arc::new(TestService::new(Arc::new(MemoryStore::new())).await);
    stage.create("owner@localhost", "n").await.unwrap();
    stage.subscribe("reader@localhost", "n").await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|lane| {
            let stage = Arc::clone(&stage);
            tokio::spawn(async move {
                for number in 0..50 {
                    let id = format!("{lane}-{number}");
                    stage.publish("owner@localhost", "n", &id).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let entries = stage.drain_log();
    assert_eq!(entries.len(), 400);
    let ids = stage.ids("n").await;
    for ((event, recipients), id) in entries.iter().zip(&ids) {
        assert!(event.contains(&format!("ItemId(\"{id}\")")), "{event} is not {id}");
        assert_eq!(recipients, &["reader@localhost"]);
    }
}

/// Ad-hoc commands obey the same order.
#[tokio::test]
async fn entity_revoked_by_a_command_gets_no_event_after_the_reply() {
    const COMMANDS: &str = "http://jabber.org/protocol/commands";
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    let stage = async |component: &mut TestComponent, more: &str, form: &str| {
        let content = format!(
            "<command xmlns='{COMMANDS}' node='urn:gjallar:command:configure-node' {more}>{form}\
             </command>"
        );
        component.ask(OWNER, "set", &content).await
    };
    let first = stage(&mut component, "", "").await;
    let id = first.children().next().unwrap().attr("sessionid").unwrap().to_owned();
    let more = format!("sessionid='{id}'");
    let choice = "<x xmlns='jabber:x:data' type='submit'><field var='node'><value>n</value>\
                  </field></x>";
    stage(&mut component, &more, choice).await;
    publish_to_a_large_audience(&mut component).await;
    let whitelist = form(&[("access_model", "whitelist")]);
    let done = stage(&mut component, &more, &whitelist).await;
    assert_eq!(done.children().next().unwrap().attr("status"), Some("completed"));
    component.take_messages();
    let notices = component.messages().await;
    assert_eq!(notices.len(), 1001);
    assert!(notices.iter().all(is_about_a_subscription));
}

/// SIGTERM during a large fan-out: every notification is completed exactly once and well-formed.
#[tokio::test]
async fn stop_leaves_no_partial_stanza() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe_many(OWNER, "n", 2000).await;
    let text = "x".repeat(5_000);
    for id in 0..5 {
        component
            .send(&format!(
                "<iq type='set' id='p{id}' from='{OWNER}' to='{SERVICE}'><pubsub \
                 xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item id='{id}'>\
                 <x xmlns='urn:x'>{text}</x></item></publish></pubsub></iq>"
            ))
            .await;
    }
    // The fan-out of the last publish has begun when its answer arrives.
    while component.answer().await.attr("id") != Some("p4") {}
    let rest = component.finish().await;
    let mut delivered = std::collections::HashMap::<String, Vec<u64>>::new();
    for message in rest.iter().filter(|stanza| stanza.name() == "message") {
        delivered
            .entry(message.attr("to").unwrap().to_owned())
            .or_default()
            .push(sequence(message));
    }
    assert_eq!(delivered.len(), 2000);
    // Sequence 1 is the notice of the subscription.
    assert!(delivered.values().all(|sequences| sequences == &[2, 3, 4, 5, 6]));
}

/// Requests of all kinds by one sender at two nodes: answers and notifications are the same for
/// pipelined and for sequential requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_equals_sequential() {
    // The maximum number of queued requests of one sender.
    let requests: Vec<_> = (0..256_u32).map(request_of).collect();
    let mut seen = Vec::new();
    for waits in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
        let mut component = TestComponent::with(store, |_| {}).await;
        let mut answers = Vec::new();
        for node in ["a", "b"] {
            component.create(OWNER, node, &[("max_items", "5"), ("notify_retract", "1")]).await;
            component.subscribe("reader@localhost", node).await;
        }
        for (id, (kind, content)) in requests.iter().enumerate() {
            component
                .send(&format!(
                    "<iq type='{kind}' id='{id}' from='{OWNER}' to='{SERVICE}'>{content}</iq>"
                ))
                .await;
            if waits {
                answers.push(component.answer().await);
            }
        }
        while answers.len() < requests.len() {
            answers.push(component.answer().await);
        }
        // A refusal does not wait for requests at another node.
        answers.sort_by_key(|answer| answer.attr("id").and_then(|id| id.parse::<u32>().ok()));
        let answers: Vec<_> = answers.iter().map(shown).collect();
        // Compares each node separately, because the order of different nodes may vary.
        let messages = component.messages().await;
        let events_of = |to: &str, node: &str| {
            let received = messages.iter().filter(|message| message.attr("to") == Some(to));
            let events = received.map(event).filter(|event| event.attr("node") == Some(node));
            events.map(|event| shown(&event)).collect::<Vec<_>>()
        };
        assert!(events_of("reader@localhost", "a").len() > 50);
        let to_reader = ["a", "b"].map(|node| events_of("reader@localhost", node));
        seen.push((answers, to_reader, ["a", "b"].map(|node| events_of("owner@localhost", node))));
    }
    assert_eq!(seen[0].0, seen[1].0);
    assert_eq!(seen[0].1, seen[1].1);
    // After unsubscribing, pending notifications are dropped; the others stay in the same order.
    for (waited, did_not) in seen[0].2.iter().zip(&seen[1].2) {
        let mut remaining = waited.iter();
        assert!(did_not.iter().all(|event| remaining.any(|other| other == event)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_concurrent_first_publishes_create_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(store, |_| {}).await;
    let options = form(&[("publish_model", "open")]).replace("node_config", "publish-options");
    for publisher in 0..100 {
        component
            .send(&format!(
                "<iq type='set' id='p' from='p{publisher}@localhost/x' to='{SERVICE}'><pubsub \
                 xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item \
                 id='{publisher}'><x xmlns='urn:x'/></item></publish><publish-options>{options}\
                 </publish-options></pubsub></iq>"
            ))
            .await;
    }
    for _ in 0..100 {
        let answer = component.answer().await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    }
    assert_eq!(component.items(OWNER, "n").await.len(), 100);
    let owners = component.owner(ADMIN, "get", "<affiliations node='n'/>").await;
    let owners = owners.children().next().unwrap().children().next().unwrap();
    assert_eq!(owners.children().count(), 1, "{}", shown(owners));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_creates_do_not_exceed_max_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(store, |config| {
        config.limits.max_nodes_per_owner = 3;
    })
    .await;
    let ask = |id: &str, content: &str| {
        format!("<iq type='set' id='{id}' from='{OWNER}' to='{SERVICE}'>{content}</iq>")
    };
    let publish = |node: usize| {
        ask(
            "publish",
            &format!(
                "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'><item>\
                 <x xmlns='urn:x'/></item></publish></pubsub>"
            ),
        )
    };
    for node in 0..50 {
        component.send(&publish(node)).await;
    }
    // A deletion makes room for a new node.
    let delete =
        "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='0'/></pubsub>";
    component.send(&ask("delete", delete)).await;
    component.send(&publish(50)).await;
    let mut granted = 0;
    for _ in 0..52 {
        granted += usize::from(component.answer().await.attr("type") == Some("result"));
    }
    assert_eq!(granted, 5);
}

/// Returns the request for a number.
fn request_of(number: u32) -> (&'static str, String) {
    let chance = number.wrapping_mul(2_654_435_761) >> 8;
    let (node, id) = (["a", "b"][chance as usize % 2], chance / 2 % 9);
    let (kind, content) = match chance / 18 % 12 {
        0 => ("get", format!("<items node='{node}'/>")),
        1 => ("set", format!("<subscribe node='{node}' jid='owner@localhost'/>")),
        2 => ("set", format!("<unsubscribe node='{node}' jid='owner@localhost'/>")),
        3 => ("get", "<subscriptions/>".to_owned()),
        4 | 5 => ("set", format!("<retract node='{node}'><item id='{id}'/></retract>")),
        6 => ("set", format!("<publish node='{node}'><item id='{id}'/></publish>")),
        _ => {
            let item = format!("<item id='{id}'><x xmlns='urn:x'>{number}</x></item>");
            ("set", format!("<publish node='{node}'>{item}</publish>"))
        }
    };
    (kind, format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub>"))
}
