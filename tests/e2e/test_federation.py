"""Subscribers on another server: they are notified, and a dead or slow server delays no other recipient."""

import socket
import statistics
import time

import pytest

from clients import clients, entry, item_ids
from conftest import with_loop
from servers import Federated, Gjallar, free_ports, wait_for

NODE = "princely_musings"
NEAR, FAR, SERVICE, SLOW, DEAD = (f"127.0.0.{last}" for last in (1, 2, 3, 4, 5))
NUMBER = 50
HTML = ('<p>See <a href="https://blog.example.org/2026/11/30/news" class="link">the news</a>, and '
        '<img src="https://blog.example.org/1.png" alt="a picture"/>: it\'s new.</p>') * 30


@pytest.fixture(scope="module")
def servers():
    """Starts two servers; adds an address without a listener, and one with a listener that never answers."""
    near_port, far_port = free_ports(2)
    with socket.socket() as slow:
        slow.bind((SLOW, far_port))
        slow.listen()
        with Federated(["owner", "alice"], NEAR, SERVICE, near_port, far_port) as near:
            with Federated(["bob", "carol"], FAR, FAR, far_port, near_port) as far:
                yield near, far


@with_loop
async def publish_to_all(near, far):
    """Publishes items; returns the latency of each item at the subscribers on either server."""
    async with clients(near.client_port, "owner", "alice", domain=NEAR) as (owner, alice):
        async with clients(far.client_port, "bob", domain=FAR) as (bob,):
            await owner.pubsub.create_node(SERVICE, NODE)
            for subscriber in (alice, bob):
                await subscriber.pubsub.subscribe(SERVICE, NODE, timeout=30)
            # Unreachable recipients precede all others.
            strangers = [(f"a{n}@{domain}", "subscribed") for domain in (DEAD, SLOW) for n in range(10)]
            await owner.pubsub.modify_subscriptions(SERVICE, NODE, strangers)
            delays = []
            for number in range(NUMBER):
                began = time.monotonic()
                await owner.pubsub.publish(SERVICE, NODE, id=str(number), payload=entry("x"))
                await alice.until(number + 1)
                await bob.until(number + 1)
                delays.append(time.monotonic() - began)
            for subscriber in (alice, bob):
                told = [name for event in subscriber.events for name in item_ids(event)]
                assert told == [str(number) for number in range(NUMBER)]
            return delays


def test_dead_or_slow_server_delays_no_other_domain(servers, tmp_path):
    near, far = servers
    with Gjallar(near.component_port, tmp_path, jid=SERVICE, creators="anyone", link_multicast="off") as gjallar:
        delays = publish_to_all(near, far)
        print(f"published, and told on both servers: median {statistics.median(delays) * 1000:.1f} ms, "
              f"longest {max(delays) * 1000:.1f} ms")
        assert max(delays) < 5
        # Undeliverable notifications bounce, and are counted; no subscription ends.
        wait_for(lambda: gjallar.stat("notification_bounces_total") >= 10 * NUMBER, "the bounces")
        assert gjallar.stat("link_up") == 1
        assert '"level":"ERROR"' not in gjallar.logged()


@with_loop
async def read_while_another_is_told(near, far):
    """Bob reads a whole node of HTML, more than an answer holds, while Carol gets events over the same stream."""
    async with clients(near.client_port, "owner", domain=NEAR) as (owner,):
        async with clients(far.client_port, "bob", "carol", domain=FAR) as (bob, carol):
            for node in ("blog", "news"):
                await owner.pubsub.create_node(SERVICE, node)
            for number in range(120):
                await owner.pubsub.publish(SERVICE, "blog", id=str(number), payload=entry(HTML))
            await carol.pubsub.subscribe(SERVICE, "news", timeout=30)
            reading = bob.pubsub.get_items(SERVICE, "blog", timeout=30)
            for number in range(NUMBER):
                await owner.pubsub.publish(SERVICE, "news", id=str(number), payload=entry("x"))
            items = (await reading)["pubsub"]["items"]["substanzas"]
            await carol.until(NUMBER)
            told = [name for event in carol.events for name in item_ids(event)]
            assert told == [str(number) for number in range(NUMBER)]
            return len(items)


# The limits of docs/OPERATING.md, "Running a block list".
FOR_LONG_LISTS = dict(link_max_stanza_bytes=2_000_000, limits_max_reply_bytes=1_900_000)


@pytest.mark.parametrize("limits", [{}, FOR_LONG_LISTS], ids=["default", "for long lists"])
def test_large_reply_leaves_events_of_its_domain(servers, tmp_path, limits):
    """Servers write quotes of text as six bytes, and end a server-to-server stream at a stanza above their limit."""
    near, far = servers
    with Gjallar(
            near.component_port, tmp_path, jid=SERVICE, creators="anyone", link_multicast="off", **limits) as gjallar:
        number = read_while_another_is_told(near, far)
        assert 40 < number < 120, "an answer that is filled, and cut"
        assert gjallar.stat("notification_bounces_total") == 0
    for server in servers:
        assert "policy-violation" not in (server.folder / "logs/ejabberd.log").read_text()
