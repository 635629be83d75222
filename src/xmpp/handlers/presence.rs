//! Presence of watched entities, and presence of the service itself (XEP-0060 §12.6; RFC 6121 §3, §4).

use jid::{BareJid, Jid};
use minidom::Element;

use crate::{
    service::PresenceUpdate,
    xmpp::{
        outbound::multicast::with_resource,
        stanza::{envelope::Envelope, notification, ns},
        xml::writer::ElementWriter,
    },
};
use gjallar_pubsub::{Show, Timestamp};

use crate::xmpp::router::Router;

/// Prefix of the ids of pings to entities that did not answer a probe.
const SILENT: &str = "silent-";
/// Prefix of the ids of pings to unreachable domains.
const REACHED: &str = "reached-";
/// Error conditions with which a server itself answers a ping on behalf of the pinged account.
const OF_SERVER: [&str; 3] = ["service-unavailable", "feature-not-implemented", "item-not-found"];

impl Router {
    /// Handles a presence stanza. The service approves each request for its presence, and is always available.
    pub(in crate::xmpp) async fn presence(&self, header: &Envelope, stanza: &Element) {
        let Some(sender) = header.sender() else { return };
        if !self.is_to_service(header) {
            return;
        }
        let from = header.from.as_deref().unwrap_or_default();
        let answer = |kind| self.send_to(from, self.own_presence(kind, from));
        match header.kind.as_deref() {
            None => {
                if let Some(show) = show(stanza) {
                    let shown =
                        PresenceUpdate { show, away_seconds: away(stanza), stamp: stamp(stanza) };
                    self.service().available(&sender, &shown).await;
                    self.query_caps(&sender, stanza).await;
                } else {
                    self.service().presence_tracker().cannot_know(&sender);
                }
            }
            // COMPAT: Prosody sends `unavailable` for an entity when it accepts a request for the entity's presence.
            Some("unavailable")
                if sender.is_bare() && !self.service().presence_tracker().is_given(&sender) => {}
            Some("unavailable") => {
                self.service().interests().remove(&sender);
                self.service().unavailable(&sender).await;
            }
            // Other errors mean that the presence is unknown.
            Some("error") if notification::is_gone(stanza) => {
                self.service().interests().remove(&sender);
                self.service().unavailable(&sender).await;
            }
            Some("error") => self.service().presence_tracker().cannot_know(&sender),
            Some("subscribed") => {
                self.service().presence_tracker().on_subscribed(&sender);
                answer(Some("probe"));
            }
            Some("subscribe") => {
                answer(Some("subscribed"));
                answer(None);
            }
            Some("probe") => answer(None),
            Some("unsubscribe") => answer(Some("unsubscribed")),
            Some("unsubscribed") => self.service().on_presence_refused(&sender).await,
            Some(_) => {}
        }
    }

    /// Requests the presence of the entities whose presence the service needs. Runs until dropped.
    pub(in crate::xmpp) async fn request_presence(&self) {
        loop {
            self.next_question().await;
            let request = self.service().next_presence_request().await;
            // A probe after a request has to wait for the answer: Prosody takes an earlier probe as a reason to cancel
            // the request.
            let kind = if request.is_probe { "probe" } else { "subscribe" };
            self.send_unsolicited(&self.own_presence(Some(kind), request.entity.as_str()));
        }
    }

    /// Pings entities that did not answer a probe, to learn whether their server has processed the probe. Runs until
    /// dropped.
    ///
    /// COMPAT: ejabberd does not answer probes for offline users. ejabberd 24.10 and later with mod_privilege drop
    /// pings to a bare JID. Therefore the service pings a nonexistent resource. The server answers this ping.
    pub(in crate::xmpp) async fn ask_for_silent(&self) {
        loop {
            let entity = self.service().presence_tracker().silent().await;
            self.next_question().await;
            let number = self.service().next_u64();
            let id = format!("{SILENT}{number:016x}");
            self.service().presence_tracker().ping(&entity, number);
            self.send_ping(&id, &format!("{entity}/{number:016x}"));
        }
    }

    /// Pings unreachable domains, at growing intervals. Not every entity answers a repeated request for its presence,
    /// but servers answer pings. Any stanza of the domain, even an error, proves that the domain is reachable. Runs
    /// until dropped.
    pub(in crate::xmpp) async fn ping_unreachable(&self) {
        loop {
            self.next_question().await;
            let domain = self.service().presence_tracker().next_attempt().await;
            let id = format!("{REACHED}{:016x}", self.service().next_u64());
            self.send_ping(&id, &with_resource(&domain));
        }
    }

