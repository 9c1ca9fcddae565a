"""What a kernel is that was forked from a zygote."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from kernels_world import SECRET

from toolkit.client import wire
from toolkit.execution.processes import MARK
from toolkit.kernels import Zygote
from toolkit.ledger import is_alive
from toolkit.values import Caps, IsolationLevel, RunState

LOOK = """
import gc, json, os, pathlib, signal, sys, threading
print(json.dumps({
    "parent": pathlib.Path(f"/proc/{os.getppid()}/comm").read_text().strip(),
    "environ": dict(os.environ),
    "block": pathlib.Path("/proc/self/environ").read_bytes().decode(),
    "cwd": os.getcwd(),
    "files": [os.readlink(p) for p in pathlib.Path("/proc/self/fd").iterdir() if p.exists()],
    "leads": os.getsid(0) == os.getpid() == os.getpgid(0),
    "handlers": [int(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGCHLD)],
    "collects": gc.isenabled(),
    "pandas": "pandas" in sys.modules,
    "argv": sys.argv,
    "path": sys.path,
}))
"""


def test_a_warm_kernel_is_what_its_request_says_and_nothing_else(run, zygote, tmp_path):
    """Environment, folder, files and signals are the request's; the zygote holds no secret."""
    pid = zygote.pid()
    ran = run(LOOK)
    assert (ran.ending.state, ran.ending.notes) == (RunState.SUCCEEDED, ())
    seen = ran.said()
    assert seen["parent"] == "kernel-keeper"
    assert seen["pandas"], "it was imported before the notebook asked"
    assert SECRET not in str(seen)
    assert seen["environ"][MARK] in seen["block"], "others find the run's processes by it"
    assert wire.ENV_TOKEN not in seen["block"], "the token is not where other processes look"
    assert seen["cwd"] == str(tmp_path / "work")
    assert seen["leads"]
    assert seen["handlers"] == [0, 0], "SIG_DFL"
    assert seen["collects"]
    assert str(zygote.folder) not in " ".join(seen["files"] + seen["path"] + seen["argv"])
    assert zygote.pid() == pid, "the zygote lives on"
    assert SECRET not in Path(f"/proc/{pid}/environ").read_text()


def test_two_kernels_of_one_zygote_share_no_randomness(run):
    """random, numpy, uuid1, uuid4 and secrets give others each time."""
    source = (
        "import json, random, secrets, uuid, numpy as np\n"
        "print(json.dumps([random.random(), np.random.rand(), str(uuid.uuid1())[:8], "
        "str(uuid.uuid4()), secrets.token_hex(8), np.random.default_rng().random()]))"
    )
    one, other = run(source).said(), run(source).said()
    assert not set(one) & set(other)


def test_what_a_notebook_leaves_open_is_written_when_it_ends(run, tmp_path):
    """Open files of names and of modules, atexit, and threads that are not daemons: as always."""
    ran = run(
        "import atexit, pathlib, sys, threading, time, types\n"
        "named = open('named.txt', 'w'); named.write('n')\n"
        "kept = types.ModuleType('kept'); sys.modules['kept'] = kept\n"
        "kept.file = open('kept.txt', 'w'); kept.file.write('k')\n"
        "atexit.register(lambda: pathlib.Path('exit.txt').write_text('e'))\n"
        "def late():\n    time.sleep(.3); pathlib.Path('thread.txt').write_text('t')\n"
        "threading.Thread(target=late).start()\n"
        "class Last:\n"
        "    def __del__(self, path=pathlib.Path('del.txt')): path.write_text('d')\n"
        "last = Last()"
    )
    assert ran.ending.state is RunState.SUCCEEDED
    found = {path.stem: path.read_text() for path in (tmp_path / "work").glob("*.txt")}
    assert found == {"named": "n", "kept": "k", "exit": "e", "thread": "t", "del": "d"}


def test_how_a_warm_kernel_ended_is_told_as_for_any_other(run):
    """A status and a signal reach the runner through the keeper."""
    assert "exited with status 7" in run("import os; os._exit(7)").ending.message
    killed = run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").ending
    assert (killed.state, "SIGKILL" in killed.message) == (RunState.KILLED, True)


def test_a_fork_that_hides_from_its_group_ends_with_the_run(run, tmp_path):
    """It carries the run's mark although nothing was executed that could have inherited it."""
    source = (
        "import os, pathlib, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "while not pathlib.Path('pid').exists(): time.sleep(.01)"
    )
    assert run(source).ending.state is RunState.SUCCEEDED
    pid = int((tmp_path / "work" / "pid").read_text())
    gone = not is_alive(pid)
    assert gone


def test_limits_are_the_plans_and_else_the_runners(run):
    """A cap of open files holds in a warm kernel at L1; the zygote's own limits do not."""
    source = "import json, resource; print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))"
    assert run(source, level=IsolationLevel.L1, caps=Caps(open_files=77)).said() == [77, 77]


def test_a_zygote_is_private_and_one_of_its_kind(zygote):
    """Nobody else can reach it, and a second one of the same kind does not serve."""
    assert stat.S_IMODE(zygote.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((zygote.folder / "socket").stat().st_mode) & 0o077 == 0
    pid = zygote.pid()
    zygote.start()
    zygote.wait(10)
    assert zygote.pid() == pid


def test_what_matters_before_the_first_line_chooses_another_zygote(home):
    """Two settings of the interpreter or of numpy's threads never share one."""
    python = Path(sys.executable)
    folders = {
        Zygote(home, python, variables).folder
        for variables in ({}, {"OMP_NUM_THREADS": "1"}, {"PYTHONPATH": "/a"}, {"LANG": "C"})
    }
    assert len(folders) == 4
    same = Zygote(home, python, {"OPENAI_API_KEY": "x", "PATH": os.defpath, "MY_VARIABLE": "1"})
    assert same.folder == Zygote(home, python, {}).folder
