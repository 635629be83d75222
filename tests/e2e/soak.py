"""An hour of mixed load behind a real server that restarts: memory stays flat, files stay bounded, no task leaks.
`make soak` runs it. Prints the measurements every minute, and ends with exit code 1 if a resource has grown."""

import argparse
import asyncio
import collections
import contextlib
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

from clients import Client, IqError, IqTimeout, entry, form
from servers import CONNECTED, SERVERS, SERVICE, Gjallar

WORKERS = 8
NODES = 40
USERS = [f"w{n}" for n in range(WORKERS)] + ["admin"]
# Permitted growth between the second fifth of the time and the last.
MOST_GROWTH = {"rss": 1.15, "store": 1.5, "files": 1.2, "threads": 1.2, "tasks": 1.3}
# Permitted difference between two measurements: each request in flight of a worker has a sender queue and a task.
CHANCE = {"tasks": 2 * WORKERS, "threads": 4}


class Load:
    """Operations of all workers, with their counts."""

    def __init__(self):
        self.granted = self.refused = self.lost = 0

    async def work(self, client, until):
        """Sends requests one after the other until a time, or until the connection ends."""
        while time.monotonic() < until:
            try:
                await self.one(client)
                self.granted += 1
            except IqError:
                self.refused += 1
            except (IqTimeout, asyncio.TimeoutError):
                self.lost += 1
                return

    async def one(self, client):
        pubsub, node = client.pubsub, f"n{random.randrange(NODES)}"
        me = dict(timeout=10)
        match random.randrange(20):
            case 0:
                config = form(client, max_items="50", publish_model="open")
                await pubsub.create_node(SERVICE, node, config=config, **me)
            case 1 if random.randrange(10) == 0:
                await pubsub.delete_node(SERVICE, node, **me)
            case 1 | 2:
                await pubsub.subscribe(SERVICE, node, bare=random.random() < 0.5, **me)
            case 3:
                await pubsub.unsubscribe(SERVICE, node, **me)
            case 4:
                await pubsub.retract(SERVICE, node, f"i{random.randrange(60)}", notify=True, **me)
            case 5:
                await pubsub.get_items(SERVICE, node, max_items=10, **me)
            case 6:
                await client.xmpp.plugin["xep_0030"].get_items(SERVICE, **me)
            case 7:
                await pubsub.set_node_config(
                    SERVICE, node, form(client, title=str(random.random())), **me)
            case 8:
                who = random.choice(["member", "none", "publisher"])
                await pubsub.modify_affiliations(
                    SERVICE, node, [(f"w{random.randrange(WORKERS)}@localhost", who)], **me)
            case 9 if random.randrange(10) == 0:
                await pubsub.purge(SERVICE, node, **me)
            case _:
                text = "x" * random.choice([10, 200, 3000, 20000])
                await pubsub.publish(
                    SERVICE, node, id=f"i{random.randrange(60)}", payload=entry(text), **me)


@contextlib.asynccontextmanager
async def logged_in(port):
    """Yields clients that may outlive their server."""
    everyone = [Client(user) for user in USERS[:WORKERS]]
    for client in everyone:
        # The events of an hour are too many to keep.
        client.events = collections.deque(maxlen=1)
    try:
        yield await asyncio.gather(*(client.login(port) for client in everyone))
    finally:
        for client in everyone:
            client.xmpp.abort()


def measure(gjallar):
    """Measures the resources of the process."""
    proc = pathlib.Path(f"/proc/{gjallar.process.pid}")
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    store = pathlib.Path(gjallar.options["STORE"].removeprefix("sled:"))
    stats = subprocess.run(
        [gjallar.binary, "stats", "--store", gjallar.options["STORE"]],
        env={}, capture_output=True, text=True, check=True).stdout
    value = {line.split()[0]: line.split()[1] for line in stats.splitlines() if line[0] != "#"}
    return dict(
        rss=int(status["VmRSS"].split()[0]) / 1024, threads=int(status["Threads"]),
        files=len(os.listdir(proc / "fd")),
        store=sum(f.stat().st_size for f in store.iterdir() if f.is_file()) / 1024 / 1024,
        tasks=int(value["gjallar_runtime_tasks"]), backlog=int(value["gjallar_log_backlog_entries"]),
        told=int(value["gjallar_notifications_acknowledged_total"]))


def grown(samples):
    """Returns the resources that have grown more than permitted."""
    fifth = len(samples) // 5
    complaints = []
    for what, most in MOST_GROWTH.items():
        before = statistics.median(sample[what] for sample in samples[fifth:2 * fifth])
        after = statistics.median(sample[what] for sample in samples[-fifth:])
        print(f"{what}: {before:.1f} in the second fifth, {after:.1f} in the last")
        if after > before * most + CHANCE.get(what, 0):
            complaints.append(f"{what} grew from {before:.1f} to {after:.1f}")
    return complaints


async def period(server, load, seconds, sample):
    """Works for a while, and restarts the server during the work."""
    async with logged_in(server.client_port) as clients:
        until = time.monotonic() + seconds
        workers = [asyncio.create_task(load.work(client, until + 60)) for client in clients]
        while time.monotonic() < until:
            await asyncio.sleep(min(10, max(0.1, until - time.monotonic())))
            sample()
        server.halt()
        for worker in workers:
            worker.cancel()


def soak(name, minutes, every):
    load, samples = Load(), []
    began = shown = time.monotonic()
    with SERVERS[name](USERS) as server, tempfile.TemporaryDirectory() as folder:
        with Gjallar(server.component_port, folder, admins="admin@localhost") as gjallar:
            def sample():
                nonlocal shown
                samples.append(measure(gjallar))
                if time.monotonic() - shown >= 60:
                    shown = time.monotonic()
                    now = " ".join(f"{what} {value:.0f}" for what, value in samples[-1].items())
                    print(f"{(shown - began) / 60:.0f} min: {load.granted} granted, "
                          f"{load.refused} refused, {load.lost} lost; {now}", flush=True)
            restarts = 0
            while time.monotonic() - began < minutes * 60:
                asyncio.run(period(server, load, every * 60, sample))
                server.launch()
                restarts += 1
                gjallar.wait_for_log(CONNECTED, restarts + 1, timeout=60)
            log = gjallar.logged()
            assert gjallar.stop() == 0
        check = subprocess.run(
            [gjallar.binary, "check", "--store", gjallar.options["STORE"]], env={},
            capture_output=True, text=True)
    complaints = grown(samples)
    if check.returncode:
        complaints.append(check.stderr)
    if "panicked" in log or '"level":"ERROR"' in log:
        complaints.append(log[-5000:])
    print(f"{name}: {minutes} minutes, {restarts} restarts of the server, {load.granted} requests granted, "
          f"{load.refused} refused, {load.lost} lost with a connection, {samples[-1]['told']} notifications; "
          f"{len(complaints)} complaints")
    return complaints


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=sorted(SERVERS), default="prosody")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--restart-every", type=float, default=5, metavar="MINUTES")
    given = parser.parse_args()
    found = soak(given.server, given.minutes, given.restart_every)
    print("\n".join(found))
    sys.exit(1 if found else 0)
