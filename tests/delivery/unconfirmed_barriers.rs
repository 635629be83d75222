//! A server that does not return barriers while the connection is up.

use std::{collections::VecDeque, time::Duration};

use minidom::Element;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, advance},
};

use crate::support::{
    component::{Questions, SERVICE, TestComponent, is_barrier, shown},
    process::{ServiceProcess, lines_with_event},
};

const OWNER: &str = "owner@localhost";
const READER: &str = "reader@localhost/r";
const OWN: &str = "pubsub.localhost/barrier";

async fn barrier(component: &mut TestComponent) -> Element {
    loop {
        let stanza = component.link.receive_any().await.unwrap();
        if is_barrier(&stanza) {
            return stanza;
        }
    }
}

/// Barrier addresses are tried in sequence. The first that works is used from then on, and confirms
/// everything sent before.
#[tokio::test]
async fn barrier_falls_back_to_the_domain_of_the_server() {
    let store = std::sync::Arc::new(gjallar::store::MemoryStore::new());
    let mut component = TestComponent::with(store, |config| {
        // One second for each address.
        (config.link.ping_after_seconds, config.link.ping_deadline_seconds) = (1, 3);
    })
    .await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    component.publish(OWNER, "n", "1").await;
    component.message().await;
    let began = Instant::now();
    let mut to = Vec::new();
    let answered = loop {
        let barrier = barrier(&mut component).await;
        to.push(barrier.attr("to").unwrap().to_owned());
        if barrier.attr("to") == Some("localhost") {
            break barrier;
        }
    };
    assert!(to[..to.len() - 1].iter().all(|to| to == OWN), "{to:?}");
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    // Stanzas from users of the domain do not confirm a barrier.
    let id = answered.attr("id").unwrap();
    let stranger = format!("<iq type='result' from='u@localhost/x' to='{SERVICE}' id='{id}'/>");
    component.send(&stranger).await;
    component.link.return_barrier(&answered, false).await;
    component.publish(OWNER, "n", "2").await;
    assert_eq!(barrier(&mut component).await.attr("to"), Some("localhost"));
    // The same address is used on the next connection; only unconfirmed notifications are repeated.
    component.reconnected_by_force().await;
    let repeated = component.message().await;
    assert!(shown(&repeated).contains("id='2'"), "{}", shown(&repeated));
    assert_eq!(barrier(&mut component).await.attr("to"), Some("localhost"));
}

/// A busy server returns barriers in order, each later than the time for an address: no other
/// address is tried.
#[tokio::test(start_paused = true)]
async fn slow_server_that_returns_barriers_is_not_silent() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    component.link.hold_barriers();
    let mut outstanding = VecDeque::new();
    let mut latency = Duration::ZERO;
    for number in 0..120 {
        component.publish(OWNER, "n", &number.to_string()).await;
        let barrier = barrier(&mut component).await;
        assert_eq!(barrier.attr("to"), Some(OWN), "{number}");
        outstanding.push_back((Instant::now(), barrier));
        advance(Duration::from_secs(1)).await;
        if number % 2 == 1
            && let Some((since, barrier)) = outstanding.pop_front()
        {
            latency = since.elapsed();
            component.link.return_barrier(&barrier, false).await;
        }
    }
    assert!(latency >= Duration::from_secs(45), "{latency:?}");
}

async fn ready(port: u16) -> String {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Sends a request and waits for its answer; passes other stanzas to a callback.
async fn ask(
    served: &mut ServiceProcess,
    id: &str,
    content: &str,
    mut seen: impl FnMut(&Element),
) -> bool {
    served.request(OWNER, id, "set", content).await;
    while let Some(stanza) = served.link.receive_any().await {
        if stanza.attr("id") == Some(id) {
            return true;
        }
        seen(&stanza);
    }
    false
}

#[tokio::test]
async fn reply_to_a_barrier_reveals_another_service_of_the_same_jid() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    served.granted(OWNER, "<create node='n'/>").await;
    served.granted(READER, &format!("<subscribe node='n' jid='{READER}'/>")).await;
    served.publish(OWNER, "n", "1").await;
    let barrier = loop {
        let stanza = served.link.receive_any().await.unwrap();
        if is_barrier(&stanza) {
            break stanza;
        }
    };
    assert!(!served.has_event("jid_shared"));
    let id = barrier.attr("id").unwrap();
    let answer = format!("<iq type='error' from='{SERVICE}' to='{SERVICE}' id='{id}'/>");
    served.link.send(&answer).await;
    served.has_logged_event("jid_shared").await;
    served.publish(OWNER, "n", "2").await;
}

