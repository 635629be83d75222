"""Separate Debian with its own systemd, in a folder that systemd-nspawn boots. The only network interface is
loopback."""

import os
import pathlib
import shutil
import subprocess
import tempfile

from servers import PROJECT, make_root, wait_for

# Packages on the machine are installed as root.
AS_ROOT = [] if os.geteuid() == 0 else ["sudo"]


def run(*command, **more):
    done = subprocess.run([*AS_ROOT, *map(str, command)], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Container:
    """Running Debian release with some packages; a context manager."""

    def __init__(self, release, *packages):
        self.release, self.packages = release, packages
        self.nspawn = None

    def __enter__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="gjallar-root-")) / "root"
        try:
            self.make()
            self.boot()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def make(self):
        """Makes a copy of the root folder, so that changes by a test are discarded."""
        made = PROJECT / "target/servers" / "-".join([self.release, *self.packages])
        make_root(self.release, made, *self.packages)
        run("cp", "-a", made, self.root)
        # An installer writes this file.
        run("tee", self.root / "etc/hosts", input="127.0.0.1 localhost\n::1 localhost\n")

    def boot(self):
        self.log = tempfile.TemporaryFile()
        # The network has only the container in it. systemd 258 and later need the unified hierarchy of cgroups, and
        # without this variable systemd-nspawn uses the hierarchy of this machine.
        self.nspawn = subprocess.Popen(
            [*AS_ROOT, "env", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "systemd-nspawn", "-q", "-b", "-D", str(self.root),
             "--private-network", "--register=no", "--keep-unit", "--console=pipe"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        wait_for(self.init, "systemd to start in the container")
        self.leader = self.init()
        wait_for(lambda: self.ask("systemctl", "is-system-running") in ("running", "degraded"),
                 "the container to be up", 60)

    def init(self):
        """Returns the process id of the container's init, a child or grandchild of nspawn."""
        known = [str(self.nspawn.pid)]
        for pid in known:
            try:
                children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                if pathlib.Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
            except FileNotFoundError:
                continue
            known += children
        return None

    def inside(self, *command, **environment):
        """Returns arguments for subprocess that run a command in the container, without the environment of this
        machine."""
        return dict(
            args=[*AS_ROOT, "nsenter", "--target", self.leader, "--all", "--wd=/", *map(str, command)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment}, text=True)

    def enter(self, *command, **more):
        return subprocess.run(**self.inside(*command), capture_output=True, check=False, **more)

    def ask(self, *command):
        """Returns the output of a command in the container, even if it fails."""
        return self.enter(*command).stdout.strip()

    def run(self, *command, **more):
        """Returns the output of a command in the container that must succeed."""
        done = self.enter(*command, **more)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path, text, mode="644"):
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, input=text)

    def copy(self, file, path):
        run("cp", file, self.root / path.lstrip("/"))

    def remove(self):
        try:
            if self.nspawn:
                # The parent may be sudo, which runs as another user.
                subprocess.run([*AS_ROOT, "kill", str(self.nspawn.pid)], check=False)
                try:
                    self.nspawn.wait(30)
                except subprocess.TimeoutExpired:
                    subprocess.run([*AS_ROOT, "kill", "-KILL", self.leader, str(self.nspawn.pid)], check=False)
                    self.nspawn.wait(30)
        finally:
            run("rm", "-rf", "--one-file-system", self.root)
            shutil.rmtree(self.root.parent)
