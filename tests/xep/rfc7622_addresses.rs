//! Addresses (RFC 7622): stamped addresses in their identity form, addresses in requests in their
//! prepared form; names of nodes.

use std::sync::Arc;

use gjallar::{config::Config, store::MemoryStore};
use jid::{BareJid, Error, Jid, JidPart};
use minidom::Element;
use stringprep::{nameprep, nodeprep, tables::unassigned_code_point};

use crate::{
    support::component::{OWNER as OWNED, SERVICE, STREAM, TestComponent, error, shown},
    xep0060::s12_3_presence::name_nodes,
};

const OWNER: &str = "owner@localhost/desk";
const INFO: &str = "http://jabber.org/protocol/disco#info";

fn prepared(text: &str) -> Result<String, Error> {
    Jid::prepare(text).map(|jid| jid.to_string())
}

#[test]
fn an_address_has_three_parts() {
    let jid = Jid::new("a@b.example/c/d@e").unwrap();
    let part = |part: Option<JidPart<'_>>| part.map(|part| part.as_str().to_owned());
    assert_eq!(part(jid.node()).as_deref(), Some("a"));
    assert_eq!(jid.domain().as_str(), "b.example");
    assert_eq!(part(jid.resource()).as_deref(), Some("c/d@e"));
    assert_eq!(jid.to_bare().as_str(), "a@b.example");
    assert_eq!(jid.clone().into_bare(), jid.to_bare());
    assert!(!jid.is_bare() && jid.to_bare().is_bare());
    let domain = Jid::new("b.example").unwrap();
    assert!(domain.node().is_none() && domain.resource().is_none() && domain.is_bare());
}

#[test]
fn address_stamped_by_the_server_is_kept_unchanged() {
    let long = "x".repeat(1023);
    for text in [
        "a@localhost/🎉",
        "ꙋ@localhost/x",
        "ߓ@localhost/x",
        "a@localhost/Gajim.𞤀",
        "straße@weiß.example",
        "A@xn--mnchen-3ya.example",
        "☃@localhost",
        &format!("{long}@{long}/{long}"),
    ] {
        assert_eq!(Jid::new(text).unwrap().as_str(), text);
    }
    for (text, error) in [
        ("", Error::Empty),
        ("@b", Error::Empty),
        ("a@", Error::Empty),
        ("a@b/", Error::Empty),
        ("/c", Error::Empty),
        ("a@b@c", Error::Character),
        ("a b@c", Error::Character),
        ("a@b\n", Error::Character),
        ("a@b/c\u{7}", Error::Character),
    ] {
        assert_eq!(Jid::new(text), Err(error), "{text:?}");
    }
    assert_eq!(Jid::new(&format!("{long}x@b")), Err(Error::TooLong));
    assert_eq!(BareJid::new("a@b/c"), Err(Error::NotBare));
}

#[test]
fn an_address_of_a_user_is_prepared_by_rfc_7622() {
    for (text, expected) in [
        ("Ä@Example.ORG./Ä", "ä@example.org/Ä"),
        ("a@xn--mnchen-3ya.example", "a@münchen.example"),
        ("straße@weiß.example", "straße@weiß.example"),
        ("ｊuliet@example.com", "juliet@example.com"),
        ("ꙋ@localhost/🎉", "ꙋ@localhost/🎉"),
        ("ߓ@localhost", "ߓ@localhost"),
        ("𞤀@localhost/Gajim.𞤀🥰", "𞤢@localhost/Gajim.𞤀🥰"),
        ("l·l@localhost", "l·l@localhost"),
        ("שלום1@localhost", "שלום1@localhost"),
        ("a@localhost/e\u{301}\u{a0}b", "a@localhost/é b"),
        ("a@[::1]/x", "a@[::1]/x"),
        // RFC 5952.
        ("a@[2001:DB8:0::0:1]", "a@[2001:db8::1]"),
        ("a@[2001:db8:0:1:0:0:0:1]", "a@[2001:db8:0:1::1]"),
        ("a@[::FFFF:c000:201]", "a@[::ffff:192.0.2.1]"),
        // RFC 5892, appendix A.1: between joining letters, ignoring marks, and after a virama.
        ("می\u{200c}خواهم@localhost", "می\u{200c}خواهم@localhost"),
        ("a@localhost/می\u{64e}\u{200c}\u{64e}خ", "a@localhost/می\u{64e}\u{200c}\u{64e}خ"),
        ("a@localhost/क्\u{200c}ष", "a@localhost/क्\u{200c}ष"),
        ("a@127.0.0.1", "a@127.0.0.1"),
    ] {
        assert_eq!(prepared(text).as_deref(), Ok(expected), "{text}");
    }
    for (text, error) in [
        ("☃@localhost", Error::Localpart),
        ("a'b@localhost", Error::Localpart),
        ("a b@localhost", Error::Localpart),
        ("a·b@localhost", Error::Localpart),
        ("aש@localhost", Error::Localpart),
        ("a\u{ad}b@localhost", Error::Localpart),
        ("\u{378}@localhost", Error::Localpart),
        ("a\u{200c}b@localhost", Error::Localpart),
        ("a@localhost/\u{200c}خ", Error::Resource),
        ("a@localhost/م\u{200c}", Error::Resource),
        // A letter that joins only on its right side.
        ("a@localhost/د\u{200c}خ", Error::Resource),
        ("a@localhost/م\u{200d}خ", Error::Resource),
        ("a@[::1::]", Error::Domain),
        ("a@b@c", Error::Domain),
        ("a@b c", Error::Domain),
        ("a@-b", Error::Domain),
        ("a@b/\u{7}", Error::Resource),
        ("@b", Error::Localpart),
        ("a@", Error::Domain),
        ("a@b/", Error::Resource),
    ] {
        assert_eq!(prepared(text), Err(error), "{text}");
    }
}

/// RFC 7622 §3.2, §3.3: two domains and two accounts. A service that folds these addresses gives
/// one entity the rights of another.
#[test]
fn addresses_that_differ_stay_different() {
    for (one, other) in [
        ("straße@localhost", "strasse@localhost"),
        ("u@weiß.example", "u@weiss.example"),
        ("ς@localhost", "σ@localhost"),
    ] {
        assert_ne!(prepared(one), prepared(other));
    }
}

fn stamped(text: &str) -> String {
    Jid::stamped(text).map(|jid| jid.to_string()).expect(text)
}

