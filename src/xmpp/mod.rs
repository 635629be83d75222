//! XMPP front end: one connection to a server, as an external component (XEP-0114).

mod connect;
mod doctor;
pub mod error;
mod handlers;
mod handshake;
mod outbound;
mod probes;
mod request_pacing;
mod router;
mod run;
mod sender_bursts;
mod sender_queue;
mod session;
pub mod stanza;
pub mod xml;

pub use connect::Transport;
pub use doctor::{Doctor, Finding, Verdict};
pub use outbound::multicast::MulticastConfig;
pub use run::XmppFrontEnd;
pub use sender_queue::QueueLimits;
pub use session::ComponentConfig;
pub use xml::stream::{StanzaLimits, StreamElement, StreamFault, StreamReader};
