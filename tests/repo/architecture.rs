//! What keeps the code as it is meant: who may know whom, file lengths, module heads, documents.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Module, what it may use of the crate, and what it alone may name outside.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("pubsub", &["pubsub"], &["sha2", "thiserror"]),
    ("store", &["store", "pubsub"], &["sled", "postcard", "crc32c", "sha2", "serde"]),
    ("service", &["service", "pubsub", "store"], &["prometheus_client", "wildmatch"]),
    ("wire", &["wire", "pubsub"], &["memchr", "xmpp_parsers", "chrono", "quick_xml", "rxml"]),
    ("archive", &["archive", "pubsub", "store", "wire"], &["serde", "serde_json"]),
    (
        "foreign",
        &["foreign", "archive", "pubsub", "store", "wire"],
        &["rusqlite", "serde_json", "tokio_postgres"],
    ),
    ("command", &["command", "pubsub", "service", "wire"], &["xmpp_parsers"]),
    (
        "component",
        &["component", "pubsub", "service", "wire", "command"],
        &["memchr", "quick_xml", "rxml", "sha1", "tokio_rustls"],
    ),
    ("cli", &[], &["clap", "serde_json"]),
    ("client", &["client", "pubsub", "wire"], &["tokio_xmpp", "xmpp_parsers"]),
    ("control", &["control", "pubsub", "service", "wire"], &["serde", "serde_json"]),
    (
        "process",
        &[
            "process",
            "archive",
            "component",
            "control",
            "foreign",
            "pubsub",
            "service",
            "store",
            "wire",
        ],
        &["axum", "toml", "serde", "tracing_subscriber"],
    ),
];

/// Crates that only some modules may name.
const HEAVY: &[&str] = &[
    "axum",
    "sled",
    "postcard",
    "prometheus_client",
    "rusqlite",
    "tokio_postgres",
    "crc32c",
    "sha2",
    "serde",
    "serde_json",
    "xmpp_parsers",
    "chrono",
    "memchr",
    "quick_xml",
    "rxml",
    "sha1",
    "tokio_rustls",
    "toml",
    "tracing_subscriber",
    "wildmatch",
    "clap",
    "tokio_xmpp",
];

const MAX_LINES: usize = 1000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|e| e == ending) {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found.sort();
    found
}

/// Whether code names a crate: at the beginning of a path.
fn names(text: &str, name: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter().any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let before = line[..at].trim_end_matches("::");
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let begins = !before.ends_with(is_word);
            begins && line[at + name.len()..].starts_with("::")
        })
    })
}

/// The modules of the crate that a file uses, in whatever form the `use` is written.
fn used(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut modules = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut word, mut fresh) = (1, String::new(), true);
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 1 => break,
                    '}' => depth -= 1,
                    ',' if depth == 1 => fresh = true,
                    ':' if depth == 1 && fresh => {
                        modules.push(std::mem::take(&mut word));
                        fresh = false;
                    }
                    c if depth == 1 && fresh && !c.is_whitespace() => word.push(c),
                    _ => {}
                }
                if c == ',' && depth == 1 {
                    word.clear();
                }
            }
        } else {
            modules.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    modules
}

