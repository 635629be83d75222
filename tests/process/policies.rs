//! Policies: limits, defaults and creators for nodes with names of one pattern.

use std::{collections::BTreeMap, fs, process::Command, sync::Arc};

use gjallar::{
    config::{Config, FieldValue, NodeLimits, NoticeConfig, PolicyConfig},
    store::MemoryStore,
};

use crate::support::component::{TestComponent, error, form, shown};

pub const ADMIN: &str = "admin@localhost/x";
pub const USER: &str = "user@localhost/x";

pub fn policy(nodes: &str) -> PolicyConfig {
    PolicyConfig {
        nodes: nodes.into(),
        creators: None,
        instant_nodes: true,
        auto_create: true,
        affiliation_notices: NoticeConfig::Related,
        default: BTreeMap::new(),
        forced: BTreeMap::new(),
        limits: NodeLimits::default(),
    }
}

pub fn fields(fields: &[(&str, &str)]) -> BTreeMap<String, FieldValue> {
    let text = |value: &str| FieldValue::Text(value.into());
    fields.iter().map(|(name, value)| ((*name).into(), text(value))).collect()
}

async fn component_with_policies(policies: Vec<PolicyConfig>) -> TestComponent {
    let configure = |config: &mut Config| config.policies = policies;
    TestComponent::with(Arc::new(MemoryStore::new()), configure).await
}

