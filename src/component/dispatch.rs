//! Stanza, wire, service, wire, stanza: what every kind of request is answered.

use std::sync::Arc;

use jid::Jid;
use minidom::Element;
use tracing::{debug, trace};

use crate::{
    command::{Commands, service_error},
    pubsub::{
        Actor, NodeId, Refusal,
        op::{affiliations::AffiliationsSet, subscriptions::SubscriptionsSet},
    },
    service::{Actors, Error, Outcome, Service},
    wire::{
        disco, ns, reply,
        request::{self, Request},
        stanza::{Header, StanzaError},
        xml::Tag,
    },
};

use super::answers::Answers;

/// Answers stanzas.
pub struct Dispatch {
    service: Arc<Service>,
    actors: Actors,
    commands: Commands,
    answers: Arc<Answers>,
    jid: Jid,
    max_stanza_bytes: usize,
}

/// The longest id of a request. Each answer repeats it.
const MAX_ID_BYTES: usize = 1024;

type Content = Result<Option<Tag>, StanzaError>;

impl Dispatch {
    /// Answers in the name of a service, whose JID this is, with stanzas of at most so many bytes.
    #[must_use]
    pub fn new(
        service: Arc<Service>,
        actors: Actors,
        answers: Arc<Answers>,
        jid: Jid,
        max_stanza_bytes: usize,
    ) -> Self {
        let commands = Commands::new(Arc::clone(&service));
        Self { service, actors, commands, answers, jid, max_stanza_bytes }
    }

