//! Forms: a submitted form results in settings or an error; a configuration form that is submitted
//! unchanged changes nothing.
#![no_main]

use gjallar::xmpp::stanza::forms::node_config;
use gjallar_fuzz::stanza;
use gjallar_pubsub::{Limits, NodeConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(form) = stanza(bytes) else { return };
    let limits = Limits::default();
    let Ok(submitted) = node_config::submitted(&form) else { return };
    let Ok(config) = NodeConfig::initial(&limits).with(&submitted.settings, &limits) else {
        return;
    };
    let shown =
        node_config::form(&config, Some(&[])).to_string().replace("type='form'", "type='submit'");
    let shown = stanza(shown.as_bytes()).expect("a form that can be read");
    let again = node_config::submitted(&shown).expect("a form that is accepted");
    assert_eq!(NodeConfig::initial(&limits).with(&again.settings, &limits).as_ref(), Ok(&config));
    let _ = node_config::values(&config);
});
