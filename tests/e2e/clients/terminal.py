"""Program in a pseudo-terminal, driven by typed text and read from the screen. Run as a program, this module
administers the running service with profanity, and writes the screens into docs/COMMANDS.md."""

import os
import pathlib
import re
import sys
import tempfile
import time

import pexpect
import pyte

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from servers import DOMAIN, PASSWORD, SERVICE, Gjallar, Prosody

COLUMNS, LINES = 100, 110
NODE = "princely_musings"
COMMAND = "urn:gjallar:command"


class Terminal:
    """Program in a pseudo-terminal; a context manager."""

    def __init__(self, command, folder):
        self.screen = pyte.HistoryScreen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        home = str(folder)
        environment = dict(
            os.environ, HOME=home, XDG_CONFIG_HOME=f"{home}/config", XDG_DATA_HOME=f"{home}/data",
            TERM="linux", LANG="C.UTF-8")
        self.child = pexpect.spawn(command, env=environment, dimensions=(LINES, COLUMNS))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.close(force=True)

    def seen(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait_for(self, *texts, timeout=20):
        """Waits until one of these texts is on the screen; returns the screen."""
        end = time.monotonic() + timeout
        while not any(text in self.seen() for text in texts):
            if time.monotonic() > end:
                raise TimeoutError(f"{texts} are not on the screen:\n{self.seen()}")
            try:
                self.stream.feed(self.child.read_nonblocking(65536, 0.2))
            except pexpect.TIMEOUT:
                pass
        return self.seen()

    def repeat(self, text, refusal, expected):
        """Types a text again while it is refused."""
        end = time.monotonic() + 20
        self.type(text)
        while expected not in self.wait_for(refusal, expected) and time.monotonic() < end:
            self.type("/clear")
            self.type(text)
        self.type("/clear")

    def type(self, text):
        self.child.send(f"{text}\r")


def configure(terminal, server):
    """Configures a node from profanity; returns the typed texts and the screens."""
    shown = []

    def step(typed, expected):
        terminal.type(typed)
        shown.append((typed, terminal.wait_for(expected)))

    terminal.wait_for("Type '/help' to show complete help")
    terminal.type(f"/connect owner@{DOMAIN} server 127.0.0.1 port {server.client_port} tls disable")
    terminal.wait_for("Enter password")
    terminal.type(PASSWORD)
    terminal.wait_for("logged in successfully")
    # Profanity refuses the command until it has discovered the services of the server.
    terminal.repeat(f"/cmd list {SERVICE}", "Server does not support ad hoc commands", f"{COMMAND}:configure-node")
    step(f"/cmd list {SERVICE}", f"{COMMAND}:configure-node")
    step(f"/cmd exec {COMMAND}:configure-node {SERVICE}", "Form title: Configure a node")
    # Profanity names fields by their position in the form.
    terminal.type(f"/field1 {NODE}")
    terminal.wait_for("Field updated")
    step("/form submit", f"Form title: Configuration of {NODE}")
    terminal.wait_for("Use '/form submit' to save changes.")
    terminal.type('/field1 "Princely Musings"')
    terminal.wait_for("A friendly name for the node: Princely Musings")
    step("/form submit", "The node is configured.")
    return shown


def main():
    with (Prosody(["owner"]) as server, tempfile.TemporaryDirectory() as folder,
          Gjallar(server.component_port, folder) as gjallar):
        gjallar.run("node", "create", NODE, "--as", f"owner@{DOMAIN}")
        with Terminal("profanity", folder) as terminal:
            shown = configure(terminal, server)
    captures = []
    for typed, screen in shown:
        # After a list without a value profanity continues the line, which may wrap. The roster is on the right.
        screen = re.sub(r" \d\d:\d\d:\d\d - (\[field.*)\n {11}(?=\S)", r"\n\1 ", screen)
        screen = re.sub(r" \d\d:\d\d:\d\d - (?=\[field)", "\n", screen)
        lines = [re.split(r"(?<=\S) {8,}", line)[0] for line in screen.splitlines()]
        lines = [re.sub(r"^\d\d:\d\d:\d\d [-!] ?", "", line).rstrip() for line in lines]
        start = next((n for n, line in enumerate(lines) if line.startswith("Form title")), 0)
        start = next((n for n, line in enumerate(lines) if "ad hoc commands" in line), start)
        captures.append(f"`{typed}`\n\n```text\n" + "\n".join(filter(None, lines[start:-1])) + "\n```\n")
    document = pathlib.Path(__file__).parents[3] / "docs" / "COMMANDS.md"
    text, found = re.subn(r"(?s)(<!-- captured -->\n).*?(<!-- end captured -->)",
                          lambda match: match[1] + "\n" + "\n".join(captures) + "\n" + match[2],
                          document.read_text())
    assert found == 1
    document.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
