//! Elements in the namespace of the prefix `xml`.
//!
//! Anyone may send `<xml:x/>`, which is well-formed. Prosody and ejabberd pass it on as
//! `<x xmlns='http://www.w3.org/XML/1998/namespace'/>`, which is not: that name must not be declared
//! (Namespaces in XML 1.0 §3), and the parser ends the stream. So the declaration is replaced before
//! it is parsed, by one of the same length, and understood afterwards. Servers escape quotes in text,
//! so what is replaced is a declaration.

/// COMPAT: what Prosody 0.12 and ejabberd 23.01 write, and what is parsed in its place.
const RESERVED: &[u8] = b"http://www.w3.org/XML/1998/namespace";
const REPLACED: &[u8] = b"urn:gjallar:the-reserved-xml-name-sp";
const BEFORE: &[u8] = b" xmlns=";

/// Replaces declarations in what was read. Returns how much of it can be parsed: the rest may be the
/// beginning of one, and has to be looked at again with what comes next.
pub(super) fn replace(bytes: &mut [u8]) -> usize {
    let whole = BEFORE.len() + 1 + RESERVED.len();
    let mut from = 0;
    while let Some(found) = find(bytes.get(from..).unwrap_or_default(), BEFORE) {
        let start = from + found;
        let Some(declaration) = bytes.get_mut(start..start + whole) else { break };
        if let Some([b'\'' | b'"', value @ ..]) = declaration.get_mut(BEFORE.len()..)
            && value == RESERVED
        {
            value.copy_from_slice(REPLACED);
        }
        from = start + 1;
    }
    // What ends with a beginning of a declaration waits; a stanza ends with `>`, so none does.
    let tail = bytes.len().saturating_sub(whole - 1);
    (tail..bytes.len())
        .find(|start| bytes.get(*start..).is_some_and(is_beginning))
        .unwrap_or(bytes.len())
}

/// The namespace that was meant.
pub(super) fn restore(namespace: String) -> String {
    if namespace.as_bytes() == REPLACED {
        String::from_utf8_lossy(RESERVED).into_owned()
    } else {
        namespace
    }
}

fn is_beginning(bytes: &[u8]) -> bool {
    let (name, rest) = bytes.split_at(bytes.len().min(BEFORE.len()));
    let (quote, value) = rest.split_at(rest.len().min(1));
    BEFORE.starts_with(name) && matches!(quote, [] | [b'\'' | b'"']) && RESERVED.starts_with(value)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_declaration_wherever_it_is_cut() {
        let text = b"<x xmlns='http://www.w3.org/XML/1998/namespace'/>";
        for cut in 0..=text.len() {
            let mut buffer = text[..cut].to_vec();
            let ready = replace(&mut buffer);
            let mut parsed = buffer[..ready].to_vec();
            let mut rest = buffer[ready..].to_vec();
            rest.extend_from_slice(&text[cut..]);
            assert_eq!(replace(&mut rest), rest.len());
            parsed.extend_from_slice(&rest);
            assert_eq!(parsed, b"<x xmlns='urn:gjallar:the-reserved-xml-name-sp'/>", "{cut}");
        }
        assert_eq!(REPLACED.len(), RESERVED.len());
    }

    #[test]
    fn leaves_everything_else_as_it_is() {
        for text in [
            "<x a='http://www.w3.org/XML/1998/namespace'/>",
            "<x>xmlns=http://www.w3.org/XML/1998/namespace</x>",
            "<x xmlns='http://www.w3.org/XML/1998/namespacX'/>",
            "<x xmlns=_http://www.w3.org/XML/1998/namespace/>",
            "<iq xmlns='jabber:client'/>",
            "<x data-xmlns='http://www.w3.org/XML/1998/namespace'/>",
        ] {
            let mut bytes = text.as_bytes().to_vec();
            let ready = replace(&mut bytes);
            assert_eq!((bytes.as_slice(), ready), (text.as_bytes(), text.len()));
        }
    }
}
