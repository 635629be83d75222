//! Announced features and fields, against the registrar's lists (§16); docs/CONFORMANCE.md, against
//! the code and the tests.

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

/// Fields of §16.4.4 of XEP-0060 1.30.0, without those for collections (XEP-0248).
const NODE_CONFIG: &str = "access_model body_xslt contact dataform_xslt deliver_notifications deliver_payloads \
    description item_expire itemreply language max_items max_payload_size notification_type notify_config \
    notify_delete notify_retract notify_sub persist_items presence_based_delivery publish_model publish_node_full \
    purge_offline roster_groups_allowed send_last_published_item subscribe tempsub title type";
/// Fields of §16.4.2, without those for collections.
const SUBSCRIBE_OPTIONS: &str = "deliver digest digest_frequency expire include_body show-values";
/// Fields of §16.4.3, and `item_expire` of XEP-0460.
const META_DATA: &str = "creation_date creator num_subscribers owner publisher";
/// Types of the fields in the registry (§16.4) that are not text-single.
const TYPES: &str = "access_model:list-single allow:boolean contact:jid-multi creator:jid-single deliver:boolean \
    deliver_notifications:boolean deliver_payloads:boolean digest:boolean include_body:boolean itemreply:list-single \
    language:list-single notification_type:list-single notify_config:boolean notify_delete:boolean \
    notify_retract:boolean notify_sub:boolean owner:jid-multi persist_items:boolean presence_based_delivery:boolean \
    publish_model:list-single publish_node_full:list-single publisher:jid-multi purge_offline:boolean \
    roster_groups_allowed:list-multi send_last_published_item:list-single show-values:list-multi subscribe:boolean \
    subscriber_jid:jid-single tempsub:boolean";
