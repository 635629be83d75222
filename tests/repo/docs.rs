//! Documents: their required content, and the existence of everything that they name.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use super::architecture::{files, root};

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

/// Returns the tests of this binary by full name.
pub fn tests() -> BTreeSet<String> {
    let list = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(|name| format!("it::{name}")).collect()
}

/// Tests and files that a document names exist.
#[test]
fn documents_name_existing_tests_and_files() {
    let tests = tests();
    assert!(tests.contains("it::repo::docs::documents_name_existing_tests_and_files"));
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
                && ["src/", "tests/", "docs/", "config/", "crates/", "examples/"]
                    .iter()
                    .any(|f| quoted.starts_with(f))
            {
                assert!(root().join(quoted).exists(), "{name}: {quoted}");
            }
        }
    }
    assert!(named > 100, "{named}");
}

/// Returns the anchors of a document: its headings, as GitHub names them, and its ids.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let outside_code = |line: &&str| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code && line.starts_with('#')
    };
    let named = |heading: &str| {
        let name = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        name.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    let headings = text.lines().filter(outside_code).map(named);
    let ids = text.split("<a id=\"").skip(1);
    headings.chain(ids.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))).collect()
}

#[test]
fn links_of_documents_lead_to_files_and_anchors() {
    let mut documents = files(&root().join("docs"), "md");
    for name in ["README.md", "CHANGELOG.md", "SECURITY.md"] {
        let path = root().join(name);
        let text = fs::read_to_string(&path).unwrap();
        documents.push((path, text));
    }
    let mut found = 0;
    for (path, text) in documents {
        let name = path.display();
        let links = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{name}: {link}");
            if !anchor.is_empty() {
                found += 1;
                let text = fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).contains(anchor), "{name}: {link}");
            }
        }
    }
    assert!(found > 20, "{found}");
}

/// Returns the field `event` of each call of a log macro, `None` for calls without the field.
fn events<'a>(text: &'a str, call: &str) -> Vec<Option<&'a str>> {
    let calls = text.match_indices(call).map(|(at, _)| &text[at + call.len()..]);
    let of_call = |call: &'a str| {
        let arguments = call.trim_start();
        // The target is the only argument that can precede the field.
        let arguments = match arguments.strip_prefix("target: ") {
            Some(rest) => rest.split_once(',')?.1.trim_start(),
            None => arguments,
        };
        let (event, _) = arguments.strip_prefix("event = \"")?.split_once('"')?;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        Some(event).filter(|event| !event.is_empty() && event.chars().all(is_name))
    };
    calls.map(of_call).collect()
}

/// Returns the source files of the program and of the rules.
fn sources() -> Vec<(PathBuf, String)> {
    ["src", "crates"].map(|folder| files(&root().join(folder), "rs")).concat()
}

#[test]
fn every_line_of_the_log_has_an_event() {
    let mut found = 0;
    for (path, text) in sources() {
        for call in ["info!(", "warn!(", "error!("] {
            for event in events(&text, call) {
                found += 1;
                assert!(event.is_some(), "{}: {call} without a field `event`", path.display());
            }
        }
    }
    assert!(found > 40, "{found}");
}

#[test]
fn event_check_finds_every_call() {
    let text = "warn!(event = \"a_b\", %error, \"c\"); warn!(\n    event = \"d\",\n    \"e\"\n)";
    assert_eq!(events(text, "warn!("), [Some("a_b"), Some("d")]);
    let of_target = "info!(target: \"t::u\", event = \"a\", \"b\");";
    assert_eq!(events(of_target, "info!("), [Some("a")]);
    for other in ["warn!(\"a\")", "warn!(event, \"a\")", "warn!(event = \"No name\", \"a\")"] {
        assert_eq!(events(other, "warn!("), [None], "{other}");
    }
}

/// The table of warnings and errors has exactly the events of the code.
#[test]
fn every_warning_is_explained() {
    let document = fs::read_to_string(root().join("docs/TROUBLESHOOTING.md")).unwrap();
    let (_, table) = document.split_once("| event | ").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows = table.lines().skip(2);
    let explained = rows.flat_map(|row| {
        let cell = row.trim_start_matches("| ").split(" | ").next().unwrap();
        cell.split(", ").map(|event| event.trim_matches('`').to_owned())
    });
    let sources = sources();
    let logged = sources.iter().flat_map(|(_, text)| {
        let calls = ["warn!(", "error!("].map(|call| events(text, call));
        calls.into_iter().flatten().flatten().map(ToOwned::to_owned)
    });
    assert_eq!(explained.collect::<BTreeSet<_>>(), logged.collect::<BTreeSet<_>>());
}

/// The description of the project lists exactly the XEPs that the code names.
#[test]
fn doap_has_exactly_the_xeps_in_the_code() {
    let mut named = BTreeSet::new();
    for (_, text) in sources() {
        named.extend(text.match_indices("XEP-").map(|(at, _)| text[at + 4..at + 8].to_owned()));
    }
    // XEP-0376 is for accounts.
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
