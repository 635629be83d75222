//! Paging of long lists (XEP-0059): items, nodes, subscriptions and affiliations.

use std::sync::{Arc, atomic::Ordering};

use gjallar::{
    config::Config,
    store::{MemoryStore, Store},
};
use gjallar_pubsub::{PageBound, PageRequest, ResultPage, op::discover::NodeSummary};
use minidom::Element;
use tokio::sync::Semaphore;

use crate::support::{
    component::{OWNER as OWNER_NS, PUBSUB, TestComponent, error, relayed, shown},
    failing_store::FailingStore,
    process::{ServiceProcess, lines_with_event},
    service::{TestService, actor},
};

const OWNER: &str = "owner@localhost/desk";
const STRANGER: &str = "stranger@localhost/x";
const RSM: &str = "http://jabber.org/protocol/rsm";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";
const FILTER: &str = "urn:xmpp:pubsub-filter:0";

/// Requests a page of items.
async fn items(component: &mut TestComponent, set: &str) -> Element {
    let content = format!("<pubsub xmlns='{PUBSUB}'><items node='n'/>{}</pubsub>", asked(set));
    component.ask(OWNER, "get", &content).await
}

/// Requests a page of disco#items of a node or the service.
async fn discovered(component: &mut TestComponent, by: &str, node: &str, set: &str) -> Element {
    let content = format!("<query xmlns='{ITEMS}'{node}>{}</query>", asked(set));
    component.ask(by, "get", &content).await
}

fn asked(set: &str) -> String {
    format!("<set xmlns='{RSM}'>{set}</set>")
}

/// Returns the entries of a list, by this attribute, and its `<set/>`: `names index first last
/// count`.
fn read(answer: &Element, by: &str) -> (String, String) {
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(answer));
    let content = answer.children().next().unwrap();
    let list = if content.name() == "query" { content } else { content.children().next().unwrap() };
    let names = list.children().filter(|entry| entry.name() != "set");
    let names = names.map(|entry| entry.attr(by).unwrap()).collect::<Vec<_>>().join(" ");
    let set = content.get_child("set", RSM).unwrap_or_else(|| panic!("{}", shown(answer)));
    let text = |name| set.get_child(name, RSM).map_or_else(|| "-".to_owned(), Element::text);
    let index = set.get_child("first", RSM).and_then(|first| first.attr("index")).unwrap_or("-");
    (names, format!("{index} {} {} {}", text("first"), text("last"), text("count")))
}

/// Like [`read`], for items, whose UIDs are positions: `names index first last count` with the
/// sequences of the first and last item.
fn read_items(answer: &Element, by: &str) -> (String, String) {
    let (names, summary) = read(answer, by);
    let own = |text: &str| text.split('~').next().unwrap_or_default().to_owned();
    let sequence = |text: &str| own(text).rsplit('-').next().unwrap_or_default().to_owned();
    let summary =
        summary.split(' ').map(|text| if text == "-" { "-".into() } else { sequence(text) });
    (names, summary.collect::<Vec<_>>().join(" "))
}

/// Like [`read`], for nodes, whose UIDs are the node's epoch and name.
fn read_nodes(answer: &Element) -> (String, String) {
    let (names, summary) = read(answer, "node");
    let name = |text: &str| text.split_once('-').map_or(text, |(_, name)| name).to_owned();
    let summary = summary.split(' ').map(|text| if text == "-" { "-".into() } else { name(text) });
    (names, summary.collect::<Vec<_>>().join(" "))
}

/// Returns the UID of the first or the last entry of a page.
fn uid(answer: &Element, end: &str) -> String {
    let set = answer.children().next().unwrap().get_child("set", RSM).unwrap();
    set.get_child(end, RSM).unwrap().text()
}

fn expected_page(names: &str, summary: &str) -> (String, String) {
    (names.to_owned(), summary.to_owned())
}

#[tokio::test]
async fn items_and_names_of_items_are_paged() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    for id in ["a", "b", "c", "d", "e"] {
        component.publish(OWNER, "n", id).await;
    }
    for (set, names, summary) in [
        ("<max>2</max>", "a b", "0 1 2 5"),
        ("<max>2</max><after>b</after>", "c d", "2 3 4 5"),
        ("<max>2</max><after>e</after>", "", "- - - 5"),
        ("<max>2</max><before/>", "d e", "3 4 5 5"),
        ("<max>2</max><before>d</before>", "b c", "1 2 3 5"),
        ("<max>2</max><index>3</index>", "d e", "3 4 5 5"),
        ("<max>0</max>", "", "- - - 5"),
        ("", "a b c d e", "0 1 5 5"),
    ] {
        assert_eq!(
            read_items(&items(&mut component, set).await, "id"),
            expected_page(names, summary),
            "{set}"
        );
        let answer = discovered(&mut component, OWNER, " node='n'", set).await;
        assert_eq!(read_items(&answer, "name"), expected_page(names, summary), "{set}");
    }
    for (set, refused) in [
        ("<after>x</after>", "cancel item-not-found"),
        ("<before>x</before>", "cancel item-not-found"),
        ("<after/>", "cancel item-not-found"),
        ("<max>many</max>", "modify bad-request"),
        ("<max>-1</max>", "modify bad-request"),
        ("<after>a</after><before>c</before>", "modify bad-request"),
        ("<after>a</after><index>1</index>", "modify bad-request"),
    ] {
        assert_eq!(error(&items(&mut component, set).await), refused, "{set}");
        let answer = discovered(&mut component, OWNER, " node='n'", set).await;
        assert_eq!(error(&answer), refused, "{set}");
    }
    let content = format!(
        "<pubsub xmlns='{PUBSUB}'><items node='n' max_items='1'/>{}</pubsub>",
        asked("<max>3</max><after>b</after>")
    );
    let answer = component.ask(OWNER, "get", &content).await;
    assert_eq!(read_items(&answer, "id"), expected_page("c", "2 3 3 5"));
}

