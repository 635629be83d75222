"""Debian package on a clean Debian with a real systemd: installed, started against Prosody, upgraded, removed. The
commands are those of docs/OPERATING.md."""

import os
import pathlib
import re

import pytest

from container import Container
from servers import RELEASE, wait_for

PACKAGE = pathlib.Path(os.environ.get("PACKAGE_UNDER_TEST", "target/package-test")) / "debian"
CONFIG = "/etc/gjallar/gjallar.toml"
DOC = "/usr/share/doc/gjallar"
PROSODY = """return {
	["name"] = "moved";
	["config"] = {};
	["affiliations"] = { ["owner@example.org"] = "owner"; };
	["subscribers"] = {};
};
"""
JID, OWNER = "pubsub.example.org", "owner@example.org"
# Options of the shipped file for the module, uncommented.
FANOUT = [
    "   modules_enabled = {", '     "gjallar_fanout";', "   }", '   gjallar_fanout_components = { "pubsub.example.org" }']


@pytest.fixture(scope="module")
def debian():
    with Container(RELEASE, "systemd", "systemd-sysv", "prosody") as container:
        yield container


def gjallar(debian, *arguments):
    return debian.run("gjallar", *arguments, "--config", CONFIG)


def state(debian, what):
    return debian.ask("systemctl", "show", "gjallar", "--property", what, "--value")


def run_documented(debian, section):
    """Runs the first block of commands in a section of the installed OPERATING.md."""
    text = debian.run("cat", f"{DOC}/OPERATING.md").split(f"\n## {section}\n")[1]
    debian.run("sh", "-ec", text.split("```text\n")[1].split("```")[0])


