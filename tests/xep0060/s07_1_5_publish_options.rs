//! Preconditions of a publish request (§7.1.5), compared with the node configuration.

use super::s16_4_node_config::{NODE, OWNER, component_with_subscriber, is_granted};
use crate::support::component::{error, error_text, form, shown};

/// §7.1.5: preconditions are compared by meaning. Fields with several values are sets, `max` equals
/// its number, and the error text names the field that differs.
#[tokio::test]
async fn s7_1_5_preconditions_are_compared_by_their_meaning() {
    let mut component = component_with_subscriber(&[("max_items", "10000")]).await;
    let field = |var: &str, values: &[&str]| {
        let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
        format!("<field var='pubsub#{var}'>{values}</field>")
    };
    let contacts = field("contact", &["a@localhost", "b@localhost"]);
    let configured = form(&[]).replace("</x>", &format!("{contacts}</x>"));
    let configure = format!("<configure node='{NODE}'>{configured}</configure>");
    assert!(is_granted(&component.owner(OWNER, "set", &configure).await));
    for (wanted, is_met) in [
        (field("contact", &["b@localhost", "a@localhost"]), true),
        (field("contact", &["b@localhost", "a@localhost", "b@localhost"]), true),
        (field("contact", &["a@localhost"]), false),
        (field("contact", &["a@localhost", "b@localhost", "c@localhost"]), false),
        (field("contact", &[]), false),
        (field("max_items", &["max"]), true),
        (field("max_items", &["10000"]), true),
        (field("max_items", &["9999"]), false),
        (field("max_items", &["10001"]), false),
        (field("max_payload_size", &["65536"]), true),
        (field("max_payload_size", &["65537"]), false),
        (field("item_expire", &["max"]), true),
    ] {
        let options = form(&[]).replace("node_config", "publish-options");
        let options = options.replace("</x>", &format!("{wanted}</x>"));
        let publish = format!(
            "<publish node='{NODE}'><item><x xmlns='urn:x'/></item></publish>\
             <publish-options>{options}</publish-options>"
        );
        let answer = component.pubsub(OWNER, "set", &publish).await;
        assert_eq!(is_granted(&answer), is_met, "{wanted}: {}", shown(&answer));
        if !is_met {
            assert_eq!(error(&answer), "cancel conflict precondition-not-met");
            let name = wanted.split('\'').nth(1).unwrap();
            assert!(error_text(&answer).contains(name), "{}", error_text(&answer));
        }
    }
}
