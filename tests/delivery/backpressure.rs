//! Backlog of the real process: kills, a server that does not read, and revoked recipients.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use minidom::Element;

use crate::support::{component::event, process::ServiceProcess};

const OWNER: &str = "owner@localhost/desk";
const AUDIENCE: usize = 10_000;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the kind of an event and the id of its item: `item 1`.
fn kind_and_id(message: &Element) -> String {
    let event = event(message);
    match event.children().next() {
        Some(child) if event.name() == "items" => {
            format!("{} {}", child.name(), child.attr("id").unwrap())
        }
        _ => event.name().to_owned(),
    }
}

fn sequence(message: &Element) -> u64 {
    let id = message.get_child("stanza-id", "urn:xmpp:sid:0").unwrap().attr("id").unwrap();
    id.split_once('-').unwrap().1.parse().unwrap()
}

async fn backlog_is_delivered(served: &mut ServiceProcess) {
    while served.stat("log_backlog_entries").await > 0 {
        served.ask(OWNER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    }
}

/// Receives messages until there are this many.
async fn take(served: &mut ServiceProcess, number: usize) {
    while served.messages.len() < number {
        let stanza = served.link.receive().await.expect("the stream ended");
        if stanza.name() == "message" {
            served.messages.push(stanza);
        }
    }
}

/// Eviction, retraction, purge and deletion while ten thousand notifications are pending, with
/// kills in between; a new node of the same name inherits nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_reaches_ten_thousand_subscribers_across_kills() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    let form = crate::support::component::form(&[("max_items", "1")]);
    served.granted(OWNER, &format!("<create node='n'/><configure>{form}</configure>")).await;
    served.subscribe_many(OWNER, "n", AUDIENCE).await;
    served.publish(OWNER, "n", "1").await;
    served.publish(OWNER, "n", "2").await;
    served.granted(OWNER, "<retract node='n'><item id='2'/></retract>").await;
    served.publish(OWNER, "n", "3").await;
    served.granted(OWNER, "<purge node='n'/>").await;
    served.granted(OWNER, "<delete node='n'/>").await;
    served.granted(OWNER, "<create node='n'/>").await;
    served.granted("new@localhost", "<subscribe node='n' jid='new@localhost'/>").await;
    served.publish(OWNER, "n", "new").await;
    for kill in 1..=4 {
        take(&mut served, kill * AUDIENCE + 123).await;
        served.kill_and_restart().await;
    }
    let is_last = |message: &Element| message.attr("to") == Some("new@localhost");
    while !served.messages.last().is_some_and(is_last) {
        let next = served.messages.len() + 1;
        take(&mut served, next).await;
    }
    // Checks the order of first deliveries; repeats are identical and in order too.
    let mut received = BTreeMap::<&str, Vec<(u64, String)>>::new();
    for message in &served.messages {
        let (number, content) = (sequence(message), kind_and_id(message));
        let known = received.entry(message.attr("to").unwrap()).or_default();
        match known.iter().find(|(other, _)| *other == number) {
            Some((_, before)) => assert_eq!(*before, content),
            None => known.push((number, content)),
        }
    }
    let all = ["item 1", "item 2", "retract 2", "item 3", "purge", "delete"];
    let new = received.remove("new@localhost").unwrap();
    assert_eq!(new, [(1, "item new".to_owned())]);
    assert_eq!(received.len(), AUDIENCE);
    for (jid, received) in received {
        let contents: Vec<_> = received.iter().map(|(_, content)| content.as_str()).collect();
        assert_eq!(contents, all, "{jid}");
    }
    let repeats = served.messages.len() - 6 * AUDIENCE - 1;
    assert!(repeats <= 4 * 10_000, "{repeats} repeats after four kills");
    // No entry of the first node is left once all are delivered and trimmed: nothing is pending
    // after a stop.
    tokio::time::timeout(TIMEOUT, backlog_is_delivered(&mut served)).await.expect("it never ends");
    served.stop_and_restart().await;
    assert_eq!(served.stat("log_backlog_entries").await, 0);
    assert_eq!(served.check().await, "the store is in order\n");
}

/// A hundred events for a thousand recipients, none confirmed by the server; a subscriber that is
/// banned then receives nothing after the answer, not even after a kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcast_gets_no_notification_of_a_backlog_of_100_000() {
    const LAST: &str = "000999@far.example";
    for is_killed in [false, true] {
        let mut served = ServiceProcess::start(&[], &[]).await;
        served.granted(OWNER, "<create node='n'/>").await;
        served.subscribe_many(OWNER, "n", 1000).await;
        // Barriers are held back, so that most notifications have to wait.
        let mut barriers = Vec::new();
        let mut before = 0;
        let mut answers = 0;
        for id in 0..100 {
            let content = format!(
                "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item \
                 id='{id}'><x xmlns='urn:x'/></item></publish></pubsub>"
            );
            served.request(OWNER, &format!("p{id}"), "set", &content).await;
        }
        let content = format!(
            "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><affiliations node='n'>\
             <affiliation jid='{LAST}' affiliation='outcast'/></affiliations></pubsub>"
        );
        served.request(OWNER, "outcast", "set", &content).await;
        loop {
            let stanza = served.link.receive_any().await.unwrap();
            match stanza.attr("id").unwrap_or_default() {
                "outcast" => break,
                id if id.starts_with("barrier-") => barriers.push(stanza),
                id if id.starts_with('p') => answers += 1,
                _ => before += usize::from(stanza.name() == "message"),
            }
        }
        assert_eq!(answers, 100);
        assert!(before <= 10_000, "{before} of 100 000 were told");
        if is_killed {
            served.kill_and_restart().await;
            // Ignores what was in the socket buffers before the kill.
            assert!(served.messages.iter().all(|message| message.attr("to") != Some(LAST)));
            served.messages.clear();
            barriers.clear();
        }
        for barrier in &barriers {
            served.link.return_barrier(barrier, false).await;
        }
        let mut received = BTreeMap::<String, BTreeSet<u64>>::new();
        loop {
            let message = served.link.receive().await.unwrap();
            let to = message.attr("to").unwrap().to_owned();
            assert_ne!(to, LAST);
            let sequences = received.entry(to.clone()).or_default();
            sequences.insert(sequence(&message));
            if to == "000998@far.example" && sequences.contains(&100) {
                break;
            }
        }
        assert!(received.values().all(|sequences| sequences.contains(&100)));
    }
}

