//! Privileges that the server grants to the service (XEP-0356): reading rosters.

use jid::{BareJid, Jid};
use minidom::Element;

use crate::xmpp::{
    stanza::{envelope::Envelope, notification, ns},
    xml::writer::ElementWriter,
};
use gjallar_pubsub::{Roster, RosterItem};

use crate::xmpp::router::Router;

/// Prefix of the ids of roster requests.
const ROSTER: &str = "roster-";
/// Maximum number of entries of a roster that are read.
const MAX_CONTACTS: usize = 10_000;

impl Router {
    /// Handles a message if it grants privileges, in either version of the protocol. Returns `true` for such a message.
    pub(in crate::xmpp) fn handle_privileges(&self, from: Option<&str>, message: &Element) -> bool {
        let Some(is_granted) = grants_rosters(message) else { return false };
        // Anyone can send such a message.
        if let Some(server) = self.server().filter(|server| from == Some(server)) {
            self.service().rosters().set_privilege(is_granted.then(|| server.to_owned()));
        }
        true
    }

    /// Requests the rosters that have to be read. Runs until dropped.
    pub(in crate::xmpp) async fn request_rosters(&self) {
        loop {
            let owner = self.service().rosters().next_request().await;
            self.room_of_own().await;
            let id = format!("{ROSTER}{:016x}", self.service().next_u64());
            let request = ElementWriter::new("iq")
                .attr("type", "get")
                .attr("id", &id)
                .attr("from", self.jid().as_str())
                .attr("to", owner.as_str())
                .child(ElementWriter::ns("query", ns::ROSTER));
            self.send_unsolicited(&request.to_string());
        }
    }

    /// Handles a requested roster that exceeds the limit of stanza sizes, so that its content is unknown. Returns
    /// `true` if the stanza is such a roster; does nothing for other stanzas.
    pub(in crate::xmpp) fn handle_oversized_roster(&self, header: &Envelope) -> bool {
        let is_result = header.name == "iq" && header.kind.as_deref() == Some("result");
        let is_roster = header.id.as_ref().is_some_and(|id| id.starts_with(ROSTER));
        let owner = header.sender().filter(|_| is_result && is_roster).map(Jid::into_bare);
        let Some(owner) = owner.filter(|owner| self.service().rosters().awaits(owner)) else {
            return false;
        };
        self.service().on_roster_result(&owner, None);
        true
    }

    /// Handles a requested roster. Returns `true` if the stanza is such a roster; does nothing for other stanzas.
    pub(in crate::xmpp) fn handle_roster_result(&self, stanza: &Element) -> bool {
        let is_result = stanza.name() == "iq"
            && matches!(stanza.attr("type"), Some("result" | "error"))
            && stanza.attr("id").is_some_and(|id| id.starts_with(ROSTER));
        let owner = stanza.attr("from").filter(|_| is_result);
        let Some(owner) = owner.and_then(|owner| BareJid::stamped(owner).ok()) else {
            return false;
        };
        if !self.service().rosters().awaits(&owner) {
            return false;
        }
        // An owner that no longer exists has no contacts.
        let none = notification::is_gone(stanza).then(Roster::default);
        let roster = stanza.get_child("query", ns::ROSTER).map(contacts).or(none);
        self.service().on_roster_result(&owner, roster);
        true
    }
}

/// Returns `true` if a message grants the permission to read rosters, and `false` if its privileges do not include this
/// permission. Returns `None` if the message has no privileges.
pub(in crate::xmpp) fn grants_rosters(message: &Element) -> Option<bool> {
    let versions = [ns::PRIVILEGE_1, ns::PRIVILEGE_2];
    let mut found = versions.iter().filter_map(|version| message.get_child("privilege", *version));
    let is_roster = |perm: &Element| {
        perm.attr("access") == Some("roster") && matches!(perm.attr("type"), Some("get" | "both"))
    };
    found.next().map(|privilege| privilege.children().any(is_roster))
}

fn contacts(query: &Element) -> Roster {
    let entry = |item: &Element| {
        let entity = BareJid::stamped(item.attr("jid")?).ok()?;
        let groups = item.children().filter(|child| child.is("group", ns::ROSTER));
        let groups = groups.map(Element::text).collect();
        let has_presence = matches!(item.attr("subscription"), Some("from" | "both"));
        Some((entity, RosterItem { has_presence, groups }))
    };
    query.children().take(MAX_CONTACTS).filter_map(entry).collect()
}
