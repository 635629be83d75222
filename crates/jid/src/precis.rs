//! String classes of PRECIS (RFC 8264) and the profiles of RFC 8265 that addresses need, by current Unicode.
//!
//! The crate `precis-profiles` implements these profiles for Unicode 6.3, where newer scripts and emoji are unassigned.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{
        BidiClass, CanonicalCombiningClass, DefaultIgnorableCodePoint, GeneralCategory as Category,
        HangulSyllableType, JoiningType, Script,
    },
};

/// Applies the profile UsernameCaseMapped (RFC 8265 §3.3); `None` if the text is not allowed.
pub(crate) fn username_case_mapped(text: &str) -> Option<String> {
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    // Fullwidth and halfwidth forms; the ideographic space is not allowed in usernames anyway.
    let is_of_other_width = |c: char| ('\u{ff01}'..='\u{ffee}').contains(&c);
    let narrowed: String = text
        .chars()
        .map(|c| match is_of_other_width(c) {
            true => nfkc.normalize(c.encode_utf8(&mut [0; 4])).into_owned(),
            false => c.to_string(),
        })
        .collect();
    let lower = narrowed.to_lowercase();
    let prepared = ComposingNormalizerBorrowed::new_nfc().normalize(&lower).into_owned();
    let is_allowed = !prepared.is_empty() && is_in(&prepared, Class::Identifier);
    (is_allowed && follows_bidi_rule(&prepared)).then_some(prepared)
}

/// Applies the profile OpaqueString (RFC 8265 §4.2); `None` if the text is not allowed.
pub(crate) fn opaque_string(text: &str) -> Option<Cow<'_, str>> {
    let is_other_space = |c: char| c != ' ' && category(c) == Category::SpaceSeparator;
    let spaced: Cow<'_, str> = match text.contains(is_other_space) {
        true => text.replace(is_other_space, " ").into(),
        false => text.into(),
    };
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    let prepared = match spaced {
        Cow::Borrowed(text) => nfc.normalize(text),
        Cow::Owned(text) => nfc.normalize(&text).into_owned().into(),
    };
    (!prepared.is_empty() && is_in(&prepared, Class::Freeform)).then_some(prepared)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Identifier,
    Freeform,
}

/// Derived property of a code point (RFC 8264 §8).
enum Derived {
    /// Allowed in both classes.
    Valid,
    /// Allowed in the FreeformClass only.
    Free,
    /// Allowed in some contexts.
    Context,
    Disallowed,
}

fn category(c: char) -> Category {
    CodePointMapData::<Category>::new().get(c)
}

fn script(c: char) -> Script {
    CodePointMapData::<Script>::new().get(c)
}

/// Returns `true` if each code point is allowed in a class.
fn is_in(text: &str, class: Class) -> bool {
    text.char_indices().all(|(at, c)| match derived(c) {
        Derived::Valid => true,
        Derived::Free => class == Class::Freeform,
        Derived::Context => is_in_context(text, at, c),
        Derived::Disallowed => false,
    })
}

fn derived(c: char) -> Derived {
    let has_compatible = || {
        let mut buffer = [0; 4];
        let text: &str = c.encode_utf8(&mut buffer);
        ComposingNormalizerBorrowed::new_nfkc().normalize(text) != text
    };
    let is_ignorable = || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c);
    let is_old_jamo = || {
        matches!(
            CodePointMapData::<HangulSyllableType>::new().get(c),
            HangulSyllableType::LeadingJamo
                | HangulSyllableType::VowelJamo
                | HangulSyllableType::TrailingJamo
        )
    };
    match c {
        'ß' | 'ς' | '\u{6fd}' | '\u{6fe}' | '\u{f0b}' | '〇' => return Derived::Valid,
        '·' | '\u{375}' | '\u{5f3}' | '\u{5f4}' | '・' => return Derived::Context,
        '\u{660}'..='\u{669}' | '\u{6f0}'..='\u{6f9}' => return Derived::Context,
        '\u{640}' | '\u{7fa}' | '\u{302e}' | '\u{302f}' | '\u{3031}'..='\u{3035}' | '\u{303b}' => {
            return Derived::Disallowed;
        }
        '!'..='~' => return Derived::Valid,
        '\u{200c}' | '\u{200d}' => return Derived::Context,
        _ => {}
    }
    match category(c) {
        Category::Unassigned
        | Category::Control
        | Category::Format
        | Category::Surrogate
        | Category::PrivateUse
        | Category::LineSeparator
        | Category::ParagraphSeparator => Derived::Disallowed,
        _ if is_old_jamo() || is_ignorable() => Derived::Disallowed,
        _ if has_compatible() => Derived::Free,
        Category::LowercaseLetter
        | Category::UppercaseLetter
        | Category::OtherLetter
        | Category::DecimalNumber
        | Category::ModifierLetter
        | Category::NonspacingMark
        | Category::SpacingMark => Derived::Valid,
        _ => Derived::Free,
    }
}