/// ejabberd stamps an address in the spelling that its user typed at login.
#[test]
fn every_spelling_of_a_stamped_address_has_one_identity_form() {
    let long = format!("{}@localhost", "ﷺ".repeat(300));
    for (text, expected) in [
        ("mallory@localhost/R", "mallory@localhost/R"),
        ("MaLLory@LocalHost/R", "mallory@localhost/R"),
        ("ｍallory@localhost", "mallory@localhost"),
        ("ﬁsh@localhost/ﬁ", "fish@localhost/ﬁ"),
        ("𝐌allory@localhost/🎉", "mallory@localhost/🎉"),
        ("mal\u{ad}lory@localhost", "mallory@localhost"),
        ("mal\u{200d}l\u{1806}ory@localhost", "mallory@localhost"),
        ("e\u{301}@localhost", "é@localhost"),
        ("A'B@localhost", "a'b@localhost"),
        ("☃@localhost", "☃@localhost"),
        ("Ünal@localhost", "ünal@localhost"),
        // Letters added after Unicode 3.2, and fillers that Stringprep preserves.
        ("Ꙋ@localhost", "Ꙋ@localhost"),
        ("ᵃdmin@localhost", "ᵃdmin@localhost"),
        ("owner\u{3164}@localhost", "owner\u{1160}@localhost"),
        ("owner\u{17b4}@localhost", "owner\u{17b4}@localhost"),
        ("می\u{200c}خواهم@localhost", "می\u{200c}خواهم@localhost"),
        // RFC 7622 distinguishes these addresses.
        ("Straße@WEIß.example", "straße@weiß.example"),
        ("ς@localhost", "ς@localhost"),
        // A-labels are preserved.
        ("A@XN--MNCHEN-3YA.Example.", "a@xn--mnchen-3ya.example"),
        ("a@MÜNCHEN.xn--mnchen-3ya", "a@münchen.xn--mnchen-3ya"),
        ("a@ＬocalHost", "a@localhost"),
        ("a@[2001:DB8:0::0:1]", "a@[2001:db8::1]"),
        ("LocalHost", "localhost"),
        // The mapped address would be empty, too long, or split into other parts.
        ("\u{ad}@localhost", "\u{ad}@localhost"),
        (&long, &long),
        ("a／b@localhost", "a／b@localhost"),
        ("℀＠\u{3000}@localhost", "℀＠\u{3000}@localhost"),
    ] {
        if expected.contains('\u{3000}') {
            assert_eq!(Jid::stamped(text), Err(Error::Character));
        } else {
            assert_eq!(stamped(text), expected);
            assert_eq!(stamped(expected), expected);
        }
    }
    assert_eq!(Jid::stamped("a@b@c"), Err(Error::Character));
}

/// Rates and queues are counted for an account, in every spelling that its user types.
#[test]
fn addresses_of_one_account_are_counted_together() {
    for (one, other) in [
        ("StraSSe@LocalHost/ß", "straße@localhost"),
        ("mal\u{200d}lory@localhost", "mallory@localhost"),
        ("a@xn--bcher-kva.example", "A@bücher.example/r"),
        ("A@b@c/d", "A@b@c"),
    ] {
        assert_eq!(jid::account(one), jid::account(other));
    }
    // Two different domains of IDNA 2008.
    assert_ne!(jid::account("a@straßenfest.example"), jid::account("a@strassenfest.example"));
}

/// Every address with one non-ASCII character that a server can stamp.
fn addresses_of_all_characters() -> impl Iterator<Item = (char, String)> {
    let chars = ('\u{80}'..'\u{32000}').chain('\u{e0000}'..'\u{e1000}');
    let chars = chars.filter(|c| Jid::new(&format!("{c}@{c}")).is_ok());
    chars.flat_map(|c| [(c, format!("X{c}y@localhost")), (c, format!("x@y{c}.example"))])
}

#[test]
fn identity_form_is_idempotent_and_equals_that_of_the_prepared_address() {
    for (c, text) in addresses_of_all_characters() {
        let one = BareJid::stamped(&text).unwrap();
        assert_eq!(BareJid::stamped(one.as_str()).as_ref(), Ok(&one), "{text}");
        let Ok(prepared) = BareJid::prepare(&text) else { continue };
        assert_eq!(BareJid::prepare(one.as_str()).as_ref(), Ok(&prepared), "{text}: {one}");
        assert_eq!(BareJid::stamped(prepared.as_str()).as_ref(), Ok(&prepared), "{text}");
        let is_kept = one.as_str().contains(c);
        assert!(is_kept || text.starts_with("x@") || one == prepared, "{text}: {one} {prepared}");
    }
}

/// Returns the account to which a Stringprep server maps an address.
fn stringprep_account(address: &str) -> Option<String> {
    if address.contains(unassigned_code_point) {
        return None;
    }
    let (local, domain) = address.split_once('@').unwrap();
    let account = format!("{}@{}", nodeprep(local).ok()?, nameprep(domain).ok()?);
    BareJid::new(&account).ok().map(|_| account)
}

/// RFC 3454: two accounts of a server are two entities. `owner` with a Hangul filler is a separate
/// account.
#[test]
fn an_identity_form_is_no_broader_than_stringprep() {
    for (c, text) in addresses_of_all_characters() {
        let one = BareJid::stamped(&text).unwrap();
        if unassigned_code_point(c) {
            assert!(one.as_str().contains(c), "{text}: {one}");
        }
        if let Some(account) = stringprep_account(&text) {
            assert_eq!(stringprep_account(one.as_str()), Some(account), "{text}: {one}");
        }
    }
}

#[test]
fn fold_unites_addresses_that_are_equal_in_stringprep_or_rfc_7622() {
    let all = addresses_of_all_characters();
    for (_, text) in all.filter(|(c, _)| !unassigned_code_point(*c)) {
        let fold = |address: &str| BareJid::new(address).unwrap().fold().into_owned();
        let one = fold(BareJid::stamped(&text).unwrap().as_str());
        assert_eq!(fold(&one), one, "{text}");
        let prepared = BareJid::prepare(&text).ok().filter(|_| text.starts_with('X'));
        let prepared = prepared.map(|prepared| prepared.to_string());
        for other in [prepared, stringprep_account(&text)].into_iter().flatten() {
            assert_eq!(fold(&other), one, "{text}: {other}");
        }
    }
}

