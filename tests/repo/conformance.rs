//! What is offered, against the registrar's lists (§16); and docs/CONFORMANCE.md, against the code and the tests.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use gjallar::{
    store::MemoryStore,
    xmpp::stanza::forms::{node_config, subscribe_options},
};
use gjallar_pubsub::{Limits, NodeConfig, SubscriptionOptions};
use minidom::Element;

use super::docs::tests;
use crate::support::component::{TestComponent, assert_options_have_labels};

const READER: &str = "reader@localhost/phone";

/// §16.4.4 of XEP-0060 1.30.0, but for what is of collections (XEP-0248).
const NODE_CONFIG: &str = "access_model body_xslt contact dataform_xslt deliver_notifications deliver_payloads \
    description item_expire itemreply language max_items max_payload_size notification_type notify_config \
    notify_delete notify_retract notify_sub persist_items presence_based_delivery publish_model publish_node_full \
    purge_offline roster_groups_allowed send_last_published_item subscribe tempsub title type";
/// §16.4.2, with the same exception.
const SUBSCRIBE_OPTIONS: &str = "deliver digest digest_frequency expire include_body show-values";
/// §16.4.3, and `item_expire` of XEP-0460.
const META_DATA: &str = "creation_date creator num_subscribers owner publisher";
/// The types of the fields in the registry (§16.4) that are not of type text-single.
const TYPES: &str = "access_model:list-single allow:boolean contact:jid-multi creator:jid-single deliver:boolean \
    deliver_notifications:boolean deliver_payloads:boolean digest:boolean include_body:boolean itemreply:list-single \
    language:list-single notification_type:list-single notify_config:boolean notify_delete:boolean \
    notify_retract:boolean notify_sub:boolean owner:jid-multi persist_items:boolean presence_based_delivery:boolean \
    publish_model:list-single publish_node_full:list-single publisher:jid-multi purge_offline:boolean \
    roster_groups_allowed:list-multi send_last_published_item:list-single show-values:list-multi subscribe:boolean \
    subscriber_jid:jid-single tempsub:boolean";
/// §16.3, but for collections, and for what profiles for accounts have. Of the five `access-…` that of the default
/// model is announced (§10). And `since` of XEP-0312.
const FEATURES: &str = "access-open auto-create auto-subscribe config-node config-node-max create-and-configure create-nodes \
    delete-items delete-nodes filtered-notifications get-pending instant-nodes item-ids last-published leased-subscription \
    manage-subscriptions member-affiliation meta-data modify-affiliations multi-items multi-subscribe \
    outcast-affiliation persistent-items presence-notifications presence-subscribe publish publish-node-full \
    publish-only-affiliation publish-options publisher-affiliation purge-nodes retract-items retrieve-affiliations \
    retrieve-default retrieve-default-sub retrieve-items retrieve-subscriptions rsm since subscribe \
    subscription-notifications subscription-options";

fn listed(list: &str) -> BTreeSet<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn fields(values: Vec<(String, String)>) -> BTreeSet<String> {
    let names =
        values.into_iter().filter_map(|(var, _)| var.strip_prefix("pubsub#").map(str::to_owned));
    names.collect()
}

#[test]
fn the_registered_fields_are_there_and_no_others() {
    let config = NodeConfig::initial(&Limits::default());
    assert_eq!(fields(node_config::values(&config)), listed(NODE_CONFIG));
    assert_eq!(
        fields(subscribe_options::values(&SubscriptionOptions::default())),
        listed(SUBSCRIBE_OPTIONS)
    );
}

