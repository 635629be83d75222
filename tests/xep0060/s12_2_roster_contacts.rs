//! Implicit subscriptions (`+notify`, §12.2) of resources to which only the roster of an owner gives access: they
//! begin and end when the roster is read.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gjallar::{
    service::Error,
    store::{MemoryStore, SledStore, Store},
};
use gjallar_pubsub::{
    AccessModel, Affiliation, ConfigField, Limits, PageRequest, Roster, RosterItem, Timestamp,
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    component::{SERVICE, TestComponent, event, shown},
    service::{TestService, actor, jid, node},
};

const OWNER: &str = "owner@localhost";
const OTHER: &str = "other@localhost";
const PHONE: &str = "friend@localhost/phone";
const DESK: &str = "friend@localhost/desk";
const NODES: [&str; 2] = ["presence", "roster"];
const MODELS: [AccessModel; 2] = [AccessModel::Presence, AccessModel::Roster];
/// Longer than any test.
const HOUR: u64 = 3600;

/// Service without a transport, at a server that lets it read the rosters of two users.
struct Fixture {
    service: TestService,
    /// `true` for each of the two users whose roster has the friend.
    has_friend: Mutex<[bool; 2]>,
}

impl Fixture {
    /// Creates two nodes of the first user, with an item each, in which the friend is interested.
    async fn new(roster_seconds: u64, has_friend: bool) -> Self {
        Self::with(Arc::new(MemoryStore::new()), roster_seconds, has_friend).await
    }

    async fn with(store: Arc<dyn Store>, roster_seconds: u64, has_friend: bool) -> Self {
        let begin = Instant::now();
        let clock = move || Timestamp(1_700_000_000_000 + begin.elapsed().as_millis() as u64);
        let limits = Limits { roster_seconds, ..Limits::default() };
        let service = TestService::clocked(store, limits, Arc::new(clock)).await;
        let fixture = Self { service, has_friend: Mutex::new([has_friend, false]) };
        fixture.connect();
        let service = &fixture.service;
        let presence = vec![ConfigField::AccessModel(AccessModel::Presence)];
        let groups = ConfigField::RosterGroupsAllowed(vec!["Family".into()]);
        let group = vec![ConfigField::AccessModel(AccessModel::Roster), groups];
        for (name, settings) in NODES.into_iter().zip([presence, group]) {
            service.create_with(OWNER, name, settings).await.unwrap();
            service.publish(OWNER, name, "1").await.unwrap();
        }
        fixture.become_interested(PHONE, &[NODES[0], NODES[1], "later"]).await;
        let expected = if has_friend { 2 } else { 0 };
        assert_eq!(fixture.sent().len(), expected);
        fixture
    }

    async fn become_interested(&self, resource: &str, nodes: &[&str]) {
        let (service, resource) = (&self.service.service, jid(resource));
        assert!(service.interests().on_caps(&resource, "capabilities", "question"));
        let nodes = nodes.iter().map(|name| node(name)).collect();
        tokio::select! {
            () = self.serve_rosters() => {}
            () = service.set_interests(&resource, nodes) => {}
        }
    }

    /// Begins a new connection with the same privileges.
    fn connect(&self) {
        self.service.service.rosters().await_grant();
        self.service.service.rosters().set_privilege(Some("localhost".into()));
    }

    fn set_friend(&self, has_friend: [bool; 2]) {
        *self.has_friend.lock().unwrap() = has_friend;
    }

    async fn serve_rosters(&self) {
        let service = &self.service.service;
        loop {
            let owner = service.rosters().next_request().await;
            let is_other = owner.as_str() == OTHER;
            let friend = match is_other {
                true => jid(PHONE).to_bare(),
                false => jid(&owner.as_str().replacen("owner", "friend", 1)).to_bare(),
            };
            let contact = RosterItem { has_presence: true, groups: vec!["Family".into()] };
            let has_friend = self.has_friend.lock().unwrap()[usize::from(is_other)];
            let contacts = has_friend.then_some((friend, contact));
            service.on_roster_result(&owner, Some(contacts.into_iter().collect::<Roster>()));
        }
    }

