//! Router of inbound stanzas: passes each stanza to the handler of its protocol and replies to each request.

use std::{iter, sync::Arc};

use jid::{Jid, account};
use minidom::Element;
use tracing::{debug, trace};

use crate::{
    service::{Bounce, Error, Outcome, Service, SubmitHandle},
    xmpp::{
        error::service_error,
        handlers::adhoc::AdHocCommands,
        stanza::{
            envelope::{Envelope, StanzaError},
            forms::authorization,
            mam, notification, ns, reply,
            request::{self, GetRequest, PubsubRequest, SetRequest},
        },
        xml::{
            padding::{fits, fits_relayed},
            stream::StanzaLimits,
            writer::ElementWriter,
        },
    },
};
use gjallar_pubsub::{
    Actor,
    op::{affiliations::SetAffiliationsReply, subscriptions::SetSubscriptionsReply},
    relayed_len,
};

use super::{
    handlers::{disco, ping, pubsub, version},
    outbound::{reply_queue::ReplyQueue, reply_scheduler::domain_of},
    request_pacing::Pace,
};

/// Router of inbound stanzas to handlers.
pub(in crate::xmpp) struct Router {
    service: Arc<Service>,
    commands: AdHocCommands,
    replies: Arc<ReplyQueue>,
    jid: Jid,
    /// Domain of the server, if it is known.
    server: Option<String>,
    max_stanza_bytes: usize,
    pace: Pace,
}

/// Metric label of a request that succeeded.
const GRANTED: &str = "granted";
/// Maximum number of bytes of a request's id. Each reply repeats the id.
const MAX_ID_BYTES: usize = 1024;

type HandlerResult = Result<Option<ElementWriter>, StanzaError>;

impl Router {
    /// Returns a router that replies as `jid`, which is the JID of the service. `server` is the domain of the server.
    /// `max_stanza_bytes` limits the size of each reply.
    #[must_use]
    pub(in crate::xmpp) fn new(
        service: Arc<Service>,
        replies: Arc<ReplyQueue>,
        jid: Jid,
        server: Option<String>,
        max_stanza_bytes: usize,
    ) -> Self {
        let commands = AdHocCommands::new(Arc::clone(&service));
        let pace = Pace::default();
        Self { service, commands, replies, jid, server, max_stanza_bytes, pace }
    }

    /// Returns `true` if a stanza publishes or retracts items. The decision on such a request depends on one node, and
    /// on no other data that earlier requests of the sender may change. Thus the request may be decided before the
    /// earlier requests are committed.
    #[must_use]
    pub(in crate::xmpp) fn is_node_local(stanza: &Element) -> bool {
        let content = stanza.get_child("pubsub", ns::PUBSUB).and_then(|p| p.children().next());
        stanza.attr("type") == Some("set")
            && content.is_some_and(|content| matches!(content.name(), "publish" | "retract"))
    }

    /// Returns `true` if the reply to a stanza may be large, because the stanza requests items, a list or an archive,
    /// or runs a command.
    #[must_use]
    pub(super) fn may_have_large_reply(stanza: &Element) -> bool {
        let is_get = stanza.attr("type") == Some("get");
        stanza.name() == "iq"
            && stanza.children().any(|child| match child.ns().as_str() {
                ns::PUBSUB | ns::PUBSUB_OWNER | ns::DISCO_ITEMS => is_get,
                ns::MAM | ns::COMMANDS => !is_get,
                _ => false,
            })
    }

    /// Returns the envelope of a stanza, addressed to the service if the stanza has no `to`.
    #[must_use]
    pub(in crate::xmpp) fn header(&self, stanza: &Element) -> Envelope {
        let mut header = Envelope::of(stanza);
        header.to.get_or_insert_with(|| self.jid.to_string());
        header
    }

