//! Control socket: a unix socket for the command line. A request is one line of JSON. Only the owner of the socket can
//! open it. All requests of the owner are allowed.

use std::{
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jid::Jid;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{Instrument, debug, error_span, warn};

use crate::service::Service;
use gjallar_pubsub::Actor;

use super::protocol::{AdminCall, AdminRequest, AdminResponse, Finding};

/// Maximum number of simultaneous connections; further connections wait.
const MAX_CONNECTIONS: usize = 8;
/// Maximum number of bytes of a request.
const MAX_REQUEST_BYTES: u64 = 8 * 1024 * 1024;
/// Maximum time for receiving a request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a connection that could not be accepted, for example because the process has too many open files.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Prefix of the names of snapshot folders.
const SNAPSHOT: &str = "snapshot-";

/// Self-test: checks the systems that the service depends on, such as the XMPP server.
#[async_trait]
pub trait Examine: Send + Sync {
    /// Runs the checks and returns their findings.
    async fn examine(&self) -> Vec<Finding>;
}

/// Listening control socket.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    folder: PathBuf,
    /// JID on whose behalf requests without a JID are executed.
    jid: Jid,
}

impl ControlSocket {
    /// Listens at a path, and replaces the socket of a process that has ended. Snapshots are made in `folder`; old
    /// snapshots in this folder are deleted. Requests have the rights of an administrator. They are executed on behalf
    /// of `jid` unless they name another JID.
    ///
    /// # Errors
    /// If the socket cannot be created, for example because the path is longer than about 100 bytes.
    pub fn listen(path: &Path, folder: &Path, jid: Jid) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "the path exists and is not a socket",
                ));
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(SNAPSHOT) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), folder: folder.to_owned(), jid })
    }

    /// Serves requests until the future is dropped.
    pub async fn serve(&self, service: &Arc<Service>, examiner: Arc<dyn Examine>) {
        let mut connections = JoinSet::new();
        let mut has_failed = false;
        for number in 0_u64.. {
            while connections.len() >= MAX_CONNECTIONS {
                connections.join_next().await;
            }
            let (stream, _) = match self.listener.accept().await {
                Ok(accepted) => {
                    has_failed = false;
                    accepted
                }
                Err(error) => {
                    if !has_failed {
                        warn!(
                            event = "control_socket_failed",
                            %error,
                            "control socket failed; commands cannot reach the service; will retry"
                        );
                    }
                    has_failed = true;
                    sleep(RETRY_INTERVAL).await;
                    continue;
                }
            };
            let folder = self.folder.join(format!("{SNAPSHOT}{number}"));
            let (service, jid) = (Arc::clone(service), self.jid.clone());
            let examiner = Arc::clone(&examiner);
            let uid = stream.peer_cred().map(|peer| peer.uid()).ok();
            let request = error_span!("request", control = number, uid);
            let answered = async move {
                if let Err(error) = answer(stream, &service, &*examiner, folder, jid).await {
                    debug!(%error, "control connection failed");
                }
            };
            connections.spawn(answered.instrument(request));
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A missing file is fine.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(
    stream: UnixStream,
    service: &Service,
    examiner: &dyn Examine,
    folder: PathBuf,
    jid: Jid,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut limited = (&mut stream).take(MAX_REQUEST_BYTES);
    timeout(REQUEST_DEADLINE, limited.read_line(&mut line)).await??;
    let mut out = ResponseLines(stream);
    let AdminCall { jid: other, ask } = match serde_json::from_str(&line) {
        Ok(call) => call,
        Err(error) => return out.write(&AdminResponse::Error(error.to_string())).await,
    };
    let jid = other.unwrap_or(jid);
    let actor = Actor { jid, is_administrator: true };
    match ask {
        AdminRequest::Snapshot => match SnapshotDir::make(service, folder).await {
            Ok(copy) => {
                out.write(&AdminResponse::Done(copy.0.to_string_lossy().into())).await?;
                // Wait until the client closes the connection.
                let _ = out.0.read_u8().await;
                Ok(())
            }
            Err(error) => out.write(&AdminResponse::Error(error)).await,
        },
        AdminRequest::Doctor => {
            for finding in examiner.examine().await {
                out.write(&AdminResponse::Line(serde_json::to_value(finding)?)).await?;
            }
            out.write(&AdminResponse::Done(serde_json::Value::Null)).await
        }
        AdminRequest::Top => super::top::show(service, &mut out).await,
        request => match super::requests::answer(service, &actor, request, &mut out).await {
            Ok(value) => out.write(&AdminResponse::Done(value)).await,
            Err(error) => {
                let limit = error.limit();
                limit.into_iter().for_each(|limit| service.metrics().count_rejection(limit));
                out.write(&AdminResponse::Error(error.to_string())).await
            }
        },
    }
}

/// Connection that response lines are written to.
pub(super) struct ResponseLines(BufReader<UnixStream>);

impl ResponseLines {
    pub(super) async fn write(&mut self, answer: &AdminResponse) -> io::Result<()> {
        let mut text = serde_json::to_string(answer)?;
        text.push('\n');
        self.0.write_all(text.as_bytes()).await
    }
}

/// Folder of a snapshot, deleted on drop.
struct SnapshotDir(PathBuf);

impl SnapshotDir {
    async fn make(service: &Service, folder: PathBuf) -> Result<Self, String> {
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| error.to_string())?;
        let copy = Self(folder);
        service.snapshot_to(&copy.0).await.map_err(|error| error.to_string())?;
        Ok(copy)
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            let path = self.0.display();
            warn!(event = "snapshot_not_removed", %error, %path, "failed to remove a snapshot");
        }
    }
}
