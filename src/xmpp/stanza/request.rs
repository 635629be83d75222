//! Parser of XEP-0060 requests: the child element of an IQ becomes a typed request or an error.
//!
//! This module reports only errors of syntax, and only the first one that it finds. The rules (crate `gjallar_pubsub`)
//! decide if the request is allowed. The only XML that they get is the payload, which they do not interpret.

use std::collections::{HashMap, HashSet};

use jid::Jid;
use minidom::Element;

use crate::xmpp::{
    stanza::{
        forms::{
            self,
            node_config::{self, NodeConfigForm},
            subscribe_options,
        },
        ns, order_by, rsm,
    },
    xml::writer,
};
use gjallar_pubsub::{
    Affiliation, Feature, ItemId, ItemOrder, NodeId, PageRequest, Payload, SubId,
    SubscriptionState,
    op::{
        InvalidEntry,
        affiliations::{OwnAffiliations, SetAffiliations},
        configure::Configure,
        create::Create,
        delete::Delete,
        publish::{NewItem, Publish},
        purge::Purge,
        retract::Retract,
        retrieve::{Retrieve, Selection},
        subscribe::Subscribe,
        subscription_options::{GetOptions, SetOptions},
        subscriptions::{OwnSubscriptions, SetSubscriptions},
        unsubscribe::Unsubscribe,
    },
};

/// Request of XEP-0060.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PubsubRequest {
    /// Request of type `set`.
    Action(SetRequest),
    /// Request of type `get`.
    Question(GetRequest),
}

/// Request that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetRequest {
    /// Set affiliations (§8.9.2).
    SetAffiliations(SetAffiliations),
    /// Change the configuration (§8.2.5).
    Configure(Configure),
    /// Create a node (§8.1).
    Create(Create),
    /// Delete a node (§8.4).
    Delete(Delete),
    /// Set subscriptions (§8.8.2).
    SetSubscriptions(SetSubscriptions),
    /// Publish items (§7.1).
    Publish(Publish),
    /// Remove all items (§8.5).
    Purge(Purge),
    /// Retract items (§7.2).
    Retract(Retract),
    /// Set the options of a subscription (§6.3.5).
    SetOptions(SetOptions),
    /// Subscribe (§6.1).
    Subscribe(Subscribe),
    /// Unsubscribe (§6.2).
    Unsubscribe(Unsubscribe),
}

/// Request that only reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetRequest {
    /// Affiliations of a node (§8.9.1).
    Affiliations(NodeId, ListPage),
    /// Configuration of a node (§8.2.1).
    Configuration(NodeId),
    /// Default configuration (§8.3).
    Default,
    /// Default subscription options, of a node or of the service (§6.4).
    DefaultOptions(Option<NodeId>),
    /// Options of a subscription (§6.3.2).
    Options(GetOptions),
    /// Affiliations of the requester (§5.7).
    OwnAffiliations(OwnAffiliations, ListPage),
    /// Subscriptions of the requester (§5.6).
    OwnSubscriptions(OwnSubscriptions, ListPage),
    /// Items of a node (§6.5).
    Retrieve(Retrieve),
    /// Subscriptions of a node (§8.8.1).
    Subscriptions(NodeId, ListPage),
}

/// Requested page of a list; `None` if the request has no page (XEP-0059).
pub type ListPage = Option<PageRequest<String>>;

