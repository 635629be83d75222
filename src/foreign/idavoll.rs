//! Idavoll 0.9, with PostgreSQL: the tables of its `db/pubsub.sql`.

use async_trait::async_trait;
use minidom::Element;

use crate::{pubsub::Timestamp, wire::xml};

use super::{
    ForeignError, Reader, Remarks,
    database::{Database, Row, pair},
    found::{Found, FoundItem, FoundSubscription, fields},
};

/// What holds at every node, besides what its row says.
const DEFAULTS: &[(&str, &str)] = &[
    ("pubsub#access_model", "open"),
    ("pubsub#publish_model", "publishers"),
    ("pubsub#max_items", "max"),
    ("pubsub#notification_type", "headline"),
];

pub(super) struct Idavoll {
    database: Database,
}

impl Idavoll {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait(?Send)]
impl Reader for Idavoll {
    async fn nodes(&mut self, remarks: &mut Remarks) -> Result<Vec<String>, ForeignError> {
        let sql = "SELECT node, node_type FROM nodes ORDER BY node";
        let mut names = Vec::new();
        for row in self.database.rows(sql, &[]).await? {
            match &row[..] {
                [Some(name), Some(kind)] if kind == "leaf" => names.push(name.clone()),
                // The root, which every Idavoll has and nobody can subscribe to.
                [Some(name), _] if name.is_empty() => {}
                [Some(name), _] => remarks.add("a collection", name),
                _ => {}
            }
        }
        Ok(names)
    }

    async fn node(&mut self, name: &str, _: &mut Remarks) -> Result<Option<Found>, ForeignError> {
        let mut config = fields(DEFAULTS);
        let sql = "SELECT CAST(persist_items AS TEXT), CAST(deliver_payloads AS TEXT), \
                   send_last_published_item FROM nodes WHERE node = $1";
        let vars =
            ["pubsub#persist_items", "pubsub#deliver_payloads", "pubsub#send_last_published_item"];
        for row in self.database.rows(sql, &[name]).await? {
            let values = vars.iter().zip(row);
            config.extend(values.filter_map(|(var, value)| Some(((*var).to_owned(), value?))));
        }
        let sql = "SELECT jid, affiliation FROM nodes NATURAL JOIN affiliations \
                   NATURAL JOIN entities WHERE node = $1 ORDER BY affiliation_id";
        let affiliations = self.database.rows(sql, &[name]).await?.into_iter().filter_map(pair);
        let affiliations = affiliations.collect();
        let sql = "SELECT jid, resource, state FROM nodes NATURAL JOIN subscriptions \
                   NATURAL JOIN entities WHERE node = $1 ORDER BY subscription_id";
        let subscriptions = self.database.rows(sql, &[name]).await?;
        let subscriptions = subscriptions.into_iter().filter_map(subscription).collect();
        let sql = "SELECT item, publisher, CAST(CAST(EXTRACT(EPOCH FROM date) * 1000 AS BIGINT) AS TEXT), \
                   data FROM nodes NATURAL JOIN items WHERE node = $1 ORDER BY date, item_id";
        let items = self.database.rows(sql, &[name]).await?;
        let items = items.into_iter().filter_map(item).collect();
        Ok(Some(Found { name: name.to_owned(), config, affiliations, subscriptions, items }))
    }
}

fn subscription(row: Row) -> Option<FoundSubscription> {
    let [jid, resource, state] = <[_; 3]>::try_from(row).ok()?;
    let (bare, resource) = (jid?, resource.unwrap_or_default());
    let jid = if resource.is_empty() { bare } else { format!("{bare}/{resource}") };
    Some(FoundSubscription { jid, state: state?, options: Vec::new() })
}

fn item(row: Row) -> Option<FoundItem> {
    let [id, publisher, date, data] = <[_; 4]>::try_from(row).ok()?;
    let modified = Timestamp(date?.parse().ok()?);
    let payload = data.and_then(|data| payload(&data));
    Some(FoundItem { id: id?, publisher, created: modified, modified, payload })
}

/// What an item has in it: Idavoll keeps the whole element. What cannot be read is left as it is, and refused later.
fn payload(item: &str) -> Option<String> {
    match item.parse::<Element>() {
        Ok(item) => item.children().next().map(xml::stand_alone),
        Err(_) => Some(item.to_owned()),
    }
}