/// XEP-0059 §2.2: no item is skipped if the item at the edge of a page is republished or retracted
/// between requests.
#[tokio::test]
async fn paging_of_items_continues_where_its_edge_was() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    for id in ["a", "b", "c", "d", "e"] {
        component.publish(OWNER, "n", id).await;
    }
    let page = items(&mut component, "<max>2</max>").await;
    assert_eq!(read_items(&page, "id"), expected_page("a b", "0 1 2 5"));
    component.publish(OWNER, "n", "b").await;
    let after = format!("<max>2</max><after>{}</after>", uid(&page, "last"));
    let page = items(&mut component, &after).await;
    assert_eq!(read_items(&page, "id"), expected_page("c d", "1 3 4 5"));
    let names = discovered(&mut component, OWNER, " node='n'", &after).await;
    assert_eq!(read_items(&names, "name"), expected_page("c d", "1 3 4 5"));
    component.granted(OWNER, "<retract node='n'><item id='d'/></retract>").await;
    let after = format!("<max>9</max><after>{}</after>", uid(&page, "last"));
    let page = items(&mut component, &after).await;
    assert_eq!(read_items(&page, "id").0, "e b");
    // Backwards from the newest item.
    let page = items(&mut component, "<max>2</max><before/>").await;
    assert_eq!(read_items(&page, "id").0, "e b");
    component.publish(OWNER, "n", "e").await;
    let before = format!("<max>2</max><before>{}</before>", uid(&page, "first"));
    assert_eq!(read_items(&items(&mut component, &before).await, "id").0, "a c");
    // A recreated node has other items.
    component.owner(OWNER, "set", "<delete node='n'/>").await;
    component.create(OWNER, "n", &[]).await;
    component.publish(OWNER, "n", "a").await;
    assert_eq!(error(&items(&mut component, &before).await), "cancel item-not-found");
}

/// XEP-0059 §2.2: no subscription is skipped if the options of the subscription at the edge change
/// between requests.
#[tokio::test]
async fn paging_of_subscriptions_continues_where_its_edge_was() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    let jids: Vec<_> = (0..6).map(|number| format!("u{number}@localhost")).collect();
    for jid in &jids {
        component.subscribe(jid, "n").await;
    }
    let listed = async |component: &mut TestComponent, set: &str| {
        let set = asked(&format!("<max>3</max>{set}"));
        let list = format!("<subscriptions node='n'/>{set}");
        let answer = component.owner(OWNER, "get", &list).await;
        let owned = answer.children().next().unwrap().children().next().unwrap();
        let all: Vec<_> = owned.children().filter_map(|one| one.attr("jid")).collect();
        all.join(" ")
    };
    let first = listed(&mut component, "").await;
    assert_eq!(first, jids[..3].join(" "));
    let option = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
                  <value>http://jabber.org/protocol/pubsub#subscribe_options</value></field>\
                  <field var='pubsub#include_body'><value>1</value></field></x>";
    let options = format!("<options node='n' jid='{}'>{option}</options>", jids[2]);
    component.granted(&jids[2], &options).await;
    let second = listed(&mut component, &format!("<after>{}</after>", jids[2])).await;
    assert_eq!(second, jids[3..].join(" "));
}

/// XEP-0413: in the order of creation a republished item keeps its position.
#[tokio::test]
async fn paging_by_creation_continues_where_its_edge_was() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    for id in ["a", "b", "c", "b"] {
        component.publish(OWNER, "n", id).await;
    }
    let order = "<order xmlns='urn:xmpp:order-by:1' by='creation'/>";
    let mut page = async |set: &str| {
        let content =
            format!("<pubsub xmlns='{PUBSUB}'><items node='n'/>{order}{}</pubsub>", asked(set));
        component.ask(OWNER, "get", &content).await
    };
    let first = page("<max>2</max>").await;
    assert_eq!(read_items(&first, "id"), expected_page("a b", "0 1 2 3"));
    let rest = page(&format!("<after>{}</after>", uid(&first, "last"))).await;
    assert_eq!(read_items(&rest, "id"), expected_page("c", "2 3 3 3"));
}

