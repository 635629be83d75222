//! What is known of presence, connection by connection.

use super::*;

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
    presences.note(&jid("a@x/r"), Show::Online);
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
async fn who_was_there_before_a_long_interruption_comes_anew() {
    let presences = Presences::default();
    let jid = Jid::new("a@x/r").unwrap();
    presences.connected();
    for (interruption, is_new) in [(0, true), (60, false), (3600, true)] {
        presences.disconnected();
        tokio::time::sleep(Duration::from_secs(interruption)).await;
        presences.connected();
        assert_eq!(presences.note(&jid, Show::Online), is_new, "{interruption}");
    }
}
