//! Subscriber that prints each event of a node as it arrives, until a number of items have arrived.
//!
//! ```text
//! cargo run --example subscriber -- romeo@localhost pw pubsub.localhost princely_musings 10 127.0.0.1:5222
//! ```
//!
//! Use an account whose messages no other program reads: the client takes all of them, including stored ones, and drops
//! everything but events.
//!
//! The last argument is a server on this machine, reached without TLS. Anywhere else leave out `at`.

#![allow(clippy::print_stdout)]

use std::{env, error::Error};

use gjallar::client::{Account, Client, EventKind};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [jid, password, service, node, number, server] = arguments.as_slice() else {
        return Err("usage: subscriber JID PASSWORD SERVICE NODE NUMBER HOST:PORT".into());
    };
    let account = Account::new(jid.parse()?, password).at(server);
    let mut client = Client::connect(account, service.parse()?).await?;
    client.subscribe(node).await?;
    println!("subscribed");
    let mut missing: usize = number.parse()?;
    while missing > 0 {
        match client.event().await.ok_or("the connection has ended")?.what {
            EventKind::Published(Some(item)) => {
                println!("received {}: {}", item.id, item.payload.unwrap_or_default());
                missing -= 1;
            }
            other => println!("received {other:?}"),
        }
    }
    Ok(())
}
