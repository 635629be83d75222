//! XML: inbound stream, and writer of elements.

pub(super) mod element_builder;
pub mod padding;
pub(super) mod stream;
pub(super) mod tokenizer;
pub mod writer;
