//! The command line against a running service: the real binary, its control socket, and the stanzas
//! the server receives.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{component::shown, process::ServiceProcess};

const READER: &str = "reader@localhost/phone";

/// Exit code and output of a command.
struct CliOutput {
    code: i32,
    out: String,
    error: String,
}

async fn run(served: &ServiceProcess, arguments: &[&str]) -> CliOutput {
    run_with(served, arguments, "").await
}

async fn run_with(served: &ServiceProcess, arguments: &[&str], input: &str) -> CliOutput {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gjallar"));
    command.args(arguments).env_clear();
    command.env("GJALLAR_STORE", format!("sled:{}", served.store().display()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    CliOutput { code: status.code().unwrap(), out: text(stdout), error: text(stderr) }
}

/// Runs a command that must succeed; returns its standard output.
async fn exec(served: &ServiceProcess, arguments: &[&str]) -> String {
    let CliOutput { code, out, error } = run(served, arguments).await;
    assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}");
    out
}

/// Runs a command with JSON output; returns the object of each line.
async fn listed(served: &ServiceProcess, arguments: &[&str]) -> Vec<Value> {
    let out = exec(served, &[arguments, &["--json"]].concat()).await;
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command that must fail with this exit code; returns its standard error.
async fn refused(served: &ServiceProcess, arguments: &[&str], code: i32) -> String {
    let done = run(served, arguments).await;
    assert_eq!((done.code, done.out.as_str()), (code, ""), "{arguments:?}: {}", done.error);
    done.error
}

#[tokio::test]
async fn nodes_are_administered_from_the_command_line() {
    let served = ServiceProcess::start(&[], &[]).await;
    let created = ["node", "create", "news/a", "--set", "title=All the news", "-s", "max_items=7"];
    assert_eq!(exec(&served, &created).await, "news/a\n");
    assert_eq!(exec(&served, &["node", "create", "b", "--as", "bot@localhost"]).await, "b\n");
    let exists = refused(&served, &["node", "create", "b"], 1).await;
    assert_eq!(exists, "gjallar: the running service says: the node already exists\n");
    assert_eq!(
        exec(&served, &["node", "list"]).await,
        "NODE    TITLE         ACCESS_MODEL  TYPE\n\
         news/a  All the news  open\n\
         b                     open\n"
    );
    let found = json!({ "node": "b", "title": "", "access_model": "open", "type": "" });
    assert_eq!(listed(&served, &["node", "list", "?"]).await, [found]);
    let configured = ["node", "configure", "b", "title=B", "pubsub#access_model=whitelist"];
    assert_eq!(exec(&served, &configured).await, "configured\n");
    assert_eq!(exec(&served, &configured).await, "unchanged\n");
    let unknown = refused(&served, &["node", "configure", "b", "nonsense=1"], 1).await;
    assert!(unknown.contains("pubsub#nonsense: unknown field"), "{unknown}");
    assert!(
        refused(&served, &["node", "configure", "b", "title"], 2).await.contains("FIELD=VALUE")
    );
    let node = &listed(&served, &["node", "show", "b"]).await[0];
    assert_eq!(node["owners"], json!(["bot@localhost"]));
    assert_eq!(node["configuration"]["pubsub#title"], "B");
    assert_eq!(node["items"], 0);
    let table = exec(&served, &["node", "show", "b"]).await;
    assert!(table.starts_with("created"), "{table}");
    assert!(table.contains("configuration access_model") && table.contains("whitelist"), "{table}");

    exec(&served, &["item", "publish", "b", "--payload", "<x xmlns='urn:x'/>"]).await;
    let unasked = refused(&served, &["node", "purge", "b"], 2).await;
    assert!(unasked.contains("--yes"), "{unasked}");
    assert_eq!(exec(&served, &["node", "purge", "b", "--yes"]).await, "purged\n");
    assert_eq!(listed(&served, &["item", "list", "b"]).await, Vec::<Value>::new());
    let moved = ["node", "delete", "b", "--yes", "--redirect", "xmpp:x?;node=y"];
    assert_eq!(exec(&served, &moved).await, "deleted\n");
    let gone = refused(&served, &["node", "show", "b"], 1).await;
    assert_eq!(gone, "gjallar: the running service says: the node has moved\n");
}

/// Items published on the command line reach subscribers like items of any publisher.
#[tokio::test]
async fn items_and_announcements_reach_subscribers() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    let create = ["node", "create", "n", "--set", "itemreply=none", "--as", "owner@localhost"];
    exec(&served, &create).await;
    served.granted(READER, &format!("<subscribe node='n' jid='{READER}'/>")).await;
    let published = ["item", "publish", "n", "--id", "1", "--as", "bot@localhost"];
    let published = run_with(&served, &published, "<x xmlns='urn:x'>one</x>\n").await;
    assert_eq!((published.code, published.out.as_str()), (0, "1\n"));
    let no_xml = refused(&served, &["item", "publish", "n", "--payload", "text"], 1).await;
    assert!(no_xml.contains("one element with a namespace"), "{no_xml}");
    exec(&served, &["announce", "n", "It ends on Friday."]).await;
    exec(&served, &["item", "retract", "n", "1", "--notify"]).await;
    let mut received = String::new();
    while !received.contains("<retract") {
        received.push_str(&shown(&served.link.receive().await.unwrap()));
    }
    for part in ["<body>It ends on Friday.</body>", "<item id='1'>", ">one</x>"] {
        assert!(received.contains(part), "{received}");
    }
    for id in ["2", "3", "4"] {
        exec(&served, &["item", "publish", "n", "--id", id, "--payload", "<x xmlns='urn:x'/>"])
            .await;
    }
    let newest = listed(&served, &["item", "list", "n", "-n", "2"]).await;
    let ids: Vec<_> = newest.iter().map(|item| item["item"].as_str().unwrap()).collect();
    assert_eq!(ids, ["4", "3"]);
    // Entities that manage the node see the publisher, although the items of the node show none.
    assert_eq!(newest[0]["publisher"], "pubsub.localhost");
    assert_eq!(
        exec(&served, &["item", "retract", "n", "--older-than-days", "0"]).await,
        "retracted: 3\n"
    );
    assert!(refused(&served, &["item", "retract", "n", "2"], 1).await.contains("no such item"));
    assert!(refused(&served, &["item", "retract", "n"], 2).await.contains("<ITEM>"));
}

/// A list of several pages is complete, although item ids have the form of UIDs.
#[tokio::test]
async fn item_list_with_ids_in_uid_form_is_complete() {
    let mut served = ServiceProcess::start(&[("LIMITS_MAX_REPLY_BYTES", "2000")], &[]).await;
    exec(&served, &["node", "create", "n", "--set", "publish_model=open"]).await;
    let payload = format!("<x xmlns='urn:x'>{}</x>", "y".repeat(600));
    for id in ["1", "2"] {
        exec(&served, &["item", "publish", "n", "--id", id, "--payload", &payload]).await;
    }
    let items = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n' max_items='1'/></pubsub>";
    let answer = shown(&served.ask(READER, "get", items).await);
    let last = answer.split("<last>").nth(1).unwrap_or_else(|| panic!("{answer}"));
    let (epoch, _) = last.split_once('-').unwrap();
    let mut expected = vec!["2".to_owned(), "1".to_owned()];
    for sequence in (1..10).rev() {
        let id = format!("{epoch}-{sequence}");
        exec(&served, &["item", "publish", "n", "--id", &id, "--payload", &payload]).await;
        expected.insert(0, id);
    }
    let all = listed(&served, &["item", "list", "n"]).await;
    let ids: Vec<_> = all.iter().map(|item| item["item"].as_str().unwrap()).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn affiliations_and_subscriptions_are_administered_from_the_command_line() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    let create = ["node", "create", "n", "--as", "owner@localhost", "-s", "access_model=authorize"];
    exec(&served, &create).await;
    exec(&served, &["affiliation", "set", "n", "publisher", "a@localhost", "b@localhost"]).await;
    assert_eq!(
        exec(&served, &["affiliation", "list", "n"]).await,
        "JID              AFFILIATION\n\
         a@localhost      publisher\n\
         b@localhost      publisher\n\
         owner@localhost  owner\n"
    );
    let last = refused(&served, &["affiliation", "set", "n", "none", "owner@localhost"], 1).await;
    assert_eq!(
        last,
        "gjallar: the running service says: not set: owner@localhost (a node must have an owner)\n"
    );
    assert!(
        refused(&served, &["affiliation", "set", "n", "king", "a@b"], 2).await.contains("king")
    );
    for jid in ["c@localhost", "d@localhost"] {
        served.granted(jid, &format!("<subscribe node='n' jid='{jid}'/>")).await;
    }
    assert_eq!(listed(&served, &["subscription", "pending", "n"]).await.len(), 2);
    assert_eq!(
        exec(&served, &["subscription", "approve", "n", "c@localhost"]).await,
        "approved: 1\n"
    );
    assert_eq!(
        exec(&served, &["subscription", "refuse", "n", "d@localhost"]).await,
        "refused: 1\n"
    );
    // Approvals without a pending subscription of exactly this JID are rejected.
    for jid in ["e@localhost/desk", "f@localhost", "g@localhost"] {
        served.granted(jid, &format!("<subscribe node='n' jid='{jid}'/>")).await;
    }
    let approve = ["subscription", "approve", "n", "e@localhost", "f@localhost", "x@localhost"];
    assert_eq!(
        refused(&served, &approve, 1).await,
        "gjallar: the running service says: not pending: e@localhost, x@localhost\n"
    );
    let refuse = ["subscription", "refuse", "n", "f@localhost", "g@localhost", "g@localhost"];
    assert_eq!(
        refused(&served, &refuse, 1).await,
        "gjallar: the running service says: not pending: f@localhost\n"
    );
    assert_eq!(
        refused(&served, &["subscription", "set", "n", "none", "e@localhost"], 1).await,
        "gjallar: the running service says: not unsubscribed: e@localhost has no subscription, but e@localhost/desk has one\n"
    );
    let set = ["subscription", "set", "n", "none", "e@localhost", "e@localhost/desk"];
    assert_eq!(exec(&served, &set).await, "set: 2\n");
    for jid in ["f@localhost", "x@localhost"] {
        assert_eq!(exec(&served, &["subscription", "set", "n", "none", jid]).await, "set: 1\n");
    }
    let expected = json!({ "jid": "c@localhost", "subid": null, "subscription": "subscribed" });
    assert_eq!(listed(&served, &["subscription", "list", "n"]).await, [expected]);
    assert_eq!(listed(&served, &["subscription", "pending", "n"]).await, Vec::<Value>::new());

    exec(
        &served,
        &[
            "item",
            "publish",
            "n",
            "--as",
            "a@localhost",
            "--id",
            "1",
            "--payload",
            "<x xmlns='urn:x'/>",
        ],
    )
    .await;
    let entity = &listed(&served, &["entity", "show", "a@localhost"]).await[0];
    assert_eq!(entity["affiliations"], json!([{ "node": "n", "affiliation": "publisher" }]));
    let export = exec(&served, &["entity", "export", "a@localhost"]).await;
    let lines: Vec<Value> =
        export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["entity"]["jid"], "a@localhost");
    assert_eq!((&lines[1]["node"], &lines[1]["item"]), (&json!("n"), &json!("1")));
    let erased = exec(&served, &["entity", "erase", "a@localhost", "--yes"]).await;
    assert_eq!(erased, "erased: 0 nodes, 1 affiliations, 0 subscriptions, 1 items\n");
    assert!(!exec(&served, &["affiliation", "list", "n"]).await.contains("a@localhost"));
}