    /// Advances the clock, answering roster queries, until a condition holds.
    async fn pass(&self, longest: Duration, mut holds: impl FnMut() -> bool) {
        let looking = async {
            while !holds() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = self.service.service.run_timers() => {}
            () = self.serve_rosters() => {}
            looked = timeout(longest, looking) => looked.expect("it holds in time"),
        }
    }

    /// Advances the clock by some seconds.
    async fn pass_seconds(&self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        self.pass(Duration::from_secs(seconds + 1), || Instant::now() >= end).await;
    }

    /// Takes the items sent to the friend so far: `node item`.
    fn sent(&self) -> Vec<String> {
        let sent = self.pending();
        self.service.drain_log();
        sent
    }

    /// Returns the items pending for the friend.
    fn pending(&self) -> Vec<String> {
        let outbox = self.service.service.log_window();
        let all = (0..outbox.next()).filter_map(|number| outbox.get(number));
        let mut sent = Vec::new();
        for entry in all {
            let (notification, lost) = (&entry.notification, outbox.lost(&entry));
            let is_theirs = entry.recipients.iter().any(|to| to.as_str() == PHONE);
            if is_theirs && !lost.has(&jid(PHONE), entry.number, notification) {
                let event = format!("{:?}", notification.event);
                let item = event.split("ItemId(\"").nth(1).unwrap().split('"').next().unwrap();
                sent.push(format!("{} {item}", notification.node.as_str()));
            }
        }
        sent
    }

    async fn affiliate(&self, by: &str, entity: &str, affiliation: Affiliation) {
        for name in NODES {
            let set = self.service.affiliate(by, name, entity, affiliation);
            tokio::select! {
                () = self.serve_rosters() => {}
                set = set => set.unwrap(),
            }
        }
        self.pass_seconds(5).await;
    }

    /// Changes one setting of each node.
    async fn configure(&self, by: &str, settings: [ConfigField; 2]) {
        for (name, setting) in NODES.into_iter().zip(settings) {
            tokio::select! {
                () = self.serve_rosters() => {}
                configured = self.service.configure(by, name, setting) => configured.unwrap(),
            }
        }
        self.pass_seconds(5).await;
    }

    async fn subscribe(&self, by: &str) {
        for name in NODES {
            tokio::select! {
                () = self.serve_rosters() => {}
                subscribed = self.service.subscribe(by, name) => subscribed.unwrap(),
            }
        }
    }

    /// Returns the number of subscriptions of each node, as another owner sees it.
    async fn subscribers(&self) -> [usize; 2] {
        let number = async |name| {
            let (owner, node, none) = (actor(OTHER), node(name), PageRequest::first(0));
            let all = self.service.service.subscriptions(&owner, &node, &none, |_| true);
            all.await.unwrap().total.unwrap()
        };
        [number(NODES[0]).await, number(NODES[1]).await]
    }

    async fn publish(&self, id: &str) {
        for name in NODES {
            self.service.publish(OWNER, name, id).await.unwrap();
        }
    }
}

/// §12.2: a contact that is added to a group, or gets a presence subscription, is sent the last
/// item once.
#[tokio::test(start_paused = true)]
async fn s12_2_new_contacts_are_sent_the_last_item() {
    let fixture = Fixture::new(60, false).await;
    fixture.pass_seconds(5).await;
    assert_eq!(fixture.sent(), [""; 0]);
    fixture.set_friend([true, false]);
    fixture.pass_seconds(65).await;
    let mut sent = fixture.sent();
    sent.sort();
    assert_eq!(sent, NODES.map(|name| format!("{name} 1")));
    fixture.publish("2").await;
    fixture.pass_seconds(200).await;
    assert_eq!(fixture.sent(), NODES.map(|name| format!("{name} 2")));
}

/// A contact that leaves a roster receives neither pending nor later events; after its return, the
/// last item and later events.
#[tokio::test(start_paused = true)]
async fn s12_2_contacts_that_left_a_roster_get_no_pending_entries() {
    let fixture = Fixture::new(60, true).await;
    fixture.publish("2").await;
    fixture.set_friend([false, false]);
    // Delivery is suspended meanwhile.
    fixture.pass_seconds(70).await;
    fixture.publish("3").await;
    assert_eq!(fixture.sent(), [""; 0]);
    fixture.set_friend([true, false]);
    fixture.pass_seconds(70).await;
    let mut sent = fixture.sent();
    sent.sort();
    assert_eq!(sent, NODES.map(|name| format!("{name} 3")));
}

