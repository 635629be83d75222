// Runs one flow with Converse's headless build and reports its result. The build has requests for pubsub, but not the
// feeds that its user interface shows; the flows make the requests that Converse's microblog plugin makes
// (conversejs/converse.js 976f6a88, src/headless/plugins/microblog: feed.js, comment-feed.js, constants.js, api.js).
import { api, converse } from "/headless.js";

const { stx } = converse.env;
const PAGE = 20;
const BROWSE_PAGE = 100;
const PUBSUB = "http://jabber.org/protocol/pubsub";
const RSM = "http://jabber.org/protocol/rsm";
const COMMENTS = {
  access_model: "open", publish_model: "open", persist_items: "true", max_items: "max",
  send_last_published_item: "never", notify_retract: "true", deliver_payloads: "true", itemreply: "publisher",
};

const ids = (items) => items.map((item) => item.getAttribute("id"));
const text = (element, selector) => element.querySelector(selector)?.textContent;
const published = (item) => item.querySelector("published").textContent;

// The newest page, then older ones. A page is full or the last; without a result set there is nothing to page by.
async function feed({ service, node }) {
  const newest = await api.pubsub.items.get(service, node, { max_items: PAGE });
  if (!newest.rsm) return { pageable: false, ids: ids(newest.items) };
  const result = { pageable: true, count: newest.rsm.result.count, ids: ids(newest.items), pages: 1 };
  for (let page = newest; page.items.length >= PAGE; result.pages += 1) {
    const { first, last } = page.rsm.result;
    const ascending = published(page.items[0]) <= published(page.items.at(-1));
    page = await api.pubsub.items.get(service, node, { rsm: { before: ascending ? first : last, max: PAGE } });
    result.ids.unshift(...ids(page.items));
  }
  return result;
}

// A post's comments: the author makes the node; a comment and a like are published with the same options; the like is
// taken back, and another's comment is neither changed nor removed.
async function comments({ service, node, me, others }) {
  const item = (id, body) => stx`
    <item id="${id}">
      <entry xmlns="http://www.w3.org/2005/Atom">
        <author><name>${me}</name><uri>xmpp:${me}</uri></author>
        <title type="text">${body}</title>
        <id>tag:localhost,2026:${id}</id>
        <published>2026-01-01T00:00:00Z</published>
        <updated>2026-01-01T00:00:00Z</updated>
      </entry>
    </item>`;
  const publish = (id, body) => api.pubsub.publish(service, node, item(id, body), COMMENTS, false);
  const refusal = (request) => request.then(() => null, (error) => (
    error.name ?? error.querySelector("error").firstElementChild.localName));
  let told;
  const events = [];
  const heard = (number) => new Promise((resolve) => {
    told = () => events.length >= number && resolve();
    told();
  });
  api.connection.get().addHandler((message) => {
    const list = message.querySelector("event > items");
    if (list) events.push([...list.children].map((child) => [child.localName, child.getAttribute("id")]));
    told?.();
    return true;
  }, `${PUBSUB}#event`, "message");

  await api.pubsub.subscribe(service, node);
  await publish("mine", "A comment");
  await publish("like", "♥");
  await api.pubsub.retract(service, node, "like");
  await heard(3);
  const overwrite = await refusal(publish(others, "Another's words"));
  const retract = await refusal(api.pubsub.retract(service, node, others));
  const list = await api.pubsub.items.get(service, node, { max_items: 200 });
  const items = list.items.map((item) => [item.getAttribute("id"), item.getAttribute("publisher"), text(item, "title")]);
  return { events, overwrite, retract, items };
}

// The configuration is fetched once and submitted twice, with every field that has a value. (This build's own
// `config.set` submits "null" for lists; the source has it repaired.)
async function configure({ service, node }) {
  await api.pubsub.create(service, node, { title: "New", ...COMMENTS });
  const fetched = await api.pubsub.config.get(service, node);
  for (const title of ["First", "Second"]) {
    const fields = Object.entries({ ...fetched, title }).filter(([, value]) => value !== null);
    await api.sendIQ(stx`
      <iq type="set" to="${service}" xmlns="jabber:client">
        <pubsub xmlns="${PUBSUB}#owner">
          <configure node="${node}">
            <x xmlns="jabber:x:data" type="submit">
              <field var="FORM_TYPE" type="hidden"><value>${PUBSUB}#node_config</value></field>
              ${fields.map(([name, value]) => stx`<field var="pubsub#${name}"><value>${value}</value></field>`)}
            </x>
          </configure>
        </pubsub>
      </iq>`);
  }
  return await api.pubsub.config.get(service, node);
}

// The nodes of a service, page by page, and what each says of itself.
async function browse({ service }) {
  const nodes = [];
  for (let after; ;) {
    const answer = await api.sendIQ(stx`
      <iq type="get" to="${service}" xmlns="jabber:client">
        <query xmlns="http://jabber.org/protocol/disco#items">
          <set xmlns="${RSM}"><max>${BROWSE_PAGE}</max>${after ? stx`<after>${after}</after>` : ""}</set>
        </query>
      </iq>`);
    const page = [...answer.querySelectorAll("query > item[node]")];
    nodes.push(...page.map((item) => item.getAttribute("node")));
    after = text(answer, "set > last");
    if (page.length < BROWSE_PAGE || !after) break;
  }
  const about = {};
  for (const node of nodes) {
    const info = await api.disco.info(service, node);
    const field = (name) => text(info, `x field[var="pubsub#${name}"] value`);
    about[node] = { title: field("title"), type: field("type"), subscribers: field("num_subscribers") };
  }
  return { nodes, about };
}

const FLOWS = { feed, comments, configure, browse };

async function run(task) {
  const ready = new Promise((resolve) => {
    // `initialize` drops earlier listeners.
    converse.plugins.add("flows", { initialize: () => api.listen.on("connected", resolve) });
  });
  converse.initialize({
    auto_login: true, jid: task.jid, password: task.password, websocket_url: task.websocket,
    discover_connection_methods: false, blacklisted_plugins: ["converse-omemo"], whitelisted_plugins: ["flows"],
    persistent_store: "localStorage", loglevel: "warn", i18n: "en",
  });
  await ready;
  return await FLOWS[task.flow](task);
}

const task = await (await fetch("/task")).json();
const result = await run(task).catch((error) => ({
  failed: error.outerHTML ?? `${error.name}: ${error.message}\n${error.stack}` }));
await fetch("/report", { method: "POST", body: JSON.stringify(result) });