#[tokio::test]
async fn repeated_fields_make_a_list_and_are_refused_for_a_single_value() {
    let served = ServiceProcess::start(&[], &[]).await;
    let contacts = ["-s", "contact=a@localhost", "--set", "pubsub#contact=b@localhost"];
    exec(&served, &[&["node", "create", "n"][..], &contacts].concat()).await;
    let configure = ["node", "configure", "n"];
    let groups =
        ["roster_groups_allowed=Friends", "title=T", "roster_groups_allowed=Work, at home"];
    exec(&served, &[&configure[..], &groups].concat()).await;
    let single = ["title=U", "roster_groups_allowed=Family", "pubsub#title=V"];
    let error = "gjallar: pubsub#title: only one value is accepted\n";
    assert_eq!(refused(&served, &[&configure[..], &single].concat(), 2).await, error);
    let access = ["node", "create", "m", "-s", "access_model=whitelist", "-s", "access_model=open"];
    let error = "gjallar: pubsub#access_model: only one value is accepted\n";
    assert_eq!(refused(&served, &access, 2).await, error);
    assert_eq!(listed(&served, &["node", "list"]).await.len(), 1);
    let node = &listed(&served, &["node", "show", "n"]).await[0]["configuration"];
    assert_eq!(node["pubsub#contact"], "a@localhost\nb@localhost");
    assert_eq!(node["pubsub#roster_groups_allowed"], "Friends\nWork, at home");
    assert_eq!(node["pubsub#title"], "T");
}

