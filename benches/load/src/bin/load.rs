//! Load generator: acts as the server of a component and as its users, or as users behind a real
//! server to which it connects as a component. Prints where it listens, or that it is connected,
//! and then the result of each run as a line of JSON.

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

#[derive(Parser)]
struct LoadArgs {
    #[arg(long, default_value = "pubsub.localhost")]
    service: String,
    /// Component port of a real server, HOST:PORT, to connect to; without it, the service connects
    /// to the load generator.
    #[arg(long)]
    server: Option<String>,
    /// Domain of the component at the server; all users are in this domain.
    #[arg(long, default_value = "users.localhost")]
    domain: String,
    #[arg(long, default_value = "s3cret")]
    secret: String,
    /// Bytes of text in an item; with 130 a notification has about 400 bytes.
    #[arg(long, default_value_t = 130)]
    text: usize,
    /// Number of repetitions.
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
        /// Publishes per second; without it, as many as possible.
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
        /// Maximum number of items of a node.
        #[arg(long, default_value = "max")]
        max_items: String,
    },
    /// Subscribes many JIDs to one node, and publishes to it once.
    Subscribe {
        #[arg(long, default_value_t = 100_000)]
        subscribers: u64,
        #[arg(long, default_value_t = 64)]
        outstanding: u64,
    },
    /// Publishes to a node with very many subscribers, and concurrently at another node.
    Aside {
        #[arg(long, default_value_t = 1_000_000)]
        subscribers: u64,
        /// Publishes per second at the other node, for three seconds.
        #[arg(long, default_value_t = 200)]
        rate: u64,
    },
    /// Creates many nodes of many owners, and fills them; then publishes to random nodes.
    Fill {
        #[arg(long, default_value_t = 100_000)]
        nodes: u64,
        /// Items in each node.
        #[arg(long, default_value_t = 10)]
        items: u64,
    },
    /// Publishes once to an existing node, to measure the start of a service.
    Once,
    /// Publishes this number of items to one node, and reports the time of each part.
    History {
        #[arg(long, default_value_t = 200_000)]
        publishes: u64,
        #[arg(long, default_value_t = 10)]
        parts: u64,
    },
    /// Retrieves items.
    Read {
        #[arg(long, default_value_t = 200_000)]
        requests: u64,
        #[arg(long, default_value_t = 64)]
        outstanding: u64,
    },
}

