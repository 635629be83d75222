//! Hostile input to the real process: a corpus of stanzas, random mutations of them, storms, and
//! partial stanzas. The process answers other senders in time, keeps its connection, its memory
//! stays bounded, and it logs nothing that needs an operator.
//!
//! `make hostile` runs the long form; `HOSTILE_REQUESTS` sets the number of requests.

#![allow(clippy::disallowed_methods)] // the long form is asked for by a variable

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use gjallar::{
    config::{Config, Secret},
    runtime::serve,
    store::MemoryStore,
    xmpp::{StanzaLimits, StreamElement, StreamReader},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, timeout},
};

use crate::support::{
    component::{SERVICE, ServerStream},
    process::{ServiceProcess, lines_with_event},
    rng::TestRng,
};

const OWNER: &str = "owner@localhost/desk";
const STRANGER: &str = "stranger@far.example/x";
const OTHER: &str = "other@localhost/phone";
const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";
/// Maximum latency of another sender, on a machine under load.
const MAX_LATENCY: Duration = Duration::from_secs(2);

/// Returns a request of a stranger.
fn iq(kind: &str, content: &str) -> String {
    format!("<iq type='{kind}' id='x' from='{STRANGER}' to='{SERVICE}'>{content}</iq>")
}

fn publish(item: &str) -> String {
    let ns = crate::support::component::PUBSUB;
    iq("set", &format!("<pubsub xmlns='{ns}'><publish node='n'>{item}</publish></pubsub>"))
}

fn nested(levels: usize) -> String {
    let (open, close) = ("<x>".repeat(levels), "</x>".repeat(levels));
    publish(&format!("<item><x xmlns='urn:x'>{open}{close}</x></item>"))
}