/// Returns the value of a field from the configuration form of a node, or of the default
/// configuration.
pub async fn field(component: &mut TestComponent, of: &str, name: &str) -> String {
    let shown = shown(&component.owner(ADMIN, "get", of).await);
    let (_, rest) = shown.split_once(&format!("pubsub#{name}")).expect("the field");
    // Options precede the value, and have values too.
    let (field, _) = rest.split_once("</field>").unwrap();
    let (_, value) = field.rsplit_once("<value>").expect("a value");
    value.split_once("</value>").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_first_matching_pattern_decides_the_creators() {
    let admins = PolicyConfig { creators: Some(vec!["admins".into()]), ..policy("news/*") };
    let open = PolicyConfig { creators: Some(vec!["anyone".into()]), ..policy("news/open/?") };
    let mut component = component_with_policies(vec![open, admins]).await;
    let create = |node: &str| format!("<create node='{node}'/>");
    for (from, node, expected) in [
        (USER, "news/1", Some("auth forbidden")),
        (USER, "news/open/22", Some("auth forbidden")),
        (USER, "news/open/2", None),
        ("far@elsewhere.example/x", "news/open/3", None),
        ("far@elsewhere.example/x", "else", Some("auth forbidden")),
        (USER, "else", None),
        (ADMIN, "news/1", None),
    ] {
        let answer = component.pubsub(from, "set", &create(node)).await;
        match expected {
            Some(expected) => assert_eq!(error(&answer), expected, "{from} {node}"),
            None => assert_eq!(answer.attr("type"), Some("result"), "{from} {node}"),
        }
    }
    assert_eq!(error(&component.publish(USER, "news/9", "1").await), "cancel item-not-found");
}

#[tokio::test]
async fn max_nodes_limits_the_nodes_of_a_pattern() {
    let quota = |max_nodes| NodeLimits { max_nodes: Some(max_nodes), ..NodeLimits::default() };
    let few = |max_nodes| PolicyConfig { limits: quota(max_nodes), ..policy("few/*") };
    let mut component = component_with_policies(vec![policy("few/but/*"), few(2)]).await;
    let create = |node: &str| format!("<create node='{node}'/>");
    for (node, is_granted) in [
        ("few/1", true),
        ("few/but/1", true),
        ("few/2", true),
        ("few/3", false),
        ("else", true),
        ("few/but/2", true),
    ] {
        let answer = component.pubsub(USER, "set", &create(node)).await;
        assert_eq!(answer.attr("type") == Some("result"), is_granted, "{node}");
        if !is_granted {
            assert_eq!(error(&answer), "cancel not-allowed max-nodes-exceeded", "{node}");
        }
    }
    // The quota also applies to auto-create and to administrators.
    assert_eq!(
        error(&component.publish(USER, "few/3", "1").await),
        "cancel not-allowed max-nodes-exceeded"
    );
    let answer = component.pubsub(ADMIN, "set", &create("few/3")).await;
    assert_eq!(error(&answer), "cancel not-allowed max-nodes-exceeded");
    assert!(shown(&answer).contains(">max_nodes: the policy for this name has its maximum"));
    // Deleting a node releases quota for another.
    component.owner(USER, "set", "<delete node='few/1'/>").await;
    assert_eq!(component.publish(USER, "few/3", "1").await.attr("type"), Some("result"));
    assert_eq!(
        error(&component.publish(USER, "few/4", "1").await),
        "cancel not-allowed max-nodes-exceeded"
    );
    // Existing nodes count towards a changed quota too.
    component.reload.send_modify(|config| config.policies = vec![few(5)]);
    loop {
        if component.publish(USER, "few/4", "1").await.attr("type") == Some("result") {
            break;
        }
    }
    let answer = component.pubsub(USER, "set", &create("few/5")).await;
    assert_eq!(error(&answer), "cancel not-allowed max-nodes-exceeded");
}

#[tokio::test]
async fn forced_values_are_fixed_and_defaults_are_not() {
    let policy = PolicyConfig {
        default: fields(&[("title", "Nameless"), ("max_items", "3")]),
        forced: fields(&[("access_model", "whitelist")]),
        ..policy("private/*")
    };
    let mut component = component_with_policies(vec![policy]).await;
    component.create(USER, "private/1", &[("title", "Mine")]).await;
    component.create(USER, "else", &[]).await;
    let of = |node: &str| format!("<configure node='{node}'/>");
    for (node, name, expected) in [
        ("private/1", "title", "Mine"),
        ("private/1", "max_items", "3"),
        ("private/1", "access_model", "whitelist"),
        ("else", "max_items", "max"),
        ("else", "access_model", "open"),
    ] {
        assert_eq!(field(&mut component, &of(node), name).await, expected, "{node} {name}");
    }
    let open = [("access_model", "open"), ("title", "Open")];
    let answer = component.configure(USER, "private/1", &open).await;
    assert_eq!(error(&answer), "modify not-acceptable");
    assert!(shown(&answer).contains("pubsub#access_model"), "{}", shown(&answer));
    assert_eq!(field(&mut component, &of("private/1"), "title").await, "Mine");
    let same = [("access_model", "whitelist"), ("max_items", "5")];
    let answer = component.configure(USER, "private/1", &same).await;
    assert_eq!(answer.attr("type"), Some("result"));
    let create = format!("<create node='private/2'/><configure>{}</configure>", form(&open));
    assert_eq!(error(&component.pubsub(USER, "set", &create).await), "modify not-acceptable");
    assert_eq!(component.publish(USER, "private/3", "1").await.attr("type"), Some("result"));
    assert_eq!(field(&mut component, &of("private/3"), "access_model").await, "whitelist");
}

#[tokio::test]
async fn a_policy_for_all_names_is_the_default_configuration() {
    let all = PolicyConfig {
        forced: fields(&[("access_model", "whitelist")]),
        instant_nodes: false,
        auto_create: false,
        default: fields(&[("max_items", "7")]),
        ..policy("*")
    };
    let mut component = component_with_policies(vec![all]).await;
    assert_eq!(field(&mut component, "<default/>", "max_items").await, "7");
    let instant = component.pubsub(USER, "set", "<create/>").await;
    assert_eq!(error(&instant), "modify not-acceptable nodeid-required");
    assert_eq!(error(&component.publish(ADMIN, "n", "1").await), "cancel item-not-found");
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let info = shown(&component.ask(USER, "get", info).await);
    assert!(info.contains("pubsub#create-nodes"), "{info}");
    assert!(info.contains("access-whitelist") && !info.contains("access-open"), "{info}");
    assert!(!info.contains("instant-nodes") && !info.contains("auto-create"), "{info}");
}

#[tokio::test]
async fn max_items_and_max_subscriptions_apply_to_the_nodes_of_a_pattern() {
    let limits =
        NodeLimits { max_items: Some(2), max_subscriptions: Some(1), ..NodeLimits::default() };
    let mut component =
        component_with_policies(vec![PolicyConfig { limits, ..policy("small/*") }]).await;
    for node in ["small/1", "large"] {
        component.create(USER, node, &[]).await;
        for id in ["1", "2", "3"] {
            component.publish(USER, node, id).await;
        }
        component.subscribe("a@localhost/x", node).await;
    }
    assert_eq!(component.items(USER, "small/1").await, ["2", "3"]);
    assert_eq!(component.items(USER, "large").await, ["1", "2", "3"]);
    component.subscribe("b@localhost/x", "large").await;
    let subscribe = "<subscribe node='small/1' jid='b@localhost/x'/>";
    let refused = component.pubsub("b@localhost/x", "set", subscribe).await;
    assert_eq!(error(&refused), "wait policy-violation too-many-subscriptions");
}

/// Libervia copies the configuration of a blog node to the node of its reactions, which may have
/// lower limits.
#[tokio::test]
async fn numbers_above_the_limits_of_a_policy_are_lowered() {
    let limits =
        NodeLimits { max_items: Some(2), max_payload_bytes: Some(100), ..NodeLimits::default() };
    let small = PolicyConfig { limits, ..policy("small/*") };
    let forced = fields(&[("max_items", "5")]);
    let limits = NodeLimits { max_items: Some(50_000), ..NodeLimits::default() };
    let large = PolicyConfig { limits, ..policy("large") };
    let mut component =
        component_with_policies(vec![small, PolicyConfig { forced, ..policy("forced") }, large])
            .await;
    let of = "<configure node='small/1'/>";
    let copied = [("max_items", "10000"), ("max_payload_size", "65536")];
    component.create(USER, "small/1", &copied).await;
    assert_eq!(field(&mut component, of, "max_items").await, "2");
    assert_eq!(field(&mut component, of, "max_payload_size").await, "100");
    let lower = component.configure(USER, "small/1", &[("max_items", "1")]).await;
    assert_eq!(lower.attr("type"), Some("result"));
    assert_eq!(field(&mut component, of, "max_items").await, "1");
    let copied = component.configure(USER, "small/1", &copied).await;
    assert_eq!(copied.attr("type"), Some("result"));
    assert_eq!(field(&mut component, of, "max_items").await, "2");
    for (name, value) in [("max_items", "10001"), ("max_payload_size", "65537")] {
        let answer = component.configure(USER, "small/1", &[(name, value)]).await;
        assert_eq!(error(&answer), "modify not-acceptable", "{name}");
        let form = form(&[(name, value)]);
        let create = format!("<create node='small/2'/><configure>{form}</configure>");
        assert_eq!(error(&component.pubsub(USER, "set", &create).await), "modify not-acceptable");
    }
    // Publish-options are preconditions: a node that the publish creates has to meet them too.
    let form = |items| form(&[("max_items", items)]).replace("node_config", "publish-options");
    for (items, expected) in
        [("3", Some("cancel conflict precondition-not-met")), ("2", None), ("max", None)]
    {
        let options = format!("<publish-options>{}</publish-options>", form(items));
        let publish = format!("{}{options}", publish(&format!("small/of-{items}"), "1", "x"));
        let answer = component.pubsub(USER, "set", &publish).await;
        match expected {
            Some(expected) => assert_eq!(error(&answer), expected),
            None => assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer)),
        }
    }
    component.create(USER, "forced", &[]).await;
    let answer = component.configure(USER, "forced", &[("max_items", "6")]).await;
    assert_eq!(error(&answer), "modify not-acceptable");
    component.create(USER, "large", &[("max_items", "50000")]).await;
    let answer = component.configure(USER, "large", &[("max_items", "50001")]).await;
    assert_eq!(error(&answer), "modify not-acceptable");
}

