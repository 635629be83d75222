//! Server whose XML parser is libexpat 2.6 or later, like that of Prosody on Debian 13.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that Prosody reads at once.
const READ_BYTES: usize = 4096;

/// State of the parser of a connection.
#[derive(Default)]
pub struct Reading {
    /// Defers parsing of an incomplete tag until the amount of data has doubled.
    pub is_deferring: AtomicBool,
    /// Number of bytes received.
    pub bytes: AtomicUsize,
}

/// Reading half of a connection; passes bytes on when the parser has parsed them.
pub struct Deferring<R> {
    inner: R,
    reading: Arc<Reading>,
    held: Vec<u8>,
    parsed: usize,
    had_before: usize,
}

impl<R> Deferring<R> {
    pub fn new(inner: R, reading: Arc<Reading>) -> Self {
        Self { inner, reading, held: Vec::new(), parsed: 0, had_before: 0 }
    }

    fn parse(&mut self) {
        if self.held.len() >= 2 * self.had_before {
            let after = self.held.iter().rposition(|byte| *byte == b'>').map_or(0, |at| at + 1);
            let rest = &self.held[after..];
            let text = rest.iter().position(|byte| *byte == b'<').unwrap_or(rest.len());
            self.parsed = after + text;
            self.had_before = if self.parsed == 0 { self.held.len() } else { 0 };
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Deferring<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.parsed == 0 {
            let mut piece = [0; READ_BYTES];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut piece))?;
            let piece = piece.filled();
            this.reading.bytes.fetch_add(piece.len(), Ordering::Relaxed);
            this.held.extend(piece);
            if piece.is_empty() || !this.reading.is_deferring.load(Ordering::Relaxed) {
                this.parsed = this.held.len();
                break;
            }
            this.parse();
        }
        let taken = this.parsed.min(out.remaining());
        out.put_slice(&this.held[..taken]);
        this.held.drain(..taken);
        this.parsed -= taken;
        Poll::Ready(Ok(()))
    }
}