/// Labels of the registry (§16.4) for the fields of each form, without those for collections.
const LABELS: &[(&str, &[(&str, &str)])] = &[
    (
        "subscribe_authorization",
        &[
            ("allow", "Whether to allow the subscription"),
            ("node", "The NodeID of the relevant node"),
            ("subscriber_jid", "The address (JID) of the subscriber"),
        ],
    ),
    (
        "subscribe_options",
        &[
            ("deliver", "Whether an entity wants to receive or disable notifications"),
            (
                "digest",
                "Whether an entity wants to receive digests (aggregations) of notifications or \
                 all notifications individually",
            ),
            (
                "digest_frequency",
                "The minimum number of milliseconds between sending any two notification digests",
            ),
            ("expire", "The DateTime at which a leased subscription will end or has ended"),
            (
                "include_body",
                "Whether an entity wants to receive an XMPP message body in addition to the \
                 payload format",
            ),
            (
                "show-values",
                "The presence states for which an entity wants to receive notifications",
            ),
        ],
    ),
    (
        "meta-data",
        &[
            ("access_model", "Access model"),
            ("contact", "The JIDs of those to contact with questions"),
            ("creation_date", "The datetime when the node was created"),
            ("creator", "The JID of the node creator"),
            ("description", "A description of the node"),
            ("language", "The default language of the node"),
            ("max_items", "Max # of items to persist"),
            ("num_subscribers", "The number of subscribers to the node"),
            ("owner", "The JIDs of those with an affiliation of owner"),
            ("publish_model", "Publish model"),
            ("publisher", "The JIDs of those with an affiliation of publisher"),
            ("title", "The name of the node"),
            ("type", "Payload semantic type information"),
        ],
    ),
    (
        "node_config",
        &[
            ("access_model", "Who may subscribe and retrieve items"),
            (
                "body_xslt",
                "The URL of an XSL transformation which can be applied to payloads in order to \
                 generate an appropriate message body element.",
            ),
            ("contact", "The JIDs of those to contact with questions"),
            (
                "dataform_xslt",
                "The URL of an XSL transformation which can be applied to the payload format in \
                 order to generate a valid Data Forms result that the client could display \
                 using a generic Data Forms rendering engine",
            ),
            ("deliver_notifications", "Whether to deliver event notifications"),
            (
                "deliver_payloads",
                "Whether to deliver payloads with event notifications; applies only to leaf nodes",
            ),
            ("description", "A description of the node"),
            (
                "item_expire",
                "Number of seconds after which to automatically purge items. `max` for no \
                 specific limit other than a server imposed maximum.",
            ),
            ("itemreply", "Whether owners or publisher should receive replies to items"),
            ("language", "The default language of the node"),
            (
                "max_items",
                "The maximum number of items to persist. `max` for no specific limit other than \
                 a server imposed maximum.",
            ),
            ("max_payload_size", "The maximum payload size in bytes"),
            ("notification_type", "Specify the delivery style for notifications"),
            ("notify_config", "Whether to notify subscribers when the node configuration changes"),
            ("notify_delete", "Whether to notify subscribers when the node is deleted"),
            (
                "notify_retract",
                "Whether to notify subscribers when items are removed from the node",
            ),
            ("notify_sub", "Whether to notify owners about new subscribers and unsubscribes"),
            ("persist_items", "Whether to persist items to storage"),
            ("presence_based_delivery", "Whether to deliver notifications to available users only"),
            ("publish_model", "The publisher model"),
            (
                "publish_node_full",
                "Action to be performed by the service when publishing on a full node.",
            ),
            (
                "purge_offline",
                "Whether to purge all items when the relevant publisher goes offline",
            ),
            (
                "roster_groups_allowed",
                "The roster group(s) allowed to subscribe and retrieve items",
            ),
            ("send_last_published_item", "When to send the last published item"),
            ("subscribe", "Whether to allow subscriptions"),
            (
                "tempsub",
                "Whether to make all subscriptions temporary, based on subscriber presence",
            ),
            ("title", "A friendly name for the node"),
            (
                "type",
                "The semantic type information of data in the node, usually specified by the \
                 namespace of the payload (if any)",
            ),
        ],
    ),
];
/// Features of §16.3, without those for collections and for account profiles. Of the five
/// `access-…` features only that of the default model is announced (§10). `since` is from XEP-0312.
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
fn forms_have_exactly_the_registered_fields() {
    let config = NodeConfig::initial(&Limits::default());
    assert_eq!(fields(node_config::values(&config)), listed(NODE_CONFIG));
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let number = listed(NODE_CONFIG).len();
    assert!(
        readme.contains(&format!("- {number} configuration fields of the registry")),
        "{number}"
    );
    assert_eq!(
        fields(subscribe_options::values(&SubscriptionOptions::default())),
        listed(SUBSCRIBE_OPTIONS)
    );
}

#[tokio::test]
async fn registered_features_and_meta_data_are_announced() {
    let configure = |config: &mut gjallar::config::Config| config.limits.max_subids = 2;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let info = component.ask(READER, "get", query).await;
    let query = info.children().next().unwrap();
    let features: Vec<_> = query.children().filter_map(|child| child.attr("var")).collect();
    // XEP-0115 §6.1: an entity that processes capabilities announces the feature.
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
    // Other users must not see the group names of an owner's roster.
    expected.remove("roster_groups_allowed");
    assert_eq!(vars.map(str::to_owned).collect::<BTreeSet<_>>(), expected);
}

/// Form field whose name begins with `pubsub#`.
struct FormField {
    form: String,
    var: String,
    kind: String,
    label: Option<String>,
}

/// Collects the `pubsub#` fields of every form in an element. Asserts that options have labels.
fn collect_fields(element: &Element, found: &mut Vec<FormField>) {
    assert_options_have_labels(element);
    let form_type = element.children().find(|field| field.attr("var") == Some("FORM_TYPE"));
    if let Some(form_type) = form_type {
        let form = form_type.children().next().unwrap().text();
        let form = form.strip_prefix("http://jabber.org/protocol/pubsub#").unwrap();
        for field in element.children() {
            let Some(var) = field.attr("var").and_then(|var| var.strip_prefix("pubsub#")) else {
                continue;
            };
            found.push(FormField {
                form: form.to_owned(),
                var: var.to_owned(),
                kind: field.attr("type").unwrap().to_owned(),
                label: field.attr("label").map(str::to_owned),
            });
        }
    }
    element.children().for_each(|child| collect_fields(child, found));
}

