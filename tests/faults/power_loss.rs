//! Power loss: a trace of every write and sync of the real service is cut at many points, and
//! unsynced data is lost in many ways. All acknowledged changes must be in the store.
//!
//! `make power` runs the long form; `POWER_OPERATIONS` and `POWER_TRIALS` set the numbers.

#![allow(clippy::disallowed_methods)] // the long form is asked for by variables

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use gjallar::store::{SledStore, Store};
use gjallar_pubsub::{AccessModel, Event, Item, NodeId, Payload};
use tokio::net::TcpListener;

use crate::support::{
    component::ServerStream, ld_preload::compile, rng::TestRng, service::all_items,
};

const NODES: usize = 20;
/// Size of a block that a device writes atomically.
const BLOCK: usize = 4096;
const SEGMENT: usize = 512 * 1024;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

/// Operation at one node; operations of a node are applied in order.
enum WorkloadStep {
    Create,
    Delete,
    Publish(Vec<(usize, String)>),
    Retract(usize),
    Purge,
    Subscribe(usize),
    Unsubscribe(usize),
    /// Subscribes so many JIDs that one commit cannot remove them.
    Crowd,
    ShutOut,
    LetIn,
}

/// Expected content of an existing node: items by id and content, subscribers, and whether the
/// access model excludes the crowd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ExpectedNode {
    items: Vec<(String, String)>,
    subscribers: BTreeSet<String>,
    is_closed: bool,
}

const MAX_ITEMS: usize = 12;
const CROWD: usize = 600;

fn is_of_crowd(jid: &str) -> bool {
    jid.ends_with("@crowd")
}

fn crowd() -> impl Iterator<Item = String> {
    (0..CROWD).map(|number| format!("{number}@crowd"))
}

impl WorkloadStep {
    /// Chooses a random operation that succeeds in this state.
    fn any(state: Option<&ExpectedNode>, count: usize, dice: &mut TestRng) -> Self {
        let Some(state) = state else { return Self::Create };
        if state.is_closed {
            return Self::LetIn;
        }
        if state.subscribers.iter().any(|jid| is_of_crowd(jid)) {
            return Self::ShutOut;
        }
        match dice.roll(100) {
            0 => Self::Delete,
            1 => Self::Purge,
            2..4 => Self::Crowd,
            4..10 if !state.items.is_empty() => {
                let (id, _) = &state.items[dice.roll(state.items.len())];
                Self::Retract(id.parse().unwrap())
            }
            10..20 => Self::Subscribe(dice.roll(6)),
            20..28 if !state.subscribers.is_empty() => {
                let jid = state.subscribers.iter().nth(dice.roll(state.subscribers.len()));
                Self::Unsubscribe(jid.unwrap().rsplit_once('r').unwrap().1.parse().unwrap())
            }
            _ => {
                let first = dice.roll(30);
                let item = |id| {
                    let length = [10, 300, 900, 5_000, 60_000][dice.roll(5)];
                    let letter = char::from(b'a' + u8::try_from(dice.roll(26)).unwrap());
                    (id, format!("{count}{}", letter.to_string().repeat(length)))
                };
                Self::Publish((first..first + [1, 1, 1, 3][count % 4]).map(item).collect())
            }
        }
    }

    fn apply(&self, state: &mut Option<ExpectedNode>, node: usize) {
        if let Self::Create = self {
            *state = Some(ExpectedNode::default());
        }
        let Some(expected) = state else { return };
        match self {
            Self::Create => {}
            Self::Delete => *state = None,
            Self::Publish(items) => {
                for (id, text) in items {
                    expected.items.retain(|(other, _)| *other != id.to_string());
                    expected.items.push((id.to_string(), text.clone()));
                }
                expected.items.drain(..expected.items.len().saturating_sub(MAX_ITEMS));
            }
            Self::Retract(id) => expected.items.retain(|(other, _)| *other != id.to_string()),
            Self::Purge => expected.items.clear(),
            Self::Subscribe(resource) => {
                expected.subscribers.insert(subscriber(node, *resource));
            }
            Self::Unsubscribe(resource) => {
                expected.subscribers.remove(&subscriber(node, *resource));
            }
            Self::Crowd => expected.subscribers.extend(crowd()),
            Self::ShutOut => {
                expected.subscribers.retain(|jid| !is_of_crowd(jid));
                expected.is_closed = true;
            }
            Self::LetIn => expected.is_closed = false,
        }
    }

