//! Interpreter for scripts in Prosody's *scansion* notation: `tests/xep*/*.scs`.
//!
//! Each script runs against a separate component. `X sends:` passes a stanza on, with X's JID as
//! sender; `X receives:` takes the next stanza for X and compares it: everything in the script must
//! be present. A value `{scansion:any}` matches any value; more attributes may be present, more
//! elements only with `scansion:strict='false'`. `X receives nothing` asserts that no stanza for X
//! has been sent so far. The comment `# choice` marks a request for which the XEP demands no
//! particular answer, and events of such a request; `make compare` skips these. The comment `#
//! refused` marks a request for which any error is accepted.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc};

use gjallar::{config::Config, store::MemoryStore};
use minidom::{Element, Node};

use crate::support::component::{SERVICE, STREAM, TestComponent, shown};

macro_rules! scripts {
    ($($name:ident $file:literal)*) => {
        $(#[tokio::test] async fn $name() { play($file).await; })*

        #[test]
        fn every_script_is_played() {
            let mut files: Vec<_> = ["xep", "xep0060"].into_iter().flat_map(scripts_in).collect();
            files.sort();
            let mut played = vec![$($file.to_owned()),*];
            played.sort();
            assert_eq!(files, played);
        }
    };
}

scripts! {
    s5_discovery "xep0060/s05_discovery.scs"
    s5_entity "xep0060/s05_6_entity.scs"
    s6_1_subscribe "xep0060/s06_1_subscribe.scs"
    s6_2_unsubscribe "xep0060/s06_2_unsubscribe.scs"
    s6_3_options "xep0060/s06_3_options.scs"
    s6_5_retrieve "xep0060/s06_5_retrieve.scs"
    s7_1_publish "xep0060/s07_1_publish.scs"
    s7_1_5_publish_options "xep0060/s07_1_5_publish_options.scs"
    s7_2_retract "xep0060/s07_2_retract.scs"
    s8_1_create "xep0060/s08_1_create.scs"
    s8_2_configure "xep0060/s08_2_configure.scs"
    s8_4_delete "xep0060/s08_4_delete.scs"
    s8_5_purge "xep0060/s08_5_purge.scs"
    s8_8_subscriptions "xep0060/s08_8_subscriptions.scs"
    s8_9_affiliations "xep0060/s08_9_affiliations.scs"
    commands "xep/xep0050_commands.scs"
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Returns the scripts of a test folder under the names that the macro uses.
fn scripts_in(part: &str) -> Vec<String> {
    let files = folder().join(part).read_dir().unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".scs")).map(|name| format!("{part}/{name}")).collect()
}

/// Starts a component that sends a notice of every affiliation (§8.9.4).
async fn component() -> TestComponent {
    let all = "nodes = '*'\naffiliation_notices = 'all'";
    let configure = |config: &mut Config| config.policies.push(toml::from_str(all).unwrap());
    TestComponent::with(Arc::new(MemoryStore::new()), configure).await
}

const ANY: &str = "{scansion:any}";

struct ScansionScript {
    component: TestComponent,
    jids: HashMap<String, String>,
    /// Stanzas received for other clients than the one examined.
    waiting: Vec<Element>,
}

async fn play(file: &str) {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    let mut play =
        ScansionScript { component: component().await, jids: HashMap::new(), waiting: Vec::new() };
    let mut lines = text.lines().enumerate().peekable();
    let mut client = String::new();
    while let Some((number, line)) = lines.next() {
        let place = format!("{file}:{}", number + 1);
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') || trimmed.starts_with("---") {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix("[Client] ") {
            client = name.to_owned();
        } else if let Some(jid) = trimmed.strip_prefix("jid: ") {
            play.jids.insert(client.clone(), jid.to_owned());
        } else if let Some((name, verb)) = trimmed.split_once(' ') {
            let mut stanza = String::new();
            while lines.peek().is_some_and(|(_, l)| l.starts_with(['\t', ' ']) || l.is_empty()) {
                stanza.push_str(lines.next().unwrap().1);
                stanza.push('\n');
            }
            let jid = play.jids.get(name).unwrap_or_else(|| panic!("{place}: who is {name}?"));
            let jid = jid.clone();
            match verb {
                "sends:" => play.send(&jid, &stanza, &place).await,
                "receives:" => play.receive(&jid, &stanza, &place).await,
                "receives nothing" => play.nothing(&jid, &place).await,
                _ => panic!("{place}: {line}"),
            }
        }
    }
    assert!(play.waiting.is_empty(), "{file}: not received: {}", shown(&play.waiting[0]));
}

