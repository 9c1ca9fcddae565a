"""Enclosures: what is inside, the way out, and the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from isolation_kernels import can_group

from toolkit.errors import ConfigurationError, InfrastructureError
from toolkit.isolation import Enclosure, EnclosureSpec, Ticket
from toolkit.values import IsolationLevel

L0, L1, L2, L3 = IsolationLevel
HIGHEST = L3 if can_group() else L2  # where no control group can be made, L2 is all there is
Make = Callable[..., EnclosureSpec]


def run(enclosure: Enclosure, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        enclosure.command([sys.executable, "-I", "-S", "-c", textwrap.dedent(code), *arguments]),
        env=enclosure.environment(
            {"PATH": "/usr/bin:/bin", "HOME": "/root", "JPY_PARENT_PID": "1"}
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def echoing(path: Path, word: bytes) -> Iterator[None]:
    """A unix socket that answers a word and all that it was sent."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)

    def answer(peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as heard:
            peer.sendall(word + heard.read())

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def wait_until(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def state(pid: int) -> str:
    """The state of a process as proc_pid_stat(5) names it; ``X`` for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


ASK = """
    import os, socket, sys, threading
    def ask(data):
        with socket.create_connection(("127.0.0.1", 4180)) as sock:
            sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(1)))
            sender.start()
            heard = b"".join(iter(lambda: sock.recv(65536), b""))
            sender.join()
            return heard
"""


def test_the_relay_leads_to_the_gateway_also_after_its_restart(spec: Make, tmp_path: Path) -> None:
    """Megabytes pass unchanged, and a new socket under the old name is found."""
    door = tmp_path / "door" / "gateway.sock"
    door.parent.mkdir()
    code = (
        ASK
        + """
    big = os.urandom(3_000_000)
    print(ask(big)[1:] == big, ask(b"?")[:1].decode())
    """
    )
    made = spec(HIGHEST, gateway_socket=door, relay_port=4180)
    with echoing(door, b"A"), Enclosure(made) as enclosure:
        assert run(enclosure, code).stdout == "True A\n"
        with echoing(door, b"B"):
            assert run(enclosure, code).stdout == "True B\n"


def test_what_is_inside_cannot_end_or_stop_the_relay(spec: Make, tmp_path: Path) -> None:
    """Process 1 ignores the signals of its own namespace, and nobody inside may trace it."""
    door = tmp_path / "door" / "gateway.sock"
    door.parent.mkdir()
    code = (
        ASK
        + """
    for number in (9, 19, 15, 2, 11):
        os.kill(1, number)
    try:
        open("/proc/1/environ").read()
    except OSError as error:
        print("unreadable")
    print(ask(b"?").decode())
    """
    )
    made = spec(L2, gateway_socket=door, relay_port=4180)
    with echoing(door, b"A"), Enclosure(made) as enclosure:
        assert run(enclosure, code).stdout == "unreadable\nA?\n"


def test_inside_are_the_working_folder_and_no_rights(spec: Make, tmp_path: Path) -> None:
    """The run's folder may be written; hidden folders are empty; no capability, no open file."""
    secret = tmp_path / "work" / "state" / "ledger.db"
    made = spec(L2, hidden=(secret.parent,))
    secret.parent.mkdir()
    secret.write_text("truth")
    code = """
    import json, os, sys
    open("mine.txt", "w").write("x")
    status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
    print(json.dumps([os.getcwd(), os.listdir("state"), os.environ["HOME"],
          "JPY_PARENT_PID" in os.environ, status["CapEff"].strip(), status["NoNewPrivs"].strip(),
          len(os.listdir("/proc/self/fd")), sorted(os.listdir("/home")), os.listdir("/sys") if
          os.path.exists("/sys") else None]))
    """
    with Enclosure(made) as enclosure:
        ended = run(enclosure, code)
    seen = json.loads(ended.stdout)
    assert seen == [str(made.work), [], "/tmp", False, "0" * 16, "1", 4, [], None]
    assert (made.work / "mine.txt").read_text() == "x"
    assert secret.read_text() == "truth"


