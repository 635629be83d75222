//! Tests of the presence tracker over several connections.

use super::*;

const ONLINE: PresenceUpdate =
    PresenceUpdate { show: Show::Online, away_seconds: None, stamp: None };

fn creator() -> AccountKey {
    AccountKey::of(&BareJid::new("owner@x").unwrap())
}

#[tokio::test(start_paused = true)]
async fn events_wait_at_most_ten_seconds_and_withheld_events_are_counted() {
    let withheld = Withheld::default();
    let presences = PresenceTracker::counting(withheld.clone());
    let node = NodeId::parse("n").unwrap();
    let jid = |name: &str| Jid::new(name).unwrap();
    let is = |name: &str| presences.availability(&jid(name), ShowSet::ALL, true);
    presences.begin_at(&node);
    presences.connected();
    assert_eq!(is("a@x"), Availability::Unknown, "its subscribers are not known yet");
    presences.watch(&node, None, ["a@x", "b@x"].map(|name| jid(name).to_bare()).into_iter());
    assert_eq!(is("a@x"), Availability::Unknown);
    presences.note(&jid("a@x/r"), &ONLINE, Some(Duration::from_secs(60)));
    assert_eq!(is("a@x"), Availability::Available);
    presences.remove(&jid("a@x"));
    assert_eq!(is("a@x"), Availability::Unavailable);
    assert_eq!(is("b@x"), Availability::Unknown);
    let began = Instant::now();
    while is("b@x") == Availability::Unknown {
        presences.answers().await;
    }
    assert!(began.elapsed() <= PROBE_TIMEOUT + Duration::from_secs(1));
    // With many entities, the request may be sent later.
    assert_eq!(is("b@x"), Availability::Assumed, "it was not asked yet");
    while presences.next_request().await.entity != jid("b@x").to_bare() {}
    assert_eq!(is("b@x"), Availability::Assumed, "it is to answer");
    tokio::time::advance(GRANT_TIMEOUT).await;
    assert_eq!(is("b@x"), Availability::Unavailable);
    let count = |reason| withheld.get_or_create(&[("reason", reason)]).get();
    assert_eq!(count("unknown") + count("unavailable"), 2);
}

#[tokio::test(start_paused = true)]
async fn only_older_presence_proves_continuous_availability() {
    let seconds = Duration::from_secs;
    let jid = Jid::new("a@x/r").unwrap();
    for (interruption, age, comes) in [
        (60, None, true),
        // The resource came online during the interruption, or may have.
        (60, Some(30), true),
        (60, Some(60), true),
        (60, Some(61), false),
        (60, Some(3600), false),
        // After a long interruption the resource may have missed events.
        (3600, Some(7200), true),
    ] {
        let presences = PresenceTracker::default();
        presences.connected();
        assert!(presences.note(&jid, &ONLINE, None));
        // A second interruption makes no difference.
        presences.disconnected();
        tokio::time::advance(seconds(interruption)).await;
        presences.connected();
        presences.disconnected();
        presences.connected();
        assert_eq!(
            presences.note(&jid, &ONLINE, age.map(seconds)),
            comes,
            "{interruption} {age:?}"
        );
        assert!(!presences.note(&jid, &ONLINE, None), "that is said once");
    }
}

/// An occurrence between the beginning of a watch and the presence of the entity.
enum Meanwhile {
    Nothing,
    ManualGrant,
    WithheldEvent,
    Reconnection,
}