    fn request(&self, node: usize, count: usize) -> String {
        let owner = "http://jabber.org/protocol/pubsub#owner";
        let (ns, content) = match self {
            Self::Create => {
                let form =
                    crate::support::component::form(&[("max_items", &MAX_ITEMS.to_string())]);
                ("", format!("<create node='n{node}'/><configure>{form}</configure>"))
            }
            Self::Delete => (owner, format!("<delete node='n{node}'/>")),
            Self::Purge => (owner, format!("<purge node='n{node}'/>")),
            Self::Publish(items) => {
                let item = |(id, text): &(usize, String)| {
                    format!("<item id='{id}'><x xmlns='urn:x'>{text}</x></item>")
                };
                let items: String = items.iter().map(item).collect();
                ("", format!("<publish node='n{node}'>{items}</publish>"))
            }
            Self::Retract(id) => {
                ("", format!("<retract node='n{node}'><item id='{id}'/></retract>"))
            }
            Self::Subscribe(r) => {
                ("", format!("<subscribe node='n{node}' jid='{}'/>", subscriber(node, *r)))
            }
            Self::Unsubscribe(r) => {
                ("", format!("<unsubscribe node='n{node}' jid='{}'/>", subscriber(node, *r)))
            }
            Self::Crowd => {
                let entry = |jid| format!("<subscription jid='{jid}' subscription='subscribed'/>");
                let entries: String = crowd().map(entry).collect();
                (owner, format!("<subscriptions node='n{node}'>{entries}</subscriptions>"))
            }
            Self::ShutOut | Self::LetIn => {
                let is_shut = matches!(self, Self::ShutOut);
                let model = if is_shut { "whitelist" } else { "open" };
                let form = crate::support::component::form(&[("access_model", model)]);
                (owner, format!("<configure node='n{node}'>{form}</configure>"))
            }
        };
        let ns = if ns.is_empty() { "http://jabber.org/protocol/pubsub" } else { ns };
        let from = subscriber(node, 0);
        format!(
            "<iq type='set' id='op-{node}-{count}' from='{from}' to='pubsub.localhost'>\
             <pubsub xmlns='{ns}'>{content}</pubsub></iq>"
        )
    }
}

fn subscriber(node: usize, resource: usize) -> String {
    format!("u{node}@localhost/r{resource}")
}

/// States of every node after 0, 1, 2 … of its operations.
type History = Vec<Vec<Option<ExpectedNode>>>;

/// Operations, the state after each, and the trace of the service's writes.
struct Workload {
    operations: Vec<Vec<WorkloadStep>>,
    history: History,
    record: IoTrace,
}

/// Runs the real service on the recording layer with random operations.
async fn work(folder: &Path, number: usize, variables: &[(&str, &str)]) -> Workload {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = folder.join("store");
    fs::create_dir(&store).unwrap();
    let record = folder.join("record");
    let mut service = serve(&listener, &store, &record, variables);
    let mut link = ServerStream::accept(&listener).await;
    let mut dice = TestRng(0x5EED);
    let mut history: History = vec![vec![None]; NODES];
    let mut outstanding = 0;
    let mut operations: Vec<Vec<WorkloadStep>> = (0..NODES).map(|_| Vec::new()).collect();
    for _ in 0..number {
        let node = dice.roll(NODES);
        let states = &mut history[node];
        let mut state = states.last().unwrap().clone();
        let operation = WorkloadStep::any(state.as_ref(), states.len(), &mut dice);
        operation.apply(&mut state, node);
        link.send(&operation.request(node, states.len())).await;
        states.push(state);
        operations[node].push(operation);
        outstanding += 1;
        // Varies between sequential requests and many requests that share a commit.
        while outstanding > [0, 0, 8, 200][dice.roll(4)] {
            outstanding -= granted(&mut link).await;
        }
    }
    while outstanding > 0 {
        outstanding -= granted(&mut link).await;
    }
    service.kill().unwrap();
    service.wait().unwrap();
    Workload { operations, history, record: IoTrace::read(&record) }
}

/// Receives a stanza; returns 1 for an answer and 0 for a notification.
async fn granted(link: &mut ServerStream) -> usize {
    let stanza = link.receive().await.unwrap();
    if stanza.name() == "message" {
        return 0;
    }
    assert_eq!(
        stanza.attr("type"),
        Some("result"),
        "{}",
        crate::support::component::shown(&stanza)
    );
    1
}

