"""slixmpp clients without TLS, for servers on loopback."""

import asyncio
import contextlib
import ssl
import warnings
import xml.etree.ElementTree as ET

warnings.filterwarnings("ignore", category=DeprecationWarning)

import slixmpp  # noqa: E402
from slixmpp.exceptions import IqError, IqTimeout  # noqa: E402, F401
from slixmpp.xmlstream.handler import Callback  # noqa: E402
from slixmpp.xmlstream.matcher import StanzaPath  # noqa: E402

from servers import DOMAIN, PASSWORD, SERVICE  # noqa: E402

# Unused, but without it slixmpp would load all certificates for each client.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
RSM = "{http://jabber.org/protocol/rsm}"
PUBSUB = "{http://jabber.org/protocol/pubsub}"
EVENT = "{http://jabber.org/protocol/pubsub#event}"
TIMEOUT = 30


class Client:
    """Session of one account, with the events that it received."""

    def __init__(self, user, resource="test", domain=DOMAIN):
        self.domain = domain
        self.jid = f"{user}@{domain}"
        self.full = f"{self.jid}/{resource}"
        self.events = []
        self.came = asyncio.Event()
        self.xmpp = slixmpp.ClientXMPP(self.full, PASSWORD, sasl_mech="PLAIN", ssl_context=NO_TLS)
        self.xmpp.enable_plaintext = True
        self.xmpp.enable_starttls = self.xmpp.enable_direct_tls = self.xmpp.use_ipv6 = False
        self.xmpp.plugin["feature_mechanisms"].unencrypted_plain = True
        for plugin in ("xep_0004", "xep_0030", "xep_0050", "xep_0059", "xep_0060", "xep_0092", "xep_0199"):
            self.xmpp.register_plugin(plugin)
        self.xmpp.register_handler(
            Callback("events", StanzaPath("message/pubsub_event"), self.on_event))

    @property
    def pubsub(self):
        return self.xmpp.plugin["xep_0060"]

    def on_event(self, message):
        self.events.append(message.xml)
        self.came.set()

    async def login(self, port):
        started = asyncio.get_running_loop().create_future()

        def on(outcome):
            def handler(reason):
                if not started.done():
                    outcome(reason)
            return handler
        self.xmpp.add_event_handler("session_start", on(started.set_result))
        for failure in ("failed_all_auth", "connection_failed"):
            self.xmpp.add_event_handler(
                failure, on(lambda why: started.set_exception(RuntimeError(str(why)))))
        self.xmpp.connect("127.0.0.1", port)
        await asyncio.wait_for(started, TIMEOUT)
        self.xmpp.send_presence()
        # The server has processed the presence when it answers a later ping.
        await self.xmpp.plugin["xep_0199"].send_ping(self.domain, timeout=TIMEOUT)
        return self

    async def until(self, number):
        """Waits for a number of events."""
        async with asyncio.timeout(TIMEOUT):
            while len(self.events) < number:
                self.came.clear()
                await self.came.wait()
        return self.events

    async def settled(self):
        """Waits until all notifications sent so far have arrived; a later event is the end mark."""
        made = await self.pubsub.create_node(SERVICE, None)
        node = made["pubsub"]["create"]["node"]
        await self.pubsub.subscribe(SERVICE, node)
        await self.pubsub.publish(SERVICE, node, id="settled", payload=entry("settled"))
        async with asyncio.timeout(TIMEOUT):
            while not self.events or "settled" not in item_ids(self.events[-1]):
                self.came.clear()
                await self.came.wait()
        self.events.pop()
        await self.pubsub.unsubscribe(SERVICE, node)
        await self.pubsub.delete_node(SERVICE, node)


@contextlib.asynccontextmanager
async def clients(port, *users, domain=DOMAIN):
    """Yields logged-in clients."""
    all_of_them = [Client(user, domain=domain) for user in users]
    try:
        yield await asyncio.gather(*(client.login(port) for client in all_of_them))
    finally:
        await asyncio.gather(
            *(client.xmpp.disconnect(wait=1) for client in all_of_them), return_exceptions=True)


def entry(text):
    """Returns a payload."""
    element = ET.Element("{http://www.w3.org/2005/Atom}entry")
    ET.SubElement(element, "{http://www.w3.org/2005/Atom}title").text = text
    return element


async def publish_batch(client, node, ids, payload=entry):
    """Publishes several items in one request."""
    items = ET.Element(f"{PUBSUB}publish", node=node)
    for id in ids:
        ET.SubElement(items, f"{PUBSUB}item", id=id).append(payload(id))
    return await request(client, items)


async def retract_batch(client, node, ids):
    """Retracts several items in one request."""
    items = ET.Element(f"{PUBSUB}retract", node=node, notify="true")
    for id in ids:
        ET.SubElement(items, f"{PUBSUB}item", id=id)
    return await request(client, items)


async def request(client, *content, kind="set", namespace=PUBSUB):
    """Sends a request with any content to the service."""
    iq = client.xmpp.make_iq(ito=SERVICE, itype=kind)
    ET.SubElement(iq.xml, f"{namespace}pubsub").extend(content)
    return await iq.send(timeout=TIMEOUT)


def item_ids(event):
    """Returns the ids of the items in an event."""
    return [item.get("id") for item in event.iter(f"{EVENT}item")]


def place(event):
    """Returns the epoch and the sequence of an event."""
    epoch, sequence = event.find("{urn:xmpp:sid:0}stanza-id").get("id").split("-")
    return epoch, int(sequence)


def form(client, kind="submit", **fields):
    """Returns a submitted node configuration; keyword a_b stands for pubsub#a_b."""
    made = client.xmpp.plugin["xep_0004"].make_form(ftype=kind)
    made.add_field(var="FORM_TYPE", ftype="hidden",
                   value="http://jabber.org/protocol/pubsub#node_config")
    for name, value in fields.items():
        made.add_field(var=f"pubsub#{name}", value=value)
    return made
