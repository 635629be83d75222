"""`gjallar doctor` at real servers, with and without a running service."""

import json
import os
import subprocess

from servers import SECRET, SERVICE, Gjallar, binaries


def examine(*arguments, **options):
    """Returns the verdict of each check, and the exit code."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GJALLAR_")}
    variables = {f"GJALLAR_{name.upper()}": str(value) for name, value in options.items()}
    done = subprocess.run(
        [str(binaries() / "gjallar"), "doctor", "--json", *arguments], env=dict(clean, **variables),
        capture_output=True, text=True, check=False, timeout=120)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    print(done.stdout, done.stderr)
    return {finding["check"]: finding for finding in findings}, done.returncode


def test_doctor_checks_the_server(server, tmp_path):
    store = f"sled:{tmp_path}/store"
    options = dict(
        jid=SERVICE, server=f"127.0.0.1:{server.component_port}", secret=SECRET, store=store,
        admins="admin@localhost")
    for is_running in (False, True):
        if is_running:
            with Gjallar(server.component_port, tmp_path, admins="admin@localhost") as gjallar:
                # The control socket suffices.
                findings, code = examine(store=store)
                assert "WARN" not in gjallar.logged(), gjallar.logged()
        else:
            findings, code = examine(**options)
        degraded = {check for check, finding in findings.items() if finding["verdict"] != "ok"}
        # ejabberd 24.10 and later drop stanzas to bare addresses, 24.12 also those to their own domain.
        assert degraded <= {"components", "ping", "disco", "server"}, findings
        assert code == (4 if degraded else 0)
        if "server" not in degraded:
            name = "prosody" if server.name == "prosody" else "ejabberd"
            assert name in findings["server"]["text"].lower(), findings["server"]
        assert "524288" in findings["stanza-size"]["text"]
        assert ("recipients" in findings["multicast"]["text"]) == (server.name == "multicast")

    findings, code = examine(**dict(options, secret="wrong"))
    assert (findings["connection"]["verdict"], code) == ("failed", 1)
