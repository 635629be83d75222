//! Capabilities (XEP-0115): what resources that send presence are interested in (XEP-0060 §9.2).

use jid::Jid;
use minidom::Element;

use crate::{
    service::MAX_INTERESTS,
    xmpp::{
        stanza::{notification, ns},
        xml::writer::ElementWriter,
    },
};
use gjallar_pubsub::NodeId;

use crate::xmpp::router::Router;

/// Begins the id of a question about capabilities.
const CAPABILITIES: &str = "capabilities-";
/// What the names of nodes end with in capabilities.
const NOTIFY: &str = "+notify";
/// The longest name that capabilities may have, in bytes.
const MAX_NAME_BYTES: usize = 1024;

impl Router {
    /// Asks a resource what it can, if its presence says that this is not known. SPEC: each is asked, for what another
    /// one says of the same name would have to be believed, or to be hashed.
    pub(in crate::xmpp) async fn query_caps(&self, jid: &Jid, presence: &Element) {
        let Some(caps) = presence.get_child("c", ns::CAPS).filter(|_| !jid.is_bare()) else {
            return;
        };
        let attr = |name| caps.attr(name).unwrap_or_default();
        let name = format!("{}#{}", attr("node"), attr("ver"));
        let question = format!("{CAPABILITIES}{:016x}", self.service().next_u64());
        if name.len() > MAX_NAME_BYTES || !self.service().interests().on_caps(jid, &name, &question)
        {
            return;
        }
        self.ask(jid, &name, &question).await;
    }

    /// Asks those again whose capabilities were known before the connection broke, as long as it is awaited.
    pub async fn requery_caps(&self) {
        loop {
            self.next_question().await;
            let (jid, name) = self.service().interests().next_stale().await;
            let question = format!("{CAPABILITIES}{:016x}", self.service().next_u64());
            self.service().interests().ask(&jid, &question);
            self.ask(&jid, &name, &question).await;
        }
    }

    async fn ask(&self, jid: &Jid, name: &str, question: &str) {
        self.room_of_own().await;
        let request = ElementWriter::new("iq")
            .attr("type", "get")
            .attr("id", question)
            .attr("from", self.jid().as_str())
            .attr("to", jid.as_str())
            .child(ElementWriter::ns("query", ns::DISCO_INFO).attr("node", name));
        self.send_unsolicited(&request.to_string());
    }

    /// Takes notice of capabilities that were asked for; says whose they are, and the nodes that they name.
    pub(in crate::xmpp) fn handle_caps_result(
        &self,
        stanza: &Element,
    ) -> Option<(Jid, Vec<NodeId>)> {
        let is_answer =
            stanza.name() == "iq" && matches!(stanza.attr("type"), Some("result" | "error"));
        let question = stanza.attr("id").filter(|id| is_answer && id.starts_with(CAPABILITIES))?;
        let jid = Jid::stamped(stanza.attr("from")?).ok()?;
        let (interests, presences) =
            (self.service().interests(), self.service().presence_tracker());
        if !interests.is_pending(&jid, question) {
            return None;
        }
        if stanza.attr("type") == Some("error") {
            if notification::is_unreachable(stanza) {
                interests.failed(&jid);
                presences.query_failed(&jid);
            } else {
                interests.remove(&jid);
                presences.deny(&jid);
            }
            return None;
        }
        let features = stanza.get_child("query", ns::DISCO_INFO).into_iter().flat_map(|query| {
            let features = query.children().filter(|child| child.is("feature", ns::DISCO_INFO));
            features.filter_map(|feature| feature.attr("var"))
        });
        let mut nodes: Vec<_> = features
            .filter_map(|name| NodeId::parse(name.strip_suffix(NOTIFY)?).ok())
            .take(MAX_INTERESTS)
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        Some((jid, nodes))
    }
}
