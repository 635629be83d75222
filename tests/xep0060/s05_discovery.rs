//! Discovery (§5) beyond the scripts: own subscriptions and affiliations.

use crate::support::component::{PUBSUB, TestComponent};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";

/// §5.6, §5.7: a reply about one node names the node.
#[tokio::test]
async fn s5_6_own_lists_at_one_node_name_the_node() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    for (list, node) in [
        ("<subscriptions node='n'/>", Some("n")),
        ("<affiliations node='n'/>", Some("n")),
        ("<subscriptions/>", None),
        ("<affiliations/>", None),
    ] {
        let reply = component.pubsub(READER, "get", list).await;
        let pubsub = reply.get_child("pubsub", PUBSUB).unwrap();
        assert_eq!(pubsub.children().next().unwrap().attr("node"), node, "{list}");
    }
}
