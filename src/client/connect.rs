//! The client's connections to its server.
//!
//! The parser of tokio-xmpp refuses names and attribute values above [`MAX_TOKEN_BYTES`] and does not say so: the
//! connection ends, and another one is made. Each connection therefore watches what it reads.

use std::{
    borrow::Cow,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use sasl::common::ChannelBinding;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufStream, ReadBuf},
    sync::watch,
};
use tokio_xmpp::{
    Error,
    connect::{DnsConfig, ServerConnector, starttls::starttls},
    error::ProtocolError,
    xmlstream::{PendingFeaturesRecv, StreamHeader, Timeouts, initiate_stream},
};
use xmpp_parsers::jid::Jid as Address;

use super::MAX_TOKEN_BYTES;

/// Makes connections to a server.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) server: DnsConfig,
    pub(super) is_encrypted: bool,
    /// How many connections ended with a token that the parser refuses.
    pub(super) refusals: Arc<watch::Sender<u64>>,
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A transport that notices long tokens.
pub(super) struct Watched {
    transport: Box<dyn Transport>,
    tokens: Tokens,
    refusals: Arc<watch::Sender<u64>>,
}

/// The place in a document, as far as names and attribute values are concerned.
#[derive(Default)]
struct Tokens {
    place: Place,
    /// The bytes of the present name or value.
    bytes: usize,
    /// A name or value in the last read exceeded the limit.
    is_long: bool,
}

#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Text,
    Tag,
    Value(u8),
}

impl Connector {
    fn watched<T: Transport + 'static>(&self, transport: T) -> BufStream<Watched> {
        let (tokens, refusals) = (Tokens::default(), Arc::clone(&self.refusals));
        BufStream::new(Watched { transport: Box::new(transport), tokens, refusals })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl ServerConnector for Connector {
    type Stream = BufStream<Watched>;

    async fn connect(
        &self,
        jid: &Address,
        namespace: &'static str,
        timeouts: Timeouts,
    ) -> Result<(PendingFeaturesRecv<Self::Stream>, ChannelBinding), Error> {
        let domain = jid.domain().as_str();
        let header = || StreamHeader { to: Some(Cow::Borrowed(domain)), from: None, id: None };
        let transport = self.server.resolve().await?;
        let (transport, binding) = if self.is_encrypted {
            let plain =
                initiate_stream(BufStream::new(transport), namespace, header(), timeouts).await?;
            let (features, plain) = plain.recv_features().await?;
            if !features.can_starttls() {
                return Err(ProtocolError::NoTls.into());
            }
            let (transport, binding) = starttls(plain, domain).await?;
            (self.watched(transport), binding)
        } else {
            (self.watched(transport), ChannelBinding::None)
        };
        Ok((initiate_stream(transport, namespace, header(), timeouts).await?, binding))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.transport).poll_read(cx, buffer))?;
        this.tokens.read(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // After a refusal the parser reads nothing more.
        if self.tokens.is_long {
            self.refusals.send_modify(|refusals| *refusals += 1);
        }
    }
}

impl Tokens {
    fn read(&mut self, bytes: &[u8]) {
        self.is_long = false;
        for byte in bytes {
            let is_part = match (self.place, byte) {
                (Place::Text, b'<') => {
                    self.place = Place::Tag;
                    false
                }
                (Place::Text, _) => false,
                (Place::Tag, b'>') => {
                    self.place = Place::Text;
                    false
                }
                (Place::Tag, b'"' | b'\'') => {
                    self.place = Place::Value(*byte);
                    false
                }
                (Place::Tag, _) => !byte.is_ascii_whitespace() && *byte != b'=',
                (Place::Value(quote), _) if quote == *byte => {
                    self.place = Place::Tag;
                    false
                }
                (Place::Value(_), _) => true,
            };
            self.bytes = if is_part { self.bytes + 1 } else { 0 };
            self.is_long |= self.bytes >= MAX_TOKEN_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_long_after(parts: &[&str]) -> bool {
        let mut tokens = Tokens::default();
        parts.iter().for_each(|part| tokens.read(part.as_bytes()));
        tokens.is_long
    }

    #[test]
    fn long_names_and_values_are_noticed_until_more_is_read() {
        let long = "v".repeat(MAX_TOKEN_BYTES);
        let short = "v".repeat(MAX_TOKEN_BYTES - 1);
        for quote in ["'", "\""] {
            assert!(is_long_after(&[&format!("<a><x a={quote}{long}")]));
            assert!(is_long_after(&["<x a=", quote, &short, ">"]));
            assert!(!is_long_after(&["<x a=", quote, &long, quote, ">"]));
            let other = if quote == "'" { "\"" } else { "'" };
            assert!(is_long_after(&[&format!("<x a={quote}{other}>{long}{quote}/>")]));
            assert!(!is_long_after(&[&format!(
                "<x a={quote}{short}{quote} b={quote}{short}{quote}/>"
            )]));
        }
        assert!(is_long_after(&[&format!("<{long}>")]));
        assert!(!is_long_after(&[&format!("<x>{long}</x>")]));
    }
}
