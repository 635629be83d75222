"""Block lists for chat rooms and messages, which modules of Prosody and ejabberd read from a node in one answer."""

import asyncio
import contextlib
import hashlib
import json
import re
import shlex
import subprocess
import urllib.request
import xml.etree.ElementTree as ET

import pytest

from clients import TIMEOUT, clients, form, publish_batch
from conftest import with_loop
from servers import CONNECTED, DOMAIN, PROJECT, ROOT, SERVICE, Ejabberd, Gjallar, Prosody, in_root

ROOMS = "rooms.localhost"
ROOM = f"hall@{ROOMS}"
ENTRIES = 5_000
BATCH = 100
# The limits of docs/OPERATING.md, "Running a block list".
LIMITS = dict(link_max_stanza_bytes=2_000_000, limits_max_reply_bytes=1_900_000)


@contextlib.contextmanager
def handled(client, **handlers):
    """Registers handlers for events of slixmpp."""
    for event, handler in handlers.items():
        client.xmpp.add_event_handler(event, handler)
    try:
        yield
    finally:
        for event, handler in handlers.items():
            client.xmpp.del_event_handler(event, handler)


class Rooms:
    """Chat rooms that refuse entry to the JIDs of a block list."""

    NODE = "muc_bans_sha256"

    async def open(self, owner):
        """Creates a room; its owner is admitted whatever the list has."""
        assert not await self.enter(owner)

    async def is_banned(self, client, _owner):
        banned = await self.enter(client)
        if not banned:
            client.xmpp.make_presence(pto=f"{ROOM}/{client.xmpp.boundjid.user}", ptype="unavailable").send()
        return banned

    async def enter(self, client):
        """Returns whether entry to the room is refused."""
        answered = asyncio.get_running_loop().create_future()

        def on_presence(presence):
            if presence["from"].bare == ROOM and not answered.done():
                answered.set_result(presence["type"] == "error" and presence["error"]["condition"] == "forbidden")
        with handled(client, presence_available=on_presence, presence_error=on_presence):
            presence = client.xmpp.make_presence(pto=f"{ROOM}/{client.xmpp.boundjid.user}")
            ET.SubElement(presence.xml, "{http://jabber.org/protocol/muc}x")
            presence.send()
            return await asyncio.wait_for(answered, TIMEOUT)


class Messages:
    """Messages from senders that are not in the recipient's roster, which are refused for the JIDs of a block list."""

    NODE = "spam_source_jids_sha256"

    async def open(self, owner):
        pass

    async def is_banned(self, client, owner):
        answered = asyncio.get_running_loop().create_future()

        def on_message(banned):
            def handler(message):
                if message["id"] == sent["id"] and not answered.done():
                    answered.set_result(banned)
            return handler
        with handled(owner, message=on_message(False)), handled(client, message_error=on_message(True)):
            sent = client.xmpp.make_message(mto=owner.jid, mbody="hello")
            sent["id"] = client.xmpp.new_id()
            sent.send()
            return await asyncio.wait_for(answered, TIMEOUT)


def documented(reader):
    """Returns the arguments of the command in OPERATING.md that makes a reader reload the list."""
    row = re.search(f"\\| {reader} \\| `(.*?)` \\|", (PROJECT / "docs/OPERATING.md").read_text())
    return shlex.split(row[1].replace("rooms.example.org", ROOMS).replace("example.org", DOMAIN))[1:]


class ProsodyWithReader(Prosody):
    """Prosody with MODULE, which reads block lists."""

    MODULES, OPTIONS, HOSTS = ["admin_shell"], "", ""

    def prepare(self):
        super().prepare()
        config = self.folder / "prosody.cfg.lua"
        modules = "".join(f', "{module}"' for module in self.MODULES)
        config.write_text(self.OPTIONS + config.read_text().replace('"websocket" }', f'"websocket"{modules} }}', 1)
                          + self.HOSTS)

    def read_block_list(self):
        command = in_root("/usr/bin/prosodyctl", "--config", str(self.folder / "prosody.cfg.lua"),
                          *documented(f"Prosody `{self.MODULE}`"))
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True, timeout=TIMEOUT)


class ProsodyWithRooms(Rooms, ProsodyWithReader):
    MODULE = "muc_rtbl"
    HOSTS = f'Component "{ROOMS}" "muc"\n  modules_enabled = {{ "{MODULE}" }}\n  muc_rtbl_jid = "{SERVICE}"\n'


