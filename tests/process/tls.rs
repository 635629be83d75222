//! TLS to the server, with private certificate authorities.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use gjallar::store::MemoryStore;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::support::{component::TestComponent, process::lines_with_event};

/// Creates a certificate authority, and a certificate signed by it for a name.
fn certify(folder: &Path, name: &str) {
    std::fs::write(folder.join("names"), format!("subjectAltName=DNS:{name}")).unwrap();
    let script = "set -e
        new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test'
        openssl req -x509 $new -keyout ca.key -out ca.pem -days 2
        openssl req $new -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile names -out server.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Starts a TLS endpoint that forwards to a plain port; returns the port of the endpoint.
async fn terminate(folder: &Path, plain: u16) -> u16 {
    let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate ends the handshake.
            if let Ok(mut tls) = acceptor.accept(tcp).await {
                let mut to = TcpStream::connect(("127.0.0.1", plain)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut to).await;
            }
        }
    });
    port
}

/// The check sends nothing: no machine has this address.
#[test]
fn plain_tcp_to_another_machine_is_refused() {
    let mut service = serve("192.0.2.1:5347", &[]);
    let line = line_with(&mut service, "link_unprotected");
    service.kill().unwrap();
    service.wait().unwrap();
    assert!(line.contains("ERROR") && line.contains("plain TCP to 192.0.2.1:5347"), "{line}");
}

/// Starts the real binary with this server address.
fn serve(server: &str, more: &[(&str, &Path)]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gjallar"))
        .arg("serve")
        .env_clear()
        .env("GJALLAR_JID", "pubsub.localhost")
        .env("GJALLAR_SERVER", server)
        .env("GJALLAR_SECRET", "secret")
        .env("GJALLAR_STORE", "memory:")
        .envs(more.iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the first line of the log with this event.
fn line_with(service: &mut Child, event: &str) -> String {
    let log = std::io::BufReader::new(service.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(log).map(Result::unwrap);
    lines.find(|line| !lines_with_event(line, event).is_empty()).unwrap()
}

#[tokio::test]
async fn server_of_the_configured_authority_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path(), "localhost");
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = terminate(folder.path(), plain.local_addr().unwrap().port()).await;
    let ca = folder.path().join("ca.pem").display().to_string();
    let mut component = TestComponent::at(plain, Arc::new(MemoryStore::new()), |config| {
        config.server = format!("localhost:{port}");
        config.link.tls_ca = ca;
    })
    .await;
    component.create("owner@localhost", "n", &[]).await;
    component.publish("owner@localhost", "n", "1").await;
    assert_eq!(component.items("owner@localhost", "n").await, ["1"]);
    component.finish().await;
}

/// With a certificate of another authority, or for another name, the service sends nothing and logs
/// the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_of_another_authority_or_name_is_refused() {
    for (name, is_own, expected) in [
        ("localhost", false, "invalid peer certificate"),
        ("elsewhere", true, "not valid for name"),
    ] {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        certify(folder.path(), name);
        certify(other.path(), name);
        let port = terminate(folder.path(), 1).await;
        let ca = if is_own { &folder } else { &other }.path().join("ca.pem");
        let server = format!("localhost:{port}");
        let mut service = serve(&server, &[("GJALLAR_LINK_TLS_CA", &ca)]);
        let line = tokio::task::spawn_blocking(move || {
            let line = line_with(&mut service, "link_failed");
            service.kill().unwrap();
            service.wait().unwrap();
            line
        });
        let line = line.await.unwrap();
        assert!(line.contains(expected), "{line}");
    }
}
