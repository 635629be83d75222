"""Fixtures: each test runs against each server, with the real binary and a separate store."""

import asyncio
import functools
import subprocess

import pytest

from servers import RELEASE, ROOT, SERVERS, Gjallar, make_server_root

USERS = ["owner", "bot", "alice", "bob", "mallory", "admin"] + [f"u{n}" for n in range(100)]


def pytest_configure(config):
    config.addinivalue_line("markers", "one_release: takes long and depends little on the servers; `make e2e` runs it with one of the Debian releases")
    make_server_root()


def pytest_terminal_summary(terminalreporter):
    query = ["dpkg-query", f"--admindir={ROOT}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n", "prosody", "ejabberd"]
    versions = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")
    terminalreporter.write_line(f"servers of Debian {RELEASE}: {', '.join(filter(None, versions))}")


@pytest.fixture(scope="session", params=sorted(SERVERS))
def server(request):
    with SERVERS[request.param](USERS) as running:
        yield running


@pytest.fixture
def gjallar(server, tmp_path):
    with Gjallar(server.component_port, tmp_path, admins="admin@localhost") as running:
        yield running
        assert "panicked" not in running.logged()


def with_loop(test):
    """Runs an async test."""
    @functools.wraps(test)
    def run(*args, **kwargs):
        return asyncio.run(test(*args, **kwargs))
    return run