/// §6.5.4: every answer that omits items has a `<set/>`, from which the other items can be
/// requested.
#[tokio::test]
async fn reply_that_omits_items_has_a_set() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    let retrieve =
        |items: &str| format!("<pubsub xmlns='{PUBSUB}'><items node='n'{items}</pubsub>");
    let plain = retrieve("/>");
    for id in ["a", "b", "c"] {
        component.publish(OWNER, "n", id).await;
    }
    for whole in ["/>", " max_items='3'/>", " max_items='7'/>", "><item id='a'/></items>"] {
        let answer = component.ask(OWNER, "get", &retrieve(whole)).await;
        assert!(!shown(&answer).contains(RSM), "{}", shown(&answer));
    }
    for (max, names, summary) in
        [("2", "b c", "1 2 3 3"), ("1", "c", "2 3 3 3"), ("0", "", "- - - 3")]
    {
        let newest = retrieve(&format!(" max_items='{max}'/>"));
        let answer = component.ask(OWNER, "get", &newest).await;
        assert_eq!(read_items(&answer, "id"), expected_page(names, summary));
    }
    let answer = component.ask(OWNER, "get", &retrieve(" max_items='2'/>")).await;
    let older = items(&mut component, &format!("<before>{}</before>", uid(&answer, "first"))).await;
    assert_eq!(read_items(&older, "id"), expected_page("a", "0 1 1 3"));

    let text = "x".repeat(60_000);
    for id in ["1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        let item = format!("<item id='{id}'><x xmlns='urn:x'>{text}</x></item>");
        let publish = format!("<publish node='n'>{item}</publish>");
        component.granted(OWNER, &publish).await;
    }
    let answer = component.ask(OWNER, "get", &plain).await;
    assert_eq!(read_items(&answer, "id"), expected_page("2 3 4 5 6 7 8 9", "4 5 12 12"));
    // The other items follow from the edges of the page.
    let before = format!("<before>{}</before>", uid(&answer, "first"));
    let answer = items(&mut component, &before).await;
    assert_eq!(read_items(&answer, "id"), expected_page("a b c 1", "0 1 4 12"));
    let wanted: String = (1..=9).map(|id| format!("<item id='{id}'/>")).collect();
    let answer = component.ask(OWNER, "get", &retrieve(&format!(">{wanted}</items>"))).await;
    assert_eq!(read_items(&answer, "id"), expected_page("2 3 4 5 6 7 8 9", "- 5 12 9"));
}

/// Movim requests the page before its last item, and the page after its first item.
#[tokio::test]
async fn both_ends_of_a_page_lead_to_the_next_page() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    for id in ["a", "b", "c", "d", "e", "f"] {
        component.publish(OWNER, "n", id).await;
    }
    let newest = format!("<pubsub xmlns='{PUBSUB}'><items node='n' max_items='2'/></pubsub>");
    let newest = component.ask(OWNER, "get", &newest).await;
    assert_eq!(read_items(&newest, "id"), expected_page("e f", "4 5 6 6"));
    let mut page = async |edge: &str, uid: String| {
        let set = format!("<max>2</max><{edge}>{uid}</{edge}>");
        items(&mut component, &set).await
    };
    for end in ["first", "last"] {
        let older = page("before", uid(&newest, end)).await;
        assert_eq!(read_items(&older, "id"), expected_page("c d", "2 3 4 6"), "{end}");
        for other in ["first", "last"] {
            let oldest = page("before", uid(&older, other)).await;
            assert_eq!(read_items(&oldest, "id"), expected_page("a b", "0 1 2 6"), "{end} {other}");
            let newer = page("after", uid(&older, other)).await;
            assert_eq!(read_items(&newer, "id"), expected_page("e f", "4 5 6 6"), "{end} {other}");
        }
    }
    // A page that was filled from its first entry has plain UIDs, so that pages may overlap.
    let forward = page("after", uid(&newest, "first").split('~').next().unwrap().to_owned()).await;
    assert_eq!(read_items(&forward, "id"), expected_page("f", "5 6 6 6"));
    let oldest = items(&mut component, "<max>3</max>").await;
    let overlapping =
        items(&mut component, &format!("<max>3</max><after>{}</after>", uid(&oldest, "first")))
            .await;
    assert_eq!(read_items(&overlapping, "id"), expected_page("b c d", "1 2 4 6"));
}

/// A reader that does not page, such as a reader of a block list, cannot detect missing items; the
/// operator can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_replies_without_paging_are_counted_and_logged_once() {
    let mut service = ServiceProcess::start(&[("LIMITS_MAX_REPLY_BYTES", "1000")], &[]).await;
    service.granted(OWNER, "<create node='list'/>").await;
    for number in 0..20 {
        service.publish(OWNER, "list", &format!("{number:0>100}")).await;
    }
    let reader = "muc.example.org";
    let retrieve =
        |set: &str| format!("<pubsub xmlns='{PUBSUB}'><items node='list'/>{set}</pubsub>");
    let names = format!("<query xmlns='{ITEMS}' node='list'/>");
    for content in [retrieve(&asked("")), retrieve(&asked("<max>2</max>"))] {
        service.ask(reader, "get", &content).await;
    }
    assert_eq!(service.stat("replies_truncated_total").await, 0);
    for content in [&retrieve(""), &names, &retrieve("")] {
        let answer = service.ask(reader, "get", content).await;
        assert!(answer.children().next().unwrap().has_child("set", RSM), "{}", shown(&answer));
    }
    service.ask("other@example.com/x", "get", &retrieve("")).await;
    assert_eq!(service.stat("replies_truncated_total").await, 4);
    let log = service.log();
    let lines = lines_with_event(&log, "reply_truncated");
    let [first, second] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(first.contains("list") && first.contains("muc.example.org"), "{first}");
    assert!(second.contains("example.com") && !second.contains("other"), "{second}");
}

