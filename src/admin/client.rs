//! Client of the control socket.

use std::{
    io::{self, BufRead, BufReader, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use jid::Jid;
use serde_json::Value;
use thiserror::Error;

use super::protocol::{AdminCall, AdminRequest, AdminResponse};

/// Connection to a running service.
#[derive(Debug)]
pub struct AdminClient(BufReader<UnixStream>);

/// Copy of a running service's store. The service deletes the copy when this value is dropped.
#[derive(Debug)]
pub struct Snapshot {
    /// Folder of the copy.
    pub folder: PathBuf,
    _connection: AdminClient,
}

/// Error of a request to a running service.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No service answers at the socket.
    #[error("no running service answers at {path}")]
    Unreachable {
        /// Path of the socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The service rejected the request with this text.
    #[error("the running service says: {0}")]
    Refused(String),
}

impl AdminClient {
    /// Connects to the service at a socket.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`].
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self(BufReader::new(stream))),
            Err(source) => Err(ControlError::Unreachable { path: path.to_owned(), source }),
        }
    }

    /// Makes the service copy its store, and returns the copy.
    ///
    /// # Errors
    /// If the store cannot be copied.
    pub fn snapshot(mut self) -> Result<Snapshot, ControlError> {
        let folder = self.ask(None, AdminRequest::Snapshot, |_| ControlFlow::Continue(()))?;
        let folder = folder.as_str().unwrap_or_default().into();
        Ok(Snapshot { folder, _connection: self })
    }

    /// Sends a request on behalf of `jid`, or on behalf of the service if `jid` is `None`. Passes each line of the
    /// response except the last to `show`. The last line contains the result, which is returned. If `show` returns
    /// `Break`, reads no further lines and returns null.
    ///
    /// # Errors
    /// If the service rejects the request or the connection fails.
    pub fn ask(
        &mut self,
        jid: Option<Jid>,
        ask: AdminRequest,
        mut show: impl FnMut(Value) -> ControlFlow<()>,
    ) -> Result<Value, ControlError> {
        let broken = |error: io::Error| ControlError::Refused(error.to_string());
        let mut line =
            serde_json::to_string(&AdminCall { jid, ask }).map_err(|e| broken(e.into()))?;
        line.push('\n');
        self.0.get_mut().write_all(line.as_bytes()).map_err(broken)?;
        loop {
            line.clear();
            self.0.read_line(&mut line).map_err(broken)?;
            match serde_json::from_str(&line).map_err(|error| broken(error.into()))? {
                AdminResponse::Line(value) => {
                    if show(value).is_break() {
                        return Ok(Value::Null);
                    }
                }
                AdminResponse::Done(value) => return Ok(value),
                AdminResponse::Error(reason) => return Err(ControlError::Refused(reason)),
            }
        }
    }
}
