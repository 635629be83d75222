//! The XMPP side: one connection to a server, as an external component (XEP-0114).

mod answer_queue;
mod answers;
mod barriers;
mod builder;
mod bursts;
mod capabilities;
mod deferred;
mod dial;
mod dispatch;
mod doctor;
mod lane;
mod login;
mod multicast;
mod others;
mod pace;
mod presence;
mod privilege;
mod probes;
mod rate;
mod resources;
mod session;
mod showing;
mod stream;
mod telling;
mod tokens;
mod writer;

pub use answers::ReplyQueue;
pub use dial::Transport;
pub use dispatch::Router;
pub use doctor::{Doctor, Finding, Verdict};
pub use lane::QueueLimits;
pub use multicast::{MulticastConfig, MulticastDiscovery};
pub use rate::RateLimits;
pub use session::{ComponentConfig, ComponentSession, DisconnectReason};
pub use stream::{StanzaLimits, StreamElement, StreamFault, StreamReader};
pub use writer::OutboundWriter;
