//! Monitoring: metrics and health over HTTP, `gjallar stats`, and the dashboard.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    component::{OWNER, PUBSUB},
    process::ServiceProcess,
};

/// Requests a path from the local web server; returns status and body.
async fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn metrics_and_health_are_served_over_http() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{free}");
    let mut served = ServiceProcess::start(&[("MONITORING_LISTEN", &listen)], &[]).await;
    assert_eq!(get(free, "/healthz").await, (200, "alive\n".to_owned()));
    while get(free, "/readyz").await.0 == 503 {}
    assert_eq!(get(free, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(get(free, "/").await.0, 404);
    served.granted("owner@localhost", "<create node='n'/>").await;
    served
        .ask(
            "owner@localhost",
            "set",
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='n'/></pubsub>",
        )
        .await;
    let (status, text) = get(free, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "gjallar_requests_total{operation=\"create\",result=\"granted\"} 1",
        "gjallar_requests_total{operation=\"create\",result=\"conflict\"} 1",
        "gjallar_commit_duration_seconds_count 1",
        "gjallar_store_sync_duration_seconds_count 1",
        "gjallar_link_up 1",
        "gjallar_cached_nodes 1",
        "gjallar_node_cache_misses_total 1",
        "gjallar_cached_rosters 0",
        "gjallar_available_entities 0",
        "gjallar_caps_resources 0",
        "gjallar_log_backlog_age_seconds 0",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let memory = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    assert!(memory.unwrap().parse::<u64>().unwrap() > 1_000_000);
    // Without a connection to the server the service is healthy, but not ready.
    served.link.shut().await;
    while get(free, "/readyz").await.0 == 200 {}
    assert_eq!(get(free, "/healthz").await.0, 200);
}

/// Every metric named in the dashboard exists.
#[tokio::test]
async fn dashboard_names_existing_metrics() {
    // Metrics without a value are not exported.
    let mut served = ServiceProcess::start(&[("LIMITS_MAX_NODES", "0")], &[]).await;
    let create = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='n'/></pubsub>";
    assert_eq!(served.ask("owner@localhost", "set", create).await.attr("type"), Some("error"));
    let text = served.stats().await;
    let dashboard = include_str!("../../config/grafana.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert_eq!(panels.len(), 11);
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let at =
                ["gjallar_", "process_"].iter().find_map(|start| expression.find(start)).unwrap();
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            let name: String = expression[at..].chars().take_while(|c| is_name(*c)).collect();
            let name = name.trim_end_matches("_total").trim_end_matches("_bucket");
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}: {text}");
        }
    }
}

/// Each limit that a request can exceed is counted under its name.
#[tokio::test]
async fn rejections_are_counted_by_limit() {
    let small = [
        ("LIMITS_MAX_NODES", "2"),
        ("LIMITS_MAX_NODES_PER_OWNER", "1"),
        ("LIMITS_MAX_SUBSCRIPTIONS", "1"),
        ("LIMITS_MAX_SUBSCRIPTIONS_PER_JID", "0"),
        ("LIMITS_MAX_AFFILIATIONS", "1"),
        ("LIMITS_MAX_BATCH", "1"),
        ("LIMITS_MAX_PAYLOAD_BYTES", "100"),
        ("LIMITS_MAX_REPLY_BYTES", "100"),
        ("LIMITS_MAX_NODE_BYTES", "100"),
        ("LINK_MAX_STANZA_BYTES", "21000"),
    ];
    let mut served = ServiceProcess::start(&small, &[]).await;
    let owner = "owner@localhost/x";
    let pubsub = |content: &str| format!("<pubsub xmlns='{PUBSUB}'>{content}</pubsub>");
    let long = "x".repeat(1100);
    for content in [
        "<create node='n'/>".to_owned(),
        "<create node='m'/>".to_owned(),
        format!("<create node='{long}'/>"),
        "<subscribe node='n' jid='owner@localhost'/>".to_owned(),
        "<publish node='n'><item id='a'/><item id='b'/></publish>".to_owned(),
        format!("<publish node='n'><item><x xmlns='x'>{long}</x></item></publish>"),
        format!("<publish node='n'><item id='{}'><x xmlns='x'/></item></publish>", &long[..200]),
        format!("<publish node='n'><item>{}</item></publish>", "<x xmlns='x'/>".repeat(2000)),
        "<publish node='n'><item id='1'><x xmlns='x'/></item></publish>".to_owned(),
        "<publish node='n'><item id='2'><x xmlns='x'/></item></publish>".to_owned(),
    ] {
        served.ask(owner, "set", &pubsub(&content)).await;
    }
    for content in [
        "<affiliations node='n'><affiliation jid='a@b' affiliation='member'/></affiliations>",
        "<subscriptions node='n'><subscription jid='a@b' subscription='subscribed'/><subscription \
         jid='b@b' subscription='subscribed'/></subscriptions>",
    ] {
        let content = format!("<pubsub xmlns='{OWNER}'>{content}</pubsub>");
        served.ask(owner, "set", &content).await;
    }
    for from in ["other@localhost", "third@localhost"] {
        served.ask(from, "set", &pubsub(&format!("<create node='{from}'/>"))).await;
    }
    let stats = served.stats().await;
    for limit in [
        "max_nodes",
        "max_nodes_per_owner",
        "max_subscriptions",
        "max_subscriptions_per_jid",
        "max_affiliations",
        "max_batch",
        "max_payload_bytes",
        "max_reply_bytes",
        "name_bytes",
        "stanza",
    ] {
        let line = format!("gjallar_limit_rejections_total{{limit=\"{limit}\"}} 1\n");
        assert!(stats.contains(&line), "{limit}: {stats}");
    }
    assert!(stats.contains("gjallar_items_evicted_total 1\n"), "{stats}");
}
