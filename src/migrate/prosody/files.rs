//! Reader for Prosody's file storage (mod_storage_internal): a Lua table for each node, and a list of items beside it.

use std::{fmt::Write, fs, io, path::PathBuf};

use async_trait::async_trait;

use crate::{
    migrate::{
        MigrationError, MigrationWarnings, SourceReader, nodes_of,
        source_node::{SourceItem, SourceNode},
    },
    xmpp::{stanza::ns, xml::writer},
};

use super::{
    lua::{self, LuaValue},
    node::{NO_ITEMS, by_age, node, seconds, take_items},
};

pub(crate) struct ProsodyFileReader {
    data: PathBuf,
    host: PathBuf,
    service: String,
}

impl ProsodyFileReader {
    pub(crate) fn new(data: PathBuf, service: &str) -> Self {
        Self { host: data.join(encoded(service, "")), data, service: service.to_owned() }
    }

    /// Returns `true` if at least one node has its items in a file.
    fn has_items(&self) -> bool {
        let files = fs::read_dir(&self.host).into_iter().flatten().flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        names.into_iter().any(|name| name.starts_with("pubsub_") && name.ends_with(".list"))
    }

    /// Returns the services that have nodes in the folder.
    fn others(&self) -> Vec<String> {
        let hosts = fs::read_dir(&self.data).into_iter().flatten().flatten();
        let with_nodes = hosts.filter(|host| host.path().join("pubsub_nodes").is_dir());
        with_nodes.filter_map(|host| decoded(host.file_name().to_str()?)).collect()
    }
}

#[async_trait(?Send)]
impl SourceReader for ProsodyFileReader {
    async fn nodes(
        &mut self,
        warnings: &mut MigrationWarnings,
    ) -> Result<Vec<String>, MigrationError> {
        let folder = self.host.join("pubsub_nodes");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let others = self.others().into_iter().map(|host| (host, String::new())).collect();
                nodes_of(&self.service, others)?;
                return Err(MigrationError::Source("the folder has no nodes of Prosody"));
            }
            entries => entries.map_err(|error| failed(&folder, error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(|error| failed(&folder, error))?.file_name();
            let file = file.to_string_lossy();
            let Some(name) = file.strip_suffix(".dat") else { continue };
            match decoded(name).filter(|decoded| encoded(decoded, "") == name) {
                Some(name) => names.push(name),
                None => warnings.add("a file whose name is not one of Prosody", file),
            }
        }
        if !self.has_items() {
            warnings.add(NO_ITEMS, self.host.display().to_string());
        }
        by_age(self, names).await
    }

    async fn node(
        &mut self,
        name: &str,
        warnings: &mut MigrationWarnings,
    ) -> Result<Option<SourceNode>, MigrationError> {
        let path = self.host.join("pubsub_nodes").join(format!("{}.dat", encoded(name, "")));
        let file = fs::read(&path).map_err(|error| failed(&path, error))?;
        let Some(table) = lua::returned(&file) else {
            warnings.add("a node that cannot be read", name);
            return Ok(None);
        };
        let part = |name| table.get(name).unwrap_or(&LuaValue::Nil);
        let mut found = node(name, part("config"), part("affiliations"), part("subscribers"));
        let path = self.host.join(format!("{}.list", encoded(&format!("pubsub_{name}"), "_")));
        let items = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
            file => lua::listed(&file.map_err(|error| failed(&path, error))?),
        };
        match items {
            Some(items) => take_items(&mut found, items.iter().map(item), warnings),
            None => warnings.add("a node whose items cannot be read", name),
        }
        Ok(Some(found))
    }
}

fn failed(path: &std::path::Path, source: io::Error) -> MigrationError {
    MigrationError::File { path: path.display().to_string(), source }
}

/// Encodes a name as Prosody does in file names: letters, digits and the characters of `also` stay, every other byte is
/// written in hexadecimal.
fn encoded(name: &str, also: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || also.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02x}");
        }
    }
    encoded
}

fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let mut byte = *byte;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            rest = after;
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

/// Reads an item: a table with the payload, and with the keys `key` (id), `when` (time) and `with` (publisher).
fn item(value: &LuaValue) -> Option<SourceItem> {
    let modified = seconds(&value.get("when")?.text()?)?;
    let mut payload = String::new();
    element(value, &mut payload)?;
    Some(SourceItem {
        id: value.get("key")?.text()?,
        publisher: value.get("with").and_then(LuaValue::text),
        created: modified,
        modified,
        payload: Some(payload),
    })
}

/// Attributes that Prosody adds to stored elements; only older versions add the second attribute.
const STAMPS: [&str; 2] = ["stamp", "stamp_legacy"];

/// Writes an element as XML. The key of an attribute with a namespace is the namespace, the character U+0001 and the
/// name.
fn element(value: &LuaValue, out: &mut String) -> Option<()> {
    let name = value.get("name")?.text()?;
    let _ = write!(out, "<{name}");
    for (nth, (key, attribute)) in
        value.get("attr").into_iter().flat_map(LuaValue::entries).enumerate()
    {
        let attribute = attribute.text()?;
        match key.split_once('\u{1}') {
            // Time of the publication, which Prosody adds to the outermost element.
            None if STAMPS.contains(&key.as_str()) && value.get("when").is_some() => {}
            None => writer::write_attribute(&key, &attribute, out),
            Some((ns::XML, name)) => {
                writer::write_attribute(&format!("xml:{name}"), &attribute, out)
            }
            Some((namespace, name)) => {
                writer::write_attribute(&format!("xmlns:ns{nth}"), namespace, out);
                writer::write_attribute(&format!("ns{nth}:{name}"), &attribute, out);
            }
        }
    }
    out.push('>');
    for child in value.list() {
        match child {
            LuaValue::Text(text) => writer::escape_text(text, out),
            child => element(child, out)?,
        }
    }
    let _ = write!(out, "</{name}>");
    Some(())
}

#[cfg(test)]
mod tests {
    use gjallar_pubsub::Timestamp;

    use super::*;

    #[test]
    fn names_of_files_are_decoded() {
        for (name, written) in [("pubsub.x", "pubsub%2ex"), ("a/b_c", "a%2fb%5fc"), ("ä", "%c3%a4")]
        {
            assert_eq!(encoded(name, ""), written);
            assert_eq!(decoded(written).as_deref(), Some(name));
        }
        assert_eq!(encoded("pubsub_a.b", "_"), "pubsub_a%2eb");
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_element_is_written_with_its_namespaces() {
        let list = b"item({ [\"name\"] = \"a\"; [\"key\"] = \"1\"; [\"when\"] = 12; [\"with\"] = \"u@x\"; \
            [\"attr\"] = { [\"xmlns\"] = \"urn:a\"; [\"stamp\"] = \"2024\"; [\"stamp_legacy\"] = \"2024\"; \
            [\"http://www.w3.org/XML/1998/namespace\\1lang\"] = \"en\"; [\"urn:b\\1c\"] = \"<'>\" }; \
            \"t & t\"; { [\"name\"] = \"d\"; [\"attr\"] = {} } });";
        let items = lua::listed(list).unwrap();
        let found = item(&items[0]).unwrap();
        let payload = found.payload.unwrap();
        assert_eq!(
            crate::xmpp::stanza::payload::parse(&payload).unwrap().xml(),
            "<a xmlns='urn:a' xmlns:ns4='urn:b' xml:lang='en' ns4:c='&lt;&#39;&gt;'>t &amp; t<d/></a>"
        );
        assert_eq!((found.id.as_str(), found.modified), ("1", Timestamp(12_000)));
        assert_eq!(found.publisher.as_deref(), Some("u@x"));
    }
}