    /// Handles a stanza. Each request gets a reply. Other stanzas are handled if they are owners' responses to
    /// subscription requests (§8.6), presence, privileges, or replies to queries of the service. Returns as soon as the
    /// next stanza of the sender may be handled. The returned handle, if any, completes when the request is answered.
    /// The parsed stanza, which may be large, is dropped before the request waits for a roster.
    pub(in crate::xmpp) async fn handle(
        self: &Arc<Self>,
        header: &Envelope,
        stanza: Element,
    ) -> Option<SubmitHandle<()>> {
        trace!(stanza = header.name, kind = header.kind, "received a stanza");
        self.note_reachable(header, &stanza);
        match header.name.as_str() {
            "message" if self.handle_privileges(header.from.as_deref(), &stanza) => return None,
            "message" => return self.message(header, stanza).await,
            "presence" => {
                self.presence(header, &stanza).await;
                return None;
            }
            _ => {}
        }
        if !header.is_request() {
            if let Some((jid, nodes)) = self.handle_caps_result(&stanza) {
                drop(stanza);
                self.service.set_interests(&jid, nodes).await;
            } else if let Some(result) = self.take_ping_answer(&stanza) {
                self.service.checked(&result).await;
            } else if let Some((entity, ping)) = self.take_silence(&stanza) {
                self.service.found_silent(&entity, ping).await;
            }
            return None;
        }
        let Some(sender) = header.sender() else {
            let error = StanzaError::new("modify", "jid-malformed");
            self.refuse(header, &error.text("the address of the sender is not a valid JID"));
            return None;
        };
        self.service.resources().is_there(&sender);
        let actor = self.service.policies().actor(&sender);
        let is_set = self.validate_iq(header, &stanza)?;
        let child = stanza.children().next()?;
        if let ("pubsub", ns::PUBSUB | ns::PUBSUB_OWNER) = (child.name(), child.ns().as_str()) {
            let request = request::parse(&stanza, child, is_set);
            drop(stanza);
            return match request {
                Ok(PubsubRequest::Action(action)) => {
                    Some(self.handle_set(header, &actor, action).await)
                }
                Ok(PubsubRequest::Question(question)) => {
                    self.handle_get(header, &actor, question).await;
                    None
                }
                Err(refusal) => {
                    let error = self.error(&refusal.into());
                    self.service.metrics().count_request("malformed", error.condition);
                    self.refuse(header, &error);
                    None
                }
            };
        }
        self.handle_other(header, &actor, stanza, is_set).await;
        None
    }

    /// Replies to a request of another protocol than XEP-0060. The parsed stanza, which may be large, is dropped as
    /// soon as it is read.
    async fn handle_other(
        &self,
        header: &Envelope,
        actor: &Actor,
        mut stanza: Element,
        is_set: bool,
    ) {
        let Some(child) = stanza.take_nodes().into_iter().find_map(minidom::Node::into_element)
        else {
            return;
        };
        let content = match (child.name(), child.ns().as_str(), is_set) {
            ("query", ns::DISCO_INFO, false) => self.info(actor, child).await,
            ("query", ns::DISCO_ITEMS, false) => self.items(actor, child).await,
            ("query", ns::MAM, false) => Ok(Some(mam::form())),
            ("query", ns::MAM, true) => self.shown(self.archive(header, actor, child).await),
            ("metadata", ns::MAM, false) => self.shown(self.archive_ends(actor, child).await),
            ("ping", ns::PING, false) => Ok(ping::content()),
            ("query", ns::VERSION, false) => Ok(Some(version::version())),
            ("command", ns::COMMANDS, true) => {
                let frame = relayed_len(&header.result(Some(ElementWriter::new("command"))));
                let room = self.max_reply_stanza(header).1.saturating_sub(frame);
                return match self.commands.run(actor, child, room).await {
                    Ok(stage) => self.send(header, header.result(Some(stage))),
                    Err(error) => self.refuse(header, &error),
                };
            }
            ("query", ns::DISCO_INFO | ns::DISCO_ITEMS | ns::VERSION, true)
            | ("ping", ns::PING, true)
            | ("metadata", ns::MAM, true)
            | ("command", ns::COMMANDS, false) => Err(StanzaError::new("modify", "bad-request")
                .text("wrong iq type: a command needs set, all other requests of this protocol need get")),
            _ => Err(StanzaError::new("cancel", "service-unavailable")
                .text("the service does not implement this protocol")),
        };
        match content {
            Ok(content) => self.send(header, header.result(content)),
            Err(error) => self.refuse(header, &error),
        }
    }