#[tokio::test]
async fn the_registered_features_and_meta_data_are_announced() {
    let configure = |config: &mut gjallar::config::Config| config.limits.max_subids = 2;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let info = component.ask(READER, "get", query).await;
    let query = info.children().next().unwrap();
    let features: Vec<_> = query.children().filter_map(|child| child.attr("var")).collect();
    // XEP-0115 §6.1: whatever reads capabilities announces that.
    assert!(features.contains(&"http://jabber.org/protocol/caps"));
    let features = features.into_iter();
    let features =
        features.filter_map(|var| var.strip_prefix("http://jabber.org/protocol/pubsub#"));
    assert_eq!(features.map(str::to_owned).collect::<BTreeSet<_>>(), listed(FEATURES));

    component.create("owner@localhost/desk", "n", &[]).await;
    let query = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    let info = component.ask(READER, "get", query).await;
    let form = info.children().next().unwrap().get_child("x", "jabber:x:data").unwrap();
    let vars = form.children().filter_map(|field: &Element| field.attr("var"));
    let vars = vars.filter_map(|var| var.strip_prefix("pubsub#"));
    let mut expected = listed(META_DATA);
    expected.extend(listed(NODE_CONFIG));
    // The names of groups in an owner's roster are not shown to others.
    expected.remove("roster_groups_allowed");
    assert_eq!(vars.map(str::to_owned).collect::<BTreeSet<_>>(), expected);
}

/// Every field of every form in an element that has a name with `pubsub#`, and its type. Options have labels.
fn types(element: &Element, found: &mut Vec<(String, String)>) {
    assert_options_have_labels(element);
    if element.is("field", "jabber:x:data")
        && let Some(var) = element.attr("var").and_then(|var| var.strip_prefix("pubsub#"))
    {
        found.push((var.to_owned(), element.attr("type").unwrap().to_owned()));
    }
    element.children().for_each(|child| types(child, found));
}

