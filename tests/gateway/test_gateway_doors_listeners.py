"""Where a gateway listens, whom it hears there, and who may open a session."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from doors_world import address, token_of
from hypothesis import given
from hypothesis import strategies as st
from workspace_world import end_gateway

from toolkit.client import Connection, ensure_gateway, wire
from toolkit.errors import CallDenied, ConfigurationError, NotFound, UsageError
from toolkit.gateway import TeamAddress, TeamTokens, read_record
from toolkit.gateway.peers import Peer, peer_of, trusted
from toolkit.ledger import Ledger
from toolkit.settings import Workspace

# -- the loopback port --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_port_is_the_same_after_a_restart(own_workspace: Workspace) -> None:
    """SDK clients of living kernels hold the address."""
    ensure_gateway(own_workspace.root)
    first = read_record(own_workspace.state)
    end_gateway(own_workspace)
    ensure_gateway(own_workspace.root)
    second = read_record(own_workspace.state)
    assert first is not None
    assert second is not None
    assert first.port == second.port
    assert first.pid != second.pid
    assert address(own_workspace) == f"http://127.0.0.1:{first.port}"


def test_a_taken_port_gives_another_one(own_workspace: Workspace) -> None:
    """A gateway starts although somebody has its port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        own_workspace.socket.with_suffix(".port").write_text(str(taken))
        ensure_gateway(own_workspace.root)
        record = read_record(own_workspace.state)
        assert record is not None
        assert record.port not in {None, taken}
        assert httpx.get(address(own_workspace) + wire.HEALTH).json() == {"ok": True}


def test_a_session_over_tcp_needs_a_team_token(workspace: Workspace) -> None:
    """Any user of the machine can connect to a loopback port; a session is not open to all."""
    body = {"request_id": "r" * 32}
    url = address(workspace) + wire.SESSIONS
    for headers in ({}, {"authorization": "Bearer tkt_wrong"}):
        reply = httpx.post(url, json=body, headers=headers)
        assert reply.status_code == 403
        assert "team token" in reply.json()["error"]["message"]


def test_a_run_token_works_over_tcp_and_a_team_token_makes_no_calls(workspace: Workspace) -> None:
    """Each token opens its own door."""
    made = Connection(ensure_gateway(workspace.root), root=workspace.root).open()
    over_tcp = Connection(address(workspace), token=token_of(made)).open()
    assert over_tcp.run_id == made.run_id
    tokens = TeamTokens(workspace.state / "tokens.json")
    _, shown = tokens.create("ben", "legal", None)
    with pytest.raises(CallDenied, match="unknown here"):
        Connection(address(workspace), token=shown).open()
    made.close()
    over_tcp.close()


# -- team tokens --------------------------------------------------------------------------------


def test_a_team_token_opens_sessions_of_its_user(workspace: Workspace) -> None:
    """The session is the token's user's and team's; when the token ends, so does the session."""
    tokens = TeamTokens(workspace.state / "tokens.json")
    made, shown = tokens.create("anna", "legal", 3600.0)
    kernel = Connection(address(workspace), team_token=shown).open()
    ledger = Ledger.open(workspace.database_url)
    run = ledger.get_run(kernel.run_id)
    ledger.close()
    assert (run.user, run.team) == ("anna", "legal")
    tokens.revoke(made.id)
    with pytest.raises(CallDenied, match="was revoked"):
        for _ in range(50):  # what was looked up just now is believed for half a second
            kernel.query(wire.STATUS)
            time.sleep(0.05)
    kernel.close()


class _StillClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.us = 1_000_000

    def now_us(self) -> int:
        return self.us


