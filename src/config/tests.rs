//! Tests of loading and validating the configuration.

use crate::config::{Config, LogFormat};
use gjallar_pubsub::Creators;

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Config::from_parts(text, variables)
}

fn creators(jid: &str, creators: &[&str]) -> Creators {
    let creators = creators.iter().map(|creator| (*creator).to_owned()).collect();
    let config = Config { jid: jid.into(), creators, ..Config::default() };
    config.creators(&config.creators).unwrap()
}

#[test]
fn shipped_file_has_the_default_values() {
    let shipped = include_str!("../../config/gjallar.toml");
    assert_eq!(with(shipped, &[]).unwrap(), Config::default());
}

#[test]
fn variable_of_every_key_overrides_the_file() {
    let config = with(
        "jid = 'a.example'\n[limits]\nmax_items = 5",
        &[
            ("GJALLAR_JID", "b.example"),
            ("GJALLAR_ADMINS", "a@b, c@d"),
            ("GJALLAR_LIMITS_MAX_ITEMS", "7"),
            ("GJALLAR_LINK_PING_AFTER_SECONDS", "1"),
            ("GJALLAR_LOG_FORMAT", "json"),
        ],
    );
    let config = config.unwrap();
    assert_eq!((config.jid.as_str(), config.limits.max_items), ("b.example", 7));
    assert_eq!(config.admins, ["a@b", "c@d"]);
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.link.ping_after_seconds, 1);
}

/// Sets every key by its variable, one by one, to a value that differs from the default.
#[test]
fn every_key_can_be_set_by_its_variable() {
    fn walk(table: &toml::Table, path: &[&str], seen: &mut usize) {
        for (key, default) in table {
            let path = [path, &[key.as_str()]].concat();
            if let toml::Value::Table(inner) = default {
                walk(inner, &path, seen);
                continue;
            }
            let value = match default {
                toml::Value::Integer(_) => "7",
                toml::Value::Boolean(_) => "true",
                _ if key == "log_format" => "json",
                _ => "other",
            };
            let name = format!("GJALLAR_{}", path.join("_").to_uppercase());
            let config = with("", &[(&name, value)]).unwrap();
            let mut set = toml::Value::Table(toml::Table::try_from(config).unwrap());
            for part in &path {
                set = set.get(part).unwrap().clone();
            }
            let expected: toml::Value = match default {
                toml::Value::Integer(_) => 7.into(),
                toml::Value::Boolean(_) => true.into(),
                toml::Value::Array(_) => vec![value].into(),
                _ => value.into(),
            };
            assert_eq!(set, expected, "{name}");
            *seen += 1;
        }
    }
    let mut seen = 0;
    walk(&toml::Table::try_from(Config::default()).unwrap(), &[], &mut seen);
    assert_eq!(seen, 45);
}

#[test]
fn unknown_keys_and_wrong_values_are_refused() {
    assert!(with("jdi = 'x'", &[]).unwrap_err().contains("jdi"));
    assert!(with("", &[("GJALLAR_SERVR", "x")]).unwrap_err().contains("GJALLAR_SERVR"));
    let number = with("", &[("GJALLAR_LIMITS_MAX_ITEMS", "many")]).unwrap_err();
    assert!(number.contains("GJALLAR_LIMITS_MAX_ITEMS: must be a number"), "{number}");
}

#[test]
fn default_limit_of_replies_follows_other_limits() {
    for (text, max_reply_bytes) in [
        ("", 500_000),
        ("[link]\nmax_stanza_bytes = 500000", 480_000),
        ("[limits]\nmax_node_bytes = 262144", 262_144),
        ("[limits]\nmax_reply_bytes = 200000", 200_000),
    ] {
        let config = with(&format!("jid = 'a.example'\nsecret = 's'\n{text}"), &[]).unwrap();
        config.check().unwrap();
        assert_eq!(config.limits.max_reply_bytes, max_reply_bytes, "{text}");
    }
    let policy = "[[policies]]\nnodes = 'status/*'\nlimits = { max_node_bytes = 300000 }";
    let config = with(&format!("jid = 'a.example'\n{policy}"), &[]).unwrap();
    let policies = config.policies().unwrap();
    assert_eq!(
        policies
            .for_node(&gjallar_pubsub::NodeId::parse("status/a").unwrap())
            .limits
            .max_reply_bytes,
        300_000
    );
    let text = "jid = 'a.example'\nsecret = 's'\nserver = 'localhost:5347'\n";
    let both = "[limits]\nmax_reply_bytes = 300000\nmax_node_bytes = 200000";
    let error = with(&format!("{text}{both}"), &[]).unwrap().check().unwrap_err();
    assert!(error.to_string().contains("limits.max_node_bytes"), "{error}");
}

