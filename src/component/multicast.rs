//! The way to many at once: a multicast service of the server's (XEP-0033), where it offers one.
//!
//! It is looked for on each connection (XEP-0033 §2), and nothing is told before it is known whether there is one:
//! its answer also shows that nothing is left in it from before. Events for users of the server go through it. It
//! takes stanzas in their order, but beside those that go directly, so what a recipient is told goes directly only
//! when it has nothing left. When it refuses something, what was not confirmed is told again, directly.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jid::Jid;
use minidom::Element;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::wire::{
    multicast::{max_recipients, services},
    ns,
    xml::Tag,
};

/// What the id of a question begins with.
pub(super) const QUESTION: &str = "multicast-";
/// How long is waited for answers before everything goes directly; and where a service may have something left.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_WITH_A_SERVICE: Duration = Duration::from_secs(10);
/// When it is asked again; after each failure twice as late, up to some 21 hours.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(600);
const MAX_DOUBLINGS: u64 = 7;
/// The most services of the server that are asked.
const MAX_SERVICES: usize = 50;
/// Recipients of one stanza, if the service takes as many.
const MAX_RECIPIENTS: usize = 500;

/// Where a multicast service is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Nowhere.
    None,
    /// At the domain of a server, and at its services below that domain.
    Of(String),
    /// At this JID.
    At {
        /// The service.
        jid: String,
        /// The domain of its server.
        host: String,
    },
}

/// Which way notifications go.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// None, before it is known.
    Unknown,
    /// One stanza for each recipient.
    Direct,
    /// One stanza for many.
    Through(Arc<Post>),
}

/// A multicast service.
#[derive(Debug)]
pub(super) struct Post {
    /// Its JID, a domain.
    pub jid: String,
    /// The domain of its server.
    host: String,
    /// The most recipients of one stanza.
    pub max_recipients: usize,
}

/// How an event gets to a recipient, where there is a multicast service. It is the same for each event, so that
/// none overtakes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Through the service.
    Through,
    /// Past it: it would ask the recipient's domain how to go on, and believe what a stranger says.
    Past,
    /// Not at all: the service itself would take an event for something to send on.
    Not,
}

impl Post {
    pub(super) fn reach(&self, recipient: &Jid) -> Reach {
        let domain = recipient.domain().as_str();
        if domain == self.jid && (domain != self.host || recipient.node().is_none()) {
            Reach::Not
        } else if domain == self.host || is_below(domain, &self.host) {
            Reach::Through
        } else {
            Reach::Past
        }
    }
}

/// What is known of the server's multicast service.
#[derive(Debug)]
pub struct Multicast {
    offer: Offer,
    service: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    way: Way,
    /// What this connection's questions are told by.
    connection: String,
    /// Who has not answered, and what.
    asked: Vec<(String, About)>,
    asked_at: Instant,
    patience: Duration,
    /// How often a service refused something. The next answer only shows that it has nothing left.
    failures: u64,
    is_failing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Info,
    Items,
}

impl Multicast {
    /// Looks for a service that would take stanzas of the component of this JID.
    #[must_use]
    pub fn new(offer: Offer, service: String) -> Self {
        let state = State {
            way: Way::Direct,
            connection: String::new(),
            asked: Vec::new(),
            asked_at: Instant::now(),
            patience: PATIENCE,
            failures: 0,
            is_failing: false,
        };
        Self { offer, service, state: Mutex::new(state) }
    }

    /// Begins on a new connection of this name; with what is to be asked there.
    pub(super) fn begin(&self, connection: String) -> Option<String> {
        let mut state = self.state();
        state.connection = connection;
        let question = self.look(&mut state)?;
        state.wait();
        Some(question)
    }

    /// Which way notifications go now, and what is to be asked.
    pub(super) fn way(&self) -> (Way, Option<String>) {
        let mut state = self.state();
        let since = state.asked_at.elapsed();
        let question = match state.way {
            Way::Unknown if since >= state.patience => {
                state.way = Way::Direct;
                None
            }
            Way::Direct
                if since >= ASKED_AGAIN_AFTER * (1 << state.failures.min(MAX_DOUBLINGS)) =>
            {
                self.look(&mut state)
            }
            _ => None,
        };
        (state.way.clone(), question)
    }

