"""aioxmpp's typed form of a node's configuration, which checks each field against the registry."""

import asyncio
import sys

import pytest

from clients import TIMEOUT
from conftest import with_loop
from servers import PASSWORD, SERVICE

if sys.version_info >= (3, 12):
    pytest.skip("aioxmpp 0.13.3 needs Python 3.11", allow_module_level=True)

import aioxmpp  # noqa: E402
from aioxmpp.pubsub.xso import NodeConfigForm  # noqa: E402

NODE = "typed"
pytestmark = [pytest.mark.parametrize("server", ["ejabberd", "prosody"], indirect=True), pytest.mark.one_release]


@with_loop
async def test_typed_form_configures_a_node_twice(server, gjallar):
    client = aioxmpp.PresenceManagedClient(
        aioxmpp.JID.fromstr("owner@localhost"), aioxmpp.make_security_layer(PASSWORD, no_verify=True)._replace(tls_required=False),
        override_peer=[("127.0.0.1", server.client_port, aioxmpp.connector.STARTTLSConnector())])
    service = aioxmpp.JID.fromstr(SERVICE)
    pubsub = client.summon(aioxmpp.PubSubClient)
    async with asyncio.timeout(TIMEOUT), client.connected():
        await pubsub.create(service, NODE)
        form = NodeConfigForm.from_xso(await pubsub.get_node_config(service, NODE))
        for title in ("First", "Second"):
            form.title.value = title
            await pubsub.set_node_config(service, form.render_reply(), NODE)
        form = NodeConfigForm.from_xso(await pubsub.get_node_config(service, NODE))
        assert form.title.value == "Second"
