//! Kills: the real service is killed, or its connection broken, repeatedly while it works.
//! Afterwards acknowledged requests are compared with the stored items and with the notifications
//! received.
//!
//! `make crash` runs the long form; `CRASH_ROUNDS` sets the number of rounds.

#![allow(clippy::disallowed_methods)] // the long form is asked for by a variable

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Child, Command, Stdio},
};

use gjallar::store::SledStore;
use gjallar_pubsub::NodeId;
use minidom::Element;
use tokio::{
    net::TcpListener,
    time::{Duration, timeout},
};

use crate::support::{
    component::{EVENT, ServerStream, form, is_barrier, shown},
    process::ServiceProcess,
    rng::TestRng,
    service::all_items,
};

const NODES: usize = 3;
const SUBSCRIBERS: usize = 4;
const OWNER: &str = "owner@localhost/x";

/// Fault to inject.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InjectedFault {
    /// SIGKILL.
    Kill,
    /// The server ends the connection, and unread data is lost.
    Break,
}

/// Notifications to one subscriber from one node: sequence of the event, whether it is delayed, and
/// id and content.
type ReceivedNotifications = Vec<(u64, bool, String)>;

struct CrashReport {
    complaints: Vec<String>,
    summary: String,
    /// Maximum number of repeats after one fault.
    most: usize,
}

struct Checker {
    listener: TcpListener,
    store: tempfile::TempDir,
    service: Child,
    link: ServerStream,
    dice: TestRng,
    published: usize,
    acknowledged: BTreeSet<String>,
    received: BTreeMap<(String, String), ReceivedNotifications>,
    received_in_round: usize,
    repeats: Vec<usize>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

impl Checker {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = tempfile::tempdir().unwrap();
        let service = serve(&listener, store.path());
        let link = ServerStream::accept(&listener).await;
        let mut checker = Self {
            listener,
            store,
            service,
            link,
            dice: TestRng(0xC4A5),
            published: 0,
            acknowledged: BTreeSet::new(),
            received: BTreeMap::new(),
            received_in_round: 0,
            repeats: Vec::new(),
        };
        for node in 0..NODES {
            let form = form(&[("max_items", "max"), ("notify_retract", "1")]);
            let create = format!("<create node='n{node}'/><configure>{form}</configure>");
            checker.granted(OWNER, &create).await;
            for subscriber in 0..SUBSCRIBERS {
                let jid = format!("s{subscriber}@localhost");
                let subscribe = format!("<subscribe node='n{node}' jid='{jid}'/>");
                checker.granted(&format!("{jid}/r"), &subscribe).await;
            }
        }
        checker
    }

    async fn ask(&mut self, from: &str, id: &str, content: &str) {
        let request = format!(
            "<iq type='set' id='{id}' from='{from}' to='pubsub.localhost'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub></iq>"
        );
        self.link.send(&request).await;
    }

    async fn granted(&mut self, from: &str, content: &str) {
        self.ask(from, "setup", content).await;
        while !self.acknowledged.remove("setup") {
            assert!(self.take().await);
        }
    }

    /// Publishes or retracts a random item.
    async fn work(&mut self) {
        let node = self.dice.roll(NODES);
        if self.dice.roll(5) == 0 && self.published > 0 {
            let id = self.dice.roll(self.published);
            let content = format!("<retract node='n{node}'><item id='i{id}'/></retract>");
            return self.ask(OWNER, &format!("-{node}/i{id}"), &content).await;
        }
        self.published += 1;
        let id = format!("i{}", self.published);
        let text = "x".repeat([10, 500, 5000][self.dice.roll(3)]);
        let content = format!(
            "<publish node='n{node}'><item id='{id}'><x xmlns='urn:x'>{text}</x></item></publish>"
        );
        self.ask(OWNER, &format!("{node}/{id}"), &content).await;
    }

    /// Processes a stanza; returns `false` at the end of the stream.
    async fn take(&mut self) -> bool {
        let Some(stanza) = self.link.receive_any().await else { return false };
        if is_barrier(&stanza) {
            self.link.return_barrier(&stanza, false).await;
        } else if stanza.name() == "message" {
            self.record(&stanza);
        } else if stanza.attr("type") == Some("result") {
            self.acknowledged.insert(stanza.attr("id").unwrap().to_owned());
        }
        true
    }