#[test]
fn own_address_in_a_request_is_recognized_in_every_case() {
    let sender = "MALLORY@LocalHost/🎉☃";
    let own = |text| Jid::prepare_from(text, sender).map(|jid| jid.to_string());
    for text in [sender, "mallory@localhost/🎉☃", "ｍallory@localhost./🎉☃"] {
        assert_eq!(own(text).as_deref(), Ok("mallory@localhost/🎉☃"));
    }
    assert_eq!(own("Mallory@localhost").as_deref(), Ok("mallory@localhost"));
    assert_eq!(own("owner@localhost/a\u{ad}"), Err(Error::Resource));
    // Prosody stamps the fold of the configured address.
    let own = Jid::prepare_from("νίκος@localhost", "νίκοσ@localhost/x");
    assert_eq!(own.unwrap().as_str(), "νίκοσ@localhost");
}

#[test]
fn own_address_in_a_request_is_replaced_by_the_stamped_address() {
    let sender = "☃@xn--mnchen-3ya.example/A";
    let own = |text| Jid::prepare_from(text, sender).map(|jid| jid.to_string());
    for text in [sender, "☃@xn--mnchen-3ya.example", "☃@xn--mnchen-3ya.example/B"] {
        assert_eq!(own(text).as_deref(), Ok(text));
    }
    assert_eq!(own("B@xn--mnchen-3ya.example").as_deref(), Ok("b@münchen.example"));
    assert_eq!(own("☃@xn--mnchen-3ya.example/"), Err(Error::Resource));
}

