//! Keywords of subscriptions (§12.20): a search for all keywords in one pass over a text.

use std::collections::HashMap;

/// Distinct keywords of a node's subscribers.
///
/// A search costs two binary searches for each character of the text, even if many keywords share prefixes.
pub(crate) struct Keywords<'a> {
    /// Keywords in lower case, sorted.
    sorted: Vec<String>,
    /// For each keyword, the shorter keywords that are its prefixes.
    prefixes: Vec<Prefixes>,
    /// Index in `sorted` of each keyword; the key is the keyword in its original spelling.
    places: HashMap<&'a str, usize>,
}

impl<'a> Keywords<'a> {
    /// Prepares a search for these keywords; empty ones are ignored.
    pub(crate) fn new(keywords: impl Iterator<Item = &'a str>) -> Self {
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

    /// Returns `true` if a keyword is among the found ones; `found` is a result of [`in_texts`](Self::in_texts).
    pub(crate) fn is_in(&self, keyword: &str, found: &[bool]) -> bool {
        self.places.get(keyword).is_some_and(|place| found.get(*place) == Some(&true))
    }

    /// Returns a flag for each keyword, in the order of `sorted`: `true` if one of the texts contains the keyword,
    /// ignoring case.
    pub(crate) fn in_texts(&self, texts: impl Iterator<Item = String>) -> Vec<bool> {
        let mut found = vec![false; self.sorted.len()];
        for text in texts {
            let text = text.to_lowercase();
            for (start, _) in text.char_indices() {
                self.add(text.get(start..).unwrap_or_default(), &mut found);
            }
        }
        found
    }

    /// Marks the keywords that are prefixes of a text.
    fn add(&self, text: &str, found: &mut [bool]) {
        // They are prefixes of the last keyword that does not sort after the text.
        let last = self.sorted.partition_point(|keyword| keyword.as_str() <= text).checked_sub(1);
        let Some((last, keyword)) = last.and_then(|last| Some((last, self.sorted.get(last)?)))
        else {
            return;
        };
        let bytes = keyword.bytes().zip(text.bytes());
        let common = bytes.take_while(|(one, other)| one == other).count();
        let mut next = self.longest_prefix(last, common);
        while let Some(place) = next {
            match found.get_mut(place) {
                Some(is_found) if !*is_found => *is_found = true,
                // The prefixes of this keyword are marked already.
                _ => return,
            }
            next = self.prefixes.get(place).and_then(|prefixes| prefixes.longest);
        }
    }

    /// Returns the index of the longest keyword that has at most `bytes` bytes, and equals the keyword at index `place`
    /// or is a prefix of it. Returns `None` if there is no such keyword.
    fn longest_prefix(&self, mut place: usize, bytes: usize) -> Option<usize> {
        let is_longer =
            |place: usize| self.sorted.get(place).is_some_and(|keyword| keyword.len() > bytes);
        while is_longer(place) {
            let Prefixes { longest, far, .. } = self.prefixes.get(place)?;
            place = if far != &place && is_longer(*far) { *far } else { (*longest)? };
        }
        Some(place)
    }
}

/// Prefixes of a keyword that are shorter keywords.
#[derive(Clone, Copy)]
struct Prefixes {
    /// Index of the longest prefix.
    longest: Option<usize>,
    /// Index of a shorter keyword that is a prefix of this one, chosen so that a search reaches each prefix in a
    /// logarithmic number of steps. If the keyword has no shorter prefix, this is the index of the keyword itself.
    far: usize,
    /// Number of prefixes.
    number: usize,
}

impl Prefixes {
    /// Creates the entry of the keyword at this index, given its longest prefix and the entries before it.
    fn new(place: usize, longest: Option<usize>, before: &[Self]) -> Self {
        let of = |place: usize| before.get(place).copied();
        let far = |longest: usize| {
            let first = of(longest)?;
            let second = of(first.far)?;
            let third = of(second.far)?;
            let is_even = first.number - second.number == second.number - third.number;
            Some((if is_even { second.far } else { longest }, first.number + 1))
        };
        let (far, number) = longest.and_then(far).unwrap_or((place, 0));
        Self { longest, far, number }
    }
}

/// Returns for each of these sorted texts the shorter ones that are its prefixes.
fn prefixes(sorted: &[String]) -> Vec<Prefixes> {
    let mut within = Vec::<(usize, &str)>::new();
    let mut all = Vec::with_capacity(sorted.len());
    for (place, text) in sorted.iter().map(String::as_str).enumerate() {
        while within.pop_if(|(_, outer)| !str::starts_with(text, *outer)).is_some() {}
        all.push(Prefixes::new(place, within.last().map(|(place, _)| *place), &all));
        within.push((place, text));
    }
    all
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "measures how long a filter takes")]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::tests::fastest;

    /// Returns the keywords in a text, each searched for separately.
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
        // Each keyword begins with all shorter ones.
        let chain: Vec<_> = (1..=64).map(|length| "a".repeat(length)).collect();
        let chain: Vec<_> = chain.iter().map(String::as_str).chain(["b", "aab"]).collect();
        for length in 0..70 {
            let text = format!("{}b", "a".repeat(length));
            assert_eq!(found(&chain, &text), expected(&chain, &text), "{text}");
        }
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

    /// The prefixes of a keyword are not visited one by one at each position of a text.
    #[test]
    fn keywords_that_begin_with_each_other_cost_little_more_than_one() {
        let chain: Vec<_> = (1..=3_000).map(|length| "a".repeat(length)).collect();
        let chain: Vec<_> = chain.iter().map(String::as_str).collect();
        let text = "ab".repeat(20_000);
        let search = |keywords: &[&str]| {
            let all = Keywords::new(keywords.iter().copied());
            fastest(|| {
                let found = all.in_texts([text.clone()].into_iter());
                found.into_iter().filter(|is_found| *is_found).count()
            })
        };
        let ((number, together), (none, one)) = (search(&chain), search(&chain[2_999..]));
        assert_eq!((number, none), (1, 0));
        assert!(together < one * 100, "{together:?} {one:?}");
    }

    /// With keywords that nearly match at each position of a text, a search for each of them would take seconds.
    #[test]
    fn many_keywords_that_nearly_match_cost_little_more_than_one() {
        let keywords: Vec<_> =
            (0..30_000).map(|number| format!("{}{number}", "k".repeat(59))).collect();
        let keywords: Vec<_> = keywords.iter().map(String::as_str).collect();
        let text = "K".repeat(65_000);
        let (none, together) = fastest(|| found(&keywords, &text));
        assert!(none.is_empty());
        // A tenth of the keywords suffices to show the difference.
        let begun = Instant::now();
        assert!(expected(&keywords[..3_000], &text).is_empty());
        let each = begun.elapsed() * 10;
        assert!(together * 2 < each, "{together:?} {each:?}");
    }
}
