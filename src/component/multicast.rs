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
/// When a question is repeated until then.
///
/// COMPAT: ejabberd 23.01 sends answers by whichever connection of a component it likes, and may know one
/// that is broken.
const REPEATED_AFTER: Duration = Duration::from_secs(1);
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
    /// What the answers to these questions are told by: the connection, and how often was asked anew.
    connection: String,
    asking: u64,
    /// Who has not answered, and what.
    asked: Vec<(String, About)>,
    asked_at: Instant,
    repeated_at: Instant,
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
            asking: 0,
            asked: Vec::new(),
            asked_at: Instant::now(),
            repeated_at: Instant::now(),
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
            Way::Unknown if state.repeated_at.elapsed() >= REPEATED_AFTER => {
                state.repeated_at = Instant::now();
                let questions =
                    state.asked.iter().map(|(jid, about)| self.question(&state, jid, *about));
                Some(questions.collect())
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

    /// When to ask for the way again, if it is not known.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let state = self.state();
        let (end, repeated) = (state.asked_at + state.patience, state.repeated_at + REPEATED_AFTER);
        matches!(state.way, Way::Unknown).then(|| end.min(repeated))
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
        let id = stanza.attr("id")?;
        let mut state = self.state();
        let is_asked = |(jid, about): &(String, About)| jid == from && state.id(*about) == id;
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
        state.asking += 1;
        state.asked_at = Instant::now();
        state.repeated_at = state.asked_at;
        self.ask(state, first, About::Info)
    }

    fn ask(&self, state: &mut State, jid: &str, about: About) -> String {
        state.asked.push((jid.to_owned(), about));
        self.question(state, jid, about)
    }

    fn question(&self, state: &State, jid: &str, about: About) -> String {
        let namespace = match about {
            About::Info => ns::DISCO_INFO,
            About::Items => ns::DISCO_ITEMS,
        };
        Tag::new("iq")
            .attr("type", "get")
            .attr("from", &self.service)
            .attr("to", jid)
            .attr("id", &state.id(about))
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
    fn id(&self, about: About) -> String {
        format!("{QUESTION}{}-{}-{}", self.connection, self.asking, about.name())
    }

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