fn serve(listener: &TcpListener, store: &Path, record: &Path, variables: &[(&str, &str)]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gjallar"))
        .arg("serve")
        .env_clear()
        .env("GJALLAR_JID", "pubsub.localhost")
        .env("GJALLAR_SERVER", listener.local_addr().unwrap().to_string())
        .env("GJALLAR_SECRET", "secret")
        .env("GJALLAR_STORE", format!("sled:{}", store.display()))
        .env("LD_PRELOAD", compile("record.c"))
        .env("POWER_STORE", store.canonicalize().unwrap())
        .env("POWER_RECORD", record)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Trace of I/O events, in order.
struct IoTrace(Vec<IoTraceRecord>);

enum IoTraceRecord {
    Opened(u32, String),
    Written(u32, usize, Vec<u8>),
    Resized(u32, usize),
    /// Writes of the file before this entry are durable.
    Synced(u32, usize),
    Renamed(String, String),
    Removed(String),
    Sent(Vec<u8>),
    Received(Vec<u8>),
}

impl IoTrace {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (mut entries, mut at) = (Vec::new(), 0);
        while at + 21 <= bytes.len() {
            let word = |from: usize| u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap());
            let file = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap());
            let offset = usize::try_from(word(at + 5)).unwrap();
            let length = usize::try_from(word(at + 13)).unwrap();
            // The last record may be truncated, because the process was killed.
            let Some(content) = bytes.get(at + 21..at + 21 + length) else { break };
            let text = || String::from_utf8(content.to_vec()).unwrap();
            entries.push(match bytes[at] {
                b'O' => IoTraceRecord::Opened(file, text()),
                b'W' => IoTraceRecord::Written(file, offset, content.to_vec()),
                b'T' => IoTraceRecord::Resized(file, offset),
                b'S' => IoTraceRecord::Synced(file, offset),
                b'R' => {
                    let text = text();
                    let (from, to) = text.split_once('\n').unwrap();
                    IoTraceRecord::Renamed(from.into(), to.into())
                }
                b'U' => IoTraceRecord::Removed(text()),
                b'A' => IoTraceRecord::Sent(content.to_vec()),
                b'B' => IoTraceRecord::Received(content.to_vec()),
                other => panic!("an entry of kind {other}"),
            });
            at += 21 + length;
        }
        Self(entries)
    }
}

/// Disk with durable content and unsynced changes.
#[derive(Default)]
struct Disk {
    files: BTreeMap<u32, File>,
    names: BTreeMap<String, u32>,
    /// Directory changes that a power loss may undo, from the end; a journal keeps their order.
    unsynced_names: Vec<(usize, NameChange)>,
    folder: Option<u32>,
    sent: String,
    received: String,
}

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    unsynced: Vec<(usize, usize, Option<Vec<u8>>)>,
}

enum NameChange {
    Made(String, u32),
    Renamed(String, String),
    Removed(String),
}

fn change_file(content: &mut Vec<u8>, offset: usize, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            content.resize(content.len().max(offset + bytes.len()), 0);
            content[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        None => content.resize(offset, 0),
    }
}

