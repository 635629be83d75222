//! Order of items (XEP-0413).

use minidom::Element;

use crate::xmpp::stanza::ns;
use gjallar_pubsub::{ItemOrder, OrderField};

/// Returns the requested order of items. Only the first `<order/>` element has an effect, because no two items are
/// equal in any order.
///
/// # Errors
/// [`NotImplemented`](gjallar_pubsub::Error::NotImplemented) for an order that is not in XEP-0413;
/// [`BadRequest`](gjallar_pubsub::Error::BadRequest) for an `<order/>` without the attribute `by`, or with an invalid
/// attribute `desc`.
pub fn order(parent: &Element) -> Result<ItemOrder, gjallar_pubsub::Error> {
    let asked = parent.children().filter(|child| child.is("order", ns::ORDER_BY));
    let orders = asked.map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(orders.first().copied().unwrap_or_default())
}

fn one(order: &Element) -> Result<ItemOrder, gjallar_pubsub::Error> {
    let by = match order.attr("by") {
        Some("creation") => OrderField::Creation,
        Some("modification") => OrderField::Modification,
        Some(_) => {
            return Err(gjallar_pubsub::Error::NotImplemented(
                "the value of the attribute 'by' of <order/>".into(),
            ));
        }
        None => {
            return Err(gjallar_pubsub::Error::BadRequest(
                "the element <order/> requires the attribute 'by'",
            ));
        }
    };
    let is_descending = match order.attr("desc") {
        Some("true" | "1") => true,
        None | Some("false" | "0") => false,
        Some(_) => return Err(gjallar_pubsub::Error::BadRequest("desc must be true or false")),
    };
    Ok(ItemOrder { by, is_descending })
}
