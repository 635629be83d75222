//! Requests of the command line, each mapped to a use case of the service.

use std::{io, time::Duration};

use jid::{BareJid, Jid};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    service::{self, ErasureReport, ManagedNodes, Memberships, NamePattern, OwnItem, Service},
    xmpp::stanza::{
        forms::{distinct, enum_fields::access_model, node_config, subscribe_options},
        notification::date_time,
        payload,
    },
};
use gjallar_pubsub::{
    Actor, Affiliation, ConfigField, Item, ItemId, ItemOrder, NodeId, PageBound, PageRequest,
    SubscriptionState,
    op::{
        affiliations::SetAffiliations,
        announce::Announce,
        authorize::Authorize,
        configure::Configure,
        create::Create,
        delete::Delete,
        discover::NodeSummary,
        publish::{NewItem, Publish},
        purge::Purge,
        retract::Retract,
        retrieve::{Retrieve, Selection},
        subscriptions::SetSubscriptions,
    },
};

use super::{
    control_socket::ResponseLines,
    protocol::{AdminRequest, AdminResponse, ConfigFields},
};

/// Maximum number of nodes in one read of the store.
const PAGE: usize = 1000;

/// Error of a request.
#[derive(Debug, Error)]
pub(crate) enum AdminError {
    #[error("{}", .0.text())]
    Service(service::Error),
    #[error("{0}")]
    Argument(String),
    #[error("the connection failed")]
    Broken(#[from] io::Error),
}

impl AdminError {
    /// Returns the metric label of the limit that the request exceeds, if it exceeds one.
    pub(super) fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Service(error) => error.limit(),
            Self::Argument(_) | Self::Broken(_) => None,
        }
    }
}

impl From<service::Error> for AdminError {
    fn from(error: service::Error) -> Self {
        Self::Service(error)
    }
}

impl From<gjallar_pubsub::Error> for AdminError {
    fn from(refusal: gjallar_pubsub::Error) -> Self {
        Self::Service(refusal.into())
    }
}