/// Returns the policies that are commented out in `config/gjallar.toml`, from a line on.
fn shipped(from: &str) -> Vec<PolicyConfig> {
    #[derive(serde::Deserialize)]
    struct Shipped {
        policies: Vec<PolicyConfig>,
    }
    let file = include_str!("../../config/gjallar.toml");
    let lines = file.split_once(from).unwrap().1.lines().skip(1);
    let lines = lines.map(|line| line.strip_prefix("# ").unwrap_or_default());
    let is_toml = |line: &&str| line.starts_with("[[") || line.contains(" = ");
    let text: String = lines.filter(is_toml).map(|line| format!("{line}\n")).collect();
    toml::from_str::<Shipped>(&text).unwrap().policies
}

fn publish(node: &str, item: &str, text: &str) -> String {
    format!("<publish node='{node}'><item id='{item}'><x xmlns='urn:x'>{text}</x></item></publish>")
}

/// Without a node created by the author's client, the first comment or reaction creates it; all
/// other users can comment and react too.
#[tokio::test]
async fn social_nodes_are_open_to_all() {
    let mut component = component_with_policies(shipped("Social nodes:")).await;
    let (romeo, nurse) = ("romeo@localhost/b", "nurse@localhost/c");
    for node in [
        "urn:xmpp:microblog:0:comments/post-1",
        "urn:xmpp:pubsub-attachments:1/xmpp:juliet@localhost?;node=urn%3Axmpp%3Amicroblog%3A0;item=post-1",
    ] {
        component.granted(romeo, &publish(node, "romeo@localhost", "like")).await;
        component.granted(nurse, &publish(node, "nurse@localhost", "like")).await;
        for content in [
            publish(node, "romeo@localhost", "dislike"),
            format!("<retract node='{node}'><item id='romeo@localhost'/></retract>"),
        ] {
            assert_eq!(error(&component.pubsub(nurse, "set", &content).await), "auth forbidden");
        }
        component.granted(nurse, &publish(node, "nurse@localhost", "love")).await;
        let items = format!("<items node='{node}'/>");
        let items = shown(&component.pubsub("juliet@localhost/x", "get", &items).await);
        for item in [
            "<item id='romeo@localhost' publisher='romeo@localhost'>",
            "<item id='nurse@localhost' publisher='nurse@localhost'>",
        ] {
            assert!(items.contains(item), "{items}");
        }
        let member = "<affiliation jid='new@localhost' affiliation='publisher'/>";
        let member = format!("<affiliations node='{node}'>{member}</affiliations>");
        component.owner(romeo, "set", &member).await;
        assert_eq!(component.message().await.attr("to"), Some("new@localhost"));
    }
    // A user of another server may create a node only where the policies allow everyone.
    let far = "far@far.example/c";
    let first = publish("urn:xmpp:microblog:0:comments/post-2", "far", "like");
    assert_eq!(error(&component.pubsub(far, "set", &first).await), "cancel item-not-found");
    let mut policies = shipped("Social nodes:");
    policies.iter_mut().for_each(|policy| policy.creators = Some(vec!["anyone".into()]));
    let mut component = component_with_policies(policies).await;
    component.granted(far, &first).await;
}

