//! Code shared by the load generator and the components that gjallar is compared with: stanzas as
//! bytes, and both ends of XEP-0114.

pub mod link;
pub mod peer;
pub mod scan;

/// Arguments of a component that gjallar is compared with.
#[derive(clap::Parser)]
pub struct ComparedArgs {
    /// Server, HOST:PORT.
    pub server: String,
    #[arg(long, default_value = "pubsub.localhost")]
    pub jid: String,
    #[arg(long, default_value = "secret")]
    pub secret: String,
    /// Number of subscribers of each node.
    #[arg(long, default_value_t = 1)]
    pub subscribers: u64,
    /// Domain of the subscribers; without it, they are in a hundred domains.
    #[arg(long)]
    pub domain: Option<String>,
}

impl ComparedArgs {
    /// Returns the JIDs of the subscribers.
    pub fn subscribers(&self) -> impl Iterator<Item = String> {
        (0..self.subscribers).map(|index| user(index, self.domain.as_deref()))
    }
}

/// Returns the JID of a user in this domain, or in one of a hundred; the order of the JIDs is
/// pseudo-random, so that a store cannot profit from it.
#[must_use]
pub fn user(index: u64, domain: Option<&str>) -> String {
    let mixed = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match domain {
        Some(domain) => format!("{mixed:016x}@{domain}"),
        None => format!("{mixed:016x}@d{}.example", mixed % 100),
    }
}