/// Executes a request. Writes the entries of a list to `out`, and returns the result for the last line of the response.
pub(crate) async fn answer(
    service: &Service,
    actor: &Actor,
    request: AdminRequest,
    out: &mut ResponseLines,
) -> Result<Value, AdminError> {
    match request {
        AdminRequest::Affiliations { node } => {
            for (jid, affiliation) in service.affiliations(actor, &id(&node)?).await? {
                let affiliation = affiliation.as_str();
                line(out, json!({ "jid": jid, "affiliation": affiliation })).await?;
            }
        }
        AdminRequest::Announce { node, text } => {
            let request = Announce { node: id(&node)?, text };
            let notified = service.execute(actor, &request).await?;
            return Ok(json!({ "told": notified }));
        }
        AdminRequest::Authorize { node, jids, allow } => {
            return authorize(service, actor, &id(&node)?, jids, allow).await;
        }
        AdminRequest::Configure { node, fields } => {
            let request = Configure { node: id(&node)?, settings: settings(&fields)?, seen: None };
            let is_changed = service.execute(actor, &request).await?;
            return Ok(json!({ "changed": is_changed }));
        }
        AdminRequest::Create { node, fields } => {
            let node = node.as_deref().map(id).transpose()?;
            let request = Create { node, settings: settings(&fields)? };
            let created = service.execute(actor, &request).await?;
            return Ok(json!({ "node": created.node.as_str() }));
        }
        AdminRequest::Delete { node, redirect } => {
            let request = Delete { node: id(&node)?, redirect };
            service.execute(actor, &request).await?;
        }
        AdminRequest::Entity { jid } => return entity(service, actor, &jid).await,
        AdminRequest::Erase { jid } => {
            let ErasureReport { nodes, affiliations, subscriptions, items } =
                service.erase(actor, &jid).await?;
            return Ok(json!({
                "nodes": nodes,
                "affiliations": affiliations,
                "subscriptions": subscriptions,
                "items": items,
            }));
        }
        AdminRequest::Figures => {
            for (name, meaning, value) in service.values() {
                line(out, json!({ "name": name, "value": value, "meaning": meaning })).await?;
            }
        }
        AdminRequest::Items { node, max } => {
            return items(service, actor, id(&node)?, max, out).await;
        }
        AdminRequest::ItemsOf { jid } => return items_of(service, actor, &jid, out).await,
        AdminRequest::Node { node } => return node_of(service, actor, &id(&node)?).await,
        AdminRequest::Nodes { pattern } => return nodes(service, actor, pattern, out).await,
        AdminRequest::Publish { node, id: item, payload: text } => {
            let item = item.as_deref().map(ItemId::parse).transpose()?;
            let payload = match text.trim() {
                "" => None,
                text => Some(payload::parse(text)?),
            };
            let items = vec![NewItem { id: item, payload }];
            let request =
                Publish { node: id(&node)?, items, options: Vec::new(), expected_newest: None };
            let published = service.execute(actor, &request).await?;
            let items: Vec<_> = published.items.iter().map(ItemId::as_str).collect();
            return Ok(json!({ "items": items }));
        }
        AdminRequest::Purge { node } => {
            let request = Purge { node: id(&node)? };
            service.execute(actor, &request).await?;
        }
        AdminRequest::Requests { node } => {
            for jid in service.requests(actor, &id(&node)?).await? {
                line(out, json!({ "jid": jid })).await?;
            }
        }
        AdminRequest::Retract { node, items, notify } => {
            let items = items.iter().map(|item| ItemId::parse(item)).collect::<Result<_, _>>()?;
            let request = Retract { node: id(&node)?, items, notify };
            service.execute(actor, &request).await?;
        }
        AdminRequest::RetractOlder { node, seconds } => {
            let age = Duration::from_secs(seconds);
            let retracted = service.retract_older(actor, &id(&node)?, age).await?;
            return Ok(json!({ "retracted": retracted }));
        }
        AdminRequest::SetAffiliations { node, jids, affiliation } => {
            let affiliation = Affiliation::parse(&affiliation).ok_or_else(|| {
                AdminError::Argument(format!("{affiliation}: unknown affiliation"))
            })?;
            let jids = distinct(jids.into_iter());
            let entries = jids.into_iter().map(|jid| (jid, affiliation)).collect();
            let request = SetAffiliations { node: id(&node)?, entries, invalid: Vec::new() };
            let set = service.execute(actor, &request).await?;
            none_failed(set.failed.iter().map(|(jid, _)| jid.as_str()), &set.reason)?;
        }
        AdminRequest::SetSubscriptions { node, jids, subscription } => {
            let state = SubscriptionState::parse(&subscription);
            let state = state.filter(|state| *state != SubscriptionState::Pending);
            let state = state.ok_or_else(|| {
                AdminError::Argument(format!("{subscription}: must be subscribed or none"))
            })?;
            let jids = distinct(jids.into_iter());
            let entries = jids.into_iter().map(|jid| (jid, None, Some(state))).collect();
            let request = SetSubscriptions { node: id(&node)?, entries, invalid: Vec::new() };
            let set = service.execute(actor, &request).await?;
            none_failed(set.failed.iter().map(|(jid, ..)| jid.as_str()), &set.reason)?;
            let not_ended = set.not_ended();
            if !not_ended.is_empty() {
                return Err(AdminError::Argument(format!(
                    "not unsubscribed: {}",
                    not_ended.join(", ")
                )));
            }
        }
        AdminRequest::Stats => return Ok(service.stats().into()),
        AdminRequest::Subscriptions { node } => {
            let all = PageRequest::first(usize::MAX);
            let all = service.subscriptions(actor, &id(&node)?, &all, |_| true).await?;
            for own in all.entries {
                let subid = own.subid.as_ref().map(ToString::to_string);
                let state = own.state.as_str();
                let shown = json!({ "jid": own.jid, "subid": subid, "subscription": state });
                line(out, shown).await?;
            }
        }
        // The control socket answers these requests itself, because they need the connection.
        AdminRequest::Doctor | AdminRequest::Snapshot | AdminRequest::Top => {}
    }
    Ok(Value::Null)
}

async fn line(out: &mut ResponseLines, value: Value) -> Result<(), AdminError> {
    Ok(out.write(&AdminResponse::Line(value)).await?)
}

fn id(node: &str) -> Result<NodeId, gjallar_pubsub::Error> {
    NodeId::parse(node)
}

fn settings(fields: &ConfigFields) -> Result<Vec<ConfigField>, gjallar_pubsub::Error> {
    let setting = |(name, value): (&String, &String)| node_config::setting(name, value);
    let settings = fields.iter().map(setting).collect::<Result<Vec<_>, _>>()?;
    Ok(settings.into_iter().flatten().collect())
}

fn none_failed<'a>(failed: impl Iterator<Item = &'a str>, reason: &str) -> Result<(), AdminError> {
    let failed: Vec<_> = failed.collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(AdminError::Argument(format!("not set: {} ({reason})", failed.join(", "))))
}

