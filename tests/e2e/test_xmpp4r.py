"""Requests of xmpp4r with only a node name given: those that xmpp4r/xmpp4r 267d07a1 builds in
lib/xmpp4r/pubsub/helper/servicehelper.rb and lib/xmpp4r/pubsub/children."""

import xml.etree.ElementTree as ET

import pytest

from clients import PUBSUB, clients, entry, request
from conftest import with_loop
from servers import SERVICE

OWNER = "{http://jabber.org/protocol/pubsub#owner}"
DATA = "{jabber:x:data}"
pytestmark = pytest.mark.parametrize("server", ["ejabberd", "prosody"], indirect=True)


def asked(name, node=None, namespace=PUBSUB, **attributes):
    element = ET.Element(f"{namespace}{name}", attributes)
    if node is not None:
        element.set("node", node)
    return element


def options_form(kind, **values):
    form = ET.Element(f"{DATA}x", type="submit")
    field = ET.SubElement(form, f"{DATA}field", var="FORM_TYPE", type="hidden")
    ET.SubElement(field, f"{DATA}value").text = f"http://jabber.org/protocol/pubsub#{kind}"
    for name, value in values.items():
        ET.SubElement(ET.SubElement(form, f"{DATA}field", var=f"pubsub#{name}"), f"{DATA}value").text = value
    return form


@with_loop
async def test_requests_of_xmpp4r_are_accepted(server, gjallar):
    async with clients(server.client_port, "owner", "alice") as (owner, alice):
        # A node with a name, and one without: both requests have a configure element without a form.
        await request(owner, asked("create", "node"), asked("configure"))
        made = await request(owner, asked("create"), asked("configure"))
        assert made.xml.find(f".//{PUBSUB}create").get("node")

        await request(alice, asked("subscribe", "node", jid=alice.jid))
        answer = await request(alice, asked("subscriptions"), kind="get")
        assert [(s.get("node"), s.get("subid")) for s in answer.xml.iter(f"{PUBSUB}subscription")] == [("node", None)]
        # xmpp4r ignores subscriptions in an answer that does not name the node.
        answer = await request(alice, asked("subscriptions", "node"), kind="get")
        assert answer.xml.find(f".//{PUBSUB}subscriptions").get("node") == "node"
        assert len(answer.xml.find(f".//{PUBSUB}subscriptions")) == 1

        for id in ("one", "two"):
            item = asked("item", id=id)
            item.append(entry(id))
            publish = asked("publish", "node")
            publish.append(item)
            await request(owner, publish)
        # An empty number of items.
        answer = await request(alice, asked("items", "node", max_items=""), kind="get")
        assert [item.get("id") for item in answer.xml.iter(f"{PUBSUB}item")] == ["one", "two"]
        retract = asked("retract", "node")
        retract.append(asked("item", id="one"))
        await request(owner, retract)

        options = asked("options", "node", jid=alice.jid)
        await request(alice, options, kind="get")
        options.append(options_form("subscribe_options", deliver="1"))
        await request(alice, options)
        affiliations = asked("affiliations", "node", OWNER)
        affiliations.append(asked("affiliation", namespace=OWNER, jid=alice.jid, affiliation="publisher"))
        await request(owner, affiliations, namespace=OWNER)
        answer = await request(alice, asked("affiliations"), kind="get")
        assert [(a.get("node"), a.get("affiliation")) for a in answer.xml.iter(f"{PUBSUB}affiliation")] == [
            ("node", "publisher")]

        configure = asked("configure", "node", OWNER)
        answer = await request(owner, configure, kind="get", namespace=OWNER)
        assert answer.xml.find(f".//{OWNER}configure/{DATA}x") is not None
        configure.append(options_form("node_config", title="A title"))
        await request(owner, configure, namespace=OWNER)
        await request(alice, asked("unsubscribe", "node", jid=alice.jid))
        await request(owner, asked("purge", "node", OWNER), namespace=OWNER)
        await request(owner, asked("delete", "node", OWNER), namespace=OWNER)
