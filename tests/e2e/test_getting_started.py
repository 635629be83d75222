"""docs/GETTING-STARTED.md on a clean Debian with a real systemd: every command, in the order of the document, with
its output.

A block of commands runs in the terminal that the text above it names last, and a block of output is the output of
that terminal. All commands run as they are in the document, except those in INSTEAD.
"""

import asyncio
import importlib.util
import json
import re
import subprocess

import pytest

from clients import NO_TLS, TIMEOUT
from conftest import with_loop
from container import Container
from servers import DOMAIN, PASSWORD, PROJECT, RELEASE, SERVICE, binaries, wait_for

DOCUMENT = PROJECT / "docs/GETTING-STARTED.md"

# The container has no network and no compiler; packages and program are installed in advance. Its user is root.
CHECKOUT = "/root/checkout"
INSTEAD = {
    "sudo apt install --yes build-essential": "",
    "sudo apt install --yes prosody": "dpkg-query --show prosody",
    "sudo apt install --yes ejabberd": "dpkg-query --show ejabberd",
    "cargo build --release": "test -x target/release/gjallar",
    # Prosody of Debian 13 begins to listen shortly after systemd reports it as running.
    "sudo systemctl restart prosody": "systemctl restart prosody; until (: < /dev/tcp/127.0.0.1/5347); do :; done 2>&-",
    # The exit code for a server with a degraded check.
    "gjallar doctor": "gjallar doctor || [ $? = 4 ]",
    # The subscriber logs in meanwhile.
    "gjallar subscription list news":
        "until gjallar subscription list news | grep -q trial; do :; done; gjallar subscription list news",
}

# Commands that run until their terminal is closed.
ENDLESS = ("gjallar serve", "gjallar client subscribe ")

# Output that differs between runs, or between the servers.
VARYING = [
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"[\d.]+ ms|_ms=\d+", "DURATION"),
    (r"(Prosody|ejabberd) \d\S*", "SERVER"),
    (r'version="[^"]+"', "VERSION"),
    (r"sled:/(root|home/you)/", "sled:HOME/"),
    (r" +", " "),
]

# Step 2 has a section for each server; the sections of other servers are left out.
STEP_2 = {"prosody": "2. Add the component to Prosody", "ejabberd": "With ejabberd"}
# Replacements that the document prescribes for a server.
OTHERWISE = {"prosody": {}, "ejabberd": {
    "localhost:5222": "localhost:5221",
    "sudo prosodyctl deluser gjallar-trial@example.org": "sudo ejabberdctl unregister gjallar-trial example.org"}}
PACKAGES = {"prosody": ["prosody"], "ejabberd": ["ejabberd", "sqlite3"]}

BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.M | re.S)


def sections():
    """Returns the sections of the document by their headings."""
    found = re.split(r"^## (.*)$", DOCUMENT.read_text(), flags=re.M)
    return dict(zip(found[1::2], found[2::2]))


def blocks(server):
    """Returns terminal, kind and text of each block, in the order for a reader with this server."""
    parts = sections()
    step_2 = {name: parts.pop(heading) for name, heading in STEP_2.items()}
    text = "".join(f"{part}{step_2[server] if heading.startswith('1. ') else ''}" for heading, part in parts.items())
    for written, meant in OTHERWISE[server].items():
        assert written in text and meant in step_2[server]
        text = text.replace(written, meant)
    terminal, end = None, 0
    for block in BLOCK.finditer(text):
        named = re.findall(r"[Tt]erminal (\d)", text[end:block.start()])
        terminal, end = named[-1] if named else terminal, block.end()
        yield terminal, block[1], block[2]


def alike(output):
    for pattern, name in VARYING:
        output = re.sub(pattern, name, output)
    return "\n".join(line.strip() for line in output.strip().splitlines())


