//! XML: reading the stream into elements, and writing elements.

pub(super) mod element_builder;
pub mod padding;
pub(super) mod stream;
pub(super) mod tokenizer;
pub mod writer;
