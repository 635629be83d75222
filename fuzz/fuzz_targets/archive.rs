//! Archives: a text is imported, or refused with a line number; an imported archive is exported,
//! and imported again with the same result.
#![no_main]

use futures::executor::block_on;
use gjallar::{
    migrate::archive::{Epochs, export, import},
    store::{MemoryStore, Store},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Inputs are often valid except for a number in a line.
    let store = MemoryStore::new();
    let read = block_on(import(&store, &mut &bytes[..], Epochs::Same));
    if let Err(error) = &read {
        let _ = error.to_string();
        return;
    }
    let mut text = Vec::new();
    block_on(export(&store, &mut text)).expect("a store that can be written");
    let copy = MemoryStore::new();
    block_on(import(&copy, &mut text.as_slice(), Epochs::Same))
        .expect("an archive that can be read");
    let mut again = Vec::new();
    block_on(export(&copy, &mut again)).expect("a store that can be written");
    assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&again));
    assert_eq!(block_on(copy.node_counts()).ok(), block_on(store.node_counts()).ok());
});
