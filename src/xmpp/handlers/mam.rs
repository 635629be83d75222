//! Requests of other protocols than XEP-0060.

use minidom::{Element, Node};

use crate::{
    service::Error,
    xmpp::{
        stanza::{
            envelope::{Envelope, StanzaError},
            mam::{self, MamRequest, MamResultContext},
            ns, request,
        },
        xml::writer::ElementWriter,
    },
};
use gjallar_pubsub::Actor;

use super::pubsub;
use crate::xmpp::Router;

type HandlerResult = Result<Option<ElementWriter>, StanzaError>;

impl Router {
    /// Answers a request. The parsed stanza is dropped early.
    pub(in crate::xmpp) async fn request(
        &self,
        header: &Envelope,
        actor: &Actor,
        mut stanza: Element,
        is_set: bool,
    ) {
        let Some(child) = stanza.take_nodes().into_iter().find_map(Node::into_element) else {
            return;
        };
        let content = match (child.name(), child.ns().as_str(), is_set) {
            ("query", ns::DISCO_INFO, false) => self.info(actor, child).await,
            ("query", ns::DISCO_ITEMS, false) => self.items(actor, child).await,
            ("query", ns::MAM, false) => Ok(Some(mam::form())),
            ("query", ns::MAM, true) => self.shown(self.archive(header, actor, child).await),
            ("metadata", ns::MAM, false) => self.shown(self.archive_ends(actor, child).await),
            ("ping", ns::PING, false) => Ok(None),
            ("query", ns::VERSION, false) => Ok(Some(version())),
            ("command", ns::COMMANDS, true) => {
                let frame = header.result(Some(ElementWriter::new("command"))).len();
                let room = self.max_stanza_bytes().saturating_sub(frame);
                return match self.commands().run(actor, child, room).await {
                    Ok(stage) => self.send(header, header.result(Some(stage))),
                    Err(error) => self.refuse(header, &error),
                };
            }
            ("query", ns::DISCO_INFO | ns::DISCO_ITEMS | ns::VERSION, true)
            | ("ping", ns::PING, true)
            | ("metadata", ns::MAM, true)
            | ("command", ns::COMMANDS, false) => Err(StanzaError::new("modify", "bad-request")
                .text("a request of the other type: get asks, set changes")),
            _ => Err(StanzaError::new("cancel", "service-unavailable")
                .text("the service does not implement this protocol")),
        };
        match content {
            Ok(content) => self.send(header, header.result(content)),
            Err(error) => self.refuse(header, &error),
        }
    }

    fn shown(&self, shown: Result<ElementWriter, Error>) -> HandlerResult {
        shown.map(Some).map_err(|error| self.error(&error))
    }

    async fn info(&self, actor: &Actor, query: Element) -> HandlerResult {
        let node = query.attr("node").map(str::to_owned);
        drop(query);
        self.shown(pubsub::info(self.service(), self.commands(), actor, node.as_deref()).await)
    }

    async fn items(&self, actor: &Actor, query: Element) -> HandlerResult {
        self.shown(pubsub::items(self.service(), self.commands(), self.jid(), actor, query).await)
    }

    /// Sends what an archive has, and says what ends the answer (XEP-0313 §4).
    async fn archive(
        &self,
        header: &Envelope,
        actor: &Actor,
        query: Element,
    ) -> Result<ElementWriter, Error> {
        let submitted = mam::submitted(&query)?;
        drop(query);
        let MamRequest { query, queryid, is_flipped } = submitted;
        let archived = self.service().query_archive(actor, &query).await?;
        let source = MamResultContext {
            service: self.jid().as_str(),
            to: header.from.as_deref().unwrap_or_default(),
            queryid: queryid.as_deref(),
            node: &query.node,
            config: &archived.config,
            attribution: &archived.attribution,
        };
        let mut items: Vec<_> = archived.items.iter().collect();
        if is_flipped {
            items.reverse();
        }
        for item in items {
            let whole = mam::result(&source, item).to_string();
            let result = match self.fits(&whole) {
                true => whole,
                false => mam::placeholder(&source, item).to_string(),
            };
            self.send_to(source.to, result);
        }
        Ok(mam::fin(&archived.ids, archived.is_complete))
    }

    async fn archive_ends(&self, actor: &Actor, metadata: Element) -> Result<ElementWriter, Error> {
        let node = request::node(&metadata)?;
        drop(metadata);
        let ends = self.service().archive_ends(actor, &node).await?;
        Ok(mam::metadata(ends.as_ref()))
    }
}

/// XEP-0092.
fn version() -> ElementWriter {
    ElementWriter::ns("query", ns::VERSION)
        .child(ElementWriter::new("name").text(env!("CARGO_PKG_NAME")))
        .child(ElementWriter::new("version").text(env!("CARGO_PKG_VERSION")))
}