#[tokio::test]
async fn refusals_at_limits_are_counted() {
    let limits = [
        ("LIMITS_MAX_NODES", "1"),
        ("LIMITS_MAX_AFFILIATIONS", "2"),
        ("LIMITS_MAX_SUBSCRIPTIONS", "2"),
        ("LIMITS_MAX_BACKLOG_EVENTS", "4"),
        ("ADMINS", "admin@localhost"),
    ];
    let mut served = ServiceProcess::start(&limits, &[]).await;
    exec(&served, &["node", "create", "n", "--as", "owner@localhost"]).await;
    served.granted(READER, &format!("<subscribe node='n' jid='{READER}'/>")).await;
    let full = refused(&served, &["node", "create", "m"], 1).await;
    assert!(full.contains("max_nodes: the service has the maximum number of nodes"), "{full}");
    exec(&served, &["node", "configure", "n", "max_payload_size=30"]).await;
    let long = ["item", "publish", "n", "--payload", "<x xmlns='urn:x'>0123456789</x>"];
    let long = refused(&served, &long, 1).await;
    assert!(long.contains("pubsub#max_payload_size: a payload has at most 30 bytes"), "{long}");
    let members = ["affiliation", "set", "n", "member", "b@localhost", "c@localhost"];
    refused(&served, &members, 1).await;
    let subscribers = ["subscription", "set", "n", "subscribed", "b@localhost", "c@localhost"];
    refused(&served, &subscribers, 1).await;
    for (command, choice) in [("affiliations", "member"), ("subscriptions", "subscribed")] {
        let field = command.trim_end_matches('s');
        let jids = "<value>d@localhost</value><value>e@localhost</value>";
        let node = "<field var='node'><value>n</value></field>";
        let set = format!(
            "<field var='jids'>{jids}</field><field var='{field}'><value>{choice}</value></field>"
        );
        let answer = run_command(&mut served, command, &[node, &set]).await;
        assert!(answer.contains("Not set: "), "{answer}");
    }
    served.link.hold_barriers();
    let publish = ["item", "publish", "n", "--payload", "<x xmlns='urn:x'/>"];
    while run(&served, &publish).await.code == 0 {}
    for (limit, number) in
        [("max_nodes", 1), ("max_affiliations", 2), ("max_subscriptions", 2), ("max_backlog", 1)]
    {
        let name = format!("limit_rejections_total{{limit=\"{limit}\"}}");
        assert_eq!(served.stat(&name).await, number, "{limit}");
    }
}