/// Parses the `<pubsub/>` child of an IQ. `is_set` is `true` if the IQ is of type `set`, and `false` if it is of type
/// `get`. The IQ is needed for the prefixes that it declares.
///
/// # Errors
/// The error of a malformed request.
pub fn parse(
    iq: &Element,
    pubsub: &Element,
    is_set: bool,
) -> Result<PubsubRequest, gjallar_pubsub::Error> {
    let (namespace, sender) = (pubsub.ns(), iq.attr("from").unwrap_or_default());
    let actions: Vec<&Element> = pubsub.children().filter(|child| is_pubsub(child)).collect();
    if let Some(other) = actions.iter().find(|child| child.ns() != namespace) {
        return Err(not_taken(pubsub, other));
    }
    let (action, companion) = match actions.as_slice() {
        [] => return Err(gjallar_pubsub::Error::BadRequest("the request has no action")),
        [action] => (*action, None),
        [action, companion] => (*action, Some(*companion)),
        _ => return Err(gjallar_pubsub::Error::BadRequest("the request has too many actions")),
    };
    let is_owner = namespace == ns::PUBSUB_OWNER;
    let kind = (is_owner, action.name(), companion.map(Element::name));
    if is_set && action.name() == "collection" {
        return Err(gjallar_pubsub::Error::Unsupported(Feature::Collections));
    }
    check_children(action, is_set)?;
    companion.map_or(Ok(()), |companion| check_children(companion, is_set))?;
    match kind {
        (false, "subscribe", Some("options")) if is_set => subscribe(sender, action, companion)
            .map(|request| PubsubRequest::Action(SetRequest::Subscribe(request))),
        (false, "publish", Some("publish-options")) if is_set => {
            publish(iq, pubsub, action, companion)
                .map(|publish| PubsubRequest::Action(SetRequest::Publish(publish)))
        }
        (false, "create", Some("configure")) if is_set => create(action, companion)
            .map(|create| PubsubRequest::Action(SetRequest::Create(create))),
        // COMPAT: slixmpp sets options by an IQ of type `get` with a submitted form.
        (false, "options", None) if !is_set && action.has_child("x", ns::DATA_FORMS) => {
            parse_action(false, "options", iq, pubsub, action).map(PubsubRequest::Action)
        }
        (_, _, Some(_)) => {
            Err(gjallar_pubsub::Error::BadRequest("these two actions cannot be combined"))
        }
        (_, name, None) if is_set => {
            parse_action(is_owner, name, iq, pubsub, action).map(PubsubRequest::Action)
        }
        (_, name, None) => {
            parse_question(is_owner, name, sender, pubsub, action).map(PubsubRequest::Question)
        }
    }
}

fn parse_action(
    is_owner: bool,
    name: &str,
    iq: &Element,
    pubsub: &Element,
    action: &Element,
) -> Result<SetRequest, gjallar_pubsub::Error> {
    let sender = iq.attr("from").unwrap_or_default();
    Ok(match (is_owner, name) {
        (false, "create") => SetRequest::Create(create(action, None)?),
        (false, "publish") => SetRequest::Publish(publish(iq, pubsub, action, None)?),
        (false, "retract") => SetRequest::Retract(retract(action)?),
        (false, "options") => {
            let settings = subscribe_options::submitted(form(action)?)?;
            SetRequest::SetOptions(SetOptions { of: options_of(action, sender)?, settings })
        }
        (false, "subscribe") => SetRequest::Subscribe(subscribe(sender, action, None)?),
        (false, "unsubscribe") => SetRequest::Unsubscribe(Unsubscribe {
            node: node(action)?,
            jid: jid(action, sender)?,
            subid: subid(action),
        }),
        (true, "affiliations") => SetRequest::SetAffiliations(set_affiliations(action, sender)?),
        (true, "configure") => {
            let node = node(action)?;
            let NodeConfigForm { settings, seen, .. } = node_config::submitted(form(action)?)?;
            SetRequest::Configure(Configure { node, settings, seen })
        }
        (true, "delete") => SetRequest::Delete(delete(action)?),
        (true, "purge") => SetRequest::Purge(Purge { node: node(action)? }),
        (true, "subscriptions") => SetRequest::SetSubscriptions(set_subscriptions(action, sender)?),
        _ => {
            return Err(gjallar_pubsub::Error::BadRequest("no such action for an iq of this type"));
        }
    })
}

fn parse_question(
    is_owner: bool,
    name: &str,
    sender: &str,
    pubsub: &Element,
    question: &Element,
) -> Result<GetRequest, gjallar_pubsub::Error> {
    let page = rsm::page(pubsub)?;
    Ok(match (is_owner, name) {
        (false, "affiliations") => {
            GetRequest::OwnAffiliations(OwnAffiliations { node: node_if_any(question)? }, page)
        }
        (false, "default") => GetRequest::DefaultOptions(node_if_any(question)?),
        (false, "options") => GetRequest::Options(options_of(question, sender)?),
        (false, "items") => {
            GetRequest::Retrieve(retrieve(question, order_by::order(pubsub)?, page)?)
        }
        (false, "subscriptions") => {
            GetRequest::OwnSubscriptions(OwnSubscriptions { node: node_if_any(question)? }, page)
        }
        (true, "affiliations") => GetRequest::Affiliations(node(question)?, page),
        (true, "configure") => GetRequest::Configuration(node(question)?),
        (true, "default") => match question.attr("type") {
            Some("collection") => {
                return Err(gjallar_pubsub::Error::Unsupported(Feature::Collections));
            }
            _ => GetRequest::Default,
        },
        (true, "subscriptions") => GetRequest::Subscriptions(node(question)?, page),
        _ => {
            return Err(gjallar_pubsub::Error::BadRequest("no such action for an iq of this type"));
        }
    })
}

