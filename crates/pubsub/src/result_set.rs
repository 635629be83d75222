//! Pages of lists that may be too long for one reply (XEP-0059).

/// Request for a page of a list. `T` identifies an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest<T> {
    /// Maximum number of entries.
    pub max: usize,
    /// Edge of the page.
    pub edge: PageBound<T>,
}

/// Edge at which a page begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageBound<T> {
    /// The page begins after this entry (XEP-0059 §2.2).
    After(T),
    /// The page begins at this index (XEP-0059 §2.6).
    At(usize),
    /// The page ends before this entry (XEP-0059 §2.3).
    Before(T),
    /// The page ends with the last entry (XEP-0059 §2.5).
    Last,
}

/// Page of a list, in the list's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultPage<T> {
    /// Entries of the page.
    pub entries: Vec<T>,
    /// Number of entries before the page, if it is known.
    pub index: Option<usize>,
    /// Number of entries in the list, if it is known.
    pub total: Option<usize>,
}

impl<T> PageRequest<T> {
    /// Returns a request for the first entries of a list.
    #[must_use]
    pub fn first(max: usize) -> Self {
        Self { max, edge: PageBound::At(0) }
    }

    /// Returns a request for the last entries of a list.
    #[must_use]
    pub fn last(max: usize) -> Self {
        Self { max, edge: PageBound::Last }
    }

    /// Returns `true` if the page is filled from its end.
    #[must_use]
    pub fn is_backward(&self) -> bool {
        matches!(self.edge, PageBound::Before(_) | PageBound::Last)
    }

    /// Converts the identifier of the edge.
    #[must_use]
    pub fn map<U>(self, edge: impl FnOnce(T) -> U) -> PageRequest<U> {
        let edge = match self.edge {
            PageBound::After(entry) => PageBound::After(edge(entry)),
            PageBound::At(index) => PageBound::At(index),
            PageBound::Before(entry) => PageBound::Before(edge(entry)),
            PageBound::Last => PageBound::Last,
        };
        PageRequest { max: self.max, edge }
    }

    /// Converts the identifier of the edge; `None` if the conversion fails.
    pub fn and_then<U>(self, edge: impl FnOnce(T) -> Option<U>) -> Option<PageRequest<U>> {
        let edge = match self.edge {
            PageBound::After(entry) => PageBound::After(edge(entry)?),
            PageBound::At(index) => PageBound::At(index),
            PageBound::Before(entry) => PageBound::Before(edge(entry)?),
            PageBound::Last => PageBound::Last,
        };
        Some(PageRequest { max: self.max, edge })
    }
}

impl<T: PartialEq> PageRequest<T> {
    /// Returns the page of a list, with as many entries as `fits` accepts; `None` if the list does not contain the
    /// edge.
    #[must_use]
    pub fn of<E>(
        &self,
        list: Vec<E>,
        key: impl Fn(&E) -> T,
        mut fits: impl FnMut(&E) -> bool,
    ) -> Option<ResultPage<E>> {
        let total = list.len();
        let position = |edge: &T| list.iter().position(|entry| key(entry) == *edge);
        let (from, until) = match &self.edge {
            PageBound::After(edge) => (position(edge)? + 1, total),
            PageBound::At(index) => ((*index).min(total), total),
            PageBound::Before(edge) => (0, position(edge)?),
            PageBound::Last => (0, total),
        };
        let candidates = list.get(from..until).unwrap_or_default().iter();
        let count = if self.is_backward() {
            candidates.rev().take(self.max).take_while(|entry| fits(entry)).count()
        } else {
            candidates.take(self.max).take_while(|entry| fits(entry)).count()
        };
        let index = if self.is_backward() { until - count } else { from };
        let entries = list.into_iter().skip(index).take(count).collect();
        Some(ResultPage { entries, index: Some(index), total: Some(total) })
    }
}

/// Returns a predicate that accepts entries while they fit into `max_bytes`, and the first `at_least` entries in any
/// case.
pub fn byte_budget<E>(
    max_bytes: usize,
    at_least: usize,
    size: impl Fn(&E) -> usize,
) -> impl FnMut(&E) -> bool {
    let (mut bytes, mut entries) = (0_usize, 0);
    move |entry| {
        bytes = bytes.saturating_add(size(entry));
        entries += 1;
        bytes <= max_bytes || entries <= at_least
    }
}

impl<T> ResultPage<T> {
    /// Returns the page of an empty list.
    #[must_use]
    pub fn empty() -> Self {
        Self { entries: Vec::new(), index: Some(0), total: Some(0) }
    }

    /// Returns `true` if the page is the whole list.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.total == Some(self.entries.len())
    }

    /// Converts the entries of the page.
    #[must_use]
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> ResultPage<U> {
        let entries = self.entries.into_iter().map(f).collect();
        ResultPage { entries, index: self.index, total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_by_index_after_before_last() {
        let list = || vec!["a", "b", "c", "d", "e"];
        let page = |max, edge| {
            PageRequest { max, edge }.of(list(), |entry| *entry, byte_budget(3, 0, |_| 1)).map(
                |part| {
                    assert_eq!(part.total, Some(5));
                    (part.index.unwrap(), part.entries.concat())
                },
            )
        };
        let found = |index, entries: &str| Some((index, entries.to_owned()));
        assert_eq!(page(2, PageBound::At(0)), found(0, "ab"));
        assert_eq!(page(2, PageBound::At(4)), found(4, "e"));
        assert_eq!(page(2, PageBound::At(9)), found(5, ""));
        assert_eq!(page(2, PageBound::After("b")), found(2, "cd"));
        assert_eq!(page(2, PageBound::After("e")), found(5, ""));
        assert_eq!(page(2, PageBound::Before("c")), found(0, "ab"));
        assert_eq!(page(1, PageBound::Before("c")), found(1, "b"));
        assert_eq!(page(2, PageBound::Last), found(3, "de"));
        assert_eq!(page(0, PageBound::At(0)), found(0, ""));
        assert_eq!(page(2, PageBound::After("x")), None);
        assert_eq!(page(2, PageBound::Before("x")), None);
        assert_eq!(page(9, PageBound::At(0)), found(0, "abc"));
        assert_eq!(page(9, PageBound::Last), found(2, "cde"));
    }
}