/// A resource that goes offline and returns before the delivery gets no pending events either.
#[tokio::test(start_paused = true)]
async fn s12_2_offline_resource_that_left_a_roster_gets_no_pending_entries() {
    let fixture = Fixture::new(60, true).await;
    fixture.publish("2").await;
    fixture.service.service.interests().remove(&jid(PHONE));
    fixture.set_friend([false, false]);
    fixture.pass_seconds(70).await;
    assert_eq!(fixture.sent(), [""; 0]);
}

/// Contacts keep their implicit subscriptions on a new connection: an event before the roster is
/// read reaches them.
#[tokio::test(start_paused = true)]
async fn s12_2_contacts_get_events_before_rosters_are_read_on_a_new_connection() {
    let fixture = Fixture::new(HOUR, true).await;
    fixture.pass_seconds(5).await;
    fixture.connect();
    fixture.publish("2").await;
    assert_eq!(fixture.sent(), NODES.map(|name| format!("{name} 2")));
    // Reading the roster does not send the last item again.
    fixture.pass_seconds(HOUR + 10).await;
    assert_eq!(fixture.sent(), [""; 0]);
}

/// A roster that is read for one request is applied at all nodes of its owner.
#[tokio::test(start_paused = true)]
async fn s12_2_roster_read_for_a_request_is_applied_at_all_nodes() {
    let fixture = Fixture::new(HOUR, false).await;
    fixture.pass_seconds(5).await;
    fixture.connect();
    fixture.set_friend([true, false]);
    tokio::select! {
        () = fixture.serve_rosters() => {}
        subscribed = fixture.service.subscribe(OWNER, "presence") => subscribed.unwrap(),
    }
    fixture.pass_seconds(5).await;
    let mut sent = fixture.sent();
    sent.sort();
    assert_eq!(sent, NODES.map(|name| format!("{name} 1")));
}

/// Access by a roster begins when its owner selects the model, and ends when another owner does.
#[tokio::test(start_paused = true)]
async fn s12_2_contacts_gain_and_lose_access_with_the_choice_of_a_roster() {
    let fixture = Fixture::new(HOUR, false).await;
    fixture.set_friend([false, true]);
    fixture.affiliate(OWNER, OTHER, Affiliation::Owner).await;
    fixture.affiliate(OWNER, OWNER, Affiliation::None).await;
    assert_eq!(fixture.sent(), [""; 0]);
    fixture
        .configure(OTHER, [ConfigField::Title("T".into()), ConfigField::Title("T".into())])
        .await;
    assert_eq!(fixture.sent(), [""; 0]);
    fixture.configure(OTHER, MODELS.map(ConfigField::AccessModel)).await;
    assert_eq!(fixture.sent(), NODES.map(|name| format!("{name} 1")));
    fixture.affiliate(OTHER, OWNER, Affiliation::Owner).await;
    fixture.publish("2").await;
    assert_eq!(fixture.sent(), NODES.map(|name| format!("{name} 2")));
    fixture.publish("3").await;
    let groups = ConfigField::RosterGroupsAllowed(vec!["Family".into(), "Friends".into()]);
    fixture.configure(OWNER, [groups.clone(), groups]).await;
    fixture.publish("4").await;
    assert_eq!(fixture.sent(), [""; 0]);
}

/// After the former owner has left, its roster gives no access, although no other roster is read.
/// An owner who submits an unchanged access model selects its own roster.
#[tokio::test(start_paused = true)]
async fn s12_2_contacts_of_a_former_owner_lose_access() {
    let fixture = Fixture::new(HOUR, true).await;
    fixture.subscribe(DESK).await;
    fixture.affiliate(OWNER, OTHER, Affiliation::Owner).await;
    fixture.publish("2").await;
    assert_eq!(fixture.subscribers().await, [1, 1]);
    fixture.affiliate(OWNER, OWNER, Affiliation::None).await;
    assert_eq!(fixture.subscribers().await, [0, 0]);
    for name in NODES {
        fixture.service.publish(OTHER, name, "3").await.unwrap();
    }
    assert_eq!(fixture.sent(), [""; 0]);
    fixture.set_friend([false, true]);
    fixture.affiliate(OTHER, "member@localhost", Affiliation::Member).await;
    assert_eq!(fixture.sent(), [""; 0]);
    fixture.configure(OTHER, MODELS.map(ConfigField::AccessModel)).await;
    assert_eq!(fixture.sent(), NODES.map(|name| format!("{name} 3")));
}