/// RFC 6120 §8.2.3: a request is answered, whatever the form of its sender's address.
#[tokio::test]
async fn every_sender_is_answered() {
    let mut component = TestComponent::start().await;
    for from in ["a@localhost/🎉", "ꙋ@localhost/x", "ߓ@localhost/x", "a@localhost/Gajim.𞤀"]
    {
        let answer = component.ask(from, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
        assert_eq!((answer.attr("type"), answer.attr("to")), (Some("result"), Some(from)));
        component.create(OWNER, from, &[]).await;
        component.subscribe(from, from).await;
        let bare = from.split('/').next().unwrap();
        let set = format!(
            "<affiliations node='{from}'><affiliation jid='{bare}' affiliation='publisher'/>\
             </affiliations>"
        );
        let answer = component.owner(OWNER, "set", &set).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        component.publish(from, from, "1").await;
        assert_eq!(component.items(from, from).await, ["1"]);
    }
    for from in ["a@b@c", "a@", "@b/x"] {
        let iq = format!(
            "<iq type='get' from='{from}' to='{SERVICE}' id='odd'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        component.send(&iq).await;
        let answer = component.answer().await;
        assert_eq!((answer.attr("to"), answer.attr("id")), (Some(from), Some("odd")));
        assert_eq!(error(&answer), "modify jid-malformed");
    }
}

/// Stamps of ejabberd for the account `mallory` of `localhost`, by the spelling that its user typed
/// at login.
const TYPED: [&str; 7] = [
    "mallory@localhost/r",
    "MALLORY@localhost/r",
    "mallory@LOCALHOST/r",
    "MaLLory@LocalHost/r",
    "ｍallory@localhost/r",
    "𝓶allory@localhost/r",
    "mal\u{ad}lory@localhost/r",
];

/// §4.1: an outcast remains an outcast in every spelling of its address, and an owner can use any
/// spelling.
#[tokio::test]
async fn outcast_is_forbidden_in_every_spelling() {
    for named in ["mallory@localhost", "MALLORY@LocalHost", "𝓶allory@localhost"] {
        let mut component = TestComponent::start().await;
        component.create(OWNER, "n", &[("publish_model", "open")]).await;
        component.subscribe("MALLORY@LocalHost", "n").await;
        assert_eq!(subscriptions(&mut component).await, ["mallory@localhost subscribed"]);
        affiliate(&mut component, named, "outcast").await;
        assert_eq!(affiliations(&mut component).await, ["mallory@localhost outcast"]);
        assert_eq!(subscriptions(&mut component).await, [""; 0]);
        for from in TYPED {
            let bare = from.trim_end_matches("/r");
            let subscribe = format!("<subscribe node='n' jid='{bare}'/>");
            for (kind, content) in
                [("set", PUBLISH), ("set", &*subscribe), ("get", "<items node='n'/>")]
            {
                let refused = component.pubsub(from, kind, content).await;
                assert_eq!(error(&refused), "auth forbidden", "{from} {content}");
                assert_eq!(refused.attr("to"), Some(from));
            }
            let own = component.pubsub(from, "get", "<affiliations/>").await;
            assert!(shown(&own).contains("outcast"), "{from}: {}", shown(&own));
        }
        let other = component.publish("malory@localhost/r", "n", "1").await;
        assert_eq!(other.attr("type"), Some("result"));
    }
}

/// RFC 6120 §8.1.2.1: one account is one entity, with its rights and its subscriptions; each reply
/// goes to the stamped address.
#[tokio::test]
async fn an_account_keeps_its_rights_in_every_spelling() {
    let mut component = TestComponent::start().await;
    component.create("MALLORY@localhost/1", "n", &[("access_model", "whitelist")]).await;
    for from in TYPED {
        let configure = component.owner(from, "get", "<configure node='n'/>").await;
        assert_eq!(configure.attr("type"), Some("result"), "{from}: {}", shown(&configure));
        assert_eq!(configure.attr("to"), Some(from));
        for jid in ["mallory@localhost", "Mallory@LocalHost/r", from] {
            component.granted(from, &format!("<subscribe node='n' jid='{jid}'/>")).await;
        }
        component.messages().await;
        component.publish(from, "n", "1").await;
        let mut notified = recipients(&mut component).await;
        notified.sort_unstable();
        assert_eq!(notified, ["mallory@localhost", "mallory@localhost/r"], "{from}");
        component.granted(from, "<unsubscribe node='n' jid='MALLORY@localhost'/>").await;
        component.granted(from, "<unsubscribe node='n' jid='mallory@localhost/r'/>").await;
    }
    let refused = component.owner("straße@localhost/x", "get", "<configure node='n'/>").await;
    assert_eq!(error(&refused), "auth forbidden");
}

/// §9.2, §12.4: presence and errors of a resource apply to its account; ejabberd stamps these
/// stanzas in the typed spelling too.
#[tokio::test]
async fn presence_capabilities_and_errors_count_in_every_spelling() {
    let from = "MALLORY@LocalHost/r";
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    let caps = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='1'/>";
    component
        .send(&format!("<presence from='{from}' to='PubSub.LocalHost'>{caps}</presence>"))
        .await;
    let question = component.answer().await;
    assert_eq!(question.attr("to"), Some("mallory@localhost/r"), "{}", shown(&question));
    let id = question.attr("id").unwrap();
    let query = format!("<query xmlns='{INFO}'><feature var='n+notify'/></query>");
    component
        .send(&format!("<iq type='result' from='{from}' to='{SERVICE}' id='{id}'>{query}</iq>"))
        .await;
    component.ask(from, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    component.publish(OWNER, "n", "1").await;
    let [event] = &component.messages().await[..] else { panic!("one event") };
    assert_eq!(event.attr("to"), Some("mallory@localhost/r"));
    let (id, stanzas) = (event.attr("id").unwrap(), "urn:ietf:params:xml:ns:xmpp-stanzas");
    let error = format!("<error type='cancel'><service-unavailable xmlns='{stanzas}'/></error>");
    component
        .send(&format!(
            "<message type='error' from='{from}' to='{SERVICE}' id='{id}'>{error}</message>"
        ))
        .await;
    component.ask(from, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    component.publish(OWNER, "n", "2").await;
    assert_eq!(recipients(&mut component).await, [""; 0], "the resource is not there");
}

/// Administrators are listed in the configuration.
#[tokio::test]
async fn administrator_is_recognized_in_every_spelling() {
    let configure = |config: &mut Config| config.admins.push("Root@LocalHost".into());
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    component.create(OWNER, "n", &[]).await;
    for from in ["root@localhost/x", "ROOT@localhost/x", "root@LOCALHOST/x"] {
        let answer = component.owner(from, "get", "<affiliations node='n'/>").await;
        assert_eq!(answer.attr("type"), Some("result"), "{from}: {}", shown(&answer));
    }
}

/// ejabberd also passes on the service's own JID in the spelling that a client typed.
#[tokio::test]
async fn the_service_is_addressed_in_every_case() {
    let mut component = TestComponent::start().await;
    for to in ["PubSub.LocalHost", SERVICE] {
        let iq = format!(
            "<iq type='get' from='a@localhost/x' to='{to}' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        component.send(&iq).await;
        let answer = component.answer().await;
        assert_eq!((answer.attr("type"), answer.attr("from")), (Some("result"), Some(to)));
    }
    for to in [format!("a@{SERVICE}"), format!("{SERVICE}/x"), "other.localhost".to_owned()] {
        let iq = format!(
            "<iq type='get' from='a@localhost/x' to='{to}' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        component.send(&iq).await;
        assert_eq!(error(&component.answer().await), "cancel service-unavailable");
    }
}

/// One account has one allowance.
#[tokio::test]
async fn limits_count_every_spelling_once() {
    let configure = |config: &mut Config| {
        config.limits.max_subscriptions_per_jid = 3;
        config.limits.max_nodes_per_owner = 3;
    };
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    for (number, from) in TYPED.iter().enumerate() {
        component.create(&format!("o{number}@localhost"), &format!("n{number}"), &[]).await;
        let create = format!("<create node='{number}'/>");
        let subscribe = format!("<subscribe node='n{number}' jid='{from}'/>");
        for content in [create, subscribe] {
            let answer = component.pubsub(from, "set", &content).await;
            let expected = if number < 3 { "result" } else { "error" };
            assert_eq!(answer.attr("type"), Some(expected), "{from}: {}", shown(&answer));
        }
    }
}

#[test]
fn fold_equals_that_of_stringprep() {
    let fold = |text| BareJid::new(text).unwrap().fold().into_owned();
    for (text, expected) in [
        ("mallory@localhost", "mallory@localhost"),
        ("straße@weiß.example", "strasse@weiss.example"),
        ("STRAẞE@localhost", "strasse@localhost"),
        ("ςᾳ@localhost", "σαι@localhost"),
        ("u@xn--bcher-kva.example", U_LABELS),
        ("u@xn--wei-7ka.example", "u@weiss.example"),
        // Dotless i is a separate letter with the same capital as i.
        ("ı@localhost", "ı@localhost"),
    ] {
        assert_eq!(fold(text), expected, "{text}");
    }
    let is_folded = |text| BareJid::new(text).unwrap().is_folded();
    assert!(is_folded("strasse@localhost") && is_folded(A_LABELS) && is_folded(U_LABELS));
    assert!(!is_folded("straße@localhost") && !is_folded("u@xn--wei-7ka.example"));
}

/// Servers that fold more than RFC 7622 stamp one account in both spellings: only a ban applies to
/// both.
#[tokio::test]
async fn a_ban_holds_for_addresses_that_a_server_may_fold() {
    for (banned, alike) in [
        ("strasse@localhost", "straße@localhost"),
        ("straße@localhost", "strasse@localhost"),
        ("ςσ@localhost", "σς@localhost"),
        ("u@weiss.example", "u@xn--wei-7ka.example"),
    ] {
        let mut component = TestComponent::start().await;
        component.create(OWNER, "n", &[("publish_model", "open")]).await;
        component.subscribe(alike, "n").await;
        affiliate(&mut component, banned, "outcast").await;
        assert_eq!(affiliations(&mut component).await, [format!("{banned} outcast")]);
        assert_eq!(subscriptions(&mut component).await, [""; 0], "{alike}");
        let from = format!("{alike}/x");
        for content in [PUBLISH, &format!("<subscribe node='n' jid='{alike}'/>")] {
            let refused = component.pubsub(&from, "set", content).await;
            assert_eq!(error(&refused), "auth forbidden", "{alike}");
        }
        // A separate affiliation of the other spelling takes precedence.
        affiliate(&mut component, alike, "member").await;
        component.subscribe(alike, "n").await;
        affiliate(&mut component, banned, "none").await;
        affiliate(&mut component, banned, "outcast").await;
        assert_eq!(subscriptions(&mut component).await, [format!("{alike} subscribed")]);
        affiliate(&mut component, alike, "none").await;
        let refused = component.pubsub(&from, "set", PUBLISH).await;
        assert_eq!(error(&refused), "auth forbidden", "{alike}");
        affiliate(&mut component, banned, "publisher").await;
        let whitelist = component.configure(OWNER, "n", &[("access_model", "whitelist")]).await;
        assert_eq!(whitelist.attr("type"), Some("result"));
        let refused = component.pubsub(&from, "get", "<items node='n'/>").await;
        assert_eq!(error(&refused), "cancel not-allowed closed-node", "{alike}");
    }
}

/// Outcasts are matched with equivalent addresses by a lookup; a pairwise comparison took minutes.
#[tokio::test]
async fn many_outcasts_of_internationalised_domains_are_set_at_once() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    let entry = |i| format!("<affiliation jid='a@ü{i}.example' affiliation='outcast'/>");
    let entries: String = (0..3000).map(entry).collect();
    let started = tokio::time::Instant::now();
    let content = format!("<affiliations node='n'>{entries}</affiliations>");
    let answer = component.owner(OWNER, "set", &content).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    assert_eq!(affiliations(&mut component).await.len(), 3000);
}

#[tokio::test]
async fn ban_ends_with_the_last_outcast_of_the_same_fold() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("publish_model", "open")]).await;
    let outcasts = ["ςσ@localhost", "σς@localhost"];
    for outcast in outcasts {
        affiliate(&mut component, outcast, "outcast").await;
    }
    for outcast in outcasts {
        let refused = component.pubsub("σσ@localhost/x", "set", PUBLISH).await;
        assert_eq!(error(&refused), "auth forbidden");
        affiliate(&mut component, outcast, "none").await;
    }
    component.granted("σσ@localhost/x", PUBLISH).await;
}

/// §8.8.2: a server may deliver notifications for `jeßica` to `jessica`, and `jessica` could not
/// unsubscribe.
#[tokio::test]
async fn an_owner_cannot_subscribe_an_address_that_a_server_may_fold() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    for jid in ["jeßica@localhost", "jeßica@localhost/x", "u@weiß.example", "u@xn--wei-7ka.example"]
    {
        let content = format!(
            "<subscriptions node='n'><subscription jid='{jid}' subscription='subscribed'/>\
             <subscription jid='other@localhost' subscription='subscribed'/></subscriptions>"
        );
        let refused = component.owner(OWNER, "set", &content).await;
        assert_eq!(error(&refused), "modify not-acceptable", "{jid}");
        assert!(shown(&refused).contains("has to subscribe itself"), "{}", shown(&refused));
        assert_eq!(subscriptions(&mut component).await, ["other@localhost subscribed"]);
        set_subscription(&mut component, "other@localhost", "none").await;
        set_subscription(&mut component, jid, "none").await;
    }
    // The node knows the address once the entity itself has subscribed.
    component.subscribe("jeßica@localhost", "n").await;
    set_subscription(&mut component, "jeßica@localhost/x", "subscribed").await;
    set_subscription(&mut component, "jeßica@localhost", "none").await;
    set_subscription(&mut component, "jeßica@localhost/x", "none").await;
    assert_eq!(subscriptions(&mut component).await, [""; 0]);
    affiliate(&mut component, "jeßica@localhost", "outcast").await;
    // An owner subscribes itself.
    affiliate(&mut component, "jeßica@localhost", "owner").await;
    let own = "<subscriptions node='n'><subscription jid='jeßica@localhost' subscription='subscribed'/></subscriptions>";
    let set = component.owner("jeßica@localhost/x", "set", own).await;
    assert_eq!(set.attr("type"), Some("result"), "{}", shown(&set));
}

/// RFC 7622: ß is a separate letter, so the address with `ss` is another entity.
#[tokio::test]
async fn letters_distinct_in_rfc_7622_are_distinct_entities() {
    let mut component = TestComponent::start().await;
    for (one, other) in [
        ("straße@localhost/x", "strasse@localhost/x"),
        ("u@weiß.localhost/x", "u@weiss.localhost/x"),
    ] {
        component.create(one, one, &[]).await;
        let answer = component.owner(other, "get", &format!("<affiliations node='{one}'/>")).await;
        assert_eq!(error(&answer), "auth forbidden");
        let answer = component.owner(one, "get", &format!("<affiliations node='{one}'/>")).await;
        assert_eq!(answer.attr("type"), Some("result"));
    }
}

/// RFC 7622 §3.2.1: an A-label and its U-label are one domain.
#[tokio::test]
async fn an_address_in_a_request_is_prepared() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    let subscribe = |jid: &str| format!("<subscribe node='n' jid='{jid}'/>");
    let sender = "a@münchen.example/x";
    for jid in ["a@xn--mnchen-3ya.example", "A@MÜNCHEN.example", "a@münchen.example"] {
        let answer = component.pubsub(sender, "set", &subscribe(jid)).await;
        assert_eq!(answer.attr("type"), Some("result"), "{jid}: {}", shown(&answer));
    }
    // A server that stamps the A-label gets events for the A-label.
    let sender = "b@xn--mnchen-3ya.example/x";
    let answer = component.pubsub(sender, "set", &subscribe("b@xn--mnchen-3ya.example")).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    let list = component.owner(OWNER, "get", "<subscriptions node='n'/>").await;
    let list = list.get_child("pubsub", OWNED).unwrap().children().next().unwrap().clone();
    let jids: Vec<_> = list.children().filter_map(|entry| entry.attr("jid")).collect();
    assert_eq!(jids, ["a@münchen.example", "b@xn--mnchen-3ya.example"]);
    for (jid, text) in [
        ("a@b@c", "not a JID: the domain is not allowed by RFC 7622"),
        ("☃@localhost", "not a JID: the localpart is not allowed by RFC 7622"),
        ("a@localhost/", "not a JID: the resource is not allowed by RFC 7622"),
    ] {
        let answer = component.pubsub(OWNER, "set", &subscribe(jid)).await;
        assert_eq!(error(&answer), "modify jid-malformed invalid-jid");
        let error = answer.get_child("error", STREAM).unwrap();
        assert_eq!(
            error.get_child("text", "urn:ietf:params:xml:ns:xmpp-stanzas").unwrap().text(),
            text
        );
    }
    let archive = "<query xmlns='urn:xmpp:mam:2' node='n'><x xmlns='jabber:x:data' type='submit'>\
                   <field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>\
                   <field var='with'><value>a@b@c</value></field></x></query>";
    let answer = component.ask(OWNER, "set", archive).await;
    assert_eq!(error(&answer), "modify jid-malformed invalid-jid");
}

