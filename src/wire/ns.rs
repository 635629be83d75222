//! The namespaces that are spoken.

pub(crate) const COMMANDS: &str = "http://jabber.org/protocol/commands";
pub(crate) const COMPONENT: &str = "jabber:component:accept";
pub(crate) const ADDRESS: &str = "http://jabber.org/protocol/address";
pub(crate) const DATA_FORMS: &str = "jabber:x:data";
pub(crate) const DELAY: &str = "urn:xmpp:delay";
pub(crate) const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
pub(crate) const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
pub(crate) const GET_PENDING: &str = "http://jabber.org/protocol/pubsub#get-pending";
pub(crate) const HINTS: &str = "urn:xmpp:hints";
pub(crate) const META_DATA: &str = "http://jabber.org/protocol/pubsub#meta-data";
pub(crate) const NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
pub(crate) const PING: &str = "urn:xmpp:ping";
pub(crate) const PRIVILEGE_1: &str = "urn:xmpp:privilege:1";
pub(crate) const PRIVILEGE_2: &str = "urn:xmpp:privilege:2";
pub(crate) const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
pub(crate) const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
pub(crate) const PUBSUB_CACHING: &str = "urn:xmpp:pubsub-caching:0";
pub(crate) const PUBSUB_ERRORS: &str = "http://jabber.org/protocol/pubsub#errors";
pub(crate) const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
pub(crate) const PUBSUB_FILTER: &str = "urn:xmpp:pubsub-filter:0";
pub(crate) const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
pub(crate) const ROSTER: &str = "jabber:iq:roster";
pub(crate) const RSM: &str = "http://jabber.org/protocol/rsm";
pub(crate) const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
pub(crate) const STANZA_ID: &str = "urn:xmpp:sid:0";
pub(crate) const STREAMS: &str = "http://etherx.jabber.org/streams";
pub(crate) const XML: &str = "http://www.w3.org/XML/1998/namespace";
pub(crate) const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
pub(crate) const SHIM: &str = "http://jabber.org/protocol/shim";
pub(crate) const SUBSCRIBE_OPTIONS: &str = "http://jabber.org/protocol/pubsub#subscribe_options";
pub(crate) const SUBSCRIBE_AUTHORIZATION: &str =
    "http://jabber.org/protocol/pubsub#subscribe_authorization";
pub(crate) const VERSION: &str = "jabber:iq:version";