/// The same after an erasure, also for members that are removed later. An owner whose address is
/// the one that replaces erased owners changes nothing.
#[tokio::test(start_paused = true)]
async fn s12_2_contacts_of_an_erased_owner_lose_access() {
    const MEMBER: &str = "member@localhost";
    let fixture = Fixture::new(HOUR, true).await;
    let service = &fixture.service;
    fixture.affiliate(OWNER, OTHER, Affiliation::Owner).await;
    fixture.affiliate(OWNER, MEMBER, Affiliation::Member).await;
    fixture.subscribe(DESK).await;
    fixture.subscribe(MEMBER).await;
    assert_eq!(fixture.subscribers().await, [2, 2]);
    // The timers do not run meanwhile.
    let (admin, owner) = (actor("admin@localhost"), jid(OWNER).to_bare());
    assert_eq!(service.service.erase(&admin, &owner).await.unwrap().affiliations, 2);
    for name in NODES {
        let refused = service.items(DESK, name).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        let stored = service.store.node(&node(name)).await.unwrap().unwrap();
        assert_ne!(stored.revision.roster_owner.as_ref(), Some(&owner));
    }
    fixture.pass_seconds(5).await;
    assert_eq!(fixture.subscribers().await, [1, 1]);
    for name in NODES {
        service.publish(OTHER, name, "2").await.unwrap();
    }
    assert_eq!(fixture.sent(), [""; 0]);
    fixture.affiliate(OTHER, "erased.invalid", Affiliation::Owner).await;
    fixture.affiliate(OTHER, MEMBER, Affiliation::None).await;
    assert_eq!(fixture.subscribers().await, [0, 0]);
    for name in NODES {
        let refused = service.items(MEMBER, name).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    fixture.set_friend([false, true]);
    fixture.configure(OTHER, MODELS.map(ConfigField::AccessModel)).await;
    assert_eq!(fixture.sent(), NODES.map(|name| format!("{name} 2")));
}

/// Interest in a name outlives the node: rosters are evaluated again for a new node of that name.
#[tokio::test(start_paused = true)]
async fn s12_2_contacts_have_access_to_a_node_that_is_created_later() {
    let fixture = Fixture::new(HOUR, true).await;
    for has_friend in [true, false] {
        fixture.set_friend([has_friend, false]);
        fixture.connect();
        let presence = vec![ConfigField::AccessModel(AccessModel::Presence)];
        fixture.service.create_with(OWNER, "later", presence).await.unwrap();
        fixture.service.publish(OWNER, "later", "1").await.unwrap();
        fixture.pass_seconds(5).await;
        fixture.service.publish(OWNER, "later", "2").await.unwrap();
        let expected = if has_friend { vec!["later 1", "later 2"] } else { vec![] };
        assert_eq!(fixture.sent(), expected);
        fixture.service.delete(OWNER, "later").await.unwrap();
        fixture.service.drain_log();
    }
}

/// Implicit subscriptions of contacts do not depend on the number of rosters that the service
/// caches.
#[tokio::test(start_paused = true)]
async fn s12_2_contacts_of_owners_beyond_the_roster_cache_get_events() {
    const OWNERS: usize = 1300;
    let fixture = Fixture::new(60, true).await;
    let service = &fixture.service;
    let owner = |number| format!("owner{number}@localhost");
    let name = |number| format!("n{number}");
    let friend = |number| format!("friend{number}@localhost/phone");
    for number in 0..OWNERS {
        let presence = vec![ConfigField::AccessModel(AccessModel::Presence)];
        service.create_with(&owner(number), &name(number), presence).await.unwrap();
        fixture.become_interested(&friend(number), &[&name(number)]).await;
    }
    fixture.pass_seconds(100).await;
    for number in 0..OWNERS {
        service.publish(&owner(number), &name(number), "1").await.unwrap();
    }
    let entries = service.drain_log();
    let recipients: Vec<_> = entries.into_iter().flat_map(|(_, recipients)| recipients).collect();
    assert_eq!(recipients, (0..OWNERS).map(friend).collect::<Vec<_>>());
}

/// Resources that left a roster are recorded: events that were pending are not sent to them, before
/// or after a restart, even if they are in the roster again.
#[tokio::test]
async fn s12_2_store_records_contacts_that_left_a_roster() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
    let fixture = Fixture::with(Arc::clone(&store), HOUR, true).await;
    fixture.publish("2").await;
    for has_friend in [false, true] {
        fixture.set_friend([has_friend, false]);
        fixture.connect();
        tokio::select! {
            () = fixture.serve_rosters() => {}
            subscribed = fixture.service.subscribe(OWNER, "presence") => subscribed.unwrap(),
        }
        // A resource that gains access is sent the last item.
        let expected = if has_friend { NODES.len() } else { 0 };
        fixture.pass(Duration::from_secs(20), || fixture.pending().len() == expected).await;
    }
    fixture.publish("3").await;
    store.close().await;
    drop((fixture, store));
    let store = SledStore::open(folder.path()).unwrap();
    let pending = store.poll(None).await.unwrap();
    let of_friend =
        pending.iter().filter(|entry| entry.recipients.iter().any(|to| *to == jid(PHONE)));
    let events: Vec<_> = of_friend.map(|entry| format!("{:?}", entry.notification.event)).collect();
    assert!(events.iter().all(|event| event.contains("ItemId(\"3\")")), "{events:?}");
    assert_eq!(events.len(), 2);
}

