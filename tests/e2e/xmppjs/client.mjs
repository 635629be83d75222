// Client on @xmpp/client: subscribes to a node, publishes there, and waits for the event. Prints each step as a line.
import { client, xml } from "@xmpp/client";

const [port, user, password, service, node] = process.argv.slice(2);
const PUBSUB = "http://jabber.org/protocol/pubsub";
const EVENT = `${PUBSUB}#event`;
const say = (...words) => console.log(words.join(" "));

const xmpp = client({
  service: `xmpp://127.0.0.1:${port}`,
  domain: "localhost",
  resource: "xmppjs",
  username: user,
  password,
});
xmpp.on("error", (error) => {
  say("error", error.message);
  process.exit(1);
});

const told = new Promise((resolve) => {
  xmpp.on("stanza", (stanza) => {
    const items = stanza.is("message") && stanza.getChild("event", EVENT)?.getChild("items");
    if (items) resolve(items.getChildren("item").map((item) => item.attrs.id));
  });
});
const request = async (content) => (await xmpp.iqCaller.set(xml("pubsub", PUBSUB, content), service));

const address = await xmpp.start();
await xmpp.send(xml("presence"));
const subscribed = await request(xml("subscribe", { node, jid: address.bare().toString() }));
say("subscription", subscribed.getChild("subscription").attrs.subscription);
const item = xml("item", { id: "from-xmppjs" }, xml("x", "urn:x", "It's <here>"));
const published = await request(xml("publish", { node }, item));
say("published", published.getChild("publish").getChild("item").attrs.id);
say("event", await told);
try {
  await request(xml("subscribe", { node: "nobody made it", jid: address.bare().toString() }));
} catch (error) {
  say("refused", error.condition, error.type);
}
await xmpp.stop();
