//! A part of a list that may be too long for one answer (XEP-0059).

/// Which part of a list is asked for. `T` is what an entry is told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The most entries.
    pub max: usize,
    /// Where in the list.
    pub edge: Edge<T>,
}

/// What a part of a list begins or ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edge<T> {
    /// It begins after this entry (XEP-0059 §2.2).
    After(T),
    /// It begins with the entry that so many others stand before (XEP-0059 §2.6).
    At(usize),
    /// It ends before this entry (XEP-0059 §2.3).
    Before(T),
    /// It ends with the last entry (XEP-0059 §2.5).
    Last,
}

/// A part of a list, in the list's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<T> {
    /// What is in it.
    pub entries: Vec<T>,
    /// How many entries stand before it, if that is known.
    pub index: Option<usize>,
    /// How many entries the list has, if that is known.
    pub total: Option<usize>,
}

impl<T> Page<T> {
    /// The first entries of a list.
    #[must_use]
    pub fn first(max: usize) -> Self {
        Self { max, edge: Edge::At(0) }
    }

    /// The last entries of a list.
    #[must_use]
    pub fn last(max: usize) -> Self {
        Self { max, edge: Edge::Last }
    }

    /// Whether it is filled from its end.
    #[must_use]
    pub fn is_backward(&self) -> bool {
        matches!(self.edge, Edge::Before(_) | Edge::Last)
    }

    /// The same page of a list whose entries are told by something else.
    #[must_use]
    pub fn map<U>(self, edge: impl FnOnce(T) -> U) -> Page<U> {
        let edge = match self.edge {
            Edge::After(entry) => Edge::After(edge(entry)),
            Edge::At(index) => Edge::At(index),
            Edge::Before(entry) => Edge::Before(edge(entry)),
            Edge::Last => Edge::Last,
        };
        Page { max: self.max, edge }
    }

    /// The same, if something else tells its edge; nothing if that is not there.
    pub fn and_then<U>(self, edge: impl FnOnce(T) -> Option<U>) -> Option<Page<U>> {
        let edge = match self.edge {
            Edge::After(entry) => Edge::After(edge(entry)?),
            Edge::At(index) => Edge::At(index),
            Edge::Before(entry) => Edge::Before(edge(entry)?),
            Edge::Last => Edge::Last,
        };
        Some(Page { max: self.max, edge })
    }
}

impl<T: PartialEq> Page<T> {
    /// This page of a list, as far as it fits; nothing if its edge is not there.
    #[must_use]
    pub fn of<E>(
        &self,
        list: Vec<E>,
        told_by: impl Fn(&E) -> T,
        mut fits: impl FnMut(&E) -> bool,
    ) -> Option<Part<E>> {
        let total = list.len();
        let place = |edge: &T| list.iter().position(|entry| told_by(entry) == *edge);
        let (from, until) = match &self.edge {
            Edge::After(edge) => (place(edge)? + 1, total),
            Edge::At(index) => ((*index).min(total), total),
            Edge::Before(edge) => (0, place(edge)?),
            Edge::Last => (0, total),
        };
        let there = list.get(from..until).unwrap_or_default().iter();
        let count = if self.is_backward() {
            there.rev().take(self.max).take_while(|entry| fits(entry)).count()
        } else {
            there.take(self.max).take_while(|entry| fits(entry)).count()
        };
        let index = if self.is_backward() { until - count } else { from };
        let entries = list.into_iter().skip(index).take(count).collect();
        Some(Part { entries, index: Some(index), total: Some(total) })
    }
}

/// Whether one entry after the other fits into so many bytes; the first few do anyway.
pub fn within<E>(
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

impl<T> Part<T> {
    /// Nothing of a list that has nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { entries: Vec::new(), index: Some(0), total: Some(0) }
    }

    /// Whether it is all of the list.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.total == Some(self.entries.len())
    }

    /// The same part of a list of something else.
    #[must_use]
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Part<U> {
        let entries = self.entries.into_iter().map(f).collect();
        Part { entries, index: self.index, total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_where_its_edge_is() {
        let list = || vec!["a", "b", "c", "d", "e"];
        let page = |max, edge| {
            Page { max, edge }.of(list(), |entry| *entry, within(3, 0, |_| 1)).map(|part| {
                assert_eq!(part.total, Some(5));
                (part.index.unwrap(), part.entries.concat())
            })
        };
        let found = |index, entries: &str| Some((index, entries.to_owned()));
        assert_eq!(page(2, Edge::At(0)), found(0, "ab"));
        assert_eq!(page(2, Edge::At(4)), found(4, "e"));
        assert_eq!(page(2, Edge::At(9)), found(5, ""));
        assert_eq!(page(2, Edge::After("b")), found(2, "cd"));
        assert_eq!(page(2, Edge::After("e")), found(5, ""));
        assert_eq!(page(2, Edge::Before("c")), found(0, "ab"));
        assert_eq!(page(1, Edge::Before("c")), found(1, "b"));
        assert_eq!(page(2, Edge::Last), found(3, "de"));
        assert_eq!(page(0, Edge::At(0)), found(0, ""));
        assert_eq!(page(2, Edge::After("x")), None);
        assert_eq!(page(2, Edge::Before("x")), None);
        assert_eq!(page(9, Edge::At(0)), found(0, "abc"));
        assert_eq!(page(9, Edge::Last), found(2, "cde"));
    }
}
