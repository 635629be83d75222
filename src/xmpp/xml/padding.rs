//! White space after long tags and at the end of each write, for servers whose parser waits for more bytes.
//!
//! COMPAT: libexpat 2.6 and later (Prosody on Debian 13) parses an incomplete tag again only after the number of its
//! bytes has doubled. If a whole read of the server has only a part of a tag, the tag and everything after it on the
//! stream stay in the parser until enough bytes have arrived. A tag of n bytes that is followed by n bytes never waits.

use memchr::memchr;

use gjallar_pubsub::{SHORT_TAG, relayed_len};

/// Returns the number of spaces that have to follow a text of whole stanzas. Without them, long tags of the text could
/// wait in the server's parser.
#[must_use]
pub fn padding(stanzas: &str) -> usize {
    padding_of_tags(stanzas.as_bytes(), SHORT_TAG)
}

/// Returns the number of spaces that have to follow the last stanza of a write. Without them, short tags of the stanza
/// could wait in the server's parser. Short tags need the spaces too: a network may deliver a part of a tag, even of
/// one that is shorter than a TCP segment.
#[must_use]
pub fn end_padding(stanzas: &str) -> usize {
    let begin = stanzas.len().saturating_sub(2 * SHORT_TAG);
    stanzas.as_bytes().get(begin..).map_or(0, |end| padding_of_tags(end, 0))
}

/// Returns the number of spaces that have to follow a text, so that tags longer than `short` do not wait in the
/// server's parser.
fn padding_of_tags(mut rest: &[u8], short: usize) -> usize {
    let mut spaces = 0;
    // Attributes and text contain no unescaped '<' or '>'.
    while rest.len() > short
        && let Some(tag) = memchr(b'<', rest).and_then(|begin| rest.get(begin..))
        && let Some((tag, after)) = memchr(b'>', tag).and_then(|end| tag.split_at_checked(end + 1))
    {
        rest = after;
        if tag.len() > short {
            spaces = spaces.max(tag.len().saturating_sub(rest.len()));
        }
    }
    spaces
}

/// Returns `true` if the total size of a text of whole stanzas and its padding is at most `max_bytes` bytes. The
/// padding counts, because the size limit of a server applies to all bytes that its parser holds.
#[must_use]
pub fn fits(stanzas: &str, max_bytes: usize) -> bool {
    // The padding is never longer than the text.
    stanzas.len() <= max_bytes / 2 || stanzas.len() + longest_padding(stanzas) <= max_bytes
}

/// Room for attributes that servers add to a stanza on the way, such as `xml:lang`.
const ADDED_ATTRIBUTES_BYTES: usize = 100;

/// Returns `true` if stanzas fit the limit of another server to which a server relays them ([`relayed_len`]).
#[must_use]
pub fn fits_relayed(stanzas: &str, max_bytes: usize) -> bool {
    let max_bytes = max_bytes.saturating_sub(ADDED_ATTRIBUTES_BYTES);
    // Relayed and padded, the text is never longer than seven times itself.
    stanzas.len() <= max_bytes / 7 || relayed_len(stanzas) + longest_padding(stanzas) <= max_bytes
}

fn longest_padding(stanzas: &str) -> usize {
    padding(stanzas).max(end_padding(stanzas))
}

/// Appends the [padding] of the text.
pub fn pad(stanzas: &mut String) {
    write_spaces(padding(stanzas), stanzas);
}

/// Appends spaces.
pub fn write_spaces(number: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', number));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `true` if libexpat 2.6 has parsed all tags after receiving a text in a first read of `first` bytes and
    /// further reads of `read` bytes.
    fn is_parsed(text: &str, first: usize, read: usize) -> bool {
        let (mut begin, mut end, mut had_before) = (0, first.min(text.len()), 0);
        loop {
            if end - begin >= 2 * had_before {
                let consumed = text[begin..end].rfind('>').map_or_else(
                    || text[begin..end].find('<').unwrap_or(end - begin),
                    |last| {
                        last + 1
                            + text[begin + last + 1..end]
                                .find('<')
                                .unwrap_or(end - begin - last - 1)
                    },
                );
                begin += consumed;
                had_before = if consumed == 0 { end - begin } else { 0 };
            }
            if end == text.len() {
                return !text[begin..].contains('>');
            }
            end = (end + read).min(text.len());
        }
    }

    #[test]
    fn a_padded_stanza_leaves_no_tag_in_the_parser() {
        let mut is_needed = false;
        for n in [1_000, 3_000, 5_000, 9_000, 12_000, 20_000, 36_000, 60_000] {
            let value = "v".repeat(n);
            for stanza in [
                format!("<message><x a='{value}'/></message>"),
                format!("<message><x><{value}>text</{value}></x></message>"),
                format!("<m><x xmlns='{value}'/></m><m><x a='{value}'/><y/></m><m/>"),
            ] {
                let mut padded = stanza.clone();
                pad(&mut padded);
                assert!(padded.len() <= stanza.len() + n + 20);
                for read in [1_220, 1_448, 4_096] {
                    for first in (1..=read).step_by(97) {
                        assert!(is_parsed(&padded, first, read), "{n} {first} {read}");
                        is_needed |= !is_parsed(&stanza, first, read);
                    }
                }
            }
        }
        assert!(is_needed, "the model of the parser never waits");
    }

    #[test]
    fn padding_counts_for_the_limit() {
        let long = format!("<m><x a='{}'/></m>", "v".repeat(10_000));
        let padded = long.len() + padding(&long);
        assert!(fits(&long, padded) && !fits(&long, padded - 1));
        let text = format!("<m>{}</m>", "x".repeat(10_000));
        let padded = text.len() + end_padding(&text);
        assert!(fits(&text, padded) && !fits(&text, padded - 1));
    }

    /// A first read may end anywhere, also within a tag that is shorter than a segment.
    #[test]
    fn a_padded_write_leaves_no_short_tag_in_the_parser() {
        let mut is_needed = false;
        for n in [0, 100, 300, 900, 1_000] {
            let value = "v".repeat(n);
            let text = "x".repeat(2_000);
            let stanza = format!("<m><t>{text}</t><l h='{value}'/></m><iq id='{value}'/>");
            let padded = format!("{stanza}{}", " ".repeat(end_padding(&stanza)));
            assert!(padded.len() <= stanza.len() + n + 20);
            for read in [100, 248, 1_448] {
                for first in 1..=padded.len() {
                    assert!(is_parsed(&padded, first, read), "{n} {first} {read}");
                    is_needed |= !is_parsed(&stanza, first, read);
                }
            }
        }
        assert!(is_needed, "the model of the parser never waits");
    }

    #[test]
    fn short_tags_and_long_text_need_no_padding() {
        let text = "x".repeat(60_000);
        assert_eq!(padding(&format!("<m><x a='{}'>{text}</x></m>", "v".repeat(1_000))), 0);
        // Text after a tag counts as padding.
        let tag = format!("<x a='{}'/>", "v".repeat(10_000));
        assert_eq!(padding(&format!("<m>{tag}{text}</m>")), 0);
        assert_eq!(padding(&format!("<m>{tag}</m>")), tag.len() - "</m>".len());
    }
}
