//! What the load and the programs it is compared with share: stanzas as bytes, and the two ends of XEP-0114.

pub mod link;
pub mod peer;
pub mod scan;

/// The name of a user, in no order that a store could profit from; of a domain, or of one of a hundred.
#[must_use]
pub fn user(index: u64, domain: Option<&str>) -> String {
    let mixed = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match domain {
        Some(domain) => format!("{mixed:016x}@{domain}"),
        None => format!("{mixed:016x}@d{}.example", mixed % 100),
    }
}