    fn record(&mut self, message: &Element) {
        let seq = sequence(message);
        let is_late = message.has_child("delay", "urn:xmpp:delay");
        let items = message.get_child("event", EVENT).unwrap().children().next().unwrap().clone();
        let key = (message.attr("to").unwrap().to_owned(), items.attr("node").unwrap().to_owned());
        let content = format!("{} {}", message.attr("id").unwrap(), shown(&items));
        self.received.entry(key).or_default().push((seq, is_late, content));
        self.received_in_round += 1;
    }

    /// Sends requests for a while, injects a fault and reconnects.
    async fn round(&mut self, fault: InjectedFault) {
        for _ in 0..self.dice.roll(30) {
            self.work().await;
        }
        for _ in 0..self.dice.roll(500) {
            // Fewer stanzas may arrive; the wait ends after a silence.
            if timeout(Duration::from_millis(20), self.take()).await.is_err() {
                break;
            }
        }
        let before = self.number_of_repeats();
        if fault == InjectedFault::Kill {
            self.service.kill().unwrap();
            self.service.wait().unwrap();
            // The server reads what is left in the socket buffers.
            while self.take().await {}
            self.service = serve(&self.listener, self.store.path());
        }
        self.link.drop_unread().await;
        self.link = ServerStream::accept(&self.listener).await;
        self.repeats.push(before);
    }

    /// Waits until everything is delivered, stops the service, and reports errors.
    async fn finish(mut self) -> CrashReport {
        let reader = "s0@localhost".to_owned();
        for node in 0..NODES {
            let last = format!(
                "<publish node='n{node}'><item id='last'><x xmlns='urn:x'/></item></publish>"
            );
            self.ask(OWNER, &format!("{node}/last"), &last).await;
            let key = (format!("s{}@localhost", SUBSCRIBERS - 1), format!("n{node}"));
            // The last item is among the newest; a search of all notifications would exceed the
            // component's timeout.
            let is_last =
                |received: &ReceivedNotifications| {
                    received.iter().rev().take(100).any(|(_, _, text)| {
                        text.contains("id=\"last\"") || text.contains("id='last'")
                    })
                };
            while !self.received.get(&key).is_some_and(is_last) {
                assert!(self.take().await);
            }
        }
        self.service.kill().unwrap();
        self.service.wait().unwrap();
        let mut complaints = Vec::new();
        for ((jid, node), received) in &self.received {
            complaints.extend(order(received).into_iter().map(|c| format!("{jid} at {node}: {c}")));
        }
        let store = SledStore::open(self.store.path()).unwrap();
        for node in 0..NODES {
            let id = NodeId::parse(&format!("n{node}")).unwrap();
            let items = all_items(&store, &id).await.unwrap();
            let stored: BTreeSet<_> = items.iter().map(|item| item.id.to_string()).collect();
            let received = &self.received[&(reader.clone(), format!("n{node}"))];
            // Item ids are used once, so a retracted item stays absent.
            for gone in
                self.acknowledged.iter().filter_map(|id| id.strip_prefix(&format!("-{node}/")))
            {
                let retracted = format!("retract id='{gone}'");
                if stored.contains(gone)
                    || !received.iter().any(|(_, _, text)| text.contains(&retracted))
                {
                    complaints.push(format!("{gone} was retracted, and is there or not heard of"));
                }
            }
            for acknowledged in
                self.acknowledged.iter().filter_map(|id| id.strip_prefix(&format!("{node}/")))
            {
                let published = format!("item id='{acknowledged}'");
                if !received.iter().any(|(_, _, text)| text.contains(&published)) {
                    complaints.push(format!("{acknowledged} was acknowledged and is not heard"));
                }
                let retracted = format!("retract id='{acknowledged}'");
                let is_gone = received.iter().any(|(_, _, text)| text.contains(&retracted));
                if !is_gone && !stored.contains(acknowledged) && items.len() < 10_000 {
                    complaints.push(format!("{acknowledged} was acknowledged and is missing"));
                }
            }
        }
        let total: usize = self.received.values().map(Vec::len).sum();
        let most = self.repeats.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let summary = format!(
            "{} requests acknowledged, {total} notifications, {} of them repeats, at most {most} after one fault",
            self.acknowledged.len(),
            self.number_of_repeats(),
        );
        CrashReport { complaints, summary, most }
    }

    fn number_of_repeats(&self) -> usize {
        let distinct = |received: &ReceivedNotifications| {
            received.iter().map(|(seq, ..)| seq).collect::<BTreeSet<_>>().len()
        };
        self.received.values().map(|received| received.len() - distinct(received)).sum()
    }
}