def test_tokens_expire_and_are_listed_without_themselves(tmp_path: Path) -> None:
    """The file holds digests, with mode 0600; an expired or unknown token opens nothing."""
    clock = _StillClock()
    tokens = TeamTokens(tmp_path / "tokens.json", clock=clock)
    made, shown = tokens.create("anna", None, 10.0)
    assert tokens.opened_by(shown).user == "anna"
    clock.us += 10_000_000
    with pytest.raises(CallDenied, match="expired"):
        tokens.opened_by(shown)
    with pytest.raises(CallDenied, match="unknown"):
        tokens.opened_by("tkt_other")
    with pytest.raises(NotFound):
        tokens.revoke("nobody")
    assert tokens.all() == (made,)
    assert shown not in tokens.path.read_text()
    assert tokens.path.stat().st_mode & 0o777 == 0o600
    tokens.path.write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        tokens.all()


def test_tokens_of_two_processes_are_both_kept(tmp_path: Path) -> None:
    """Changes are made under a lock; a reader sees those of others."""
    path = tmp_path / "tokens.json"
    mine, theirs = TeamTokens(path), TeamTokens(path)
    mine.create("anna", None, None)
    theirs.create("ben", None, None)
    assert [one.user for one in mine.all()] == ["anna", "ben"]


# -- a team's address ---------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["0.0.0.0:8443", "[::]:8443", "10.1.2.3:8443", "host.example:1"])
def test_an_open_address_without_tls_is_refused(listen: str) -> None:
    """Unless somebody says that it is meant."""
    with pytest.raises(UsageError, match="without TLS"):
        TeamAddress.parse(listen)
    assert TeamAddress.parse(listen, insecure=True).scheme == "http"


@pytest.mark.parametrize("listen", ["127.0.0.1:8443", "[::1]:0", "localhost:8443"])
def test_a_loopback_address_needs_no_tls(listen: str) -> None:
    """Nobody listens in there who is not on this machine."""
    assert TeamAddress.parse(listen).scheme == "http"


@given(st.text(max_size=40))
def test_an_address_is_read_or_refused(text: str) -> None:
    """Any text gives an address or a UsageError."""
    try:
        made = TeamAddress.parse(text, insecure=True)
    except UsageError:
        return
    assert made.host
    assert 0 <= made.port <= 65535


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that it signed itself, and its key."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway of a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    chain, private = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


def test_a_certificate_and_key_have_to_fit(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """Faults are told before anything is served."""
    chain, key = certificate
    assert TeamAddress.parse("0.0.0.0:0", certificate=chain, key=key).scheme == "https"
    with pytest.raises(UsageError, match="belong together"):
        TeamAddress.parse("0.0.0.0:0", certificate=chain)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        TeamAddress.parse("0.0.0.0:0", certificate=key, key=chain)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        TeamAddress.parse("0.0.0.0:0", certificate=tmp_path / "no.pem", key=key)


@pytest.fixture
def team_gateway(
    own_workspace: Workspace,
    certificate: tuple[Path, Path],
    wait_for: Callable[[Callable[[], bool], str], None],
) -> Iterator[str]:
    """A gateway that `toolkit gateway --listen` serves with TLS; its address."""
    chain, key = certificate
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "toolkit", "gateway", "--listen", "127.0.0.1:0"),
            *("--tls-cert", str(chain), "--tls-key", str(key)),
        ],
        cwd=own_workspace.root,
        stderr=subprocess.PIPE,
    )

    def answers() -> bool:
        record = read_record(own_workspace.state)
        try:
            with socket.create_connection(("127.0.0.1", int(record.team.rpartition(":")[2]))):
                return True
        except (OSError, AttributeError):
            return False

    wait_for(answers, "the team's gateway")
    record = read_record(own_workspace.state)
    assert record is not None
    assert record.team is not None
    yield record.team
    process.terminate()
    process.wait(20)
    assert process.stderr is not None
    process.stderr.close()