/// Returns `true` if a code point is allowed in its context (RFC 5892, appendix A).
fn is_in_context(text: &str, at: usize, c: char) -> bool {
    let before = text.get(..at).and_then(|text| text.chars().next_back());
    let after = text.get(at + c.len_utf8()..).and_then(|text| text.chars().next());
    let virama = CanonicalCombiningClass::Virama;
    let is_virama = |c: char| CodePointMapData::<CanonicalCombiningClass>::new().get(c) == virama;
    match c {
        '·' => before == Some('l') && after == Some('l'),
        '\u{375}' => after.is_some_and(|c| script(c) == Script::Greek),
        '\u{5f3}' | '\u{5f4}' => before.is_some_and(|c| script(c) == Script::Hebrew),
        '・' => {
            let japanese = [Script::Hiragana, Script::Katakana, Script::Han];
            text.chars().any(|c| japanese.contains(&script(c)))
        }
        '\u{660}'..='\u{669}' => !text.contains(|c| matches!(c, '\u{6f0}'..='\u{6f9}')),
        '\u{6f0}'..='\u{6f9}' => !text.contains(|c| matches!(c, '\u{660}'..='\u{669}')),
        '\u{200c}' => before.is_some_and(is_virama) || breaks_a_ligature(text, at, c),
        _ => before.is_some_and(is_virama),
    }
}

/// Returns `true` if a zero width non-joiner is between joining letters, where it is allowed (RFC 5892, appendix A.1).
fn breaks_a_ligature(text: &str, at: usize, c: char) -> bool {
    let joining = |c: char| CodePointMapData::<JoiningType>::new().get(c);
    let is_letter = |joining: &JoiningType| *joining != JoiningType::Transparent;
    let before = text.get(..at).unwrap_or_default().chars().rev().map(joining).find(is_letter);
    let after = text.get(at + c.len_utf8()..).unwrap_or_default();
    let after = after.chars().map(joining).find(is_letter);
    matches!(before, Some(JoiningType::LeftJoining | JoiningType::DualJoining))
        && matches!(after, Some(JoiningType::RightJoining | JoiningType::DualJoining))
}

/// Returns `true` if a label obeys the rule for labels with characters that are written from right to left (RFC 5893
/// §2), or has no such characters.
fn follows_bidi_rule(text: &str) -> bool {
    let class = |c: char| CodePointMapData::<BidiClass>::new().get(c);
    let classes: Vec<BidiClass> = text.chars().map(class).collect();
    let has = |wanted: &[BidiClass]| classes.iter().any(|class| wanted.contains(class));
    let (right, arabic) = (BidiClass::RightToLeft, BidiClass::ArabicLetter);
    let (digits, arabic_digits) = (BidiClass::EuropeanNumber, BidiClass::ArabicNumber);
    if !has(&[right, arabic, arabic_digits]) {
        return true;
    }
    let neutral = [
        digits,
        BidiClass::EuropeanSeparator,
        BidiClass::CommonSeparator,
        BidiClass::EuropeanTerminator,
        BidiClass::OtherNeutral,
        BidiClass::BoundaryNeutral,
        BidiClass::NonspacingMark,
    ];
    let mut ends = classes.iter().rev().skip_while(|class| **class == BidiClass::NonspacingMark);
    let (first, last) = (classes.first(), ends.next());
    let begins_right = first.is_some_and(|class| [right, arabic].contains(class));
    let of_right = [right, arabic, arabic_digits];
    begins_right
        && classes.iter().all(|class| of_right.contains(class) || neutral.contains(class))
        && last.is_some_and(|class| of_right.contains(class) || *class == digits)
        && !(has(&[digits]) && has(&[arabic_digits]))
}