class ProsodyAgainstSpam(Messages, ProsodyWithReader):
    MODULE = "anti_spam"
    MODULES = ["admin_shell", MODULE]
    OPTIONS = f'anti_spam_services = {{ "{SERVICE}" }}\n'


class EjabberdWithRooms(Rooms, Ejabberd):
    CONFIG = Ejabberd.CONFIG.replace(
        "      /xmpp-websocket", "      /api: mod_http_api\n      /xmpp-websocket") + f"""  mod_muc:
    host: "{ROOMS}"
  mod_muc_rtbl:
    rtbl_server: "{SERVICE}"
  mod_admin_extra: {{{{}}}}
api_permissions:
  "restart":
    who:
      ip: 127.0.0.1/8
    what: restart_module
"""

    def read_block_list(self):
        """Reloads the list over HTTP, because ejabberdctl needs a named Erlang node."""
        command, host, module = documented("ejabberd `mod_muc_rtbl`")
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/api/{command}",
                                    json.dumps(dict(host=host, module=module)).encode(), TIMEOUT) as answer:
            assert answer.status == 200


def prosody_has(module):
    """Returns whether this Prosody has a module and its dependencies."""
    def sources(name):
        folder = ROOT / "usr/lib/prosody/modules"
        return [*folder.glob(f"mod_{name}.lua"), *folder.glob(f"mod_{name}/*.lua")]
    needed = [name for source in sources(module)
              for name in re.findall(r'module:depends\("(\w+)"', source.read_text())]
    return all(sources(name) for name in [module, *needed])


def ejabberd_has(module):
    return any(ROOT.glob(f"usr/lib/*/ejabberd-*/ebin/{module}.beam"))


def entry_id(jid):
    return hashlib.sha256(jid.encode()).hexdigest()


def report(_id=None):
    return ET.Element("{urn:xmpp:reporting:1}report", reason="urn:xmpp:reporting:spam")


# Debian 12 has no mod_anti_spam, and its ejabberd no mod_muc_rtbl. Debian testing has no mod_rtbl, on which the
# mod_muc_rtbl of its prosody-modules depends.
KINDS = {
    **{f"prosody-{kind.MODULE}": kind for kind in (ProsodyWithRooms, ProsodyAgainstSpam) if prosody_has(kind.MODULE)},
    **({"ejabberd-muc_rtbl": EjabberdWithRooms} if ejabberd_has("mod_muc_rtbl") else {}),
}
assert any(issubclass(kind, Prosody) for kind in KINDS.values()), "this Prosody has no reader of block lists"


async def becomes(server, owner, client, banned):
    async with asyncio.timeout(TIMEOUT):
        while await server.is_banned(client, owner) != banned:
            pass


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@with_loop
async def test_block_list_of_five_thousand_is_read_in_one_reply(kind, tmp_path):
    with (kind(["owner", "alice", "mallory"]) as server,
          Gjallar(server.component_port, tmp_path, **LIMITS) as gjallar):
        async with clients(server.client_port, "owner", "alice", "mallory") as (owner, alice, mallory):
            await owner.pubsub.create_node(SERVICE, server.NODE, config=form(owner, max_items="max"))
            ids = [entry_id(mallory.jid)] + [entry_id(f"spammer{n}@spam.example") for n in range(1, ENTRIES)]
            for start in range(0, ENTRIES, BATCH):
                await publish_batch(owner, server.NODE, ids[start:start + BATCH], report)
            await server.open(owner)
            # The server requested the list at its start, before the service was connected.
            assert not await server.is_banned(mallory, owner)
            server.read_block_list()
            # The oldest entry; a truncated answer has the newest entries.
            await becomes(server, owner, mallory, banned=True)
            assert not await server.is_banned(alice, owner)
            await owner.pubsub.publish(SERVICE, server.NODE, id=entry_id(alice.jid), payload=report())
            await becomes(server, owner, alice, banned=True)
            await owner.pubsub.retract(SERVICE, server.NODE, entry_id(alice.jid), notify=True)
            await becomes(server, owner, alice, banned=False)
        server.halt()
        server.launch()
        gjallar.wait_for_log(CONNECTED, times=2)
        async with clients(server.client_port, "owner", "alice", "mallory") as (owner, alice, mallory):
            await server.open(owner)
            server.read_block_list()
            await becomes(server, owner, mallory, banned=True)
            assert not await server.is_banned(alice, owner)
        assert "panicked" not in gjallar.logged()
