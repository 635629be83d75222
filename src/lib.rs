//! gjallar: a standalone publish-subscribe service (XEP-0060) for any XMPP server.
//!
//! **A request goes in; a decision comes out; the decision is committed; what was committed is told.**
//!
//! | verb | where | pure? | question |
//! |---|---|---|---|
//! | parse | [`wire`] | yes | what is being asked? |
//! | decide | [`pubsub`] | yes | what does XEP-0060 say to that, for this node and this actor? |
//! | commit | [`store`] | no | make it true, all or nothing, durable |
//! | tell | [`service`], [`component`] | no | who hears of it, in which order |
//! | render | [`wire`] | yes | how does the answer look? |
//!
//! [`component`] is the XMPP side, [`command`] the ad-hoc commands, [`control`] the socket of the command
//! line, [`process`] puts it together. [`client`] is the other side: bots and subscribers.
//! [`foreign`] reads what other services kept, for those who move in.
//! `docs/ARCHITECTURE.md` walks through a publish.
//!
//! ```
//! use std::sync::Arc;
//!
//! use gjallar::{
//!     runtime::{Random, now},
//!     pubsub::{Actor, Limits, NodeId, Payload, op::{create::Create, publish::{NewItem, Publish}}},
//!     service::Service,
//!     store::MemoryStore,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Arc::new(MemoryStore::new());
//! let service =
//!     Service::open(store, Limits::default(), Arc::new(Random::default()), Arc::new(now)).await?;
//! let hamlet = Actor {
//!     jid: jid::Jid::new("hamlet@denmark.lit/elsinore")?,
//!     is_administrator: false,
//! };
//!
//! let node = NodeId::parse("princely_musings")?;
//! let create = Create { node: Some(node.clone()), settings: Vec::new() };
//! service.create(&hamlet, &create, |outcome| outcome).await.await?;
//!
//! let payload = Payload::new("<title xmlns='http://www.w3.org/2005/Atom'>Soliloquy</title>",
//!     "http://www.w3.org/2005/Atom");
//! let items = vec![NewItem { id: None, payload: Some(payload) }];
//! let publish = Publish { node, items, options: Vec::new(), compared: None };
//! let published = service.publish(&hamlet, &publish, |outcome| outcome).await.await?;
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