#[tokio::test(start_paused = true)]
async fn presence_from_before_a_watch_is_no_arrival_unless_an_event_may_be_missed() {
    let seconds = Duration::from_secs;
    let (user, phone) = (Jid::new("a@x").unwrap(), Jid::new("a@x/phone").unwrap());
    let back = PresenceUpdate { away_seconds: Some(60), ..ONLINE };
    for (case, meanwhile, shown, age, comes) in [
        ("older", Meanwhile::Nothing, ONLINE, Some(seconds(1)), false),
        ("not older", Meanwhile::Nothing, ONLINE, Some(Duration::from_millis(999)), true),
        ("without a timestamp", Meanwhile::Nothing, ONLINE, None, true),
        ("away", Meanwhile::Nothing, back, Some(seconds(7200)), true),
        ("still older", Meanwhile::ManualGrant, ONLINE, Some(seconds(3601)), false),
        ("later", Meanwhile::ManualGrant, ONLINE, Some(seconds(3600)), true),
        ("missed", Meanwhile::WithheldEvent, ONLINE, Some(seconds(7200)), true),
        ("another connection", Meanwhile::Reconnection, ONLINE, Some(seconds(7200)), true),
    ] {
        let presences = PresenceTracker::default();
        presences.connected();
        let node = NodeId::parse("n").unwrap();
        presences.watch(&node, Some(&creator()), [user.to_bare()].into_iter());
        presences.next_request().await;
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::ManualGrant => tokio::time::advance(seconds(3600)).await,
            Meanwhile::WithheldEvent => {
                tokio::time::advance(seconds(3600)).await;
                let withheld = presences.availability(&user, ShowSet::ALL, true);
                assert_eq!(withheld, Availability::Unavailable);
            }
            Meanwhile::Reconnection => {
                presences.disconnected();
                presences.connected();
            }
        }
        presences.on_subscribed(&user);
        assert_eq!(presences.note(&phone, &shown, age), comes, "{case}");
        assert!(!presences.note(&phone, &shown, Some(seconds(7200))), "{case}: that is said once");
    }
}

#[tokio::test(start_paused = true)]
async fn resource_is_unheard_until_presence_of_the_resource_or_its_entity_arrives() {
    let jid = |name: &str| Jid::new(name).unwrap();
    let is_unheard = |presences: &PresenceTracker| {
        ["a@x/r", "a@x/other", "b@x/r", "c@x/r"].map(|name| presences.is_unheard(&jid(name)))
    };
    let presences = PresenceTracker::default();
    presences.connected();
    let node = NodeId::parse("n").unwrap();
    let watched = ["b@x", "c@x"].map(|name| jid(name).to_bare());
    presences.watch(&node, Some(&creator()), watched.into_iter());
    assert_eq!(is_unheard(&presences), [true; 4]);
    presences.note(&jid("a@x/r"), &ONLINE, None);
    presences.remove(&jid("b@x"));
    assert_eq!(is_unheard(&presences), [false, true, false, true]);
    presences.disconnected();
    presences.connected();
    assert!(!presences.is_unheard(&jid("a@x/r")), "it was available before");
}

/// While an entity has no watch, the events that it misses are not recorded. So an entity that may have missed events
/// counts as coming online.
#[tokio::test(start_paused = true)]
async fn entities_that_may_have_missed_events_before_their_watch_come_online() {
    let [node, other] = ["n", "other"].map(|name| NodeId::parse(name).unwrap());
    let age = Some(Duration::from_secs(3600));
    let jid = |name: &str| Jid::new(&format!("{name}@x/r")).unwrap();
    let comes = |presences: &PresenceTracker, name: &str| {
        presences.watch(&node, Some(&creator()), [jid(name).to_bare()].into_iter());
        presences.note(&jid(name), &ONLINE, age)
    };
    let presences = PresenceTracker::default();
    presences.begin_at(&node);
    presences.begin_at(&other);
    presences.connected();
    assert!(comes(&presences, "a"), "it may be subscribed to nodes from before the start");
    presences.note_read(&node);
    presences.unwatch(&other);
    assert!(!comes(&presences, "b"));
    assert!(!comes(&presences, "c"));
    presences.refuse(&jid("c").to_bare(), true);
    presences.remove(&jid("c"));
    assert!(presences.has_refused(&jid("c").to_bare()));
    presences.forgive(&jid("c").to_bare());
    assert!(!presences.has_refused(&jid("c").to_bare()));
    assert!(comes(&presences, "c"), "it refused its presence meanwhile");
}