/// Publishes this number of entries of a block list, in batches.
async fn publish_entries(
    component: &mut TestComponent,
    by: &str,
    node: &str,
    payload: &str,
    n: usize,
) {
    let entry = |number: usize| format!("<item id='{number:0>64}'>{payload}</item>");
    for first in (0..n).step_by(20) {
        let entries: String = (first..first + 20).map(entry).collect();
        component.granted(by, &format!("<publish node='{node}'>{entries}</publish>")).await;
    }
}

const REPORT: &str = "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'/>";

/// Items fill an answer up to `max_reply_bytes`, measured as they are shown: with or without a
/// publisher, and with the attributes that describe their content.
#[tokio::test]
async fn size_of_a_reply_counts_the_shown_parts_of_items() {
    const LIMIT: usize = 10_000;
    let long = format!("{}@localhost/x", "o".repeat(200));
    for (owner, publisher) in [(OWNER, long.as_str()), (long.as_str(), OWNER)] {
        for (itemreply, includes_content_ids, payload) in [
            ("none", false, REPORT),
            ("owner", false, REPORT),
            ("publisher", false, REPORT),
            ("none", true, "<x xmlns='u'/>"),
            ("owner", true, REPORT),
        ] {
            let few = |config: &mut Config| {
                config.limits.max_reply_bytes = LIMIT;
                config.limits.max_batch = 200;
                config.compare_and_publish = includes_content_ids;
            };
            let mut component = TestComponent::with(Arc::new(MemoryStore::new()), few).await;
            let fields = [("itemreply", itemreply), ("publish_model", "open")];
            component.create(owner, "n", &fields).await;
            publish_entries(&mut component, publisher, "n", payload, 200).await;
            let names: String = (0..200).map(|id| format!("<item id='{id:0>64}'/>")).collect();
            for content in [
                "<items node='n'/>".to_owned(),
                format!("<items node='n'/>{}", asked("<max>200</max>")),
                format!("<items node='n'>{names}</items>"),
            ] {
                let answer = component.pubsub(STRANGER, "get", &content).await;
                let bytes = shown(&answer).len();
                let case = format!("{itemreply} {includes_content_ids} {owner} {content:.40}");
                // The envelope takes about 500 bytes.
                assert!((LIMIT - 500..LIMIT + 700).contains(&bytes), "{case}: {bytes} bytes");
                assert!(shown(&answer).contains(RSM), "{case}");
            }
        }
    }
}

/// The numbers of docs/OPERATING.md, "Running a block list"; the JID of the publisher makes no
/// difference.
#[tokio::test]
async fn block_list_of_twelve_thousand_is_read_in_one_reply() {
    let entries = async |max_stanza_bytes, max_reply_bytes| {
        let configure = |config: &mut Config| {
            config.link.max_stanza_bytes = max_stanza_bytes;
            config.limits.max_reply_bytes = max_reply_bytes;
            config.limits.max_items = 50_000;
        };
        let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
        let fields = [("max_items", "max"), ("publish_model", "open")];
        component.create(OWNER, "list", &fields).await;
        let bot = "block-list-publisher@moderation.example.org/bot";
        publish_entries(&mut component, bot, "list", REPORT, 12_000).await;
        component.items("muc.localhost", "list").await.len()
    };
    let Config { link, limits, .. } = Config::default();
    assert_eq!(entries(link.max_stanza_bytes, limits.max_reply_bytes).await, 3_246);
    assert_eq!(entries(2_000_000, 1_900_000).await, 12_000);
}

/// Two servers relay a reply to a user of another server, and write each quote of text as six bytes. A stanza above the
/// limit of the other server would end its stream, with the events for other users.
#[tokio::test]
async fn answers_fit_after_servers_have_escaped_their_quotes() {
    let Config { link, limits, .. } = Config::default();
    let html =
        "&lt;p class=\"a\"&gt;See &lt;a href=\"https://blog.example.org/news\"&gt;it&lt;/a&gt;";
    for (text, in_value) in [
        (html.repeat(80), false),
        ("{\"a\": \"b\", \"c\": 'd'}".repeat(250), false),
        ("'".repeat(6000), false),
        ("&#34;".repeat(3000), true),
    ] {
        let mut component = TestComponent::start().await;
        component.create(OWNER, "n", &[("max_items", "max")]).await;
        let payload = match in_value {
            true => format!("<x xmlns='urn:x'><y z='{text}'/></x>"),
            false => format!("<x xmlns='urn:x'>{text}</x>"),
        };
        publish_entries(&mut component, OWNER, "n", &payload, 100).await;
        let names: String = (0..100).map(|id| format!("<item id='{id:0>64}'/>")).collect();
        for content in [
            "<items node='n'/>".to_owned(),
            format!("<items node='n'/>{}", asked("<max>100</max>")),
            format!("<items node='n'>{names}</items>"),
        ] {
            let answer = component.pubsub(STRANGER, "get", &content).await;
            let bytes = relayed(&answer).len();
            let expected = limits.max_reply_bytes - 50_000..link.max_stanza_bytes - 10_000;
            assert!(expected.contains(&bytes), "{text:.20} {content:.40}: {bytes} bytes");
        }
    }
}

