//! Capabilities (XEP-0115): implicit subscriptions of resources that send presence to the service (XEP-0060 §9.2).

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

/// Prefix of the ids of capabilities queries.
const QUERY_ID_PREFIX: &str = "capabilities-";
/// Suffix of a feature in capabilities. The feature is the name of a node, followed by this suffix.
const NOTIFY: &str = "+notify";
/// Maximum length of the name of capabilities (`node#ver`), in bytes.
const MAX_NAME_BYTES: usize = 1024;

impl Router {
    /// Queries the capabilities of a resource, if its presence announces capabilities that are new for this resource.
    /// SPEC: each resource is queried. A result cached from another resource with the same `node#ver` would have to be
    /// trusted, or verified by its hash.
    pub(in crate::xmpp) async fn query_caps(&self, jid: &Jid, presence: &Element) {
        let Some(caps) = presence.get_child("c", ns::CAPS).filter(|_| !jid.is_bare()) else {
            return;
        };
        let attr = |name| caps.attr(name).unwrap_or_default();
        let name = format!("{}#{}", attr("node"), attr("ver"));
        let query_id = format!("{QUERY_ID_PREFIX}{:016x}", self.service().next_u64());
        if name.len() > MAX_NAME_BYTES || !self.service().interests().on_caps(jid, &name, &query_id)
        {
            return;
        }
        self.send_query(jid, &name, &query_id).await;
    }

    /// Repeats the queries to the resources whose capabilities were known before the connection broke. Runs until
    /// dropped.
    pub(in crate::xmpp) async fn requery_caps(&self) {
        loop {
            self.next_question().await;
            let (jid, name) = self.service().interests().next_stale().await;
            let query_id = format!("{QUERY_ID_PREFIX}{:016x}", self.service().next_u64());
            self.service().interests().ask(&jid, &query_id);
            self.send_query(&jid, &name, &query_id).await;
        }
    }

    async fn send_query(&self, jid: &Jid, name: &str, query_id: &str) {
        self.room_of_own().await;
        let request = ElementWriter::new("iq")
            .attr("type", "get")
            .attr("id", query_id)
            .attr("from", self.jid().as_str())
            .attr("to", jid.as_str())
            .child(ElementWriter::ns("query", ns::DISCO_INFO).attr("node", name));
        self.send_unsolicited(&request.to_string());
    }

    /// Handles the result of a capabilities query. Returns the resource and the nodes for which its capabilities
    /// request notifications.
    pub(in crate::xmpp) fn handle_caps_result(
        &self,
        stanza: &Element,
    ) -> Option<(Jid, Vec<NodeId>)> {
        let is_result =
            stanza.name() == "iq" && matches!(stanza.attr("type"), Some("result" | "error"));
        let query_id =
            stanza.attr("id").filter(|id| is_result && id.starts_with(QUERY_ID_PREFIX))?;
        let jid = Jid::stamped(stanza.attr("from")?).ok()?;
        let (interests, presences) =
            (self.service().interests(), self.service().presence_tracker());
        if !interests.is_pending(&jid, query_id) {
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
