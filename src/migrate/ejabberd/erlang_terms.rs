//! Erlang terms as ejabberd writes them into tables: atoms, numbers, binaries, strings, and lists of these.

/// Converts a term to text, a list to one line per element; `None` for other terms.
pub(in crate::migrate) fn text(term: &str) -> Option<String> {
    let mut rest = term.trim();
    let Some(list) = rest.strip_prefix('[') else {
        let (value, rest) = value(rest)?;
        return rest.trim().is_empty().then_some(value);
    };
    rest = list.trim_start();
    let mut values = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(']') {
            return end.trim().is_empty().then(|| values.join("\n"));
        }
        let (value, after) = value(rest)?;
        values.push(value);
        let after = after.trim_start();
        rest = after.strip_prefix(',').map_or(after, str::trim_start);
    }
}

/// Parses the first value; returns the value and the rest of the text.
fn value(text: &str) -> Option<(String, &str)> {
    if let Some(binary) = text.strip_prefix("<<") {
        let (inside, rest) = match binary.strip_prefix('"') {
            Some(quoted) => string(quoted, '"')?,
            None => bytes(binary)?,
        };
        let rest = rest.strip_prefix("/utf8").unwrap_or(rest);
        return Some((inside, rest.strip_prefix(">>")?));
    }
    if let Some(quote @ ('\'' | '"')) = text.chars().next() {
        return string(text.get(1..)?, quote);
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | '-' | '.');
    let end = text.find(|c| !is_plain(c)).unwrap_or(text.len());
    let (plain, rest) = text.split_at_checked(end)?;
    (!plain.is_empty()).then(|| (plain.to_owned(), rest))
}

/// Splits a text at the closing quote.
fn string(text: &str, quote: char) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((inside, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => inside.push('\n'),
                'r' => inside.push('\r'),
                't' => inside.push('\t'),
                c @ ('"' | '\\' | '\'') => inside.push(c),
                _ => return None,
            },
            c => inside.push(c),
        }
    }
    None
}

/// Parses a binary written as numbers: `<<195,164>>`.
fn bytes(text: &str) -> Option<(String, &str)> {
    let (numbers, _) = text.split_once(">>")?;
    let bytes: Option<Vec<u8>> = match numbers.trim() {
        "" => Some(Vec::new()),
        numbers => numbers.split(',').map(|number| number.trim().parse().ok()).collect(),
    };
    Some((String::from_utf8(bytes?).ok()?, text.get(numbers.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_and_other_terms_are_refused() {
        for (term, expected) in [
            ("true", "true"),
            ("10", "10"),
            ("on_sub_and_presence", "on_sub_and_presence"),
            ("<<\"a \\\"title\\\" >>\">>", "a \"title\" >>"),
            ("<<\"\">>", ""),
            ("<<>>", ""),
            ("<<195,164>>", "ä"),
            ("<<\"ä\"/utf8>>", "ä"),
            ("'whitelist'", "whitelist"),
            ("\"a \\\"title\\\"\"", "a \"title\""),
            ("\"\"", ""),
            ("[\"a\", 'b', <<\"c\">>]", "a\nb\nc"),
            ("[]", ""),
            ("[<<\"a\">>, <<\"b\">>,c]", "a\nb\nc"),
        ] {
            assert_eq!(text(term).as_deref(), Some(expected), "{term}");
        }
        for term in [
            "",
            "{a,b}",
            "\"a",
            "\"a\"b",
            "<<\"a",
            "<<1,a>>",
            "<<300>>",
            "[a",
            "[[a]]",
            "a b",
            "<<\"\\x\">>",
        ] {
            assert_eq!(text(term), None, "{term}");
        }
    }
}