/// A node is full before eviction by number or by bytes begins.
#[tokio::test]
async fn filling_a_social_node_removes_no_items_of_others() {
    let mut policies = shipped("Social nodes:");
    policies.retain(|policy| policy.nodes.starts_with("urn:"));
    let defaults = Config::default().limits;
    for policy in &mut policies {
        // Size of an item with the longest id and publisher, escaped.
        let item = u64::from(policy.limits.max_payload_bytes.unwrap()) + 6 * 1023 + 2047 + 40;
        let items = policy.limits.max_items.unwrap_or(defaults.max_items);
        assert!(item * u64::from(items) <= defaults.max_node_bytes, "{}", policy.nodes);
        policy.limits.max_items = Some(3);
    }
    let mut component = component_with_policies(policies).await;
    let (romeo, mallory) = ("romeo@localhost/b", "mallory@localhost/m");
    for node in ["urn:xmpp:microblog:0:comments/post-1", "urn:xmpp:pubsub-attachments:1/post-1"] {
        component.granted(romeo, &publish(node, "romeo", "a comment")).await;
        for item in ["1", "2"] {
            component.granted(mallory, &publish(node, item, "spam")).await;
        }
        let refused = component.pubsub(mallory, "set", &publish(node, "3", "spam")).await;
        assert_eq!(error(&refused), "cancel conflict node-full");
        assert_eq!(component.items(romeo, node).await, ["romeo", "1", "2"]);
        // Existing items can be changed, and the owner can release space.
        component.granted(romeo, &publish(node, "romeo", "other words")).await;
        component.granted(romeo, &format!("<retract node='{node}'><item id='1'/></retract>")).await;
        component.granted(romeo, &publish(node, "romeo-2", "a comment")).await;
    }
}

