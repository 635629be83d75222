//! Pings (XEP-0199): those of clients, and those of the service itself.

use crate::xmpp::{router::Router, stanza::ns, xml::writer::ElementWriter};

/// Returns the content of the reply to a ping: none.
pub(in crate::xmpp) fn content() -> Option<ElementWriter> {
    None
}

impl Router {
    /// Sends a ping of the service itself.
    pub(in crate::xmpp) fn send_ping(&self, id: &str, to: &str) {
        let ping = ElementWriter::new("iq")
            .attr("type", "get")
            .attr("id", id)
            .attr("from", self.jid().as_str())
            .attr("to", to)
            .child(ElementWriter::ns("ping", ns::PING));
        self.send_unsolicited(&ping.to_string());
    }
}
