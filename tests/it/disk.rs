//! A disk that is full, or fails, under the real service; and files that are not what was written.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gjallar::store::{SledStore, Store};
use minidom::Element;
use tokio::net::TcpListener;

use crate::harness::{
    Link,
    dice::Dice,
    error, event,
    preload::compile,
    stage::{Stage, node},
};

const OWNER: &str = "owner@localhost/x";

/// The real service on a disk that can be made to fail.
struct Service {
    folder: tempfile::TempDir,
    listener: TcpListener,
    process: Child,
    link: Link,
    events: Vec<Element>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Service {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let process = Self::serve(folder.path(), &listener);
        let link = Link::accept(&listener).await;
        Self { folder, listener, process, link, events: Vec::new() }
    }

    fn serve(folder: &Path, listener: &TcpListener) -> Child {
        Command::new(env!("CARGO_BIN_EXE_gjallar"))
            .arg("serve")
            .env_clear()
            .env("GJALLAR_JID", "pubsub.localhost")
            .env("GJALLAR_SERVER", listener.local_addr().unwrap().to_string())
            .env("GJALLAR_SECRET", "secret")
            .env("GJALLAR_STORE", format!("sled:{}", folder.join("store").display()))
            .env("LD_PRELOAD", compile("fault.c"))
            .env("FAULT", folder.join("fault"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    async fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Self::serve(self.folder.path(), &self.listener);
        self.link = Link::accept(&self.listener).await;
    }

    fn fault(&self) -> PathBuf {
        self.folder.path().join("fault")
    }

    async fn ask(&mut self, kind: &str, content: &str) -> Element {
        self.link
            .send(&format!(
                "<iq type='{kind}' id='1' from='{OWNER}' to='pubsub.localhost'><pubsub \
                 xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub></iq>"
            ))
            .await;
        loop {
            let stanza = self.link.receive().await.unwrap();
            if stanza.name() == "iq" {
                return stanza;
            }
            self.events.push(stanza);
        }
    }

    async fn publish(&mut self, id: &str) -> Element {
        let item = format!("<item id='{id}'><x xmlns='urn:x'/></item>");
        self.ask("set", &format!("<publish node='n'>{item}</publish>")).await
    }

    async fn items(&mut self) -> Vec<String> {
        ids(self.ask("get", "<items node='n'/>").await.children().next().unwrap())
    }

    /// The items of the events until one of this name came.
    async fn events_until(&mut self, id: &str) -> Vec<String> {
        let mut told: Vec<_> = self.events.drain(..).flat_map(|m| item_ids(&event(&m))).collect();
        while told.last().is_none_or(|last| last != id) {
            let stanza = self.link.receive().await.unwrap();
            told.extend(item_ids(&event(&stanza)));
        }
        told
    }
}

fn ids(pubsub: &Element) -> Vec<String> {
    item_ids(pubsub.children().next().unwrap())
}

fn item_ids(items: &Element) -> Vec<String> {
    items.children().map(|item| item.attr("id").unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_no_more_than_errors_until_there_is_room() {
    let mut service = Service::start().await;
    service.ask("set", "<create node='n'/>").await;
    service.ask("set", &format!("<subscribe node='n' jid='{OWNER}'/>")).await;
    service.publish("before").await;
    fs::write(service.fault(), "full").unwrap();
    for _ in 0..3 {
        assert_eq!(error(&service.publish("full").await), "wait internal-server-error");
    }
    fs::remove_file(service.fault()).unwrap();
    while service.publish("after").await.attr("type") == Some("error") {}
    // What was answered with an error is unknown: it is there and told, or neither, and in one order.
    let told = service.events_until("after").await;
    let there = service.items().await;
    assert_eq!(told, there);
    assert_eq!((there[0].as_str(), there.last().unwrap().as_str()), ("before", "after"));
    service.restart().await;
    assert_eq!(service.items().await, there);
}

/// After a failed sync the system may call pages clean that it did not write: nothing is trusted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_nothing_is_taken_until_a_restart() {
    let mut service = Service::start().await;
    service.ask("set", "<create node='n'/>").await;
    service.publish("before").await;
    fs::write(service.fault(), "sync").unwrap();
    assert_eq!(error(&service.publish("lost").await), "wait internal-server-error");
    fs::remove_file(service.fault()).unwrap();
    assert_eq!(error(&service.publish("after").await), "wait internal-server-error");
    service.restart().await;
    assert_eq!(service.publish("again").await.attr("type"), Some("result"));
    let there = service.items().await;
    assert_eq!((there[0].as_str(), there.last().unwrap().as_str()), ("before", "again"));
}

/// The files of a store with something of everything: as they are when it was closed in order, or when
/// its process was killed.
async fn full_store(is_killed: bool) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let stage = Stage::new(std::sync::Arc::new(SledStore::open(folder).unwrap())).await;
    for name in ["a", "b"] {
        stage.create("owner@localhost", name).await.unwrap();
        for number in 0..30 {
            stage.subscribe(&format!("s{number}@localhost"), name).await.unwrap();
            let xml = format!("<x xmlns='urn:x'>{}</x>", "y".repeat(number * 100));
            let id = number.to_string();
            stage.publish_xml("owner@localhost", name, &id, &xml).await.unwrap();
        }
    }
    if !is_killed {
        stage.service.close().await;
    }
    read_all(folder)
}

/// Everything in a store of these files, or why it cannot be had.
async fn everything(files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    for (path, content) in files {
        fs::write(folder.path().join(path), content).unwrap();
    }
    let store = SledStore::open(folder.path()).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for name in ["a", "b"] {
        let selection = gjallar::pubsub::op::retrieve::Selection::Recent(u32::MAX);
        let node_there = store.node(&node(name)).await.map_err(|error| error.to_string())?;
        let items = store.items(&node(name), &selection, usize::MAX).await;
        all.push(format!("{node_there:?} {:?}", items.map_err(|error| error.to_string())?));
    }
    let debts = store.owed(None).await.map_err(|error| error.to_string())?;
    all.extend(debts.iter().map(|owed| format!("{owed:?}")));
    for number in 0..30 {
        let jid = crate::harness::stage::jid(&format!("s{number}@localhost")).to_bare();
        let there = store.subscriptions_of(&jid).await.map_err(|error| error.to_string())?;
        all.push(format!("{there:?}"));
    }
    store.close().await;
    Ok(all)
}

fn read_all(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(path).unwrap());
        }
    }
    files
}

/// Every file flipped and cut at many places: intact, or refused; never wrong data, never a panic that
/// reaches anyone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_noticed() {
    let mut dice = Dice(0xF11B);
    for is_killed in [false, true] {
        let files = full_store(is_killed).await;
        let whole = everything(&files).await.unwrap();
        let (mut refused, mut intact) = (0, 0);
        for (path, content) in &files {
            for _ in 0..(content.len() / 2000).clamp(20, 150) {
                let mut files = files.clone();
                let damaged = files.get_mut(path).unwrap();
                let at = dice.roll(content.len());
                match dice.roll(4) {
                    0 => damaged.truncate(at),
                    bit => damaged[at] ^= 1 << (bit * 2),
                }
                match everything(&files).await {
                    Ok(all) => {
                        assert_eq!(all, whole, "{} at {at} is another store", path.display());
                        intact += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 50 && intact > 0, "{refused} refused, {intact} intact");
    }
}