/// A refusal that no node needs prevents further requests for pending events, and is not stored. The erasure of the
/// entity forgets stored and other refusals without a request.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_stored_if_a_node_needs_the_presence() {
    let names = ["a@x", "b@x", "c@x"];
    let presences = watching(&names);
    assert_eq!(requested(&presences).await, names);
    let [a, b, c] = names.map(|name| BareJid::new(name).unwrap());
    presences.refuse(&a, true);
    presences.refuse(&b, false);
    assert_eq!(presences.unwritten_refusals(), [(a.clone(), true)]);
    for entity in [&a, &b] {
        let jid = Jid::from(entity.clone());
        assert_eq!(presences.availability(&jid, ShowSet::ALL, true), Availability::Unavailable);
    }
    for entity in [&a, &b, &c] {
        presences.forget(entity);
        assert!(!presences.has_refused(entity));
        presences.refuse(entity, true);
    }
    assert_eq!(presences.unwritten_refusals(), [(a, false), (b, false)]);
    assert_eq!(requested(&presences).await, [""; 0]);
}

#[test]
fn resource_that_was_away_comes_online() {
    let presences = PresenceTracker::default();
    let jid = Jid::new("a@x/r").unwrap();
    let back = PresenceUpdate { away_seconds: Some(60), ..ONLINE };
    let old = Some(Duration::from_secs(3600));
    for _ in 0..2 {
        presences.connected();
        assert!(presences.note(&jid, &back, None));
        assert!(presences.note(&jid, &back, None));
        // The answer to a probe repeats the seconds of absence of the first presence.
        assert!(!presences.note(&jid, &back, old));
        presences.disconnected();
    }
}

