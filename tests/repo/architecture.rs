//! Architecture: allowed dependencies between modules and on crates, and module comments.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Module, the modules of the crate that it may use, and the crates of [`HEAVY`] that it may name.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("store", &["store"], &["sled", "postcard", "crc32c", "sha2", "serde"]),
    ("service", &["service", "store"], &["prometheus_client", "wildmatch"]),
    (
        "xmpp::stanza",
        &["xmpp::stanza", "xmpp::xml"],
        &["chrono", "memchr", "quick_xml", "rxml", "xmpp_parsers"],
    ),
    (
        "xmpp::xml",
        &["xmpp::stanza::envelope", "xmpp::stanza::ns", "xmpp::xml"],
        &["memchr", "quick_xml", "rxml"],
    ),
    (
        "xmpp",
        &["xmpp", "service"],
        &["chrono", "memchr", "quick_xml", "rxml", "sha1", "tokio_rustls", "xmpp_parsers"],
    ),
    ("admin", &["admin", "service", "xmpp::stanza"], &["serde", "serde_json"]),
    (
        "migrate",
        &["migrate", "store", "xmpp::stanza", "xmpp::xml"],
        &["rusqlite", "serde", "serde_json", "tokio_postgres"],
    ),
    ("http", &["http", "service"], &["axum"]),
    ("config", &["config", "runtime::logging", "service", "store", "xmpp"], &["serde", "toml"]),
    (
        "runtime",
        &["admin", "config", "http", "migrate", "runtime", "service", "store", "xmpp"],
        &["serde", "tracing_subscriber"],
    ),
    ("client", &["client", "xmpp::stanza", "xmpp::xml"], &["tokio_xmpp", "xmpp_parsers"]),
    ("cli", &["cli"], &["clap", "serde_json"]),
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

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
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

/// Returns `true` if code names a crate at the beginning of a path.
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

/// Returns the files of a module.
fn files_of(module: &str) -> Vec<(PathBuf, String)> {
    let mut found = files(&root().join("src").join(module.replace("::", "/")), "rs");
    // A nested module with an entry in [`ARROWS`] has its own rule.
    found.retain(|(path, _)| {
        let inner = ARROWS.iter().filter(|(other, ..)| other.starts_with(&format!("{module}::")));
        inner
            .map(|(other, ..)| root().join("src").join(other.replace("::", "/")))
            .all(|inner| !path.starts_with(inner))
    });
    found
}

/// Returns the module path of a file.
fn module_of(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut module: Vec<String> =
        inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// Parses a `use` tree or a path, and collects its paths.
fn paths(text: &mut &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    *text = text.trim_start();
    if let Some(rest) = text.strip_prefix('{') {
        *text = rest;
        loop {
            *text = text.trim_start_matches([',', ' ', '\n']);
            if let Some(rest) = text.strip_prefix('}') {
                *text = rest;
                return;
            }
            let before = text.len();
            paths(text, prefix, found);
            if text.len() == before {
                return;
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let mut path = prefix.to_vec();
    match word {
        "super" => drop(path.pop()),
        "self" => {}
        _ => path.push(word.to_owned()),
    }
    *text = rest.strip_prefix("::").unwrap_or(rest);
    if text.len() < rest.len() && !text.starts_with(['*', '<', '$']) {
        return paths(text, &path, found);
    }
    found.push(path);
    let alias = text.trim_start().strip_prefix("as ");
    *text = alias
        .map_or(*text, |alias| alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'));
}

/// Returns the paths inside the crate that a file of a module names.
fn used(module: &[String], text: &str) -> Vec<Vec<String>> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    // `pub(in crate::…)` is not a dependency.
    let code = code.replace("(in crate::", "(");
    let (mut found, mut rest) = (Vec::new(), code.as_str());
    while let Some(at) =
        ["crate::", "super::"].into_iter().filter_map(|start| rest.find(start)).min()
    {
        // Skips paths of other crates, as in `name_of_crate::x`.
        let is_word = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (start, tail) = rest[at..].split_at("crate::".len());
        rest = tail;
        let base = if start == "super::" { &module[..module.len() - 1] } else { &[] };
        if !is_word {
            paths(&mut rest, base, &mut found);
        }
    }
    found
}

#[test]
fn modules_use_only_allowed_modules() {
    for (module, allowed, _) in ARROWS {
        let files = files_of(module);
        assert!(!files.is_empty(), "{module}");
        for (path, text) in files {
            // Unit tests may combine more modules.
            if path.ends_with("tests.rs") {
                continue;
            }
            let (code, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
            for used in used(&module_of(&path), code) {
                let used = used.join("::");
                let is_in =
                    |module: &str| used == *module || used.starts_with(&format!("{module}::"));
                assert!(
                    allowed.iter().any(|module| is_in(module)),
                    "{}: crate::{used}",
                    path.display()
                );
            }
        }
    }
}

/// The rules have no dependency that waits, logs, stores, or parses XML.
#[test]
fn the_rules_depend_on_few_crates() {
    let manifest = fs::read_to_string(root().join("crates/pubsub/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let names: Vec<_> = manifest["dependencies"].as_table().unwrap().keys().collect();
    assert_eq!(names, ["jid", "sha2", "thiserror"]);
}

#[test]
fn dependency_check_finds_every_form_of_use() {
    let module = ["a".to_owned(), "b".to_owned()];
    let used =
        |text| used(&module, text).into_iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(used("use crate::a::B;\nlet x = crate::c::d();"), ["a::B", "c::d"]);
    assert_eq!(used("use crate::{\n a::{B, c::D as E},\n e::F,\n};"), ["a::B", "a::c::D", "e::F"]);
    assert_eq!(
        used("use super::{self, c, super::d::E};\nx: super::super::f"),
        ["a", "a::c", "d::E", "f"]
    );
    assert!(names("use sled::Tree;", "sled") && names("x: sled::Error", "sled"));
    assert!(names("let db = ::sled::open();", "sled"));
    assert!(!names("// sled::Tree", "sled") && !names("super::sled::x", "sled"));
}

#[test]
fn heavy_crates_are_used_only_in_allowed_modules() {
    for (module, _, external) in ARROWS {
        for (path, text) in files_of(module) {
            for heavy in HEAVY.iter().filter(|heavy| !external.contains(heavy)) {
                assert!(!names(&text, heavy), "{} names {heavy}", path.display());
            }
        }
    }
}

/// Only operations and the importer construct commits; unit tests of the stores may do so too.
#[test]
fn commits_are_made_by_operations_and_by_the_importer() {
    let makes_commits = |(path, text): &(PathBuf, String)| {
        let (code, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
        code.contains("= Commit {").then(|| path.strip_prefix(root().join("src")).unwrap().into())
    };
    let found: Vec<PathBuf> =
        files(&root().join("src"), "rs").iter().filter_map(makes_commits).collect();
    assert_eq!(found, ["migrate/node_importer.rs", "service/execute.rs"].map(PathBuf::from));
}

#[test]
fn stanza_modules_have_only_pure_functions() {
    for (path, text) in files_of("xmpp::stanza") {
        for word in ["async ", ".await", "tracing::", "std::time", "std::env", "std::fs", "Mutex"] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn every_file_begins_with_a_module_comment() {
    for folder in ["src", "crates", "tests", "examples"] {
        for (path, text) in files(&root().join(folder), "rs") {
            let head = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
            assert!(head.starts_with("//! ") && head != "//! TODO.", "{}: no head", path.display());
        }
    }
}
