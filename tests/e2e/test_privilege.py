"""ejabberd with and without mod_privilege, which since 24.10 drops stanzas of components to bare addresses.

Nine combinations, and one more, that cover every pair of: the server's generation; mod_privilege not loaded, loaded
without a grant for the service, granted; multicast off, found by the service, configured.
"""

import asyncio
import re

import pytest

from clients import IqError, clients, entry, form
from conftest import USERS, with_loop
from servers import CONNECTED, ROOT, SERVICE, Ejabberd, Gjallar, logged_as, wait_for

OLD, NEW = "23.01", "24.10 or later"
ABSENT, LOADED, GRANTED = "absent", "loaded", "granted"
OFF, AUTO, NAMED = "off", "auto", "multicast.localhost"
# In the last row ejabberd 24.12 drops each query to the server's domain.
TABLE = [
    (OLD, ABSENT, OFF), (NEW, ABSENT, AUTO), (NEW, ABSENT, NAMED),
    (NEW, LOADED, OFF), (NEW, LOADED, AUTO), (OLD, LOADED, NAMED),
    (NEW, GRANTED, OFF), (OLD, GRANTED, AUTO), (NEW, GRANTED, NAMED),
    (NEW, GRANTED, AUTO),
]
ITEMS = 50
NODE = "princely_musings"


def generation():
    """Returns the generation of the ejabberd under test."""
    folder = next(ROOT.glob("usr/lib/*/ejabberd-*"))
    version = tuple(int(part) for part in re.findall(r"\d+", folder.name)[:2])
    return NEW if version >= (24, 10) else OLD


class Privileged(Ejabberd):
    """ejabberd with mod_multicast, and mod_privilege in this variant."""

    multicast = True

    def __init__(self, users, privilege):
        super().__init__(users)
        self.privilege = {ABSENT: None, LOADED: "none", GRANTED: "all"}[privilege]


@pytest.mark.parametrize(
    "privilege, multicast", [(row[1], row[2]) for row in TABLE if row[0] == generation()])
@with_loop
async def test_notifications_are_delivered_and_acknowledged(tmp_path, privilege, multicast):
    with Privileged(USERS, privilege) as server:
        options = dict(
            link_multicast=multicast, link_ping_after_seconds=2, link_ping_deadline_seconds=2)
        with Gjallar(server.component_port, tmp_path, **options) as gjallar:
            async with clients(server.client_port, "owner", "alice", "bob") as (owner, alice, bob):
                await owner.pubsub.create_node(SERVICE, NODE)
                for reader in (alice, bob):
                    await reader.pubsub.subscribe(SERVICE, NODE)
                for number in range(ITEMS):
                    await owner.pubsub.publish(SERVICE, NODE, id=str(number), payload=entry("x"))
                for reader in (alice, bob):
                    assert len(await reader.until(ITEMS)) == ITEMS
                # Everything is confirmed.
                wait_for(lambda: gjallar.stat("log_backlog_entries") == 0, "the confirmation", 5)
                # Notifications are counted once the store has recorded their confirmation.
                wait_for(
                    lambda: gjallar.stat("notifications_acknowledged_total") >= 2 * ITEMS, "the notifications to be counted")
                by_multicast = logged_as("multicast_enabled") in gjallar.logged()
                assert by_multicast == (multicast != OFF)
                # Three times the sum of the two timeouts without traffic.
                await asyncio.sleep(12)
                assert gjallar.logged().count(CONNECTED) == 1, gjallar.logged()
                assert "WARN" not in gjallar.logged(), gjallar.logged()
                if privilege == GRANTED:
                    await owner.pubsub.create_node(
                        SERVICE, "near", config=form(owner, access_model="presence"))
                else:
                    with pytest.raises(IqError) as refused:
                        await owner.pubsub.create_node(
                            SERVICE, "near", config=form(owner, access_model="presence"))
                    assert refused.value.condition == "not-acceptable"
                # After a clean stop and a kill nothing is repeated.
                began = asyncio.get_running_loop().time()
                assert gjallar.stop() == 0
                assert asyncio.get_running_loop().time() - began < 5
                assert logged_as("link_closed") in gjallar.logged()
                gjallar.start()
                gjallar.wait_for_log(CONNECTED)
                await owner.settled()
                wait_for(lambda: gjallar.stat("log_backlog_entries") == 0, "the confirmation", 5)
                gjallar.kill()
                gjallar.start()
                gjallar.wait_for_log(CONNECTED)
                await alice.settled()
                await bob.settled()
                assert (len(alice.events), len(bob.events)) == (ITEMS, ITEMS)