/// Stanzas that have crashed other services, or might crash one; all of them well-formed.
fn corpus() -> Vec<String> {
    let long = |bytes: usize| "v".repeat(bytes);
    let attributes = |number: usize| (0..number).map(|n| format!(" a{n}='v'")).collect::<String>();
    let prefixes =
        |number: usize| (0..number).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect::<String>();
    let item = |content: &str| publish(&format!("<item id='i'>{content}</item>"));
    let fields =
        |number: usize| "<field var='pubsub#title'><value>x</value></field>".repeat(number);
    let form = |content: &str| {
        let form = format!("<x xmlns='jabber:x:data' type='submit'>{content}</x>");
        let ns = crate::support::component::PUBSUB;
        iq("set", &format!("<pubsub xmlns='{ns}'><create/><configure>{form}</configure></pubsub>"))
    };
    let pubsub = |kind: &str, ns: &str, content: &str| {
        let base = crate::support::component::PUBSUB;
        iq(kind, &format!("<pubsub xmlns='{base}{ns}'>{content}</pubsub>"))
    };
    let mut corpus = vec![
        nested(100),
        nested(200),
        nested(3_400),
        nested(50_000),
        item(&format!("<x xmlns='urn:x' a='{}'/>", long(9_000))),
        item(&format!("<x xmlns='urn:x' a='{}'/>", long(2_000_000))),
        item(&format!("<x xmlns='urn:x'{}/>", attributes(10_000))),
        item(&format!("<x xmlns='urn:x'{}/>", prefixes(1_000))),
        item(&format!("<x xmlns='urn:x'>{}</x>", long(60_000))),
        item(&format!("<x xmlns='urn:x'>{}</x>", long(3_000_000))),
        item(&format!("<x xmlns='urn:x'>{}</x>", "<y/>".repeat(100_000))),
        item("<x xmlns='urn:x'><![CDATA[<raw> & such]]></x>"),
        item(&format!("<x xmlns='urn:x'><![CDATA[{}]]></x>", "<".repeat(100_000))),
        item(&format!("<x xmlns='urn:x'>{}</x>", "&lt;".repeat(100_000))),
        item("<x xmlns='http://www.w3.org/XML/1998/namespace'/>"),
        item("<xml:x/>"),
        item("<x xmlns=''/>"),
        item(&format!("<{0} xmlns='urn:x'/>", long(100_000))),
        item("text"),
        publish(&format!("<item id='{}'><x xmlns='urn:x'/></item>", long(100_000))),
        publish(&"<item><x xmlns='urn:x'/></item>".repeat(5_000)),
        pubsub("get", "", &format!("<items node='{}'/>", long(100_000))),
        pubsub("get", "", "<items node='n' max_items='99999999999999999999'/>"),
        pubsub("get", "", "<items node='n' max_items='-1'/>"),
        pubsub("get", "", "<items/>"),
        pubsub("set", "", "<subscribe node='n' jid='@'/>"),
        pubsub("set", "", &format!("<subscribe node='n' jid='{}@x'/>", long(50_000))),
        pubsub("set", "", "<subscribe node='n' jid='victim@localhost'/>"),
        pubsub("set", "", "<create node=''/>"),
        pubsub("set", "", &format!("<create node='{}'/>", long(1_023))),
        pubsub("set", "#owner", "<delete node='n'/>"),
        pubsub("set", "#owner", "<purge node='n'/>"),
        pubsub("set", "#owner", "<configure node='n'/>"),
        pubsub("set", "#errors", "<x/>"),
        pubsub("set", "#event", "<items node='n'/>"),
        form(&fields(10)),
        form(&fields(10_000)),
        form(&format!("<field var='pubsub#title'><value>{}</value></field>", long(300_000))),
        form(&format!("<field var='pubsub#title'>{}</field>", "<value/>".repeat(20_000))),
        iq("get", ""),
        iq("bogus", PING),
        iq("get", &PING.repeat(2)),
        iq("get", &PING.repeat(10_000)),
        iq("set", PING),
        format!("<iq type='get' from='{STRANGER}' to='{SERVICE}'>{PING}</iq>"),
        format!(
            "<iq type='get' id=\"{}\" from='{STRANGER}' to='{SERVICE}'>{PING}</iq>",
            "'".repeat(60_000)
        ),
        format!("<iq type='get' id='x' from='@' to='{SERVICE}'>{PING}</iq>"),
        format!("<iq type='get' id='x' to='{SERVICE}'>{PING}</iq>"),
        format!("<iq type='get' id='x' from='{STRANGER}'>{PING}</iq>"),
        format!("<iq type='result' id='barrier-99' from='{SERVICE}x' to='{SERVICE}'/>"),
        format!("<message type='bogus' from='{STRANGER}'><body>1</body><body>2</body></message>"),
        format!("<message type='error' from='{STRANGER}' to='{SERVICE}'/>"),
        format!("<presence type='bogus' from='{STRANGER}'><priority>999</priority></presence>"),
        format!("<presence type='subscribe' from='{STRANGER}' to='{SERVICE}'/>"),
        "<unknown xmlns='urn:unknown'><x/></unknown>".into(),
        "<a/>".repeat(1_000),
        "<!-- a comment -->".into(),
        " \n\t ".repeat(10_000),
    ];
    let commands = ["execute", "next", "prev", "complete", "cancel", "bogus"];
    corpus.extend(commands.map(|action| {
        let ns = "http://jabber.org/protocol/commands";
        let node = "urn:gjallar:command:configure-node";
        iq("set", &format!("<command xmlns='{ns}' node='{node}' action='{action}' sessionid='x'/>"))
    }));
    corpus
}

/// Returns the requests in the examples of XEP-0060, sent by a stranger.
fn examples() -> Vec<String> {
    let text = include_str!("../xep0060/examples.txt");
    let stanzas =
        text.split("\n## ").skip(1).filter_map(|example| Some(example.split_once('\n')?.1));
    stanzas.map(|stanza| stanza.trim().to_owned()).collect()
}