/// Runs an ad-hoc command as an administrator with the fields of its forms, and returns the last answer.
async fn run_command(served: &mut ServiceProcess, command: &str, forms: &[&str]) -> String {
    let mut session = String::new();
    let mut answer = String::new();
    for fields in forms {
        let form = format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
        let request = format!(
            "<command xmlns='http://jabber.org/protocol/commands' \
             node='urn:gjallar:command:{command}'{session}>{form}</command>"
        );
        let stage = served.ask("admin@localhost/desk", "set", &request).await;
        let id = stage.children().next().unwrap().attr("sessionid").unwrap().to_owned();
        session = format!(" sessionid='{id}'");
        answer = shown(&stage);
    }
    answer
}

#[tokio::test]
async fn an_entity_is_exported_with_its_options_and_erased_from_configurations() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    for node in ["n", "m"] {
        exec(&served, &["node", "create", node, "--as", "owner@localhost"]).await;
        exec(&served, &["affiliation", "set", node, "owner", "a@localhost"]).await;
    }
    let configure = ["node", "configure", "n", "title=T", "--as", "a@localhost"];
    exec(&served, &configure).await;
    let contact = "contact=a@localhost\nb@localhost";
    exec(&served, &["node", "configure", "m", contact, "--as", "owner@localhost"]).await;
    let fields = "<field var='pubsub#deliver'><value>0</value></field>\
                  <field var='x-gjallar#keyword'><value>secret hobby</value></field>";
    let form = format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
    let subscribe = "<subscribe node='n' jid='a@localhost'/>";
    served.granted("a@localhost/x", &format!("{subscribe}<options>{form}</options>")).await;
    let export = exec(&served, &["entity", "export", "a@localhost"]).await;
    let exported: Value = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    let options = json!({ "pubsub#deliver": "false", "x-gjallar#keyword": "secret hobby" });
    assert_eq!(
        exported["entity"]["subscriptions"],
        json!([{
            "node": "n",
            "jid": "a@localhost",
            "subscription": "subscribed",
            "subid": null,
            "options": options,
        }])
    );
    assert_eq!(exported["entity"]["refuses_presence"], false);
    let nodes = async || {
        let export = run(&served, &["export"]).await.out;
        let nodes: Vec<_> = export.lines().filter(|line| line.contains("\"revision\"")).collect();
        nodes.join("\n")
    };
    assert_eq!(nodes().await.matches("a@localhost").count(), 2);
    exec(&served, &["entity", "erase", "a@localhost", "--yes"]).await;
    let nodes = nodes().await;
    assert!(!nodes.contains("a@localhost") && nodes.contains("b@localhost"), "{nodes}");
}

