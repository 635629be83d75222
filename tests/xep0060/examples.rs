//! Every request in the examples of XEP-0060 is parsed, or refused with the name of the missing
//! feature.
//!
//! `examples.txt` has the requests, and `examples.expected` the results. Set `GJALLAR_BLESS=1` to
//! rewrite the latter, and review the difference.

use std::{fmt::Write, fs, path::PathBuf};

use gjallar::xmpp::stanza::request;
use minidom::Element;

#[test]
fn every_example_is_understood_or_refused_for_a_reason() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/xep0060");
    let examples = fs::read_to_string(folder.join("examples.txt")).unwrap();
    let mut seen = String::new();
    for example in examples.split("\n## ").skip(1) {
        let (caption, stanza) = example.split_once('\n').unwrap();
        writeln!(seen, "{caption}\n    {}", outcome(stanza.trim())).unwrap();
    }
    let expected = folder.join("examples.expected");
    #[allow(clippy::disallowed_methods)]
    if std::env::var_os("GJALLAR_BLESS").is_some() {
        fs::write(&expected, &seen).unwrap();
    }
    assert_eq!(fs::read_to_string(expected).unwrap(), seen);
}

fn outcome(stanza: &str) -> String {
    let stanza = stanza.replacen("<iq", "<iq xmlns='jabber:client'", 1);
    let iq: Element = match stanza.parse() {
        Ok(iq) => iq,
        // Some examples are abbreviated, and so are not XML.
        Err(error) => return format!("(not XML: {error})"),
    };
    let is_set = iq.attr("type") == Some("set");
    let child = iq.children().next().unwrap();
    if child.name() != "pubsub" {
        return format!("(not of the namespace: {})", child.name());
    }
    match request::parse(&iq, child, is_set) {
        Ok(request) => format!("{request:?}"),
        Err(gjallar_pubsub::Error::Unsupported(feature)) => {
            format!("unsupported {}", feature.name())
        }
        Err(refusal) => format!("refused: {refusal:?}"),
    }
}