/// A larger reply ends the stream to another server, with events for all of its users, so only users of the server
/// itself get replies above the limit of such streams.
#[tokio::test]
async fn replies_to_users_of_other_servers_keep_to_the_limit_of_their_streams() {
    let entries = async |max_remote_stanza_bytes, reader: &str| {
        let configure = |config: &mut Config| {
            config.link.max_stanza_bytes = 2_000_000;
            config.link.max_remote_stanza_bytes = max_remote_stanza_bytes;
            config.limits.max_reply_bytes = 1_900_000;
            config.limits.max_items = 50_000;
        };
        let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
        component.create(OWNER, "list", &[("max_items", "max")]).await;
        publish_entries(&mut component, OWNER, "list", REPORT, 5_000).await;
        let reply = component.pubsub(reader, "get", "<items node='list'/>").await;
        (shown(&reply).matches("<item ").count(), shown(&reply).contains(RSM))
    };
    let default = Config::default().link.max_remote_stanza_bytes;
    for local in ["reader@localhost/x", "muc.localhost"] {
        assert_eq!(entries(default, local).await, (5_000, false), "{local}");
    }
    for remote in ["reader@far.example/x", "muc.far.example", "reader@notlocalhost/x"] {
        assert_eq!(entries(default, remote).await, (3_274, true), "{remote}");
        assert_eq!(entries(2_000_000, remote).await, (5_000, false), "{remote}");
    }
}

/// A list of nodes for a user of another server is shortened too, and a list without pages is refused.
#[tokio::test]
async fn lists_for_users_of_other_servers_keep_to_the_limit_of_their_streams() {
    let configure = |config: &mut Config| {
        config.link.max_remote_stanza_bytes = 40_000;
        config.limits.max_nodes_per_owner = 1_000;
    };
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    for number in 0..600 {
        component.create(OWNER, &format!("node-{number:0>60}"), &[]).await;
    }
    component.create(OWNER, "members", &[]).await;
    for batch in 0..6 {
        let members = (0..100).map(|number| {
            format!(
                "<affiliation jid='{:x>60}@localhost' affiliation='member'/>",
                batch * 100 + number
            )
        });
        let members: String = members.collect();
        let list = format!("<affiliations node='members'>{members}</affiliations>");
        component.owner(OWNER, "set", &list).await;
    }
    let owner = "<affiliation jid='owner@far.example' affiliation='owner'/>";
    let list = format!("<affiliations node='members'>{owner}</affiliations>");
    component.owner(OWNER, "set", &list).await;
    for (requester, is_local) in [(OWNER, true), ("owner@far.example/x", false)] {
        let nodes = component.ask(requester, "get", &format!("<query xmlns='{ITEMS}'/>")).await;
        let number = shown(&nodes).matches("<item ").count();
        assert_eq!(number == 601, is_local, "{requester}: {number}");
        let reply = component.owner(requester, "get", "<affiliations node='members'/>").await;
        match is_local {
            true => assert_eq!(reply.attr("type"), Some("result")),
            false => assert!(
                shown(&reply)
                    .contains("max_remote_stanza_bytes: the reply has more than 40000 bytes")
            ),
        }
    }
}

/// Only other servers count the quotes of a single item. Neither a reply nor an event ends the stream to such a server.
#[tokio::test]
async fn an_item_of_the_largest_payload_is_sent_where_its_quotes_fit() {
    const FAR: &str = "reader@far.example/x";
    let configure = |config: &mut Config| config.limits.max_payload_bytes = 252_000;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    component.create(OWNER, "n", &[]).await;
    for reader in ["near@localhost", "far@far.example"] {
        component.subscribe(reader, "n").await;
    }
    for (text, far) in [("x", Ok(1)), ("'", Err("modify policy-violation"))] {
        let payload = format!("<x xmlns='urn:x'>{}</x>", text.repeat(251_000));
        let item = format!("<publish node='n'><item id='1'>{payload}</item></publish>");
        component.granted(OWNER, &item).await;
        let messages = component.messages().await;
        let sent_to =
            messages.iter().map(|message| message.attr("to").unwrap()).collect::<Vec<_>>();
        match far {
            Ok(_) => assert_eq!(sent_to, ["far@far.example", "near@localhost"]),
            Err(_) => assert_eq!(sent_to, ["near@localhost"]),
        }
        assert_eq!(component.items("near@localhost/x", "n").await, ["1"]);
        let query = "<query xmlns='urn:xmpp:mam:2' node='n'/>";
        component.ask(FAR, "set", query).await;
        let results = component.messages().await;
        let archived = results.iter().map(shown).collect::<String>();
        assert_eq!(archived.contains(&payload), far.is_ok());
        match far {
            Ok(_) => assert_eq!(component.items(FAR, "n").await, ["1"]),
            Err(condition) => {
                let refused = component.pubsub(FAR, "get", "<items node='n'/>").await;
                assert_eq!(error(&refused), condition);
                assert!(shown(&refused).contains("max_remote_stanza_bytes: the reply has more"));
            }
        }
    }
}

/// Names with quotes grow in relayed stanzas too. A list without pages above the limit is refused.
#[tokio::test]
async fn lists_without_pages_fit_after_servers_have_escaped_their_quotes() {
    const AT: &str = "<affiliations/>";
    let small = |config: &mut Config| {
        config.link.max_stanza_bytes = 60_000;
        config.limits.max_payload_bytes = 10_000;
        config.limits.max_reply_bytes = 40_000;
    };
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), small).await;
    let (mut nodes, mut bytes) = (0, 0);
    loop {
        component.create(OWNER, &format!("{nodes}{}", "&apos;".repeat(200)), &[]).await;
        nodes += 1;
        let answer = component.pubsub(OWNER, "get", AT).await;
        if answer.attr("type") == Some("error") {
            assert_eq!(error(&answer), "modify policy-violation");
            break;
        }
        bytes = relayed(&answer).len();
        assert!(bytes <= 60_000, "{nodes} nodes: {bytes} bytes");
    }
    assert!(bytes > 55_000, "{bytes}");
    let page = component.pubsub(OWNER, "get", &format!("{AT}{}", asked("<max>1000</max>"))).await;
    assert!((35_000..=41_000).contains(&relayed(&page).len()), "{}", relayed(&page).len());
}