    /// Handles the reply to a ping of [`ask_for_silent`](Self::ask_for_silent). If the reply proves that the entity's
    /// server has processed the ping, returns the entity and the number of the ping.
    pub(in crate::xmpp) fn take_silence(&self, stanza: &Element) -> Option<(BareJid, u64)> {
        let number = stanza.attr("id")?.strip_prefix(SILENT)?;
        let from = Jid::stamped(stanza.attr("from")?).ok()?;
        from.resource().filter(|resource| resource.as_str() == number)?;
        let error = stanza.children().find(|child| child.name() == "error");
        let is_of_server = match error {
            Some(error) => {
                OF_SERVER.iter().any(|condition| error.has_child(condition, ns::STANZAS))
            }
            None => stanza.attr("type") == Some("result"),
        };
        let number = u64::from_str_radix(number, 16).ok()?;
        is_of_server.then(|| (from.to_bare(), number))
    }

    /// Returns a presence stanza of the service to an entity.
    fn own_presence(&self, kind: Option<&str>, to: &str) -> String {
        let presence = ElementWriter::new("presence").attr_if("type", kind);
        presence.attr("from", self.jid().as_str()).attr("to", to).to_string()
    }
}

/// Returns the number of seconds for which a resource was offline before it sent this presence, if the presence states
/// it (XEP-0312).
fn away(presence: &Element) -> Option<u64> {
    presence.get_child("ago", ns::AGO)?.attr("secs")?.parse().ok()
}

/// Returns the time at which presence was sent, if the server states it (XEP-0203).
fn stamp(presence: &Element) -> Option<Timestamp> {
    notification::timestamp(presence.get_child("delay", ns::DELAY)?.attr("stamp")?)
}

