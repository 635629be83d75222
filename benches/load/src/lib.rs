//! What the load and the programs it is compared with share: stanzas as bytes, and the two ends of XEP-0114.

pub mod link;
pub mod peer;
pub mod scan;

/// What a program is told that gjallar is compared with.
#[derive(clap::Parser)]
pub struct ComparedArgs {
    /// The server, HOST:PORT.
    pub server: String,
    #[arg(long, default_value = "pubsub.localhost")]
    pub jid: String,
    #[arg(long, default_value = "secret")]
    pub secret: String,
    /// Who hears of each item: so many.
    #[arg(long, default_value_t = 1)]
    pub subscribers: u64,
    /// Of which domain they are; without it, of a hundred.
    #[arg(long)]
    pub domain: Option<String>,
}

impl ComparedArgs {
    /// The names of those who hear of each item.
    pub fn subscribers(&self) -> impl Iterator<Item = String> {
        (0..self.subscribers).map(|index| user(index, self.domain.as_deref()))
    }
}

/// The name of a user, in no order that a store could profit from; of a domain, or of one of a hundred.
#[must_use]
pub fn user(index: u64, domain: Option<&str>) -> String {
    let mixed = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match domain {
        Some(domain) => format!("{mixed:016x}@{domain}"),
        None => format!("{mixed:016x}@d{}.example", mixed % 100),
    }
}