/// XEP-0465: an answer has the JID of a public subscriber twice. A truncated answer is counted, as with items.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_subscribers_are_cut_at_max_reply_bytes() {
    const AT: &str = "<items node='urn:xmpp:pps:subscribers:0/n'/>";
    let mut service = ServiceProcess::start(&[("LIMITS_MAX_REPLY_BYTES", "10000")], &[]).await;
    service.granted(OWNER, "<create node='n'/>").await;
    for number in 0..40 {
        let jid = format!("{number:0>200}@localhost");
        let public = "<public xmlns='urn:xmpp:pps:0'/>";
        let subscribe = format!("<subscribe node='n' jid='{jid}'>{public}</subscribe>");
        service.granted(&jid, &subscribe).await;
    }
    let retrieve = |set: &str| format!("<pubsub xmlns='{PUBSUB}'>{AT}{set}</pubsub>");
    for (set, truncated) in [(asked("<max>40</max>"), 0), (String::new(), 1)] {
        let answer = service.ask(OWNER, "get", &retrieve(&set)).await;
        let bytes = shown(&answer).len();
        assert!((9_500..11_200).contains(&bytes), "{bytes} bytes");
        assert!(shown(&answer).contains("<count>40</count>"), "{}", shown(&answer));
        assert_eq!(service.stat("replies_truncated_total").await, truncated);
    }
}

/// Item ids and node names fill an answer up to `max_reply_bytes`.
#[tokio::test]
async fn lists_of_names_are_cut_at_max_reply_bytes() {
    let few = |config: &mut Config| config.limits.max_reply_bytes = 20_000;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), few).await;
    for number in 0..250 {
        component.create(OWNER, &format!("{number:0>100}"), &[]).await;
    }
    component.create(OWNER, "n", &[]).await;
    for number in 0..250 {
        component.publish(OWNER, "n", &format!("{number:0>100}")).await;
    }
    for node in ["", " node='n'"] {
        let query = format!("<query xmlns='{ITEMS}'{node}/>");
        let answer = component.ask(STRANGER, "get", &query).await;
        let bytes = shown(&answer).len();
        assert!((19_000..20_700).contains(&bytes), "{bytes} bytes for{node}");
        assert!(answer.children().next().unwrap().has_child("set", RSM), "{}", shown(&answer));
    }
}

/// Movim lists the communities of a service without paging. `docs/TROUBLESHOOTING.md` has these
/// numbers.
#[tokio::test]
async fn a_list_of_five_thousand_nodes_is_read_in_one_answer() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let no_rates = |config: &mut Config| config.limits.max_jid_requests_per_second = 0;
    let mut component = TestComponent::with(Arc::clone(&store), no_rates).await;
    for number in 1..5_000 {
        let name =
            format!("urn:xmpp:microblog:0:comments/a-post-with-a-usual-title-{number:05}-AbCd");
        component.create(OWNER, &name, &[]).await;
    }
    component.create(OWNER, "community", &[("title", "New")]).await;
    let Config { link, limits, .. } = Config::default();
    for (max_stanza_bytes, max_reply_bytes, expected) in
        [(link.max_stanza_bytes, limits.max_reply_bytes, 4_464), (2_000_000, 1_900_000, 5_000)]
    {
        let configure = |config: &mut Config| {
            config.link.max_stanza_bytes = max_stanza_bytes;
            config.limits.max_reply_bytes = max_reply_bytes;
        };
        let mut component = TestComponent::with(Arc::clone(&store), configure).await;
        let list = component.ask(STRANGER, "get", &format!("<query xmlns='{ITEMS}'/>")).await;
        let nodes = list.children().next().unwrap().children();
        assert_eq!(nodes.filter(|entry| entry.name() == "item").count(), expected);
    }
}

#[tokio::test]
async fn nodes_of_the_service_are_paged() {
    let mut component = TestComponent::start().await;
    for (name, model) in
        [("a", "open"), ("b", "whitelist"), ("c", "open"), ("d", "open"), ("e", "whitelist")]
    {
        component.create(OWNER, name, &[("access_model", model)]).await;
    }
    for (set, owner, stranger) in [
        ("<max>2</max>", ("a b", "0 a b 5"), ("a c", "0 a c 3")),
        ("<max>2</max><after>c</after>", ("d e", "3 d e 5"), ("d", "2 d d 3")),
        ("<max>2</max><before/>", ("d e", "3 d e 5"), ("c d", "1 c d 3")),
        ("<max>2</max><before>c</before>", ("a b", "0 a b 5"), ("a", "0 a a 3")),
        ("<max>2</max><index>2</index>", ("c d", "2 c d 5"), ("d", "2 d d 3")),
        ("<max>0</max>", ("", "- - - 5"), ("", "- - - 3")),
        ("<max>0</max><before/>", ("", "- - - 5"), ("", "- - - 3")),
        ("<max>5</max><before/>", ("a b c d e", "0 a e 5"), ("a c d", "0 a d 3")),
        ("", ("a b c d e", "0 a e 5"), ("a c d", "0 a d 3")),
    ] {
        for (by, (names, summary)) in [(OWNER, owner), (STRANGER, stranger)] {
            let answer = discovered(&mut component, by, "", set).await;
            assert_eq!(read_nodes(&answer), expected_page(names, summary), "{by} {set}");
        }
    }
    // A hidden node is not an edge either.
    for edge in ["b", "x"] {
        let set = format!("<after>{edge}</after>");
        let answer = discovered(&mut component, STRANGER, "", &set).await;
        assert_eq!(error(&answer), "cancel item-not-found");
    }
}

