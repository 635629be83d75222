//! Events of a pubsub service, as the client receives them.

use minidom::Element;

use crate::xmpp::{stanza::ns, xml::writer};

/// Event at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name of the node.
    pub node: String,
    /// Kind of the event, with its data.
    pub what: EventKind,
    /// Original time of the event, if the service sends the event late (XEP-0203).
    pub since: Option<String>,
    /// Stanza id of the event, if the service assigns one (XEP-0359).
    pub place: Option<String>,
}

/// Kind of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The configuration has changed.
    Configured,
    /// The node is deleted. The value is the URI of its redirect, if there is one.
    Deleted(Option<String>),
    /// An item is published. `None` if notifications of the node do not contain the items.
    Published(Option<Item>),
    /// All items are deleted.
    Purged,
    /// The item with this id is retracted.
    Retracted(String),
    /// The subscription of the account has this state.
    Subscription(String),
}

/// Published item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Id of the item.
    pub id: String,
    /// Publisher, if the service reveals it.
    pub publisher: Option<String>,
    /// Payload as XML; `None` if the item has no payload.
    pub payload: Option<String>,
}

impl Item {
    pub(super) fn of(item: &Element) -> Option<Self> {
        Some(Self {
            id: item.attr("id")?.to_owned(),
            publisher: item.attr("publisher").map(str::to_owned),
            payload: item.children().next().map(writer::stand_alone),
        })
    }
}

/// Returns the events in the payloads of a message. Each event gets the delay and the stanza id of the message.
pub(super) fn events(payloads: &[Element]) -> Vec<Event> {
    let find = |name, namespace| payloads.iter().find(|payload| payload.is(name, namespace));
    let since = find("delay", ns::DELAY).and_then(|delay| delay.attr("stamp"));
    let place = find("stanza-id", ns::STANZA_ID).and_then(|id| id.attr("id"));
    let Some(content) = find("event", ns::PUBSUB_EVENT).and_then(|event| event.children().next())
    else {
        return Vec::new();
    };
    let attr = |name: &str| content.attr(name).unwrap_or_default().to_owned();
    let what = match content.name() {
        "configuration" => vec![EventKind::Configured],
        "delete" => {
            let redirect = content.get_child("redirect", ns::PUBSUB_EVENT);
            vec![EventKind::Deleted(redirect.and_then(|to| to.attr("uri")).map(str::to_owned))]
        }
        "items" if content.children().next().is_none() => vec![EventKind::Published(None)],
        "items" => content.children().filter_map(item).collect(),
        "purge" => vec![EventKind::Purged],
        "subscription" => vec![EventKind::Subscription(attr("subscription"))],
        _ => Vec::new(),
    };
    let event = |what| Event {
        node: attr("node"),
        what,
        since: since.map(str::to_owned),
        place: place.map(str::to_owned),
    };
    what.into_iter().map(event).collect()
}

fn item(item: &Element) -> Option<EventKind> {
    match item.name() {
        "item" => Item::of(item).map(|item| EventKind::Published(Some(item))),
        "retract" => Some(EventKind::Retracted(item.attr("id")?.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(event: &str) -> Vec<EventKind> {
        let event = format!("<event xmlns='{}'>{event}</event>", ns::PUBSUB_EVENT);
        let delay = format!("<delay xmlns='{}' stamp='2026-01-01T00:00:00Z'/>", ns::DELAY);
        let payloads = [event.parse().unwrap(), delay.parse().unwrap()];
        let events = events(&payloads);
        assert!(events.iter().all(|event| event.node == "n" && event.since.is_some()));
        events.into_iter().map(|event| event.what).collect()
    }

    #[test]
    fn every_kind_of_event_is_parsed() {
        let item = |id: &str, payload: Option<&str>| Item {
            id: id.into(),
            publisher: None,
            payload: payload.map(str::to_owned),
        };
        assert_eq!(
            parsed("<items node='n'><item id='1'/><item id='2'><x xmlns='urn:x'/></item></items>"),
            [
                EventKind::Published(Some(item("1", None))),
                EventKind::Published(Some(item("2", Some("<x xmlns='urn:x'/>")))),
            ]
        );
        assert_eq!(parsed("<items node='n'/>"), [EventKind::Published(None)]);
        assert_eq!(
            parsed("<items node='n'><retract id='1'/></items>"),
            [EventKind::Retracted("1".into())]
        );
        assert_eq!(parsed("<purge node='n'/>"), [EventKind::Purged]);
        assert_eq!(parsed("<configuration node='n'/>"), [EventKind::Configured]);
        assert_eq!(
            parsed("<delete node='n'><redirect uri='xmpp:x'/></delete>"),
            [EventKind::Deleted(Some("xmpp:x".into()))]
        );
        assert_eq!(
            parsed("<subscription node='n' jid='a@b' subscription='none'/>"),
            [EventKind::Subscription("none".into())]
        );
        assert_eq!(parsed("<unknown node='n'/>"), []);
    }
}
