//! Reload of the configuration while the service runs.

use std::fs;

use gjallar::config::{Config, NodeLimits, PolicyConfig};

use super::policies::{ADMIN, USER, field, fields, policy};
use crate::support::{
    component::{EVENT, TestComponent, error, form, shown},
    process::{ServiceProcess, lines_with_event},
};

#[tokio::test]
async fn a_reload_keeps_the_connection() {
    let mut component = TestComponent::start().await;
    component.create(USER, "n", &[]).await;
    component.reload.send_modify(|config| {
        config.admins = vec!["user@localhost".into()];
        config.limits.max_batch = 1;
        config.policies = vec![PolicyConfig { auto_create: false, ..policy("closed/*") }];
    });
    // The reload runs concurrently with requests.
    while component.publish(USER, "closed/1", "1").await.attr("type") == Some("result") {
        component.owner(USER, "set", "<delete node='closed/1'/>").await;
    }
    let two = "<publish node='n'><item id='1'><x xmlns='x'/></item><item id='2'><x xmlns='x'/></item></publish>";
    let refused = component.pubsub(USER, "set", two).await;
    assert_eq!(error(&refused), "cancel not-allowed max-items-exceeded");
    let configure = component.configure(ADMIN, "n", &[("title", "t")]).await;
    assert_eq!(error(&configure), "auth forbidden");
    // Restores the previous configuration.
    component.reload.send_modify(|config| {
        config.admins = vec!["admin@localhost".into()];
        config.policies = Vec::new();
    });
    while component.configure(ADMIN, "n", &[("title", "t")]).await.attr("type") == Some("error") {}
    assert_eq!(component.publish(USER, "closed/1", "1").await.attr("type"), Some("result"));
}

/// Changes the configuration, and waits until the component has applied it.
async fn reload_with(component: &mut TestComponent, change: impl FnOnce(&mut Config)) {
    component.reload.send_modify(|config| {
        change(config);
        config.limits.max_batch -= 1;
    });
    let limit = component.reload.borrow().limits.max_batch;
    let items = "<item><x xmlns='x'/></item>".repeat(limit + 1);
    let publish = format!("<publish node='probe'>{items}</publish>");
    while component.pubsub(USER, "set", &publish).await.attr("type") == Some("result") {}
}

#[tokio::test]
async fn existing_node_keeps_values_that_a_new_policy_forbids() {
    let mut component = TestComponent::start().await;
    component.create(USER, "probe", &[]).await;
    component.create(USER, "n", &[("access_model", "authorize")]).await;
    let open = PolicyConfig { forced: fields(&[("access_model", "open")]), ..policy("n") };
    reload_with(&mut component, |config| config.policies = vec![open]).await;
    let of = "<configure node='n'/>";
    let cancel = "<configure node='n'><x xmlns='jabber:x:data' type='cancel'/></configure>";
    let cancelled = component.owner(USER, "set", cancel).await;
    assert_eq!(cancelled.attr("type"), Some("result"));
    let title = component.configure(USER, "n", &[("title", "t")]).await;
    assert_eq!(title.attr("type"), Some("result"));
    let whole = component.configure(USER, "n", &[("title", "u"), ("access_model", "authorize")]);
    assert_eq!(whole.await.attr("type"), Some("result"));
    assert_eq!(field(&mut component, of, "access_model").await, "authorize");
    let third = component.configure(USER, "n", &[("access_model", "whitelist")]).await;
    assert_eq!(error(&third), "modify not-acceptable");
    let forced = component.configure(USER, "n", &[("access_model", "open")]).await;
    assert_eq!(forced.attr("type"), Some("result"));
    let back = component.configure(USER, "n", &[("access_model", "authorize")]).await;
    assert_eq!(error(&back), "modify not-acceptable");
}

#[tokio::test]
async fn lower_limits_apply_to_existing_nodes() {
    let mut component = TestComponent::start().await;
    component.create(USER, "probe", &[]).await;
    component.create(USER, "n", &[("max_items", "50")]).await;
    component.publish(USER, "n", "1").await;
    let limits =
        NodeLimits { max_items: Some(10), max_payload_bytes: Some(100), ..NodeLimits::default() };
    reload_with(&mut component, |config| {
        config.policies = vec![PolicyConfig { limits, ..policy("n") }];
    })
    .await;
    let payload = format!("<item id='2'><x xmlns='urn:x'>{}</x></item>", "x".repeat(100));
    let publish = |options: &str| format!("<publish node='n'>{payload}</publish>{options}");
    let refused = component.pubsub(USER, "set", &publish("")).await;
    assert_eq!(error(&refused), "modify not-acceptable payload-too-big");
    let of = "<configure node='n'/>";
    assert_eq!(field(&mut component, of, "max_items").await, "10");
    assert_eq!(field(&mut component, of, "max_payload_size").await, "100");
    for (max_items, is_met) in [("10", true), ("max", true), ("50", false), ("9", false)] {
        let form = form(&[("max_items", max_items)]).replace("node_config", "publish-options");
        let item = "<item id='3'><x xmlns='urn:x'/></item>";
        let options = format!("<publish-options>{form}</publish-options>");
        let content = format!("<publish node='n'>{item}</publish>{options}");
        let answer = component.pubsub(USER, "set", &content).await;
        assert_eq!(answer.attr("type") == Some("result"), is_met, "{}", shown(&answer));
    }
    let shown_and_sent = [("max_items", "10"), ("max_payload_size", "100"), ("title", "t")];
    let whole = component.configure(USER, "n", &shown_and_sent).await;
    assert_eq!(whole.attr("type"), Some("result"), "{}", shown(&whole));
}

