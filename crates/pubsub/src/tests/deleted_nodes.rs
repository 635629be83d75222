//! Deleted nodes: their redirects and reserved names.

use crate::{
    Affiliation, Change, Context, Error, FormerNode, Node, OwnerHash, Policy, Timestamp,
    op::{
        create::{Create, create},
        delete::{Delete, MAX_OWN_REDIRECTS, MAX_REDIRECTS, RedirectCounts, delete},
        publish::{ExistingItems, publish},
    },
};

use super::{bare, by, changes_of, item, node, publication};

fn deletion(redirect: Option<&str>) -> Delete {
    Delete { node: node().0.id, redirect: redirect.map(str::to_owned) }
}

#[test]
fn a_redirect_is_an_absolute_uri() {
    let node = node().0;
    for (uri, is_taken) in [
        ("xmpp:hamlet@denmark.lit?;node=blog", true),
        ("xmpp:pubsub.localhost?;node=n%C3%B6", true),
        ("xmpp:pubsub.münchen.example?;node=ä", true),
        ("https://example.org/feed.atom", true),
        ("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", true),
        ("", false),
        ("elsewhere", false),
        ("/elsewhere", false),
        ("xmpp:", false),
        (":x", false),
        ("1a:x", false),
        ("a node:x", false),
        ("xmpp:pubsub.localhost?;node=two words", false),
        ("xmpp:a\n", false),
        ("xmpp:<x/>", false),
    ] {
        let decision = by("owner@x", |cx| {
            delete(Some(&node), &deletion(Some(uri)), RedirectCounts::default(), cx)
        });
        match is_taken {
            true => assert!(decision.is_ok(), "{uri}"),
            false => assert!(matches!(decision, Err(Error::BadRequest(_))), "{uri}"),
        }
    }
    let long = format!("xmpp:{}", "x".repeat(2048));
    let decision = by("owner@x", |cx| {
        delete(Some(&node), &deletion(Some(&long)), RedirectCounts::default(), cx)
    });
    assert!(matches!(decision, Err(Error::BadRequest(text)) if text.contains("2048")));
}

#[test]
fn redirects_past_their_limits_are_refused() {
    let node = node().0;
    let leave = |who, uri, all, own| {
        by(who, |cx| delete(Some(&node), &deletion(uri), RedirectCounts { all, own }, cx).map(drop))
    };
    let uri = Some("xmpp:x");
    let (last, own_last) = (MAX_REDIRECTS - 1, MAX_OWN_REDIRECTS - 1);
    for who in ["owner@x", "admin@x"] {
        assert_eq!(leave(who, uri, MAX_REDIRECTS, 0), Err(Error::TooManyRedirects));
        assert_eq!(leave(who, uri, last, own_last), Ok(()));
        assert_eq!(leave(who, None, MAX_REDIRECTS, MAX_OWN_REDIRECTS), Ok(()));
    }
    assert_eq!(leave("owner@x", uri, last, MAX_OWN_REDIRECTS), Err(Error::TooManyRedirects));
    assert_eq!(leave("admin@x", uri, last, MAX_OWN_REDIRECTS), Ok(()));
}

/// Returns the record that remains when an entity deletes a node of this version.
fn record_of(who: &str, mut node: Node, version: u64) -> Option<FormerNode> {
    node.version = version;
    let no_redirects = RedirectCounts::default();
    let decision = by(who, |cx| delete(Some(&node), &deletion(None), no_redirects, cx));
    let decision = decision.unwrap();
    let former = changes_of(&decision).into_iter().find_map(|change| match change {
        Change::Deleted(former) => former.as_deref(),
        _ => None,
    });
    former.cloned()
}

/// Returns the record that remains when an entity deletes a node that was used.
fn left_by(who: &str, node: Node) -> FormerNode {
    record_of(who, node, 2).unwrap()
}

/// Nodes of other services and of layout 9 begin at version 0, and may have been used.
#[test]
fn deletion_of_an_unchanged_node_leaves_no_record() {
    let (plain, shared) = (node().0, node().with("bot@x", Affiliation::Publisher).0);
    let leaves = |node: &Node, version| record_of("owner@x", node.clone(), version).is_some();
    assert_eq!([0, 1, 2].map(|version| leaves(&plain, version)), [true, false, true]);
    assert_eq!([0, 1, 2].map(|version| leaves(&shared, version)), [true; 3]);
}

