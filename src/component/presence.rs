//! Presence: of those whom the service watches, and its own (XEP-0060 §12.3; RFC 6121 §3, §4).

use minidom::Element;

use crate::{
    pubsub::{Show, Timestamp},
    service::Shown,
    wire::{notification, ns, stanza::Header, xml::Tag},
};

use super::dispatch::Dispatch;

impl Dispatch {
    /// Deals with presence. Anyone may have that of the service, which is always there.
    pub(super) async fn presence(&self, header: &Header, stanza: &Element) {
        let Some(sender) = header.sender() else { return };
        if header.to.as_deref() != Some(self.jid().as_str()) {
            return;
        }
        let answer = |kind| self.send_presence(kind, header.from.as_deref().unwrap_or_default());
        match header.kind.as_deref() {
            None => {
                if let Some(show) = show(stanza) {
                    let shown = Shown { show, away_seconds: away(stanza), stamp: stamp(stanza) };
                    self.service().available(&sender, &shown).await;
                    self.ask_for_capabilities(&sender, stanza).await;
                }
            }
            // COMPAT: Prosody says that somebody is not available when it takes a request for its presence.
            Some("unavailable")
                if sender.is_bare() && !self.service().presences().is_given(&sender) => {}
            Some("unavailable") => {
                self.service().interests().remove(&sender);
                self.service().unavailable(&sender).await;
            }
            // Other errors say that it is not known.
            Some("error") if notification::is_gone(stanza) => {
                self.service().interests().remove(&sender);
                self.service().unavailable(&sender).await;
            }
            Some("error") => self.service().presences().cannot_know(&sender),
            Some("subscribed") => {
                self.service().presences().give(&sender);
                answer(Some("probe"));
            }
            Some("subscribe") => {
                answer(Some("subscribed"));
                answer(None);
            }
            Some("probe") => answer(None),
            Some("unsubscribe") => answer(Some("unsubscribed")),
            Some("unsubscribed") => self.service().presences().refuse(&sender),
            Some(_) => {}
        }
    }

    /// Asks for the presence of those for whom it matters, as long as it is awaited.
    pub async fn ask_for_presence(&self) {
        loop {
            self.next_question().await;
            let request = self.service().next_presence_request().await;
            // After a request a probe has to wait for the answer: Prosody takes it for a reason to cancel the request.
            let kind = if request.is_probe { "probe" } else { "subscribe" };
            self.send_presence(Some(kind), request.entity.as_str());
        }
    }

    fn send_presence(&self, kind: Option<&str>, to: &str) {
        let presence = Tag::new("presence").attr_if("type", kind);
        let presence = presence.attr("from", self.jid().as_str()).attr("to", to);
        self.send_to(to, presence.to_string());
    }
}

/// For how many seconds a resource was away, if it says so (XEP-0312).
fn away(presence: &Element) -> Option<u64> {
    presence.get_child("ago", ns::AGO)?.attr("secs")?.parse().ok()
}

/// When presence was sent, if its server says so (XEP-0203).
fn stamp(presence: &Element) -> Option<Timestamp> {
    notification::timestamp(presence.get_child("delay", ns::DELAY)?.attr("stamp")?)
}

/// How a resource shows itself; nothing if that is no value of RFC 6121 §4.7.2.1.
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
