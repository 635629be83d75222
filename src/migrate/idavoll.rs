//! Reader for Idavoll 0.9 with PostgreSQL: the tables of its `db/pubsub.sql`.

use async_trait::async_trait;

use crate::xmpp::{stanza::payload, xml::writer};
use gjallar_pubsub::Timestamp;

use super::{
    MigrationError, MigrationWarnings, SourceReader,
    database::{Database, TextRow, pair},
    source_node::{SourceItem, SourceNode, SourceSubscription, fields},
};

/// Configuration fields of every node, in addition to the columns of its row.
const DEFAULTS: &[(&str, &str)] = &[
    ("pubsub#access_model", "open"),
    ("pubsub#publish_model", "publishers"),
    ("pubsub#max_items", "max"),
    ("pubsub#notification_type", "headline"),
];

pub(super) struct IdavollReader {
    database: Database,
}

impl IdavollReader {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

/// Columns of Idavoll's table of nodes. Services derived from Idavoll have more columns, which control access.
const COLUMNS: [&str; 6] = [
    "node_id",
    "node",
    "node_type",
    "persist_items",
    "deliver_payloads",
    "send_last_published_item",
];

#[async_trait(?Send)]
impl SourceReader for IdavollReader {
    async fn nodes(
        &mut self,
        warnings: &mut MigrationWarnings,
    ) -> Result<Vec<String>, MigrationError> {
        let sql = "SELECT CAST(column_name AS TEXT) FROM information_schema.columns \
                   WHERE table_name = 'nodes' AND table_schema = ANY (current_schemas(FALSE))";
        let columns = self.database.rows(sql, &[]).await?;
        let is_known = |column: &str| COLUMNS.contains(&column);
        if columns.into_iter().flatten().flatten().any(|column| !is_known(&column)) {
            return Err(MigrationError::Source("not the tables of Idavoll 0.9"));
        }
        let sql = "SELECT node, node_type FROM nodes ORDER BY node_id";
        let mut names = Vec::new();
        for (name, kind) in self.database.rows(sql, &[]).await?.into_iter().filter_map(pair) {
            match kind.as_str() {
                "leaf" => names.push(name),
                // The root collection, which every Idavoll has, and which does not accept subscriptions.
                _ if name.is_empty() => {}
                _ => warnings.add("a collection", name),
            }
        }
        Ok(names)
    }

    async fn node(
        &mut self,
        name: &str,
        warnings: &mut MigrationWarnings,
    ) -> Result<Option<SourceNode>, MigrationError> {
        let mut found = SourceNode { name: name.to_owned(), ..SourceNode::default() };
        found.config = fields(DEFAULTS);
        let sql = "SELECT CAST(persist_items AS TEXT), CAST(deliver_payloads AS TEXT), \
                   send_last_published_item FROM nodes WHERE node = $1";
        let vars =
            ["pubsub#persist_items", "pubsub#deliver_payloads", "pubsub#send_last_published_item"];
        for row in self.database.rows(sql, &[name]).await? {
            let values = vars.iter().zip(row);
            found
                .config
                .extend(values.filter_map(|(var, value)| Some(((*var).to_owned(), value?))));
        }
        let sql = "SELECT jid, affiliation FROM nodes JOIN affiliations USING (node_id) \
                   JOIN entities USING (entity_id) WHERE node = $1 ORDER BY affiliation_id";
        found.affiliations =
            self.database.rows(sql, &[name]).await?.into_iter().filter_map(pair).collect();
        let sql = "SELECT jid, resource, state FROM nodes JOIN subscriptions USING (node_id) \
                   JOIN entities USING (entity_id) WHERE node = $1 ORDER BY subscription_id";
        let subscriptions = self.database.rows(sql, &[name]).await?;
        found.subscriptions = subscriptions.into_iter().filter_map(subscription).collect();
        let sql = "SELECT item, publisher, CAST(CAST(EXTRACT(EPOCH FROM date) * 1000 AS BIGINT) AS TEXT), \
                   data FROM nodes JOIN items USING (node_id) WHERE node = $1 ORDER BY date, item_id";
        for row in self.database.rows(sql, &[name]).await? {
            found.take(item(row, name, warnings), warnings);
        }
        Ok(Some(found))
    }
}

fn subscription(row: TextRow) -> Option<SourceSubscription> {
    let [jid, resource, state] = <[_; 3]>::try_from(row).ok()?;
    let (bare, resource) = (jid?, resource.unwrap_or_default());
    let jid = if resource.is_empty() { bare } else { format!("{bare}/{resource}") };
    Some(SourceSubscription { jid, state: state?, options: Vec::new() })
}

fn item(row: TextRow, node: &str, warnings: &mut MigrationWarnings) -> Option<SourceItem> {
    let [id, publisher, date, data] = <[_; 4]>::try_from(row).ok()?;
    let modified = Timestamp(date?.parse().ok()?);
    let (id, item) = (id?, payload::element_of_item(&data?).ok()?);
    let mut children = item.children();
    let payload = children.next().map(writer::stand_alone);
    if children.next().is_some() {
        warnings
            .add("an item of several elements: the first is its payload", format!("{node}: {id}"));
    }
    Some(SourceItem { id, publisher, created: modified, modified, payload })
}
