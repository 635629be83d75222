//! Rosters of owners (XEP-0356): the cache of rosters, and the access that they give.

pub(super) mod access;
pub(super) mod cache;
