//! Reader for Prosody's mod_storage_sql: the tables `prosody` and `prosodyarchive`.

use async_trait::async_trait;
use serde_json::Value as Json;

use crate::migrate::{
    MigrationError, MigrationWarnings, SourceReader,
    database::{Database, TextRow, pair},
    nodes_of,
    source_node::{SourceItem, SourceNode},
};

use super::{
    lua::LuaValue,
    node::{NO_ITEMS, by_age, node, seconds, take_items},
};

pub(crate) struct ProsodySqlReader {
    database: Database,
    service: String,
}

impl ProsodySqlReader {
    pub(crate) fn new(database: Database, service: String) -> Self {
        Self { database, service }
    }
}

#[async_trait(?Send)]
impl SourceReader for ProsodySqlReader {
    async fn nodes(
        &mut self,
        warnings: &mut MigrationWarnings,
    ) -> Result<Vec<String>, MigrationError> {
        let sql = r#"SELECT DISTINCT "host", "user" FROM "prosody" WHERE "store" = 'pubsub_nodes' ORDER BY "host", "user""#;
        let rows = self.database.rows(sql, &[]).await?;
        let sql = r#"SELECT "key" FROM "prosodyarchive" WHERE "host" = $1 LIMIT 1"#;
        if self.database.rows(sql, &[&self.service]).await?.is_empty() {
            warnings.add(NO_ITEMS, "prosodyarchive");
        }
        let names = nodes_of(&self.service, rows.into_iter().filter_map(pair).collect())?;
        by_age(self, names).await
    }

    async fn node(
        &mut self,
        name: &str,
        warnings: &mut MigrationWarnings,
    ) -> Result<Option<SourceNode>, MigrationError> {
        let sql = r#"SELECT "key", "value" FROM "prosody" WHERE "host" = $1 AND "user" = $2 AND "store" = 'pubsub_nodes'"#;
        let rows = self.database.rows(sql, &[&self.service, name]).await?;
        let (mut config, mut affiliations, mut subscribers) =
            (LuaValue::Nil, LuaValue::Nil, LuaValue::Nil);
        for (key, value) in rows.into_iter().filter_map(pair) {
            let part = match key.as_str() {
                "config" => &mut config,
                "affiliations" => &mut affiliations,
                "subscribers" => &mut subscribers,
                _ => continue,
            };
            let Ok(json) = serde_json::from_str(&value) else {
                warnings.add("a node that cannot be read", name);
                return Ok(None);
            };
            *part = from_json(json);
        }
        let mut found = node(name, &config, &affiliations, &subscribers);
        let sql = r#"SELECT "key", "with", CAST("when" AS TEXT), "value" FROM "prosodyarchive"
                     WHERE "host" = $1 AND "user" = '' AND "store" = $2 ORDER BY "sort_id""#;
        let store = format!("pubsub_{name}");
        let rows = self.database.rows(sql, &[&self.service, &store]).await?;
        take_items(&mut found, rows.into_iter().map(item), warnings);
        Ok(Some(found))
    }
}

fn item(row: TextRow) -> Option<SourceItem> {
    let [id, with, when, value] = <[_; 4]>::try_from(row).ok()?;
    let modified = seconds(&when?)?;
    let publisher = with.filter(|with| !with.is_empty());
    Some(SourceItem { id: id?, publisher, created: modified, modified, payload: value })
}

fn from_json(json: Json) -> LuaValue {
    match json {
        Json::Null => LuaValue::Nil,
        Json::Bool(value) => LuaValue::Text(value.to_string()),
        Json::Number(number) => LuaValue::Text(number.to_string()),
        Json::String(text) => LuaValue::Text(text),
        Json::Array(values) => {
            LuaValue::Table { list: values.into_iter().map(from_json).collect(), named: Vec::new() }
        }
        Json::Object(values) => LuaValue::Table {
            list: Vec::new(),
            named: values.into_iter().map(|(key, value)| (key, from_json(value))).collect(),
        },
    }
}
