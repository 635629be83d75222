//! Rights to change items of other publishers (§4.1), and the publishers that a node records.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gjallar::{service::Error, store::MemoryStore};
use gjallar_pubsub::{AccessModel, ConfigField, PublishModel};
use tokio::{sync::Semaphore, time::timeout};

use crate::support::{
    component::{ADMIN, PUBSUB, SERVICE, STREAM, TestComponent, error, shown},
    failing_store::FailingStore,
    service::TestService,
};

pub const OWNER: &str = "owner@localhost/desk";
const ROMEO: &str = "romeo@localhost/b";
pub const NURSE: &str = "nurse@localhost/c";

pub fn publish(id: &str, text: &str) -> String {
    format!("<publish node='n'><item id='{id}'><x xmlns='urn:x'>{text}</x></item></publish>")
}

fn retract(id: &str) -> String {
    format!("<retract node='n'><item id='{id}'/></retract>")
}

/// Creates a node where `ROMEO` has published `c1`, and where `NURSE` may publish by this model and
/// affiliation.
async fn component_with_shared_node(publish_model: &str, affiliation: &str) -> TestComponent {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("publish_model", publish_model)]).await;
    for jid in ["romeo@localhost", "nurse@localhost"] {
        let entry = format!("<affiliation jid='{jid}' affiliation='{affiliation}'/>");
        let content = format!("<affiliations node='n'>{entry}</affiliations>");
        let set = component.owner(OWNER, "set", &content).await;
        assert_eq!(set.attr("type"), Some("result"));
    }
    if publish_model == "subscribers" {
        component.subscribe(ROMEO, "n").await;
        component.subscribe(NURSE, "n").await;
    }
    component.granted(ROMEO, &publish("c1", "by romeo")).await;
    component
}

/// Returns the items of the node as text.
async fn texts(component: &mut TestComponent) -> Vec<String> {
    let answer = component.pubsub(OWNER, "get", "<items node='n'/>").await;
    let items = answer.get_child("pubsub", PUBSUB).unwrap().get_child("items", PUBSUB).unwrap();
    items.children().map(|item| item.children().next().unwrap().text()).collect()
}

/// §4.1, §7.1.2: an entity that may publish by the publish model or as publish-only changes only its own items.
#[tokio::test]
async fn s4_1_items_of_other_publishers_are_neither_overwritten_nor_retracted() {
    for (model, affiliation) in [
        ("open", "none"),
        ("open", "member"),
        ("subscribers", "none"),
        ("publishers", "publish-only"),
        ("open", "publish-only"),
    ] {
        let mut component = component_with_shared_node(model, affiliation).await;
        for content in [publish("c1", "by nurse"), retract("c1")] {
            let refused = component.pubsub(NURSE, "set", &content).await;
            assert_eq!(error(&refused), "auth forbidden", "{model} {affiliation} {content}");
            let text = refused.get_child("error", STREAM).unwrap();
            let text = text.children().find(|child| child.name() == "text").unwrap().text();
            assert!(text.starts_with("the item has another publisher"), "{text}");
        }
        assert_eq!(texts(&mut component).await, ["by romeo"], "{model} {affiliation}");
        // Own items and items without an id are unaffected.
        component.granted(NURSE, &publish("c2", "by nurse")).await;
        component.granted(NURSE, &publish("c2", "by nurse again")).await;
        component
            .granted(NURSE, "<publish node='n'><item><x xmlns='urn:x'/></item></publish>")
            .await;
        component.granted(NURSE, &retract("c2")).await;
        component.granted(ROMEO, &publish("c1", "by romeo again")).await;
        assert_eq!(texts(&mut component).await, ["", "by romeo again"], "{model} {affiliation}");
        // A released item id is available to all publishers.
        component.granted(ROMEO, &retract("c1")).await;
        component.granted(NURSE, &publish("c1", "by nurse")).await;
    }
}

#[tokio::test]
async fn s7_1_2_item_of_another_publisher_refuses_the_whole_batch() {
    let mut component = component_with_shared_node("open", "none").await;
    let item = |id: &str| format!("<item id='{id}'><x xmlns='urn:x'/></item>");
    let batch = format!("<publish node='n'>{}{}{}</publish>", item("a"), item("c1"), item("b"));
    let refused = component.pubsub(NURSE, "set", &batch).await;
    assert_eq!(error(&refused), "auth forbidden");
    assert_eq!(component.items(OWNER, "n").await, ["c1"]);
}

/// §4.1; administrators have the rights of an owner.
#[tokio::test]
async fn s4_1_owners_publishers_and_administrators_overwrite_all_items() {
    let mut component = component_with_shared_node("open", "none").await;
    let bot = "<affiliations node='n'><affiliation jid='bot@localhost' affiliation='publisher'/>\
               </affiliations>";
    component.owner(OWNER, "set", bot).await;
    for by in [OWNER, "bot@localhost/x", ADMIN] {
        component.granted(by, &publish("c1", by)).await;
        assert_eq!(texts(&mut component).await, [by]);
    }
    // The overwritten item belongs to its new publisher.
    let refused = component.pubsub(ROMEO, "set", &retract("c1")).await;
    assert_eq!(error(&refused), "auth forbidden");
}