/// Returns `true` if an element is in a namespace of XEP-0060. A child in such a namespace is accepted or rejected,
/// never ignored.
fn is_pubsub(element: &Element) -> bool {
    matches!(element.ns().as_str(), ns::PUBSUB | ns::PUBSUB_OWNER | ns::PUBSUB_EVENT)
}

fn not_taken(parent: &Element, child: &Element) -> gjallar_pubsub::Error {
    let (parent, child) = (forms::shortened(parent.name()), forms::shortened(child.name()));
    gjallar_pubsub::Error::UnexpectedChild(format!(
        "{parent} must not contain {child} of this namespace"
    ))
}

/// Rejects unexpected children of an action element, such as `<publish/>`. Elements of XEP-0060 are rejected unless the
/// action expects them. In a list of affiliations or subscriptions that an owner sets, all elements other than its
/// entries are rejected.
fn check_children(action: &Element, is_set: bool) -> Result<(), gjallar_pubsub::Error> {
    let namespace = action.ns();
    let taken: &[&str] = match (action.name(), is_set) {
        ("publish", true) => &["item", "publish-options"],
        ("retract", true) | ("items", false) => &["item"],
        ("delete", true) => &["redirect"],
        ("affiliations", true) => &["affiliation"],
        ("subscriptions", true) => &["subscription"],
        _ => &[],
    };
    let is_list = is_set && matches!(action.name(), "affiliations" | "subscriptions");
    let is_taken = |child: &&Element| match is_list {
        // COMPAT: Smack writes the entries of an owner's list in the namespace of subscribers.
        true => is_pubsub(child) && taken.contains(&child.name()),
        false => !is_pubsub(child) || (child.ns() == namespace && taken.contains(&child.name())),
    };
    match action.children().find(|child| !is_taken(child)) {
        Some(child) => Err(not_taken(action, child)),
        None => Ok(()),
    }
}

/// Returns the node that an element names.
///
/// # Errors
/// [`NodeIdRequired`](gjallar_pubsub::Error::NodeIdRequired); [`NodeNotFound`](gjallar_pubsub::Error::NodeNotFound) for
/// a name that is too long for a node.
pub fn node(element: &Element) -> Result<NodeId, gjallar_pubsub::Error> {
    node_named(element.attr("node").unwrap_or_default())
}

/// Returns the node with the name `name`.
///
/// # Errors
/// Same as [`node`].
pub fn node_named(name: &str) -> Result<NodeId, gjallar_pubsub::Error> {
    NodeId::parse(name).map_err(|refusal| match refusal {
        gjallar_pubsub::Error::IdTooLong { .. } => gjallar_pubsub::Error::NodeNotFound,
        other => other,
    })
}

fn node_if_any(element: &Element) -> Result<Option<NodeId>, gjallar_pubsub::Error> {
    element.attr("node").filter(|name| !name.is_empty()).map(node_named).transpose()
}

/// Returns the JID that an element in a request of `sender` names.
fn jid(element: &Element, sender: &str) -> Result<Jid, gjallar_pubsub::Error> {
    let jid = element.attr("jid").ok_or(gjallar_pubsub::Error::JidRequired)?;
    Jid::prepare_from(jid, sender).map_err(gjallar_pubsub::Error::MalformedJid)
}

/// Returns the SubID of an element. Clients do not choose SubIDs, so a SubID that is too long is treated as unknown,
/// not as an error.
fn subid(element: &Element) -> Option<SubId> {
    element.attr("subid").filter(|subid| !subid.is_empty()).map(SubId::new)
}

