"""The command line of bubblewrap, and whether it can be had."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import toolkit
from toolkit.errors import ConfigurationError
from toolkit.isolation.spec import EnclosureSpec, interpreter_paths

__all__ = ["CLEAN_ENVIRONMENT", "INSTALL", "RELAY_INSIDE", "arguments", "program", "version"]

INSTALL = "apt install bubblewrap (or your system's package of that name)"
CLEAN_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
"""Of bubblewrap itself: process 1 keeps it, and what is inside can read it there."""
RELAY_INSIDE = "/run/toolkit/relay.py"
_SMALL_BYTES = 16 << 20
_ETC = ("ld.so.cache", "localtime", "alternatives", "mime.types", "ssl/certs", "fonts")


def program() -> str:
    """Return the path of bubblewrap.

    Raises:
        ConfigurationError: It is not installed.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise ConfigurationError(
            "bubblewrap is not installed, so no kernel can be isolated at L2 or L3",
            where="isolation",
            next_step=INSTALL,
        )
    return found


@functools.cache
def _ask(path: str, question: str, _changed_ns: int) -> str:
    answer = subprocess.run(
        [path, question], capture_output=True, text=True, env=CLEAN_ENVIRONMENT, check=False
    )
    return (answer.stdout + answer.stderr).strip()


def version() -> str:
    """Return what bubblewrap says of its version.

    Raises:
        ConfigurationError: It is not installed.
    """
    path = program()
    return _ask(path, "--version", Path(path).stat().st_mtime_ns)


def arguments(spec: EnclosureSpec, data: Callable[[str, str | bytes], str]) -> list[str]:
    """Return the options that make an enclosure, without the command.

    Args:
        spec: What goes in.
        data: Keeps the named bytes in an open file and returns its number.

    Raises:
        ConfigurationError: Bubblewrap or the interpreter is missing.
    """
    path = program()
    # Named one by one: --unshare-all does without what it cannot get.
    made = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    made += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--as-pid-1"]
    made += ["--cap-drop", "ALL", "--hostname", "kernel"]
    if "--disable-userns" in _ask(path, "--help", Path(path).stat().st_mtime_ns):
        made += ["--disable-userns"]
    made += _system()
    # Root owns the system's settings in /proc/sys and needs no capability to write them: without
    # this, core_pattern would run a program of the notebook's choice outside.
    made += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    made += [*_memory("/dev/shm", spec.scratch_bytes), "--remount-ro", "/dev"]  # noqa: S108 - inside
    made += _memory("/tmp", spec.scratch_bytes)  # noqa: S108 - inside
    made += _memory("/home", _SMALL_BYTES) + _memory("/run", _SMALL_BYTES)
    made += _accounts(spec, data)
    made += _folders(spec)
    relay = Path(__file__).with_name("relay.py").read_bytes()
    made += ["--ro-bind-data", data("relay", relay), RELAY_INSIDE]
    return [*made, "--remount-ro", "/", "--chdir", str(spec.work)]


def _memory(where: str, size: int) -> list[str]:
    return ["--perms", "0700", "--size", str(size), "--tmpfs", where]


def _system() -> list[str]:
    """The system's programs and libraries; its settings only where they are needed and harmless."""
    made = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            made += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            made += ["--ro-bind", str(path), str(path)]
    for name in _ETC:
        path = Path("/etc", name)
        made += ["--ro-bind-try", str(path.resolve() if name == "localtime" else path), str(path)]
    return made


def _accounts(spec: EnclosureSpec, data: Callable[[str, str | bytes], str]) -> list[str]:
    """Files of /etc that name one user and one host; the machine's own name more."""
    uid = os.getuid() if spec.uid is None else spec.uid
    gid = os.getgid() if spec.gid is None else spec.gid
    files = {
        "passwd": f"kernel:x:{uid}:{gid}::/tmp:/bin/sh\n",
        "group": f"kernel:x:{gid}:\n",
        "hosts": "127.0.0.1 localhost kernel\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    made = []
    for name, text in files.items():
        made += ["--ro-bind-data", data(name, text), f"/etc/{name}"]
    return made


def _folders(spec: EnclosureSpec) -> list[str]:
    """What the run brings; later entries lie over earlier ones."""
    package = Path(toolkit.__file__).resolve().parent
    readable = (*interpreter_paths(spec.python), package, *spec.readable)
    made = ["--bind", str(spec.work), str(spec.work)]
    for path in spec.hidden:
        if path.is_dir() and any(path.is_relative_to(p) for p in (spec.work, *spec.readable)):
            made += _memory(str(path), _SMALL_BYTES)
    for path in sorted(dict.fromkeys(readable), key=lambda p: len(p.parts)):
        made += ["--ro-bind", str(path), str(path)]
    for path in spec.private:
        made += ["--bind", str(path), str(path)]
    if spec.gateway_socket is not None:
        door = str(spec.gateway_socket.parent)
        made += ["--ro-bind", door, door]
    return made