#[tokio::test]
async fn stats_and_top_show_the_running_service() {
    let served = ServiceProcess::start(&[], &[]).await;
    exec(&served, &["node", "create", "n"]).await;
    let statistics = listed(&served, &["stats"]).await;
    assert!(statistics.contains(&json!({
        "name": "nodes", "value": 1, "meaning": "Nodes of the service",
    })));
    let text = exec(&served, &["stats"]).await;
    assert!(text.contains("# EOF"), "{text}");
    let watch = async { exec(&served, &["top", "-n", "2", "--json"]).await };
    let publish = async {
        for _ in 0..20 {
            exec(&served, &["item", "publish", "n", "--payload", "<x xmlns='urn:x'/>"]).await;
        }
    };
    let (watched, ()) = tokio::join!(watch, publish);
    let watched: Vec<Value> =
        watched.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(watched.len(), 3);
    assert_eq!(watched[0]["figures"]["link_up"], 1);
    let busy = watched.iter().flat_map(|second| second["busiest"].as_array().unwrap());
    assert!(busy.into_iter().any(|node| node["node"] == "n"), "{watched:?}");
    let page = exec(&served, &["top", "-n", "1"]).await;
    assert!(page.contains("link connected · nodes 1 · backlog"), "{page}");
}

/// The audit log has actor, old value and new value of every change, from each front end.
#[tokio::test]
async fn changes_of_owners_and_administrators_are_audited() {
    let mut served =
        ServiceProcess::start(&[("LOG_FORMAT", "json"), ("ADMINS", "admin@localhost")], &[]).await;
    let owner = "owner@localhost/desk";
    served.granted(owner, "<create node='n'/>").await;
    exec(&served, &["node", "configure", "n", "title=T", "--as", "admin@localhost"]).await;
    exec(&served, &["affiliation", "set", "n", "publisher", "bot@localhost"]).await;
    served.granted(READER, &format!("<subscribe node='n' jid='{READER}'/>")).await;
    served.publish("bot@localhost", "n", "1").await;
    let form = "<x xmlns='jabber:x:data' type='submit'><field var='pubsub#deliver'><value>0</value></field></x>";
    let options = format!("<options node='n' jid='{READER}'>{form}</options>");
    served.granted("admin@localhost", &options).await;
    exec(&served, &["subscription", "set", "n", "none", READER]).await;
    exec(&served, &["item", "publish", "n", "--id", "2", "--payload", "<x xmlns='urn:x'/>"]).await;
    exec(&served, &["announce", "n", "It ends."]).await;
    exec(&served, &["item", "retract", "n", "1"]).await;
    exec(&served, &["node", "purge", "n", "--yes"]).await;
    exec(&served, &["node", "delete", "n", "--yes", "--redirect", "xmpp:else"]).await;
    let log = served.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut requests = Vec::new();
    let audited: Vec<_> = lines
        .filter(|line| line["target"] == "gjallar::audit")
        .map(|line| {
            assert_eq!(line["node"], "n");
            requests.push((line["span"]["stanza_id"].clone(), line["span"]["control"].as_u64()));
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            [text("who"), text("what"), text("whom"), text("before"), text("after")]
        })
        .collect();
    let service = "pubsub.localhost";
    assert!(audited[0][4].contains("access_model=\"open\""), "{audited:?}");
    assert!(audited[4][4].contains("deliver=\"false\""), "{audited:?}");
    let expected = [
        [owner, "created", "", "", &audited[0][4].clone()],
        [owner, "affiliation", "owner@localhost", "none", "owner"],
        ["admin@localhost", "configuration", "", "", "title=\"T\""],
        [service, "affiliation", "bot@localhost", "none", "publisher"],
        ["admin@localhost", "options", READER, "", &audited[4][4].clone()],
        [service, "subscription", READER, "subscribed", "none"],
        [service, "published", "2", "", ""],
        [service, "announced", "", "", ""],
        [service, "retracted", "1", "", ""],
        [service, "purged", "", "", ""],
        [service, "deleted", "", "", "xmpp:else"],
    ];
    assert_eq!(audited, expected.map(|line| line.map(str::to_owned)));
    // Each line identifies its request: the first two lines belong to one request, with the stanza
    // id of its sender.
    assert!(requests[0] == requests[1] && requests[0].0.is_string() && requests[0].1.is_none());
    let of_commands: Vec<_> = requests[2..].iter().filter_map(|(_, number)| *number).collect();
    // All requests except the options, which were sent in a stanza.
    assert_eq!(of_commands.len(), requests.len() - 3);
    assert!(of_commands.is_sorted_by(|a, b| a < b), "{requests:?}");
}

