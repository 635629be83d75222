"""Gajim on a virtual display, with an account, driven through its accessibility interface. It runs in a separate
session, started by `session`: this file is both the program that starts the session and the program that runs in it."""

import json
import os
import pathlib
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

ACCOUNT = "localhost"
PATIENCE = 60
# Settings that Gajim has after its first start and does not recreate.
SETTINGS = {
    "app": {"use_keyring": False}, "soundevents": {}, "status_presets": {}, "proxies": {}, "plugins": {},
    "workspaces": {"one": {"name": "All", "color": "rgb(191,99,0)", "avatar_sha": "", "chats": []}}}


def configure(port, user, password, service, node, title):
    """Changes the title of a node through Gajim's forms; returns the final message."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gjallar-gajim-"))
    try:
        account = {
            "name": user, "hostname": ACCOUNT, "password": password, "active": True, "use_custom_host": True,
            "custom_host": "127.0.0.1", "custom_port": port, "custom_type": "PLAIN",
            "confirm_unencrypted_connection": False}
        database = sqlite3.connect(folder / "settings.sqlite")
        database.executescript("""
            CREATE TABLE settings (name TEXT UNIQUE, settings TEXT);
            CREATE TABLE account_settings (account TEXT UNIQUE, settings TEXT);
            PRAGMA user_version = 5;""")
        database.executemany("INSERT INTO settings VALUES (?, ?)",
                             [(name, json.dumps(settings)) for name, settings in SETTINGS.items()])
        database.execute("INSERT INTO account_settings VALUES (?, ?)",
                         [ACCOUNT, json.dumps({"account": account, "contact": {}, "group_chat": {}})])
        database.commit()
        database.close()
        # Gajim does not run as root.
        as_user = None
        if os.geteuid() == 0:
            as_user = "nobody"
            nobody = pwd.getpwnam(as_user)
            for path in (folder, folder / "settings.sqlite"):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        # The program in the session needs Debian's Python, which has the bindings.
        script = folder / "gajim.py"
        shutil.copy(__file__, script)
        done = subprocess.run(
            ["xvfb-run", "-a", "-s", "-screen 0 1280x900x24", "dbus-run-session", "--", "/usr/bin/python3", script,
             folder, service, node, title],
            user=as_user, cwd=folder, env=dict(os.environ, HOME=str(folder), XDG_RUNTIME_DIR=str(folder)),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def session(folder, service, node, title):
    """Runs in the session."""
    import pyatspi

    def below(thing):
        yield thing
        for child in thing:
            if child is not None:
                yield from below(child)

    def window(name):
        windows = [window for app in pyatspi.Registry.getDesktop(0) for window in app]
        return next(window for window in windows if window.name == name)

    def everything():
        for app in pyatspi.Registry.getDesktop(0):
            for thing in below(app):
                print(thing.getRoleName(), repr(thing.name))

    def wait_for(what, look):
        """Waits until an element is found; repeats the search, because windows appear and disappear."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except Exception:  # noqa: BLE001: of whatever is not there any more
                pass
            time.sleep(0.05)
        everything()
        sys.exit(f"waited for {what}")

    def there(page, role, name):
        states = (pyatspi.STATE_SHOWING, pyatspi.STATE_SENSITIVE)
        return next(thing for thing in below(window(page)) if thing.getRoleName() == role and thing.name == name
                    and all(thing.getState().contains(state) for state in states))

    def click(page, name):
        wait_for(f"the button {name}", lambda: there(page, "push button", name)).queryAction().doAction(0)

    def entry(page, label):
        """Returns the field that follows this label."""
        before = None
        for thing in below(window(page)):
            if thing.getRoleName() == "label" and thing.name == label:
                return before
            if thing.getRoleName() == "text":
                before = thing
        return None

    def action(method, *more):
        return subprocess.run(
            ["gdbus", "call", "--session", "--dest", "org.gajim.Gajim", "--object-path", "/org/gajim/Gajim", "--method",
             f"org.gtk.Actions.{method}", f"{ACCOUNT}-execute-command", *more],
            capture_output=True, text=True, check=False).stdout

    gajim = subprocess.Popen(["gajim", "-c", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("Gajim to be online", lambda: action("Describe").startswith("((true"))
        action("Activate", f"[<'{service}'>]", "{}")
        command = wait_for("the commands", lambda: there("Command List", "table cell", "Configure a node"))
        command.parent.querySelection().selectChild(command.getIndexInParent())
        click("Command List", "Execute")
        # The only own node is preselected.
        wait_for("the node", lambda: there("Stage", "combo box", node))
        click("Stage", "Next")
        wait_for("the form", lambda: entry("Stage", "A friendly name for the node")).queryEditableText().setTextContents(title)
        click("Stage", "Complete")
        page = wait_for("the end", lambda: window("Completed"))
        print(*[thing.name for thing in below(page) if thing.getRoleName() == "label"], sep="\n")
    finally:
        gajim.terminate()
        gajim.wait()


if __name__ == "__main__":
    session(*sys.argv[1:])