#[test]
fn creators_are_by_default_the_users_of_the_server() {
    let domains = |name: &str| Creators::Domains(vec![name.to_owned()]);
    assert_eq!(creators("pubsub.example.org", &["server"]), domains("example.org"));
    assert_eq!(creators("pubsub.localhost", &["server"]), domains("localhost"));
    assert_eq!(creators("pubsub.net", &["server"]), Creators::Administrators);
    assert_eq!(creators("pubsub.net", &["admins"]), Creators::Administrators);
    assert_eq!(creators("pubsub.net", &["anyone"]), Creators::Anyone);
    assert_eq!(creators("pubsub.net", &["net"]), domains("net"));
}

#[test]
fn errors_disclose_no_content_of_the_file() {
    for text in [
        "jid = 'x'\nsecret = hunter2",
        "secret = 12345678",
        "secret = 'hunter2",
        "secret = ['hunter2']",
    ] {
        let error = with(text, &[]).unwrap_err();
        assert!(!error.contains("hunter2") && !error.contains("12345678"), "{error}");
    }
    let error = with("jid = 'x'\nlog = 5", &[]).unwrap_err();
    assert!(error.contains("expected a string") && error.contains("in `log`"), "{error}");
    for (text, variable) in [
        ("link.allow_plain_tcp = 'a, expected hunter2'", ("GJALLAR_LOG", "x")),
        ("log_format = 'hunter2'", ("GJALLAR_LOG", "x")),
        ("", ("GJALLAR_LOG_FORMAT", "hunter2")),
        ("", ("GJALLAR_LIMITS_MAX_NODES", "hunter2")),
    ] {
        let error = with(text, &[variable]).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert!(with("a = 1\n\n\nb = = 2", &[]).unwrap_err().starts_with("line 4: "));
}

#[test]
fn debug_output_does_not_disclose_the_secret() {
    let config = with("secret = 'hunter2'", &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn policies_of_the_documentation_are_parsed() {
    let page = include_str!("../../docs/CONFIGURATION.md");
    let shown = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let shipped = include_str!("../../config/gjallar.toml");
    let (_, commented) = shipped.split_once("# [[policies]]").unwrap();
    let commented = format!("[[policies]]{}", commented.replace("\n# ", "\n"));
    for text in [shown, &commented] {
        let text = format!("jid = 'pubsub.example.org'\n{text}");
        let policies = with(&text, &[]).unwrap().policies().unwrap();
        let news = policies.for_node(&gjallar_pubsub::NodeId::parse("news/1").unwrap());
        assert_eq!(news.creators, Creators::Administrators);
        assert!(news.instant_nodes && !news.auto_create);
        assert_eq!((news.default.len(), news.forced.len()), (2, 1));
        assert_eq!((news.limits.max_items, news.limits.max_subscriptions), (100, 5000));
    }
}

#[test]
fn contradictory_policy_is_refused() {
    for (policy, expected) in [
        ("creators = ['a@b']", "is not a domain"),
        ("forced = { colour = 'red' }", "pubsub#colour: unknown field"),
        ("default = { access_model = 'ajar' }", "pubsub#access_model"),
        ("default = { max_items = 6 }\nlimits = { max_items = 5 }", "pubsub#max_items"),
        ("limits = { max_payload_bytes = 1000000000 }", "limits.max_payload_bytes"),
    ] {
        let text = format!("jid = 'pubsub.example.org'\n[[policies]]\nnodes = 'x'\n{policy}");
        let error = with(&text, &[]).unwrap().policies().unwrap_err().to_string();
        assert!(error.starts_with("policies: \"x\": ") && error.contains(expected), "{error}");
    }
    for unknown in [
        "node = 'x'",
        "nodes = 'x'\nlimits = { max_batch = 1 }",
        "nodes = 'x'\ndefault = { a = 1.5 }",
    ] {
        let error = with(&format!("[[policies]]\n{unknown}"), &[]).unwrap_err();
        assert!(error.contains("unknown field") || error.contains("a text, a number"), "{error}");
    }
}