/// Libraries check the type of each field, and refuse the form or close the connection if it is another (aioxmpp, Smack).
#[tokio::test]
async fn fields_have_the_types_of_the_registry() {
    let owner = "owner@localhost/desk";
    let mut component = TestComponent::start().await;
    component.link.send("<message xmlns='jabber:component:accept' from='localhost' to='pubsub.localhost'>\
        <privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='get'/></privilege></message>").await;
    component.create(owner, "n", &[("access_model", "authorize"), ("notify_config", "1")]).await;
    let mut found = Vec::new();
    for question in ["<configure node='n'/>", "<default/>"] {
        types(&component.owner(owner, "get", question).await, &mut found);
    }
    let subscribe = format!("<subscribe node='n' jid='{READER}'/>");
    component.pubsub(READER, "set", &subscribe).await;
    let asked = component.messages().await;
    asked.iter().for_each(|message| types(message, &mut found));
    types(&component.pubsub(READER, "get", "<default/>").await, &mut found);
    let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    types(&component.ask(owner, "get", info).await, &mut found);
    let pending = "<command xmlns='http://jabber.org/protocol/commands' \
        node='http://jabber.org/protocol/pubsub#get-pending'/>";
    types(&component.ask(owner, "set", pending).await, &mut found);
    let types: std::collections::BTreeMap<_, _> =
        TYPES.split_whitespace().map(|pair| pair.split_once(':').unwrap()).collect();
    for (var, kind) in &found {
        assert_eq!(types.get(var.as_str()).unwrap_or(&"text-single"), kind, "{var}");
    }
    let seen: BTreeSet<_> = found.iter().map(|(var, _)| var.as_str()).collect();
    for var in types.keys().chain(&["node", "subscriber_jid", "expire", "language"]) {
        assert!(seen.contains(var), "{var} is in no form");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every comment with this mark in the code, as a line of the document.
fn marked(mark: &str) -> String {
    let mut paths: Vec<_> =
        ["crates", "src"].iter().flat_map(|part| walk(&root().join(part))).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    let mut lines = String::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let mut comments = text.lines().map(|line| line.trim_start().strip_prefix("//"));
        while let Some(comment) = comments.next() {
            let Some((_, first)) = comment.and_then(|comment| comment.split_once(mark)) else {
                continue;
            };
            let more = comments.by_ref().map_while(|comment| {
                let comment = comment?.trim_start_matches(['/', '!']).trim();
                (!comment.is_empty()).then_some(comment)
            });
            let text = std::iter::once(first).chain(more).collect::<Vec<_>>().join(" ");
            lines += &format!("- {text} (`{name}`)\n");
        }
    }
    lines
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// `GJALLAR_BLESS=1 cargo test conformance` writes the deviations and the choices into the document.
#[test]
fn the_document_has_every_choice() {
    let path = root().join("docs/CONFORMANCE.md");
    let document = fs::read_to_string(&path).unwrap();
    let mut expected = document.clone();
    for (name, mark) in [("deviations", "SPEC-DEVIATION: "), ("choices", "SPEC: ")] {
        let (begin, end) = (format!("<!-- {name} -->\n\n"), format!("\n<!-- end {name} -->"));
        let (before, rest) = expected.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        expected = [before, &begin, &marked(mark), &end, after].concat();
    }
    #[allow(clippy::disallowed_methods)]
    if std::env::var_os("GJALLAR_BLESS").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    assert!(document == expected, "{} is not what the code says", path.display());
}

/// The sections of error cases in XEP-0060 1.30.0, and how many cases each has.
const ERROR_CASES: &[(&str, usize)] = &[
    ("6.1.3", 12),
    ("6.2.3", 5),
    ("6.3.4", 7),
    ("6.4.3", 2),
    ("6.5.9", 12),
    ("7.1.3", 7),
    ("7.2.3", 6),
    ("8.2.3", 5),
    ("8.3.4", 2),
    ("8.4.3", 2),
    ("8.5.3", 4),
    ("8.7.3", 4),
    ("8.8.1.3", 3),
    ("8.8.2.3", 3),
    ("8.9.1.3", 3),
    ("8.9.2.3", 4),
];

/// The clauses in the names of the tests of error cases: `s6_1_3_8_outcast_is_forbidden` is about 6.1.3.8.
fn clauses_of_error_cases() -> BTreeSet<String> {
    let tests = tests();
    let names = tests.iter().filter_map(|test| test.strip_prefix("it::xep0060::error_cases::s"));
    let clause = |name: &str| {
        let is_number = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        name.split('_').take_while(is_number).collect::<Vec<_>>().join(".")
    };
    names.map(clause).filter(|clause| !clause.is_empty()).collect()
}

/// Each error case has a row of the document that names its test, or cannot occur and is listed as such. If the row
/// names `it::xep0060::error_cases`, a test of this module has the clause in its name.
#[test]
fn every_error_case_is_tested_or_cannot_occur() {
    let document = fs::read_to_string(root().join("docs/CONFORMANCE.md")).unwrap();
    let (clauses, rest) = document.split_once("## Relatives").unwrap();
    let absent = rest.split_once("## What is not there").unwrap().1.split("\n## ").next().unwrap();
    let rows: Vec<_> = clauses.lines().filter_map(|line| line.strip_prefix("| ")).collect();
    let words =
        |text: &str| text.split([' ', ',', '(', ')']).map(str::to_owned).collect::<BTreeSet<_>>();
    let tested = clauses_of_error_cases();
    for (section, number) in ERROR_CASES {
        for clause in (1..=*number).map(|case| format!("{section}.{case}")) {
            let row =
                rows.iter().find(|row| words(row.split('|').next().unwrap()).contains(&clause));
            match row.map(|row| row.rsplit('|').nth(1).unwrap()) {
                Some(tests) if tests.contains("`it::xep0060::error_cases`") => {
                    assert!(tested.contains(&clause), "§{clause} has no test of its name")
                }
                Some(tests) => assert!(tests.contains("`it::"), "the row of §{clause} has no test"),
                None => {
                    assert!(words(absent).contains(&clause), "§{clause} is not in the document")
                }
            }
        }
    }
    let documented: BTreeSet<_> =
        rows.iter().flat_map(|row| words(row.split('|').next().unwrap())).collect();
    assert!(tested.len() > 50, "{tested:?}");
    for clause in &tested {
        assert!(documented.contains(clause), "§{clause} is not in the document");
    }
}
