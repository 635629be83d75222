"""Runs the same load against gjallar and against what it is compared with, one after the other, several times,
and prints a table. `make bench` builds what it needs.

Every system connects to the load by XEP-0114 on loopback. gjallar keeps its items in a store on disk.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "benches/load/target/release"
GJALLAR = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/gjallar"

# What is measured: the arguments of the load, and which line of what it says counts.
BENCHES = {
    "fanout": ("fan-out, notifications/s (1 000 subscribers)", ["fanout", "--publishes", "500"]),
    "publish": ("durable publishes/s (one node, 64 outstanding)", ["publish", "--publishes", "20000"]),
    "nodes": ("durable publishes/s (100 nodes)", ["publish", "--nodes", "100", "--publishes", "20000"]),
    "subscribe": ("subscriptions/s (one node, 100 000)", ["subscribe"]),
}
# Those that store nothing are compared where nothing has to be stored.
SYSTEMS = {"fanout": ["least", "typed", "gjallar"]}


def start(system, port, store):
    if system != "gjallar":
        return subprocess.Popen([PROGRAMS / system, f"127.0.0.1:{port}", "--subscribers", "1000"])
    environment = {
        "GJALLAR_JID": "pubsub.localhost",
        "GJALLAR_SECRET": "secret",
        "GJALLAR_SERVER": f"127.0.0.1:{port}",
        "GJALLAR_STORE": f"sled:{store}",
        "GJALLAR_LOG": "error",
        "GJALLAR_LIMITS_MAX_JID_REQUESTS_PER_SECOND": "0",
        "GJALLAR_LIMITS_MAX_DOMAIN_REQUESTS_PER_SECOND": "0",
    }
    return subprocess.Popen([GJALLAR, "serve"], env=environment)


def run(system, arguments):
    """What the load said: its lines, the first of which counts."""
    store = tempfile.mkdtemp(prefix="gjallar-bench-")
    load = subprocess.Popen([PROGRAMS / "load", *arguments], stdout=subprocess.PIPE, text=True)
    service = start(system, load.stdout.readline().strip(), store)
    try:
        lines = [json.loads(line) for line in load.stdout]
        if load.wait() != 0:
            raise SystemExit(f"{system}: the load failed")
        return lines
    finally:
        service.terminate()
        service.wait()
        shutil.rmtree(store)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", nargs="*", help=f"of {', '.join(BENCHES)}; all without one")
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    print("| what | system | median | of |\n|---|---|---|---|", flush=True)
    for name in chosen.bench or BENCHES:
        what, arguments = BENCHES[name]
        for system in SYSTEMS.get(name, ["gjallar"]):
            rates = [round(run(system, arguments)[0]["per_second"]) for _ in range(chosen.runs)]
            shown = ", ".join(f"{rate:,}" for rate in sorted(rates))
            print(f"| {what} | {system} | {statistics.median(rates):,} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