#[tokio::test]
async fn missing_barriers_pause_notifications_and_cause_a_reconnect() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{free}");
    let variables = [
        ("LINK_PING_AFTER_SECONDS", "1"),
        ("LINK_PING_DEADLINE_SECONDS", "3"),
        ("MONITORING_LISTEN", listen.as_str()),
    ];
    let mut served = ServiceProcess::start(&variables, &[]).await;
    served.granted(OWNER, "<create node='n'/>").await;
    served.granted(READER, &format!("<subscribe node='n' jid='{READER}'/>")).await;
    served.link.hold_barriers();
    let publish = |id: &str| {
        let item = format!("<item id='{id}'><x xmlns='urn:x'/></item>");
        format!(
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'>{item}</publish>\
             </pubsub>"
        )
    };
    // Requests are answered while the connection is up, and the connection ends although requests
    // arrive.
    let began = Instant::now();
    let (mut notified, mut notified_late, mut number) = (0, 0, 0);
    loop {
        let is_paused = served.has_event("link_unconfirmed");
        let seen = |stanza: &Element| {
            notified += usize::from(stanza.name() == "message");
            notified_late += usize::from(is_paused && stanza.name() == "message");
        };
        number += 1;
        if !ask(&mut served, &format!("p{number}"), &publish(&number.to_string()), seen).await {
            break;
        }
        if is_paused {
            assert!(ready(free).await.starts_with("HTTP/1.1 503"));
            assert_eq!(served.stat("link_unconfirmed").await, 1);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lasted = began.elapsed();
    assert!((3..9).contains(&lasted.as_secs()), "{lasted:?}");
    assert!(notified > 0 && number > notified, "{notified} of {number}");
    // One notification may be in flight at that moment.
    assert!(notified_late <= 1, "{notified_late}");
    served.reconnected().await;
    // The next connection lasts twice as long, and sends no more notifications.
    served.link.hold_barriers();
    let began = Instant::now();
    let mut again = 0;
    loop {
        let stanza = tokio::time::timeout(Duration::from_secs(30), served.link.receive()).await;
        let Some(stanza) = stanza.unwrap() else { break };
        again += usize::from(stanza.name() == "message");
    }
    assert!(again >= notified, "{again} of {notified}");
    let lasted = began.elapsed();
    assert!((7..15).contains(&lasted.as_secs()), "{lasted:?}");
    let log = served.log();
    assert_eq!(lines_with_event(&log, "link_unconfirmed").len(), 1, "{log}");
    // A returned barrier restores normal operation.
    served.reconnected().await;
    let until = Instant::now() + Duration::from_secs(30);
    while !served.has_event("link_confirmed") {
        assert!(Instant::now() < until, "{}", served.log());
        // Receiving returns the barriers.
        let received = tokio::time::timeout(Duration::from_millis(100), served.link.receive());
        assert!(!matches!(received.await, Ok(None)), "{}", served.log());
    }
}

/// On an idle link the addresses are tried before the server counts as dead.
#[tokio::test]
async fn quiet_link_without_barriers_is_unconfirmed_but_not_dead() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{free}");
    // An idle service would ping after three of four seconds, with one second for each address.
    let variables = [
        ("LINK_PING_AFTER_SECONDS", "3"),
        ("LINK_PING_DEADLINE_SECONDS", "1"),
        ("MONITORING_LISTEN", listen.as_str()),
    ];
    let mut served = ServiceProcess::start(&variables, &[]).await;
    let began = Instant::now();
    let mut to = Vec::new();
    served.link.on_questions(Questions::Dropped);
    while !served.has_event("link_unconfirmed") {
        let received = tokio::time::timeout(Duration::from_millis(50), served.link.receive_any());
        if let Ok(stanza) = received.await {
            to.push(stanza.unwrap().attr("to").unwrap().to_owned());
        }
    }
    assert_eq!(to, [OWN, "localhost"]);
    assert!(ready(free).await.starts_with("HTTP/1.1 503"));
    assert_eq!(served.stat("link_unconfirmed").await, 1);
    while served.link.receive_any().await.is_some() {}
    let lasted = began.elapsed();
    assert!((4..7).contains(&lasted.as_secs()), "{lasted:?}");
    // The next connection soon shows whether barriers return again.
    served.reconnected().await;
    let began = Instant::now();
    while !served.has_event("link_confirmed") {
        let received = tokio::time::timeout(Duration::from_millis(50), served.link.receive());
        assert!(!matches!(received.await, Ok(None)), "{}", served.log());
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(ready(free).await.starts_with("HTTP/1.1 200"));
    let log = served.log();
    assert_eq!(lines_with_event(&log, "link_unconfirmed").len(), 1, "{log}");
    assert!(lines_with_event(&log, "link_failed").is_empty(), "{log}");
}