/// XEP-0059 §2.2: a recreated node is a different edge; the client restarts the list, and misses no
/// node.
#[tokio::test]
async fn paging_of_nodes_fails_at_an_edge_that_was_created_again() {
    let mut component = TestComponent::start().await;
    let names = ["a", "b", "c", "d", "d-e"];
    for name in names {
        component.create(OWNER, name, &[]).await;
    }
    let page = discovered(&mut component, OWNER, "", "<max>2</max>").await;
    assert_eq!(read_nodes(&page), expected_page("a b", "0 a b 5"));
    let after = format!("<max>2</max><after>{}</after>", uid(&page, "last"));
    let page = discovered(&mut component, OWNER, "", &after).await;
    assert_eq!(read_nodes(&page), expected_page("c d", "2 c d 5"));
    let before = format!("<before>{}</before>", uid(&page, "first"));
    for name in ["b", "c"] {
        component.owner(OWNER, "set", &format!("<delete node='{name}'/>")).await;
        component.create(OWNER, name, &[]).await;
    }
    for set in [&after, &before] {
        let answer = discovered(&mut component, OWNER, "", set).await;
        assert_eq!(error(&answer), "cancel item-not-found", "{set}");
    }
    // A name denotes the present position of its node, even if the name looks like a UID.
    for (edge, rest) in [("a", "d d-e b c"), ("d", "d-e b c"), ("d-e", "b c")] {
        let answer = discovered(&mut component, OWNER, "", &format!("<after>{edge}</after>")).await;
        assert_eq!(read(&answer, "node").0, rest);
    }
}

/// In a service with many nodes, a page of the list reads only the nodes that it shows and one
/// more.
#[tokio::test]
async fn page_of_nodes_reads_one_more_node_than_it_shows() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let fixture = TestService::new(Arc::clone(&memory)).await;
    for number in 0..1001 {
        fixture.create(OWNER, &format!("{number:04}")).await.unwrap();
    }
    let store = FailingStore::gated(memory, &Arc::new(Semaphore::new(1)));
    let fixture = TestService::new(Arc::clone(&store) as Arc<dyn Store>).await;
    let owner = actor(OWNER);
    let read = async |edge| {
        store.listed_nodes.store(0, Ordering::Relaxed);
        let page = PageRequest { max: 2, edge };
        let part = fixture.service.nodes(&owner, &page, None, 0).await.unwrap();
        assert_eq!(store.listed_nodes.load(Ordering::Relaxed), 3);
        part
    };
    let names = |part: &ResultPage<NodeSummary>| {
        part.entries.iter().map(|node| node.node.to_string()).collect::<Vec<_>>().join(" ")
    };
    let first = read(PageBound::At(0)).await;
    assert_eq!((names(&first).as_str(), first.index, first.total), ("0000 0001", Some(0), None));
    let next = read(PageBound::After(first.entries[1].uid())).await;
    assert_eq!((names(&next).as_str(), next.index, next.total), ("0002 0003", None, None));
    let last = read(PageBound::Last).await;
    assert_eq!(names(&last), "0999 1000");
    assert_eq!(names(&read(PageBound::Before(last.entries[0].uid())).await), "0997 0998");
    // With one node fewer, the nodes are counted.
    fixture.delete(OWNER, "0000").await.unwrap();
    let page = PageRequest { max: 2, edge: PageBound::Last };
    let counted = fixture.service.nodes(&owner, &page, None, 0).await.unwrap();
    assert_eq!((counted.index, counted.total), (Some(998), Some(1000)));
}

/// Lists of one's own relations are ordered by node name, so a relation to a recreated node has the
/// same position.
#[tokio::test]
async fn paging_of_own_lists_continues_after_a_node_that_was_created_again() {
    let mut component = TestComponent::start().await;
    for node in ["d", "c", "b", "a"] {
        component.create(OWNER, node, &[]).await;
        component.subscribe(OWNER, node).await;
    }
    for list in ["<subscriptions/>", "<affiliations/>"] {
        let page = async |component: &mut TestComponent, set: &str| {
            let set = asked(&format!("<max>2</max>{set}"));
            component.pubsub(OWNER, "get", &format!("{list}{set}")).await
        };
        let first = page(&mut component, "").await;
        assert_eq!(read(&first, "node").0, "a b");
        component.owner(OWNER, "set", "<delete node='b'/>").await;
        component.create(OWNER, "b", &[]).await;
        component.subscribe(OWNER, "b").await;
        let after = format!("<after>{}</after>", uid(&first, "last"));
        assert_eq!(read(&page(&mut component, &after).await, "node").0, "c d", "{list}");
    }
}

