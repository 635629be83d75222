//! Readers for Prosody's mod_pubsub: the store `pubsub_nodes` has the nodes; the items of each node are in an archive
//! of their own.

mod files;
mod lua;
mod node;
mod sql;

pub(super) use files::ProsodyFileReader;
pub(super) use sql::ProsodySqlReader;