/// Returns `true` if a text is a stanza that a server could send.
async fn is_well_formed(text: &str) -> bool {
    let whole = format!(
        "<stream:stream xmlns='{}' xmlns:stream='http://etherx.jabber.org/streams'>{text}<end/>",
        crate::support::component::STREAM
    );
    let limits = StanzaLimits { max_bytes: 10_000_000, max_depth: 200 };
    let mut reader = StreamReader::new(whole.as_bytes(), limits);
    let opened = reader.next().await;
    let (stanza, end) = (reader.next().await, reader.next().await);
    let is_end = matches!(end, Ok(StreamElement::Stanza(end)) if end.name() == "end");
    opened.is_ok() && matches!(stanza, Ok(StreamElement::Stanza(_))) && is_end
}

/// Mutates a stanza: removes, repeats or replaces a part, or changes a value.
fn mutated(stanza: &str, other: &str, dice: &mut TestRng) -> String {
    let place = |text: &str, dice: &mut TestRng| {
        let places: Vec<_> = text.match_indices(['<', '>', '\'', '=']).map(|(at, _)| at).collect();
        places.get(dice.roll(places.len().max(1))).copied().unwrap_or(0)
    };
    let (a, b) = (place(stanza, dice), place(stanza, dice));
    let (from, to) = (a.min(b), a.max(b));
    let piece = &stanza[from..to];
    match dice.roll(5) {
        0 => format!("{}{}", &stanza[..from], &stanza[to..]),
        1 => format!("{}{piece}{}", &stanza[..to], &stanza[to..]),
        2 => {
            let (c, d) = (place(other, dice), place(other, dice));
            format!("{}{}{}", &stanza[..from], &other[c.min(d)..c.max(d)], &stanza[to..])
        }
        3 => {
            let words =
                ["get", "set", "n", "", "0", "-1", "4294967296", "max", "true", "&#9;", "é🎺"];
            let values: Vec<_> = stanza.split('\'').map(str::to_owned).collect();
            let odd = (dice.roll(values.len() / 2 + 1) * 2 + 1).min(values.len().saturating_sub(1));
            let mut values = values;
            values[odd] = words[dice.roll(words.len())].to_owned();
            values.join("'")
        }
        _ => {
            let names =
                ["item", "items", "publish", "subscribe", "x", "field", "value", "affiliation"];
            let (from, to) = (names[dice.roll(names.len())], names[dice.roll(names.len())]);
            stanza.replacen(from, to, 1 + dice.roll(2))
        }
    }
}

async fn with_node() -> ServiceProcess {
    // Storms have a separate test, so the rate limit is off.
    let mut served =
        ServiceProcess::start(&[("LIMITS_MAX_JID_REQUESTS_PER_SECOND", "0")], &[]).await;
    let form = crate::support::component::form(&[("publish_model", "open")]);
    served.granted(OWNER, &format!("<create node='n'/><configure>{form}</configure>")).await;
    served
}

/// Asserts that another sender is answered in time; returns the latency.
async fn others_notice_nothing(served: &mut ServiceProcess, after: &str) -> Duration {
    let (pong, took) = served.timed(OTHER, "get", PING).await;
    assert_eq!(pong.attr("type"), Some("result"));
    let shown: String = after.chars().take(200).collect();
    assert!(took < MAX_LATENCY, "{took:?} after {shown}");
    took
}