#[tokio::test]
async fn block_lists_are_read_by_all_and_written_by_publishers() {
    let mut component = component_with_policies(shipped("Block lists (RTBL)")).await;
    for node in ["muc_bans_sha256", "spam_source_domains", "spam_source_jids_sha256"] {
        let create = format!("<create node='{node}'/>");
        assert_eq!(error(&component.pubsub(USER, "set", &create).await), "auth forbidden");
        let entry = publish(node, "a9993e36", "");
        for by in [USER, ADMIN] {
            assert_eq!(error(&component.pubsub(by, "set", &entry).await), "cancel item-not-found");
        }
        component.create(ADMIN, node, &[]).await;
        component.subscribe("muc.far.example", node).await;
        assert_eq!(error(&component.pubsub(USER, "set", &entry).await), "auth forbidden");
        let bot = "<affiliation jid='user@localhost' affiliation='publisher'/>";
        let bot = format!("<affiliations node='{node}'>{bot}</affiliations>");
        assert_eq!(component.owner(ADMIN, "set", &bot).await.attr("type"), Some("result"));
        component.granted(USER, &entry).await;
        let event = shown(&component.message().await);
        assert!(event.contains("to='muc.far.example'") && event.contains("a9993e36"), "{event}");
        assert_eq!(component.items("muc.far.example", node).await, ["a9993e36"]);
        let form =
            shown(&component.owner(ADMIN, "get", &format!("<configure node='{node}'/>")).await);
        assert!(form.contains("<value>50000</value>"), "{form}");
    }
}

#[test]
fn imported_nodes_are_subject_to_their_policies() {
    let folder = tempfile::tempdir().unwrap();
    let host = folder.path().join("data/old%2elocalhost");
    fs::create_dir_all(host.join("pubsub_nodes")).unwrap();
    for (node, items) in [("few", 3), ("many", 4), ("others", 4)] {
        let config = format!(
            r#"return {{ ["name"] = "{node}"; ["config"] = {{ ["max_items"] = "max"; }};
            ["affiliations"] = {{ ["owner@localhost"] = "owner"; }}; ["subscribers"] = {{}}; }};"#
        );
        fs::write(host.join(format!("pubsub_nodes/{node}.dat")), config).unwrap();
        let item = |number| {
            format!(
                "item({{ [\"key\"] = \"{number}\"; [\"when\"] = {number}; [\"with\"] = \"owner@localhost\"; \
                [\"name\"] = \"x\"; [\"attr\"] = {{ [\"xmlns\"] = \"urn:x\"; }}; }});\n"
            )
        };
        let items: String = (1..=items).map(item).collect();
        fs::write(host.join(format!("pubsub_{node}.list")), items).unwrap();
    }
    let config = folder.path().join("gjallar.toml");
    fs::write(
        &config,
        "[limits]\nmax_items = 3\n\
        [[policies]]\nnodes = 'few'\nlimits = { max_items = 2 }\n\
        [[policies]]\nnodes = 'many'\nlimits = { max_items = 4 }\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gjallar"))
        .args(["import", "--from", "prosody", "--service", "old.localhost", "--dry-run", "--json"])
        .arg("--source")
        .arg(folder.path().join("data"))
        .arg("--config")
        .arg(config)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["items"], 11);
    let what = "more items or bytes than a node may have: the next publish evicts the oldest";
    assert_eq!(report["left"][0]["what"], what);
    assert_eq!(report["left"][0]["places"], serde_json::json!(["few", "others"]));
    assert_eq!(report["left"].as_array().unwrap().len(), 1);
}
