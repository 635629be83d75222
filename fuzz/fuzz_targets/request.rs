//! Requests: a stanza is parsed or refused; a parsed payload is a self-contained document.
#![no_main]

use gjallar::xmpp::{
    error::stanza_error,
    stanza::{
        envelope::Envelope,
        request::{self, PubsubRequest, SetRequest},
    },
};
use gjallar_fuzz::stanza;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(iq) = stanza(bytes) else { return };
    let header = Envelope::of(&iq);
    for child in iq.children() {
        for is_set in [false, true] {
            match request::parse(&iq, child, is_set) {
                Ok(PubsubRequest::Action(SetRequest::Publish(publish))) => {
                    for payload in publish.items.iter().filter_map(|item| item.payload.as_ref()) {
                        let read = stanza(payload.xml().as_bytes());
                        let read = read.unwrap_or_else(|| panic!("cannot be read: {payload:?}"));
                        assert_eq!(read.ns(), payload.namespace());
                    }
                }
                Ok(_) => {}
                Err(refusal) => {
                    let answer = header.error(&stanza_error(&refusal));
                    assert!(stanza(answer.as_bytes()).is_some(), "{answer}");
                }
            }
        }
    }
});
