//! The load: plays the server of a component, and its users. Says on standard output where it listens, and then, in
//! a line of JSON each, what came of each thing that it was asked to do.

use std::{error::Error, net::TcpListener, time::Duration};

use clap::{Parser, Subcommand};
use gjallar_load::{
    link,
    peer::{Peer, Plan, Run},
    user,
};
use hdrhistogram::Histogram;
use serde_json::json;

const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
const OWNER: &str = "owner@localhost/load";

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value = "pubsub.localhost")]
    service: String,
    /// Bytes of an item's text: with 130 a notification has about 400.
    #[arg(long, default_value_t = 130)]
    text: usize,
    /// Runs of the same, one after the other.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Publishes to one node with many subscribers.
    Fanout {
        #[arg(long, default_value_t = 1000)]
        subscribers: u64,
        #[arg(long, default_value_t = 1000)]
        publishes: u64,
        #[arg(long, default_value_t = 16)]
        outstanding: u64,
        /// Publishes a second; without it as many as go.
        #[arg(long)]
        rate: Option<u64>,
    },
    /// Publishes to nodes with one subscriber each.
    Publish {
        #[arg(long, default_value_t = 1)]
        nodes: u64,
        #[arg(long, default_value_t = 50_000)]
        publishes: u64,
        #[arg(long, default_value_t = 64)]
        outstanding: u64,
        /// How many items a node keeps.
        #[arg(long, default_value = "max")]
        max_items: String,
    },
    /// Subscribes many to one node, and publishes to it once.
    Subscribe {
        #[arg(long, default_value_t = 100_000)]
        subscribers: u64,
        #[arg(long, default_value_t = 64)]
        outstanding: u64,
    },
    /// Reads.
    Read {
        #[arg(long, default_value_t = 200_000)]
        requests: u64,
        #[arg(long, default_value_t = 64)]
        outstanding: u64,
    },
}

struct Load {
    arguments: Arguments,
    peer: Peer,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    let (reader, tcp) = link::accept(&listener)?;
    Load { arguments, peer: Peer::new(reader, tcp) }.work()
}

impl Load {
    fn work(&self) -> Result<(), Box<dyn Error>> {
        match &self.arguments.workload {
            Workload::Fanout { subscribers, publishes, outstanding, rate } => {
                self.create("fanout", "max")?;
                self.subscribe("fanout", *subscribers, 64)?;
                for _ in 0..self.arguments.runs {
                    let run = self.peer.run(Plan {
                        requests: *publishes,
                        outstanding: *outstanding,
                        rate: *rate,
                        audience: *subscribers,
                        write: &mut |number, out| self.publish("fanout", number, out),
                    })?;
                    report("notifications", run.heard, run.heard_in, &run);
                }
            }
            Workload::Publish { nodes, publishes, outstanding, max_items } => {
                for node in 0..*nodes {
                    self.create(&node.to_string(), max_items)?;
                    self.subscribe(&node.to_string(), 1, 1)?;
                }
                for _ in 0..self.arguments.runs {
                    let run = self.peer.run(Plan {
                        requests: *publishes,
                        outstanding: *outstanding,
                        rate: None,
                        audience: 1,
                        write: &mut |number, out| {
                            self.publish(&(number % nodes).to_string(), number, out);
                        },
                    })?;
                    report("publishes", *publishes, run.answered_in, &run);
                }
            }
            Workload::Subscribe { subscribers, outstanding } => {
                self.create("crowd", "1")?;
                let run = self.subscribe("crowd", *subscribers, *outstanding)?;
                report("subscriptions", *subscribers, run.answered_in, &run);
                for _ in 0..self.arguments.runs {
                    let run = self.peer.run(Plan {
                        requests: 1,
                        outstanding: 1,
                        rate: None,
                        audience: *subscribers,
                        write: &mut |number, out| self.publish("crowd", number, out),
                    })?;
                    report("notifications", run.heard, run.heard_in, &run);
                }
            }
            Workload::Read { requests, outstanding } => {
                self.create("read", "max")?;
                for number in 0..10 {
                    self.ask(|out| self.publish("read", number, out))?;
                }
                let items =
                    format!("<pubsub xmlns='{PUBSUB}'><items node='read' max_items='1'/></pubsub>");
                let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='read'/>";
                let ping = "<ping xmlns='urn:xmpp:ping'/>";
                for (what, content) in [("items", &*items), ("disco", info), ("pings", ping)] {
                    let run = self.peer.run(Plan {
                        requests: *requests,
                        outstanding: *outstanding,
                        rate: None,
                        audience: 0,
                        write: &mut |number, out| {
                            let from = user(number % 1000, None);
                            self.request("get", &from, number, content, out);
                        },
                    })?;
                    report(what, *requests, run.answered_in, &run);
                }
            }
        }
        Ok(())
    }

    /// One request, and its answer.
    fn ask(&self, mut write: impl FnMut(&mut Vec<u8>)) -> Result<(), Box<dyn Error>> {
        self.peer.run(Plan {
            requests: 1,
            outstanding: 1,
            rate: None,
            audience: 0,
            write: &mut |_, out| write(out),
        })?;
        Ok(())
    }

    fn create(&self, node: &str, max_items: &str) -> Result<(), Box<dyn Error>> {
        let content = format!(
            "<pubsub xmlns='{PUBSUB}'><create node='{node}'/><configure><x xmlns='jabber:x:data' \
             type='submit'><field var='FORM_TYPE'><value>{PUBSUB}#node_config</value></field><field \
             var='pubsub#max_items'><value>{max_items}</value></field></x></configure></pubsub>"
        );
        self.ask(|out| self.request("set", OWNER, 0, &content, out))
    }

    fn subscribe(&self, node: &str, number: u64, outstanding: u64) -> Result<Run, Box<dyn Error>> {
        Ok(self.peer.run(Plan {
            requests: number,
            outstanding,
            rate: None,
            audience: 0,
            write: &mut |index, out| {
                let jid = user(index, None);
                let content = format!(
                    "<pubsub xmlns='{PUBSUB}'><subscribe node='{node}' jid='{jid}'/></pubsub>"
                );
                self.request("set", &jid, index, &content, out);
            },
        })?)
    }

    fn publish(&self, node: &str, number: u64, out: &mut Vec<u8>) {
        let text = "x".repeat(self.arguments.text);
        let content = format!(
            "<pubsub xmlns='{PUBSUB}'><publish node='{node}'><item id='{number}'><entry \
             xmlns='urn:load'>{text}</entry></item></publish></pubsub>"
        );
        self.request("set", OWNER, number, &content, out);
    }

    fn request(&self, kind: &str, from: &str, id: u64, content: &str, out: &mut Vec<u8>) {
        let to = &self.arguments.service;
        let stanza = format!("<iq type='{kind}' from='{from}' to='{to}' id='{id}'>{content}</iq>");
        out.extend_from_slice(stanza.as_bytes());
    }
}

fn report(what: &str, number: u64, took: Duration, run: &Run) {
    let seconds = took.as_secs_f64();
    let result = json!({
        "what": what,
        "number": number,
        "seconds": seconds,
        "per_second": number as f64 / seconds,
        "answers": microseconds(&run.answers),
        "events": microseconds(&run.events),
    });
    println!("{result}");
}

fn microseconds(histogram: &Histogram<u64>) -> serde_json::Value {
    json!({
        "p50": histogram.value_at_quantile(0.5),
        "p99": histogram.value_at_quantile(0.99),
        "max": histogram.max(),
    })
}