    /// Until when is waited for answers, if they are waited for.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let state = self.state();
        matches!(state.way, Way::Unknown).then(|| state.asked_at + state.patience)
    }

    /// Whether notifications go through the service of this JID.
    pub(super) fn goes_through(&self, jid: &str) -> bool {
        matches!(&self.state().way, Way::Through(post) if post.jid == jid)
    }

    /// How often a service refused something.
    pub(super) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// The service refused something, or is silent. Returns what is to be asked, so that its answer shows that it has
    /// nothing left.
    pub(super) fn fail(&self) -> Option<String> {
        let mut state = self.state();
        let Way::Through(post) = state.way.clone() else { return None };
        warn!(service = post.jid, "multicast failed; events go to each recipient by itself");
        state.failures += 1;
        state.is_failing = true;
        state.wait();
        Some(self.begin_asking(&mut state, &post.jid))
    }

    /// Takes notice of an answer of somebody; nothing if it was not asked for. Returns what is to be asked then.
    pub(super) fn answered(&self, from: &str, stanza: &Element) -> Option<Vec<String>> {
        let (connection, about) = stanza.attr("id")?.strip_prefix(QUESTION)?.split_once('-')?;
        let is_asked = |(jid, what): &(String, About)| jid == from && what.name() == about;
        let mut state = self.state();
        if state.connection != connection {
            return None;
        }
        let place = state.asked.iter().position(is_asked)?;
        let (_, about) = state.asked.swap_remove(place);
        let result = stanza.children().next().filter(|_| stanza.attr("type") == Some("result"));
        let taken = result.and_then(max_recipients).filter(|taken| *taken > 1);
        let mut questions = Vec::new();
        match (about, &self.offer, taken) {
            (About::Info, ..) if state.is_failing => {}
            (About::Info, _, Some(taken)) => {
                let (Offer::Of(host) | Offer::At { host, .. }) = &self.offer else { return None };
                let max_recipients = taken.min(MAX_RECIPIENTS);
                info!(service = from, max_recipients, "events go by multicast");
                let post = Post { jid: from.to_owned(), host: host.clone(), max_recipients };
                state.asked.clear();
                state.way = Way::Through(Arc::new(post));
            }
            (About::Info, Offer::Of(host), None) if host == from => {
                questions.push(self.ask(&mut state, from, About::Items));
            }
            (About::Items, Offer::Of(host), _) => {
                let theirs = |jid: &&str| is_below(jid, host) && *jid != self.service;
                let services = result.into_iter().flat_map(services).filter(theirs);
                for jid in services.take(MAX_SERVICES) {
                    questions.push(self.ask(&mut state, jid, About::Info));
                }
            }
            _ => {}
        }
        if state.asked.is_empty() && matches!(state.way, Way::Unknown) {
            state.way = Way::Direct;
            state.is_failing = false;
        }
        Some(questions)
    }

    fn look(&self, state: &mut State) -> Option<String> {
        let (Offer::Of(first) | Offer::At { jid: first, .. }) = &self.offer else { return None };
        state.is_failing = false;
        Some(self.begin_asking(state, first))
    }

    fn begin_asking(&self, state: &mut State, first: &str) -> String {
        state.asked.clear();
        state.asked_at = Instant::now();
        self.ask(state, first, About::Info)
    }

    fn ask(&self, state: &mut State, jid: &str, about: About) -> String {
        state.asked.push((jid.to_owned(), about));
        let namespace = match about {
            About::Info => ns::DISCO_INFO,
            About::Items => ns::DISCO_ITEMS,
        };
        Tag::new("iq")
            .attr("type", "get")
            .attr("from", &self.service)
            .attr("to", jid)
            .attr("id", &format!("{QUESTION}{}-{}", state.connection, about.name()))
            .child(Tag::ns("query", namespace))
            .to_string()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl About {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Items => "items",
        }
    }
}

impl State {
    /// From now on nothing is told before there is an answer.
    fn wait(&mut self) {
        match self.way {
            Way::Through(_) => self.patience = PATIENCE_WITH_A_SERVICE,
            Way::Direct => self.patience = PATIENCE,
            Way::Unknown => {}
        }
        self.way = Way::Unknown;
    }
}

fn is_below(domain: &str, host: &str) -> bool {
    domain.strip_suffix(host).is_some_and(|rest| rest.ends_with('.'))
}
