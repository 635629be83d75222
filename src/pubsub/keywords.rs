//! Keywords of subscriptions (§12.20): searches a text for all of them in one pass.

use std::collections::HashMap;

/// The different keywords of a node's subscribers.
///
/// A search takes one binary search for each character of the text, whatever prefixes the keywords share.
pub(super) struct Keywords<'a> {
    /// In lower case, sorted.
    sorted: Vec<String>,
    /// For each keyword, the longest other one that it begins with.
    prefixes: Vec<Option<usize>>,
    /// The index of each keyword, as its subscriber wrote it.
    places: HashMap<&'a str, usize>,
}

impl<'a> Keywords<'a> {
    /// Prepares a search for these keywords; empty ones are ignored.
    pub(super) fn new(keywords: impl Iterator<Item = &'a str>) -> Self {
        let mut places: HashMap<_, _> =
            keywords.filter(|keyword| !keyword.is_empty()).map(|keyword| (keyword, 0)).collect();
        let mut all: Vec<_> =
            places.iter_mut().map(|(keyword, place)| (keyword.to_lowercase(), place)).collect();
        all.sort_unstable();
        let mut sorted = Vec::<String>::with_capacity(all.len());
        for (keyword, place) in all {
            if sorted.last() != Some(&keyword) {
                sorted.push(keyword);
            }
            *place = sorted.len() - 1;
        }
        let prefixes = prefixes(&sorted);
        Self { sorted, prefixes, places }
    }

    /// Whether a keyword is among those that were found.
    pub(super) fn is_in(&self, keyword: &str, found: &[bool]) -> bool {
        self.places.get(keyword).is_some_and(|place| found.get(*place) == Some(&true))
    }

    /// Finds the keywords that occur in the texts, ignoring case.
    pub(super) fn in_texts(&self, texts: impl Iterator<Item = String>) -> Vec<bool> {
        let mut found = vec![false; self.sorted.len()];
        for text in texts {
            let text = text.to_lowercase();
            for (start, _) in text.char_indices() {
                self.add(text.get(start..).unwrap_or_default(), &mut found);
            }
        }
        found
    }

    /// Marks the keywords that a text begins with.
    fn add(&self, text: &str, found: &mut [bool]) {
        // These are prefixes of the last keyword that does not sort after the text.
        let mut next =
            self.sorted.partition_point(|keyword| keyword.as_str() <= text).checked_sub(1);
        let Some(last) = next.and_then(|last| self.sorted.get(last)) else { return };
        let common = last.bytes().zip(text.bytes()).take_while(|(one, other)| one == other).count();
        while let Some(place) = next {
            if self.sorted.get(place).is_some_and(|keyword| keyword.len() <= common) {
                match found.get_mut(place) {
                    Some(is_found) if !*is_found => *is_found = true,
                    // Its prefixes are marked already.
                    _ => return,
                }
            }
            next = self.prefixes.get(place).copied().flatten();
        }
    }
}

/// For each of these sorted texts, the longest other one that it begins with.
fn prefixes(sorted: &[String]) -> Vec<Option<usize>> {
    let mut within = Vec::<(usize, &str)>::new();
    let prefix = |(place, text)| {
        while within.pop_if(|(_, outer)| !str::starts_with(text, *outer)).is_some() {}
        let prefix = within.last().map(|(place, _)| *place);
        within.push((place, text));
        prefix
    };
    sorted.iter().map(String::as_str).enumerate().map(prefix).collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// The keywords in a text, each searched for separately.
    fn expected<'a>(keywords: &[&'a str], text: &str) -> Vec<&'a str> {
        let text = text.to_lowercase();
        let is_in = |keyword: &&&str| text.contains(&keyword.to_lowercase());
        keywords.iter().filter(is_in).copied().collect()
    }

    fn found<'a>(keywords: &[&'a str], text: &str) -> Vec<&'a str> {
        let all = Keywords::new(keywords.iter().copied());
        let found = all.in_texts([text.to_owned()].into_iter());
        keywords.iter().filter(|keyword| all.is_in(keyword, &found)).copied().collect()
    }

    #[test]
    fn a_search_for_all_keywords_equals_separate_searches() {
        let keywords = [
            "be", "Be", "b", "or", "or not", "not", "note", "to be", "ß", "É", "e", "🎉", "zz",
            "be that", "that is", "İ", " ",
        ];
        for text in [
            "To be, OR NOT to be",
            "that",
            "is",
            "",
            "b",
            "É 🎉",
            "strasse",
            "Straße",
            "notes",
            "i̇",
            "that is",
            "ab",
            "NO",
        ] {
            assert_eq!(found(&keywords, text), expected(&keywords, text), "{text}");
        }
        assert!(found(&[], "text").is_empty());
        // All texts of up to eight letters a and b, and all keywords of up to three.
        let words = |longest: u32| {
            let word = |length: u32, bits: u32| {
                (0..length).map(|bit| if bits >> bit & 1 == 0 { 'a' } else { 'b' }).collect()
            };
            (1..=longest)
                .flat_map(move |length| (0..1 << length).map(move |bits| word(length, bits)))
        };
        let keywords: Vec<String> = words(3).collect();
        let keywords: Vec<_> = keywords.iter().map(String::as_str).collect();
        for text in words(8) {
            assert_eq!(found(&keywords, &text), expected(&keywords, &text), "{text}");
        }
    }

    /// With keywords that nearly match at each position of a text, a search for each of them would take seconds.
    #[test]
    fn many_keywords_that_nearly_match_cost_little_more_than_one() {
        let keywords: Vec<_> =
            (0..30_000).map(|number| format!("{}{number}", "k".repeat(59))).collect();
        let keywords: Vec<_> = keywords.iter().map(String::as_str).collect();
        let text = "K".repeat(65_000);
        let begun = Instant::now();
        assert!(found(&keywords, &text).is_empty());
        let (together, begun) = (begun.elapsed(), Instant::now());
        // A tenth of the keywords suffices to show the difference.
        assert!(expected(&keywords[..3_000], &text).is_empty());
        let each = begun.elapsed() * 10;
        assert!(together * 2 < each, "{together:?} {each:?}");
    }
}
