"""Libervia's backend and command line, in a separate session bus; a context manager."""

import os
import pathlib
import subprocess

from servers import DOMAIN, PASSWORD

TIMEOUT = 60
NAME = "org.libervia.Libervia"
# Lines about optional modules precede the output of a command.
NOISE = ("ProgressBar", "Progress bar", "--", "Missing module", "")


class Libervia:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        # Libervia's programs look for Debian's Python by name.
        self.environment = dict(os.environ, PATH="/usr/bin:/bin", HOME=str(self.folder))
        for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            self.environment.pop(variable, None)

    def __enter__(self):
        self.bus = subprocess.Popen(
            ["dbus-daemon", "--session", "--nofork", "--print-address"], env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.environment["DBUS_SESSION_BUS_ADDRESS"] = self.bus.stdout.readline().strip()
        with open(self.folder / "backend.log", "wb") as log:
            self.backend = subprocess.Popen(
                ["libervia-backend", "fg"], env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        subprocess.run(
            ["gdbus", "wait", "--session", "--timeout", str(TIMEOUT), NAME], env=self.environment,
            check=True)
        return self

    def __exit__(self, *_):
        for process in (self.backend, self.bus):
            process.terminate()
            process.wait(20)

    def run(self, *arguments, text=None):
        """Returns the output of a command that must succeed."""
        done = subprocess.run(
            ["libervia-cli", *arguments], env=self.environment, input=text, capture_output=True, text=True,
            timeout=TIMEOUT, check=False)
        said = [line for line in done.stdout.splitlines() if not line.startswith(NOISE[:-1]) and line.strip()]
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{self.logged()[-2000:]}"
        return "\n".join(said)

    def logged(self):
        """Returns the log of the backend."""
        return (self.folder / "backend.log").read_text()

    def connect(self, user, port):
        """Creates a profile for an account and connects it."""
        self.run("profile", "create", user, "-j", f"{user}@{DOMAIN}/libervia", "-x", PASSWORD, "-p", "")
        for name, value in (("Force server", "127.0.0.1"), ("Force port", str(port)), ("check_certificate", "false")):
            subprocess.run(
                ["gdbus", "call", "--session", "--dest", NAME, "--object-path", "/org/libervia/Libervia/bridge",
                 "--method", f"{NAME}.core.setParam", name, value, "Connection", "--", "-1", user],
                env=self.environment, check=True, capture_output=True)
        self.run("profile", "connect", "-p", user, "--connect")
