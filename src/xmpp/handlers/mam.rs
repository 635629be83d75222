//! Archives of nodes (XEP-0313).

use minidom::Element;

use crate::{
    service::Error,
    xmpp::{
        stanza::{
            envelope::Envelope,
            mam::{self, MamRequest, MamResultContext},
            request,
        },
        xml::writer::ElementWriter,
    },
};
use gjallar_pubsub::Actor;

use crate::xmpp::router::Router;

impl Router {
    /// Sends the results of a query, and returns the `<fin/>` of the reply (XEP-0313 §4).
    pub(in crate::xmpp) async fn archive(
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
            let result = match self.fits_with_item(header, &whole) {
                true => whole,
                false => mam::placeholder(&source, item).to_string(),
            };
            self.send_to(source.to, result);
        }
        Ok(mam::fin(&archived.ids, archived.is_complete))
    }

    pub(in crate::xmpp) async fn archive_ends(
        &self,
        actor: &Actor,
        metadata: Element,
    ) -> Result<ElementWriter, Error> {
        let node = request::node(&metadata)?;
        drop(metadata);
        let ends = self.service().archive_ends(actor, &node).await?;
        Ok(mam::metadata(ends.as_ref()))
    }
}
