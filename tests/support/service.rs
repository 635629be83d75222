//! Service without a transport, for tests of stores, order and combined rules.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gjallar::{
    service::{Clock, Cursor, Error, Service, SubmitHandle},
    store::{Store, StoreError},
};
use gjallar_pubsub::{
    Actor, Affiliation, ConfigField, IdGenerator, Item, ItemId, ItemOrder, Limits, NodeId,
    PageRequest, Payload, ResultPage, SubscriptionOption, SubscriptionState, Timestamp,
    op::{
        affiliations::SetAffiliations,
        configure::Configure,
        create::{Create, CreateReply},
        delete::Delete,
        publish::{NewItem, Publish, PublishReply},
        purge::Purge,
        retract::Retract,
        retrieve::{Retrieve, Selection},
        subscribe::Subscribe,
        subscription_options::{GetOptions, SetOptions},
        subscriptions::SetSubscriptions,
        unsubscribe::Unsubscribe,
    },
};
use jid::Jid;

/// Service over a store, with a reproducible clock and random numbers.
pub struct TestService {
    pub service: Service,
    pub store: Arc<dyn Store>,
}

/// Random source that counts up in large steps.
#[derive(Default)]
pub struct CountingIds(AtomicU64);

impl IdGenerator for CountingIds {
    fn next_u64(&self) -> u64 {
        (self.0.fetch_add(1, Ordering::Relaxed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

pub fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

pub fn item(name: &str) -> ItemId {
    ItemId::parse(name).unwrap()
}

pub fn jid(jid: &str) -> Jid {
    Jid::new(jid).unwrap()
}

/// Returns an entity that may create nodes; `admin@…` is an administrator.
pub fn actor(name: &str) -> Actor {
    Actor { jid: jid(name), is_administrator: name.starts_with("admin@") }
}

/// Opens the rows of a closed store. sled's threads may hold the file a moment longer.
pub fn raw(folder: &Path) -> ::sled::Db {
    loop {
        match ::sled::open(folder) {
            Err(::sled::Error::Io(error)) if error.to_string().contains("lock") => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

impl TestService {
    pub async fn new(store: Arc<dyn Store>) -> Self {
        Self::limited(store, Limits::default()).await
    }

    pub async fn limited(store: Arc<dyn Store>, limits: Limits) -> Self {
        Self::clocked(store, limits, Arc::new(|| Timestamp(1_700_000_000_000))).await
    }

    pub async fn clocked(store: Arc<dyn Store>, limits: Limits, clock: Arc<Clock>) -> Self {
        let service =
            Service::open(Arc::clone(&store), limits, Arc::new(CountingIds::default()), clock);
        Self { service: service.await.unwrap(), store }
    }

    pub async fn create(&self, by: &str, name: &str) -> Result<CreateReply, Error> {
        self.create_with(by, name, Vec::new()).await
    }

    pub async fn create_with(
        &self,
        by: &str,
        name: &str,
        settings: Vec<ConfigField>,
    ) -> Result<CreateReply, Error> {
        let request = Create { node: Some(node(name)), settings };
        self.service.execute(&actor(by), &request).await
    }

    pub async fn configure(&self, by: &str, name: &str, setting: ConfigField) -> Result<(), Error> {
        let request = Configure { node: node(name), settings: vec![setting], seen: None };
        self.service.execute(&actor(by), &request).await.map(drop)
    }

    pub async fn publish(&self, by: &str, name: &str, id: &str) -> Result<PublishReply, Error> {
        self.publish_xml(by, name, id, &format!("<x xmlns='urn:x'>{id}</x>")).await
    }

    pub async fn publish_xml(
        &self,
        by: &str,
        name: &str,
        id: &str,
        xml: &str,
    ) -> Result<PublishReply, Error> {
        self.begin_to_publish_xml(by, name, id, xml).await.await
    }

    /// Publishes without waiting for the commit.
    pub async fn begin_to_publish(
        &self,
        by: &str,
        name: &str,
        id: &str,
    ) -> SubmitHandle<Result<PublishReply, Error>> {
        self.begin_to_publish_xml(by, name, id, "<x xmlns='urn:x'/>").await
    }

    /// Publishes this number of items in one request.
    pub async fn publish_all(
        &self,
        by: &str,
        name: &str,
        xml: impl Iterator<Item = String>,
    ) -> Result<PublishReply, Error> {
        let new = |(id, xml): (usize, String)| NewItem {
            id: Some(item(&id.to_string())),
            payload: Some(Payload::new(xml, "urn:x")),
        };
        let items = xml.enumerate().map(new).collect();
        let request =
            Publish { node: node(name), items, options: Vec::new(), expected_newest: None };
        self.service.execute(&actor(by), &request).await
    }

    /// Subscribes this number of JIDs through the owner's subscription list.
    pub async fn subscribe_many(&self, by: &str, name: &str, number: usize) {
        let entry = |number: usize| {
            (jid(&format!("{number:06}@far.example")), None, Some(SubscriptionState::Subscribed))
        };
        let all: Vec<_> = (0..number).map(entry).collect();
        for entries in all.chunks(20) {
            let (node, entries) = (node(name), entries.to_vec());
            let request = SetSubscriptions { node, entries, invalid: Vec::new() };
            let set = self.service.submit(&actor(by), &request, |outcome| outcome).await;
            assert!(set.await.unwrap().failed.is_empty());
            self.drain_log();
        }
    }

    /// Like [`Self::begin_to_publish`], with a payload.
    pub async fn begin_to_publish_xml(
        &self,
        by: &str,
        name: &str,
        id: &str,
        xml: &str,
    ) -> SubmitHandle<Result<PublishReply, Error>> {
        let payload = Some(Payload::new(xml, "urn:x"));
        let items = vec![NewItem { id: Some(item(id)), payload }];
        let request =
            Publish { node: node(name), items, options: Vec::new(), expected_newest: None };
        self.service.submit(&actor(by), &request, |outcome| outcome).await
    }

    pub async fn retract(&self, by: &str, name: &str, id: &str) -> Result<(), Error> {
        let request = Retract { node: node(name), items: vec![item(id)], notify: false };
        self.service.execute(&actor(by), &request).await
    }

    pub async fn purge(&self, by: &str, name: &str) -> Result<(), Error> {
        let request = Purge { node: node(name) };
        self.service.execute(&actor(by), &request).await
    }

    /// Deletes a node with a redirect URI.
    pub async fn delete_with_redirect(&self, by: &str, name: &str, uri: &str) -> Result<(), Error> {
        let request = Delete { node: node(name), redirect: Some(uri.into()) };
        self.service.execute(&actor(by), &request).await
    }

    pub async fn delete(&self, by: &str, name: &str) -> Result<(), Error> {
        let request = Delete { node: node(name), redirect: None };
        self.service.execute(&actor(by), &request).await
    }

    pub async fn subscribe(&self, by: &str, name: &str) -> Result<(), Error> {
        self.subscribe_as(by, name, false).await
    }

    pub async fn subscribe_in_public(&self, by: &str, name: &str) -> Result<(), Error> {
        self.subscribe_as(by, name, true).await
    }

    async fn subscribe_as(&self, by: &str, name: &str, is_public: bool) -> Result<(), Error> {
        let request = Subscribe { node: node(name), jid: jid(by), settings: None, is_public };
        self.service.execute(&actor(by), &request).await.map(drop)
    }

    pub async fn set_options(
        &self,
        by: &str,
        name: &str,
        setting: SubscriptionOption,
    ) -> Result<(), Error> {
        let of = GetOptions { node: node(name), jid: jid(by), subid: None };
        let request = SetOptions { of, settings: vec![setting] };
        self.service.execute(&actor(by), &request).await
    }

    pub async fn subscribe_other(&self, by: &str, name: &str, whom: &str) -> Result<(), Error> {
        let entries = vec![(jid(whom), None, Some(SubscriptionState::Subscribed))];
        let request = SetSubscriptions { node: node(name), entries, invalid: Vec::new() };
        self.service.execute(&actor(by), &request).await.map(drop)
    }

    pub async fn unsubscribe(&self, by: &str, name: &str) -> Result<(), Error> {
        let request = Unsubscribe { node: node(name), jid: jid(by), subid: None };
        self.service.execute(&actor(by), &request).await.map(drop)
    }

    pub async fn affiliate(
        &self,
        by: &str,
        name: &str,
        entity: &str,
        affiliation: Affiliation,
    ) -> Result<(), Error> {
        let entries = vec![(jid(entity).to_bare(), affiliation)];
        let request = SetAffiliations { node: node(name), entries, invalid: Vec::new() };
        self.service.execute(&actor(by), &request).await.map(drop)
    }

    /// Returns all items of a node.
    pub async fn items(&self, by: &str, name: &str) -> Result<Vec<Item>, Error> {
        let request = Retrieve {
            node: node(name),
            selection: Selection::Recent(u32::MAX),
            order: ItemOrder::default(),
            subid: None,
        };
        let items = self.service.retrieve(&actor(by), &request).await?;
        Ok(items.part.map(Arc::unwrap_or_clone).entries)
    }

    /// Returns the ids of all items of a node.
    pub async fn ids(&self, name: &str) -> Vec<String> {
        let items = self.items("admin@localhost", name).await.unwrap();
        items.iter().map(|item| item.id.to_string()).collect()
    }

    /// Takes the log entries so far, each with its recipients.
    pub fn drain_log(&self) -> Vec<(String, Vec<String>)> {
        let outbox = self.service.log_window();
        let next = outbox.next();
        let shown = |entry: &Arc<gjallar::service::WindowEntry>| {
            let lost = outbox.lost(entry);
            let recipients = entry
                .recipients
                .iter()
                .filter(|jid| !lost.has(jid, entry.number, &entry.notification));
            let recipients = recipients.map(ToString::to_string).collect();
            (format!("{:?}", entry.notification.event), recipients)
        };
        let first = (0..=next).find(|number| outbox.get(*number).is_some()).unwrap_or(next);
        let entries = (first..next).map(|number| shown(&outbox.get(number).unwrap())).collect();
        outbox.acknowledge(Cursor { number: next, recipients: 0 }, 0);
        entries
    }
}

/// Returns all items of a node in a store.
pub async fn all_items(store: &dyn Store, id: &NodeId) -> Result<Vec<Item>, StoreError> {
    let all = store.page(id, &PageRequest::first(usize::MAX), usize::MAX).await?;
    Ok(all.unwrap_or_else(ResultPage::empty).entries)
}