#[tokio::test]
async fn log_injection_is_escaped() {
    let mut served = ServiceProcess::start(&[("LOG_FORMAT", "human")], &[]).await;
    let owner = "owner@localhost/desk";
    served.granted(owner, "<create node='n'/>").await;
    for name in ["a&#10;FORGED", "b&#13;FORGED&#x85;FORGED"] {
        served
            .granted(
                owner,
                &format!("<publish node='n'><item id='{name}'><x xmlns='urn:x'/></item></publish>"),
            )
            .await;
        served.granted(owner, &format!("<retract node='n'><item id='{name}'/></retract>")).await;
    }
    let id = "c&#10;FORGED request{control=0 uid=0}: changed";
    let create = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='d'/></pubsub>";
    let iq = format!("<iq type='set' id='{id}' from='{owner}' to='pubsub.localhost'>{create}</iq>");
    served.link.send(&iq).await;
    served.granted(owner, "<create node='e'/>").await;
    let log = served.log();
    assert!(log.matches("FORGED").count() >= 4, "{log}");
    for line in log.split(['\n', '\r', '\u{85}']) {
        assert!(!line.starts_with("FORGED"), "{log}");
    }
    // Texts chosen by a sender are in quotation marks; those of the service are not.
    let forged = "request{stanza_id=\"c\\nFORGED request{control=0 uid=0}: changed\"}";
    assert!(log.contains(forged), "{log}");
}

#[test]
fn completions_and_manual_pages_have_the_commands() {
    let gjallar = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_gjallar")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (shell, begins) in
        [("bash", "_gjallar()"), ("zsh", "#compdef gjallar"), ("fish", "# Print")]
    {
        assert!(gjallar(&["completions", shell]).starts_with(begins), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    gjallar(&["man", folder.path().to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(Path::join(folder.path(), name)).unwrap();
    assert!(page("gjallar.1").contains("gjallar\\-node"));
    for name in ["gjallar-node-create.1", "gjallar-node-configure.1"] {
        let page = page(name);
        assert!(page.contains("FIELD=VALUE") && page.contains("repeat for each value"), "{page}");
    }
}