/// §4.6.2, §5.3: a new node must not have a name that looks like other names, or that is reserved
/// for service discovery.
#[tokio::test]
async fn confusable_and_reserved_node_names_are_refused() {
    let mut component = TestComponent::start().await;
    for name in [
        "é",
        "fi",
        "ﬁ",
        "a b",
        "🎉",
        "🥰𞤀",
        "می\u{200c}خواهم",
        "urn:xmpp:microblog:0:comments/post-1",
    ] {
        component.create(OWNER, name, &[]).await;
    }
    for name in [
        "e\u{301}",
        "pay\u{ad}pal",
        "pay\u{200c}pal",
        "a\u{a0}b",
        " ",
        "&#10;",
        "a&#10;b",
        "a&#9;b",
        "http://jabber.org/protocol/commands",
        "http://jabber.org/protocol/pubsub#get-pending",
        "http://jabber.org/protocol/shim",
        "urn:gjallar:command:list-nodes",
        "urn:gjallar:command:of-later",
    ] {
        let create = format!("<create node='{name}'/>");
        let publish = format!("<publish node='{name}'><item><x xmlns='urn:x'/></item></publish>");
        for request in [create, publish] {
            let answer = component.pubsub(OWNER, "set", &request).await;
            assert_eq!(error(&answer), "modify not-acceptable", "{request}");
        }
    }
}

