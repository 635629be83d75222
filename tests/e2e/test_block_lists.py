"""Block lists for chat rooms, which Prosody's and ejabberd's own modules read from a node in one answer."""

import asyncio
import hashlib
import json
import subprocess
import urllib.request
import xml.etree.ElementTree as ET

import pytest

from clients import TIMEOUT, clients, form, publish_batch
from conftest import with_loop
from servers import ROOT, SERVICE, Ejabberd, Gjallar, Prosody, in_root

NODE = "muc_bans_sha256"
ROOMS = "rooms.localhost"
ROOM = f"hall@{ROOMS}"
ENTRIES = 5_000
BATCH = 100
# Those of docs/OPERATING.md, "Running a block list".
LIMITS = dict(link_max_stanza_bytes=2_000_000, limits_max_reply_bytes=1_900_000)


class ProsodyWithRooms(Prosody):
    def prepare(self):
        super().prepare()
        config = self.folder / "prosody.cfg.lua"
        config.write_text(
            config.read_text().replace('"websocket" }', '"websocket", "admin_shell" }', 1)
            + f'Component "{ROOMS}" "muc"\n  muc_rtbl_jid = "{SERVICE}"\n')

    def read_block_list(self):
        command = in_root("/usr/bin/prosodyctl", "--config", str(self.folder / "prosody.cfg.lua"),
                          "shell", f'module:load("muc_rtbl", "{ROOMS}")')
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True, timeout=TIMEOUT)


class EjabberdWithRooms(Ejabberd):
    CONFIG = Ejabberd.CONFIG.replace(
        "      /xmpp-websocket", "      /api: mod_http_api\n      /xmpp-websocket") + """  mod_muc:
    host: "{rooms}"
  mod_muc_admin: {{}}
api_permissions:
  "reload":
    who:
      ip: 127.0.0.1/8
    what: reload_config
""".replace("{rooms}", ROOMS)

    def read_block_list(self):
        config = self.folder / "ejabberd.yml"
        config.write_text(config.read_text().replace(
            "  mod_muc_admin: {}\n", f"  mod_muc_admin: {{}}\n  mod_muc_rtbl:\n    rtbl_server: {SERVICE}\n"))
        with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}/api/reload_config", json.dumps({}).encode(), TIMEOUT) as answer:
            assert answer.status == 200


def has_block_lists():
    """Whether this ejabberd has them, as it does since 23.04."""
    return any(ROOT.glob("usr/lib/*/ejabberd-*/ebin/mod_muc_rtbl.beam"))


def entry_id(jid):
    return hashlib.sha256(jid.encode()).hexdigest()


def report(_id=None):
    return ET.Element("{urn:xmpp:reporting:1}report", reason="urn:xmpp:reporting:spam")


async def is_banned(client, leave=True):
    """Whether somebody is refused entry to the room."""
    answered = asyncio.get_running_loop().create_future()

    def on_presence(presence):
        if presence["from"].bare == ROOM and not answered.done():
            answered.set_result(presence["type"] == "error" and presence["error"]["condition"] == "forbidden")
    client.xmpp.add_event_handler("presence_available", on_presence)
    client.xmpp.add_event_handler("presence_error", on_presence)
    try:
        presence = client.xmpp.make_presence(pto=f"{ROOM}/{client.xmpp.boundjid.user}")
        ET.SubElement(presence.xml, "{http://jabber.org/protocol/muc}x")
        presence.send()
        banned = await asyncio.wait_for(answered, TIMEOUT)
    finally:
        client.xmpp.del_event_handler("presence_available", on_presence)
        client.xmpp.del_event_handler("presence_error", on_presence)
    if leave and not banned:
        client.xmpp.make_presence(pto=f"{ROOM}/{client.xmpp.boundjid.user}", ptype="unavailable").send()
    return banned


async def becomes(client, banned):
    async with asyncio.timeout(TIMEOUT):
        while await is_banned(client) != banned:
            pass


# ejabberd has mod_muc_rtbl since 23.04.
KINDS = {"prosody": ProsodyWithRooms, **({"ejabberd": EjabberdWithRooms} if has_block_lists() else {})}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@with_loop
async def test_a_block_list_of_five_thousand_is_read_in_one_answer(kind, tmp_path):
    with (kind(["owner", "alice", "mallory"]) as server,
          Gjallar(server.component_port, tmp_path, **LIMITS) as gjallar):
        async with clients(server.client_port, "owner", "alice", "mallory") as (owner, alice, mallory):
            await owner.pubsub.create_node(SERVICE, NODE, config=form(owner, max_items="max"))
            ids = [entry_id(mallory.jid)] + [entry_id(f"spammer{n}@spam.example") for n in range(1, ENTRIES)]
            for start in range(0, ENTRIES, BATCH):
                await publish_batch(owner, NODE, ids[start:start + BATCH], report)
            # The first makes the room; its owner is let in whatever the list says.
            assert not await is_banned(owner, leave=False)
            assert not await is_banned(mallory)
            server.read_block_list()
            # The oldest entry; an answer that is cut has the newest ones.
            await becomes(mallory, banned=True)
            assert not await is_banned(alice)
            await owner.pubsub.publish(SERVICE, NODE, id=entry_id(alice.jid), payload=report())
            await becomes(alice, banned=True)
            await owner.pubsub.retract(SERVICE, NODE, entry_id(alice.jid), notify=True)
            await becomes(alice, banned=False)
        assert "panicked" not in gjallar.logged()