    /// Deals with a stanza. A request is answered; everything else is not.
    pub async fn handle(&self, stanza: &Element) {
        let mut header = Header::of(stanza);
        header.to.get_or_insert_with(|| self.jid.to_string());
        trace!(stanza = header.name, kind = header.kind, "received");
        if !header.is_request() {
            return;
        }
        let Some(sender) = header.sender() else {
            debug!("a request without a sender is not answered");
            return;
        };
        let actor = self.actors.actor(&sender);
        let is_set = match header.kind.as_deref() {
            Some("set") => true,
            Some("get") => false,
            _ => return self.refuse(&header, &StanzaError::new("modify", "bad-request")),
        };
        if header.id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
            let error =
                StanzaError::new("modify", "policy-violation").text("an id of too many bytes");
            return self.refuse_at_limit(&header, "id_bytes", &error);
        }
        if header.id.is_none() || stanza.children().count() != 1 {
            return self.refuse(&header, &StanzaError::new("modify", "bad-request"));
        }
        if header.to.as_deref().and_then(|to| Jid::new(to).ok()).as_ref() != Some(&self.jid) {
            return self.refuse(&header, &StanzaError::new("cancel", "service-unavailable"));
        }
        for child in stanza.children() {
            self.request(&header, &actor, stanza, child, is_set).await;
        }
    }

    /// Answers a request past a limit of this name, which is not one of the rules.
    pub fn refuse_at_limit(&self, header: &Header, limit: &'static str, error: &StanzaError) {
        self.service.metrics().limit_reached(limit);
        self.refuse(header, error);
    }

    /// Answers a request that could not be read, or not be taken, with an error.
    pub fn refuse(&self, header: &Header, error: &StanzaError) {
        if header.is_request() && header.from.is_some() {
            let error = header.error(error);
            if error.len() > self.max_stanza_bytes {
                debug!(bytes = error.len(), "a request whose very id is too long for an answer");
            } else {
                self.answers.send(error);
            }
        }
    }

    async fn request(
        &self,
        header: &Header,
        actor: &Actor,
        iq: &Element,
        child: &Element,
        is_set: bool,
    ) {
        let content = match (child.name(), child.ns().as_str(), is_set) {
            ("pubsub", ns::PUBSUB | ns::PUBSUB_OWNER, _) => {
                return match request::parse(iq, child, is_set) {
                    Ok(request) => self.pubsub(header, actor, request).await,
                    Err(refusal) => self.refuse(header, &self.error(&refusal.into())),
                };
            }
            ("query", ns::DISCO_INFO, false) => self.info(actor, child.attr("node")).await,
            ("query", ns::DISCO_ITEMS, false) => self.items(actor, child.attr("node")).await,
            ("ping", ns::PING, false) => Ok(None),
            ("query", ns::VERSION, false) => Ok(Some(version())),
            ("command", ns::COMMANDS, true) => {
                return match self.commands.run(actor, child).await {
                    Ok(stage) => self.send(header, header.result(Some(stage))),
                    Err(error) => self.refuse(header, &error),
                };
            }
            ("query", ns::DISCO_INFO | ns::DISCO_ITEMS | ns::VERSION, true)
            | ("ping", ns::PING, true)
            | ("command", ns::COMMANDS, false) => Err(StanzaError::new("modify", "bad-request")),
            _ => Err(StanzaError::new("cancel", "service-unavailable")),
        };
        match content {
            Ok(content) => self.send(header, header.result(content)),
            Err(error) => self.refuse(header, &error),
        }
    }

    #[allow(clippy::too_many_lines)] // one match, one arm per request
    async fn pubsub(&self, header: &Header, actor: &Actor, request: Request) {
        let service = &self.service;
        let limits = service.limits();
        match request {
            Request::Affiliations(node) => {
                let entries = service.affiliations(actor, &node).await;
                self.show(header, entries, |entries| reply::affiliations(&node, &entries));
            }
            Request::Configuration(node) => {
                let config = service.configuration(actor, &node).await;
                self.show(header, config, |config| reply::configuration(&node, &config, limits));
            }
            Request::Configure(request) => {
                service.configure(actor, &request, |a| self.settle(header, a, |()| None)).await;
            }
            Request::Create(request) => {
                let render = |created| Some(reply::created(&created));
                service.create(actor, &request, |a| self.settle(header, a, render)).await;
            }
            Request::Default => self.show(header, Ok(()), |()| reply::default(limits)),
            Request::Delete(request) => {
                service.delete(actor, &request, |a| self.settle(header, a, |()| None)).await;
            }
            Request::OwnAffiliations(request) => {
                let own = service.own_affiliations(actor, &request).await;
                self.show(header, own, |own| reply::own_affiliations(&own));
            }
            Request::OwnSubscriptions(request) => {
                let own = service.own_subscriptions(actor, &request).await;
                self.show(header, own, |own| reply::own_subscriptions(&own));
            }
            Request::Publish(request) => {
                let render = |published| Some(reply::published(&published));
                service.publish(actor, &request, |a| self.settle(header, a, render)).await;
            }
            Request::Purge(request) => {
                service.purge(actor, &request, |a| self.settle(header, a, |()| None)).await;
            }
            Request::Retract(request) => {
                service.retract(actor, &request, |a| self.settle(header, a, |()| None)).await;
            }
            Request::Retrieve(request) => {
                let items = service.retrieve(actor, &request).await;
                self.show(header, items, |items| reply::items(&request, &items));
            }
            Request::SetAffiliations(request) => {
                service.set_affiliations(actor, &request, |a| self.affiliated(header, a)).await;
            }
            Request::SetSubscriptions(request) => {
                service.set_subscriptions(actor, &request, |a| self.enrolled(header, a)).await;
            }
            Request::Subscribe(request) => {
                let render = |subscribed| Some(reply::subscribed(&subscribed));
                service.subscribe(actor, &request, |a| self.settle(header, a, render)).await;
            }
            Request::Subscriptions(node) => {
                let subscribers = service.subscriptions(actor, &node).await;
                self.show(header, subscribers, |jids| reply::subscriptions(&node, &jids));
            }
            Request::Unsubscribe(request) => {
                let render = |unsubscribed| Some(reply::unsubscribed(&unsubscribed));
                service.unsubscribe(actor, &request, |a| self.settle(header, a, render)).await;
            }
        }
    }

    async fn info(&self, actor: &Actor, node: Option<&str>) -> Content {
        let name = match node {
            None | Some("") => return Ok(Some(disco::service_info())),
            Some(ns::COMMANDS) => return Ok(Some(disco::commands_info())),
            Some(name) => name,
        };
        if let Some(command) = Commands::name(name) {
            return Ok(Some(disco::command_info(name, command)));
        }
        let node = NodeId::parse(name).map_err(|refusal| self.error(&refusal.into()))?;
        match self.service.meta_data(actor, &node).await {
            Ok(data) => Ok(Some(disco::node_info(name, &data))),
            Err(error) => Err(self.error(&error)),
        }
    }

    async fn items(&self, actor: &Actor, node: Option<&str>) -> Content {
        let name = match node {
            None | Some("") => {
                let nodes = self.service.nodes(actor).await.map_err(|error| self.error(&error))?;
                return Ok(Some(disco::nodes(&self.jid, &nodes)));
            }
            Some(ns::COMMANDS) => {
                return Ok(Some(disco::commands(&self.jid, Commands::all())));
            }
            Some(name) => name,
        };
        let node = NodeId::parse(name).map_err(|refusal| self.error(&refusal.into()))?;
        match self.service.item_ids(actor, &node).await {
            Ok(items) => Ok(Some(disco::node_items(&self.jid, name, &items))),
            // A node that keeps no items has none to discover.
            Err(Error::Refused(Refusal::Unsupported(_))) => {
                Ok(Some(disco::node_items(&self.jid, name, &[])))
            }
            Err(error) => Err(self.error(&error)),
        }
    }

    /// Takes notice of a notification that came back.
    pub fn count_bounce(&self) {
        self.service.metrics().bounces.inc();
    }

    /// Waits until more answers may come.
    pub async fn room(&self) {
        self.answers.room().await;
    }

    /// Whether there is a connection to the server.
    pub fn note_connected(&self, is_connected: bool) {
        self.service.metrics().connected.set(i64::from(is_connected));
    }

    /// Answers a question.
    fn show<R>(&self, header: &Header, shown: Result<R, Error>, render: impl FnOnce(R) -> Tag) {
        match shown {
            Ok(shown) => self.send(header, header.result(Some(render(shown)))),
            Err(error) => self.refuse(header, &self.error(&error)),
        }
    }

    /// Answers a request for change.
    fn settle<R>(
        &self,
        header: &Header,
        outcome: Outcome<R>,
        render: impl FnOnce(R) -> Option<Tag>,
    ) {
        match outcome {
            Ok(reply) => self.say(header.result(render(reply)), || header.result(None)),
            Err(error) => self.refuse(header, &self.error(&error)),
        }
    }

    /// Says what was done: with less of it, if all would be larger than a stanza may be.
    fn say(&self, answer: String, less: impl FnOnce() -> String) {
        let answer = if answer.len() > self.max_stanza_bytes { less() } else { answer };
        self.answers.send(answer);
    }

    fn affiliated(&self, header: &Header, outcome: Outcome<AffiliationsSet>) {
        match outcome {
            Ok(set) if !set.failed.is_empty() => {
                if set.is_full {
                    self.service.metrics().limit_reached("max_affiliations");
                }
                let all = header.error_with(reply::affiliations_failed(&set), &some_failed());
                self.say(all, || header.error(&some_failed()));
            }
            _ => self.settle(header, outcome, |_| None),
        }
    }

    fn enrolled(&self, header: &Header, outcome: Outcome<SubscriptionsSet>) {
        match outcome {
            Ok(set) if !set.failed.is_empty() => {
                if set.is_full {
                    self.service.metrics().limit_reached("max_subscriptions");
                }
                let all = header.error_with(reply::subscriptions_failed(&set), &some_failed());
                self.say(all, || header.error(&some_failed()));
            }
            _ => self.settle(header, outcome, |_| None),
        }
    }

    fn error(&self, error: &Error) -> StanzaError {
        service_error(&self.service, error)
    }

    /// Sends an answer, or says that it is larger than a stanza may be.
    fn send(&self, header: &Header, stanza: String) {
        if stanza.len() > self.max_stanza_bytes {
            let error = StanzaError::new("modify", "policy-violation")
                .text("the answer is larger than a stanza may be");
            self.refuse_at_limit(header, "answer_bytes", &error);
        } else {
            self.answers.send(stanza);
        }
    }
}

/// Some entries of a list could not be set; the others are (§8.8.2.4, §8.9.2.4).
fn some_failed() -> StanzaError {
    StanzaError::new("modify", "not-acceptable")
}

/// XEP-0092.
fn version() -> Tag {
    Tag::ns("query", ns::VERSION)
        .child(Tag::new("name").text(env!("CARGO_PKG_NAME")))
        .child(Tag::new("version").text(env!("CARGO_PKG_VERSION")))
}