/// Returns the sequence of an event.
fn sequence(message: &Element) -> u64 {
    let id = message.get_child("stanza-id", "urn:xmpp:sid:0").unwrap().attr("id").unwrap();
    id.split_once('-').unwrap().1.parse().unwrap()
}

/// Returns gaps, wrong order, and repeats that differ from the original.
fn order(received: &ReceivedNotifications) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut known, mut next) = (BTreeMap::new(), 1);
    for (seq, is_late, text) in received {
        match known.insert(*seq, text) {
            None if *seq == next => next += 1,
            None => {
                complaints.push(format!("{seq} where {next} was expected"));
                next = next.max(seq + 1);
            }
            Some(first) if first != text => complaints.push(format!("{seq} is told differently")),
            Some(_) if !is_late => complaints.push(format!("{seq} is repeated without its time")),
            Some(_) => {}
        }
    }
    complaints
}

fn serve(listener: &TcpListener, store: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gjallar"))
        .arg("serve")
        .env_clear()
        .env("GJALLAR_JID", "pubsub.localhost")
        .env("GJALLAR_SERVER", listener.local_addr().unwrap().to_string())
        .env("GJALLAR_SECRET", "secret")
        .env("GJALLAR_STORE", format!("sled:{}", store.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_no_acknowledged_changes_or_notifications() {
    let rounds = std::env::var("CRASH_ROUNDS").map_or(30, |rounds| rounds.parse().unwrap());
    let mut checker = Checker::start().await;
    for round in 0..rounds {
        checker
            .round(if round % 10 == 9 { InjectedFault::Break } else { InjectedFault::Kill })
            .await;
    }
    let CrashReport { complaints, summary, most } = checker.finish().await;
    eprintln!("{rounds} faults: {summary}; {} complaints", complaints.len());
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(most <= 10_000, "{most} repeats after one fault");
}

/// The checker reports acknowledged items that are missing or were not notified, retracted items
/// that exist, gaps, and repeats with other content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checker_detects_losses_gaps_and_contradictions() {
    let mut checker = Checker::start().await;
    checker
        .ask(OWNER, "0/i1", "<publish node='n0'><item id='i1'><x xmlns='urn:x'/></item></publish>")
        .await;
    checker.ask(OWNER, "-0/i1", "<retract node='n0'><item id='i1'/></retract>").await;
    checker.round(InjectedFault::Kill).await;
    for never in ["0/never", "-0/never"] {
        checker.acknowledged.insert(never.to_owned());
    }
    let report = checker.finish().await.complaints.join("\n");
    for expected in [
        "never was acknowledged and is not heard",
        "never was acknowledged and is missing",
        "never was retracted, and is there or not heard of",
    ] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    let received =
        vec![(1, false, "a".to_owned()), (1, true, "b".to_owned()), (3, false, "c".to_owned())];
    assert_eq!(order(&received), ["1 is told differently", "3 where 2 was expected"]);
}

/// A server that returns a barrier before it has read the stanzas before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checker_detects_gaps_without_barriers() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    served.granted(OWNER, "<create node='n'/>").await;
    served.subscribe_many(OWNER, "n", 500).await;
    served.publish(OWNER, "n", "1").await;
    let mut received = BTreeMap::<String, ReceivedNotifications>::new();
    let mut record = |message: &Element| {
        let (recipient, sequence) = (message.attr("to").unwrap(), sequence(message));
        received.entry(recipient.to_owned()).or_default().push((sequence, false, String::new()));
    };
    loop {
        let stanza = served.link.receive_any().await.unwrap();
        if is_barrier(&stanza) {
            served.link.return_barrier(&stanza, true).await;
            break;
        }
        record(&stanza);
    }
    // The service trims entries that the server has not read.
    let all_trimmed = async { while served.stat("log_backlog_entries").await > 0 {} };
    timeout(Duration::from_secs(60), all_trimmed).await.expect("it is not told");
    served.link.drop_unread().await;
    served.reconnected().await;
    served.publish(OWNER, "n", "2").await;
    while served.messages.len() < 500 {
        served.messages.push(served.link.receive().await.unwrap());
    }
    served.messages.iter().for_each(record);
    let complaints: Vec<_> = received.values().flat_map(order).collect();
    assert!(complaints.iter().any(|c| c.contains("2 where 1 was expected")), "{complaints:?}");
}
