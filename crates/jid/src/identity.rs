//! Identity form of a stamped address. A stamped address is one that a server set as the `from` of a stanza.
//!
//! Some servers stamp the sender's address as its user typed it at login: in capitals, in fullwidth letters, with a
//! ligature. All these spellings belong to one account, and have one identity form.
//!
//! Servers that prepare addresses by Stringprep (RFC 3454) know only Unicode 3.2. Such a server may leave characters of
//! later Unicode versions unchanged: `ᵃdmin`, with a letter of Unicode 4.0, and `admin` are then different accounts.
//! Therefore two spellings have the same identity form only if two conditions are met. First, Stringprep maps both to
//! the same text. Second, RFC 7622 also maps both to the same text, or rejects at least one of them.

use std::borrow::Cow;

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use stringprep::tables::{case_fold_for_nfkc, commonly_mapped_to_nothing, unassigned_code_point};

use crate::{prepare, spellings::with_u_labels};

/// Characters that Unicode 3.2 decomposes differently from later versions (Unicode Corrigendum 4).
const CORRECTED: [char; 5] = ['\u{2f868}', '\u{2f874}', '\u{2f91f}', '\u{2f95f}', '\u{2f9bf}'];
/// Characters that Stringprep removes, but RFC 7622 allows in some contexts. The identity form keeps them in a
/// localpart or domain that is valid by RFC 7622.
const ALLOWED: [char; 3] = ['\u{1806}', '\u{200c}', '\u{200d}'];

/// Returns `true` if a bare address is lower-case ASCII without `[` and without a final dot, as most addresses are.
/// Such an address equals its identity form.
pub(crate) fn is_plain(bare: &str) -> bool {
    !bare.ends_with('.')
        && bare.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase() && b != b'[')
}

pub(crate) fn localpart(text: &str) -> Cow<'_, str> {
    mapped(text, || prepare::localpart(text).is_ok())
}

/// Returns the identity form of a domain. A-labels remain unchanged, because the server may know the domain only by
/// them.
pub(crate) fn domain(text: &str) -> Cow<'_, str> {
    if let Some(ip) = prepare::ipv6(text) {
        return ip.into();
    }
    let mut domain = mapped(text, || prepare::domain(text).is_ok()).into_owned();
    domain.truncate(without_root(&domain).len());
    domain.into()
}

/// Removes the trailing dots of the root from a domain.
fn without_root(domain: &str) -> &str {
    let name = domain.trim_end_matches('.');
    if name.is_empty() { domain } else { name }
}

/// Maps a text to lower case and NFC, replaces compatibility characters and removes ignorable characters. `is_allowed`
/// returns `true` if RFC 7622 allows the text. In that case the [`ALLOWED`] characters of the text are not removed.
fn mapped(text: &str, is_allowed: impl FnOnce() -> bool) -> Cow<'_, str> {
    if text.is_ascii() {
        return match text.bytes().any(|b| b.is_ascii_uppercase()) {
            true => text.to_ascii_lowercase().into(),
            false => text.into(),
        };
    }
    let contextual: &[char] = if text.contains(ALLOWED) && is_allowed() { &ALLOWED } else { &[] };
    let is_ignored = |c: char| commonly_mapped_to_nothing(c) && !contextual.contains(&c);
    let mut mapped = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars().filter(|c| !is_ignored(*c)).flat_map(decomposed) {
        if is_unchanged(c) {
            mapped.push_str(&composed(&run.to_lowercase()));
            mapped.push(c);
            run.clear();
        } else {
            run.push(c);
        }
    }
    mapped.push_str(&composed(&run.to_lowercase()));
    mapped.into()
}

/// Returns `true` if Stringprep does not map this character, although current Unicode may map it.
fn is_unchanged(c: char) -> bool {
    let is_folded = || case_fold_for_nfkc(c).ne([c]);
    let is_lower_cased = || c.to_lowercase().ne([c]);
    unassigned_code_point(c) || CORRECTED.contains(&c) || is_lower_cased() && !is_folded()
}

/// Returns the fold of a localpart or a domain. Spellings that Stringprep or RFC 7622 makes equal have the same fold.
pub(crate) fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let retained = text.chars().filter(|c| !commonly_mapped_to_nothing(*c));
    let lower = retained.flat_map(char::to_lowercase);
    for c in lower.flat_map(decomposed).flat_map(char::to_lowercase) {
        match c {
            'ß' => folded.push_str("ss"),
            'ς' => folded.push('σ'),
            // Iota below a Greek vowel.
            '\u{345}' => folded.push('ι'),
            _ => folded.push(c),
        }
    }
    composed(&folded)
}

/// Converts the A-labels of a domain to U-labels, and returns the [fold](folded) of the result.
pub(crate) fn folded_domain(text: &str) -> String {
    folded(&with_u_labels(text))
}

/// Returns the compatibility decomposition (NFKD) of a character. The result is the character itself if Unicode 3.2
/// does not contain it or decomposes it differently. The result is also the character itself if the decomposition
/// contains a separator of the parts of an address, or a character that no part may contain.
fn decomposed(c: char) -> impl Iterator<Item = char> {
    let separates = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '/');
    let nfkd = DecomposingNormalizerBorrowed::new_nfkd();
    let is_later = unassigned_code_point(c) || CORRECTED.contains(&c);
    let decomposed: Vec<_> =
        if is_later { vec![c] } else { nfkd.normalize_iter([c].into_iter()).collect() };
    let is_unchanged = decomposed.iter().any(|c| separates(*c));
    // Stringprep and UTS 46 replace the compatibility characters of ς by σ.
    let sigma = move |part: char| if part == 'ς' && c != 'ς' { 'σ' } else { part };
    if is_unchanged { vec![c] } else { decomposed }.into_iter().map(sigma)
}

fn composed(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned()
}
