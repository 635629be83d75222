//! How the configuration is read and understood.

use super::{Config, LogFormat};
use crate::service::Creators;

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Config::from_parts(text, variables)
}

fn creators(jid: &str, creators: &[&str]) -> Creators {
    let creators = creators.iter().map(|creator| (*creator).to_owned()).collect();
    Config { jid: jid.into(), creators, ..Config::default() }.actors().unwrap().creators
}

#[test]
fn the_file_that_is_shipped_says_what_holds_without_it() {
    let shipped = include_str!("../../config/gjallar.toml");
    assert_eq!(with(shipped, &[]).unwrap(), Config::default());
}

#[test]
fn every_key_has_a_variable_that_outweighs_the_file() {
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

/// Sets every key by its variable, one by one, to a value that is not the default.
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
    assert_eq!(seen, 39);
}

#[test]
fn what_is_not_known_is_said() {
    assert!(with("jdi = 'x'", &[]).unwrap_err().contains("jdi"));
    assert!(with("", &[("GJALLAR_SERVR", "x")]).unwrap_err().contains("GJALLAR_SERVR"));
    let number = with("", &[("GJALLAR_LIMITS_MAX_ITEMS", "many")]).unwrap_err();
    assert!(number.contains("GJALLAR_LIMITS_MAX_ITEMS: not a number"), "{number}");
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
fn no_error_shows_what_stands_in_the_file() {
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
fn no_debug_output_shows_the_secret() {
    let config = with("secret = 'hunter2'", &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}
