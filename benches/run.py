"""Runs the same load against gjallar and other systems, several times, side by side, and writes the tables and plots
of docs/BENCHMARKS.md. `make bench` builds what it needs; BENCH selects benches.

Every system connects to the load generator by XEP-0114 on loopback, or runs behind a real Prosody or ejabberd, of
which the load generator is another component. gjallar keeps its items in a store on disk, and replies after the sync.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "benches/load/target/release"
GJALLAR = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/gjallar"
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests/e2e")]

import report  # noqa: E402
import servers  # noqa: E402
from behind import BEHIND, OWN, USERS, Ejabberd, Multicast, RaisedMulticast  # noqa: E402

# Higher than the benches need.
LIMITS = {
    "MAX_JID_REQUESTS_PER_SECOND": 0, "MAX_DOMAIN_REQUESTS_PER_SECOND": 0,
    "MAX_SUBSCRIPTIONS": 2_000_000, "MAX_NODES": 1_000_000, "MAX_ITEMS": 1_000_000,
    "MAX_NODE_BYTES": 2**33,
}


def gjallar(server, store, secret="secret", **more):
    options = {
        "JID": "pubsub.localhost", "SECRET": secret, "SERVER": server, "STORE": f"sled:{store}",
        "LOG": "error", "CREATORS": "anyone", **{f"LIMITS_{name}": value for name, value in LIMITS.items()}, **more}
    return subprocess.Popen(
        [GJALLAR, "serve"], env={f"GJALLAR_{name}": str(value) for name, value in options.items()})


def peer(system, server, subscribers, *more):
    return subprocess.Popen([PROGRAMS / system, server, "--subscribers", str(subscribers), *more])


def resident(process, what="VmRSS"):
    """Returns the resident memory of a process in MiB, present or peak (VmHWM)."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {what}")