@pytest.mark.parametrize("level", [L1, L2])
def test_the_process_outside_ends_as_the_one_inside(spec: Make, level: IsolationLevel) -> None:
    """Exit codes and signals pass through: causes of death are decided by them."""
    with Enclosure(spec(level)) as enclosure:
        assert run(enclosure, "import os; os._exit(7)").returncode == 7
        ended = run(enclosure, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        assert ended.returncode == -signal.SIGKILL


def test_killing_the_process_outside_kills_the_one_inside(spec: Make) -> None:
    """The runner knows one process; what it kills is the kernel."""
    with Enclosure(spec(L2)) as enclosure:
        command = enclosure.command(["/bin/sh", "-c", "echo up; exec sleep 1000"])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as outside:
            assert outside.stdout is not None
            assert outside.stdout.readline() == b"up\n"
            (inside,) = children(outside.pid)
            outside.kill()
        assert wait_until(lambda: state(inside) in "XZ")


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_closing_ends_what_was_left_behind(spec: Make) -> None:
    """A process that left its group and session dies with the namespaces."""
    code = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(1, b"up")
            time.sleep(1000)
    """
    with Enclosure(spec(L2)) as enclosure:
        command = enclosure.command([sys.executable, "-I", "-S", "-c", textwrap.dedent(code)])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as outside:
            assert outside.stdout is not None
            assert outside.stdout.read(2) == b"up"
            outside.wait()
            holder = enclosure.pid
            assert holder is not None
            left = children(holder)
            assert left
            enclosure.close()
            assert all(state(pid) in "XZ" for pid in (*left, holder))
            assert outside.stdout.read() == b""


def test_an_enclosure_dies_with_the_process_that_opened_it(spec: Make) -> None:
    """Also where that was killed, and where a thread opened it that has ended since."""
    made = spec(L2)
    code = f"""
    import sys, threading, time
    from pathlib import Path
    from toolkit.isolation import Enclosure, EnclosureSpec
    from toolkit.values import IsolationLevel
    enclosure = Enclosure(EnclosureSpec(level=IsolationLevel.L2, work=Path({str(made.work)!r}),
                                        python=Path(sys.executable)))
    thread = threading.Thread(target=enclosure.open)
    thread.start()
    thread.join()
    time.sleep(0.2)
    print(enclosure.pid, flush=True)
    time.sleep(1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        holder = int(owner.stdout.readline())
        assert state(holder) not in "XZ"
        owner.kill()
    assert wait_until(lambda: state(holder) in "XZ")


def test_a_forked_child_enters_and_keeps_its_memory(spec: Make) -> None:
    """The way of warm kernels: no new program, one process further, nothing open but what is kept."""
    made = spec(HIGHEST)
    code = f"""
    import json, os, sys
    from pathlib import Path
    from toolkit.isolation import Enclosure, EnclosureSpec, Ticket, enter
    from toolkit.values import IsolationLevel
    warm = "imported before"
    with Enclosure(EnclosureSpec(level=IsolationLevel.{HIGHEST.name}, work=Path({str(made.work)!r}),
                                 python=Path(sys.executable))) as enclosure:
        ticket = Ticket.from_json(json.loads(json.dumps(enclosure.ticket().to_json())))
        root = os.open("/", os.O_RDONLY)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            enter(ticket, keep=[writer])
            try:
                os.fstat(root)
                left = "open"
            except OSError:
                left = "closed"
            try:
                os.listdir("/root/.ssh") or os.listdir("/var")
                seen = "outside"
            except OSError:
                seen = "nothing"
            body = [warm, os.getcwd(), os.getpid() < 100, left, seen]
            os.write(writer, json.dumps(body).encode())
            os._exit(5)
        os.close(writer)
        said = os.fdopen(reader).read()
        print(said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    body, _, status = ended.stdout.rpartition(" ")
    assert json.loads(body) == ["imported before", str(made.work), True, "closed", "nothing"]
    assert status.strip() == "5"


def test_a_ticket_of_an_enclosure_that_ended_opens_nothing(spec: Make) -> None:
    """Process numbers are used again; the ticket knows when its holder started."""
    with Enclosure(spec(L2)) as enclosure:
        stale = {**enclosure.ticket().to_json(), "holder_started": 1}
        command = enclosure.command(["/bin/true"])
        command[command.index("--") - 1] = json.dumps(stale)
        ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 126
    assert "has ended" in ended.stderr
    with pytest.raises(InfrastructureError):
        enclosure.ticket()


def test_too_much_is_not_shown(spec: Make, tmp_path: Path) -> None:
    """Whole systems as working folders, and a gateway's folder with more in it, are refused."""
    from dataclasses import replace

    with pytest.raises(ConfigurationError, match="cannot be a folder"):
        Enclosure(replace(spec(L2), work=Path("/"))).open()
    door = tmp_path / "state"
    door.mkdir()
    (door / "ledger.db").touch()
    with pytest.raises(ConfigurationError, match=r"also holds ledger\.db"):
        Enclosure(spec(L2, gateway_socket=door / "gateway.sock")).open()


def test_the_relay_needs_no_package(tmp_path: Path) -> None:
    """What runs inside starts with the standard library alone."""
    folder = Path(sys.modules["toolkit.isolation"].__file__ or "").parent
    for name in ("inside.py", "probes.py", "relay.py"):
        code = f"import runpy; runpy.run_path({str(folder / name)!r}, run_name='x')"
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=tmp_path)


@pytest.mark.without_bubblewrap
def test_nothing_is_done_where_nothing_is_asked(spec: Make) -> None:
    """L0 leaves command and environment as they are."""
    with Enclosure(spec(L0)) as enclosure:
        assert enclosure.command(["a", "b"]) == ["a", "b"]
        assert enclosure.environment({"HOME": "/x"}) == {"HOME": "/x"}
        assert Ticket.from_json(enclosure.ticket().to_json()) == enclosure.ticket()
        assert not enclosure.oom_killed()
    assert os.getpid() > 0
