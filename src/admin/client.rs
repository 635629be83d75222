//! The asking end of the control socket.

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

/// A connection to a running service.
#[derive(Debug)]
pub struct AdminClient(BufReader<UnixStream>);

/// A copy of a running service's store. It is there until this is dropped.
#[derive(Debug)]
pub struct Snapshot {
    /// The folder that it is in.
    pub folder: PathBuf,
    _connection: AdminClient,
}

/// Why a running service did not do what it was asked.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No service answers at the socket.
    #[error("no running service answers at {path}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says why.
    #[error("the running service says: {0}")]
    Refused(String),
}

impl AdminClient {
    /// Connects to the service behind a socket.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`].
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self(BufReader::new(stream))),
            Err(source) => Err(ControlError::Unreachable { path: path.to_owned(), source }),
        }
    }

    /// A copy of its store.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn snapshot(mut self) -> Result<Snapshot, ControlError> {
        let folder = self.ask(None, AdminRequest::Snapshot, |_| ControlFlow::Continue(()))?;
        let folder = folder.as_str().unwrap_or_default().into();
        Ok(Snapshot { folder, _connection: self })
    }

    /// Asks for something in the name of a JID, or of the service; shows each line of the answer, if it has lines, as
    /// long as more are wanted, and returns what it ends with.
    ///
    /// # Errors
    /// If the service does not do it.
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
