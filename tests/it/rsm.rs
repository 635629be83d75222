//! Long lists in parts (XEP-0059): items, nodes, subscriptions and affiliations.

use minidom::Element;

use crate::harness::{Component, OWNER as OWNER_NS, PUBSUB, error, shown};

const OWNER: &str = "owner@localhost/desk";
const STRANGER: &str = "stranger@localhost/x";
const RSM: &str = "http://jabber.org/protocol/rsm";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";
const FILTER: &str = "urn:xmpp:pubsub-filter:0";

/// A page of items.
async fn items(component: &mut Component, set: &str) -> Element {
    let content = format!("<pubsub xmlns='{PUBSUB}'><items node='n'/>{}</pubsub>", asked(set));
    component.ask(OWNER, "get", &content).await
}

/// A page of what a node or the service has.
async fn discovered(component: &mut Component, by: &str, node: &str, set: &str) -> Element {
    let content = format!("<query xmlns='{ITEMS}'{node}>{}</query>", asked(set));
    component.ask(by, "get", &content).await
}

fn asked(set: &str) -> String {
    format!("<set xmlns='{RSM}'>{set}</set>")
}

/// What is in a list, by this attribute, and what is said of the list: `names index first last count`.
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

fn both(names: &str, said: &str) -> (String, String) {
    (names.to_owned(), said.to_owned())
}

#[tokio::test]
async fn items_of_a_node_and_their_names() {
    let mut component = Component::start().await;
    component.create(OWNER, "n", &[]).await;
    for id in ["a", "b", "c", "d", "e"] {
        component.publish(OWNER, "n", id).await;
    }
    for (set, names, said) in [
        ("<max>2</max>", "a b", "0 a b 5"),
        ("<max>2</max><after>b</after>", "c d", "- c d 5"),
        ("<max>2</max><after>e</after>", "", "- - - 5"),
        ("<max>2</max><before/>", "d e", "3 d e 5"),
        ("<max>2</max><before>d</before>", "b c", "- b c 5"),
        ("<max>2</max><index>3</index>", "d e", "3 d e 5"),
        ("<max>0</max>", "", "- - - 5"),
        ("", "a b c d e", "0 a e 5"),
    ] {
        assert_eq!(read(&items(&mut component, set).await, "id"), both(names, said), "{set}");
        let answer = discovered(&mut component, OWNER, " node='n'", set).await;
        assert_eq!(read(&answer, "name"), both(names, said), "{set}");
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
    assert_eq!(read(&answer, "id"), both("c", "- c c 5"));
}

/// §6.5.4: who asks for all and gets some is told so; who gets all, or as many as asked for, is not.
#[tokio::test]
async fn a_list_that_was_cut_says_so() {
    let mut component = Component::start().await;
    component.create(OWNER, "n", &[]).await;
    let plain = format!("<pubsub xmlns='{PUBSUB}'><items node='n'/></pubsub>");
    let newest = format!("<pubsub xmlns='{PUBSUB}'><items node='n' max_items='2'/></pubsub>");
    for id in ["a", "b", "c"] {
        component.publish(OWNER, "n", id).await;
    }
    for content in [&plain, &newest] {
        let answer = component.ask(OWNER, "get", content).await;
        assert!(!shown(&answer).contains(RSM), "{}", shown(&answer));
    }
    let text = "x".repeat(60_000);
    for id in ["1", "2", "3", "4", "5", "6"] {
        let item = format!("<item id='{id}'><x xmlns='urn:x'>{text}</x></item>");
        let publish = format!("<publish node='n'>{item}</publish>");
        component.granted(OWNER, &publish).await;
    }
    let answer = component.ask(OWNER, "get", &plain).await;
    let (names, said) = read(&answer, "id");
    assert!(names.ends_with("5 6") && !names.starts_with('a'), "{names}");
    let first = names.split(' ').next().unwrap();
    assert_eq!(said, format!("{} {first} 6 9", 9 - names.split(' ').count()));
    // The others can be had from there.
    let answer = items(&mut component, &format!("<before>{first}</before>")).await;
    assert!(read(&answer, "id").0.starts_with("a b c"), "{}", read(&answer, "id").0);
}

#[tokio::test]
async fn nodes_of_the_service() {
    let mut component = Component::start().await;
    for (name, model) in
        [("a", "open"), ("b", "whitelist"), ("c", "open"), ("d", "open"), ("e", "whitelist")]
    {
        component.create(OWNER, name, &[("access_model", model)]).await;
    }
    for (set, owner, stranger) in [
        ("<max>2</max>", ("a b", "0 a b -"), ("a c", "0 a c -")),
        ("<max>2</max><after>c</after>", ("d e", "- d e -"), ("d", "- d d -")),
        ("<max>2</max><before/>", ("d e", "- d e -"), ("c d", "- c d -")),
        ("<max>2</max><before>c</before>", ("a b", "- a b -"), ("a", "- a a -")),
        ("<max>2</max><index>2</index>", ("c d", "2 c d -"), ("d", "2 d d 3")),
        ("<max>0</max>", ("", "- - - 5"), ("", "- - - 3")),
        ("<max>0</max><before/>", ("", "- - - 5"), ("", "- - - 3")),
        ("<max>5</max><before/>", ("a b c d e", "0 a e 5"), ("a c d", "0 a d 3")),
        ("", ("a b c d e", "0 a e 5"), ("a c d", "0 a d 3")),
    ] {
        for (by, (names, said)) in [(OWNER, owner), (STRANGER, stranger)] {
            let answer = discovered(&mut component, by, "", set).await;
            assert_eq!(read(&answer, "node"), both(names, said), "{by} {set}");
        }
    }
    // A node that is not shown is no edge either.
    for edge in ["b", "x"] {
        let set = format!("<after>{edge}</after>");
        let answer = discovered(&mut component, STRANGER, "", &set).await;
        assert_eq!(error(&answer), "cancel item-not-found");
    }
}

#[tokio::test]
async fn subscriptions_and_affiliations() {
    let mut component = Component::start().await;
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
        both("a@localhost/x a@localhost/y", "0 a@localhost/x a@localhost/y 3")
    );
    let answer = ask(OWNER, OWNER_NS, of_node, "<max>2</max><after>a@localhost/y</after>").await;
    assert_eq!(read(&answer, "jid"), both("b@localhost", "2 b@localhost b@localhost 3"));
    let answer = ask(OWNER, OWNER_NS, of_node, "<after>c@localhost</after>").await;
    assert_eq!(error(&answer), "cancel item-not-found");
    let answer = ask(OWNER, OWNER_NS, "<affiliations node='n'/>", "<max>1</max>").await;
    assert_eq!(
        read(&answer, "jid"),
        both("owner@localhost", "0 owner@localhost owner@localhost 1")
    );
    let answer = ask(OWNER, PUBSUB, "<affiliations/>", "<max>1</max><before/>").await;
    assert_eq!(read(&answer, "node"), both("n", "1 n n 2"));

    // One's own, over all nodes: each once, whatever the size of the pages.
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

/// XEP-0462: nodes of some types; pages and counts are of those.
#[tokio::test]
async fn nodes_of_some_types() {
    let mut component = Component::start().await;
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
        // A field that is not known is ignored (XEP-0004 §3.1).
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