/// After a restart, pending events for contacts wait for the roster too.
#[tokio::test]
async fn s12_2_former_contacts_get_no_pending_entries_after_a_restart() {
    for has_friend in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let open = || Arc::new(SledStore::open(folder.path()).unwrap());
        {
            let fixture = Fixture::with(open(), HOUR, true).await;
            for name in NODES {
                tokio::select! {
                    () = fixture.serve_rosters() => {}
                    subscribed = fixture.service.subscribe(OWNER, name) => subscribed.unwrap(),
                }
            }
            fixture.service.drain_log();
            fixture.publish("2").await;
            fixture.service.store.close().await;
        }
        let mut component = TestComponent::with(open(), |_| {}).await;
        let perm = "<perm access='roster' type='get'/>";
        let privilege = format!("<privilege xmlns='urn:xmpp:privilege:2'>{perm}</privilege>");
        component
            .send(&format!("<message from='localhost' to='{SERVICE}'>{privilege}</message>"))
            .await;
        let asked = component.answer().await;
        let (to, id) = (asked.attr("to").unwrap(), asked.attr("id").unwrap());
        assert_eq!(to, OWNER, "{}", shown(&asked));
        let friend =
            "<item jid='friend@localhost' subscription='both'><group>Family</group></item>";
        let items = if has_friend { friend } else { "" };
        let query = format!("<query xmlns='jabber:iq:roster'>{items}</query>");
        component
            .send(&format!("<iq type='result' from='{to}' to='{SERVICE}' id='{id}'>{query}</iq>"))
            .await;
        for name in NODES {
            component.publish(&format!("{OWNER}/x"), name, "3").await;
        }
        // Later events of a node wait behind it.
        let (mut of_friend, mut of_owner) = (Vec::new(), 0);
        while of_owner < 2 {
            let message = component.message().await;
            let items = event(&message);
            let item = items.children().next().unwrap().attr("id").unwrap().to_owned();
            match message.attr("to") {
                Some(PHONE) => of_friend.push(format!("{} {item}", items.attr("node").unwrap())),
                _ => of_owner += usize::from(item == "3"),
            }
        }
        of_friend.retain(|item| !item.ends_with(" 1"));
        let expected =
            if has_friend { NODES.map(|name| format!("{name} 2")).to_vec() } else { vec![] };
        assert_eq!(of_friend, expected, "{has_friend}");
        component.finish().await;
    }
}