fn change_names(names: &mut BTreeMap<String, u32>, change: &NameChange) {
    match change {
        NameChange::Made(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameChange::Renamed(from, to) => {
            let file = names.remove(from).unwrap();
            names.insert(to.clone(), file);
        }
        NameChange::Removed(name) => {
            names.remove(name);
        }
    }
}

impl Disk {
    fn happen(&mut self, number: usize, entry: &IoTraceRecord) {
        match entry {
            IoTraceRecord::Opened(file, name) if name == "." => self.folder = Some(*file),
            IoTraceRecord::Opened(file, name) => {
                self.files.entry(*file).or_default();
                self.unsynced_names.push((number, NameChange::Made(name.clone(), *file)));
            }
            IoTraceRecord::Written(file, offset, bytes) => {
                let unsynced = &mut self.files.get_mut(file).unwrap().unsynced;
                // A write is torn at block boundaries.
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min((offset + at) / BLOCK * BLOCK + BLOCK - offset);
                    unsynced.push((number, offset + at, Some(bytes[at..end].to_vec())));
                    at = end;
                }
            }
            IoTraceRecord::Resized(file, length) => {
                self.files.get_mut(file).unwrap().unsynced.push((number, *length, None));
            }
            IoTraceRecord::Synced(file, before) if Some(*file) == self.folder => {
                while self.unsynced_names.first().is_some_and(|(at, _)| at < before) {
                    change_names(&mut self.names, &self.unsynced_names.remove(0).1);
                }
            }
            IoTraceRecord::Synced(file, before) => {
                let file = self.files.get_mut(file).unwrap();
                let split = file.unsynced.partition_point(|(at, _, _)| at < before);
                for (_, offset, bytes) in file.unsynced.drain(..split) {
                    change_file(&mut file.synced, offset, bytes.as_deref());
                }
            }
            IoTraceRecord::Renamed(from, to) => {
                let change = NameChange::Renamed(from.clone(), to.clone());
                self.unsynced_names.push((number, change));
            }
            IoTraceRecord::Removed(name) => {
                self.unsynced_names.push((number, NameChange::Removed(name.clone())));
            }
            IoTraceRecord::Sent(bytes) => self.sent.push_str(&String::from_utf8_lossy(bytes)),
            IoTraceRecord::Received(bytes) => {
                self.received.push_str(&String::from_utf8_lossy(bytes))
            }
        }
    }

    /// Returns the number of changes that may be lost.
    fn unsynced(&self) -> usize {
        self.unsynced_names.len() + self.files.values().map(|f| f.unsynced.len()).sum::<usize>()
    }

    /// Returns `true` if unsynced changes are far apart, as when the store begins a new segment of
    /// its file.
    fn is_wide(&self) -> bool {
        let offsets = |file: &File| {
            let offsets = file.unsynced.iter().map(|(_, offset, _)| *offset / (512 * 1024));
            offsets.clone().max() != offsets.min()
        };
        self.files.values().any(offsets)
    }

    /// Writes the files as a power loss leaves them, if `keeps` selects the unsynced changes that
    /// reached the disk.
    fn lose_power(&self, folder: &Path, mut keeps: impl FnMut(usize) -> bool) {
        let mut names = self.names.clone();
        for (_, change) in &self.unsynced_names {
            if !keeps(usize::MAX) {
                break;
            }
            change_names(&mut names, change);
        }
        for (name, file) in names {
            let file = &self.files[&file];
            let mut content = file.synced.clone();
            for (_, offset, bytes) in &file.unsynced {
                if keeps(*offset) {
                    change_file(&mut content, *offset, bytes.as_deref());
                }
            }
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    /// Returns the number of acknowledged operations of each node.
    fn acknowledged(&self) -> Vec<usize> {
        let mut counts = vec![0; NODES];
        for (at, mark) in self.sent.match_indices("id='op-") {
            let rest = &self.sent[at + mark.len()..];
            if let Some((node, count)) =
                rest.split_once('\'').and_then(|(id, _)| id.split_once('-'))
            {
                let (node, count): (usize, usize) = (node.parse().unwrap(), count.parse().unwrap());
                counts[node] = counts[node].max(count);
            }
        }
        counts
    }
}

/// Recipient, and content of the first item of an event; contents are unique.
type DeliveredNotification = (String, String);

impl Disk {
    /// Returns the notifications that the server has certainly received: those sent before a
    /// returned barrier.
    fn confirmed(&self) -> BTreeSet<DeliveredNotification> {
        let Some(at) = self.received.rfind("id='barrier-") else { return BTreeSet::new() };
        let barrier = self.received[at..].split_inclusive('\'').take(2).collect::<String>();
        let end = self.sent.find(&barrier).unwrap();
        let messages = self.sent[..end].split("<message ").skip(1);
        messages
            .filter_map(|message| {
                let (_, to) = message.split_once(" to='")?;
                let (_, text) = message.split_once("<x xmlns='urn:x'>")?;
                Some((to.split_once('\'')?.0.to_owned(), text.split_once('<')?.0.to_owned()))
            })
            .collect()
    }
}

/// Returns the notifications that acknowledged publishes require, except to JIDs that may have
/// unsubscribed since.
fn required_notifications(
    operations: &[Vec<WorkloadStep>],
    history: &History,
    acknowledged: &[usize],
) -> BTreeSet<DeliveredNotification> {
    let mut must = BTreeSet::new();
    for (node, done) in acknowledged.iter().enumerate() {
        for (number, operation) in operations[node].iter().enumerate().take(*done) {
            let WorkloadStep::Publish(items) = operation else { continue };
            for jid in &history[node][number].as_ref().unwrap().subscribers {
                let leaves = |later: &WorkloadStep| matches!(later, WorkloadStep::Unsubscribe(r) if subscriber(node, *r) == *jid);
                if !is_of_crowd(jid) && !operations[node][number..].iter().any(leaves) {
                    must.insert((jid.clone(), items[0].1.clone()));
                }
            }
        }
    }
    must
}

/// Returns the pending notifications of a store.
async fn pending_notifications(
    store: &SledStore,
) -> Result<BTreeSet<DeliveredNotification>, String> {
    let entries = store.poll(None).await.map_err(|error| error.to_string())?;
    let mut pending = BTreeSet::new();
    for entry in entries {
        if let Event::Published(items) = &entry.notification.event {
            let text = text(items[0].payload.as_ref().unwrap());
            pending.extend(entry.recipients.iter().map(|jid| (jid.to_string(), text.clone())));
        }
    }
    Ok(pending)
}

fn text(payload: &Payload) -> String {
    payload.xml().split_once('>').unwrap().1.split_once('<').unwrap().0.to_owned()
}

/// Returns the stored content of a node.
async fn stored(store: &SledStore, node: usize) -> Result<Option<ExpectedNode>, String> {
    let id = NodeId::parse(&format!("n{node}")).unwrap();
    let Some(node) = store.node(&id).await.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let items = all_items(store, &id).await;
    let text = |item: &Item| text(item.payload.as_ref().unwrap());
    let items = items.map_err(|error| error.to_string())?;
    Ok(Some(ExpectedNode {
        items: items.iter().map(|item| (item.id.as_str().to_owned(), text(item))).collect(),
        subscribers: node.subscribers().map(ToString::to_string).collect(),
        is_closed: node.config.access_model == AccessModel::Whitelist,
    }))
}

/// Checks a store after a power loss.
async fn verdict(folder: &Path, work: &Workload, disk: &Disk) -> Result<(), String> {
    let (history, acknowledged) = (&work.history, disk.acknowledged());
    let store = SledStore::open(folder).map_err(|error| format!("not opened: {error}"))?;
    for (node, states) in history.iter().enumerate() {
        let stored = stored(&store, node).await?;
        let possible = &states[acknowledged[node]..];
        if !possible.contains(&stored) {
            let before = states.iter().rposition(|state| *state == stored);
            return Err(format!(
                "node {node}: {} operations were acknowledged, the store has what was there after \
                 {before:?}",
                acknowledged[node]
            ));
        }
    }
    let delivered = disk.confirmed();
    let pending = pending_notifications(&store).await?;
    let required = required_notifications(&work.operations, history, &acknowledged);
    if let Some((jid, text)) = required
        .iter()
        .find(|notification| !delivered.contains(notification) && !pending.contains(notification))
    {
        return Err(format!("{jid} will never hear of {}", &text[..text.len().min(10)]));
    }
    store.close().await;
    Ok(())
}

/// Cuts the trace at evenly spread points, several times each; returns the errors and the number of
/// trials.
async fn lose_power_often(work: &Workload, trials: usize) -> (Vec<String>, usize) {
    let mut dice = TestRng(0xD1CE);
    let (mut disk, mut complaints, mut made) = (Disk::default(), Vec::new(), 0);
    let wide = number("POWER_WIDE", 0);
    let total = work.record.0.len();
    for (number, entry) in work.record.0.iter().enumerate() {
        disk.happen(number, entry);
        let mut here = 0;
        while made * total < trials * number || (disk.is_wide() && here < wide) {
            made += 1;
            here += 1;
            let way = dice.roll(8);
            let segments: Vec<usize> = disk
                .files
                .values()
                .flat_map(|f| f.unsynced.iter().map(|(_, o, _)| o / SEGMENT))
                .collect();
            let segment = segments.get(dice.roll(segments.len().max(1))).copied().unwrap_or(0);
            let chosen = dice.roll(disk.unsynced().max(1));
            let mut count = 0;
            let keeps = |offset: usize| {
                count += 1;
                match way {
                    0 => false,
                    1 => true,
                    2 => count - 1 != chosen,
                    3 => count > chosen,
                    4 => count - 1 < chosen,
                    5 => offset / SEGMENT == segment,
                    6 => offset / SEGMENT != segment,
                    _ => dice.roll(2) == 0,
                }
            };
            let folder = tempfile::tempdir_in("/dev/shm").unwrap();
            disk.lose_power(folder.path(), keeps);
            let result = verdict(folder.path(), work, &disk).await;
            if let Err(complaint) = result {
                complaints.push(format!("entry {number} of {total}, way {way}: {complaint}"));
            }
        }
    }
    (complaints, made)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_changes_survive_power_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (operations, trials) = (number("POWER_OPERATIONS", 400), number("POWER_TRIALS", 150));
    let work = work(folder.path(), operations, &[]).await;
    let (complaints, made) = lose_power_often(&work, trials).await;
    eprintln!(
        "{operations} operations, {} entries in the record, {made} losses of power: {} bad",
        work.record.0.len(),
        complaints.len()
    );
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checker_detects_power_loss_without_sync() {
    let folder = tempfile::tempdir().unwrap();
    let work = work(folder.path(), 100, &[("POWER_NO_SYNC", "1")]).await;
    let (complaints, _) = lose_power_often(&work, 40).await;
    assert!(complaints.iter().any(|complaint| complaint.contains("acknowledged")));
}