fn options_of(options: &Element, sender: &str) -> Result<GetOptions, gjallar_pubsub::Error> {
    Ok(GetOptions { node: node(options)?, jid: jid(options, sender)?, subid: subid(options) })
}

/// Parses a subscribe request. The options in the request must not name a node or a JID (§6.3.7).
fn subscribe(
    sender: &str,
    subscribe: &Element,
    options: Option<&Element>,
) -> Result<Subscribe, gjallar_pubsub::Error> {
    let names =
        |options: &Element| ["node", "jid"].iter().any(|name| options.attr(*name).is_some());
    if options.is_some_and(names) {
        return Err(gjallar_pubsub::Error::BadRequest(
            "options within a subscribe request must not have node or jid",
        ));
    }
    let settings = match options {
        Some(options) => Some(subscribe_options::submitted(form(options)?)?),
        None => None,
    };
    let is_public = subscribe.has_child("public", ns::PPS);
    Ok(Subscribe { node: node(subscribe)?, jid: jid(subscribe, sender)?, settings, is_public })
}

fn form(element: &Element) -> Result<&Element, gjallar_pubsub::Error> {
    element
        .get_child("x", ns::DATA_FORMS)
        .ok_or(gjallar_pubsub::Error::BadRequest("a form is required"))
}

fn children<'a>(element: &'a Element, name: &'static str) -> impl Iterator<Item = &'a Element> {
    let namespace = element.ns();
    element.children().filter(move |child| child.is(name, namespace.as_str()))
}

fn create(create: &Element, configure: Option<&Element>) -> Result<Create, gjallar_pubsub::Error> {
    // Before XEP-0060 1.13 the node type was an attribute. COMPAT: clients of push services send a type of their own.
    if create.attr("type") == Some("collection") {
        return Err(gjallar_pubsub::Error::Unsupported(Feature::Collections));
    }
    if configure.is_some_and(|configure| configure.attr("node").is_some()) {
        return Err(gjallar_pubsub::Error::BadRequest(
            "the node must be named in create, not in configure",
        ));
    }
    let settings = match configure.filter(|configure| configure.children().next().is_some()) {
        Some(configure) => node_config::submitted(form(configure)?)?.settings,
        None => Vec::new(),
    };
    let name = create.attr("node").filter(|name| !name.is_empty());
    Ok(Create { node: name.map(NodeId::parse).transpose()?, settings })
}

/// Parses a publish request. SPEC: a payload without `xml:lang` inherits the language of its nearest ancestor, up to
/// `<pubsub/>`. The `xml:lang` of the IQ is ignored, because servers and clients add a language to every stanza, which
/// says nothing about payloads.
fn publish(
    iq: &Element,
    pubsub: &Element,
    publish: &Element,
    options: Option<&Element>,
) -> Result<Publish, gjallar_pubsub::Error> {
    let mut prefixes = writer::Prefixes::new();
    [iq, pubsub, publish].into_iter().for_each(|outer| writer::declare(outer, &mut prefixes));
    let node = node(publish)?;
    let new_item = |item: &Element| {
        let mut contents = item.children();
        let payload = contents.next();
        let has_text = item.texts().any(|text| !text.trim().is_empty());
        if contents.next().is_some() || has_text {
            return Err(gjallar_pubsub::Error::InvalidPayload(
                "an item must have one payload element",
            ));
        }
        let id = item.attr("id").filter(|id| !id.is_empty()).map(ItemId::parse).transpose()?;
        let mut prefixes = prefixes.clone();
        writer::declare(item, &mut prefixes);
        let language = [item, publish, pubsub].into_iter().find_map(writer::language);
        let payload = payload.map(|element| {
            Payload::new(writer::stand_alone_in(element, &prefixes, language), element.ns())
        });
        Ok(NewItem { id, payload })
    };
    let items = children(publish, "item").map(new_item).collect::<Result<_, _>>()?;
    // COMPAT: gloox writes publish-options inside publish.
    let mut options = options.into_iter().chain(children(publish, "publish-options"));
    let preconditions = match (options.next(), options.next()) {
        (_, Some(_)) => {
            return Err(gjallar_pubsub::Error::BadRequest("publish-options may occur only once"));
        }
        (options, None) => options,
    };
    let preconditions = match preconditions {
        Some(options) => node_config::preconditions(form(options)?)?,
        None => NodeConfigForm::default(),
    };
    let NodeConfigForm { settings: options, compared, .. } = preconditions;
    Ok(Publish { node, items, options, expected_newest: compared })
}