struct Load {
    arguments: LoadArgs,
    peer: Peer,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = LoadArgs::parse();
    let (reader, tcp) = match &arguments.server {
        Some(server) => {
            let connected = link::connect(server, &arguments.domain, &arguments.secret)?;
            println!("connected");
            connected
        }
        None => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            println!("{}", listener.local_addr()?.port());
            link::accept(&listener)?
        }
    };
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
                    report("notifications", run.notifications, run.notified_in, &run);
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
                    report("notifications", run.notifications, run.notified_in, &run);
                }
            }
            Workload::Aside { subscribers, rate } => {
                self.create("crowd", "1")?;
                self.create("aside", "1")?;
                self.subscribe("crowd", *subscribers, 64)?;
                self.subscribe("aside", 1, 1)?;
                let requests = 3 * rate;
                let run = self.peer.run(Plan {
                    requests,
                    outstanding: 64,
                    rate: Some(*rate),
                    audience: 0,
                    write: &mut |number, out| {
                        let node = if number % rate == 0 { "crowd" } else { "aside" };
                        self.publish(node, number, out);
                    },
                })?;
                report("publishes", requests, run.answered_in, &run);
            }
            Workload::Fill { nodes, items } => {
                self.fill(*nodes, *items)?;
            }
            Workload::Once => self.ask(|out| self.publish_as(&self.user(0), "0", 0, out))?,
            Workload::History { publishes, parts } => {
                self.create("history", "max")?;
                self.subscribe("history", 1, 1)?;
                let each = publishes / parts;
                for part in 0..*parts {
                    let run = self.peer.run(Plan {
                        requests: each,
                        outstanding: 64,
                        rate: None,
                        audience: 0,
                        write: &mut |number, out| {
                            let text =
                                self.publication("history", &(part * each + number).to_string());
                            self.request("set", &self.owner(), number, &text, out);
                        },
                    })?;
                    report(&format!("{}", (part + 1) * each), each, run.answered_in, &run);
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
                            let from = self.user(number % 1000);
                            self.request("get", &from, number, content, out);
                        },
                    })?;
                    report(what, *requests, run.answered_in, &run);
                }
            }
        }
        Ok(())
    }

    /// Creates nodes, each of a different user and with a subscriber, and publishes items to them.
    fn fill(&self, nodes: u64, items: u64) -> Result<(), Box<dyn Error>> {
        let all = |requests, write: &mut dyn FnMut(u64, &mut Vec<u8>)| {
            self.peer.run(Plan { requests, outstanding: 64, rate: None, audience: 0, write })
        };
        let created = all(nodes, &mut |node, out| {
            let content = creation(&node.to_string(), "max");
            self.request("set", &self.user(node), node, &content, out);
        })?;
        report("nodes", nodes, created.answered_in, &created);
        let subscribed = all(nodes, &mut |node, out| {
            let jid = self.user(node);
            self.request("set", &jid, node, &subscription(&node.to_string(), &jid), out);
        })?;
        report("subscriptions", nodes, subscribed.answered_in, &subscribed);
        let parts = 5;
        for part in 0..parts {
            let each = nodes * items / parts;
            let published = all(each, &mut |number, out| {
                // Visits every node in pseudo-random order.
                let number = part * each + number;
                let node = number.wrapping_mul(0x9e37_79b1) % nodes;
                let text = self.publication(&node.to_string(), &number.to_string());
                self.request("set", &self.user(node), number % each, &text, out);
            })?;
            report(&format!("{}", (part + 1) * each), each, published.answered_in, &published);
        }
        Ok(())
    }

    fn owner(&self) -> String {
        match &self.arguments.server {
            Some(_) => format!("owner@{}/load", self.arguments.domain),
            None => "owner@localhost/load".into(),
        }
    }

    fn user(&self, index: u64) -> String {
        user(index, self.arguments.server.as_ref().map(|_| self.arguments.domain.as_str()))
    }

    /// Sends a request and waits for its answer.
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
        self.ask(|out| self.request("set", &self.owner(), 0, &creation(node, max_items), out))
    }

    fn subscribe(&self, node: &str, number: u64, outstanding: u64) -> Result<Run, Box<dyn Error>> {
        Ok(self.peer.run(Plan {
            requests: number,
            outstanding,
            rate: None,
            audience: 0,
            write: &mut |index, out| {
                let jid = self.user(index);
                self.request("set", &jid, index, &subscription(node, &jid), out);
            },
        })?)
    }

    fn publish(&self, node: &str, number: u64, out: &mut Vec<u8>) {
        self.publish_as(&self.owner(), node, number, out);
    }

    fn publish_as(&self, from: &str, node: &str, number: u64, out: &mut Vec<u8>) {
        self.request("set", from, number, &self.publication(node, &number.to_string()), out);
    }

    fn publication(&self, node: &str, item: &str) -> String {
        let text = "x".repeat(self.arguments.text);
        format!(
            "<pubsub xmlns='{PUBSUB}'><publish node='{node}'><item id='{item}'><entry \
             xmlns='urn:load'>{text}</entry></item></publish></pubsub>"
        )
    }

    fn request(&self, kind: &str, from: &str, id: u64, content: &str, out: &mut Vec<u8>) {
        let to = &self.arguments.service;
        let stanza = format!("<iq type='{kind}' from='{from}' to='{to}' id='{id}'>{content}</iq>");
        out.extend_from_slice(stanza.as_bytes());
    }
}

fn creation(node: &str, max_items: &str) -> String {
    format!(
        "<pubsub xmlns='{PUBSUB}'><create node='{node}'/><configure><x xmlns='jabber:x:data' \
         type='submit'><field var='FORM_TYPE'><value>{PUBSUB}#node_config</value></field><field \
         var='pubsub#max_items'><value>{max_items}</value></field></x></configure></pubsub>"
    )
}

fn subscription(node: &str, jid: &str) -> String {
    format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{node}' jid='{jid}'/></pubsub>")
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
        "p90": histogram.value_at_quantile(0.9),
        "p99": histogram.value_at_quantile(0.99),
        "p999": histogram.value_at_quantile(0.999),
        "max": histogram.max(),
    })
}