#[tokio::test(start_paused = true)]
async fn resource_that_replies_is_available_as_before() {
    let presences = PresenceTracker::default();
    let jid = |name: &str| Jid::new(name).unwrap();
    let is = |name: &str| presences.availability(&jid(name), ShowSet::ALL, false);
    let again = |asked: &[&str]| {
        presences.disconnected();
        presences.connected();
        presences.await_answers(&asked.iter().map(|name| jid(name)).collect::<Vec<_>>());
    };
    presences.connected();
    let all = ["a@x/r", "b@x/r", "c@x/r", "d@x/r"];
    for name in all {
        assert!(presences.note(&jid(name), &PresenceUpdate { show: Show::Away, ..ONLINE }, None));
    }
    again(&all[..3]);
    assert_eq!([is("a@x/r"), is("a@x"), is("b@x"), is("c@x/r")], [Availability::Unknown; 4]);
    assert_eq!([is("a@x/other"), is("d@x")], [Availability::Unavailable; 2], "nobody was asked");
    assert!(!presences.confirm(&jid("a@x/r")), "it has missed nothing");
    presences.deny(&jid("b@x/r"));
    presences.leave_open(&jid("c@x/r"));
    assert_eq!([is("a@x/r"), is("a@x")], [Availability::Available; 2]);
    assert_eq!([is("b@x"), is("c@x/r")], [Availability::Unavailable; 2]);
    let online: ShowSet = [Show::Online].into_iter().collect();
    assert_eq!(presences.availability(&jid("a@x"), online, false), Availability::Unavailable);
    assert!(!presences.note(&jid("a@x/r"), &ONLINE, None) && !presences.confirm(&jid("a@x/r")));
    assert!(presences.confirm(&jid("d@x/r")), "it has missed an event");
    // A late answer comes from a resource that missed the event.
    again(&all);
    tokio::time::advance(PROBE_TIMEOUT).await;
    assert_eq!(is("a@x"), Availability::Unavailable);
    assert!(presences.confirm(&jid("a@x/r")));
    assert_eq!(is("a@x"), Availability::Available);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_probe_is_awaited_after_other_answers() {
    let node = NodeId::parse("n").unwrap();
    let online: ShowSet = [Show::Online].into_iter().collect();
    let (phone, laptop) = (Jid::new("a@x/phone").unwrap(), Jid::new("a@x/laptop").unwrap());
    let bare = Jid::from(phone.to_bare());
    let age = Some(Duration::from_secs(3600));
    let begin = || {
        let presences = PresenceTracker::default();
        presences.connected();
        presences.watch(&node, Some(&creator()), [bare.to_bare()].into_iter());
        presences.on_subscribed(&bare);
        presences.note(&phone, &PresenceUpdate { show: Show::Dnd, ..ONLINE }, age);
        presences.disconnected();
        presences.connected();
        presences.await_answers(std::slice::from_ref(&phone));
        presences
    };
    let all = |presences: &PresenceTracker| {
        [&bare, &phone, &laptop].map(|jid| presences.availability(jid, online, true))
    };
    let presences = begin();
    assert!(!presences.confirm(&phone));
    assert_eq!(all(&presences), [Availability::Unknown; 3]);
    assert_eq!(presences.availability(&phone, ShowSet::ALL, true), Availability::Available);
    assert!(!presences.note(&phone, &ONLINE, age), "it was there");
    assert_eq!(all(&presences)[..2], [Availability::Available; 2]);
    assert_eq!(all(&presences)[2], Availability::Unknown, "the answer may go on");
    tokio::time::advance(ANSWER_GRACE).await;
    assert_eq!(all(&presences)[2], Availability::Unavailable);
    // Presence without a timestamp is evidence for its own resource only.
    let presences = begin();
    presences.note(&laptop, &PresenceUpdate { show: Show::Dnd, ..ONLINE }, None);
    presences.confirm(&phone);
    assert_eq!(all(&presences)[2], Availability::Unavailable);
    assert_eq!(all(&presences)[..2], [Availability::Unknown; 2]);
    // A late answer comes from a resource that missed the event.
    tokio::time::advance(PROBE_TIMEOUT).await;
    assert_eq!(all(&presences), [Availability::Unavailable; 3]);
    assert!(presences.note(&phone, &ONLINE, age));
    assert!(!presences.note(&phone, &ONLINE, age), "that is said once");
    // An unknown resource may be available as long as a probe is unanswered.
    let presences = begin();
    assert!(!presences.remove(&phone).is_last);
    let presences = begin();
    tokio::time::advance(PROBE_TIMEOUT).await;
    assert!(presences.remove(&phone).is_last);
}

#[tokio::test(start_paused = true)]
async fn events_on_the_first_connection_wait_for_presence_of_sharing_entities() {
    let presences = PresenceTracker::default();
    let node = NodeId::parse("n").unwrap();
    let jid = |name: &str| Jid::new(name).unwrap();
    let is = |name: &str| presences.availability(&jid(name), ShowSet::ALL, true);
    presences.begin_at(&node);
    presences.connected();
    presences.watch(&node, None, ["a@x", "b@x"].map(|name| jid(name).to_bare()).into_iter());
    for _ in 0..2 {
        assert!(!presences.next_request().await.is_probe);
    }
    presences.on_subscribed(&jid("a@x"));
    let began = Instant::now();
    while is("b@x") == Availability::Unknown {
        presences.answers().await;
    }
    assert!((3..5).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(is("a@x"), Availability::Unknown, "its server is asked");
}

/// A first connection that breaks immediately loses no event. This occurs when the server is restarted with the
/// service.
#[tokio::test(start_paused = true)]
async fn events_wait_on_the_next_connection_if_the_first_one_broke_before_the_answers() {
    let presences = PresenceTracker::default();
    let node = NodeId::parse("n").unwrap();
    let jid = Jid::new("a@x").unwrap();
    let is = || presences.availability(&jid, ShowSet::ALL, true);
    presences.begin_at(&node);
    presences.watch(&node, None, std::iter::once(jid.to_bare()));
    for _ in 0..3 {
        presences.connected();
        assert_eq!(presences.next_request().await.entity, jid.to_bare());
        tokio::time::advance(GRANT_TIMEOUT / 2).await;
        assert_eq!(is(), Availability::Unknown);
        presences.disconnected();
        tokio::time::advance(PROBE_TIMEOUT).await;
    }
    // Events do not wait again for an entity that did not answer in time.
    presences.connected();
    presences.next_request().await;
    tokio::time::advance(GRANT_TIMEOUT).await;
    assert_eq!(is(), Availability::Unavailable);
    presences.disconnected();
    presences.connected();
    assert_eq!(is(), Availability::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_entity_without_answer_to_a_probe_departs_if_its_server_answers() {
    let presences = PresenceTracker::default();
    let node = NodeId::parse("n").unwrap();
    let jid = |name: &str| Jid::new(name).unwrap();
    let bare = |name: &str| jid(name).to_bare();
    let names = ["mute@x", "there@x", "lost@x", "late@x"];
    presences.connected();
    presences.watch(&node, Some(&creator()), names.map(bare).into_iter());
    names.iter().for_each(|name| presences.on_subscribed(&jid(name)));
    presences.note(&jid("there@x/r"), &ONLINE, None);
    presences.remove(&jid("lost@x"));
    let silent = async || {
        let began = Instant::now();
        let silent = tokio::time::timeout(Duration::from_secs(60), presences.silent()).await.ok();
        (silent.map(|entity| entity.to_string()), began.elapsed().as_secs())
    };
    let is = |name: &str, seconds| (Some(name.to_owned()), seconds);
    assert_eq!(silent().await, is("mute@x", 30));
    assert_eq!(silent().await, is("late@x", 0));
    assert_eq!(silent().await, (None, 60), "that is said once");
    presences.ping(&bare("mute@x"), 1);
    presences.ping(&bare("late@x"), 2);
    assert_eq!(presences.give_up(&bare("mute@x"), 2), None);
    assert_eq!(presences.give_up(&bare("there@x"), 1), None);
    let departure = UnavailablePresence { jid: jid("mute@x"), is_last: true };
    assert_eq!(presences.give_up(&bare("mute@x"), 1), Some(departure));
    assert_eq!(presences.give_up(&bare("mute@x"), 1), None);
    presences.note(&jid("late@x/r"), &ONLINE, None);
    assert_eq!(presences.give_up(&bare("late@x"), 2), None);
    // A later probe has the same timeout; a probe on an earlier connection has none.
    presences.on_subscribed(&jid("late@x"));
    tokio::time::advance(Duration::from_secs(20)).await;
    presences.on_subscribed(&jid("late@x"));
    assert_eq!(silent().await, is("late@x", 30));
    presences.on_subscribed(&jid("late@x"));
    presences.ping(&bare("late@x"), 3);
    presences.disconnected();
    presences.connected();
    assert_eq!(presences.give_up(&bare("late@x"), 3), None);
    assert_eq!(silent().await, (None, 60));
    let asked = presences.next_request().await;
    assert!(asked.is_probe);
    assert_eq!(silent().await, is(&asked.entity.to_string(), 30), "it was sent a probe again");
}

/// After a start with many entities, the departure of a resource says nothing about entities not requested yet.
#[tokio::test(start_paused = true)]
async fn unavailable_presence_before_the_request_is_not_the_last() {
    let presences = PresenceTracker::default();
    let node = NodeId::parse("n").unwrap();
    let (user, phone) = (Jid::new("u@x").unwrap(), Jid::new("u@x/phone").unwrap());
    presences.connected();
    presences.watch(&node, Some(&creator()), [user.to_bare()].into_iter());
    tokio::time::advance(PROBE_TIMEOUT).await;
    presences.note(&phone, &ONLINE, None);
    for _ in 0..2 {
        assert_eq!(
            presences.remove(&phone),
            UnavailablePresence { jid: phone.clone(), is_last: false }
        );
        assert_eq!(presences.availability(&user, ShowSet::ALL, true), Availability::Assumed);
    }
    assert_eq!(presences.remove(&user), UnavailablePresence { jid: user.clone(), is_last: true });
    assert_eq!(presences.availability(&user, ShowSet::ALL, true), Availability::Unavailable);
}

/// With many entities, probes take longer than events wait. Until the timeout of its own probe, an entity counts as
/// available if it was available before the interruption.
#[tokio::test(start_paused = true)]
async fn an_entity_whose_probe_is_not_sent_yet_counts_as_before_the_interruption() {
    let presences = PresenceTracker::default();
    let node = NodeId::parse("n").unwrap();
    let names = ["there@x", "gone@x", "never@x"];
    let jid = |name: &str| Jid::new(name).unwrap();
    let is = |name: &str| presences.availability(&jid(name), ShowSet::ALL, true);
    presences.connected();
    presences.watch(&node, Some(&creator()), names.iter().map(|name| jid(name).to_bare()));
    for name in names {
        presences.on_subscribed(&jid(name));
    }
    for name in ["there@x/r", "gone@x/r"] {
        presences.note(&jid(name), &ONLINE, None);
    }
    tokio::time::advance(ANSWER_TIMEOUT).await;
    presences.disconnected();
    presences.connected();
    assert_eq!(names.map(is), [Availability::Unknown; 3]);
    tokio::time::advance(PROBE_TIMEOUT).await;
    let expected = [Availability::Assumed, Availability::Assumed, Availability::Unavailable];
    assert_eq!(names.map(is), expected);
    presences.remove(&jid("gone@x"));
    assert_eq!(is("gone@x"), Availability::Unavailable);
    while presences.next_request().await.entity != jid("there@x").to_bare() {}
    assert_eq!(is("there@x"), Availability::Assumed);
    tokio::time::advance(ANSWER_TIMEOUT).await;
    assert_eq!(is("there@x"), Availability::Unavailable);
    // The resource may have missed an event.
    assert!(presences.note(&jid("there@x/r"), &ONLINE, Some(PROBE_TIMEOUT * 10)));
}

/// A new subscriber counts as available until its presence arrives or is late.
#[tokio::test(start_paused = true)]
async fn a_new_subscriber_counts_as_available_until_its_presence_arrives() {
    let presences = PresenceTracker::default();
    let node = NodeId::parse("n").unwrap();
    let jid = |name: &str| Jid::new(name).unwrap();
    let names = ["busy@x", "gone@x", "mute@x"];
    let online: ShowSet = [Show::Online].into_iter().collect();
    let is = |name: &str| presences.availability(&jid(name), online, true);
    presences.connected();
    tokio::time::advance(PROBE_TIMEOUT).await;
    presences.watch(&node, Some(&creator()), names.iter().map(|name| jid(name).to_bare()));
    assert_eq!(names.map(is), [Availability::Assumed; 3]);
    for name in names {
        assert_eq!(presences.next_request().await.entity, jid(name).to_bare());
    }
    assert_eq!(names.map(is), [Availability::Assumed; 3]);
    presences.on_subscribed(&jid("busy@x"));
    presences.note(&jid("busy@x/r"), &PresenceUpdate { show: Show::Dnd, ..ONLINE }, None);
    presences.remove(&jid("gone@x/r"));
    let unavailable = Availability::Unavailable;
    assert_eq!(names.map(is), [unavailable, unavailable, Availability::Assumed]);
    assert_eq!(is("busy@x/other"), Availability::Assumed, "that was said of its other resource");
    tokio::time::advance(ANSWER_TIMEOUT).await;
    assert_eq!(is("busy@x/other"), unavailable);
    assert_eq!(names.map(is), [unavailable; 3]);
    // An entity that grants its presence later is probed then.
    presences.on_subscribed(&jid("mute@x"));
    assert_eq!(is("mute@x"), Availability::Assumed);
    tokio::time::advance(ANSWER_TIMEOUT).await;
    assert_eq!(is("mute@x"), unavailable);
    // On a new connection the entity has not answered either.
    presences.disconnected();
    presences.connected();
    tokio::time::advance(PROBE_TIMEOUT).await;
    assert_eq!(is("mute@x"), unavailable);
}

fn watching(names: &[&str]) -> PresenceTracker {
    let presences = PresenceTracker::default();
    let node = NodeId::parse("n").unwrap();
    presences.connected();
    let entities = names.iter().map(|name| BareJid::new(name).unwrap());
    presences.watch(&node, Some(&creator()), entities);
    presences
}

/// Returns the next request, while unreachable domains are retried.
async fn next_request(presences: &PresenceTracker) -> PresenceRequest {
    let attempts = async {
        loop {
            presences.next_attempt().await;
        }
    };
    tokio::select! {
        request = presences.next_request() => request,
        () = attempts => unreachable!(),
    }
}

/// Returns the entities whose presence is requested now.
async fn requested(presences: &PresenceTracker) -> Vec<String> {
    let mut requested = Vec::new();
    while let Ok(request) =
        tokio::time::timeout(Duration::from_millis(100), next_request(presences)).await
    {
        requested.push(request.entity.to_string());
    }
    requested.sort_unstable();
    requested
}

/// An error that says nothing about an entity is not taken for an answer.
#[tokio::test(start_paused = true)]
async fn presence_is_requested_again_after_an_error() {
    let presences = watching(&["a@far.example"]);
    let jid = Jid::new("a@far.example").unwrap();
    let is = || presences.availability(&jid, ShowSet::ALL, true);
    let seconds = async || {
        let began = Instant::now();
        let request = next_request(&presences).await;
        (request.is_probe, began.elapsed().as_secs())
    };
    assert_eq!(seconds().await, (false, 0));
    for pause in [5, 60, 300, 900, 900] {
        presences.cannot_know(&jid);
        assert_eq!(is(), Availability::Assumed);
        assert_eq!(seconds().await, (false, pause));
    }
    tokio::time::advance(ANSWER_TIMEOUT).await;
    assert_eq!(is(), Availability::Unavailable);
    presences.on_subscribed(&jid);
    presences.cannot_know(&jid);
    assert_eq!(seconds().await, (true, 895));
    let age = Some(Duration::from_secs(3600));
    presences.note(&Jid::new("a@far.example/r").unwrap(), &ONLINE, age);
    presences.cannot_know(&jid);
    tokio::time::advance(Duration::from_secs(900)).await;
    assert_eq!(requested(&presences).await, [""; 0], "it has answered");
}

/// One entity of an unreachable domain is requested again at a time, and all its other entities when a stanza of the
/// domain arrives.
#[tokio::test(start_paused = true)]
async fn unreachable_domain_is_requested_one_entity_at_a_time() {
    let names = ["a@far.example", "b@far.example", "c@far.example", "d@other.example"];
    let presences = watching(&names);
    let fail = |names: &[&str]| {
        names.iter().for_each(|name| presences.cannot_know(&Jid::new(name).unwrap()));
    };
    let reach = |from: &str| presences.reach(&Jid::new(from).unwrap());
    assert_eq!(requested(&presences).await, names);
    fail(&names);
    reach("x@far.example/r");
    assert_eq!(requested(&presences).await, [""; 0]);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(requested(&presences).await, [names[0], names[3]]);
    fail(&names[..1]);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(requested(&presences).await, [names[1]]);
    fail(&names[1..2]);
    reach("x@other.example/r");
    assert_eq!(requested(&presences).await, [""; 0]);
    reach("x@far.example/r");
    assert_eq!(requested(&presences).await, names[..3]);
    fail(&names[..1]);
    reach("x@far.example/r");
    assert_eq!(requested(&presences).await, [""; 0]);
    presences.refuse(&BareJid::new(names[0]).unwrap(), true);
    tokio::time::advance(Duration::from_secs(900)).await;
    assert_eq!(requested(&presences).await, [""; 0]);
    fail(&names[1..2]);
    presences.disconnected();
    tokio::time::advance(Duration::from_secs(900)).await;
    assert_eq!(requested(&presences).await, [""; 0]);
    presences.connected();
    assert_eq!(requested(&presences).await, names[1..]);
}

/// Returns the resources that are queried now.
async fn queried(presences: &PresenceTracker) -> Vec<String> {
    let mut queried = Vec::new();
    let mut next = async || {
        let attempts = async {
            loop {
                presences.next_attempt().await;
            }
        };
        tokio::select! {
            resource = presences.unconfirmed() => queried.push(resource.to_string()),
            () = attempts => unreachable!(),
        }
    };
    while tokio::time::timeout(Duration::from_millis(100), next()).await.is_ok() {}
    queried
}

/// An error of an unreachable server does not show that a resource is absent. The resource is queried again later.
#[tokio::test(start_paused = true)]
async fn a_resource_counts_as_before_while_its_server_is_unreachable() {
    let presences = PresenceTracker::default();
    let jid = |name: &str| Jid::new(name).unwrap();
    let is = |name: &str| presences.availability(&jid(name), ShowSet::ALL, false);
    let all = ["a@x/r", "b@x/r", "c@x/r", "d@x/r"];
    presences.connected();
    for name in all {
        presences.note(&jid(name), &PresenceUpdate { show: Show::Away, ..ONLINE }, None);
    }
    let reconnect = || {
        presences.disconnected();
        presences.connected();
        presences.await_answers(&all.map(jid));
    };
    reconnect();
    all.iter().for_each(|name| presences.query_failed(&jid(name)));
    presences.query_failed(&jid("new@x/r"));
    assert_eq!(all.map(is), [Availability::Assumed; 4]);
    assert_eq!(is("a@x"), Availability::Assumed);
    assert_eq!([is("new@x/r"), is("a@x/other")], [Availability::Unavailable; 2]);
    let online: ShowSet = [Show::Online].into_iter().collect();
    assert_eq!(presences.availability(&jid("a@x/r"), online, false), Availability::Unavailable);
    assert_eq!(queried(&presences).await, [""; 0]);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(queried(&presences).await, all[..1]);
    assert_eq!(is("a@x/r"), Availability::Unknown);
    presences.query_failed(&jid("a@x/r"));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(queried(&presences).await, all[1..2]);
    assert_eq!(all.map(is), [Availability::Assumed; 4]);
    presences.confirm(&jid("b@x/r"));
    presences.note(&jid("d@x/r"), &ONLINE, None);
    presences.reach(&jid("b@x/r"));
    assert_eq!(queried(&presences).await, ["a@x/r", "c@x/r"]);
    presences.deny(&jid("c@x/r"));
    let [available, unavailable] = [Availability::Available, Availability::Unavailable];
    assert_eq!(all.map(is), [Availability::Assumed, available, unavailable, available]);
    // A new connection queries all of them.
    presences.query_failed(&jid("a@x/r"));
    reconnect();
    tokio::time::advance(PROBE_TIMEOUT).await;
    assert_eq!(queried(&presences).await, [""; 0]);
    assert_eq!(all.map(is), [unavailable; 4]);
}

/// The server returns an event that is sent to a resource while the resource's server is unreachable.
#[tokio::test(start_paused = true)]
async fn events_for_an_unreachable_server_count_as_missed() {
    let [first, second] = ["a@x/r", "b@x/r"].map(|name| Jid::new(name).unwrap());
    let old = Some(Duration::from_secs(3600));
    for (is_event_sent, address) in
        [(false, &first), (true, &first), (true, &first.to_bare().into())]
    {
        let event = |presences: &PresenceTracker| {
            if is_event_sent {
                let availability = presences.availability(address, ShowSet::ALL, false);
                assert_eq!(availability, Availability::Assumed);
            }
        };
        // Resources that are queried.
        let presences = PresenceTracker::default();
        presences.connected();
        for jid in [&first, &second] {
            presences.note(jid, &ONLINE, None);
        }
        presences.disconnected();
        presences.connected();
        presences.await_answers(&[first.clone(), second.clone()]);
        for jid in [&first, &second] {
            presences.query_failed(jid);
        }
        event(&presences);
        assert_eq!(presences.confirm(&first), is_event_sent, "{address}");
        assert!(!presences.confirm(&second));
        // An entity that is probed, and one whose presence was never received.
        for is_known in [true, false] {
            let presences = watching(&["a@x"]);
            if is_known {
                presences.next_request().await;
                presences.on_subscribed(&first);
                presences.note(&first, &ONLINE, None);
                presences.disconnected();
                presences.connected();
            }
            assert_eq!(presences.next_request().await.is_probe, is_known);
            presences.cannot_know(&first);
            event(&presences);
            assert_eq!(presences.note(&first, &ONLINE, old), is_event_sent, "{address} {is_known}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_entity_is_probed_again_after_a_silence() {
    let presences = watching(&["a@far.example"]);
    let jid = Jid::new("a@far.example").unwrap();
    presences.next_request().await;
    presences.on_subscribed(&jid);
    for (number, pause) in [(1, 5), (2, 30)] {
        let entity = presences.silent().await;
        presences.ping(&entity, number);
        let began = Instant::now();
        assert!(next_request(&presences).await.is_probe);
        assert_eq!(began.elapsed().as_secs(), pause);
    }
    let entity = presences.silent().await;
    presences.ping(&entity, 3);
    assert!(presences.give_up(&entity, 3).is_some());
    tokio::time::advance(Duration::from_secs(900)).await;
    assert_eq!(requested(&presences).await, [""; 0]);
}
