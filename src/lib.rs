//! gjallar: a standalone publish-subscribe service (XEP-0060) for any XMPP server.
//!
//! A request passes five stages:
//!
//! | stage | module | pure? | result |
//! |---|---|---|---|
//! | parse | [`xmpp::stanza`] | yes | a typed request |
//! | decide | [`gjallar_pubsub`] | yes | what XEP-0060 answers for this node and this actor: a reply, changes, log entries |
//! | commit | [`store`] | no | all changes of a decision, or none, durable |
//! | deliver | [`service`], [`xmpp`] | no | notifications to subscribers, in the order of the commits |
//! | render | [`xmpp::stanza`] | yes | stanzas |
//!
//! [`xmpp`] is the XMPP side with the ad-hoc commands. [`admin`] is the administration by the command line. [`config`]
//! is the configuration. [`runtime`] starts and stops the process. [`migrate`] reads archives and the stores of other
//! services. [`client`] is a client for bots and subscribers. `docs/ARCHITECTURE.md` follows one publish request.
//!
//! ```
//! use std::sync::Arc;
//!
//! use gjallar::{
//!     runtime::{RandomIds, now},
//!     service::Service,
//!     store::MemoryStore,
//! };
//! use gjallar_pubsub::{
//!     Actor, Limits, NodeId, Payload, op::{create::Create, publish::{NewItem, Publish}},
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Arc::new(MemoryStore::new());
//! let service =
//!     Service::open(store, Limits::default(), Arc::new(RandomIds::default()), Arc::new(now)).await?;
//! let hamlet = Actor {
//!     jid: jid::Jid::new("hamlet@denmark.lit/elsinore")?,
//!     is_administrator: false,
//! };
//!
//! let node = NodeId::parse("princely_musings")?;
//! let create = Create { node: Some(node.clone()), settings: Vec::new() };
//! service.execute(&hamlet, &create).await?;
//!
//! let payload = Payload::new("<title xmlns='http://www.w3.org/2005/Atom'>Soliloquy</title>",
//!     "http://www.w3.org/2005/Atom");
//! let items = vec![NewItem { id: None, payload: Some(payload) }];
//! let publish = Publish { node, items, options: Vec::new(), expected_newest: None };
//! let published = service.execute(&hamlet, &publish).await?;
//! assert_eq!(published.items.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

pub mod admin;
pub mod client;
pub mod config;
pub(crate) mod http;
pub mod migrate;
pub mod runtime;
pub mod service;
pub mod store;
pub mod xmpp;
