//! The load of one sender: all of a burst is accepted, in order, within the limits of its queue; others hardly notice.

use std::{sync::Arc, time::Duration};

use gjallar::store::MemoryStore;
use tokio::sync::Semaphore;

use crate::harness::{Component, PUBSUB, SERVICE, error, faulty::Faulty, served::Served, shown};

const BOT: &str = "bot@localhost/import";
const OTHER: &str = "other@localhost/desk";
const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";

fn iq(from: &str, kind: &str, id: usize, content: &str) -> String {
    format!("<iq type='{kind}' id='{id}' from='{from}' to='{SERVICE}'>{content}</iq>")
}

fn pubsub(from: &str, kind: &str, id: usize, content: &str) -> String {
    iq(from, kind, id, &format!("<pubsub xmlns='{PUBSUB}'>{content}</pubsub>"))
}

/// Publishes an item of 400 bytes.
fn publish(from: &str, node: &str, id: usize) -> String {
    let text = "x".repeat(379);
    let item = format!("<item id='{id}'><x xmlns='urn:x'>{text}</x></item>");
    pubsub(from, "set", id, &format!("<publish node='{node}'>{item}</publish>"))
}

fn ping(from: &str, id: usize) -> String {
    iq(from, "get", id, PING)
}

fn disco(from: &str, id: usize) -> String {
    iq(from, "get", id, "<query xmlns='http://jabber.org/protocol/disco#info'/>")
}

/// The next answers are results, with these ids in this order.
async fn are_granted(component: &mut Component, ids: std::ops::Range<usize>) {
    for id in ids {
        let answer = component.answer().await;
        assert_eq!(answer.attr("id"), Some(id.to_string().as_str()), "{}", shown(&answer));
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    }
}

/// Until the disk goes on, all of them wait.
#[tokio::test]
async fn five_thousand_publishes_at_once_are_accepted_in_order() {
    let gate = Arc::new(Semaphore::new(1));
    let store = Faulty::gated(Arc::new(MemoryStore::new()), &gate);
    let mut component = Component::with(store, |_| {}).await;
    component.create(BOT, "n", &[]).await;
    let closed = gate.acquire().await.unwrap();
    component.send(&(0..5_000).map(|id| publish(BOT, "n", id)).collect::<String>()).await;
    // What came before it is in its queue, or refused.
    component.send(&ping(OTHER, 0)).await;
    are_granted(&mut component, 0..1).await;
    drop(closed);
    are_granted(&mut component, 0..5_000).await;
}

#[tokio::test]
async fn two_thousand_mixed_requests_at_once_are_accepted_in_order() {
    let mut component = Component::start().await;
    component.create(BOT, "n", &[]).await;
    component.publish(BOT, "n", "first").await;
    let request = |id: usize| match id % 8 {
        0 | 1 => publish(BOT, "n", id),
        2 => {
            pubsub(BOT, "set", id, &format!("<retract node='n'><item id='{}'/></retract>", id - 2))
        }
        3 => pubsub(BOT, "get", id, "<items node='n' max_items='1'/>"),
        4 => disco(BOT, id),
        5 => pubsub(BOT, "set", id, &format!("<subscribe node='n' jid='{BOT}'/>")),
        6 => pubsub(BOT, "get", id, "<subscriptions/>"),
        _ => pubsub(BOT, "set", id, &format!("<unsubscribe node='n' jid='{BOT}'/>")),
    };
    component.send(&(0..2_000).map(request).collect::<String>()).await;
    are_granted(&mut component, 0..2_000).await;
}

#[tokio::test]
async fn a_thousand_disco_info_requests_at_once_are_answered() {
    let mut component = Component::start().await;
    component.send(&(0..1_000).map(|id| disco(BOT, id)).collect::<String>()).await;
    are_granted(&mut component, 0..1_000).await;
}

/// 70 wait, and what comes after that is refused until none waits: of a burst the beginning is accepted.
#[tokio::test]
async fn what_passes_a_sender_queue_names_its_limit_and_leaves_no_holes() {
    let gate = Arc::new(Semaphore::new(1));
    let store = Faulty::gated(Arc::new(MemoryStore::new()), &gate);
    let configure =
        |config: &mut gjallar::process::Config| config.limits.max_queued_stanzas_per_jid = 70;
    let mut component = Component::with(store, configure).await;
    component.create(BOT, "n", &[]).await;
    let closed = gate.acquire().await.unwrap();
    // 64 of them are decided, and wait for the disk.
    component.send(&(0..80).map(|id| publish(BOT, "n", id)).collect::<String>()).await;
    for id in 70..80 {
        let refused = component.answer().await;
        assert_eq!(refused.attr("id"), Some(id.to_string().as_str()));
        assert_eq!(error(&refused), "wait resource-constraint");
        let text = "more than 70 requests of one sender are waiting \
                    (limits.max_queued_stanzas_per_jid): retry later";
        assert!(shown(&refused).contains(text), "{}", shown(&refused));
    }
    drop(closed);
    are_granted(&mut component, 0..70).await;
    component.send(&publish(BOT, "n", 80)).await;
    are_granted(&mut component, 80..81).await;
}

/// While a bot's burst is dealt with, the slowest hundredth of another sender's publishes takes at most twice as long
/// as without it. Measured in turn, for the machine has other work too; the median of what was measured counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_one_sender_hardly_delays_others() {
    let mut served = Served::start(&[], &[]).await;
    served.granted(BOT, "<create node='bulk'/>").await;
    served.granted(OTHER, "<create node='n'/>").await;
    let mut ratios = Vec::new();
    for _ in 0..7 {
        let alone = p99_of_publishes(&mut served).await;
        let burst: String = (0..5_000).map(|id| publish(BOT, "bulk", id)).collect();
        served.link.send(&burst).await;
        // It is in its queue when this is answered.
        served.timed("third@localhost", "get", PING).await;
        let meanwhile = p99_of_publishes(&mut served).await;
        // Its last publish is dealt with after what was measured.
        let (_, rest) = served.timed(BOT, "get", PING).await;
        assert!(rest > meanwhile, "the burst was over: {rest:?}");
        eprintln!("p99 of another sender: alone {alone:?}, during a burst {meanwhile:?}");
        ratios.push(meanwhile.as_secs_f64() / alone.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[3] <= 2.0, "during a burst it takes {ratios:?} times as long");
}

async fn p99_of_publishes(served: &mut Served) -> Duration {
    let item = format!("<item id='i'><x xmlns='urn:x'>{}</x></item>", "x".repeat(379));
    let own = format!("<pubsub xmlns='{PUBSUB}'><publish node='n'>{item}</publish></pubsub>");
    let mut latencies = Vec::new();
    for _ in 0..100 {
        let (answer, took) = served.timed(OTHER, "set", &own).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        latencies.push(took);
    }
    latencies.sort();
    latencies[98]
}