/// The record of a deleted node counts for the owner that deletes the node, not for an owner that others appointed.
#[test]
fn a_deletion_counts_for_the_deleting_owner() {
    let node = node().with("a@x", Affiliation::Owner).0;
    for (who, share) in [("owner@x", "owner@x"), ("a@x", "a@x"), ("admin@x", "owner@x")] {
        let former = left_by(who, node.clone());
        assert_eq!(former.share(), Some(OwnerHash::of(&bare(share))), "{who}");
        assert_eq!(former.owners.len(), 2);
    }
}

/// The record of a deleted node counts for an account, with all addresses that a server may set as its sender. The name
/// of the node is reserved only for the owner itself.
#[test]
fn a_deletion_counts_for_the_account_of_the_owner() {
    for (owner, account, other) in [
        ("straße@x", "strasse@x", "strasse@x"),
        ("strasse@x", "strasse@x", "straße@x"),
        ("a@xn--bcher-kva.example", "a@bücher.example", "a@other.example"),
        ("a@weiß.example", "a@weiß.example", "a@weiss.example"),
    ] {
        let node = node().with(owner, Affiliation::Owner).0;
        let former = left_by(owner, node);
        assert_eq!(former.share(), Some(OwnerHash::of(&bare(account))), "{owner}");
        assert_eq!(former.account.is_some(), owner != account, "{owner}");
        assert_eq!(gets(owner, &former, 2, false), (true, true), "{owner}");
        assert_eq!(gets(other, &former, 2, false), (false, false), "{other}");
    }
}

#[test]
fn a_deletion_remembers_the_owners() {
    let node = node().with("second@x", Affiliation::Owner).with("bot@x", Affiliation::Publisher).0;
    let former = left_by("admin@x", node);
    let owners = ["owner@x", "second@x"].map(|owner| OwnerHash::of(&bare(owner))).to_vec();
    let expected = FormerNode { redirect: None, deleted: Timestamp(1), owners, account: None };
    assert_eq!(former, expected);
}

/// Returns two flags: the first is `true` if an entity may create a deleted node again by publishing, the second if it
/// may do so by a create request.
fn gets(who: &str, former: &FormerNode, now: u64, has_own_creators: bool) -> (bool, bool) {
    by(who, |cx| {
        let policy = Policy { has_own_creators, ..Policy::default() };
        let cx = Context { policy: &policy, now: Timestamp(now), ..*cx };
        let existing = ExistingItems { former: Some(former.clone()), ..ExistingItems::default() };
        let published = publish(None, &publication(vec![item("1")]), &existing, &cx);
        let name = node().0.id;
        let request = Create { node: Some(name.clone()), settings: Vec::new() };
        let created = create(None, name, &request, Some(former), &cx);
        for error in [published.as_ref().err(), created.as_ref().err()].into_iter().flatten() {
            assert!(matches!(error, Error::NodeNotFound | Error::NameReserved));
        }
        (published.is_ok(), created.is_ok())
    })
}

#[test]
fn the_name_of_a_deleted_node_is_reserved_for_thirty_days() {
    let owners = vec![OwnerHash::of(&bare("owner@x"))];
    let former = FormerNode { redirect: None, deleted: Timestamp(1), owners, account: None };
    let month = 30 * 24 * 60 * 60 * 1000;
    assert_eq!(gets("bot@x", &former, month, false), (false, false));
    assert_eq!(gets("bot@x", &former, month + 1, false), (true, true));
    for who in ["owner@x/r", "admin@x"] {
        assert_eq!(gets(who, &former, 2, false), (true, true), "{who}");
    }
    assert_eq!(gets("bot@x", &former, 2, true), (true, true));
}

/// §8.4.1: "the URI of a replacement node to which requests might be redirected".
#[test]
fn a_node_with_a_redirect_is_created_by_a_request_only() {
    let owners = vec![OwnerHash::of(&bare("owner@x"))];
    let former = FormerNode {
        redirect: Some("xmpp:x".into()),
        deleted: Timestamp(1),
        owners,
        account: None,
    };
    for (who, has_own_creators, creates) in [
        ("bot@x", false, false),
        ("owner@x", false, true),
        ("admin@x", false, true),
        ("bot@x", true, true),
    ] {
        let created = gets(who, &former, u64::MAX, has_own_creators);
        assert_eq!(created, (false, creates), "{who} {has_own_creators}");
    }
}