/// XEP-0004, XEP-0059, XEP-0131: the service announces these protocols, and its headers at the
/// well-known node.
#[tokio::test]
async fn forms_headers_and_result_sets_are_announced() {
    let mut component = TestComponent::start().await;
    let features = |answer: &Element| {
        let query = answer.get_child("query", INFO).unwrap();
        query
            .children()
            .filter_map(|child| child.attr("var"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let shim = "http://jabber.org/protocol/shim";
    let info = component.ask(OWNER, "get", &format!("<query xmlns='{INFO}'/>")).await;
    for feature in ["jabber:x:data", "http://jabber.org/protocol/rsm", shim] {
        assert!(features(&info).iter().any(|var| var == feature), "{feature}");
    }
    let headers =
        component.ask(OWNER, "get", &format!("<query xmlns='{INFO}' node='{shim}'/>")).await;
    assert_eq!(features(&headers), [shim.to_owned(), format!("{shim}#SubID")]);
    // XEP-0050: a command that the requester may not execute.
    let command = format!("<query xmlns='{INFO}' node='urn:gjallar:command:erase'/>");
    let answer = component.ask("user@far.example/x", "get", &command).await;
    assert_eq!(error(&answer), "auth forbidden");
}

/// An entity with an address that RFC 7622 forbids, but its server permits, can be banned and
/// unsubscribed.
#[tokio::test]
async fn entity_with_an_invalid_address_can_be_banned() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("publish_model", "open")]).await;
    let odd = "☃@localhost";
    component.granted(&format!("{odd}/x"), &format!("<subscribe node='n' jid='{odd}'/>")).await;
    let entry = |affiliation: &str| {
        format!(
            "<affiliations node='n'><affiliation jid='{odd}' affiliation='{affiliation}'/></affiliations>"
        )
    };
    let refused = component.owner(OWNER, "set", &entry("publisher")).await;
    assert_eq!(error(&refused), "modify not-acceptable");
    let banned = component.owner(OWNER, "set", &entry("outcast")).await;
    assert_eq!(banned.attr("type"), Some("result"), "{}", shown(&banned));
    let refused = component.publish(&format!("{odd}/x"), "n", "1").await;
    assert_eq!(error(&refused), "auth forbidden");
}

/// An entity whose server stamps A-labels, and its bare address in both spellings.
const STAMPED: &str = "u@xn--bcher-kva.example/x";
const A_LABELS: &str = "u@xn--bcher-kva.example";
const U_LABELS: &str = "u@bücher.example";

