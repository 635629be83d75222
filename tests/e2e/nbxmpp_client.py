"""Client on nbxmpp, the library of Gajim; runs with Debian's Python, which has the bindings to GLib. Prints each step
as a line. `hear` subscribes to a node and prints each event that nbxmpp reports, until a retraction of the item
"end"; `configure` creates a node and changes it twice with one form."""

import sys

from gi.repository import GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.namespaces import Namespace
from nbxmpp.protocol import JID, Presence
from nbxmpp.simplexml import Node
from nbxmpp.structs import StanzaHandler


def say(*words):
    print(*words, flush=True)


def fail(reason):
    say("failed", reason)
    loop.quit()


def hear(pubsub):
    client.send_stanza(Presence())
    subscription = yield pubsub.subscribe(node, jid=service)
    say("subscription", subscription.subscription)


def configure(pubsub):
    yield pubsub.publish(node, Node("entry", attrs={"xmlns": "http://www.w3.org/2005/Atom"}), id_="one", jid=service)
    answer = yield pubsub.get_node_configuration(node, jid=service)
    for title in ("First", "Second"):
        answer.form["pubsub#title"].value = title
        yield pubsub.set_node_configuration(node, answer.form, jid=service)
    answer = yield pubsub.get_node_configuration(node, jid=service)
    say("title", answer.form["pubsub#title"].value)
    loop.quit()


def step(steps, task=None):
    try:
        request = steps.send(task.finish() if task else None)
    except StopIteration:
        pass
    except Exception as error:
        fail(f"{type(error).__name__}: {error}")
    else:
        request.add_done_callback(lambda task: step(steps, task), weak=False)


def on_event(_client, _stanza, properties):
    event = properties.pubsub_event
    if event is None:
        say("unreadable event")
    else:
        say("retract" if event.retracted else "item", event.id)
        if event.retracted and event.id == "end":
            loop.quit()


port, user, password, service, flow, node = sys.argv[1:]
service = JID.from_string(service)
loop = GLib.MainLoop()
client = Client()
client.set_domain("localhost")
client.set_username(user)
client.set_password(password)
client.set_resource("nbxmpp")
client.set_custom_host(f"127.0.0.1:{port}", ConnectionProtocol.TCP, ConnectionType.PLAIN)
client.set_mechs({"PLAIN"})
client.register_handler(StanzaHandler(name="message", callback=on_event, ns=Namespace.PUBSUB_EVENT, priority=50))
client.subscribe("connected", lambda *_: step({"hear": hear, "configure": configure}[flow](client.get_module("PubSub"))))
client.subscribe("connection-failed", lambda *_: fail("no connection"))
client.subscribe("disconnected", lambda *_: fail("disconnected"))
client.connect()
loop.run()
