//! What is known of presence, connection by connection.

use super::*;

const ONLINE: Shown = Shown { show: Show::Online, away_seconds: None, stamp: None };

#[tokio::test(start_paused = true)]
async fn what_is_withheld_is_counted_and_waits_ten_seconds_at_the_most() {
    let withheld = Withheld::default();
    let presences = Presences::counting(withheld.clone());
    let node = NodeId::parse("n").unwrap();
    let jid = |name: &str| Jid::new(name).unwrap();
    let is = |name: &str| presences.availability(&node, &jid(name), Shows::ALL);
    presences.begin_at(&node);
    presences.connected();
    assert_eq!(is("a@x"), Availability::Unknown, "its subscribers are not known yet");
    presences.read_at(&node, ["a@x", "b@x"].map(|name| jid(name).to_bare()).into_iter());
    assert_eq!(is("a@x"), Availability::Unknown);
    presences.note(&jid("a@x/r"), &ONLINE, None);
    assert_eq!(is("a@x"), Availability::Available);
    presences.remove(&jid("a@x/r"));
    assert_eq!(is("a@x"), Availability::Unavailable);
    assert_eq!(is("b@x"), Availability::Unknown);
    let began = Instant::now();
    while is("b@x") == Availability::Unknown {
        presences.answers().await;
    }
    assert!(began.elapsed() <= PROBE_TIMEOUT + Duration::from_secs(1));
    // Somebody new is not waited for.
    assert_eq!(is("c@x"), Availability::Unavailable);
    let count = |reason| withheld.get_or_create(&[("reason", reason)]).get();
    assert_eq!(count("unknown") + count("unavailable"), 3);
}

#[tokio::test(start_paused = true)]
async fn only_older_presence_shows_that_a_resource_was_there_all_the_time() {
    let seconds = Duration::from_secs;
    let jid = Jid::new("a@x/r").unwrap();
    for (interruption, age, comes) in [
        (60, None, true),
        // It came while there was no connection, or perhaps did.
        (60, Some(30), true),
        (60, Some(60), true),
        (60, Some(61), false),
        (60, Some(3600), false),
        // After a long interruption it may have missed something.
        (3600, Some(7200), true),
    ] {
        let presences = Presences::default();
        presences.connected();
        assert!(presences.note(&jid, &ONLINE, None));
        // Another interruption makes no difference.
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

#[test]
fn a_resource_that_was_away_always_comes() {
    let presences = Presences::default();
    let jid = Jid::new("a@x/r").unwrap();
    let back = Shown { away_seconds: Some(60), ..ONLINE };
    let old = Some(Duration::from_secs(3600));
    for _ in 0..2 {
        presences.connected();
        assert!(presences.note(&jid, &back, None));
        assert!(presences.note(&jid, &back, None));
        // The answer to a probe repeats what was said when it came.
        assert!(!presences.note(&jid, &back, old));
        presences.disconnected();
    }
}