    fn shown(&self, shown: Result<ElementWriter, Error>) -> HandlerResult {
        shown.map(Some).map_err(|error| self.error(&error))
    }

    async fn info(&self, actor: &Actor, query: Element) -> HandlerResult {
        let node = query.attr("node").map(str::to_owned);
        drop(query);
        self.shown(disco::info(&self.service, &self.commands, actor, node.as_deref()).await)
    }

    async fn items(&self, actor: &Actor, query: Element) -> HandlerResult {
        self.shown(disco::items(&self.service, &self.commands, &self.jid, actor, query).await)
    }

    /// Records that the domain of a stanza is reachable, unless the stanza is an error that reports an unreachable
    /// domain.
    fn note_reachable(&self, header: &Envelope, stanza: &Element) {
        let presences = self.service.presence_tracker();
        if presences.has_outages()
            && !notification::is_unreachable(stanza)
            && let Some(sender) = header.sender()
        {
            presences.reach(&sender);
        }
    }

    /// Handles an owner's response to a subscription request (§8.6). Only a response that fails gets a reply.
    async fn message(
        self: &Arc<Self>,
        header: &Envelope,
        stanza: Element,
    ) -> Option<SubmitHandle<()>> {
        let form =
            authorization::find(&stanza).filter(|_| header.kind.as_deref() != Some("error"))?;
        let actor = self.service.policies().actor(&header.sender()?);
        let answer = authorization::answer(form);
        drop(stanza);
        match answer {
            Ok(None) => None,
            Ok(Some(request)) => {
                let (router, header) = (Arc::clone(self), header.clone());
                let on_outcome = move |outcome: Outcome<bool>| {
                    if let Err(error) = outcome {
                        router.reject(&header, &router.error(&error));
                    }
                };
                Some(self.service.submit(&actor, &request, on_outcome).await)
            }
            Err(refusal) => {
                self.reject(header, &self.error(&refusal.into()));
                None
            }
        }
    }