impl ScansionScript {
    async fn send(&mut self, jid: &str, stanza: &str, place: &str) {
        let stanza = stanza.trim();
        let (name, rest) = stanza.split_once(' ').unwrap_or_else(|| panic!("{place}: {stanza}"));
        let to = if stanza.contains(" to=") { String::new() } else { format!(" to='{SERVICE}'") };
        self.component.send(&format!("{name} from='{jid}'{to} {rest}")).await;
    }

    async fn receive(&mut self, jid: &str, expected: &str, place: &str) {
        let expected = parse(expected, place);
        let is_theirs = |stanza: &Element| reaches(stanza, jid);
        let got = loop {
            if let Some(index) = self.waiting.iter().position(is_theirs) {
                break self.waiting.remove(index);
            }
            let stanza = self.component.link.receive().await.unwrap_or_else(|| panic!("{place}"));
            self.waiting.push(stanza);
        };
        if let Err(reason) = compare(&expected, &got) {
            panic!("{place}: {reason}\nexpected {}\n     got {}", shown(&expected), shown(&got));
        }
    }

    async fn nothing(&mut self, jid: &str, place: &str) {
        let messages = self.component.messages().await;
        self.waiting.extend(messages);
        let unexpected = self.waiting.iter().find(|stanza| reaches(stanza, jid));
        assert!(unexpected.is_none(), "{place}: {}", shown(unexpected.unwrap()));
    }
}

/// Returns `true` if a stanza is for the full or bare JID of a client.
fn reaches(stanza: &Element, jid: &str) -> bool {
    let bare = jid.split_once('/').map_or(jid, |(bare, _)| bare);
    stanza.attr("to").is_some_and(|to| to == jid || to == bare)
}

fn parse(text: &str, place: &str) -> Element {
    let outer = format!(
        "<outer xmlns='{STREAM}' xmlns:scansion='https://matthewwild.co.uk/projects/scansion'>\
         {}</outer>",
        text.trim()
    );
    let outer: Element = outer.parse().unwrap_or_else(|error| panic!("{place}: {error}: {text}"));
    outer.children().next().unwrap_or_else(|| panic!("{place}: no stanza")).clone()
}

fn compare(expected: &Element, got: &Element) -> Result<(), String> {
    if (expected.name(), expected.ns()) != (got.name(), got.ns()) {
        return Err(format!("<{}/> is not <{}/>", got.name(), expected.name()));
    }
    let mut strict = true;
    for ((namespace, name), value) in expected.attrs() {
        let (namespace, name): (&str, &str) = (namespace.as_ref(), name.as_ref());
        if namespace.contains("scansion") {
            strict = value != "false";
            continue;
        }
        match got.attr(name) {
            Some(_) if value == ANY => {}
            Some(actual) if actual == value => {}
            actual => return Err(format!("{}: {name} is {actual:?}, not {value:?}", got.name())),
        }
    }
    let text = |element: &Element| element.texts().collect::<String>().trim().to_owned();
    if text(expected) != ANY && text(expected) != text(got) {
        return Err(format!("{}: the text is {:?}", got.name(), text(got)));
    }
    let mut children: Vec<&Element> = got.nodes().filter_map(Node::as_element).collect();
    for child in expected.children() {
        let fits = |candidate: &&Element| compare(child, candidate).is_ok();
        let Some(index) = children.iter().position(fits) else {
            let similar = children.iter().find(|other| other.name() == child.name());
            return Err(match similar.map(|other| compare(child, other)) {
                Some(Err(reason)) => reason,
                _ => format!("{}: no {}", got.name(), shown(child)),
            });
        };
        children.remove(index);
    }
    // An error repeats the beginning of the request.
    children.retain(|child| got.attr("type") != Some("error") || child.name() != "pubsub");
    match children.first() {
        Some(more) if strict => Err(format!("{}: also {}", got.name(), shown(more))),
        _ => Ok(()),
    }
}
