"""Private, throwaway XMPP servers on loopback: Prosody and ejabberd from the packages of a Debian release.

Each server has a separate data folder, free ports, predefined accounts, and the component pubsub.localhost. Standard
library only, so that the demo can use this module too.
"""

import itertools
import os
import pathlib
import platform
import random
import shutil
import socket
import subprocess
import tempfile
import time
from urllib.parse import quote

DOMAIN = "localhost"
SERVICE = "pubsub.localhost"
SECRET = "s3cret"
PASSWORD = "pw"

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
# Debian release of the servers. Servers of another release than this machine's are in a root folder.
THIS_RELEASE = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
RELEASE = os.environ.get("DEBIAN_RELEASE") or THIS_RELEASE
ROOT = pathlib.Path("/") if RELEASE == THIS_RELEASE else PROJECT / "target/servers" / RELEASE


def make_root(release, folder, *packages):
    """Makes a root folder with packages of a Debian release; keeps one from the last days."""
    subprocess.run([HERE / "make_root.sh", release, folder, *packages], check=True)


def make_server_root():
    """Makes ROOT, unless it is this machine's own."""
    if RELEASE != THIS_RELEASE:
        make_root(RELEASE, ROOT, *(HERE / "server-packages.txt").read_text().split())


def in_root(*command):
    """Returns a command line that runs in ROOT."""
    return list(command) if RELEASE == THIS_RELEASE else [str(HERE / "enter_root.sh"), str(ROOT), *command]


# Below the ports that the system gives to outgoing connections, which could take the port of a server that restarts.
SERVER_PORTS = range(10_000, 32_000)


def free_ports(number):
    """Returns ports without a listener. All are held at the same time, so that they differ."""
    sockets = []
    try:
        while len(sockets) < number:
            each = socket.socket()
            sockets.append(each)
            try:
                each.bind(("127.0.0.1", random.choice(SERVER_PORTS)))
            except OSError:
                sockets.pop().close()
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(condition, what, timeout=30):
    """Waits until a condition holds; names the condition on a timeout."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(0.02)


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
        return True
    except OSError:
        return False


class Server:
    """Server in a separate folder; a context manager."""

    domain = DOMAIN
    component = SERVICE

    def __init__(self, users):
        self.users = list(users)

    def __enter__(self):
        # Another process may take a chosen port before it is used.
        for attempt in range(3):
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"gjallar-{self.name}-"))
            self.client_port, self.component_port, self.http_port = free_ports(3)
            try:
                self.start()
                return self
            except (RuntimeError, TimeoutError):
                self.stop()
                if attempt == 2:
                    raise

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.prepare()
        self.launch()

    def launch(self):
        with open(self.folder / "output.log", "ab") as output:
            self.process = subprocess.Popen(
                self.command(), env=self.environment(), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        wait_for(self.is_ready, f"{self.name} to start")

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {(self.folder / 'output.log').read_text()}")
        return all(is_open(port) for port in (self.client_port, self.component_port, self.http_port))

    @property
    def websocket(self):
        """URL of the websocket for browsers."""
        return f"ws://127.0.0.1:{self.http_port}/xmpp-websocket"

    def halt(self):
        """Ends the process; `launch` starts it again on the same ports and data."""
        process = getattr(self, "process", None)
        if process and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def stop(self):
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self):
        return dict(os.environ)

    def shipped(self, name):
        """Returns the contents of a file in config/, with this server's port, JID and secret."""
        text = (PROJECT / "config" / name).read_text()
        for example, real in [
                ("5347", str(self.component_port)), ("pubsub.example.org", self.component),
                ("change me", SECRET)]:
            assert example in text, f"{name} has no {example}"
            text = text.replace(example, real)
        return text


