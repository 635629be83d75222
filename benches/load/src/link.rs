//! Both ends of XEP-0114, blocking.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
};

use sha1::{Digest, Sha1};

use crate::scan::{Scanner, attribute};

/// Size of a read.
const READ_BYTES: usize = 256 * 1024;

/// Incoming stanzas of a stream.
#[derive(Debug)]
pub struct StanzaReader {
    tcp: TcpStream,
    scanner: Scanner,
    buffer: Vec<u8>,
    filled: usize,
}

impl StanzaReader {
    fn new(tcp: TcpStream) -> Self {
        Self { tcp, scanner: Scanner::default(), buffer: vec![0; READ_BYTES], filled: 0 }
    }

    /// Reads once, and calls `each` for every complete stanza. Returns `false` at the end of the
    /// stream.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn read(&mut self, each: impl FnMut(&[u8])) -> io::Result<bool> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.filled, 0);
        }
        let read = self.tcp.read(&mut self.buffer[self.filled..])?;
        self.filled += read;
        let done = self.scanner.stanzas(&self.buffer[..self.filled], each);
        self.buffer.copy_within(done..self.filled, 0);
        self.filled -= done;
        Ok(read > 0)
    }

    /// Reads up to the first tag with this beginning, and returns the tag.
    fn tag(&mut self, begin: &str) -> io::Result<String> {
        let mut text = String::new();
        loop {
            if let Some(at) = text.find(begin)
                && text[at..].contains('>')
            {
                return Ok(text[at..].to_owned());
            }
            let mut byte = [0];
            self.tcp.read_exact(&mut byte)?;
            text.push(char::from(byte[0]));
        }
    }
}

/// Acts as the server for the next component; accepts any secret.
///
/// # Errors
/// If the connection breaks.
pub fn accept(listener: &TcpListener) -> io::Result<(StanzaReader, TcpStream)> {
    let (mut tcp, _) = listener.accept()?;
    tcp.set_nodelay(true)?;
    let mut reader = StanzaReader::new(tcp.try_clone()?);
    let opened = reader.tag("<stream:stream")?;
    let to = attribute(opened.as_bytes(), "to").unwrap_or_default();
    let opened = format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' from='{to}' \
         xmlns:stream='http://etherx.jabber.org/streams' id='load' version='1.0'>"
    );
    tcp.write_all(opened.as_bytes())?;
    reader.tag("</handshake")?;
    tcp.write_all(b"<handshake/>")?;
    Ok((reader, tcp))
}

/// Connects as a component.
///
/// # Errors
/// If the connection breaks.
pub fn connect(server: &str, jid: &str, secret: &str) -> io::Result<(StanzaReader, TcpStream)> {
    let mut tcp = TcpStream::connect(server)?;
    tcp.set_nodelay(true)?;
    let mut reader = StanzaReader::new(tcp.try_clone()?);
    let open = format!(
        "<stream:stream xmlns='jabber:component:accept' to='{jid}' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    tcp.write_all(open.as_bytes())?;
    let opened = reader.tag("<stream:stream")?;
    let id = attribute(opened.as_bytes(), "id").unwrap_or_default();
    let digest: String =
        Sha1::digest(format!("{id}{secret}")).iter().map(|byte| format!("{byte:02x}")).collect();
    tcp.write_all(format!("<handshake>{digest}</handshake>").as_bytes())?;
    reader.tag("<handshake")?;
    Ok((reader, tcp))
}
