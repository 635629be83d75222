"""Converse's headless build in Chromium, over the server's websocket: feeds, comments, forms, and the node browser."""

import asyncio
import contextlib
import http.server
import json
import pathlib
import queue
import subprocess
import threading
import xml.etree.ElementTree as ET

import pytest

from clients import clients, form
from conftest import with_loop
from servers import PASSWORD, SERVICE

HERE = pathlib.Path(__file__).resolve().parent / "converse"
FILES = {
    "/": (HERE / "index.html", "text/html"),
    "/flows.js": (HERE / "flows.js", "text/javascript"),
    "/headless.js": (HERE / "node_modules/@converse/headless/dist/converse-headless.min.js", "text/javascript"),
}
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
TIMEOUT = 60
ATOM = "{http://www.w3.org/2005/Atom}"
COMMENTS = dict(
    access_model="open", publish_model="open", persist_items="true", max_items="max",
    send_last_published_item="never", notify_retract="true", deliver_payloads="true", itemreply="publisher")

pytestmark = [pytest.mark.one_release, pytest.mark.parametrize("server", ["ejabberd", "prosody"], indirect=True)]


@contextlib.contextmanager
def pages(task, reports):
    """Starts a web server on loopback with the page, its task, and an endpoint for the report."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/task":
                body, kind = json.dumps(task).encode(), "application/json"
            elif self.path in FILES:
                path, kind = FILES[self.path]
                body = path.read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield running.server_port
        finally:
            running.shutdown()


def converse(server, folder, flow, user, **arguments):
    """Returns the result of a flow."""
    task = dict(arguments, flow=flow, service=SERVICE, jid=f"{user}@localhost/converse", password=PASSWORD,
                websocket=server.websocket)
    reports = queue.Queue()
    with pages(task, reports) as port, open(folder / "chromium.log", "ab") as log:
        browser = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={folder / 'profile'}", f"http://127.0.0.1:{port}/"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            result = reports.get(timeout=TIMEOUT)
        except queue.Empty:
            raise TimeoutError(f"Converse reports nothing: {(folder / 'chromium.log').read_text()}") from None
        finally:
            browser.terminate()
            browser.wait(10)
    assert "failed" not in result, result["failed"]
    return result


def post(number, size):
    """Returns a post of this length."""
    element = ET.Element(f"{ATOM}entry")
    ET.SubElement(element, f"{ATOM}title").text = f"Post {number} " + "x" * size
    ET.SubElement(element, f"{ATOM}published").text = f"2026-01-01T{number // 60:02}:{number % 60:02}:00Z"
    return element


@pytest.mark.parametrize(("posts", "size", "requests"), [(250, 10, 13), (60, 12_000, 4)], ids=["many", "long"])
@with_loop
async def test_feed_longer_than_a_page_is_read_to_its_end(server, gjallar, tmp_path, posts, size, requests):
    ids = [f"p{number:03}" for number in range(posts)]
    async with clients(server.client_port, "owner") as (owner,):
        await owner.pubsub.create_node(SERVICE, "feed", config=form(owner, max_items="max"))
        for number, id in enumerate(ids):
            await owner.pubsub.publish(SERVICE, "feed", id=id, payload=post(number, size))
    read = await asyncio.to_thread(converse, server, tmp_path, "feed", "alice", node="feed")
    assert read == {"pageable": True, "count": posts, "ids": ids, "pages": requests}


@with_loop
async def test_converse_adds_comments_and_likes(server, gjallar, tmp_path):
    node = "urn:xmpp:microblog:0:comments/post"
    async with clients(server.client_port, "owner", "bob") as (owner, bob):
        await owner.pubsub.create_node(SERVICE, node, config=form(owner, **COMMENTS))
        await bob.pubsub.publish(SERVICE, node, id="bobs", payload=post(1, 0))
    done = await asyncio.to_thread(
        converse, server, tmp_path, "comments", "alice", node=node, me="alice@localhost", others="bobs")
    assert done["events"] == [[["item", "mine"]], [["item", "like"]], [["retract", "like"]]]
    assert (done["overwrite"], done["retract"]) == ("forbidden", "forbidden")
    assert done["items"] == [["bobs", "bob@localhost", "Post 1 "], ["mine", "alice@localhost", "A comment"]]


def test_converse_submits_a_configuration_twice(server, gjallar, tmp_path):
    done = converse(server, tmp_path, "configure", "alice", node="configured")
    assert done["title"] == "Second"
    assert (done["max_items"], done["notify_retract"]) == ("max", True)


@with_loop
async def test_node_browser_lists_every_node(server, gjallar, tmp_path):
    names = [f"node{number:03}" for number in range(130)]
    async with clients(server.client_port, "owner") as (owner,):
        for name in names:
            await owner.pubsub.create_node(
                SERVICE, name, config=form(owner, title=f"Title of {name}", type="http://www.w3.org/2005/Atom"))
        await owner.pubsub.subscribe(SERVICE, "node007")
    found = await asyncio.to_thread(converse, server, tmp_path, "browse", "alice")
    assert sorted(found["nodes"]) == names
    assert found["about"]["node007"] == {
        "title": "Title of node007", "type": "http://www.w3.org/2005/Atom", "subscribers": "1"}
