//! The identity form of an address that a server stamped.
//!
//! Some servers stamp the sender's address as its user typed it at login: in capitals, in fullwidth letters, with a
//! ligature. All of these are one account, and have one identity form.

use std::borrow::Cow;

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};
use idna::uts46::{AsciiDenyList, Hyphens, Uts46};

use crate::{
    prepare,
    spellings::{MAX_LABEL_CHARS, with_u_labels},
};

/// How often a domain is mapped: UTS 46 may map a character to one that it maps again, to a dot or to nothing.
const MAX_MAPPINGS: usize = 3;

/// How many different letters [`mapped`] makes equal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mapping {
    /// Case, width and compatibility characters.
    Lower,
    /// Also letters that only case folding makes equal, such as ß and ss.
    Fold,
}

/// Whether a bare address is lower-case ASCII, and thereby equals its identity form. Most addresses do.
pub(crate) fn is_plain(bare: &str) -> bool {
    !bare.ends_with('.') && bare.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase() && b != b'[')
}

/// Prepares a localpart by UsernameCaseMapped. A localpart that RFC 7622 refuses is mapped first; if it is still
/// refused, the mapped one is used.
pub(crate) fn localpart(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return lower_case(text);
    }
    let prepared = prepare::localpart(text).unwrap_or_else(|_| {
        let mapped = mapped(text, Mapping::Lower);
        prepare::localpart(&mapped).unwrap_or(mapped)
    });
    prepared.into()
}

/// The domain in lower case, as UTS 46 maps it. A-labels stay A-labels, because the server may know the domain by them
/// only.
pub(crate) fn domain(text: &str) -> Cow<'_, str> {
    if let Some(ip) = prepare::ipv6(text) {
        return ip.into();
    }
    if text.is_ascii() {
        return lower_case(without_root(text));
    }
    let mut domain = text.to_owned();
    for _ in 0..MAX_MAPPINGS {
        let labels: Vec<_> = domain.split('.').map(label).collect();
        domain = labels.join(".");
        domain.truncate(without_root(&domain).len());
    }
    domain.into()
}

/// A domain without the trailing dots of the root.
fn without_root(domain: &str) -> &str {
    let name = domain.trim_end_matches('.');
    if name.is_empty() { domain } else { name }
}

fn label(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return lower_case(text);
    }
    if text.chars().count() <= MAX_LABEL_CHARS {
        let deny = AsciiDenyList::URL;
        let (unicode, outcome) = Uts46::new().to_unicode(text.as_bytes(), deny, Hyphens::Allow);
        if outcome.is_ok() {
            return unicode;
        }
    }
    mapped(text, Mapping::Lower).into()
}

fn lower_case(ascii: &str) -> Cow<'_, str> {
    match ascii.bytes().any(|b| b.is_ascii_uppercase()) {
        true => ascii.to_ascii_lowercase().into(),
        false => ascii.into(),
    }
}

/// The fold of a localpart: Nodeprep (RFC 3454, table B.2) with current Unicode data, which is NFKC_Casefold except for a
/// few newer letters.
pub(crate) fn folded_localpart(text: &str) -> String {
    mapped(text, Mapping::Fold)
}

/// The domain, folded in the same way, with U-labels.
pub(crate) fn folded_domain(text: &str) -> String {
    mapped(&with_u_labels(text), Mapping::Fold)
}

/// The text in lower case and NFC, with compatibility characters replaced and ignorable characters removed.
///
/// A compatibility character whose replacement contains a separator of the parts of an address, or a character that no
/// part may contain, is kept.
fn mapped(text: &str, mapping: Mapping) -> String {
    let nfkd = DecomposingNormalizerBorrowed::new_nfkd();
    let is_ignorable = |c: char| {
        // Stringprep (RFC 3454, B.1) leaves it out too.
        c == '\u{1806}' || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
    };
    let separates = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '/');
    let mut mapped = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !is_ignorable(*c)) {
        let mut buffer = [0; 4];
        let stands_for = nfkd.normalize(c.encode_utf8(&mut buffer));
        if stands_for.contains(separates) {
            mapped.push(c);
            continue;
        }
        for c in stands_for.chars().flat_map(char::to_lowercase) {
            match (mapping, c) {
                (Mapping::Fold, 'ß') => mapped.push_str("ss"),
                (Mapping::Fold, 'ς') => mapped.push('σ'),
                // The iota below a Greek vowel.
                (Mapping::Fold, '\u{345}') => mapped.push('ι'),
                (_, c) => mapped.push(c),
            }
        }
    }
    ComposingNormalizerBorrowed::new_nfc().normalize(&mapped).into_owned()
}
