//! Readers for Prosody's mod_pubsub: nodes in the store `pubsub_nodes`, the items of each in an archive of its own.

mod files;
mod lua;
mod node;
mod sql;

pub(super) use files::ProsodyFileReader;
pub(super) use sql::ProsodySqlReader;