#[test]
fn modules_know_only_whom_they_may() {
    for (module, allowed, _) in ARROWS {
        for (path, text) in files(&root().join("src").join(module), "rs") {
            // Tests may put together more.
            if path.ends_with("tests.rs") {
                continue;
            }
            let (code, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
            for used in used(code) {
                assert!(allowed.contains(&used.as_str()), "{}: crate::{used}", path.display());
            }
        }
    }
}

#[test]
fn the_check_of_arrows_sees_every_form_of_use() {
    assert_eq!(used("use crate::a::B;\nlet x = crate::c::d();"), ["a", "c"]);
    assert_eq!(used("use crate::{\n a::{B, c::D},\n e::F,\n};"), ["a", "e"]);
    assert!(names("use sled::Tree;", "sled") && names("x: sled::Error", "sled"));
    assert!(names("let db = ::sled::open();", "sled"));
    assert!(!names("// sled::Tree", "sled") && !names("super::sled::x", "sled"));
}

#[test]
fn heavy_crates_are_named_where_they_belong() {
    for (module, _, external) in ARROWS {
        for (path, text) in files(&root().join("src").join(module), "rs") {
            for heavy in HEAVY.iter().filter(|heavy| !external.contains(heavy)) {
                assert!(!names(&text, heavy), "{} names {heavy}", path.display());
            }
        }
    }
}

#[test]
fn the_rules_and_the_wire_are_pure() {
    for folder in ["pubsub", "wire"] {
        for (path, text) in files(&root().join("src").join(folder), "rs") {
            for word in
                ["async ", ".await", "tracing::", "std::time", "std::env", "std::fs", "Mutex"]
            {
                assert!(!text.contains(word), "{}: {word}", path.display());
            }
        }
    }
}

#[test]
fn files_are_small_and_say_what_they_are_for() {
    for folder in ["src", "tests", "examples"] {
        for (path, text) in files(&root().join(folder), "rs") {
            let head = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
            assert!(head.starts_with("//! "), "{}: no head", path.display());
            let lines = text.lines().count();
            let limit = if folder == "src" { MAX_LINES } else { 2 * MAX_LINES };
            assert!(lines <= limit, "{}: {lines} lines", path.display());
        }
    }
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let document = fs::read_to_string(root().join("docs/CONFIGURATION.md")).unwrap();
    let shipped = fs::read_to_string(root().join("config/gjallar.toml")).unwrap();
    let table: toml::Table = shipped.parse().unwrap();
    for (key, value) in &table {
        let keys: Vec<String> = match value.as_table() {
            Some(inner) => inner.keys().map(|name| format!("{key}.{name}")).collect(),
            None => vec![key.clone()],
        };
        for key in keys {
            let variable = format!("GJALLAR_{}", key.replace('.', "_").to_uppercase());
            assert!(document.contains(&format!("`{key}`")), "{key}");
            assert!(document.contains(&format!("`{variable}`")), "{variable}");
        }
    }
}

/// The tests of this binary, by their full names.
fn tests() -> BTreeSet<String> {
    let list = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(|name| format!("it::{name}")).collect()
}

/// A document that names a test or a file names one that is there.
#[test]
fn documents_name_what_is_there() {
    let tests = tests();
    assert!(tests.contains("it::repo::architecture::documents_name_what_is_there"));
    let mut named = 0;
    for (path, text) in files(&root().join("docs"), "md") {
        let name = path.display();
        for quoted in text.split('`').skip(1).step_by(2) {
            if quoted.starts_with("it::") {
                named += 1;
                let is_of_it = |test: &String| test.starts_with(&format!("{quoted}::"));
                let is_module = tests.iter().any(is_of_it);
                assert!(is_module || tests.contains(quoted), "{name}: {quoted}");
            }
            let is_path =
                quoted.contains('/') && !quoted.contains([' ', ':', '<', '*', '{', '$', '~']);
            if is_path
                && ["src/", "tests/", "docs/", "config/", "examples/"]
                    .iter()
                    .any(|f| quoted.starts_with(f))
            {
                assert!(root().join(quoted).exists(), "{name}: {quoted}");
            }
        }
    }
    assert!(named > 100, "{named}");
}

/// The last text among the arguments of each call of this name: that of a line of the log.
fn messages(text: &str, call: &str) -> Vec<String> {
    let of_call = |at: usize| {
        let (mut depth, mut pieces) = (1, text[at + call.len()..].split('"'));
        let mut last = String::new();
        while depth > 0 {
            for c in pieces.next()?.chars() {
                depth += match c {
                    _ if depth == 0 => 0,
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
            }
            if depth > 0 {
                last = pieces.next()?.to_owned();
            }
        }
        Some(last)
    };
    text.match_indices(call).filter_map(|(at, _)| of_call(at)).collect()
}

#[test]
fn every_warning_is_explained() {
    let document = fs::read_to_string(root().join("docs/OPERATING.md")).unwrap();
    let mut found = 0;
    for (path, text) in files(&root().join("src"), "rs") {
        for message in [messages(&text, "warn!("), messages(&text, "error!(")].concat() {
            found += 1;
            assert!(document.contains(&format!("`{message}`")), "{}: {message}", path.display());
        }
    }
    assert!(found > 20, "{found}");
}

/// Every XEP that the code names is in the description of the project, and no other.
#[test]
fn the_description_of_the_project_has_every_xep() {
    let mut named = BTreeSet::new();
    for (_, text) in files(&root().join("src"), "rs") {
        named.extend(text.match_indices("XEP-").map(|(at, _)| text[at + 4..at + 8].to_owned()));
    }
    // That of accounts.
    named.remove("0376");
    let document = fs::read_to_string(root().join("docs/doap.xml")).unwrap();
    let described = document.split("extensions/xep-").skip(1).map(|rest| rest[..4].to_owned());
    assert_eq!(described.collect::<BTreeSet<_>>(), named);
}

#[test]
fn every_dependency_is_explained() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let document = fs::read_to_string(root().join("docs/DEVELOPING.md")).unwrap();
    for table in ["dependencies", "dev-dependencies"] {
        for name in manifest[table].as_table().unwrap().keys() {
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }
}
