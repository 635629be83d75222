//! Records of the store: bytes with a valid checksum are decoded or reported as corrupt; a decoded
//! record is encoded, and decoded again with the same result.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((table, content)) = bytes.split_first() {
        gjallar::store::fuzzing::record(*table, content);
    }
});