class Terminal:
    """Login shell of root in the container, in the checkout."""

    def __init__(self, debian, log):
        self.log = log
        self.shown = self.finished = 0
        with open(log, "w") as output:
            self.shell = subprocess.Popen(
                **debian.inside("bash", "-l", HOME="/root"), stdin=subprocess.PIPE, stdout=output, stderr=output)
        self.run(f"cd {CHECKOUT}\n")

    def output(self):
        """Returns the output since the last block of output."""
        return self.log.read_text()[self.shown:]

    def run(self, commands):
        self.shown = len(self.log.read_text())
        *_, last = commands.splitlines()
        if last.startswith(ENDLESS):
            self.type(commands)
            return
        # A command that fails ends the shell.
        self.finished += 1
        mark = f"<finished {self.finished}>"
        self.type(f"set -e\n{commands}\nset +e\necho '{mark}'\n")
        wait_for(lambda: mark in self.output() or self.shell.poll() is not None, f"the end of {commands}", 60)
        assert mark in self.output(), f"{commands}: {self.output()}"

    def type(self, text):
        self.shell.stdin.write(text)
        self.shell.stdin.flush()

    def prints(self, expected):
        """Asserts that exactly this text is printed."""
        def printed():
            return alike(re.sub("<finished .*\n", "", self.output()))
        try:
            wait_for(lambda: printed() == alike(expected), "output")
        except TimeoutError:
            assert printed() == alike(expected)
        self.shown = len(self.log.read_text())

    def close(self):
        self.shell.kill()
        self.shell.wait()


def as_run(command):
    """Returns a line of the document as the test runs it."""
    return INSTEAD.get(command, command.removeprefix("sudo "))


@pytest.mark.parametrize("server", STEP_2)
def test_every_command_prints_what_the_document_shows(server, tmp_path):
    terminals = {}
    with Container(RELEASE, "systemd", "systemd-sysv", *PACKAGES[server]) as debian:
        debian.run("mkdir", "-p", f"{CHECKOUT}/target/release")
        debian.copy(binaries() / "gjallar", f"{CHECKOUT}/target/release/gjallar")
        try:
            for name, kind, text in blocks(server):
                if name not in terminals:
                    terminals[name] = Terminal(debian, tmp_path / f"terminal-{name}")
                if kind == "text":
                    terminals[name].prints(text)
                else:
                    assert kind == "sh", f"neither commands nor output: {text}"
                    terminals[name].run("".join(f"{as_run(line)}\n" for line in text.splitlines()))
        finally:
            for terminal in terminals.values():
                terminal.close()


def test_every_replacement_is_in_the_document():
    commands = "".join(text for kind, text in BLOCK.findall(DOCUMENT.read_text()) if kind == "sh").splitlines()
    assert set(INSTEAD) <= set(commands), set(INSTEAD) - set(commands)


def test_readers_find_the_document_and_its_links():
    assert "(docs/GETTING-STARTED.md)" in (PROJECT / "README.md").read_text()
    text = DOCUMENT.read_text()
    for path, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
        document = DOCUMENT.parent / path if path else DOCUMENT
        headings = {line.lstrip("# ").lower().replace(" ", "-") for line in document.read_text().splitlines()
                    if line.startswith("#")}
        assert not anchor or anchor in headings or f'<a id="{anchor}">' in document.read_text(), f"{path}#{anchor}"


@with_loop
async def test_the_bot_in_slixmpp_publishes(server, gjallar, capsys):
    source = importlib.util.spec_from_file_location("bot", PROJECT / "examples/bot.py")
    example = importlib.util.module_from_spec(source)
    source.loader.exec_module(example)
    gjallar.run("node", "create", "news", "--as", f"bot@{DOMAIN}")
    bot = example.Bot(f"bot@{DOMAIN}", PASSWORD, SERVICE, "news", ["Hello", "World"])
    # The private servers have no certificates.
    bot.ssl_context, bot.enable_plaintext, bot.enable_starttls, bot.enable_direct_tls = NO_TLS, True, False, False
    bot.plugin["feature_mechanisms"].unencrypted_plain = True
    bot.connect("127.0.0.1", server.client_port)
    await asyncio.wait_for(bot.disconnected, TIMEOUT)
    published = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    # The list begins with the newest item.
    listed = [json.loads(line) for line in gjallar.run("item", "list", "news", "--json").splitlines()]
    assert [item["item"] for item in reversed(listed)] == published
    assert [title in item["payload"] for item, title in zip(reversed(listed), ["Hello", "World"])] == [True, True]