fn retract(retract: &Element) -> Result<Retract, gjallar_pubsub::Error> {
    let node = node(retract)?;
    let id = |item: &Element| ItemId::parse(item.attr("id").unwrap_or_default());
    let items = children(retract, "item").map(id).collect::<Result<Vec<_>, _>>();
    let items = items.map_err(|refusal| match refusal {
        gjallar_pubsub::Error::IdTooLong { .. } => gjallar_pubsub::Error::ItemNotFound,
        other => other,
    })?;
    if items.is_empty() {
        return Err(gjallar_pubsub::Error::ItemRequired);
    }
    let notify = matches!(retract.attr("notify"), Some("true" | "1"));
    Ok(Retract { node, items, notify })
}

/// Parses an items request. SPEC: with `max_items` and XEP-0059 in one request, any page has at most `max_items` items.
fn retrieve(
    items: &Element,
    order: ItemOrder,
    page: ListPage,
) -> Result<Retrieve, gjallar_pubsub::Error> {
    let node = node(items)?;
    // An id that is too long for an item matches no item (§6.5.9.12).
    let id = |item: &Element| match ItemId::parse(item.attr("id").unwrap_or_default()) {
        Err(gjallar_pubsub::Error::IdTooLong { .. }) => None,
        id => Some(id),
    };
    let by_name = children(items, "item").next().is_some();
    let ids = children(items, "item").filter_map(id).collect::<Result<Vec<_>, _>>()?;
    // COMPAT: XMPP4R writes an empty max_items instead of omitting it.
    let number = items.attr("max_items").map(str::trim).filter(|number| !number.is_empty());
    let number = number.map(str::parse::<u32>).transpose();
    let number =
        number.map_err(|_| gjallar_pubsub::Error::BadRequest("max_items must be a number"))?;
    let selection = match (page, number) {
        _ if by_name => Selection::Ids(ids),
        (None, number) => Selection::Recent(number.unwrap_or(u32::MAX)),
        (Some(page), number) => {
            let page = page
                .and_then(|id| ItemId::parse(&id).ok())
                .ok_or(gjallar_pubsub::Error::ItemNotFound)?;
            let max = page.max.min(number.map_or(usize::MAX, |number| number as usize));
            Selection::Page(PageRequest { max, ..page })
        }
    };
    Ok(Retrieve { node, selection, order, subid: subid(items) })
}

fn delete(delete: &Element) -> Result<Delete, gjallar_pubsub::Error> {
    let node = node(delete)?;
    let redirect = delete.get_child("redirect", ns::PUBSUB_OWNER);
    let redirect = redirect.map(|redirect| redirect.attr("uri").unwrap_or_default().to_owned());
    Ok(Delete { node, redirect })
}

/// Splits the entries of an owner's list into valid and invalid ones. An entry without a value is skipped: the
/// affiliation or subscription stays as it is (§8.8.2.1, §8.9.2.1).
///
/// # Errors
/// [`JidRequired`](gjallar_pubsub::Error::JidRequired) if no entry has a JID.
fn entries<T>(
    list: &Element,
    value: &str,
    read: impl Fn(&Element, &str) -> Result<T, &'static str>,
) -> Result<(Vec<T>, Vec<InvalidEntry>), gjallar_pubsub::Error> {
    let (mut valid, mut invalid) = (Vec::new(), Vec::new());
    let jid_of = |entry: &Element| entry.attr("jid").unwrap_or_default().to_owned();
    if list.children().next().is_some() && list.children().all(|entry| jid_of(entry).is_empty()) {
        return Err(gjallar_pubsub::Error::JidRequired);
    }
    for entry in list.children() {
        let Some(value) = entry.attr(value) else { continue };
        let jid = jid_of(entry);
        let outcome = if jid.is_empty() { Err(NO_JID) } else { read(entry, value) };
        match outcome {
            Ok(entry) => valid.push(entry),
            Err(reason) => {
                invalid.push(InvalidEntry { jid, subid: subid(entry), reason });
            }
        }
    }
    Ok((valid, invalid))
}

