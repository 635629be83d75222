//! The asking end of the control socket.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{Answer, Request};

/// A connection to a running service.
#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

/// A copy of a running service's store. It is there until this is dropped.
#[derive(Debug)]
pub struct Snapshot {
    /// The folder that it is in.
    pub folder: PathBuf,
    _connection: Client,
}

/// Why a running service did not do what it was asked.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No service answers at the socket.
    #[error("no running service answers at {path}: {error}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It says why.
    #[error("the running service says: {0}")]
    Refused(String),
}

impl Client {
    /// Connects to the service behind a socket.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`].
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self(BufReader::new(stream))),
            Err(error) => Err(ControlError::Unreachable { path: path.to_owned(), error }),
        }
    }

    /// What the service counts, as OpenMetrics text.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn stats(mut self) -> Result<String, ControlError> {
        match self.ask(Request::Stats)? {
            Answer::Stats(text) => Ok(text),
            other => Err(unexpected(other)),
        }
    }

    /// A copy of its store.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn snapshot(mut self) -> Result<Snapshot, ControlError> {
        match self.ask(Request::Snapshot)? {
            Answer::Snapshot(folder) => Ok(Snapshot { folder, _connection: self }),
            other => Err(unexpected(other)),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Answer, ControlError> {
        let mut ask = || -> io::Result<Answer> {
            let mut line = serde_json::to_string(&request)?;
            line.push('\n');
            self.0.get_mut().write_all(line.as_bytes())?;
            line.clear();
            self.0.read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        ask().map_err(|error| ControlError::Refused(error.to_string()))
    }
}

fn unexpected(answer: Answer) -> ControlError {
    ControlError::Refused(match answer {
        Answer::Error(reason) => reason,
        other => format!("{other:?}"),
    })
}
