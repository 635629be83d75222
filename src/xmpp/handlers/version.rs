//! Software version (XEP-0092).

use crate::xmpp::{stanza::ns, xml::writer::ElementWriter};

/// Returns name and version of the service.
pub(in crate::xmpp) fn version() -> ElementWriter {
    ElementWriter::ns("query", ns::VERSION)
        .child(ElementWriter::new("name").text(env!("CARGO_PKG_NAME")))
        .child(ElementWriter::new("version").text(env!("CARGO_PKG_VERSION")))
}