    /// Returns `true` for a request of type `set`, and `false` for a request of type `get`. Rejects a request that is
    /// malformed or not addressed to the service, and returns `None`.
    fn validate_iq(&self, header: &Envelope, stanza: &Element) -> Option<bool> {
        let is_set = match header.kind.as_deref() {
            Some("set") => true,
            Some("get") => false,
            _ => {
                let error = StanzaError::new("modify", "bad-request");
                self.refuse(
                    header,
                    &error.text("the type of an iq must be get, set, result or error"),
                );
                return None;
            }
        };
        if header.id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
            let error = StanzaError::new("modify", "policy-violation")
                .text(format!("id_bytes: an id has at most {MAX_ID_BYTES} bytes"));
            self.refuse_at_limit(header, "id_bytes", &error);
            return None;
        }
        if header.id.is_none() || stanza.children().count() != 1 {
            let error = StanzaError::new("modify", "bad-request");
            self.refuse(header, &error.text("a request must have an id and one child element"));
            return None;
        }
        if !self.is_to_service(header) {
            let error = StanzaError::new("cancel", "service-unavailable");
            self.refuse(
                header,
                &error.text(
                    "requests must be addressed to the JID of the service, without a resource",
                ),
            );
            return None;
        }
        Some(is_set)
    }

    /// Returns `true` if a stanza is addressed to the service's JID; the comparison ignores case.
    pub(super) fn is_to_service(&self, header: &Envelope) -> bool {
        let to = header.to.as_deref().and_then(|to| Jid::stamped(to).ok());
        to.is_some_and(|to| to.is_same(&self.jid))
    }

    /// Rejects a request that exceeds a limit of the service, and counts the rejection under the limit's name.
    pub(in crate::xmpp) fn refuse_at_limit(
        &self,
        header: &Envelope,
        limit: &'static str,
        error: &StanzaError,
    ) {
        self.service.metrics().count_rejection(limit);
        if header.name == "presence"
            && let Some(sender) = header.sender()
        {
            // A rejected presence stanza is no evidence that its sender is offline.
            self.service.presence_tracker().cannot_know(&sender);
        }
        self.refuse(header, error);
    }

    /// Rejects a stanza: sends an error reply if the stanza is a request, and nothing otherwise.
    pub(in crate::xmpp) fn refuse(&self, header: &Envelope, error: &StanzaError) {
        if header.is_request() && header.from.is_some() {
            self.reject(header, error);
        }
    }

    fn reject(&self, header: &Envelope, error: &StanzaError) {
        if self.replies.is_overfull() {
            debug!("failed to reply to a request: too many replies are queued");
        } else {
            self.send_error(header, header.error(error), error);
        }
    }

    /// Sends the first of three error replies that fits in a stanza: `whole`, the [reply with the complete
    /// error](Envelope::error), and the [reply without texts and repeated request](Envelope::short_error).
    fn send_error(&self, header: &Envelope, whole: String, error: &StanzaError) {
        let mut forms = iter::once(whole)
            .chain(iter::once_with(|| header.error(error)))
            .chain(iter::once_with(|| header.short_error(error)));
        match forms.find(|form| self.fits_relayed(header, form)) {
            Some(stanza) => self.send_to(header.from.as_deref().unwrap_or_default(), stanza),
            None => debug!("failed to reply to a request: its id is too long"),
        }
    }

    async fn handle_set(
        self: &Arc<Self>,
        header: &Envelope,
        actor: &Actor,
        action: SetRequest,
    ) -> SubmitHandle<()> {
        let (service, kind) = (&self.service, action.metric_label());
        let done = |()| None;
        match action {
            SetRequest::Configure(request) => {
                let render = |_| None;
                service.submit(actor, &request, self.reply_callback(header, kind, render)).await
            }
            SetRequest::Create(request) => {
                let render = |created| Some(reply::created(&created));
                service.submit(actor, &request, self.reply_callback(header, kind, render)).await
            }
            SetRequest::Delete(request) => {
                service.submit(actor, &request, self.reply_callback(header, kind, done)).await
            }
            SetRequest::Publish(request) => {
                let render = |published| Some(reply::published(&published));
                service.submit(actor, &request, self.reply_callback(header, kind, render)).await
            }
            SetRequest::Purge(request) => {
                service.submit(actor, &request, self.reply_callback(header, kind, done)).await
            }
            SetRequest::Retract(request) => {
                service.submit(actor, &request, self.reply_callback(header, kind, done)).await
            }
            SetRequest::SetAffiliations(request) => {
                let (router, header) = (Arc::clone(self), header.clone());
                let on_outcome = move |outcome| router.reply_affiliations(&header, kind, outcome);
                service.submit(actor, &request, on_outcome).await
            }
            SetRequest::SetSubscriptions(request) => {
                let (router, header) = (Arc::clone(self), header.clone());
                let on_outcome = move |outcome| router.reply_subscriptions(&header, kind, outcome);
                service.submit(actor, &request, on_outcome).await
            }
            SetRequest::SetOptions(request) => {
                service.submit(actor, &request, self.reply_callback(header, kind, done)).await
            }
            SetRequest::Subscribe(request) => {
                let render = |subscribed| Some(reply::subscribed(&subscribed));
                service.submit(actor, &request, self.reply_callback(header, kind, render)).await
            }
            SetRequest::Unsubscribe(request) => {
                let render = |unsubscribed| Some(reply::unsubscribed(&unsubscribed));
                service.submit(actor, &request, self.reply_callback(header, kind, render)).await
            }
        }
    }

    async fn handle_get(&self, header: &Envelope, actor: &Actor, question: GetRequest) {
        let kind = question.metric_label();
        let is_retrieval = matches!(question, GetRequest::Retrieve(_));
        match pubsub::answer(&self.service, actor, question).await {
            Ok(shown) => {
                self.service.metrics().count_request(kind, GRANTED);
                let reply = header.result(Some(shown));
                let fits = match is_retrieval {
                    true => self.fits_with_item(header, &reply),
                    false => self.fits_relayed(header, &reply),
                };
                self.send_or_refuse(header, reply, fits);
            }
            Err(error) => self.refuse_counted(header, kind, &error),
        }
    }

    /// Handles a notification that was returned as an error.
    pub(in crate::xmpp) fn on_bounce(&self, stanza: &Element) {
        self.service.metrics().bounces.inc();
        let header = Envelope::of(stanza);
        self.note_reachable(&header, stanza);
        let id = header.id.as_deref().unwrap_or_default();
        if let (Some(jid), Some(node)) = (header.sender(), notification::epoch_of_id(id)) {
            if !jid.is_bare() && notification::is_absent(stanza) {
                self.service.interests().remove(&jid);
                self.service.presence_tracker().deny(&jid);
            }
            let is_gone = notification::is_gone(stanza);
            let how = if is_gone { Bounce::Gone } else { Bounce::Undelivered };
            self.service.on_bounce(&jid, node, how);
        }
    }

    /// Returns `true` if the reply queue has room for the reply to one more request of the entity `to`.
    pub(super) fn has_room(&self, to: &str, may_be_large: bool) -> bool {
        self.replies.has_room(to, may_be_large)
    }

    /// Waits until the reply queue has room for the reply to one more request of the entity `to`.
    pub(super) async fn wait_capacity(&self, to: &str, may_be_large: bool) {
        self.replies.wait_capacity(to, may_be_large).await;
    }

    /// Waits until the service may send another query of its own: until the rate limit ([`Pace`]) allows it, and until
    /// the queue of unsent queries is short enough.
    pub(super) async fn next_question(&self) {
        self.pace.wait_slot().await;
        self.replies.room_of_own().await;
    }

    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Returns `true` if the server accepts a stanza of this size.
    pub(super) fn fits(&self, stanza: &str) -> bool {
        fits(stanza, self.max_stanza_bytes)
    }

    /// Returns `true` if the server accepts a reply of this size. If the server relays the reply to another server,
    /// that server has to accept the reply too.
    fn fits_relayed(&self, request: &Envelope, reply: &str) -> bool {
        fits_relayed(reply, StanzaLimits::MIN_BYTES)
            || fits_relayed(reply, self.max_reply_stanza(request).1)
    }

    /// Returns `true` if a stanza with a single item is small enough to reach the requester. If the server relays the
    /// stanza to another server, quotation marks count in their longer escaped form. Otherwise they count as sent, so
    /// that each payload within the limits fits.
    pub(super) fn fits_with_item(&self, request: &Envelope, stanza: &str) -> bool {
        let is_accepted = |max_bytes| fits_relayed(stanza, max_bytes);
        self.fits(stanza) && self.relay_limit(request).is_none_or(is_accepted)
    }

    /// Returns the maximum bytes of the reply to a request, with the configuration key of this limit.
    fn max_reply_stanza(&self, request: &Envelope) -> (&'static str, usize) {
        match self.relay_limit(request) {
            Some(max_bytes) if max_bytes <= self.max_stanza_bytes => {
                ("max_remote_stanza_bytes", max_bytes)
            }
            _ => ("max_stanza_bytes", self.max_stanza_bytes),
        }
    }

    /// Returns the maximum bytes of a stanza to the requester; `None` if the requester is a user of the server.
    fn relay_limit(&self, request: &Envelope) -> Option<usize> {
        let requester = account(request.from.as_deref().unwrap_or_default());
        let policies = self.service.policies();
        policies.relay_limit(&domain_of(&requester)).map(|limit| limit.max_stanza_bytes)
    }

    pub(super) fn max_stanza_bytes(&self) -> usize {
        self.max_stanza_bytes
    }

    pub(super) fn jid(&self) -> &Jid {
        &self.jid
    }

    pub(super) fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Enqueues a stanza to an entity. Stanzas to one entity are sent in the order of these calls.
    pub(super) fn send_to(&self, to: &str, stanza: String) {
        self.replies.send(to, stanza);
    }

    /// Enqueues a query of the service itself, which is sent before all queued replies.
    pub(super) fn send_unsolicited(&self, stanza: &str) {
        self.replies.ask(stanza);
    }

    /// Waits until the queue has room for [`send_unsolicited`](Self::send_unsolicited).
    pub(super) async fn room_of_own(&self) {
        self.replies.room_of_own().await;
    }

    /// Records that the connection to the server was made or lost. On a new connection no presence is known.
    pub(in crate::xmpp) fn on_link_change(&self, is_connected: bool) {
        if is_connected {
            self.service.presence_tracker().connected();
            let asked = self.service.interests().mark_stale();
            self.service.presence_tracker().await_answers(&asked);
            self.service.rosters().await_grant();
        } else {
            self.service.presence_tracker().disconnected();
        }
        self.service.metrics().connected.set(i64::from(is_connected));
    }

    /// Returns the callback that replies to a request of type `set`.
    fn reply_callback<R>(
        self: &Arc<Self>,
        header: &Envelope,
        kind: &'static str,
        render: impl FnOnce(R) -> Option<ElementWriter> + Send + 'static,
    ) -> impl FnOnce(Outcome<R>) + Send + 'static {
        let (router, header) = (Arc::clone(self), header.clone());
        move |outcome| router.answer(&header, kind, outcome, render)
    }

    fn answer<R>(
        &self,
        header: &Envelope,
        kind: &'static str,
        outcome: Outcome<R>,
        render: impl FnOnce(R) -> Option<ElementWriter>,
    ) {
        match outcome {
            Ok(reply) => {
                self.service.metrics().count_request(kind, GRANTED);
                self.reply_or_truncate(header, header.result(render(reply)), || {
                    header.result(None)
                });
            }
            Err(error) => self.refuse_counted(header, kind, &error),
        }
    }

    fn refuse_counted(&self, header: &Envelope, kind: &'static str, error: &Error) {
        let error = self.error(error);
        self.service.metrics().count_request(kind, error.condition);
        self.refuse(header, &error);
    }

    /// Sends `answer`, or the reply that `shortened` returns if `answer` is larger than a stanza may be.
    fn reply_or_truncate(
        &self,
        header: &Envelope,
        answer: String,
        shortened: impl FnOnce() -> String,
    ) {
        let answer = if self.fits_relayed(header, &answer) { answer } else { shortened() };
        self.send_to(header.from.as_deref().unwrap_or_default(), answer);
    }

    fn reply_affiliations(
        &self,
        header: &Envelope,
        kind: &'static str,
        outcome: Outcome<SetAffiliationsReply>,
    ) {
        match outcome {
            Ok(set) if !set.failed.is_empty() => {
                self.service.metrics().count_request(kind, "not-acceptable");
                let error = some_failed(&set.reason);
                let all = header.error_with(reply::affiliations_failed(&set), &error);
                self.send_error(header, all, &error);
            }
            _ => self.answer(header, kind, outcome, |_| None),
        }
    }

    fn reply_subscriptions(
        &self,
        header: &Envelope,
        kind: &'static str,
        outcome: Outcome<SetSubscriptionsReply>,
    ) {
        match outcome {
            Ok(set) if !set.failed.is_empty() => {
                self.service.metrics().count_request(kind, "not-acceptable");
                let error = some_failed(&set.reason);
                let all = header.error_with(reply::subscriptions_failed(&set), &error);
                self.send_error(header, all, &error);
            }
            _ => self.answer(header, kind, outcome, |_| None),
        }
    }

    pub(super) fn error(&self, error: &Error) -> StanzaError {
        service_error(&self.service, error)
    }

    /// Sends a reply, or an error if the reply is larger than a stanza may be.
    pub(super) fn send(&self, header: &Envelope, stanza: String) {
        let fits = self.fits_relayed(header, &stanza);
        self.send_or_refuse(header, stanza, fits);
    }

    fn send_or_refuse(&self, header: &Envelope, stanza: String, fits: bool) {
        if fits {
            self.send_to(header.from.as_deref().unwrap_or_default(), stanza);
        } else {
            let (key, max_bytes) = self.max_reply_stanza(header);
            let error = StanzaError::new("modify", "policy-violation").text(format!(
                "{key}: the reply has more than {max_bytes} bytes: request it in pages (XEP-0059)"
            ));
            self.refuse_at_limit(header, "answer_bytes", &error);
        }
    }
}

/// Returns the error for a request that set some of the listed affiliations or subscriptions, but not all of them
/// (§8.8.2.4, §8.9.2.4).
fn some_failed(reason: &str) -> StanzaError {
    StanzaError::new("modify", "not-acceptable").text(reason)
}