/// Returns the availability of a resource; `None` for a value that is not in RFC 6121 §4.7.2.1.
fn show(presence: &Element) -> Option<Show> {
    let show = presence.children().find(|child| child.name() == "show");
    Some(match show.map(Element::text).as_deref() {
        None => Show::Online,
        Some("away") => Show::Away,
        Some("chat") => Show::Chat,
        Some("dnd") => Show::Dnd,
        Some("xa") => Show::Xa,
        Some(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;
    use crate::{
        service::{Availability, Service},
        store::MemoryStore,
        xmpp::outbound::{
            multicast::{MulticastConfig, MulticastDiscovery},
            reply_queue::ReplyQueue,
        },
    };
    use gjallar_pubsub::{IdGenerator, Limits, ShowSet};

    #[derive(Default)]
    struct Numbers(AtomicU64);

    impl IdGenerator for Numbers {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(1, Ordering::Relaxed)
        }
    }

    /// Service without a connection.
    struct TestRouter {
        dispatch: Arc<Router>,
        answers: Arc<ReplyQueue>,
    }

    impl TestRouter {
        async fn new() -> Self {
            let (store, fresh) = (Arc::new(MemoryStore::new()), Arc::new(Numbers::default()));
            let clock = Arc::new(|| Timestamp(0));
            let service = Service::open(store, Limits::default(), fresh, clock).await.unwrap();
            let multicast = MulticastDiscovery::new(MulticastConfig::None, "pubsub.x".into());
            let answers = ReplyQueue::new(Arc::clone(service.log_window()), multicast, None);
            let answers = Arc::new(answers);
            let jid = Jid::new("pubsub.x").unwrap();
            let (service, sent) = (Arc::new(service), Arc::clone(&answers));
            let dispatch = Arc::new(Router::new(service, sent, jid, None, 100_000));
            dispatch.on_link_change(true);
            Self { dispatch, answers }
        }

        /// Returns a service with a node that has this setting, and a subscriber.
        async fn with_subscriber(setting: &str) -> Self {
            let stage = Self::new().await;
            let field = |var: &str, value: &str| {
                format!("<field var='{var}'><value>{value}</value></field>")
            };
            let fields = field("FORM_TYPE", ns::NODE_CONFIG) + &field(setting, "1");
            let form = format!("<x xmlns='{}' type='submit'>{fields}</x>", ns::DATA_FORMS);
            let create = format!("<create node='n'/><configure>{form}</configure>");
            stage.send(&request("o@x/r", &create)).await;
            stage.send(&request("a@x/r", "<subscribe node='n' jid='a@x'/>")).await;
            stage
        }

        fn stanza(&self, stanza: &str) -> Element {
            let (name, rest) = stanza.split_once(' ').unwrap();
            format!("{name} xmlns='{}' to='pubsub.x' {rest}", ns::COMPONENT).parse().unwrap()
        }

        /// Passes a stanza to the service, and returns the stanzas that it sends in reply.
        async fn send(&self, stanza: &str) -> String {
            let stanza = self.stanza(stanza);
            let header = self.dispatch.header(&stanza);
            if let Some(settling) = self.dispatch.handle(&header, stanza).await {
                settling.await;
            }
            self.sent()
        }

        /// Returns the stanzas that the service sends within six seconds to learn presence.
        async fn requests(&self) -> String {
            let requests = async {
                let router = &self.dispatch;
                tokio::join!(
                    router.request_presence(),
                    router.ping_unreachable(),
                    router.requery_caps(),
                    router.check_unconfirmed(),
                );
            };
            let ended = timeout(Duration::from_secs(6), requests).await;
            assert!(ended.is_err(), "it goes on");
            self.sent()
        }

        fn sent(&self) -> String {
            let mut sent = String::new();
            self.answers.drain_ready(u64::MAX, &mut sent);
            sent
        }
    }

    fn request(from: &str, content: &str) -> String {
        let pubsub = format!("<pubsub xmlns='{}'>{content}</pubsub>", ns::PUBSUB);
        format!("<iq type='set' id='1' from='{from}'>{pubsub}</iq>")
    }

    /// Returns a stanza that bounces from an unreachable server.
    fn unreachable(start: &str) -> String {
        let condition = format!("<remote-server-not-found xmlns='{}'/>", ns::STANZAS);
        let name = start.split(' ').next().unwrap();
        format!("<{start}><error type='cancel'>{condition}</error></{name}>")
    }

    /// §12.3: a subscriber who does not approve the request for presence does not delay the requests to other users of
    /// the same domain.
    #[tokio::test(start_paused = true)]
    async fn any_stanza_of_a_domain_releases_the_requests_for_its_other_users() {
        let bounce = unreachable("message type='error' from='b@x' id='1-1-'");
        let ping = |kind| format!("iq type='{kind}' from='x/barrier' id='reached-1'");
        for (stanza, is_reached) in [
            ("<presence type='unavailable' from='a@x'/>".to_owned(), true),
            ("<presence type='unsubscribed' from='a@x'/>".to_owned(), true),
            ("<presence type='subscribe' from='c@x'/>".to_owned(), true),
            ("<message from='c@x/r'><body>b</body></message>".to_owned(), true),
            ("<iq type='get' id='1' from='c@x/r'><ping xmlns='urn:xmpp:ping'/></iq>".into(), true),
            (format!("<{}/>", ping("result")), true),
            (unreachable(&ping("error")).replace("remote-server-not-found", "forbidden"), true),
            (unreachable(&ping("error")), false),
            (unreachable("presence type='error' from='a@x'"), false),
            (bounce.replace("remote-server-not-found", "service-unavailable"), true),
            (bounce, false),
        ] {
            let stage = TestRouter::with_subscriber("pubsub#presence_based_delivery").await;
            stage.send(&request("b@x/r", "<subscribe node='n' jid='b@x'/>")).await;
            let requests = async || {
                let sent = stage.requests().await;
                ["'a@x'", "'b@x'", "'x/barrier'"].map(|to| sent.contains(&format!("to={to}")))
            };
            assert_eq!(requests().await, [true, true, false]);
            for entity in ["a@x", "b@x"] {
                stage.send(&unreachable(&format!("presence type='error' from='{entity}'"))).await;
            }
            assert_eq!(requests().await, [true, false, true]);
            if stanza.starts_with("<message type='error'") {
                stage.dispatch.on_bounce(&stage.stanza(&stanza));
            } else {
                stage.send(&stanza).await;
            }
            assert_eq!(requests().await, [false, is_reached, false], "{stanza}");
        }
    }

    /// §12.3: an error while another server is unreachable does not end the presence-based delivery of events to the
    /// users of that server.
    #[tokio::test(start_paused = true)]
    async fn presence_is_requested_again_after_the_server_was_unreachable() {
        let stage = TestRouter::with_subscriber("pubsub#presence_based_delivery").await;
        let is_sent = async |kind: &str| stage.requests().await.contains(&format!("type='{kind}'"));
        assert!(is_sent("subscribe").await);
        assert!(!is_sent("subscribe").await);
        let unreachable = unreachable("presence type='error' from='a@x'");
        stage.send(&unreachable).await;
        assert!(is_sent("subscribe").await);
        assert!(!is_sent("subscribe").await);
        stage.send("<presence type='subscribed' from='a@x'/>").await;
        stage.send(&unreachable).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(is_sent("probe").await);
    }

    /// §12.2: the capabilities of a resource of another server are queried again after the server was unreachable. The
    /// resource is assumed to be available until an error reports it as absent.
    #[tokio::test(start_paused = true)]
    async fn capabilities_are_queried_again_after_the_server_was_unreachable() {
        let stage = TestRouter::with_subscriber("pubsub#presence_based_delivery").await;
        stage.send(&request("b@x/r", "<subscribe node='n' jid='b@x/r'/>")).await;
        let caps = format!("<c xmlns='{}' node='n' ver='v' hash='sha-1'/>", ns::CAPS);
        stage.send(&format!("<presence from='a@x/r'>{caps}</presence>")).await;
        stage.send("<presence from='b@x/r'/>").await;
        stage.send("<presence type='unsubscribed' from='b@x'/>").await;
        stage.dispatch.on_link_change(false);
        stage.dispatch.on_link_change(true);
        let queries = async || {
            let sent = stage.requests().await;
            let attr = |iq: &str, name: &str| {
                let value = iq.split_once(&format!(" {name}='")).unwrap().1;
                value.split_once('\'').unwrap().0.to_owned()
            };
            let iqs = sent.split("<iq").skip(1);
            let mut queries: Vec<_> = iqs.map(|iq| (attr(iq, "id"), attr(iq, "to"))).collect();
            queries.sort_unstable();
            queries
        };
        let kinds = |queries: &[(String, String)]| -> String {
            let kinds = queries.iter().map(|(id, _)| id.split_once('-').unwrap().0);
            kinds.collect::<Vec<_>>().join(" ")
        };
        let first = queries().await;
        assert_eq!(kinds(&first), "beside capabilities resource");
        for (id, to) in first {
            stage.send(&unreachable(&format!("iq type='error' from='{to}' id='{id}'"))).await;
        }
        assert_eq!(kinds(&queries().await), "capabilities reached");
        stage.send("<iq type='result' from='x/barrier' id='reached-1'/>").await;
        assert_eq!(kinds(&queries().await), "beside resource");
        let availability = || {
            let resource = Jid::new("b@x/r").unwrap();
            let presences = stage.dispatch.service().presence_tracker();
            presences.availability(&resource, ShowSet::ALL, true)
        };
        assert_eq!(availability(), Availability::Assumed);
        let bounce = unreachable("message type='error' from='b@x/r' id='0123456789abcdef-1'");
        stage.dispatch.on_bounce(&stage.stanza(&bounce));
        assert_eq!(availability(), Availability::Assumed);
        let bounce = bounce.replace("remote-server-not-found", "service-unavailable");
        stage.dispatch.on_bounce(&stage.stanza(&bounce));
        assert_eq!(availability(), Availability::Unavailable);
    }

    /// §12.5: ejabberd does not answer a probe for an entity that went offline while there was no connection.
    #[tokio::test(start_paused = true)]
    async fn a_subscription_ends_with_presence_if_the_server_answers_no_probe() {
        let stage = TestRouter::with_subscriber("pubsub#tempsub").await;
        stage.send("<presence type='subscribed' from='a@x'/>").await;
        let is_subscribed = async || {
            let list = request("a@x/r", "<subscriptions node='n'/>").replace("'set'", "'get'");
            stage.send(&list).await.contains("subscription=")
        };
        for (answer, stays) in [
            ("type='error'><error type='cancel'><remote-server-not-found", true),
            ("type='error'><error type='cancel'><service-unavailable", false),
        ] {
            let asking = timeout(Duration::from_secs(40), stage.dispatch.ask_for_silent()).await;
            assert!(asking.is_err(), "it goes on");
            let sent = stage.sent();
            let ping = sent.split_once("id='silent-").expect(&sent).1;
            let id = ping.split_once('\'').unwrap().0;
            assert!(is_subscribed().await);
            let end = format!(" xmlns='{}'/></error></iq>", ns::STANZAS);
            let asked = format!("a@x/{id}");
            assert!(sent.contains(&format!("to='{asked}'")), "{sent}");
            for from in ["a@x/r", "a@x", &format!("b@x/{id}"), &asked] {
                stage.send(&format!("<iq from='{from}' id='silent-{id}' {answer}{end}")).await;
                assert_eq!(is_subscribed().await, stays || from != asked, "{answer} {from}");
            }
            stage.send("<presence type='subscribed' from='a@x'/>").await;
        }
    }
}