#[test]
fn a_domain_has_two_spellings() {
    let others = |text: &str| {
        let others = Jid::new(text).unwrap().other_spellings();
        others.map(|other| other.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(others(STAMPED), ["u@bücher.example/x"]);
    assert_eq!(others(U_LABELS), [A_LABELS]);
    assert_eq!(others("xn--bcher-kva.example"), ["bücher.example"]);
    let mixed = "u@xn--bcher-kva.münchen.example/x";
    let of_mixed = [
        "u@bücher.münchen.example/x",
        "u@bücher.xn--mnchen-3ya.example/x",
        "u@xn--bcher-kva.xn--mnchen-3ya.example/x",
    ];
    assert_eq!(others(mixed), of_mixed);
    let many = format!("{}example", "bücher.".repeat(6));
    assert_eq!(others(&many), [format!("{}example", "xn--bcher-kva.".repeat(6))]);
    // Spellings without an alternative: ASCII; folded; no A-label; IP address; no round trip.
    for text in [
        "u@example.org/ü",
        "u@BÜCHER.example",
        "u@xn--a.example",
        "u@[::1]",
        "u@XN--BCHER-KVA.example",
    ] {
        assert_eq!(others(text), [""; 0], "{text}");
    }
    assert_eq!(others(&format!("u@{}.example", "ü".repeat(500))), [""; 0]);
    let is_same =
        |one: &str, other: &str| Jid::new(one).unwrap().is_same(&Jid::new(other).unwrap());
    assert!(
        is_same(A_LABELS, U_LABELS) && is_same(U_LABELS, A_LABELS) && is_same(mixed, of_mixed[0])
    );
    for other in ["u@bücher.example/x", "v@bücher.example", "bücher.example", "u@bucher.example"]
    {
        assert!(!is_same(A_LABELS, other), "{other}");
    }
    assert!(!is_same("u@weiß.example", "u@weiss.example"));
}

#[test]
fn own_address_in_a_request_is_recognized_in_both_spellings() {
    let own = |text| Jid::prepare_from(text, STAMPED).map(|jid| jid.to_string());
    for (text, expected) in [
        (U_LABELS, A_LABELS),
        ("U@BÜCHER.example", A_LABELS),
        ("u@bücher.example/y", "u@xn--bcher-kva.example/y"),
        ("v@xn--bcher-kva.example", "v@bücher.example"),
    ] {
        assert_eq!(own(text).as_deref(), Ok(expected));
    }
    let of_u = Jid::prepare_from(A_LABELS, "u@bücher.example/x").map(|jid| jid.to_string());
    assert_eq!(of_u.as_deref(), Ok(U_LABELS));
    let of_odd = Jid::prepare_from("☃@bücher.example/Y", "☃@xn--bcher-kva.example/x");
    assert_eq!(of_odd.unwrap().as_str(), "☃@xn--bcher-kva.example/Y");
}

/// Returns the entries of an owner's list: the address and its affiliation or subscription.
async fn list(component: &mut TestComponent, name: &str, value: &str) -> Vec<String> {
    let answer = component.owner(OWNER, "get", &format!("<{name} node='n'/>")).await;
    let list = answer.get_child("pubsub", OWNED).unwrap().children().next().unwrap().clone();
    let entry =
        |entry: &Element| format!("{} {}", entry.attr("jid").unwrap(), entry.attr(value).unwrap());
    list.children().map(entry).filter(|entry| !entry.starts_with("owner@")).collect()
}

async fn affiliations(component: &mut TestComponent) -> Vec<String> {
    list(component, "affiliations", "affiliation").await
}

async fn subscriptions(component: &mut TestComponent) -> Vec<String> {
    list(component, "subscriptions", "subscription").await
}

async fn affiliate(component: &mut TestComponent, jid: &str, affiliation: &str) {
    let entry = format!("<affiliation jid='{jid}' affiliation='{affiliation}'/>");
    let content = format!("<affiliations node='n'>{entry}</affiliations>");
    let set = component.owner(OWNER, "set", &content).await;
    assert_eq!(set.attr("type"), Some("result"), "{}", shown(&set));
}

async fn set_subscription(component: &mut TestComponent, jid: &str, state: &str) {
    let entry = format!("<subscription jid='{jid}' subscription='{state}'/>");
    let content = format!("<subscriptions node='n'>{entry}</subscriptions>");
    let set = component.owner(OWNER, "set", &content).await;
    assert_eq!(set.attr("type"), Some("result"), "{}", shown(&set));
}

const PUBLISH: &str = "<publish node='n'><item id='of-u'><x xmlns='urn:x'/></item></publish>";

/// Asserts that requests of the stamped sender are refused with this error.
async fn is_refused(component: &mut TestComponent, expected: &str) {
    let subscribe = format!("<subscribe node='n' jid='{A_LABELS}'/>");
    for (kind, content) in [("set", PUBLISH), ("set", &*subscribe), ("get", "<items node='n'/>")] {
        let refused = component.pubsub(STAMPED, kind, content).await;
        assert_eq!(error(&refused), expected, "{content}");
    }
}

/// Returns the addresses of the messages received so far.
async fn recipients(component: &mut TestComponent) -> Vec<String> {
    let messages = component.messages().await;
    messages.iter().map(|message| message.attr("to").unwrap().to_owned()).collect()
}

/// §8.8.2, §8.9.2: an owner names an entity in either spelling; the node keeps the address that the
/// entity's server stamped.
#[tokio::test]
async fn an_entity_with_a_labels_is_named_in_both_spellings() {
    for named in [A_LABELS, U_LABELS] {
        let mut component = TestComponent::start().await;
        component.create(OWNER, "n", &[("publish_model", "open")]).await;
        component.granted(STAMPED, &format!("<subscribe node='n' jid='{U_LABELS}'/>")).await;
        assert_eq!(subscriptions(&mut component).await, [format!("{A_LABELS} subscribed")]);
        affiliate(&mut component, named, "publisher").await;
        assert_eq!(affiliations(&mut component).await, [format!("{A_LABELS} publisher")]);
        assert_eq!(recipients(&mut component).await, [A_LABELS], "the notice, {named}");
        component.publish(STAMPED, "n", "1").await;
        assert_eq!(recipients(&mut component).await, [A_LABELS], "the event, {named}");
        // An owner subscribes the known address.
        component.granted(STAMPED, &format!("<unsubscribe node='n' jid='{U_LABELS}'/>")).await;
        set_subscription(&mut component, named, "subscribed").await;
        assert_eq!(subscriptions(&mut component).await, [format!("{A_LABELS} subscribed")]);
        affiliate(&mut component, named, "outcast").await;
        assert_eq!(affiliations(&mut component).await, [format!("{A_LABELS} outcast")]);
        assert_eq!(subscriptions(&mut component).await, [""; 0], "{named}");
        is_refused(&mut component, "auth forbidden").await;
        component.messages().await;
        component.publish(OWNER, "n", "2").await;
        assert_eq!(recipients(&mut component).await, [""; 0], "{named}");
        affiliate(&mut component, named, "none").await;
        assert_eq!(affiliations(&mut component).await, [""; 0], "{named}");
        component.granted(STAMPED, &format!("<subscribe node='n' jid='{STAMPED}'/>")).await;
        set_subscription(&mut component, &format!("{named}/x"), "none").await;
        assert_eq!(subscriptions(&mut component).await, [""; 0], "{named}");
    }
}

/// A server may stamp both kinds of labels in one domain.
#[tokio::test]
async fn an_entity_with_mixed_labels_can_be_banned() {
    let (stamped, named) = ("u@xn--bcher-kva.münchen.example", "u@bücher.münchen.example");
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("publish_model", "open")]).await;
    component.subscribe(stamped, "n").await;
    affiliate(&mut component, named, "outcast").await;
    assert_eq!(affiliations(&mut component).await, [format!("{stamped} outcast")]);
    assert_eq!(subscriptions(&mut component).await, [""; 0]);
    let refused = component.pubsub(&format!("{stamped}/x"), "set", PUBLISH).await;
    assert_eq!(error(&refused), "auth forbidden");
}

/// A ban and a whitelist entry apply to both spellings before the node knows the entity.
#[tokio::test]
async fn affiliations_hold_for_both_spellings() {
    for named in [A_LABELS, U_LABELS] {
        let mut component = TestComponent::start().await;
        component.create(OWNER, "n", &[("publish_model", "open")]).await;
        affiliate(&mut component, named, "outcast").await;
        assert_eq!(affiliations(&mut component).await, [format!("{U_LABELS} outcast")]);
        is_refused(&mut component, "auth forbidden").await;
        let refused = component.pubsub("u@bücher.example/x", "set", PUBLISH).await;
        assert_eq!(error(&refused), "auth forbidden");
        let whitelist = component.configure(OWNER, "n", &[("access_model", "whitelist")]).await;
        assert_eq!(whitelist.attr("type"), Some("result"));
        affiliate(&mut component, named, "none").await;
        let items = "<items node='n'/>";
        let refused = component.pubsub(STAMPED, "get", items).await;
        assert_eq!(error(&refused), "cancel not-allowed closed-node");
        affiliate(&mut component, named, "member").await;
        component.granted(STAMPED, &format!("<subscribe node='n' jid='{A_LABELS}'/>")).await;
        let own = component.pubsub(STAMPED, "get", "<affiliations/>").await;
        assert!(shown(&own).contains("affiliation='member'"), "{}", shown(&own));
        // From here on the node knows the entity by its stamped address, with its present
        // affiliation.
        affiliate(&mut component, named, "owner").await;
        assert_eq!(affiliations(&mut component).await, [format!("{U_LABELS} owner")]);
        let list = component.owner(STAMPED, "get", "<affiliations node='n'/>").await;
        assert_eq!(list.attr("type"), Some("result"), "{}", shown(&list));
        affiliate(&mut component, named, "outcast").await;
        assert_eq!(subscriptions(&mut component).await, [""; 0]);
        let refused = component.pubsub(STAMPED, "get", items).await;
        assert_eq!(error(&refused), "auth forbidden");
    }
}

