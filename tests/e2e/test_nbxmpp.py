"""nbxmpp, the library of Gajim: the events of a batch, and a form that is submitted twice."""

import asyncio
import os

import pytest

from clients import TIMEOUT, clients, entry, form, publish_batch, retract_batch
from conftest import with_loop
from servers import HERE, PASSWORD, PROJECT, SERVICE

NODE = "batches"
pytestmark = [pytest.mark.parametrize("server", ["ejabberd", "prosody"], indirect=True), pytest.mark.one_release]


def nbxmpp(port, *arguments):
    """Starts the client's process."""
    return asyncio.create_subprocess_exec(
        "/usr/bin/python3", str(HERE / "nbxmpp_client.py"), str(port), "alice", PASSWORD, SERVICE, *arguments,
        env=dict(os.environ, PYTHONPATH=str(PROJECT / ".venv/nbxmpp")), stdout=asyncio.subprocess.PIPE)


async def said(client):
    """Returns the output lines of the client, which ends after the last one."""
    try:
        async for line in client.stdout:
            yield line.decode().strip()
    finally:
        if client.returncode is None:
            client.kill()
        await client.wait()


@with_loop
async def test_nbxmpp_receives_every_item_and_retraction_of_a_batch(server, gjallar):
    async with clients(server.client_port, "owner") as (owner,), asyncio.timeout(TIMEOUT):
        await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, max_items="10"))
        lines = []
        async for line in said(await nbxmpp(server.client_port, "hear", NODE)):
            lines.append(line)
            if line == "subscription subscribed":
                await publish_batch(owner, NODE, ["one", "two", "three"])
                await retract_batch(owner, NODE, ["one", "two"])
                await owner.pubsub.publish(SERVICE, NODE, id="end", payload=entry("end"))
                await owner.pubsub.retract(SERVICE, NODE, "end", notify=True)
        assert lines == [
            "subscription subscribed", "item one", "item two", "item three", "retract one", "retract two", "item end",
            "retract end"]


@with_loop
async def test_nbxmpp_submits_a_form_twice(server, gjallar):
    async with asyncio.timeout(TIMEOUT):
        assert [line async for line in said(await nbxmpp(server.client_port, "configure", NODE))] == ["title Second"]
