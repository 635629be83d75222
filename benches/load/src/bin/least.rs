//! Baseline with the least possible work of a publish-subscribe component: byte splicing without
//! XML trees, storage or rules; every node has the same fixed list of subscribers.

use std::{
    error::Error,
    io::{self, Write},
};

use clap::Parser;
use gjallar_load::{
    ComparedArgs, link,
    scan::{attribute, between},
};
use memchr::memmem;

/// Size of a write.
const WRITE_BYTES: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = ComparedArgs::parse();
    let subscribers: Vec<_> = arguments.subscribers().collect();
    let (mut reader, mut tcp) =
        link::connect(&arguments.server, &arguments.jid, &arguments.secret)?;
    let mut sequence = 0_u64;
    loop {
        let (mut out, mut written) = (Vec::new(), Ok(()));
        let goes_on = reader.read(|stanza| {
            if written.is_ok() {
                sequence += 1;
                written = answer(stanza, &subscribers, sequence, &mut out, &mut tcp);
            }
        })?;
        written?;
        tcp.write_all(&out)?;
        if !goes_on {
            return Ok(());
        }
    }
}

fn answer(
    stanza: &[u8],
    subscribers: &[String],
    sequence: u64,
    out: &mut Vec<u8>,
    tcp: &mut impl Write,
) -> io::Result<()> {
    if !stanza.starts_with(b"<iq") || !matches!(attribute(stanza, "type"), Some("set" | "get")) {
        return Ok(());
    }
    let of = |name| attribute(stanza, name).unwrap_or_default();
    let (to, from, id) = (of("from"), of("to"), of("id"));
    write!(out, "<iq type='result' from='{from}' to='{to}' id='{id}'/>")?;
    let Some(publish) = memmem::find(stanza, b"<publish").map(|at| &stanza[at..]) else {
        return Ok(());
    };
    let node = attribute(publish, "node").unwrap_or_default();
    let items = between(publish, ">", "</publish>").unwrap_or_default();
    let head = format!("<message from='{from}' type='headline' id='{sequence}' to='");
    let mut tail =
        format!("'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='{node}'>")
            .into_bytes();
    tail.extend_from_slice(items);
    write!(
        tail,
        "</items></event><stanza-id xmlns='urn:xmpp:sid:0' by='{from}' id='{sequence:016x}-{sequence}'/>\
         <no-store xmlns='urn:xmpp:hints'/></message>"
    )?;
    for subscriber in subscribers {
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(subscriber.as_bytes());
        out.extend_from_slice(&tail);
        if out.len() >= WRITE_BYTES {
            tcp.write_all(out)?;
            out.clear();
        }
    }
    Ok(())
}
