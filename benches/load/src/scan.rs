//! Scanner for stanzas in a stream of bytes, without a parser, so that it hardly costs time beside
//! the measured program.
//!
//! Sufficient for the output of XMPP servers and components: no comments, no CDATA, no `>` in
//! attributes.

use memchr::{memchr, memmem};

/// Scanner for complete stanzas.
#[derive(Debug, Default)]
pub struct Scanner {
    depth: usize,
    /// Number of bytes of an incomplete stanza that were scanned already.
    seen: usize,
}

impl Scanner {
    /// Calls `each` for every complete stanza at the beginning of some bytes; returns the number of
    /// bytes consumed. The next call has to repeat the rest, with more data.
    pub fn stanzas(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> usize {
        let (mut begin, mut at) = (0, self.seen);
        while let Some(tag) = memchr(b'<', &bytes[at..]).map(|offset| at + offset) {
            let Some(end) = memchr(b'>', &bytes[tag..]).map(|offset| tag + offset) else {
                at = tag;
                break;
            };
            at = end + 1;
            if self.depth == 0 {
                // White space between stanzas is skipped.
                begin = tag;
            }
            match (bytes[tag + 1], bytes[end - 1]) {
                // The end of the stream.
                (b'/', _) if self.depth == 0 => break,
                (b'/', _) => self.depth -= 1,
                (_, b'/') => {}
                _ => {
                    self.depth += 1;
                    continue;
                }
            }
            if self.depth == 0 {
                each(&bytes[begin..at]);
                begin = at;
            }
        }
        self.seen = at.max(begin) - begin;
        begin
    }
}

/// Returns an attribute of a stanza's first tag.
#[must_use]
pub fn attribute<'a>(stanza: &'a [u8], name: &str) -> Option<&'a str> {
    let tag = &stanza[..memchr(b'>', stanza)?];
    let mut from = 0;
    loop {
        let at = from + memmem::find(&tag[from..], name.as_bytes())?;
        from = at + name.len();
        let quote = *tag.get(from + 1)?;
        if tag[at - 1] == b' ' && tag.get(from) == Some(&b'=') && matches!(quote, b'\'' | b'"') {
            let value = &tag[from + 2..];
            return std::str::from_utf8(&value[..memchr(quote, value)?]).ok();
        }
    }
}

/// Returns the text between two delimiters.
#[must_use]
pub fn between<'a>(stanza: &'a [u8], before: &str, after: &str) -> Option<&'a [u8]> {
    let from = memmem::find(stanza, before.as_bytes())? + before.len();
    let length = memmem::find(&stanza[from..], after.as_bytes())?;
    Some(&stanza[from..from + length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_found_wherever_they_are_cut() {
        let stanzas =
            ["<iq id='1' type=\"set\"><a><b/></a></iq>", "<message to='x'/>", "<iq id='2'/>"];
        for space in ["", "   "] {
            let text = stanzas.map(|stanza| format!("{stanza}{space}")).concat().into_bytes();
            for cut in 0..text.len() {
                let (mut scanner, mut found) = (Scanner::default(), Vec::new());
                let done = scanner.stanzas(&text[..cut], |stanza| found.push(stanza.to_vec()));
                scanner.stanzas(&text[done..], |stanza| found.push(stanza.to_vec()));
                assert_eq!(found, stanzas.map(str::as_bytes), "{cut}");
            }
        }
        let text = stanzas[0].as_bytes();
        assert_eq!(attribute(text, "type"), Some("set"));
        assert_eq!(between(text, "<a>", "</a>"), Some(&b"<b/>"[..]));
    }
}
