//! Login (XEP-0114 §3) and stream errors of the server.

use minidom::Element;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::xmpp::{stanza::ns, xml::writer::ElementWriter};

use super::{
    session::{ComponentConfig, DisconnectReason, ServerStreamReader},
    xml::stream::StreamElement,
};

/// Opens the stream and proves knowledge of the secret (XEP-0114 §3).
pub(super) async fn handshake(
    link: &ComponentConfig,
    reader: &mut ServerStreamReader,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), DisconnectReason> {
    let stream = ElementWriter::ns("stream:stream", ns::COMPONENT)
        .attr("xmlns:stream", ns::STREAMS)
        .attr("to", link.jid.as_str())
        .to_string();
    let open = format!("<?xml version='1.0'?>{}>", stream.trim_end_matches("/>"));
    writer.write_all(open.as_bytes()).await?;
    let id = match reader.next().await? {
        StreamElement::Opened(id) => id.unwrap_or_default(),
        StreamElement::Stanza(_) | StreamElement::Refused(..) | StreamElement::Closed => {
            return Err(DisconnectReason::Closed);
        }
    };
    let digest = Sha1::digest(format!("{id}{}", link.secret).as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    writer.write_all(ElementWriter::new("handshake").text(&digest).to_string().as_bytes()).await?;
    match reader.next().await? {
        StreamElement::Stanza(element) if element.is("handshake", ns::COMPONENT) => Ok(()),
        StreamElement::Stanza(element) if element.is("error", ns::STREAMS) => {
            let refused = ["not-authorized", "host-unknown", "invalid-from"];
            let refused = element.children().any(|child| refused.contains(&child.name()));
            let text = stream_error(&element);
            Err(if refused {
                DisconnectReason::NotAuthorized(text)
            } else {
                DisconnectReason::StreamError(text)
            })
        }
        StreamElement::Opened(_)
        | StreamElement::Stanza(_)
        | StreamElement::Refused(..)
        | StreamElement::Closed => Err(DisconnectReason::Closed),
    }
}

/// Returns the parts of a stream error as text, separated by commas: the text of each child, or its name if it has no
/// text.
pub(super) fn stream_error(error: &Element) -> String {
    let text = error.children().map(|child| match child.text().as_str() {
        "" => child.name().to_owned(),
        text => text.to_owned(),
    });
    text.collect::<Vec<_>>().join(", ")
}
