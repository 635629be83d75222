//! Long tags, and a server whose parser defers them.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use crate::support::component::{TestComponent, event};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/r";

/// Returns elements with a tag of about this many bytes.
fn payloads(bytes: usize) -> [String; 3] {
    let long = "v".repeat(bytes);
    [
        format!("<x xmlns='urn:x' a='{long}'/>"),
        format!("<x xmlns='urn:{long}'/>"),
        format!("<{long} xmlns='urn:x'/>"),
    ]
}

async fn deferring() -> TestComponent {
    let component = TestComponent::start().await;
    component.link.reading.is_deferring.store(true, Ordering::Relaxed);
    component
}

async fn publish(component: &mut TestComponent, node: &str, id: &str, payload: &str) {
    let item = format!("<item id='{id}'>{payload}</item>");
    component.granted(OWNER, &format!("<publish node='{node}'>{item}</publish>")).await;
}

/// No later stanza pushes the tag through the parser: without white space after the tag, all of
/// these would wait for the pings of an idle link.
#[tokio::test]
async fn replies_and_archive_results_with_long_tags_leave_the_parser_at_once() {
    let mut component = deferring().await;
    component.create(OWNER, "n", &[]).await;
    for bytes in [5_000, 9_000, 20_000, 36_000, 60_000] {
        for payload in payloads(bytes) {
            publish(&mut component, "n", "i", &payload).await;
            assert_eq!(component.items(READER, "n").await, ["i"], "{bytes}");
            let query = "<query xmlns='urn:xmpp:mam:2' node='n'/>";
            let fin = component.ask(READER, "set", query).await;
            assert_eq!(fin.attr("type"), Some("result"));
            assert_eq!(component.take_messages().len(), 1, "{bytes}");
        }
    }
    // Names that are long in their escaped form.
    let name = "&quot;".repeat(1_000);
    component.create(OWNER, &name, &[]).await;
    publish(&mut component, &name, &name, "<x xmlns='urn:x'/>").await;
    assert_eq!(component.items(READER, &name).await, ["\"".repeat(1_000)]);
}

#[tokio::test]
async fn events_with_long_tags_arrive_within_a_second() {
    let mut component = deferring().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    let began = Instant::now();
    let mut events = 0;
    for bytes in [9_000, 20_000, 36_000, 60_000] {
        for payload in payloads(bytes) {
            publish(&mut component, "n", "i", &payload).await;
            assert_eq!(event(&component.message().await).children().count(), 1);
            events += 1;
        }
    }
    // Deferred tags would take a second each until the white space is sent.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(events / 2), "{events} events took {took:?}");
}

/// A parser that keeps waiting gets increasing amounts of white space.
#[tokio::test]
async fn spaces_increase_while_no_barrier_returns() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    component.link.hold_barriers();
    component.publish(OWNER, "n", "i").await;
    component.message().await;
    let bytes = |component: &TestComponent| component.link.reading.bytes.load(Ordering::Relaxed);
    let before = bytes(&component);
    let began = Instant::now();
    // One kilobyte after a second, two after the next, and a barrier.
    while bytes(&component) < before + 3 * 1024 {
        let silence = Duration::from_millis(50);
        assert!(began.elapsed() < Duration::from_secs(20), "{}", bytes(&component) - before);
        let received = tokio::time::timeout(silence, component.link.receive()).await;
        assert!(received.is_err(), "{received:?}");
    }
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert!(bytes(&component) < before + 8 * 1024);
    component.link.release_barriers().await;
    assert!(component.messages().await.is_empty());
}

/// White space counts towards the stanza limit of the server until the tag before it is parsed;
/// both together stay within the limit.
#[tokio::test]
async fn large_replies_and_their_spaces_fit_into_a_stanza() {
    const MAX_STANZA: usize = 524_288;
    let mut component = deferring().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    let text = format!("<x xmlns='urn:x'>{}</x>", "t".repeat(61_000));
    let item = |id: usize, payload: &str| format!("<item id='{id}'>{payload}</item>");
    let texts: String = (0..7).map(|id| item(id, &text)).collect();
    let bytes = |component: &TestComponent| component.link.reading.bytes.load(Ordering::Relaxed);
    for tag in payloads(65_000) {
        // All items fit into one answer, but not with the white space. Events have one item each.
        let all = format!("<publish node='n'>{texts}{}</publish>", item(7, &tag));
        assert!(all.len() < 495_000 && all.len() + tag.len() > MAX_STANZA);
        component.granted(OWNER, &all).await;
        for _ in 0..8 {
            component.message().await;
        }
        // Everything before the next reply has been read when that reply arrives.
        component.pubsub(READER, "get", "<affiliations/>").await;
        let before = bytes(&component);
        let newest = component.items(READER, "n").await;
        component.pubsub(READER, "get", "<affiliations/>").await;
        assert!(bytes(&component) - before < MAX_STANZA);
        assert_eq!(newest, ["1", "2", "3", "4", "5", "6", "7"]);
    }
}
