//! Bot that publishes a number of items to a node, one per second, and prints each when it is on disk.
//!
//! ```text
//! cargo run --example bot -- bot@localhost pw pubsub.localhost princely_musings 10 127.0.0.1:5222
//! ```
//!
//! The last argument is a server on this machine, reached without TLS. Anywhere else leave out `at`.

#![allow(clippy::print_stdout)]

use std::{env, error::Error, time::Duration};

use gjallar::client::{Account, Client};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [jid, password, service, node, number, server] = arguments.as_slice() else {
        return Err("usage: bot JID PASSWORD SERVICE NODE NUMBER HOST:PORT".into());
    };
    let account = Account::new(jid.parse()?, password).at(server);
    let mut client = Client::connect(account, service.parse()?).await?;
    for number in 1..=number.parse()? {
        let (id, title) = (format!("item-{number}"), format!("Thought number {number}"));
        let entry =
            format!("<entry xmlns='http://www.w3.org/2005/Atom'><title>{title}</title></entry>");
        client.publish(node, Some(&id), &entry).await?;
        println!("published {id}: it is on disk");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