def test_package_is_installed_upgraded_and_purged(debian):
    (package,) = PACKAGE.glob("*.deb")
    debian.copy(package, "/root/gjallar.deb")

    # Installed: neither enabled nor started, with every file in its place.
    assert "libc6 (>= 2." in debian.run("dpkg-deb", "--field", "/root/gjallar.deb", "Depends")
    debian.run("apt-get", "install", "-y", "/root/gjallar.deb")
    assert debian.ask("systemctl", "is-enabled", "gjallar") == "disabled"
    assert debian.ask("systemctl", "is-active", "gjallar") == "inactive"
    assert debian.run("gjallar", "--version").startswith("gjallar ")
    debian.run("getent", "passwd", "gjallar")
    for path in ("/usr/share/man/man1/gjallar-serve.1", "/usr/share/bash-completion/completions/gjallar",
                 f"{DOC}/OPERATING.md", f"{DOC}/copyright"):
        debian.run("test", "-s", path)

    # Without a JID and a secret the service logs what is missing, and is not restarted forever.
    assert debian.enter("systemctl", "start", "gjallar").returncode != 0
    debian.write("/etc/gjallar/secret", "s3cret\n", "600")
    assert debian.enter("systemctl", "start", "gjallar").returncode != 0
    assert "jid: not set" in debian.run("journalctl", "-u", "gjallar")
    assert state(debian, "NRestarts") == "0"

    # Connected to Prosody, with the shipped configuration.
    config = debian.run("cat", CONFIG).replace('jid = ""', f'jid = "{JID}"')
    debian.write(CONFIG, config.replace("admins = []", f'admins = ["{OWNER}"]'))
    shipped = debian.run("cat", f"{DOC}/prosody.cfg.lua").replace("change me", "s3cret")
    top, end = shipped.split("---- Part 2")
    # With the module for many users, which the package installs where Prosody finds it.
    host = ['VirtualHost "example.org"', *FANOUT]
    assert all(f"--{line}" in end for line in host[1:])
    own = debian.run("cat", "/etc/prosody/prosody.cfg.lua")
    debian.write("/etc/prosody/prosody.cfg.lua", f"{top}\n{own}", "640")
    debian.run("chgrp", "prosody", "/etc/prosody/prosody.cfg.lua")
    debian.write("/etc/prosody/conf.avail/gjallar.cfg.lua", "\n".join([*host, f"---- Part 2{end}"]))
    debian.run("ln", "-s", "/etc/prosody/conf.avail/gjallar.cfg.lua", "/etc/prosody/conf.d/gjallar.cfg.lua")
    debian.run("systemctl", "restart", "prosody")
    debian.run("systemctl", "enable", "--now", "gjallar")
    assert debian.ask("systemctl", "is-active", "gjallar") == "active"
    wait_for(lambda: "\ngjallar_link_up 1\n" in gjallar(debian, "stats"), "gjallar to be connected")

    wait_for(lambda: 'event="multicast_enabled"' in debian.ask("journalctl", "-u", "gjallar"), "the module to be found")

    # The service works within the restrictions of its unit.
    gjallar(debian, "node", "create", "news", "--as", OWNER)
    gjallar(debian, "item", "publish", "news", "--id", "1", "--payload", "<x xmlns='urn:x'/>", "--as", OWNER)
    owner = debian.run("stat", "--format", "%U %a", "/var/lib/gjallar", "/var/lib/gjallar/store/control").split("\n")
    assert owner[:2] == ["gjallar 700", "gjallar 600"]
    exposure = debian.ask("systemd-analyze", "security", "--no-pager", "gjallar").splitlines()[-1]
    assert float(re.search(r"gjallar.service: ([0-9.]+)", exposure)[1]) <= 1.5, exposure

    # The doctor runs as documented: the secret is in the unit, not in the configuration.
    assert "the running service is connected" in debian.ask("gjallar", "doctor", "--config", CONFIG)

    # The configuration is reloaded without a restart.
    pid = state(debian, "MainPID")
    debian.write(CONFIG, debian.run("cat", CONFIG) + '\nlog = "debug"\n')
    debian.run("systemctl", "reload", "gjallar")
    wait_for(lambda: 'event="config_reloaded"' in debian.ask("journalctl", "-u", "gjallar"), "the reload")
    assert state(debian, "MainPID") == pid

    # Killed, or stopped by the watchdog, the service is restarted with its data. There are more starts from here
    # than the five in ten seconds that systemd allows.
    debian.write("/run/systemd/system/gjallar.service.d/sooner.conf",
                 "[Unit]\nStartLimitIntervalSec=0\n[Service]\nWatchdogSec=2\n")
    debian.run("systemctl", "daemon-reload")
    debian.run("systemctl", "restart", "gjallar")
    for signal, restarts in (("KILL", "1"), ("STOP", "2")):
        # For the other processes, of which there are none, systemd may report that they just ended.
        debian.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", "gjallar")
        wait_for(lambda restarts=restarts: state(debian, "NRestarts") == restarts
                 and state(debian, "ActiveState") == "active", f"systemd to start it again after SIG{signal}")
        assert "news" in gjallar(debian, "node", "list")

    # Upgraded while it runs, the service is restarted with its data.
    pid = state(debian, "MainPID")
    debian.run("sh", "-c", "cd /root && dpkg-deb -R gjallar.deb next && "
               "sed -i 's/^Version: .*/Version: 99.0/' next/DEBIAN/control && dpkg-deb -b next next.deb")
    debian.run("apt-get", "install", "-y", "/root/next.deb")
    assert debian.ask("dpkg-query", "-W", "-f", "${Version}", "gjallar") == "99.0"
    assert state(debian, "ActiveState") == "active" and state(debian, "MainPID") != pid
    assert f'jid = "{JID}"' in debian.run("cat", CONFIG)
    assert "<x xmlns='urn:x'/>" in gjallar(debian, "item", "list", "news", "--json")

    # Backup while the service runs, and restore.
    run_documented(debian, "Backup")
    assert "<x xmlns='urn:x'/>" in gjallar(debian, "item", "list", "news", "--json")
    wait_for(lambda: "\ngjallar_link_up 1\n" in gjallar(debian, "stats"), "gjallar to be connected again")

    # Migration from Prosody, whose files the service's user cannot read.
    debian.write("/var/lib/prosody/pubsub%2eexample%2eorg/pubsub_nodes/moved.dat", PROSODY, "640")
    run_documented(debian, "Moving in")
    nodes = gjallar(debian, "node", "list").split()
    assert "moved" in nodes and "news" not in nodes
    debian.run("systemctl", "stop", "gjallar")
    debian.run("rm", "-rf", "/var/lib/gjallar/store")
    debian.run("mv", "-T", "/var/lib/gjallar/replaced", "/var/lib/gjallar/store")
    debian.run("systemctl", "start", "gjallar")

    # The store is in another folder, to which the unit permits writing.
    debian.run("systemctl", "stop", "gjallar")
    debian.run("mv", "/var/lib/gjallar/store", "/srv/store")
    debian.write(CONFIG, debian.run("cat", CONFIG).replace("/var/lib/gjallar/store", "/srv/store"))
    assert debian.enter("systemctl", "start", "gjallar").returncode != 0
    debian.write("/etc/systemd/system/gjallar.service.d/store.conf", "[Service]\nReadWritePaths=/srv/store\n")
    debian.run("systemctl", "daemon-reload")
    debian.run("systemctl", "start", "gjallar")
    assert "<x xmlns='urn:x'/>" in gjallar(debian, "item", "list", "news", "--json")

    # Opened by root while the service is stopped, the store would get files that the service cannot read.
    debian.run("systemctl", "stop", "gjallar")
    refused = debian.enter("gjallar", "check", "--config", CONFIG)
    assert refused.returncode == 3 and "run as that user" in refused.stderr
    debian.run("runuser", "-u", "gjallar", "--", "gjallar", "check", "--config", CONFIG)
    debian.run("systemctl", "start", "gjallar")

    # Removed: data and configuration stay until the package is purged.
    debian.run("apt-get", "remove", "-y", "gjallar")
    assert debian.ask("systemctl", "is-active", "gjallar") != "active"
    assert debian.enter("test", "-e", "/usr/bin/gjallar").returncode != 0
    debian.run("test", "-d", "/var/lib/gjallar/before")
    debian.run("test", "-s", CONFIG)
    debian.run("apt-get", "purge", "-y", "gjallar")
    for path in ("/var/lib/gjallar", "/etc/gjallar", "/usr/share/doc/gjallar"):
        assert debian.enter("test", "-e", path).returncode != 0, path
    assert "gjallar.service" not in debian.run("systemctl", "list-unit-files")