async fn is_unharmed(mut served: ServiceProcess, memory: u64) {
    assert!(served.is_alive());
    let grown = served.memory().saturating_sub(memory);
    assert!(grown < 200, "{grown} MiB more");
    let log = served.log();
    assert_eq!(lines_with_event(&log, "link_connected").len(), 1, "{log}");
    assert!(!log.contains("panic") && !log.contains("ERROR"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_stanzas_of_the_corpus_harm_no_other_sender() {
    let requests =
        std::env::var("HOSTILE_REQUESTS").map_or(2_000, |number| number.parse().unwrap());
    let mut served = with_node().await;
    let memory = served.memory();
    let corpus = corpus();
    let mut longest = Duration::ZERO;
    for stanza in &corpus {
        served.link.send(stanza).await;
        longest = longest.max(others_notice_nothing(&mut served, stanza).await);
    }
    let mut material = examples();
    material.extend(corpus.into_iter().filter(|stanza| stanza.len() < 2_000));
    let (mut dice, mut sent) = (TestRng(0xBAD), 0);
    while sent < requests {
        let mut stanza = material[dice.roll(material.len())].clone();
        for _ in 0..=dice.roll(3) {
            stanza = mutated(&stanza, &material[dice.roll(material.len())], &mut dice);
        }
        if !is_well_formed(&stanza).await || stanza.contains("barrier") {
            continue;
        }
        served.link.send(&stanza).await;
        sent += 1;
        if sent % 20 == 0 {
            longest = longest.max(others_notice_nothing(&mut served, &stanza).await);
        }
    }
    served.messages.clear();
    let grown = served.memory().saturating_sub(memory);
    eprintln!(
        "{sent} requests by chance; another's answer took at most {longest:?}; {grown} MiB more"
    );
    is_unharmed(served, memory).await;
}

/// Twenty thousand requests of one sender at full speed, first small and then large ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sender_cannot_starve_others() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    let form = crate::support::component::form(&[("publish_model", "open")]);
    served.granted(OWNER, &format!("<create node='n'/><configure>{form}</configure>")).await;
    let memory = served.memory();
    let (small, large) = ("x".repeat(10), "x".repeat(60_000));
    let mut latencies = Vec::new();
    let begun = Instant::now();
    for (text, batch, batches) in [(small, 200, 95), (large, 20, 50)] {
        let item = format!("<item id='i'><x xmlns='urn:x'>{text}</x></item>");
        let storm = publish(&item).repeat(batch);
        for _ in 0..batches {
            served.link.send(&storm).await;
            let own = "<publish node='n'><item id='own'><x xmlns='urn:x'/></item></publish>";
            let own =
                format!("<pubsub xmlns='{}'>{own}</pubsub>", crate::support::component::PUBSUB);
            let (answer, took) = served.timed(OTHER, "set", &own).await;
            assert_eq!(answer.attr("type"), Some("result"));
            latencies.push(took);
        }
    }
    // The default limit: 1 000 requests a second, and 10 000 at once.
    let allowed = 10_000 + 1_000 * begun.elapsed().as_secs();
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    eprintln!(
        "another sender's durable publish during the storm: median {:?}, p99 {:?}, longest {:?}",
        at(50),
        at(99),
        at(100)
    );
    assert!(at(99) < MAX_LATENCY, "{latencies:?}");
    // Requests above the limit were refused and counted.
    let limit = "limit_rejections_total{limit=\"max_jid_requests_per_second\"}";
    let limited = served.stat(limit).await;
    let (sent, rounding) = (20_000, 1_000);
    assert!(limited > 0 && limited + allowed + rounding >= sent, "{limited}, {allowed}");
    is_unharmed(served, memory).await;
}

/// An owner bans a crowd with thousands of pending events. Their delivery is skipped, and other
/// senders are answered meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ban_of_thousands_during_a_backlog_delays_no_other_requests() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    served.granted(OWNER, "<create node='n'/>").await;
    served.subscribe_many(OWNER, "n", 20_000).await;
    served.link.hold_barriers();
    for batch in 0..10 {
        for id in 0..100 {
            let item = format!("<item id='{batch}-{id}'><x xmlns='urn:x'/></item>");
            let publish = format!("<publish node='n'>{item}</publish>");
            let content =
                format!("<pubsub xmlns='{}'>{publish}</pubsub>", crate::support::component::PUBSUB);
            served.request(OWNER, "p", "set", &content).await;
        }
        for _ in 0..100 {
            while served.link.receive().await.unwrap().attr("id") != Some("p") {}
        }
    }
    let form = crate::support::component::form(&[("access_model", "whitelist")]);
    let content = format!(
        "<pubsub xmlns='{}'><configure node='n'>{form}</configure></pubsub>",
        crate::support::component::OWNER
    );
    assert_eq!(served.ask(OWNER, "set", &content).await.attr("type"), Some("result"));
    let begun = Instant::now();
    served.link.release_barriers().await;
    let mut longest = Duration::ZERO;
    while served.stat("log_backlog_entries").await > 0 {
        for _ in 0..100 {
            let (_, took) = served.timed(OTHER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
            longest = longest.max(took);
        }
    }
    let all = begun.elapsed();
    eprintln!("20 million passed over in {all:?}, another's ping took {longest:?} at the most");
    assert!(longest < all / 4, "{longest:?} of {all:?}");
}

/// Small requests with large replies, from many senders, which the server does not read: only as
/// many replies are produced as may be queued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_replies_are_bounded() {
    let mut served = ServiceProcess::start(&[("LINK_PING_AFTER_SECONDS", "600")], &[]).await;
    served.granted(OWNER, "<create node='n'/>").await;
    for id in 0..4 {
        let item = format!("<item id='{id}'><x xmlns='urn:x'>{}</x></item>", "x".repeat(45_000));
        served.granted(OWNER, &format!("<publish node='n'>{item}</publish>")).await;
    }
    let memory = served.memory();
    let items =
        format!("<pubsub xmlns='{}'><items node='n'/></pubsub>", crate::support::component::PUBSUB);
    for number in 0..3_000 {
        served
            .request(&format!("a{}@localhost", number % 30), &format!("{number}"), "get", &items)
            .await;
    }
    // Waits until memory and number of tasks stay constant.
    let (mut most, mut same, mut before) = (0, 0, (0, 0));
    while same < 10 {
        let now = (served.stat("runtime_tasks").await, served.memory());
        same = if now == before { same + 1 } else { 0 };
        before = now;
        most = most.max(now.1.saturating_sub(memory));
    }
    eprintln!("3 000 requests of 180 kB each: {most} MiB more");
    assert!(most < 150, "{most} MiB more");
    for _ in 0..3_000 {
        assert_eq!(served.link.receive().await.unwrap().attr("type"), Some("result"));
    }
}

/// A server that goes silent in the middle of a stanza counts as dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_stanza_followed_by_silence_causes_a_reconnect() {
    let silence = [("LINK_PING_AFTER_SECONDS", "1"), ("LINK_PING_DEADLINE_SECONDS", "1")];
    let mut served = ServiceProcess::start(&silence, &[]).await;
    let whole = publish("<item><x xmlns='urn:x'/></item>");
    served.link.send(&whole[..whole.len() / 2]).await;
    served.reconnected().await;
    others_notice_nothing(&mut served, "half a stanza").await;
}

const CHILD: &str = "HOSTILE_CHILD";

/// Child process of the next test, which sets the address of the server; does nothing without it.
#[test]
fn a_service_without_the_depth_limit() {
    let Ok(server) = std::env::var(CHILD) else { return };
    let mut config = Config {
        jid: SERVICE.into(),
        server,
        secret: Secret("secret".into()),
        store: "memory:".into(),
        ..Config::default()
    };
    config.link.max_depth = 10_000_000;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_tell, stop) = watch::channel(false);
    runtime.block_on(serve(watch::channel(config).1, Arc::new(MemoryStore::new()), stop)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corpus_ends_a_process_without_the_depth_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["faults::abuse::a_service_without_the_depth_limit", "--exact", "--nocapture"])
        .env(CHILD, listener.local_addr().unwrap().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut link = ServerStream::accept(&listener).await;
    for stanza in corpus() {
        link.send_if_it_lives(&stanza).await;
    }
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let status = timeout(Duration::from_secs(20), ended).await.expect("it lives on").unwrap();
    assert_eq!(status.signal(), Some(6), "{status}");
}