/// Checks that no two entries of an owner's list name the same address (§8.9.2.4), unless each has a SubID of its own
/// (§8.8.2.4). Two spellings of a domain are two addresses here.
///
/// # Errors
/// [`BadRequest`](gjallar_pubsub::Error::BadRequest).
fn check_named_once(
    list: &Element,
    named: impl Fn(&Element, Jid) -> (Jid, Option<SubId>),
) -> Result<(), gjallar_pubsub::Error> {
    let mut subids_of = HashMap::<_, HashSet<_>>::new();
    for entry in list.children() {
        let Some(Ok(jid)) = entry.attr("jid").map(Jid::stamped) else { continue };
        let (address, subid) = named(entry, jid);
        let subids = subids_of.entry(address).or_default();
        let has_own = subid.is_some() && !subids.contains(&None);
        if !subids.is_empty() && !has_own || !subids.insert(subid) {
            let text = "two entries for the same entity: no entry is applied";
            return Err(gjallar_pubsub::Error::BadRequest(text));
        }
    }
    Ok(())
}

const NOT_A_JID: &str = "not a valid JID";
const NO_JID: &str = "an entry without a JID";

/// Returns the address of an entry. If the entry revokes access (`takes_away`), the address may be invalid by RFC 7622,
/// because servers may accept such an address as the sender of stanzas. Thus entities with such addresses can be
/// banned.
fn entry_jid(entry: &Element, sender: &str, takes_away: bool) -> Result<Jid, &'static str> {
    let stamped =
        || entry.attr("jid").filter(|_| takes_away).and_then(|jid| Jid::stamped(jid).ok());
    jid(entry, sender).ok().or_else(stamped).ok_or(NOT_A_JID)
}

fn set_affiliations(
    affiliations: &Element,
    sender: &str,
) -> Result<SetAffiliations, gjallar_pubsub::Error> {
    let node = node(affiliations)?;
    check_named_once(affiliations, |_, jid| (jid.into_bare().into(), None))?;
    let (entries, invalid) = entries(affiliations, "affiliation", |entry, name| {
        let affiliation = Affiliation::parse(name).ok_or("not an affiliation of XEP-0060")?;
        let takes_away = matches!(affiliation, Affiliation::Outcast | Affiliation::None);
        Ok((entry_jid(entry, sender, takes_away)?.into_bare(), affiliation))
    })?;
    Ok(SetAffiliations { node, entries, invalid })
}

fn set_subscriptions(
    subscriptions: &Element,
    sender: &str,
) -> Result<SetSubscriptions, gjallar_pubsub::Error> {
    let node = node(subscriptions)?;
    check_named_once(subscriptions, |entry, jid| (jid, subid(entry)))?;
    let (entries, invalid) = entries(subscriptions, "subscription", |entry, name| {
        let wanted = match name {
            "unconfigured" => None,
            name => {
                Some(SubscriptionState::parse(name).ok_or("not a subscription state of XEP-0060")?)
            }
        };
        let takes_away = wanted == Some(SubscriptionState::None);
        Ok((entry_jid(entry, sender, takes_away)?, subid(entry), wanted))
    })?;
    Ok(SetSubscriptions { node, entries, invalid })
}

impl SetRequest {
    /// Returns the label of the request in metrics, which is derived from the name of its element.
    #[must_use]
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::SetAffiliations(_) => "set-affiliations",
            Self::Configure(_) => "configure",
            Self::Create(_) => "create",
            Self::Delete(_) => "delete",
            Self::SetSubscriptions(_) => "set-subscriptions",
            Self::Publish(_) => "publish",
            Self::Purge(_) => "purge",
            Self::Retract(_) => "retract",
            Self::SetOptions(_) => "set-options",
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe(_) => "unsubscribe",
        }
    }
}

impl GetRequest {
    /// Returns the label of the request in metrics: the name of the requested data.
    #[must_use]
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::Affiliations(..) | Self::OwnAffiliations(..) => "affiliations",
            Self::Configuration(_) => "configuration",
            Self::Default => "default",
            Self::DefaultOptions(_) => "default-options",
            Self::Options(_) => "options",
            Self::OwnSubscriptions(..) | Self::Subscriptions(..) => "subscriptions",
            Self::Retrieve(_) => "items",
        }
    }
}
