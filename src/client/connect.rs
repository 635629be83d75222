//! Connections of the client to its server. Their input passes through a [`Rewriter`], because the parser of tokio-xmpp
//! rejects long attribute values.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt,
    io::{self, Read},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use sasl::common::ChannelBinding;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufStream, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_xmpp::{
    Error,
    connect::{DnsConfig, ServerConnector, starttls::starttls},
    error::ProtocolError,
    xmlstream::{PendingFeaturesRecv, StreamHeader, Timeouts, initiate_stream},
};
use xmpp_parsers::jid::Jid as Address;

use super::long_values::{LongValues, Rewriter};

/// Maximum bytes of one read.
const READ_BYTES: usize = 8192;
/// Minimum time between two connection attempts. tokio-xmpp reconnects without delay, and the server may then resend
/// the stanza that ended the last connection.
const CONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// Factory of connections to a server.
#[derive(Clone)]
pub(super) struct Connector {
    /// Host and port of the server. `None` if the client looks up the server in DNS under the domain of the account.
    pub(super) server: Option<String>,
    pub(super) is_encrypted: bool,
    pub(super) long_values: LongValues,
    /// Earliest time of the next connection.
    pub(super) next: Arc<Mutex<Option<Instant>>>,
    /// Error of the last connection attempt. If the attempt succeeded, a hint for the case that the login fails.
    pub(super) obstacle: watch::Sender<String>,
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Transport with rewritten input.
pub(super) struct Rewritten {
    transport: Box<dyn Transport>,
    rewriter: Rewriter,
    /// Rewritten bytes that the parser has not read yet.
    input: VecDeque<u8>,
}

impl Connector {
    /// Waits until the next connection may begin.
    async fn wait_for_turn(&self) {
        let next = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
            *next = Some(begin + CONNECT_INTERVAL);
            begin
        };
        sleep_until(next).await;
    }

    async fn tcp(&self, domain: &str) -> Result<TcpStream, Error> {
        match &self.server {
            Some(server) => Ok(TcpStream::connect(server).await?),
            None => DnsConfig::srv_default_client(domain).resolve().await,
        }
    }

    /// Connects and returns a stream that is ready for the login.
    ///
    /// The login uses no channel binding. tokio-xmpp would use the type `tls-exporter`. A server that supports only
    /// another type, such as ejabberd 23.01, would refuse the login.
    async fn open(
        &self,
        domain: &str,
        namespace: &'static str,
        timeouts: Timeouts,
    ) -> Result<PendingFeaturesRecv<BufStream<Rewritten>>, Error> {
        let header = || StreamHeader { to: Some(Cow::Borrowed(domain)), from: None, id: None };
        let tcp = self.tcp(domain).await?;
        if !self.is_encrypted {
            return Ok(initiate_stream(self.rewritten(tcp), namespace, header(), timeouts).await?);
        }
        let plain = initiate_stream(BufStream::new(tcp), namespace, header(), timeouts).await?;
        let (features, plain) = plain.recv_features().await?;
        if !features.can_starttls() {
            return Err(ProtocolError::NoTls.into());
        }
        let (tls, _binding) = starttls(plain, domain).await?;
        Ok(initiate_stream(self.rewritten(tls), namespace, header(), timeouts).await?)
    }

    fn rewritten<T: Transport + 'static>(&self, transport: T) -> BufStream<Rewritten> {
        let (transport, rewriter) = (Box::new(transport), self.long_values.rewriter());
        BufStream::new(Rewritten { transport, rewriter, input: VecDeque::new() })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl ServerConnector for Connector {
    type Stream = BufStream<Rewritten>;

    async fn connect(
        &self,
        jid: &Address,
        namespace: &'static str,
        timeouts: Timeouts,
    ) -> Result<(PendingFeaturesRecv<Self::Stream>, ChannelBinding), Error> {
        self.wait_for_turn().await;
        let opened = self.open(jid.domain().as_str(), namespace, timeouts).await;
        self.obstacle.send_replace(match &opened {
            Ok(_) if self.is_encrypted => "the server is reachable, so check the password".to_owned(),
            Ok(_) => "the server is reachable, so check the password, and that the server allows logins without TLS on this connection".to_owned(),
            Err(error) => error.to_string(),
        });
        Ok((opened?, ChannelBinding::None))
    }
}

impl AsyncRead for Rewritten {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.input.is_empty() {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.transport).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.rewriter.rewrite(read.filled(), &mut this.input);
        }
        let bytes = this.input.read(buffer.initialize_unfilled())?;
        buffer.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewritten {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_have_an_interval() {
        let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let connector = Connector {
            server: Some(away.to_string()),
            is_encrypted: false,
            long_values: LongValues::new(),
            next: Arc::default(),
            obstacle: watch::Sender::default(),
        };
        let jid = Address::new("a@localhost").unwrap();
        let began = Instant::now();
        for number in 0..3 {
            let connection = connector.connect(&jid, "jabber:client", Timeouts::tight());
            assert!(connection.await.is_err());
            assert_eq!(began.elapsed(), number * CONNECT_INTERVAL);
        }
    }
}