async fn authorize(
    service: &Service,
    actor: &Actor,
    node: &NodeId,
    jids: Vec<Jid>,
    allow: bool,
) -> Result<Value, AdminError> {
    let (mut decided, mut not_pending) = (0_usize, Vec::new());
    for jid in distinct(jids.into_iter()) {
        let request = Authorize { node: node.clone(), jid, allow };
        match service.execute(actor, &request).await? {
            true => decided += 1,
            false => not_pending.push(request.jid.to_string()),
        }
    }
    match not_pending.is_empty() {
        true => Ok(json!({ "decided": decided })),
        false => Err(AdminError::Argument(format!("not pending: {}", not_pending.join(", ")))),
    }
}

fn shown(node: &NodeId, item: &Item) -> Value {
    json!({
        "node": node.as_str(),
        "item": item.id.as_str(),
        "publisher": item.publisher,
        "published": date_time(item.published),
        "payload": item.payload.as_ref().map(|payload| payload.xml()),
    })
}

async fn nodes(
    service: &Service,
    actor: &Actor,
    pattern: String,
    out: &mut ResponseLines,
) -> Result<Value, AdminError> {
    let pattern = NamePattern::parse(&pattern)?;
    let mut request = ManagedNodes { pattern, after: None, max: PAGE };
    loop {
        let (nodes, has_more) = service.managed_nodes(actor, &request).await?;
        request.after = nodes.last().map(NodeSummary::uid);
        for summary in nodes {
            let model = access_model(summary.access_model);
            let shown = json!({
                "node": summary.node.as_str(),
                "title": summary.title,
                "access_model": model,
                "type": summary.r#type,
            });
            line(out, shown).await?;
        }
        if !has_more {
            return Ok(Value::Null);
        }
    }
}

async fn items(
    service: &Service,
    actor: &Actor,
    node: NodeId,
    max: usize,
    out: &mut ResponseLines,
) -> Result<Value, AdminError> {
    let order = ItemOrder { is_descending: true, ..ItemOrder::default() };
    let (mut left, mut page) = (max, PageRequest::first(max));
    while left > 0 {
        let selection = Selection::Page(page);
        let request = Retrieve { node: node.clone(), subid: None, selection, order };
        let found = service.retrieve(actor, &request).await?.part.entries;
        let Some(last) = found.last() else { break };
        left -= found.len();
        let uid = ItemId::parse(&order.by.uid(last).to_string())?;
        page = PageRequest { max: left, edge: PageBound::After(uid) };
        for item in found {
            line(out, shown(&node, &item)).await?;
        }
    }
    Ok(Value::Null)
}

async fn node_of(service: &Service, actor: &Actor, node: &NodeId) -> Result<Value, AdminError> {
    let data = service.meta_data(actor, node).await?;
    let fields: ConfigFields = node_config::values(&data.config).into_iter().collect();
    let items = match service.item_ids(actor, node, &PageRequest::first(0), 0).await {
        Err(service::Error::Refused(gjallar_pubsub::Error::Unsupported(_))) => Some(0),
        ids => ids?.total,
    };
    Ok(json!({
        "node": node.as_str(),
        "creator": data.creator,
        "created": date_time(data.created),
        "items": items,
        "subscriptions": data.subscribers,
        "requests": service.requests(actor, node).await?.len(),
        "owners": data.owners,
        "publishers": data.publishers,
        "configuration": fields,
    }))
}

async fn entity(service: &Service, actor: &Actor, jid: &BareJid) -> Result<Value, AdminError> {
    let Memberships { affiliations, subscriptions, refuses_presence } =
        service.memberships(actor, jid).await?;
    let affiliations: Vec<_> = affiliations
        .iter()
        .map(|(node, one)| json!({ "node": node.as_str(), "affiliation": one.as_str() }))
        .collect();
    let mut shown = Vec::new();
    for (node, own) in subscriptions {
        let options = service.options_of(actor, &node, &own).await?;
        let options = options.as_ref().map(subscribe_options::changed_values).unwrap_or_default();
        let options: ConfigFields = options.into_iter().collect();
        shown.push(json!({
            "node": node.as_str(),
            "jid": own.jid,
            "subscription": own.state.as_str(),
            "subid": own.subid.as_ref().map(ToString::to_string),
            "options": Some(options).filter(|options| !options.is_empty()),
        }));
    }
    Ok(json!({
        "jid": jid,
        "affiliations": affiliations,
        "subscriptions": shown,
        "refuses_presence": refuses_presence,
    }))
}

async fn items_of(
    service: &Service,
    actor: &Actor,
    jid: &BareJid,
    out: &mut ResponseLines,
) -> Result<Value, AdminError> {
    let mut reached = None;
    loop {
        let (items, further) = service.items_published_by(actor, jid, reached).await?;
        for OwnItem { node, item, .. } in items {
            line(out, shown(&node, &item)).await?;
        }
        reached = further;
        if reached.is_none() {
            return Ok(Value::Null);
        }
    }
}