/// Returns the label of a field in the registry, without its full stop. Meta-data include fields of
/// the configuration.
fn registered_label(form: &str, var: &str) -> Option<&'static str> {
    let labels =
        |form: &str| LABELS.iter().find(|(name, _)| *name == form).map(|(_, labels)| labels);
    let label = |form| labels(form)?.iter().find(|(name, _)| *name == var).map(|(_, label)| *label);
    let label = label(form).or_else(|| label("node_config").filter(|_| form == "meta-data"));
    label.map(|label| label.trim_end_matches('.'))
}

/// Libraries check the type of each field, and reject the form or close the connection if the type
/// differs (aioxmpp, Smack).
#[tokio::test]
async fn fields_have_the_types_and_labels_of_the_registry() {
    let owner = "owner@localhost/desk";
    let mut component = TestComponent::start().await;
    component.link.send("<message xmlns='jabber:component:accept' from='localhost' to='pubsub.localhost'>\
        <privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='get'/></privilege></message>").await;
    component.create(owner, "n", &[("access_model", "authorize"), ("notify_config", "1")]).await;
    let mut found = Vec::new();
    for question in ["<configure node='n'/>", "<default/>"] {
        collect_fields(&component.owner(owner, "get", question).await, &mut found);
    }
    let subscribe = format!("<subscribe node='n' jid='{READER}'/>");
    component.pubsub(READER, "set", &subscribe).await;
    let asked = component.messages().await;
    asked.iter().for_each(|message| collect_fields(message, &mut found));
    collect_fields(&component.pubsub(READER, "get", "<default/>").await, &mut found);
    let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>";
    collect_fields(&component.ask(owner, "get", info).await, &mut found);
    let pending = "<command xmlns='http://jabber.org/protocol/commands' \
        node='http://jabber.org/protocol/pubsub#get-pending'/>";
    collect_fields(&component.ask(owner, "set", pending).await, &mut found);
    let types: std::collections::BTreeMap<_, _> =
        TYPES.split_whitespace().map(|pair| pair.split_once(':').unwrap()).collect();
    for FormField { form, var, kind, label } in &found {
        assert_eq!(types.get(var.as_str()).unwrap_or(&"text-single"), kind, "{var}");
        let registered = registered_label(form, var);
        assert!(registered.is_some(), "{form} {var} is not in the registry");
        assert_eq!(label.as_deref(), registered, "{form} {var}");
    }
    let seen: BTreeSet<_> = found.iter().map(|field| field.var.as_str()).collect();
    let forms: BTreeSet<_> = found.iter().map(|field| field.form.as_str()).collect();
    assert_eq!(forms, LABELS.iter().map(|(form, _)| *form).collect());
    for var in types.keys().chain(&["node", "subscriber_jid", "expire", "language"]) {
        assert!(seen.contains(var), "{var} is in no form");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every comment with this mark in the code, each as a line of the document.
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
            let ends_with_mark = comment.is_some_and(|comment| comment.ends_with(mark.trim_end()));
            assert!(!ends_with_mark, "{name}: a sentence has to follow the mark on its line");
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
fn document_has_every_deviation_and_choice() {
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

/// Each error case has a row in the document that names its test, or is listed as impossible. If
/// the row names `it::xep0060::error_cases`, a test of that module has the clause in its name.
#[test]
fn every_error_case_is_tested_or_cannot_occur() {
    let document = fs::read_to_string(root().join("docs/CONFORMANCE.md")).unwrap();
    let (clauses, rest) = document.split_once("## Related XEPs").unwrap();
    let absent = rest.split_once("## Not implemented").unwrap().1.split("\n## ").next().unwrap();
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
