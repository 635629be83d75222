//! Patterns of node names in requests.

use std::collections::HashMap;

/// Maximum length of a pattern in characters. The states of the automaton are the bits of a `u128`: one for each
/// character, and one for the beginning.
const MAX_CHARS: usize = 127;

/// Pattern in which `*` matches any characters and `?` matches one character; a pattern without `*` and `?` matches the
/// names that contain it. Upper and lower case are equal.
///
/// The match takes one pass over the name, whatever the pattern: the states of the automaton are the bits of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    /// For each letter, the states (as bits) that the letter advances.
    letters: HashMap<char, u128>,
    /// States that any character advances (`?`).
    any: u128,
    /// States that any character keeps (`*`).
    stars: u128,
    /// State at the end of the pattern.
    end: u128,
}

/// Returns the pattern that matches all names.
impl Default for NamePattern {
    fn default() -> Self {
        Self { letters: HashMap::new(), any: 0, stars: 1, end: 1 }
    }
}

impl NamePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`BadRequest`](gjallar_pubsub::Error::BadRequest) if the pattern has more than 127 characters.
    pub fn parse(pattern: &str) -> Result<Self, gjallar_pubsub::Error> {
        if pattern.chars().count() > MAX_CHARS {
            return Err(gjallar_pubsub::Error::BadRequest("a pattern has at most 127 characters"));
        }
        let is_part = !pattern.contains(['*', '?']);
        let mut parsed = Self { stars: u128::from(is_part), ..Self::default() };
        for character in pattern.chars() {
            let advanced = match character {
                '*' => {
                    parsed.stars |= parsed.end;
                    continue;
                }
                '?' => &mut parsed.any,
                letter => parsed.letters.entry(folded(letter)).or_default(),
            };
            *advanced |= parsed.end;
            parsed.end <<= 1;
        }
        if is_part {
            parsed.stars |= parsed.end;
        }
        Ok(parsed)
    }

    /// Returns `true` if a name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let next = |states: u128, character: char| {
            let letter = self.letters.get(&folded(character)).copied().unwrap_or_default();
            (states & (letter | self.any)) << 1 | states & self.stars
        };
        name.chars().fold(1, next) & self.end != 0
    }
}

/// Returns the lower case of a letter, as one character.
fn folded(letter: char) -> char {
    letter.to_lowercase().next().unwrap_or(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap().matches(name)
    }

    /// Returns `true` if a pattern with `*` or `?` matches a name. This reference for the test applies the meaning of
    /// the two characters directly.
    fn is_expected(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, _) => name.is_empty(),
            (Some(('*', rest)), _) => {
                (0..=name.len()).any(|skipped| is_expected(rest, &name[skipped..]))
            }
            (Some((_, _)), None) => false,
            (Some((one, rest)), Some((first, others))) => {
                (*one == '?' || one == first) && is_expected(rest, others)
            }
        }
    }

    #[test]
    fn patterns_match_names() {
        assert_eq!(NamePattern::parse("").unwrap(), NamePattern::default());
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "anything", true),
            ("news", "the NEWS of today", true),
            ("news", "new", false),
            ("É", "café", true),
            ("*", "", true),
            ("?", "", false),
            ("?", "ß", true),
            ("n?ws/*", "news/", true),
            ("n?ws/*", "x/news/", false),
            ("[a-z]*", "b", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn matches_equal_the_definition() {
        let words = |letters: &[char], longest: usize| {
            let mut words = vec![Vec::new()];
            for begun in 0.. {
                if words.get(begun).is_none_or(|word: &Vec<char>| word.len() == longest) {
                    return words;
                }
                for letter in letters {
                    words.push([&*words[begun], &[*letter]].concat());
                }
            }
            words
        };
        let names = words(&['a', 'b'], 5);
        let has_wildcard = |word: &&Vec<char>| word.contains(&'*') || word.contains(&'?');
        for pattern in words(&['a', 'b', '*', '?'], 4).iter().filter(has_wildcard) {
            let parsed = NamePattern::parse(&pattern.iter().collect::<String>()).unwrap();
            for name in &names {
                let text: String = name.iter().collect();
                assert_eq!(parsed.matches(&text), is_expected(pattern, name), "{pattern:?} {text}");
            }
        }
    }

    #[test]
    fn patterns_have_a_maximum_length() {
        for letter in ["é", "?", "*"] {
            assert!(matches(&letter.repeat(127), &"É".repeat(127)));
            let refused = NamePattern::parse(&letter.repeat(128));
            assert!(matches!(refused, Err(gjallar_pubsub::Error::BadRequest(_))));
        }
        assert!(!matches(&"a".repeat(127), &"a".repeat(126)));
        assert!(matches(&"a".repeat(127), &"a".repeat(1023)));
    }
}
