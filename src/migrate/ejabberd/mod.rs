//! Reader for ejabberd's mod_pubsub with `db_type: sql`: the tables `pubsub_*` of its schema.

pub(super) mod erlang_terms;
use async_trait::async_trait;

use gjallar_pubsub::Timestamp;

use super::{
    MigrationError, MigrationWarnings, SourceReader,
    database::{Database, TextRow, pair},
    nodes_of,
    source_node::{SourceItem, SourceNode, SourceSubscription, fields},
};

/// Defaults of options that a node does not set: those of the plugin `flat`.
const DEFAULTS: &[(&str, &str)] = &[
    ("pubsub#access_model", "open"),
    ("pubsub#publish_model", "publishers"),
    ("pubsub#deliver_notifications", "true"),
    ("pubsub#deliver_payloads", "true"),
    ("pubsub#notify_config", "false"),
    ("pubsub#notify_delete", "false"),
    ("pubsub#notify_retract", "true"),
    ("pubsub#notification_type", "headline"),
    ("pubsub#persist_items", "true"),
    ("pubsub#max_items", "10"),
    ("pubsub#purge_offline", "false"),
    ("pubsub#presence_based_delivery", "false"),
    ("pubsub#send_last_published_item", "on_sub_and_presence"),
    ("pubsub#itemreply", "none"),
];

pub(super) struct EjabberdReader {
    database: Database,
    service: String,
    has_options: bool,
}

impl EjabberdReader {
    pub(super) fn new(database: Database, service: String) -> Self {
        Self { database, service, has_options: true }
    }

    async fn config(
        &self,
        node: &[&str],
        plugin: &str,
    ) -> Result<Vec<(String, String)>, MigrationError> {
        let mut config = fields(DEFAULTS);
        if plugin == "pep" {
            config.extend(fields(&[("pubsub#access_model", "presence")]));
        }
        let sql = "SELECT name, val FROM pubsub_node_option WHERE nodeid = CAST(CAST($1 AS TEXT) AS BIGINT) ORDER BY name";
        for (option, term) in self.database.rows(sql, node).await?.into_iter().filter_map(pair) {
            match (option.as_str(), term.as_str()) {
                // Options about the storage in ejabberd, and options without a value.
                ("rsm" | "sql", _) | (_, "undefined") => {}
                ("max_items", "infinity") => config.extend(fields(&[("pubsub#max_items", "max")])),
                // Unknown values are passed on unchanged, so that the conversion reports them.
                (_, term) => {
                    let value = erlang_terms::text(term).unwrap_or_else(|| term.to_owned());
                    config.push((format!("pubsub#{option}"), value));
                }
            }
        }
        Ok(config)
    }

    /// Reads the options of a subscription.
    async fn options(&self, subid: &str) -> Result<Vec<(String, String)>, MigrationError> {
        if !self.has_options {
            return Ok(Vec::new());
        }
        let sql = "SELECT opt_name, opt_value FROM pubsub_subscription_opt WHERE subid = $1 ORDER BY opt_name";
        let rows = self.database.rows(sql, &[subid]).await?;
        let options = rows.into_iter().filter_map(pair).map(|(name, value)| {
            let var = match name.as_str() {
                "SHOW_VALUES" => "pubsub#show-values".to_owned(),
                name => format!("pubsub#{}", name.to_lowercase()),
            };
            (var, value)
        });
        Ok(options.collect())
    }
}

#[async_trait(?Send)]
impl SourceReader for EjabberdReader {
    async fn nodes(
        &mut self,
        warnings: &mut MigrationWarnings,
    ) -> Result<Vec<String>, MigrationError> {
        let sql = "SELECT host, node FROM pubsub_node ORDER BY nodeid";
        let mut nodes: Vec<_> =
            self.database.rows(sql, &[]).await?.into_iter().filter_map(pair).collect();
        for (account, _) in nodes.extract_if(.., |(host, _)| host.contains('@')) {
            warnings.add("a node of an account (PEP): not imported", account);
        }
        let sql = "SELECT subid FROM pubsub_subscription_opt LIMIT 1";
        self.has_options = !self.database.rows(sql, &[]).await?.is_empty();
        nodes_of(&self.service, nodes)
    }

