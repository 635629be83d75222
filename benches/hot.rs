//! Benchmarks of the functions on the path of every publish and notification. `cargo bench`
//! measures their time. `cargo bench --bench hot -- instructions NAME` calls one function 1 000
//! times in `counted`, for callgrind.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::{
    hint::black_box,
    pin::Pin,
    sync::Arc,
    task::{Context as Waking, Poll},
};

use criterion::Criterion;
use futures::FutureExt;
use gjallar::{
    store::SledStore,
    xmpp::{
        StanzaLimits, StreamElement, StreamReader,
        stanza::{
            multicast::write_address,
            notification::{To, render},
            request::{self, PubsubRequest},
        },
    },
};
use gjallar_pubsub::{
    Actor, Affiliation, Context, Epoch, EventId, IdGenerator, Item, ItemId, Limits, Node,
    NodeConfig, NodeId, Payload, Policy, Sequence, Timestamp,
    op::{
        self,
        publish::{NewItem, Publish},
    },
};
use jid::{BareJid, Jid};
use tokio::io::{AsyncRead, ReadBuf};

const OPEN: &str = "<stream:stream xmlns='jabber:component:accept' from='pubsub.localhost' \
                    xmlns:stream='http://etherx.jabber.org/streams' id='abc'>";
const PUBLISH: &str = "<iq type='set' id='4711' from='owner@localhost/desk' to='pubsub.localhost'>\
    <pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='princely_musings'><item id='4711'>\
    <entry xmlns='http://www.w3.org/2005/Atom'><title>Soliloquy</title><summary>To be, or not to be: that is \
    the question: Whether \'tis nobler in the mind to suffer</summary></entry></item></publish></pubsub></iq>";
const RECIPIENT: &str = "francisco.4711@denmark.lit/barracks";

/// Endless stream that repeats a stanza.
struct Repeated {
    opened: bool,
    text: String,
}

impl AsyncRead for Repeated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Waking<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.opened {
            self.opened = true;
            into.put_slice(OPEN.as_bytes());
        }
        while into.remaining() >= self.text.len() {
            into.put_slice(self.text.as_bytes());
        }
        Poll::Ready(Ok(()))
    }
}

struct SequentialIds;

impl IdGenerator for SequentialIds {
    fn next_u64(&self) -> u64 {
        4711
    }
}

fn payload() -> Payload {
    let (begin, end) = (PUBLISH.find("<entry").unwrap(), PUBLISH.find("</item>").unwrap());
    Payload::new(PUBLISH.get(begin..end).unwrap(), "http://www.w3.org/2005/Atom")
}

fn parse_a_publish() -> Iteration {
    let limits = StanzaLimits { max_bytes: 524_288, max_depth: 128 };
    let mut reader = StreamReader::new(Repeated { opened: false, text: PUBLISH.into() }, limits);
    reader.next().now_or_never().unwrap().unwrap();
    Box::new(move || {
        let StreamElement::Stanza(iq) = reader.next().now_or_never().unwrap().unwrap() else {
            panic!("no stanza");
        };
        let parsed = request::parse(&iq, iq.children().next().unwrap(), true);
        assert!(matches!(black_box(parsed), Ok(PubsubRequest::Action(_))));
    })
}

/// Returns a node with a thousand subscribers, and a publish request for it.
fn node() -> (Node, Publish) {
    let (id, owner) =
        (NodeId::parse("princely_musings").unwrap(), BareJid::new("owner@localhost").unwrap());
    let config = NodeConfig::initial(&Limits::default());
    let mut node = Node::new(id.clone(), Epoch(1), config, owner.clone(), Timestamp(0));
    node.load_affiliation(owner, Affiliation::Owner);
    for number in 0..1000 {
        node.load_subscription(Jid::new(&format!("u{number}@localhost/r")).unwrap(), 0);
    }
    let item = NewItem { id: Some(ItemId::parse("4711").unwrap()), payload: Some(payload()) };
    (node, Publish { node: id, items: vec![item], options: Vec::new(), expected_newest: None })
}

fn decide(
    node: &Node,
    publish: &Publish,
    actor: &Actor,
) -> gjallar_pubsub::Decision<op::publish::PublishReply> {
    let policy = Policy::default();
    let cx = Context {
        actor,
        service: None,
        administrators: &[],
        policy: &policy,
        now: Timestamp(1_700_000_000_000),
        ids: &SequentialIds,
        node_count: 1,
        actor_node_count: 1,
        policy_node_count: 0,
        actor_subscription_count: 0,
        reads_rosters: false,
        owner_roster: None,
    };
    op::publish::publish(Some(node), publish, &op::publish::ExistingItems::default(), &cx).unwrap()
}

fn owner() -> Actor {
    Actor { jid: Jid::new("owner@localhost/desk").unwrap(), is_administrator: false }
}

fn decide_a_publish() -> Iteration {
    let ((node, publish), owner) = (node(), owner());
    Box::new(move || drop(black_box(decide(&node, &publish, &owner))))
}

fn encode_a_record() -> Iteration {
    let item = Arc::new(Item {
        id: ItemId::parse("4711").unwrap(),
        event_id: EventId { epoch: Epoch(1), sequence: Sequence(4711) },
        index: 0,
        created: Sequence(4711).into(),
        publisher: BareJid::new("owner@localhost").unwrap(),
        published: Timestamp(1_700_000_000_000),
        payload: Some(payload()),
    });
    Box::new(move || drop(black_box(SledStore::item_record(&item).unwrap())))
}

fn render_a_notification() -> Iteration {
    let ((node, publish), owner) = (node(), owner());
    let notification = decide(&node, &publish, &owner).notifications.remove(0);
    Box::new(move || drop(black_box(render(&notification, false, "pubsub.localhost", 1))))
}

fn splice_a_notification() -> Iteration {
    let ((node, publish), owner) = (node(), owner());
    let notification = decide(&node, &publish, &owner).notifications.remove(0);
    let rendered = render(&notification, false, "pubsub.localhost", 1);
    let (mut buffer, mut address) = (String::with_capacity(4096), String::new());
    rendered.write_address(RECIPIENT, &mut address);
    Box::new(move || {
        buffer.clear();
        let to = To { jid: black_box(RECIPIENT), address: black_box(&address), headers: "" };
        rendered.write_to(to, &mut buffer);
        black_box(&buffer);
    })
}

fn write_an_address() -> Iteration {
    let mut buffer = String::with_capacity(4096);
    Box::new(move || {
        buffer.clear();
        write_address(black_box(RECIPIENT), &mut buffer);
        black_box(&buffer);
    })
}

type Iteration = Box<dyn FnMut()>;
type Make = fn() -> Iteration;

const HOT: [(&str, Make); 6] = [
    ("parse a publish", parse_a_publish),
    ("decide a publish", decide_a_publish),
    ("encode a record", encode_a_record),
    ("render a notification", render_a_notification),
    ("splice a notification", splice_a_notification),
    ("write an address", write_an_address),
];

/// Code that callgrind counts.
#[inline(never)]
fn counted(call: &mut dyn FnMut()) {
    for _ in 0..1000 {
        call();
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "instructions") {
        let (_, make) =
            HOT.iter().find(|(name, _)| arguments.get(at + 1).is_some_and(|n| n == name)).unwrap();
        let mut call = make();
        call();
        return counted(&mut call);
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (name, make) in HOT {
        let mut call = make();
        criterion.bench_function(name, |bencher| bencher.iter(&mut call));
    }
    criterion.final_summary();
}