/// §6.2, §6.3, §8.8.2: a subscription that an owner made in the other spelling belongs to the
/// entity. The subscription moves to the stamped address when the entity subscribes.
#[tokio::test]
async fn subscriptions_are_found_in_both_spellings() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    set_subscription(&mut component, A_LABELS, "subscribed").await;
    assert_eq!(subscriptions(&mut component).await, [format!("{U_LABELS} subscribed")]);
    let own = component.pubsub(STAMPED, "get", "<subscriptions/>").await;
    assert!(shown(&own).contains(U_LABELS), "{}", shown(&own));
    let options = format!("<options node='n' jid='{A_LABELS}'/>");
    let options = component.pubsub(STAMPED, "get", &options).await;
    assert_eq!(options.attr("type"), Some("result"), "{}", shown(&options));
    // Neither the entity's own subscription nor an implicit one is a second subscription.
    name_nodes(&mut component, STAMPED, &["n"]).await;
    component.messages().await;
    component.publish(OWNER, "n", "0").await;
    assert_eq!(recipients(&mut component).await, [U_LABELS]);
    component.granted(STAMPED, &format!("<subscribe node='n' jid='{A_LABELS}'/>")).await;
    assert_eq!(subscriptions(&mut component).await, [format!("{A_LABELS} subscribed")]);
    assert_eq!(recipients(&mut component).await, [A_LABELS]);
    component.publish(OWNER, "n", "1").await;
    assert_eq!(recipients(&mut component).await, [A_LABELS]);
    component.granted(STAMPED, &format!("<subscribe node='n' jid='{A_LABELS}'/>")).await;
    assert_eq!(recipients(&mut component).await, [""; 0]);
    let unsubscribe = format!("<unsubscribe node='n' jid='{A_LABELS}'/>");
    component.granted(STAMPED, &unsubscribe).await;
    let refused = component.pubsub(STAMPED, "set", &unsubscribe).await;
    assert_eq!(error(&refused), "cancel unexpected-request not-subscribed");
    component.messages().await;
    component.publish(OWNER, "n", "2").await;
    assert_eq!(recipients(&mut component).await, [STAMPED]);
}

/// §8.6: a pending request is approved in either spelling.
#[tokio::test]
async fn requests_are_approved_in_both_spellings() {
    for named in [A_LABELS, U_LABELS] {
        let mut component = TestComponent::start().await;
        component.create(OWNER, "n", &[("access_model", "authorize")]).await;
        component.granted(STAMPED, &format!("<subscribe node='n' jid='{A_LABELS}'/>")).await;
        set_subscription(&mut component, named, "subscribed").await;
        assert_eq!(subscriptions(&mut component).await, [format!("{A_LABELS} subscribed")]);
        set_subscription(&mut component, named, "none").await;
        let again = component.pubsub(STAMPED, "get", "<items node='n'/>").await;
        assert_eq!(error(&again), "auth not-authorized not-subscribed");
    }
}

/// The configuration lists administrators and domains in either spelling.
#[tokio::test]
async fn the_configuration_holds_for_both_spellings() {
    for named in ["xn--bcher-kva.example", "bücher.example"] {
        let configure = |config: &mut Config| {
            config.creators = vec![named.into()];
            config.admins.push(format!("root@{named}"));
            config
                .policies
                .push(toml::from_str("nodes = 'none/*'\ncreators = ['admins']").unwrap());
        };
        let store = Arc::new(MemoryStore::new());
        let mut component = TestComponent::with(store, configure).await;
        for (number, domain) in ["xn--bcher-kva.example", "bücher.example"].iter().enumerate() {
            component.create(&format!("u@{domain}/x"), &number.to_string(), &[]).await;
            component.create(&format!("root@{domain}/x"), &format!("none/{number}"), &[]).await;
            let create = "<create node='none/u'/>";
            let refused = component.pubsub(&format!("u@{domain}/x"), "set", create).await;
            assert_eq!(error(&refused), "auth forbidden");
        }
        let refused = component.pubsub("u@bucher.example", "set", "<create node='b'/>").await;
        assert_eq!(error(&refused), "auth forbidden");
    }
}

/// A former owner that was named in the other spelling may reuse the name of its node; the
/// archive's publisher filter finds items of the entity.
#[tokio::test]
async fn names_and_publishers_are_found_in_both_spellings() {
    let store = Arc::new(MemoryStore::new());
    let mut component =
        TestComponent::with(store, |config| config.creators = vec!["anyone".into()]).await;
    component.create(OWNER, "n", &[("itemreply", "publisher")]).await;
    affiliate(&mut component, A_LABELS, "owner").await;
    component.publish(STAMPED, "n", "of-u").await;
    component.publish(OWNER, "n", "of-owner").await;
    for named in [A_LABELS, U_LABELS] {
        let with = format!("<field var='with'><value>{named}</value></field>");
        let query = format!(
            "<query xmlns='urn:xmpp:mam:2' node='n'><x xmlns='jabber:x:data' type='submit'>\
             <field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{with}</x></query>"
        );
        let answer = component.ask(OWNER, "set", &query).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        let results = component.take_messages();
        let [result] = results.as_slice() else { panic!("{} results", results.len()) };
        assert!(shown(result).contains("of-u"), "{}", shown(result));
    }
    let deleted = component.owner(OWNER, "set", "<delete node='n'/>").await;
    assert_eq!(deleted.attr("type"), Some("result"));
    let refused = component.pubsub("v@xn--bcher-kva.example", "set", "<create node='n'/>").await;
    assert_eq!(error(&refused), "auth forbidden");
    component.create(STAMPED, "n", &[]).await;
}