    async fn node(
        &mut self,
        name: &str,
        warnings: &mut MigrationWarnings,
    ) -> Result<Option<SourceNode>, MigrationError> {
        let sql = "SELECT CAST(nodeid AS TEXT), plugin, parent FROM pubsub_node WHERE host = $1 AND node = $2";
        let row = self.database.rows(sql, &[&self.service, name]).await?.into_iter().next();
        let Some([Some(id), plugin, parent]) = row.and_then(|row| <[_; 3]>::try_from(row).ok())
        else {
            warnings.add("a node that cannot be read", name);
            return Ok(None);
        };
        if parent.is_some_and(|parent| !parent.is_empty()) {
            warnings.add("a node of a tree: imported without its parent", name);
        }
        let node = [id.as_str()];
        let mut found = SourceNode { name: name.to_owned(), ..SourceNode::default() };
        found.config = self.config(&node, &plugin.unwrap_or_default()).await?;
        let sql = "SELECT jid, CAST(affiliation AS TEXT), subscriptions FROM pubsub_state \
                   WHERE nodeid = CAST(CAST($1 AS TEXT) AS BIGINT) ORDER BY stateid";
        for row in self.database.rows(sql, &node).await? {
            let Ok([Some(jid), affiliation, states]) = <[_; 3]>::try_from(row) else {
                warnings.add("a subscription or affiliation that cannot be read", name);
                continue;
            };
            let affiliation = named(affiliation.as_deref().unwrap_or_default());
            found.affiliations.push((jid.clone(), affiliation.to_owned()));
            let states = states.unwrap_or_default();
            for state in states.split(',').filter(|state| !state.is_empty()) {
                let (state, subid) = state.split_once(':').unwrap_or((state, ""));
                let options = self.options(subid).await?;
                let state = match state {
                    "s" => "subscribed",
                    "p" => "pending",
                    _ => "unconfigured",
                };
                let (jid, state) = (jid.clone(), state.to_owned());
                found.subscriptions.push(SourceSubscription { jid, state, options });
            }
        }
        let sql = "SELECT itemid, publisher, creation, modification, payload FROM pubsub_item \
                   WHERE nodeid = CAST(CAST($1 AS TEXT) AS BIGINT) ORDER BY modification";
        for row in self.database.rows(sql, &node).await? {
            found.take(item(row), warnings);
        }
        Ok(Some(found))
    }
}

/// Returns the name of an affiliation, which the database has as a letter.
fn named(letter: &str) -> &'static str {
    match letter {
        "o" => "owner",
        "p" => "publisher",
        "u" => "publish-only",
        "m" => "member",
        "c" => "outcast",
        _ => "none",
    }
}

fn item(row: TextRow) -> Option<SourceItem> {
    let [id, publisher, creation, modification, payload] = <[_; 5]>::try_from(row).ok()?;
    Some(SourceItem {
        id: id?,
        publisher,
        created: moment(&creation?)?,
        modified: moment(&modification?)?,
        payload: payload.filter(|payload| !payload.is_empty()),
    })
}

/// Parses a time: millions of seconds, seconds, and microseconds, as in `001700:123456:654321`.
fn moment(text: &str) -> Option<Timestamp> {
    let numbers: Result<Vec<u64>, _> = text.split(':').map(str::parse).collect();
    let [mega, seconds, micros] = numbers.ok()?[..] else { return None };
    let seconds = mega.checked_mul(1_000_000)?.checked_add(seconds)?;
    Some(Timestamp(seconds.checked_mul(1000)?.checked_add(micros / 1000)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_has_three_parts() {
        assert_eq!(moment("001700:123456:654321"), Some(Timestamp(1_700_123_456_654)));
        for text in ["", "1:2", "1:2:x", "1:2:3:4", "99999999999999:0:0"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
