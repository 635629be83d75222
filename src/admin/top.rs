//! Live metrics of the service, and its busiest nodes, for `gjallar top`.

use std::{collections::HashMap, io, time::Duration};

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::service::Service;
use gjallar_pubsub::Epoch;

use super::{control_socket::ResponseLines, protocol::AdminResponse};

/// Interval between two lines.
const PERIOD: Duration = Duration::from_secs(1);
/// Maximum number of nodes in a line, the busiest first.
const MAX_SHOWN: usize = 20;

/// Writes one line per second until the client closes the connection: the values of the metrics, and the number of
/// events at each of the busiest nodes in the past second.
pub(crate) async fn show(service: &Service, out: &mut ResponseLines) -> io::Result<()> {
    let mut before: HashMap<Epoch, u64> = HashMap::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sequences = service.node_sequences().await;
        let mut rates: Vec<_> = sequences
            .iter()
            .filter_map(|(node, epoch, sequence)| {
                let events = sequence.0.saturating_sub(*before.get(epoch)?);
                (events > 0).then_some((events, node.as_str()))
            })
            .collect();
        rates.sort_unstable_by(|a, b| b.cmp(a));
        let busiest: Vec<_> = rates
            .iter()
            .take(MAX_SHOWN)
            .map(|(events, node)| json!({ "node": node, "events": events }))
            .collect();
        let figures: serde_json::Map<_, _> = service
            .values()
            .into_iter()
            .map(|(name, _, value)| (name.to_owned(), value.into()))
            .collect();
        out.write(&AdminResponse::Line(json!({ "figures": figures, "busiest": busiest }))).await?;
        before = sequences.into_iter().map(|(_, epoch, sequence)| (epoch, sequence.0)).collect();
    }
}