def test_a_kernel_elsewhere_works_over_tls(
    team_gateway: str,
    own_workspace: Workspace,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Two variables connect a kernel; its SDKs are governed over TLS; a stranger is not trusted."""
    import openai

    import toolkit

    port = int(team_gateway.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")

    _, shown = TeamTokens(own_workspace.state / "tokens.json").create("anna", "legal", None)
    monkeypatch.chdir(tmp_path)  # no workspace here
    monkeypatch.setenv("TOOLKIT_GATEWAY", team_gateway)
    monkeypatch.setenv("TOOLKIT_TOKEN", shown)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert toolkit.model("hello").text == "an answer"
    assert os.environ["OPENAI_BASE_URL"] == f"{team_gateway}/v1"
    asked = [{"role": "user", "content": "hello"}]
    reply = openai.OpenAI().chat.completions.create(model="default", messages=asked)
    assert reply.choices[0].message.content == "an answer"


def test_a_second_gateway_says_which_one_there_is(
    team_gateway: str, own_workspace: Workspace, certificate: tuple[Path, Path]
) -> None:
    """It never claims to listen; only one that was asked for another address has failed."""
    record = read_record(own_workspace.state)
    assert record is not None
    command = [sys.executable, "-m", "toolkit", "gateway"]
    chain, key = certificate
    elsewhere = ["--listen", "127.0.0.1:0", "--tls-cert", str(chain), "--tls-key", str(key)]
    said = {}
    for options in ((), tuple(elsewhere)):
        done = subprocess.run(
            [*command, *options], cwd=own_workspace.root, capture_output=True, text=True
        )
        said[bool(options)] = (done.returncode, " ".join(done.stderr.split()))
    assert said[False][0] == 0
    assert f"runs already, pid {record.pid}" in said[False][1]
    assert said[True][0] == 2
    assert "does not listen there" in said[True][1]
    assert not any("gateway on" in text for _, text in said.values())
    assert read_record(own_workspace.state) == record


def test_the_gateway_says_where_it_listens(
    own_workspace: Workspace, certificate: tuple[Path, Path]
) -> None:
    """Once it does; with the port that the system chose."""
    chain, key = certificate
    listen = ["--listen", "127.0.0.1:0", "--tls-cert", str(chain), "--tls-key", str(key)]
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", "gateway", *listen],
        cwd=own_workspace.root,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        record = read_record(own_workspace.state)
        assert record is not None
        assert said == f"gateway on {record.socket} and {record.team}; stop with Ctrl-C\n"
        assert not str(record.team).endswith(":0")
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_teams_address_without_a_token_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which variable is missing and who can help."""
    import toolkit

    monkeypatch.setenv("TOOLKIT_GATEWAY", "https://gateway.example:8443")
    with pytest.raises(UsageError, match="team token") as failed:
        toolkit.model("hello")
    assert "TOOLKIT_TOKEN" in str(failed.value.where)


# -- peers --------------------------------------------------------------------------------------


def test_the_kernel_says_who_connects() -> None:
    """Both ends of a pair are this process."""
    one, other = socket.socketpair()
    assert peer_of(one) == Peer(os.getpid(), os.getuid(), os.getgid())
    assert peer_of(object()) is None
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("uid", "own", "heard"), [(7, 7, True), (0, 7, True), (8, 7, False), (7, 0, False)]
)
def test_the_same_user_and_root_are_heard(uid: int, own: int, heard: bool) -> None:
    """Nobody else, not even where root serves."""
    assert trusted(Peer(1, uid, uid), own) is heard
    assert not trusted(None, own)


_STRANGER = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
end = socket.socket(socket.AF_UNIX); end.connect(sys.argv[1])
end.sendall(b"GET /toolkit/v1/health HTTP/1.1\\r\\nhost: gateway\\r\\n\\r\\n")
sys.stdout.buffer.write(b"".join(iter(lambda: end.recv(4096), b"")))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_and_the_log_says_so(
    own_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Although every mode on the way was loosened."""
    ensure_gateway(own_workspace.root)
    path = own_workspace.socket
    for folder in [path, *path.parents[:-1]]:
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o007)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _STRANGER, str(path)], capture_output=True, check=False
    )
    assert done.stdout.startswith(b"HTTP/1.1 403 Forbidden"), done.stderr
    assert b"answers only processes of the user" in done.stdout
    log = (own_workspace.state / "logs" / "gateway.log").read_text()
    assert "of user 65534: not the gateway's user" in log