class Prosody(Server):
    name = "prosody"

    CONFIG = """
run_as_root = true
data_path = "{folder}/data"
pidfile = "{folder}/prosody.pid"
log = {{ {{ levels = {{ min = "info" }}, to = "file", filename = "{folder}/prosody.log" }} }}
interfaces = {{ "127.0.0.1" }}
c2s_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {client_port} }}
c2s_direct_tls_ports = {{ }}
s2s_ports = {{ }}
s2s_direct_tls_ports = {{ }}
http_ports = {{ {http_port} }}
http_interfaces = {{ "127.0.0.1" }}
http_default_host = "{domain}"
https_ports = {{ }}
modules_enabled = {{ "posix", "disco", "roster", "saslauth", "ping", "version", "websocket" }}
consider_websocket_secure = true
modules_disabled = {{ "s2s", "s2s_auth_certs", "offline" }}
c2s_require_encryption = false
s2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
c2s_stanza_size_limit = 4194304
VirtualHost "{domain}"
{host_options}
"""

    # Lines with this text are left out of the shipped options of the host.
    left_out = "gjallar_fanout"

    def optional(self, above):
        """Returns the commented-out lines of the shipped file that follow the end of a comment, uncommented."""
        lines = self.shipped("prosody.cfg.lua").split(f"{above}\n")[1].splitlines()
        return [line.removeprefix("--") for line in itertools.takewhile(lambda line: line.startswith("--  "), lines)]

    def prepare(self):
        accounts = self.folder / "data" / DOMAIN / "accounts"
        accounts.mkdir(parents=True)
        (self.folder / "certs").mkdir()
        for user in self.users:
            text = f'return {{\n\t["password"] = "{PASSWORD}";\n}};\n'
            (accounts / f"{quote(user).lower()}.dat").write_text(text)
        # Each part of the shipped configuration goes to the place that it names.
        top, end = self.shipped("prosody.cfg.lua").split("---- Part 2")
        end = f"---- Part 2{end}"
        host_options = [line for line in self.optional("add to that.") if self.left_out not in line]
        (self.folder / "prosody.cfg.lua").write_text(
            top + self.CONFIG.format(
                folder=self.folder, client_port=self.client_port, http_port=self.http_port,
                domain=DOMAIN, host_options="\n".join(host_options))
            + "\n".join([end, *self.optional("below the secret:"), ""]))

    def command(self):
        return in_root("/usr/bin/prosody", "-F", "--config", str(self.folder / "prosody.cfg.lua"))


class Fanout(Prosody):
    """Prosody with mod_gjallar_fanout and all other options of `config/prosody.cfg.lua`."""

    name = "fanout"
    left_out = "nothing"
    INSTALLED = "/path/of/config/prosody"

    def prepare(self):
        super().prepare()
        top = "\n".join(self.optional("A second list would replace it:"))
        assert self.INSTALLED in top
        shutil.copy(PROJECT / "config/prosody/mod_gjallar_fanout.lua", self.folder)
        config = self.folder / "prosody.cfg.lua"
        config.write_text(f"{top.replace(self.INSTALLED, str(self.folder))}\n{config.read_text()}")


class Ejabberd(Server):
    name = "ejabberd"

    CONFIG = """
loglevel: info
log_rotate_count: 0
hosts:
  - "{domain}"
listen:
  - port: {client_port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    max_stanza_size: 4194304
    shaper: none
    access: all
    starttls: false
    max_fsm_queue: 100000
    backlog: 1024
  - port: {http_port}
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers:
      /xmpp-websocket: ejabberd_http_ws
auth_method: internal
auth_password_format: plain
disable_sasl_mechanisms: ["X-OAUTH2"]
{federation}
max_fsm_queue: 100000
shaper_rules:
  max_user_sessions: 1000
modules:
  mod_disco: {{}}
  mod_roster: {{}}
  mod_ping: {{}}
  mod_version: {{}}
{more_modules}"""

    federation = "s2s_access: none"
    # Components that may read rosters, all or none; None: mod_privilege is not loaded.
    privilege = "all"
    multicast = False

    # Without a node name Erlang needs neither epmd nor a port for distribution.
    START = (
        '{{ok,_}} = application:ensure_all_started(ejabberd),'
        '{{ok,Users}} = file:read_file("{folder}/users.txt"),'
        'lists:foreach(fun(U) -> ejabberd_auth:try_register(U, <<"{domain}">>, <<"{password}">>)'
        ' end, binary:split(Users, <<"\\n">>, [global,trim_all])),'
        'file:write_file("{folder}/ready", <<"ok">>).')

    def more_modules(self):
        text = "" if self.privilege is None else f"  mod_privilege:\n    roster:\n      get: {self.privilege}\n"
        return text + "  mod_multicast: {}\n" * self.multicast

    def prepare(self):
        (self.folder / "spool").mkdir()
        (self.folder / "logs").mkdir()
        # The shipped configuration is appended.
        (self.folder / "ejabberd.yml").write_text(
            self.CONFIG.format(
                client_port=self.client_port, http_port=self.http_port, domain=self.domain,
                federation=self.federation, more_modules=self.more_modules())
            + self.shipped("ejabberd.yml"))
        (self.folder / "inetrc").write_text(
            '{lookup,["file","native"]}.\n{host,{127,0,0,1},["localhost"]}.\n')
        (self.folder / "users.txt").write_text("".join(f"{user}\n" for user in self.users))

    def command(self):
        start = self.START.format(folder=self.folder, domain=self.domain, password=PASSWORD)
        return in_root("/usr/bin/erl", "-noinput", "+K", "true", "+P", "250000",
                       "-mnesia", "dir", f'"{self.folder}/spool"',
                       "-ejabberd", "log_rotate_count", "0", "-eval", start)

    def environment(self):
        folder = self.folder
        libraries = "/" / next(ROOT.glob("usr/lib/*/ejabberd-*")).parent.relative_to(ROOT)
        return dict(
            os.environ, HOME=str(folder), ERL_LIBS=str(libraries), ERL_INETRC=f"{folder}/inetrc",
            EJABBERD_CONFIG_PATH=f"{folder}/ejabberd.yml",
            EJABBERD_LOG_PATH=f"{folder}/logs/ejabberd.log",
            EJABBERD_PID_PATH=f"{folder}/ejabberd.pid",
            ERL_CRASH_DUMP=f"{folder}/logs/erl_crash.dump", ERL_CRASH_DUMP_BYTES="0",
            ERL_MAX_PORTS="32000", ERL_MAX_ETS_TABLES="1400")

    def is_ready(self):
        return super().is_ready() and (self.folder / "ready").exists()

    def launch(self):
        (self.folder / "ready").unlink(missing_ok=True)
        super().launch()


