//! Malformed input and careless clients: every request gets an error or a sensible result; the
//! connection stays up, and nothing is stored partially. Also unusual, but valid payloads.

use minidom::Element;

use crate::support::component::{EVENT, PUBSUB, SERVICE, TestComponent, error, shown};

const OWNER: &str = "owner@localhost/desk";
const STRANGER: &str = "stranger@far.example/x";
const NODE: &str = "n";

async fn with_node() -> TestComponent {
    let mut component = TestComponent::start().await;
    component.create(OWNER, NODE, &[("publish_model", "open")]).await;
    component
}

/// Asserts that the service still answers, and that the node has no item.
async fn is_unharmed(component: &mut TestComponent) {
    let pong = component.ask(STRANGER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(pong.attr("type"), Some("result"));
    assert!(component.items(OWNER, NODE).await.is_empty());
}

/// Sends a complete stanza; returns the error in its answer.
async fn refused(component: &mut TestComponent, stanza: &str) -> String {
    component.send(stanza).await;
    let answer = component.answer().await;
    error(&answer)
}

fn publish(item: &str) -> String {
    format!("<pubsub xmlns='{PUBSUB}'><publish node='{NODE}'>{item}</publish></pubsub>")
}

fn iq(attributes: &str, content: &str) -> String {
    format!("<iq from='{STRANGER}' to='{SERVICE}' {attributes}>{content}</iq>")
}

#[tokio::test]
async fn malformed_iq_envelopes() {
    let mut component = with_node().await;
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    for (stanza, expected) in [
        (iq("type='bogus' id='1'", ping), "modify bad-request"),
        (iq("id='1'", ping), "modify bad-request"),
        (iq("type='get'", ping), "modify bad-request"),
        (iq("type='get' id='1'", ""), "modify bad-request"),
        (iq("type='get' id='1'", &format!("{ping}{ping}")), "modify bad-request"),
        (iq("type='set' id='1'", ping), "modify bad-request"),
        (iq("type='get' id='1'", "<x xmlns='urn:x'/>"), "cancel service-unavailable"),
        (
            format!("<iq from='{STRANGER}' to='someone@{SERVICE}' type='get' id='1'>{ping}</iq>"),
            "cancel service-unavailable",
        ),
    ] {
        assert_eq!(refused(&mut component, &stanza).await, expected, "{stanza}");
    }
    is_unharmed(&mut component).await;
}

#[tokio::test]
async fn stanzas_without_a_request_get_no_reply() {
    let mut component = with_node().await;
    for stanza in [
        "<iq type='result' id='1' to='pubsub.localhost' from='a@b'/>",
        "<iq type='error' id='1' to='pubsub.localhost' from='a@b'><error code='404'/></iq>",
        "<message type='bogus' from='a@b' to='pubsub.localhost'><body>1</body><body>2</body></message>",
        "<message from='a@b' to='pubsub.localhost'><!-- a comment --></message>",
        "<presence type='bogus' from='a@b/c' to='pubsub.localhost'/>",
        "<presence from='a@b/c' to='pubsub.localhost'><priority>999</priority></presence>",
        "<presence type='subscribe' from='a@b' to='pubsub.localhost'/>",
        "<unknown xmlns='urn:unknown'><x/></unknown>",
        " \n ",
    ] {
        component.send(stanza).await;
    }
    is_unharmed(&mut component).await;
}

#[tokio::test]
async fn invalid_actions_are_bad_requests() {
    let mut component = with_node().await;
    for (kind, content, expected) in [
        ("set", "", "modify bad-request"),
        ("get", "<nothing/>", "modify bad-request"),
        ("get", "<publish node='n'/>", "modify bad-request"),
        ("set", "<items node='n'/>", "modify bad-request"),
        ("set", "<create node='a'/><create node='b'/>", "modify bad-request"),
        (
            "set",
            "<subscribe node='n' jid='a@b'/><unsubscribe node='n' jid='a@b'/>",
            "modify bad-request",
        ),
        ("set", "<create/><configure/><configure/>", "modify bad-request"),
    ] {
        let answer = component.pubsub(STRANGER, kind, content).await;
        assert_eq!(error(&answer), expected, "{content}");
    }
    is_unharmed(&mut component).await;
}

#[tokio::test]
async fn deeply_nested_payloads_are_refused() {
    let mut component = with_node().await;
    for levels in [200, 1000, 100_000] {
        let (open, close) = ("<x>".repeat(levels), "</x>".repeat(levels));
        let nested = format!("<item id='deep'><x xmlns='urn:x'>{open}{close}</x></item>");
        let answer = component.ask(OWNER, "set", &publish(&nested)).await;
        assert_eq!(error(&answer), "modify policy-violation");
    }
    is_unharmed(&mut component).await;
    // An item below the depth limit is accepted, retrieved and retracted.
    let (open, close) = ("<x>".repeat(120), "</x>".repeat(120));
    let nested = format!("<item id='deep'><x xmlns='urn:x'>{open}{close}</x></item>");
    let answer = component.ask(OWNER, "set", &publish(&nested)).await;
    assert_eq!(answer.attr("type"), Some("result"));
    assert_eq!(component.items(OWNER, NODE).await, ["deep"]);
}

#[tokio::test]
async fn many_and_long_attributes_are_limited_by_size() {
    let mut component = with_node().await;
    component.create(OWNER, "large", &[]).await;
    let many: String = (0..10_000).map(|n| format!(" a{n}='v'")).collect();
    let item = format!("<item id='many'><x xmlns='urn:x'{many}/></item>");
    let answer = component.ask(OWNER, "set", &publish(&item)).await;
    assert_eq!(error(&answer), "modify not-acceptable payload-too-big");
    let few: String = (0..4_000).map(|n| format!(" a{n}='v'")).collect();
    let item = format!("<item id='few'><x xmlns='urn:x'{few}/></item>");
    let content = publish(&item).replace("'n'", "'large'");
    assert_eq!(component.ask(OWNER, "set", &content).await.attr("type"), Some("result"));
    let long = "v".repeat(9_000);
    let item = format!("<item id='long'><x xmlns='urn:x' a='{long}'/></item>");
    let content = publish(&item).replace("'n'", "'large'");
    assert_eq!(component.ask(OWNER, "set", &content).await.attr("type"), Some("result"));
    assert_eq!(component.items(OWNER, "large").await, ["few", "long"]);
    // A long attribute of the iq itself.
    let answer = refused(&mut component, &iq(&format!("type='get' id='1' b='{long}'"), "")).await;
    assert_eq!(answer, "modify bad-request");
    is_unharmed(&mut component).await;
}

#[tokio::test]
async fn many_namespace_declarations_of_one_element_are_refused() {
    let mut component = with_node().await;
    let many: String = (0..1000).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect();
    let item = format!("<item id='many'><x xmlns='urn:x'{many}/></item>");
    let answer = component.ask(OWNER, "set", &publish(&item)).await;
    assert_eq!(error(&answer), "modify policy-violation");
    let siblings: String = (0..1000).map(|n| format!("<x xmlns='urn:{n}'/>")).collect();
    let item = format!("<item id='siblings'><x xmlns='urn:x'>{siblings}</x></item>");
    let answer = component.ask(OWNER, "set", &publish(&item)).await;
    assert_eq!(answer.attr("type"), Some("result"));
}

#[tokio::test]
async fn oversized_payloads_and_names_are_refused() {
    let mut component = with_node().await;
    let large = format!("<item id='1'><x xmlns='urn:x'>{}</x></item>", "x".repeat(1 << 20));
    let answer = component.ask(OWNER, "set", &publish(&large)).await;
    assert_eq!(error(&answer), "modify policy-violation");
    let larger = format!("<item id='1'><x xmlns='urn:x'>{}</x></item>", "x".repeat(100_000));
    let answer = component.ask(OWNER, "set", &publish(&larger)).await;
    assert_eq!(error(&answer), "modify not-acceptable payload-too-big");
    let name = "i".repeat(100_000);
    let item = format!("<item id='{name}'><x xmlns='urn:x'/></item>");
    let answer = component.ask(OWNER, "set", &publish(&item)).await;
    assert_eq!(error(&answer), "modify not-acceptable");
    // An absent item is reported as such, whatever the length of its id.
    let items = format!("<items node='n'><item id='{name}'/></items>");
    let answer = component.pubsub(OWNER, "get", &items).await;
    assert_eq!(answer.attr("type"), Some("result"));
    let answer = component.pubsub(OWNER, "get", &format!("<items node='{name}'/>")).await;
    assert_eq!(error(&answer), "cancel item-not-found");
    is_unharmed(&mut component).await;
}

#[tokio::test]
async fn batch_with_an_event_beyond_the_stanza_limit_is_refused() {
    let mut component = with_node().await;
    component.subscribe(STRANGER, NODE).await;
    let prefixes: String =
        (0..200).map(|n| format!(" xmlns:p{n}='urn:{}'", "x".repeat(200))).collect();
    let items: String =
        (0..90).map(|n| format!("<item id='{n}'><x xmlns='urn:x'/></item>")).collect();
    let content = format!(
        "<pubsub xmlns='{PUBSUB}'{prefixes}><publish node='{NODE}'>{items}</publish></pubsub>"
    );
    let answer = component.ask(OWNER, "set", &content).await;
    assert_eq!(error(&answer), "modify not-acceptable payload-too-big");
    is_unharmed(&mut component).await;
}

#[tokio::test]
async fn stanza_id_too_long_for_any_reply_harms_no_connection() {
    let mut component = with_node().await;
    // Each apostrophe takes five characters in the answer.
    let id = "'".repeat(120_000);
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    component.send(&iq(&format!("type='get' id=\"{id}\""), ping)).await;
    is_unharmed(&mut component).await;
}

#[tokio::test]
async fn names_of_nodes_and_items_may_have_any_characters() {
    let mut component = TestComponent::start().await;
    let names = [
        "🎺 horn",
        "quote&quot;s and &apos;apostrophes&apos;",
        "&lt;tag&gt; &amp;amp;",
        " spaces  around ",
        "ünïcödé/with/slashes",
    ];
    for name in names {
        component.create(OWNER, name, &[]).await;
        component.subscribe("reader@localhost/r", name).await;
        let answer = component.publish(OWNER, name, name).await;
        assert_eq!(answer.attr("type"), Some("result"), "{name}");
        for item in ["tab&#9;and&#10;newline&#13;", "\u{202e}right to left"] {
            component.publish(OWNER, name, item).await;
            let retract = format!("<retract node='{name}'><item id='{item}'/></retract>");
            component.granted(OWNER, &retract).await;
        }
        let parsed: Element = format!("<x xmlns='x' name='{name}'/>").parse().unwrap();
        let meant = parsed.attr("name").unwrap();
        assert_eq!(component.items(OWNER, name).await, [meant]);
        let events = component.events_for("reader@localhost/r").await;
        assert_eq!(events[0].attr("node"), Some(meant));
        assert_eq!(events[0].get_child("item", EVENT).unwrap().attr("id"), Some(meant));
    }
    let query = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
    let listed = component.ask(OWNER, "get", query).await;
    assert_eq!(listed.children().next().unwrap().children().count(), names.len());
}

/// Published payloads, and how retrieval and notifications must show them.
#[tokio::test]
async fn payloads_are_returned_with_the_same_meaning() {
    let mut component = with_node().await;
    component.subscribe(STRANGER, NODE).await;
    for payload in [
        "<x xmlns='urn:x'/>",
        "<x xmlns=''/>",
        "<p:x xmlns:p='urn:p' xmlns='urn:x'><y/><p:y/><y xmlns=''><z/></y></p:x>",
        "<x xmlns='urn:x' xml:lang='de' xml:space='preserve'> \n mixed <b>con</b>tent\t </x>",
        "<x xmlns='urn:x' xmlns:a='urn:a' a:b='1' b='2' c='&#9;&#10;&#13;&lt;&amp;&apos;&quot;'/>",
        "<x xmlns='urn:x' xmlns:a='urn:a'><y xmlns:a='urn:other' a:b='1'>a:name</y>a:name</x>",
        "<x xmlns='urn:x' xmlns:ns0='urn:0' xmlns:tns0='urn:1'><y xmlns:z='urn:2' z:q='3'/></x>",
        "<x xmlns='urn:x'>&lt;&gt;&amp;]]&gt; 🎺 &#13;\u{85}\u{2028}</x>",
        "<x xmlns='urn:x'><![CDATA[<raw> & such]]></x>",
        "<entry xmlns='http://www.w3.org/2005/Atom'><title type='text'>T</title></entry>",
        "<message xmlns='jabber:client'><body>forwarded</body></message>",
    ] {
        let item = format!("<item id='1'>{payload}</item>");
        let answer = component.ask(OWNER, "set", &publish(&item)).await;
        assert_eq!(answer.attr("type"), Some("result"), "{payload}: {}", shown(&answer));
        let meant: Element = format!("<o xmlns='urn:o'>{payload}</o>").parse().unwrap();
        let meant = same(meant.children().next().unwrap());
        let answer = component.pubsub(OWNER, "get", "<items node='n'/>").await;
        let items = answer.children().next().unwrap().children().next().unwrap();
        let got = items.children().next().unwrap().children().next().unwrap();
        assert_eq!(same(got), meant, "{payload}");
        let events = component.events_for(STRANGER).await;
        let got = events[0].get_child("item", EVENT).unwrap().children().next().unwrap();
        assert_eq!(same(got), meant, "{payload}");
    }
}

/// Canonical form of an element, independent of namespace prefixes.
fn same(element: &Element) -> String {
    let mut attributes: Vec<_> = element
        .attrs()
        .iter()
        .map(|((namespace, name), value)| format!("{{{}}}{name}={value:?}", namespace.as_str()))
        .collect();
    attributes.sort();
    let content: Vec<_> = element
        .nodes()
        .map(|node| match node {
            minidom::Node::Element(child) => same(child),
            minidom::Node::Text(text) => format!("{text:?}"),
        })
        .collect();
    format!("{{{}}}{} {attributes:?} [{}]", element.ns(), element.name(), content.join(" "))
}

#[tokio::test]
async fn payload_inherits_prefixes_and_language() {
    let mut component = with_node().await;
    let content = format!(
        "<pubsub xmlns='{PUBSUB}' xmlns:q='urn:q'><publish node='{NODE}' xml:lang='de'>\
         <item id='1'><x xmlns='urn:x' type='q:name'>q:other</x></item></publish></pubsub>"
    );
    component.ask(OWNER, "set", &content).await;
    let answer = component.pubsub(OWNER, "get", "<items node='n'/>").await;
    let items = answer.children().next().unwrap().children().next().unwrap();
    let payload = items.children().next().unwrap().children().next().unwrap();
    let declared = payload.prefixes.declared_prefixes();
    assert_eq!(declared.get(&Some("q".to_owned())).map(String::as_str), Some("urn:q"));
    assert!(shown(payload).contains("xml:lang='de'"));
}

/// Prosody and ejabberd turn `<xml:x/>` into an element that no parser accepts.
#[tokio::test]
async fn elements_in_the_reserved_xml_namespace_are_accepted_in_payloads() {
    let mut component = with_node().await;
    for content in [
        "<x xmlns='http://www.w3.org/XML/1998/namespace'><y/></x>",
        "<x xmlns=\"http://www.w3.org/XML/1998/namespace\"/>",
        "<xml:x/>",
    ] {
        let answer = refused(&mut component, &iq("type='get' id='1'", content)).await;
        assert_eq!(answer, "cancel service-unavailable");
        let item = format!("<item id='1'><o xmlns='urn:o'>{content}<p/></o></item>");
        let answer = component.ask(OWNER, "set", &publish(&item)).await;
        assert_eq!(answer.attr("type"), Some("result"));
        let answer = component.pubsub(OWNER, "get", "<items node='n'/>").await;
        let text = shown(&answer);
        assert!(text.contains("<xml:x"), "{text}");
        assert!(text.contains("<p/>"), "{text}");
        component.granted(OWNER, "<retract node='n'><item id='1'/></retract>").await;
    }
    is_unharmed(&mut component).await;
}

#[tokio::test]
async fn malformed_xml_ends_the_stream_and_reconnects() {
    let mut component = with_node().await;
    for broken in [
        "<iq><x></iq>",
        "<iq a='1' a='2'/>",
        "<iq xmlns:p='urn:p' p:a='1' p:a='2'/>",
        "<p:iq/>",
        "<iq xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<iq xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<iq>&#1;</iq>",
        "<iq>&unknown;</iq>",
        "<!DOCTYPE x>",
        "<?pi?>",
    ] {
        component.send(broken).await;
        let mut last = None;
        while let Some(stanza) = component.link.receive().await {
            last = Some(stanza);
        }
        let last = last.unwrap_or_else(|| panic!("{broken}: no stream error"));
        assert!(last.is("error", "http://etherx.jabber.org/streams"), "{broken}");
        let began = tokio::time::Instant::now();
        component.reconnected().await;
        assert!(began.elapsed().as_millis() < 1000, "{broken}: {:?}", began.elapsed());
        is_unharmed(&mut component).await;
    }
}

#[tokio::test]
async fn text_around_a_payload_is_refused() {
    let mut component = with_node().await;
    for item in ["<item>text<x xmlns='urn:x'/></item>", "<item>text</item>"] {
        let answer = component.ask(OWNER, "set", &publish(item)).await;
        assert_eq!(error(&answer), "modify bad-request invalid-payload");
    }
    let spaced = "<item id='1'> \n <x xmlns='urn:x'/> </item>";
    let answer = component.ask(OWNER, "set", &publish(spaced)).await;
    assert_eq!(answer.attr("type"), Some("result"));
}

/// The answer has the id of the request, even an unusual one.
#[tokio::test]
async fn stanza_ids_are_returned_unchanged() {
    let mut component = TestComponent::start().await;
    component.send(&iq("type='get' id='&lt;&apos;&#10;🎺'", "<ping xmlns='urn:xmpp:ping'/>")).await;
    let answer = component.answer().await;
    assert_eq!(answer.attr("id"), Some("<'\n🎺"));
}