/// Publishers are recorded correctly at a node that evicts its oldest items.
#[tokio::test]
async fn s4_1_full_node_keeps_items_of_other_publishers() {
    for full in ["reject", "retract-oldest", "discard-oldest"] {
        let mut component = component_with_shared_node("open", "none").await;
        let fields = [("max_items", "1"), ("publish_node_full", full)];
        let set = component.configure(OWNER, "n", &fields).await;
        assert_eq!(set.attr("type"), Some("result"), "{}", shown(&set));
        let refused = component.pubsub(NURSE, "set", &publish("c1", "by nurse")).await;
        assert_eq!(error(&refused), "auth forbidden", "{full}");
        component.granted(ROMEO, &publish("c1", "by romeo")).await;
    }
}

/// Pipelined requests are decided like sequential ones: uncommitted changes count.
#[tokio::test]
async fn s4_1_items_of_uncommitted_publishes_have_a_publisher() {
    let gate = Arc::new(Semaphore::new(1));
    let store = FailingStore::gated(Arc::new(MemoryStore::new()), &gate);
    let mut component = TestComponent::with(store, |_| {}).await;
    component.create(OWNER, "n", &[("publish_model", "open")]).await;
    let closed = gate.acquire().await.unwrap();
    for (number, (by, content)) in [
        (ROMEO, publish("c1", "by romeo")),
        (ROMEO, publish("c1", "by romeo again")),
        (NURSE, publish("c1", "by nurse")),
    ]
    .into_iter()
    .enumerate()
    {
        component
            .send(&format!(
                "<iq type='set' id='{number}' from='{by}' to='{SERVICE}'><pubsub \
                 xmlns='{PUBSUB}'>{content}</pubsub></iq>"
            ))
            .await;
        // The reply shows that the request before the ping was processed as far as possible.
        component.ask("p@localhost", "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    }
    drop(closed);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = component.answer().await;
        let outcome = match answer.attr("type") {
            Some("result") => "result".to_owned(),
            _ => error(&answer),
        };
        answers.push((answer.attr("id").unwrap().to_owned(), outcome));
    }
    answers.sort_unstable();
    let outcomes: Vec<_> = answers.iter().map(|(_, outcome)| outcome.as_str()).collect();
    assert_eq!(outcomes, ["result", "result", "auth forbidden"]);
    assert_eq!(texts(&mut component).await, ["by romeo again"]);
}

/// Items that the actor may not know about are not read.
#[tokio::test]
async fn s4_1_refused_request_reads_no_publishers() {
    let store = FailingStore::new(Arc::new(MemoryStore::new()), 0, false);
    let fixture = TestService::new(store.clone()).await;
    let closed = vec![ConfigField::AccessModel(AccessModel::Whitelist)];
    fixture.create_with(OWNER, "n", closed).await.unwrap();
    fixture.publish(OWNER, "n", "1").await.unwrap();
    let published = fixture.publish(NURSE, "n", "1").await;
    assert!(matches!(published, Err(Error::Refused(_))), "{published:?}");
    let retracted = fixture.retract(NURSE, "n", "1").await;
    assert!(matches!(retracted, Err(Error::Refused(_))), "{retracted:?}");
    assert_eq!(store.read_publishers.load(Ordering::Relaxed), 0);
    fixture.retract(OWNER, "n", "1").await.unwrap();
    assert_eq!(store.read_publishers.load(Ordering::Relaxed), 1);
}

/// Publishers are read after the commit of a purge in progress, without waiting for evictions.
#[tokio::test]
async fn s4_1_publish_waits_for_an_earlier_purge_but_not_for_evictions() {
    let gate = Arc::new(Semaphore::new(1));
    let store = FailingStore::gated(Arc::new(MemoryStore::new()), &gate);
    let fixture = TestService::new(store.clone()).await;
    let open = vec![ConfigField::PublishModel(PublishModel::Open)];
    fixture.create_with(OWNER, "n", open).await.unwrap();
    fixture.publish(ROMEO, "n", "1").await.unwrap();
    let closed = gate.acquire().await.unwrap();
    let reads = || store.read_publishers.load(Ordering::Relaxed);
    let before = reads();
    let mut publishing = Vec::new();
    for (by, id) in [(NURSE, "2"), (ROMEO, "1")] {
        let begun = fixture.begin_to_publish(by, "n", id);
        let begun = timeout(Duration::from_secs(10), begun).await;
        publishing.push(begun.expect("it does not wait for the eviction"));
    }
    assert_eq!(reads(), before + 2);
    let mut purge = pin!(fixture.purge(OWNER, "n"));
    let mut third = pin!(fixture.publish(ROMEO, "n", "3"));
    tokio::select! {
        biased;
        _ = &mut purge => panic!("it is committed"),
        _ = &mut third => panic!("it is committed"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(reads(), before + 2);
    drop(closed);
    for published in publishing {
        published.await.unwrap();
    }
    purge.await.unwrap();
    third.await.unwrap();
    assert_eq!(reads(), before + 3);
    assert_eq!(fixture.ids("n").await, ["3"]);
}
