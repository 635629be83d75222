"""`make clients`: clients in Java and Go. Smack's own integration tests for pubsub, a program that uses Smack's other
pubsub features, and one that uses mellium's package."""

import pathlib
import subprocess

import pytest

from servers import PASSWORD, SERVICE

HERE = pathlib.Path(__file__).resolve().parent
ACCOUNTS = ("One", "alice"), ("Two", "bob"), ("Three", "mallory")
pytestmark = pytest.mark.parametrize("server", ["ejabberd", "prosody"], indirect=True)


def run(*command, folder):
    """Returns the output of a program that must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def java(tmp_path_factory):
    """Returns a command that runs a program with Smack."""
    classpath = tmp_path_factory.mktemp("smack") / "classpath"
    run("mvn", "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={classpath}", folder=HERE / "smack")
    return ["java", "-cp", classpath.read_text()]


def test_smack_integration_tests_pass(server, gjallar, java, tmp_path):
    settings = {
        "service": "localhost", "host": "127.0.0.1", "securityMode": "disabled", "defaultConnection": "port",
        "enabledConnections": "port", "enabledTests": "PubSubIntegrationTest"}
    for number, user in ACCOUNTS:
        settings |= {f"account{number}Username": user, f"account{number}Password": PASSWORD}
    said = run(*java, f"-Dport={server.client_port}", *(f"-Dsinttest.{name}={value}" for name, value in settings.items()),
               HERE / "smack/IntegrationTests.java", folder=tmp_path)
    assert "finished: 2/2" in said


def test_smack_performs_its_pubsub_operations(server, gjallar, java, tmp_path):
    said = run(*java, f"-Dport={server.client_port}", f"-Dpassword={PASSWORD}", f"-Dservice={SERVICE}",
               HERE / "smack/Walk.java", folder=tmp_path)
    assert "done" in said.splitlines(), said


def test_mellium_performs_its_pubsub_operations(server, gjallar):
    run("go", "run", ".", str(server.client_port), "alice", PASSWORD, SERVICE, folder=HERE / "mellium")