class Federated(Ejabberd):
    """One of two servers that know each other. Domains are loopback addresses, so no name is resolved: the server's
    component, if it has one, and its users are at `domain`, and all other domains are at one other port."""

    # The limit is that of Debian's configuration, and of Prosody by default.
    LISTEN = """
  - port: {port}
    ip: "{domain}"
    module: ejabberd_s2s_in
    max_stanza_size: 524288
"""

    def __init__(self, users, domain, component, port, others_port):
        super().__init__(users)
        self.domain = domain
        self.component = component
        self.port = port
        self.federation = (
            f"s2s_access: all\ns2s_use_starttls: false\noutgoing_s2s_port: {others_port}\n"
            "outgoing_s2s_timeout: 30\nnegotiation_timeout: 30")

    def prepare(self):
        super().prepare()
        config = self.folder / "ejabberd.yml"
        listen = "".join(
            self.LISTEN.format(port=self.port, domain=domain)
            for domain in {self.domain, self.component})
        text = config.read_text().replace("\nlisten:", "\nlisten:" + listen, 1)
        config.write_text(text.replace("\nmodules:", "\nmodules:\n  mod_s2s_dialback: {}", 1))


class Multicast(Ejabberd):
    """ejabberd with mod_multicast (XEP-0033) in its default configuration."""

    name = "multicast"
    multicast = True


SERVERS = {"prosody": Prosody, "ejabberd": Ejabberd, "multicast": Multicast}


def binaries():
    """Returns the folder of cargo's build output."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    return target / os.environ.get("GJALLAR_PROFILE", "debug")


def shipped_policies(folder, beginning):
    """Returns a configuration with the policies of config/gjallar.toml for nodes whose names have this beginning."""
    offered = (PROJECT / "config/gjallar.toml").read_text().replace("\n# ", "\n").replace("\n#\n", "\n\n")
    policies = [text for text in offered.split("\n\n")
                if text.startswith("[[policies]]") and f'nodes = "{beginning}' in text]
    assert policies, f"config/gjallar.toml offers no policy for {beginning}"
    path = pathlib.Path(folder) / "policies.toml"
    path.write_text("\n".join(policies))
    return path


def logged_as(event):
    """Formats an event as in the log."""
    return f'"event":"{event}"'


CONNECTED = logged_as("link_connected")


class Gjallar:
    """The real binary on a real store, behind a server; a context manager."""

    def __init__(self, component_port, folder, **options):
        self.binary = binaries() / "gjallar"
        self.log = pathlib.Path(folder) / "gjallar.log"
        self.options = dict(
            JID=SERVICE, SERVER=f"127.0.0.1:{component_port}", SECRET=SECRET,
            STORE=f"sled:{folder}/store", LOG="info", LOG_FORMAT="json")
        self.options.update({name.upper(): str(value) for name, value in options.items()})

    def __enter__(self):
        self.start()
        self.wait_for_log(CONNECTED)
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.offset = self.log.stat().st_size if self.log.exists() else 0
        variables = {f"GJALLAR_{name}": value for name, value in self.options.items()}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("GJALLAR_")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), "serve"], env=dict(clean, **variables),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def run(self, *arguments):
        """Returns the output of a command for this service."""
        return subprocess.run(
            [str(self.binary), *arguments, "--store", self.options["STORE"]], env={},
            capture_output=True, text=True, check=True).stdout

    def stat(self, name):
        """Returns a number of `gjallar stats`."""
        text = self.run("stats")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        return int(values[f"gjallar_{name}"])

    def logged(self):
        """Returns the log since the last start."""
        with open(self.log, "rb") as log:
            log.seek(self.offset)
            return log.read().decode()

    def wait_for_log(self, text, times=1, timeout=30):
        """Waits until a text was logged this many times since the last start."""
        def is_there():
            if self.logged().count(text) >= times:
                return True
            if self.process.poll() is not None:
                raise RuntimeError(f"gjallar ended: {self.logged()}")
            return False
        wait_for(is_there, f"the log to say {text!r}: {self.logged()[-2000:]}", timeout)

    def kill(self):
        """Kills the process (SIGKILL)."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Stops the process (SIGTERM); returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)
