//! Parser for Lua tables as Prosody writes them into files. The files are not executed: variables, calls and
//! expressions are not supported.

/// Maximum nesting depth of tables.
const MAX_DEPTH: usize = 128;

/// Lua value. Booleans and numbers are stored as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LuaValue {
    Nil,
    Text(String),
    /// Table: values without a key, and values with a key.
    Table {
        list: Vec<Self>,
        named: Vec<(String, Self)>,
    },
}

impl LuaValue {
    /// Returns a plain value as text.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Nil | Self::Table { .. } => None,
        }
    }

    /// Iterates over the keys and values of a table.
    pub(super) fn entries(&self) -> impl Iterator<Item = (String, &Self)> {
        let named = match self {
            Self::Table { named, .. } => &named[..],
            Self::Nil | Self::Text(_) => &[],
        };
        named.iter().map(|(key, value)| (key.clone(), value))
    }

    /// Returns the value of a key, if this is a table with that key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Table { named, .. } => {
                named.iter().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            Self::Nil | Self::Text(_) => None,
        }
    }

    /// Returns those values of a table that have no key.
    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::Table { list, .. } => list,
            Self::Nil | Self::Text(_) => &[],
        }
    }
}

/// Parses a file that returns one value: `return { … };`
pub(super) fn returned(file: &[u8]) -> Option<LuaValue> {
    let mut reader = LuaParser { rest: file };
    reader.take(b"return")?;
    let value = reader.value(0)?;
    reader.take(b";");
    reader.is_at_end().then_some(value)
}

/// Parses a file that lists values: `item({ … });` for each.
pub(super) fn listed(file: &[u8]) -> Option<Vec<LuaValue>> {
    let mut reader = LuaParser { rest: file };
    let mut values = Vec::new();
    while !reader.is_at_end() {
        reader.take(b"item")?;
        reader.take(b"(")?;
        values.push(reader.value(0)?);
        reader.take(b")")?;
        reader.take(b";");
    }
    Some(values)
}

struct LuaParser<'a> {
    rest: &'a [u8],
}

impl LuaParser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    /// Consumes a word, after white space; `None` if the input differs.
    fn take(&mut self, word: &[u8]) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<LuaValue> {
        self.skip_space();
        match self.rest.first()? {
            b'{' if depth < MAX_DEPTH => self.table(depth),
            b'"' | b'\'' => self.string().map(LuaValue::Text),
            _ => match self.word()? {
                "nil" => Some(LuaValue::Nil),
                word @ ("true" | "false") => Some(LuaValue::Text(word.to_owned())),
                number => Some(LuaValue::Text(whole(number)?)),
            },
        }
    }

    fn table(&mut self, depth: usize) -> Option<LuaValue> {
        self.take(b"{")?;
        let (mut list, mut named) = (Vec::new(), Vec::new());
        while self.take(b"}").is_none() {
            if self.take(b"[").is_some() {
                let key = self.value(depth + 1)?.text()?;
                self.take(b"]")?;
                self.take(b"=")?;
                named.push((key, self.value(depth + 1)?));
            } else {
                list.push(self.value(depth + 1)?);
            }
            if self.take(b";").is_none() && self.take(b",").is_none() {
                self.take(b"}")?;
                break;
            }
        }
        Some(LuaValue::Table { list, named })
    }

    /// Parses a number or a name.
    fn word(&mut self) -> Option<&str> {
        let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
        let end = self.rest.iter().position(|byte| !is_of_word(byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        std::str::from_utf8(word).ok()
    }

    fn string(&mut self) -> Option<String> {
        let (quote, mut rest) = self.rest.split_first()?;
        let mut bytes = Vec::new();
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            match byte {
                byte if byte == quote => break,
                b'\\' => rest = escaped(rest, &mut bytes)?,
                byte => bytes.push(*byte),
            }
        }
        self.rest = rest;
        String::from_utf8(bytes).ok()
    }
}

/// Decodes an escape sequence after its backslash; returns the rest of the text.
fn escaped<'a>(text: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (first, rest) = text.split_first()?;
    let plain = match first {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' | b'\n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        b'"' | b'\'' | b'\\' => *first,
        b'0'..=b'9' => {
            let digits = text.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
            let (number, rest) = text.split_at_checked(digits)?;
            bytes.push(std::str::from_utf8(number).ok()?.parse().ok()?);
            return Some(rest);
        }
        _ => return None,
    };
    bytes.push(plain);
    Some(rest)
}

/// Formats a number as in a form: `20.0` becomes `20`.
#[allow(clippy::cast_possible_truncation)] // it is whole, and small
fn whole(number: &str) -> Option<String> {
    let value: f64 = number.parse().ok()?;
    let is_whole = value.fract() == 0.0 && value.abs() < 1e15;
    Some(if is_whole { (value as i64).to_string() } else { value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> LuaValue {
        LuaValue::Text(text.into())
    }

    #[test]
    fn tables_of_prosody_are_read() {
        let file = b"return {\n\t[\"a\"] = true;\n\t[\"b\"] = {\n\t\t\"c\\n\\195\\164\\\"\";\n\t\t{};\n\t};\n\t[1] = 20.0;\n};\n";
        let named = vec![
            ("a".into(), text("true")),
            (
                "b".into(),
                LuaValue::Table {
                    list: vec![
                        text("c\n\u{e4}\""),
                        LuaValue::Table { list: vec![], named: vec![] },
                    ],
                    named: vec![],
                },
            ),
            ("1".into(), text("20")),
        ];
        assert_eq!(returned(file), Some(LuaValue::Table { list: vec![], named }));
        assert_eq!(listed(b"item(\"a\");\nitem(1.5);\n"), Some(vec![text("a"), text("1.5")]));
        assert_eq!(listed(b" \n"), Some(vec![]));
    }

    #[test]
    fn other_lua_code_is_refused() {
        for bad in [
            "",
            "return",
            "return {",
            "return {}; os.exit()",
            "return os.exit()",
            "return { f() }",
            "return \"a",
            "return \"\\999\"",
            "return \"\\255\"",
            "return 1 + 1",
            "return { [{}] = 1 }",
            "return {1 2}",
        ] {
            assert_eq!(returned(bad.as_bytes()), None, "{bad}");
        }
        assert!(
            returned(format!("return {}{}", "{".repeat(100), "}".repeat(100)).as_bytes()).is_some()
        );
        let deep = format!("return {}{}", "{".repeat(200_000), "}".repeat(200_000));
        assert_eq!(returned(deep.as_bytes()), None);
        for bad in ["item(", "item(1", "item(1);x", "print(1)"] {
            assert_eq!(listed(bad.as_bytes()), None, "{bad}");
        }
    }
}
