//! Deleted nodes. The name of a deleted node is reserved for its former owners for some time.

use std::fmt;

use jid::{AccountKey, BareJid};
use sha2::{Digest, Sha256};

use crate::{Context, Node, Timestamp};

/// Time for which a name is reserved after the deletion of its node, in milliseconds: 30 days.
const RESERVED_MILLIS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Record of a deleted node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerNode {
    /// URI of the node that replaces the deleted one (§8.4.2).
    pub redirect: Option<String>,
    /// Time of the deletion.
    pub deleted: Timestamp,
    /// Former owners, at most [`Self::MAX_OWNERS`].
    pub owners: Vec<OwnerHash>,
    /// Hash of the account whose limits on redirects and reserved names this record counts toward
    /// ([share](Self::share)). `None` if it equals the hash of the first owner.
    pub account: Option<OwnerHash>,
}

/// First 20 bytes of the SHA-256 of a bare JID or of its account key. By this hash the service recognises a former
/// owner without storing the address of the owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerHash(pub [u8; 20]);

impl FormerNode {
    /// Maximum number of former owners that are stored for one node.
    pub const MAX_OWNERS: usize = 100;

    /// Creates the record of a node that is deleted now.
    pub(super) fn of(node: &Node, redirect: Option<String>, cx: &Context<'_>) -> Self {
        let first = Self::sharer(node, &cx.actor.bare()).cloned();
        let others = node.owners().filter(|owner| Some(*owner) != first.as_ref());
        let owners = first.iter().chain(others).take(Self::MAX_OWNERS);
        let owners: Vec<_> = owners.map(OwnerHash::of).collect();
        let account = first.as_ref().map(OwnerHash::of_account);
        let account = account.filter(|account| owners.first() != Some(account));
        Self { redirect, deleted: cx.now, owners, account }
    }

    /// Returns the owner whose limits the record of the node counts toward ([share](Self::share)) if `actor` deletes
    /// the node. This is the actor if it is an owner, otherwise the responsible owner, otherwise the first owner.
    #[must_use]
    pub fn sharer<'a>(node: &'a Node, actor: &'a BareJid) -> Option<&'a BareJid> {
        let responsible = || node.responsible_owner().or_else(|| node.owners().next());
        Some(actor).filter(|actor| node.is_owner(actor)).or_else(responsible)
    }

    /// Returns the hash of the account whose limits on redirects and reserved names this record counts toward.
    #[must_use]
    pub fn share(&self) -> Option<OwnerHash> {
        self.account.or_else(|| self.owners.first().copied())
    }

    /// Returns `true` if the name is no longer reserved. A name with a redirect is reserved for ever.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.redirect.is_none() && now >= self.deleted.later_by(RESERVED_MILLIS)
    }

    /// Returns `true` if the actor may create a node of this name in spite of the record. The caller checks separately
    /// that the actor may create nodes with such names. A reserved name is available to former owners and to
    /// administrators. If the policy for the name sets its own creators, the name is also available to these creators.
    ///
    /// SPEC: the XEP does not say who may create a node again. Without the reservation, a publisher that continues to
    /// publish to a deleted whitelist node could create the node again (§7.1.4). The new node could have an open access
    /// model, and so make the content public.
    pub(super) fn may_have_name(&self, cx: &Context<'_>) -> bool {
        self.is_over(cx.now)
            || cx.actor.is_administrator
            || cx.policy.has_own_creators
            || cx.actor.bare().spellings().any(|own| self.owners.contains(&OwnerHash::of(&own)))
    }
}

impl OwnerHash {
    /// Returns the hash of an entity.
    #[must_use]
    pub fn of(entity: &BareJid) -> Self {
        Self::of_text(entity.as_str())
    }

    /// Returns the hash of the account of an entity, which is the hash of the entity if its address is lower-case
    /// ASCII.
    #[must_use]
    pub fn of_account(entity: &BareJid) -> Self {
        Self::of_text(AccountKey::of(entity).as_str())
    }

    fn of_text(text: &str) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        let mut short = [0; 20];
        short.copy_from_slice(digest.get(..20).unwrap_or(&[0; 20]));
        Self(short)
    }

    /// Parses 40 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 20];
        if text.len() != 2 * hash.len() {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for OwnerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for OwnerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