@contextlib.contextmanager
def running(process):
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def load(*arguments):
    return subprocess.Popen(
        [PROGRAMS / "load", *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def results(process):
    lines = [json.loads(line) for line in process.stdout]
    if process.wait() != 0:
        raise SystemExit("the load failed")
    return lines


def at_the_socket(system, arguments, subscribers=1000, store=None, **options):
    """Returns the output of the load generator, and the memory of the system: at the end, and at its peak."""
    folder = store or tempfile.mkdtemp(prefix="gjallar-bench-")
    try:
        driver = load(*arguments)
        server = f"127.0.0.1:{driver.stdout.readline().strip()}"
        begun = time.monotonic()
        started = (gjallar(server, folder, **options) if system == "gjallar"
                   else peer(system, server, subscribers))
        with running(started) as process:
            lines = results(driver)
            lines[0:0] = [{"what": "all", "seconds": time.monotonic() - begun}]
            # The other systems end with the connection.
            memory = [resident(process, what) for what in ("VmRSS", "VmHWM")] if system == "gjallar" else None
            return lines, memory
    finally:
        if store is None:
            shutil.rmtree(folder)


def middle(values):
    """Returns the median of some runs, and all of them."""
    return {"median": statistics.median(values), "runs": values}


class Benches:
    """Benches by method; a docstring is the title of a section in the report, and the return value its rows."""

    def __init__(self, runs):
        self.runs = runs

    def in_turn(self, measures):
        """Runs several measurements in turns, so that changing load of the machine affects all of them equally."""
        values = {name: [] for name in measures}
        for run in self.rounds():
            for name, measure in measures.items():
                values[name].append(measure())
                print(f"    {name}: {values[name][-1]:,.1f}", flush=True)
        return {name: middle(runs) for name, runs in values.items()}

    def rounds(self):
        for run in range(self.runs):
            print(f"  run {run + 1} of {self.runs}", flush=True)
            yield run

    def fanout(self):
        """Notifications a second, one node with 1 000 subscribers"""
        arguments = ["fanout", "--publishes", 3000]
        return self.in_turn({system: lambda system=system: per_second(system, arguments)
                             for system in ("least", "gjallar", "typed")})

    def audiences(self):
        """Notifications a second against the number of subscribers"""
        def point(subscribers):
            publishes = max(1, min(20_000, 2_000_000 // subscribers))
            arguments = ["fanout", "--subscribers", subscribers, "--publishes", publishes]
            return lambda: per_second("gjallar", arguments)
        return self.in_turn({number: point(number) for number in (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)})

    def publish(self):
        """Durable publishes a second, one sender, one node, one subscriber, 64 outstanding"""
        kinds = {
            "one node": [], "100 nodes": ["--nodes", 100],
            "one node, keeps 1 000 items": ["--max-items", 1000],
            "one node, keeps 1 item": ["--max-items", 1]}
        return self.in_turn({
            name: lambda more=more: per_second("gjallar", ["publish", "--publishes", 50_000, *more])
            for name, more in kinds.items()})

    def outstanding(self):
        """Durable publishes a second against the number of outstanding requests"""
        def point(number):
            arguments = ["publish", "--publishes", 2000 * min(number, 10), "--outstanding", number]
            return lambda: per_second("gjallar", arguments)
        return self.in_turn({number: point(number) for number in (1, 2, 4, 8, 16, 32, 64, 128)})

    def alone(self):
        """Milliseconds of a single publish, and of a sync of the disk"""
        def answered():
            lines, _ = at_the_socket("gjallar", ["publish", "--publishes", 3000, "--outstanding", 1])
            return lines[1]["answers"]["p50"] / 1000
        return self.in_turn({"publish, median": answered, "fdatasync of 4 KiB, median": sync})

    def latency(self):
        """Milliseconds from a publish to its last notification: 1 000 publishes a second, 100 subscribers"""
        arguments = ["fanout", "--subscribers", 100, "--publishes", 10_000, "--rate", 1000,
                     "--outstanding", 1000]
        runs = [at_the_socket("gjallar", arguments)[0][1]["events"] for _ in self.rounds()]
        return {name: middle([run[name] / 1000 for run in runs])
                for name in ("p50", "p90", "p99", "p999", "max")}

    def subscriptions(self):
        """One node with many subscribers: subscriptions a second, resident memory, and one publish to all"""
        rows = {}
        for number in (1000, 10_000, 100_000, 1_000_000):
            print(f"  {number:,}", flush=True)
            runs = [at_the_socket("gjallar", ["subscribe", "--subscribers", number])
                    for _ in self.rounds()]
            of = {"subscriptions/s": [lines[1]["per_second"] for lines, _ in runs],
                  "MiB": [at_end for _, (at_end, _) in runs],
                  "peak MiB": [at_most for _, (_, at_most) in runs],
                  "delivery to all in s": [lines[2]["seconds"] for lines, _ in runs]}
            rows[number] = {name: middle(values)
                            for name, values in of.items()}
        return rows

    def aside(self):
        """Milliseconds of a publish at another node during three events for a million subscribers in three seconds"""
        runs = [at_the_socket("gjallar", ["aside"])[0][1]["answers"] for _ in self.rounds()]
        return {name: middle([run[name] / 1000 for run in runs]) for name in ("p50", "p99", "max")}

    def history(self):
        """Publishes a second against the items that a node has"""
        runs = [at_the_socket("gjallar", ["history"])[0][1:] for _ in self.rounds()]
        return {int(lines[0]["what"]): middle(values)
                for lines in zip(*runs) for values in [[line["per_second"] for line in lines]]}

    def full(self):
        """100 000 nodes with 1 000 000 items: publishes a second while they are filled, start, and memory"""
        return self.filled()

    def cached(self):
        """The same with store_cache_mib = 512, which holds all pages"""
        return self.filled(STORE_CACHE_MIB=512)

    def filled(self, **options):
        rows = {}
        for _ in self.rounds():
            with tempfile.TemporaryDirectory(prefix="gjallar-bench-") as store:
                lines, (memory, _) = at_the_socket("gjallar", ["fill"], store=store, **options)
                measured = {f"publishes/s up to {int(line['what']):,} items": line["per_second"]
                            for line in lines if line["what"].isdigit()}
                measured["MiB after that"] = memory
                lines, (memory, _) = at_the_socket("gjallar", ["once"], store=store, **options)
                measured["s from the start of the process to the first answer"] = lines[0]["seconds"]
                measured["MiB after the start"] = memory
            for name, value in measured.items():
                rows.setdefault(name, []).append(value)
        return {name: middle(values)
                for name, values in rows.items()}

    def read(self):
        """Reads a second: parsed, authorised, answered"""
        runs = [at_the_socket("gjallar", ["read"])[0][1:] for _ in self.rounds()]
        rows = {lines[0]["what"]: [line["per_second"] for line in lines] for lines in zip(*runs)}
        return {name: middle(values)
                for name, values in rows.items()}

    def behind(self):
        """Notifications a second behind a server, 1 000 subscribers of another component"""
        # Neither server writes the stream header that tokio-xmpp's component requires.
        return self.in_turn({
            f"{name}: {SYSTEMS[system]}": lambda server=server, system=system: behind_a_server(server, system)
            for name, server in BEHIND.items() for system in ("least", "gjallar", "own")})

    def multicast(self):
        """Notifications a second behind ejabberd by its mod_multicast, 1 000 subscribers of another component"""
        return self.in_turn({
            "one stanza for each recipient": lambda: behind_a_server(Ejabberd, "gjallar"),
            "one stanza for 20": lambda: behind_a_server(Multicast, "gjallar"),
            "one stanza for 500": lambda: behind_a_server(RaisedMulticast, "gjallar"),
            SYSTEMS["own"]: lambda: behind_a_server(Ejabberd, "own")})

    def peers(self):
        """Acknowledged publishes a second (64 outstanding, one subscriber), subscriptions a second, and KiB for each"""
        rows = {}
        for system, (publishes, subscriptions) in {
                "gjallar": (20_000, 100_000), "ejabberd": (2000, 20_000), "Prosody": (200, 1000)}.items():
            print(f"  {system}", flush=True)
            runs = [gjallar_alone(publishes, subscriptions) if system == "gjallar"
                    else by_itself(BEHIND[system], publishes, subscriptions) for _ in self.rounds()]
            names = ("publishes/s", "subscriptions/s", "KiB for each")
            rows[SYSTEMS[system] if system == "gjallar" else f"{system}'s own mod_pubsub"] = {
                name: middle(values)
                for name, values in zip(names, map(list, zip(*runs)))}
        return rows

    def hot(self):
        """Instructions of the hot functions, by callgrind"""
        built = subprocess.run(
            ["cargo", "bench", "-q", "--locked", "--no-run", "--bench", "hot", "--message-format=json"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        binary = next(message["executable"] for message in map(json.loads, built.splitlines())
                      if message.get("target", {}).get("name") == "hot" and message.get("executable"))
        rows, before = {name: instructions(binary, name) for name in HOT}, report.found("hot")
        # The reference is the lowest number ever measured, so that small regressions do not add up.
        fewest = {name: min(value, before.get(name, {}).get("fewest", value)) for name, value in rows.items()}
        for name, value in rows.items():
            if value > 1.03 * fewest[name]:
                raise SystemExit(f"{name}: {value:,.0f} instructions, and there were {fewest[name]:,.0f}; "
                                 "take them out of benches/results.json if that has to be, and say why in docs/decisions")
        return {name: {"median": value, "runs": [value], "fewest": fewest[name]} for name, value in rows.items()}


def per_second(system, arguments):
    return at_the_socket(system, arguments)[0][1]["per_second"]


HOT = ("parse a publish", "decide a publish", "encode a record", "render a notification",
       "splice a notification", "write an address")


def instructions(binary, name):
    """Returns the number of instructions of a function in benches/hot.rs."""
    said = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=hot::counted*",
         binary, "instructions", name], stderr=subprocess.PIPE, text=True, check=True).stderr
    return int(re.search(r"Collected : (\d+)", said).group(1)) / 1000


SYSTEMS = {
    "least": "the least possible work", "typed": "typed tokio-xmpp component", "gjallar": "gjallar",
    "own": "the server's own mod_pubsub"}
def behind_a_server(kind, system):
    """Measures notifications per second that a component of a server receives from another component, or from the
    server itself."""
    with kind([]) as server, tempfile.TemporaryDirectory(prefix="gjallar-bench-") as store:
        address = f"127.0.0.1:{server.component_port}"
        with contextlib.ExitStack() as stack:
            if system == "gjallar":
                stack.enter_context(running(gjallar(address, store, servers.SECRET)))
            elif system != "own":
                stack.enter_context(running(
                    peer(system, address, 1000, "--secret", servers.SECRET, "--domain", USERS)))
            service = OWN if system == "own" else servers.SERVICE
            time.sleep(2)
            driver = load("--server", address, "--service", service, "fanout", "--publishes", 100,
                          "--outstanding", 4)
            driver.stdout.readline()
            return results(driver)[0]["per_second"]


def by_itself(kind, publishes, subscriptions):
    """Measures a server's own module."""
    with kind([]) as server:
        address = f"127.0.0.1:{server.component_port}"

        def run(*arguments):
            driver = load("--server", address, "--service", OWN, *arguments)
            driver.stdout.readline()
            return results(driver)[0]["per_second"]
        published = run("publish", "--publishes", publishes)
        before = resident(server.process)
        subscribed = run("subscribe", "--subscribers", subscriptions)
        return published, subscribed, 1024 * (resident(server.process) - before) / subscriptions


def gjallar_alone(publishes, subscriptions):
    published = at_the_socket("gjallar", ["publish", "--publishes", publishes])[0][1]["per_second"]
    _, (before, _) = at_the_socket("gjallar", ["subscribe", "--subscribers", 1])
    lines, (after, _) = at_the_socket("gjallar", ["subscribe", "--subscribers", subscriptions])
    return published, lines[1]["per_second"], 1024 * (after - before) / subscriptions


def sync():
    """Returns the milliseconds that the disk needs to sync a page of an existing file, the median of a thousand."""
    with tempfile.NamedTemporaryFile(prefix="gjallar-bench-") as file:
        file.write(bytes(4 << 20))
        os.fsync(file.fileno())
        took = []
        for number in range(1000):
            os.pwrite(file.fileno(), bytes([number % 256]) * 4096, number * 4096)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(1000 * (time.perf_counter() - begun))
        return statistics.median(took)


def main():
    names = [name for name, bench in vars(Benches).items() if bench.__doc__ and name[0] != "_"
             and name not in ("in_turn", "rounds")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", nargs="*", help=f"of {', '.join(names)}; all without one")
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    unknown = set(chosen.bench) - set(names)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    benches = Benches(chosen.runs)
    try:
        for name in chosen.bench or names:
            bench = getattr(benches, name)
            print(f"{name}: {bench.__doc__}", flush=True)
            rows = {str(row): cells for row, cells in bench().items()}
            report.note(name, bench.__doc__, rows)
            print("\n".join(report.table({"rows": rows})), flush=True)
    finally:
        report.write()


if __name__ == "__main__":
    main()
