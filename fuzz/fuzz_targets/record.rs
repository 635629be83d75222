//! Records of the store: bytes whose checksum is right are a record or damaged; and a record that is read
//! and written again is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((table, content)) = bytes.split_first() {
        gjallar::store::fuzzing::record(*table, content);
    }
});