#[tokio::test]
async fn own_subscriptions_and_affiliations_are_paged() {
    let mut component = TestComponent::start().await;
    for node in ["m", "n"] {
        component.create(OWNER, node, &[]).await;
        for who in ["b@localhost", "a@localhost/y", "a@localhost/x"] {
            component.subscribe(who, node).await;
        }
    }
    let mut ask = async |by: &str, ns: &str, list: &str, set: &str| {
        let content = format!("<pubsub xmlns='{ns}'>{list}{}</pubsub>", asked(set));
        component.ask(by, "get", &content).await
    };
    let of_node = "<subscriptions node='n'/>";
    let answer = ask(OWNER, OWNER_NS, of_node, "<max>2</max>").await;
    assert_eq!(
        read(&answer, "jid"),
        expected_page("a@localhost/x a@localhost/y", "0 a@localhost/x a@localhost/y 3")
    );
    let answer = ask(OWNER, OWNER_NS, of_node, "<max>2</max><after>a@localhost/y</after>").await;
    assert_eq!(read(&answer, "jid"), expected_page("b@localhost", "2 b@localhost b@localhost 3"));
    let answer = ask(OWNER, OWNER_NS, of_node, "<after>c@localhost</after>").await;
    assert_eq!(error(&answer), "cancel item-not-found");
    let answer = ask(OWNER, OWNER_NS, "<affiliations node='n'/>", "<max>1</max>").await;
    assert_eq!(
        read(&answer, "jid"),
        expected_page("owner@localhost", "0 owner@localhost owner@localhost 1")
    );
    let answer = ask(OWNER, PUBSUB, "<affiliations/>", "<max>1</max><before/>").await;
    assert_eq!(read(&answer, "node"), expected_page("n", "1 n n 2"));

    // Own affiliations of all nodes: each is listed once, whatever the page size.
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let set = format!("<max>3</max>{after}");
        let answer = ask("a@localhost/z", PUBSUB, "<subscriptions/>", &set).await;
        let content = answer.get_child("pubsub", PUBSUB).unwrap();
        let list = content.get_child("subscriptions", PUBSUB).unwrap();
        let entry = |entry: &Element| {
            (entry.attr("node").unwrap().to_owned(), entry.attr("jid").unwrap().to_owned())
        };
        found.extend(list.children().map(entry));
        let set = content.get_child("set", RSM).unwrap();
        let Some(last) = set.get_child("last", RSM) else { break };
        after = format!("<after>{}</after>", last.text());
    }
    found.sort();
    let expected = [("m", "x"), ("m", "y"), ("n", "x"), ("n", "y")];
    let expected = expected.map(|(node, r)| (node.to_owned(), format!("a@localhost/{r}")));
    assert_eq!(found, expected);
}

/// XEP-0462: node type filter; pages and counts include only nodes of these types.
#[tokio::test]
async fn nodes_are_filtered_by_type() {
    let mut component = TestComponent::start().await;
    for (name, kind) in [("a", "urn:blog"), ("b", ""), ("c", "urn:blog"), ("d", "urn:notes")] {
        component.create(OWNER, name, &[("type", kind)]).await;
    }
    let field = |var: &str, types: &[&str]| {
        let values: String = types.iter().map(|kind| format!("<value>{kind}</value>")).collect();
        format!("<field var='{var}' type='list-multi'>{values}</field>")
    };
    let filter = |fields: &str| {
        format!(
            "<filter xmlns='{FILTER}'><x xmlns='jabber:x:data' type='submit'>\
             <field var='FORM_TYPE'><value>{FILTER}</value></field>{fields}</x></filter>"
        )
    };
    for (fields, names, count) in [
        (field("included-types", &["urn:blog"]), "a c", "2"),
        (field("included-types", &["urn:notes", ""]), "b d", "2"),
        (field("excluded-types", &["urn:blog"]), "b d", "2"),
        (field("excluded-types", &[""]), "a c d", "3"),
        (field("included-types", &[]), "", "0"),
        (field("excluded-types", &[]), "a b c d", "4"),
        (String::new(), "a b c d", "4"),
        // Unknown fields are ignored (XEP-0004 §3.1).
        (field("colours", &["red"]), "a b c d", "4"),
    ] {
        let query = format!("<query xmlns='{ITEMS}'>{}{}</query>", filter(&fields), asked(""));
        let answer = component.ask(STRANGER, "get", &query).await;
        let content = answer.children().next().unwrap();
        let nodes = content.children().filter_map(|entry| entry.attr("node"));
        assert_eq!(nodes.collect::<Vec<_>>().join(" "), names, "{fields}");
        let set = content.get_child("set", RSM).unwrap();
        assert_eq!(set.get_child("count", RSM).unwrap().text(), count, "{fields}");
    }
    let both = field("included-types", &["a"]) + &field("excluded-types", &["b"]);
    let other = field("FORM_TYPE", &["urn:other"]);
    for filter in [filter(&both), filter(&other), format!("<filter xmlns='{FILTER}'/>")] {
        let query = format!("<query xmlns='{ITEMS}'>{filter}</query>");
        let answer = component.ask(STRANGER, "get", &query).await;
        assert_eq!(error(&answer), "modify bad-request", "{filter}");
    }
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    assert!(shown(&component.ask(STRANGER, "get", info).await).contains(FILTER));
}