#[tokio::test]
async fn sighup_reloads_the_file_and_logs_changes_or_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gjallar.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[limits]\nmax_items = 5\n");
    let mut service = ServiceProcess::start(&[("CONFIG", file.to_str().unwrap())], &[]).await;
    write(
        "log = 'debug'\nstore_cache_mib = 25\n[limits]\nmax_items = 6\n[[policies]]\nnodes = 'a/*'\n",
    );
    service.hang_up();
    service.has_logged_event("config_reloaded").await;
    let log = service.log();
    for line in [
        "event=\"config_key_changed\" key=\"limits.max_items\" before=\"5\" after=\"6\"",
        "event=\"config_key_changed\" key=\"log\"",
        "event=\"config_key_changed\" key=\"policies\"",
        "event=\"config_key_needs_restart\" key=\"store_cache_mib\"",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    service.granted(USER, "<create node='n'/>").await;
    write("[limits]\nmax_items = 'many'\n");
    service.hang_up();
    service.has_logged_event("config_reload_failed").await;
    write("[[policies]]\nnodes = 'b/*'\nforced = { access_model = 'ajar' }\n");
    service.hang_up();
    service.has_logged("policies: \"b/*\": ").await;
    write("server = 'nowhere'\n[limits]\nmax_items = 7\n");
    service.hang_up();
    // The environment variable takes precedence over the file.
    service.has_logged("before=\"6\" after=\"7\"").await;
    write("[link]\nmax_stanza_bytes = 5\n[limits]\nmax_items = 8\n");
    service.hang_up();
    service.has_logged("link.max_stanza_bytes: from").await;
    write(
        "link = { max_stanza_bytes = 1000000, max_remote_stanza_bytes = 1000000 }\nlimits = { max_items = 9, max_payload_bytes = 400000 }\n",
    );
    service.hang_up();
    service.has_logged_event("config_reload_needs_restart").await;
    write("admins = ['a@localhost']\n[limits]\nmax_items = 10\n");
    service.hang_up();
    service.has_logged("what=\"administrators\" before=\"\" after=\"a@localhost\"").await;
    service.has_logged("before=\"7\" after=\"10\"").await;
    service.granted(USER, "<create node='a/1'/>").await;
    let log = service.log();
    assert_eq!(lines_with_event(&log, "link_connected").len(), 1, "{log}");
    assert!(service.is_alive());
}

/// Returns the names of the events that the former administrator receives.
fn received(messages: &[minidom::Element], jid: &str) -> Vec<String> {
    let own = messages.iter().filter(|message| message.attr("to") == Some(jid));
    own.filter_map(|message| message.get_child("event", EVENT))
        .flat_map(|event| event.children())
        .map(|child| child.attr("node").unwrap().to_owned())
        .collect()
}

/// §12.13: the rights of an administrator end with the list, and with them the subscriptions that only they admitted.
#[tokio::test]
async fn subscriptions_of_former_administrators_end() {
    let mut component = TestComponent::start().await;
    component.create(USER, "closed", &[("access_model", "whitelist")]).await;
    component.create(USER, "open", &[]).await;
    for node in ["closed", "open"] {
        component.subscribe(ADMIN, node).await;
    }
    component.messages().await;
    component.reload.send_modify(|config| config.admins = vec!["user@localhost".into()]);
    let notice = component.message().await;
    assert!(shown(&notice).contains("subscription='none'"), "{}", shown(&notice));
    for node in ["closed", "open"] {
        component.publish(USER, node, "1").await;
    }
    assert_eq!(received(&component.messages().await, ADMIN), ["open"]);
}

/// The list of administrators may change while the service does not run.
#[tokio::test]
async fn subscriptions_of_administrators_end_who_are_removed_before_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gjallar.toml");
    fs::write(&path, "admins = ['admin@localhost']").unwrap();
    let file = ("GJALLAR_CONFIG", path.to_str().unwrap());
    let mut service = ServiceProcess::start(&[], &[file]).await;
    let closed = form(&[("access_model", "whitelist")]);
    service.granted(USER, &format!("<create node='n'/><configure>{closed}</configure>")).await;
    service.granted(ADMIN, &format!("<subscribe node='n' jid='{ADMIN}'/>")).await;
    fs::write(&path, "admins = ['other@localhost']").unwrap();
    service.stop_and_restart().await;
    service.has_logged("former_administrators_reevaluated\" subscriptions=1").await;
    fs::write(&path, "admins = ['other@localhost', 'third@localhost']").unwrap();
    service.stop_and_restart().await;
    service.granted(USER, "<publish node='n'><item id='1'><x xmlns='x'/></item></publish>").await;
    assert_eq!(lines_with_event(&service.log(), "former_administrators_reevaluated").len(), 1);
}
