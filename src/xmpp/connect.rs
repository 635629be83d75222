//! Connection to the server: name resolution, TCP, and TLS where it is configured.

use std::{fmt, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::session::DisconnectReason;

/// Timeout of a connection attempt to one address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// Protection of the connection to the server.
#[derive(Clone)]
pub enum Transport {
    /// Plain TCP, to a loopback address only.
    Loopback,
    /// Plain TCP to any address.
    Plain,
    /// TLS from the first byte.
    Tls(Arc<ClientConfig>),
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "Loopback",
            Self::Plain => "Plain",
            Self::Tls(_) => "Tls",
        })
    }
}

impl Transport {
    /// Returns a TLS transport that accepts only servers whose certificate is signed by an authority in a PEM file.
    ///
    /// # Errors
    /// If the file cannot be read, or has no certificate or an invalid one.
    pub fn tls(authorities: &Path) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let certificates =
            CertificateDer::pem_file_iter(authorities).map_err(|error| error.to_string())?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("the file has no certificate".into());
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self::Tls(Arc::new(config)))
    }
}

impl Transport {
    /// Returns `true` if the secret may be sent to this address of the server.
    fn protects(&self, server: SocketAddr) -> bool {
        match self {
            Self::Loopback => server.ip().to_canonical().is_loopback(),
            Self::Plain | Self::Tls(_) => true,
        }
    }
}

/// Resolves the server and connects to the first address that responds.
pub(super) async fn connect(
    server: &str,
    transport: &Transport,
) -> Result<(ReadHalf, WriteHalf), DisconnectReason> {
    let tcp =
        connect_resolved(|| async { Ok(lookup_host(server).await?.collect()) }, transport).await?;
    match transport {
        Transport::Loopback | Transport::Plain => {
            let (reader, writer) = tcp.into_split();
            Ok((Box::new(reader), Box::new(writer)))
        }
        Transport::Tls(config) => {
            let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
            let (reader, writer) = tokio::io::split(tls);
            Ok((Box::new(reader), Box::new(writer)))
        }
    }
}

/// Size of the kernel's send buffer in bytes. A stanza waits until the kernel has sent all bytes in this buffer, also
/// the bytes of stanzas for other entities. By default the buffer holds up to 4 MiB for a server that reads slowly.
const SEND_BUFFER_BYTES: u32 = 128 * 1024;

/// Connects to the first address that responds. Sends nothing to an unprotected address. Small packets are sent without
/// delay (`TCP_NODELAY`). Otherwise replies would be delayed by about 40 ms.
async fn connect_resolved<F, R>(
    resolve: F,
    transport: &Transport,
) -> Result<TcpStream, DisconnectReason>
where
    F: FnOnce() -> R,
    R: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    let mut last = DisconnectReason::Io(io::ErrorKind::NotFound.into());
    for address in resolve().await? {
        if !transport.protects(address) {
            last = DisconnectReason::Unprotected(address);
            continue;
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_nodelay(true)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        match timeout(CONNECT_TIMEOUT, socket.connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error.into(),
            Err(elapsed) => last = io::Error::from(elapsed).into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_not_sent_to_other_machines_without_tls() {
        let protects =
            |transport: Transport, server: &str| transport.protects(server.parse().unwrap());
        for here in ["127.0.0.1:5347", "127.8.0.1:5347", "[::1]:5347", "[::ffff:127.0.0.1]:5347"] {
            assert!(protects(Transport::Loopback, here), "{here}");
        }
        for elsewhere in ["10.0.0.1:5347", "[fe80::1]:5347", "[::ffff:10.0.0.1]:5347", "0.0.0.0:1"]
        {
            assert!(!protects(Transport::Loopback, elsewhere), "{elsewhere}");
            assert!(protects(Transport::Plain, elsewhere), "{elsewhere}");
        }
    }

    #[tokio::test]
    async fn small_packets_are_not_held_back() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = lookup_host(format!("localhost:{port}")).await.unwrap().collect();
        let tcp = connect_resolved(|| async { Ok(address) }, &Transport::Loopback).await.unwrap();
        assert!(tcp.nodelay().unwrap());
    }

    /// The server may have another address at the next attempt, for example if the server runs in a container that was
    /// restarted.
    #[tokio::test]
    async fn each_attempt_resolves_the_server_and_tries_every_address() {
        // A bound port without a listener refuses connections.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let dead = socket.local_addr().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap();
        let answers = std::sync::Mutex::new(vec![vec![dead, live], vec![dead]]);
        let resolve = || {
            let answer = answers.lock().unwrap().pop().unwrap();
            async move { Ok(answer) }
        };
        let dial = async || connect_resolved(resolve, &Transport::Loopback).await;
        assert!(dial().await.is_err());
        assert_eq!(dial().await.unwrap().peer_addr().unwrap(), live);
    }
}
