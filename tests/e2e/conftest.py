"""Fixtures: each test runs against each server, with the real binary and a store of its own."""

import asyncio
import functools

import pytest

from servers import SERVERS, Gjallar

USERS = ["owner", "bot", "alice", "bob", "mallory", "admin"] + [f"u{n}" for n in range(100)]


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
