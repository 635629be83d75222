//! Spellings of an internationalised domain (RFC 5890 §2.3.2): with U-labels, such as `münchen`, and with A-labels,
//! such as `xn--mnchen-3ya`.

use std::borrow::Cow;

use idna::{
    punycode::decode_to_string,
    uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46},
};

/// Maximum number of characters of a label in either spelling (RFC 1035 §2.3.4). Converting longer labels is slow.
const MAX_LABEL_CHARS: usize = 63;
/// Maximum number of labels with two spellings for which [`Labels::all`] returns every combination of spellings. A
/// domain with more such labels has only two spellings: all U-labels, and all A-labels.
const MAX_MIXED: usize = 4;

/// Labels of a domain, each as U-label and as A-label. For a label with only one spelling, the two texts are equal.
struct Labels(Vec<[String; 2]>);

impl Labels {
    /// Returns the labels of a domain. Returns `None` if the domain has only one spelling or cannot be converted. Also
    /// returns `None` if a label equals neither its U-label nor its A-label, for example because it is in capitals.
    fn of(domain: &str) -> Option<Self> {
        let is_long = |label: &str| label.chars().count() > MAX_LABEL_CHARS;
        if domain.is_ascii() && !domain.contains("xn--") || domain.split('.').any(is_long) {
            return None;
        }
        let (bytes, deny) = (domain.as_bytes(), AsciiDenyList::URL);
        let ascii = Uts46::new().to_ascii(bytes, deny, Hyphens::Check, DnsLength::Verify).ok()?;
        let (unicode, outcome) = Uts46::new().to_unicode(bytes, deny, Hyphens::Check);
        outcome.ok()?;
        let labels = unicode.split('.').zip(ascii.split('.'));
        let labels: Vec<_> = labels.map(|(u, a)| [u.to_owned(), a.to_owned()]).collect();
        let is_exact = labels.len() == domain.split('.').count()
            && domain
                .split('.')
                .zip(&labels)
                .all(|(own, spellings)| spellings.iter().any(|label| label == own));
        is_exact.then_some(Self(labels))
    }

    /// Returns the domain with the chosen spelling of each label. For each label with two spellings, `choose` returns 0
    /// for the U-label or 1 for the A-label. The argument of `choose` is the index of the label among the labels with
    /// two spellings.
    fn with(&self, choose: impl Fn(usize) -> usize) -> String {
        let mut positions = 0..;
        let label = |[u, a]: &[String; 2]| match u == a {
            true => u.clone(),
            false if positions.next().is_some_and(|at| choose(at) == 0) => u.clone(),
            false => a.clone(),
        };
        self.0.iter().map(label).collect::<Vec<_>>().join(".")
    }

    /// Returns all spellings of the domain, the one with U-labels first and the one with A-labels last.
    fn all(&self) -> Vec<String> {
        let number = self.0.iter().filter(|[u, a]| u != a).count();
        match number {
            0..=MAX_MIXED => (0..1 << number).map(|bits| self.with(|at| bits >> at & 1)).collect(),
            _ => vec![self.with(|_| 0), self.with(|_| 1)],
        }
    }
}

/// Returns the spellings of a domain except the given one. A spelling with only U-labels comes first, and a spelling
/// with only A-labels comes last.
pub(crate) fn others(domain: &str) -> Vec<String> {
    let mut all = Labels::of(domain).map(|labels| labels.all()).unwrap_or_default();
    all.retain(|other| other != domain);
    all
}

/// Returns a domain with U-labels; unchanged if it has only one spelling.
#[must_use]
pub fn with_u_labels(domain: &str) -> Cow<'_, str> {
    match Labels::of(domain) {
        Some(labels) => Cow::Owned(labels.with(|_| 0)),
        None => Cow::Borrowed(domain),
    }
}

/// Returns a domain with its A-labels decoded (RFC 3492), without the checks of IDNA. The result is the same for all
/// spellings of a domain, and is computed much faster than that of [`with_u_labels`].
pub(crate) fn decoded(domain: &str) -> Cow<'_, str> {
    if !domain.contains("xn--") {
        return Cow::Borrowed(domain);
    }
    let is_lower = |encoded: &&str| !encoded.bytes().any(|b| b.is_ascii_uppercase());
    let label = |label: &str| {
        let encoded = label.strip_prefix("xn--").filter(|_| label.len() <= MAX_LABEL_CHARS);
        let decoded = encoded.filter(is_lower).and_then(decode_to_string);
        decoded.filter(|decoded| !decoded.is_ascii()).unwrap_or_else(|| label.to_owned())
    };
    Cow::Owned(domain.split('.').map(label).collect::<Vec<_>>().join("."))
}

/// Returns `true` if `domain` equals `host` or is a subdomain of `host`, in any spelling.
#[must_use]
pub fn is_within_domain(domain: &str, host: &str) -> bool {
    with_u_labels(domain)
        .strip_suffix(&*with_u_labels(host))
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Returns `true` if two domains differ at most in the spelling of their labels.
#[must_use]
pub fn is_same_domain(left: &str, right: &str) -> bool {
    left == right || decoded(left) == decoded(right) && with_u_labels(left) == with_u_labels(right)
}