/// The server stops reading. Publishing succeeds up to the backlog limit and is refused above it;
/// memory stays bounded; then everything is delivered in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_server_causes_no_more_than_the_backlog_in_memory() {
    // The nodes of one creator may use half of the backlog.
    const LIMIT: usize = 1000;
    let variables = [
        ("LIMITS_MAX_BACKLOG_EVENTS", "2000"),
        ("LINK_PING_AFTER_SECONDS", "600"),
        ("LOG", "error"),
    ];
    let mut served = ServiceProcess::start(&variables, &[]).await;
    let form = crate::support::component::form(&[("publish_model", "open"), ("max_items", "max")]);
    served.granted(OWNER, &format!("<create node='n'/><configure>{form}</configure>")).await;
    served.subscribe_many(OWNER, "n", 500).await;
    let memory = served.memory();
    // Many senders, so that the backlog fills up before a sender queue does.
    let text = "x".repeat(1000);
    for number in 0..1500 {
        let content = format!(
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item \
             id='{number}'><x xmlns='urn:x'>{text}</x></item></publish></pubsub>"
        );
        let from = format!("p{}@localhost/x", number % 300);
        served.request(&from, &format!("p{number}"), "set", &content).await;
    }
    let full = async { while served.stat("log_backlog_entries").await < LIMIT as u64 {} };
    tokio::time::timeout(TIMEOUT, full).await.expect("the backlog never fills");
    let grown = served.memory().saturating_sub(memory);
    assert!(grown < 64, "{grown} MiB more");
    let (mut granted, mut refused, mut received) = (0, 0, BTreeMap::<String, Vec<u64>>::new());
    while granted + refused < 1500 || received.values().map(Vec::len).sum::<usize>() < 500 * granted
    {
        let stanza = served.link.receive().await.unwrap();
        if stanza.name() == "message" {
            let to = stanza.attr("to").unwrap().to_owned();
            received.entry(to).or_default().push(sequence(&stanza));
        } else if stanza.attr("type") == Some("result") {
            granted += 1;
        } else {
            assert_eq!(crate::support::component::error(&stanza), "wait resource-constraint");
            refused += 1;
        }
    }
    // Notifications in flight release space for more than the limit.
    assert!((LIMIT..1500).contains(&granted), "{granted} granted, {refused} refused");
    // Sequence 1 is the notice of the subscription.
    let all: Vec<_> = (2..=granted as u64 + 1).collect();
    assert!(received.values().all(|sequences| *sequences == all));
    served.publish(OWNER, "n", "afterwards").await;
}

/// Loss of a subscription does not affect pending notifications of an earlier node with the same
/// name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsubscribe_does_not_affect_previous_epoch() {
    const READER: &str = "reader@localhost/r";
    let mut served = ServiceProcess::start(&[], &[]).await;
    for node in ["crowd", "n"] {
        served.granted(OWNER, &format!("<create node='{node}'/>")).await;
    }
    served.granted(READER, &format!("<subscribe node='n' jid='{READER}'/>")).await;
    served.subscribe_many(OWNER, "crowd", 15_000).await;
    // At most 10 000 notifications are sent before barriers return.
    served.link.hold_barriers();
    let crowd = "<publish node='crowd'><item><x xmlns='urn:x'/></item></publish>";
    for content in [
        crowd,
        "<publish node='n'><item id='old'><x xmlns='urn:x'/></item></publish>",
        "<delete node='n'/>",
        "<create node='n'/>",
    ] {
        served.granted(OWNER, content).await;
    }
    for action in ["subscribe", "unsubscribe"] {
        served.granted(READER, &format!("<{action} node='n' jid='{READER}'/>")).await;
    }
    served.link.release_barriers().await;
    // Each message is examined once, because there are thousands.
    let (mut events, mut examined) = (Vec::new(), 0);
    while events.len() < 2 {
        take(&mut served, examined + 1).await;
        let news = &served.messages[examined..];
        let received = news.iter().filter(|message| message.attr("to") == Some(READER));
        events.extend(received.map(kind_and_id));
        examined = served.messages.len();
    }
    assert_eq!(events, ["item old", "delete"]);
}

/// A server may route stanzas of a killed process that it had received earlier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn barrier_of_an_earlier_process_acknowledges_nothing() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    served.granted(OWNER, "<create node='n'/>").await;
    served.subscribe_many(OWNER, "n", 5_000).await;
    served.link.hold_barriers();
    served.publish(OWNER, "n", "1").await;
    take(&mut served, 5_000).await;
    let old = served.link.take_held();
    assert!(!old.is_empty());
    served.kill_and_restart().await;
    served.link.hold_barriers();
    served.messages.clear();
    take(&mut served, 5_000).await;
    for barrier in &old {
        // Barriers of the earlier process count for nothing, even if they confirm everything.
        served.link.return_barrier(barrier, true).await;
    }
    served.ask(OWNER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(served.stat("log_backlog_entries").await, 1);
    served.link.release_barriers().await;
    tokio::time::timeout(TIMEOUT, backlog_is_delivered(&mut served)).await.expect("it never ends");
}
