//! Stream reader: any input, in chunks of any size, results in stanzas, stanza errors or a stream
//! error; a stanza that is serialized and read again is the same.
#![no_main]

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::executor::block_on;
use gjallar::xmpp::{
    StreamElement, StreamReader,
    stanza::envelope::{Envelope, StanzaError},
    xml::writer::stand_alone,
};
use gjallar_fuzz::{LIMITS, OPENING, meaning, stanza};
use libfuzzer_sys::fuzz_target;
use minidom::Element;
use tokio::io::{AsyncRead, ReadBuf};

/// Reader that returns a few bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (piece, rest) = self.0.split_at(self.1.min(self.0.len()));
        buffer.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

fn read(bytes: &[u8], piece: usize) -> Vec<String> {
    let mut reader = StreamReader::new(Pieces(bytes, piece), LIMITS);
    let mut all = Vec::new();
    loop {
        all.push(match block_on(reader.next()) {
            Ok(StreamElement::Stanza(element)) => written_and_read(&element),
            Ok(StreamElement::Closed) => return all,
            Ok(other) => format!("{other:?}"),
            // Which of several errors the parser reports depends on the chunks.
            Err(_) => {
                all.push("a fault".into());
                return all;
            }
        });
    }
}

/// Serializes an element to text from which it can be read again.
fn written_and_read(element: &Element) -> String {
    let text = stand_alone(element);
    match stanza(text.as_bytes()) {
        Some(again) => assert_eq!(meaning(&again), meaning(element)),
        // The serialized form may be longer than the limit.
        None => assert!(text.len() > LIMITS.max_bytes / 8, "{text} cannot be read"),
    }
    let error = StanzaError::new("modify", "bad-request");
    let _ = Envelope::of(element).error(&error);
    meaning(element)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let whole = [if *first < 128 { OPENING.as_bytes() } else { &[] }, rest].concat();
    // The size of the chunks makes no difference.
    assert_eq!(read(&whole, 64 * 1024), read(&whole, usize::from(first % 16) + 1));
});
