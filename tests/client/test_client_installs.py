"""Which command lines install packages."""

from __future__ import annotations

import pytest

from toolkit.client import is_install


@pytest.mark.parametrize(
    "command",
    [
        "pip install x",
        "pip3.11 --quiet install x",
        "/opt/env/bin/python -m pip install x",
        "/opt/env/bin/python3 -I -m pip --proxy http://p uninstall x",
        "sudo pip install x",
        "cd /tmp && pip install x",
        "X=1 uv pip install x",
        "uv add x",
        "conda install -y x",
        "(micromamba update x)",
        "true\npip install x",
    ],
)
def test_installing_is_seen(command: str) -> None:
    """As it is written in a shell, by a magic, or as the words of a program."""
    assert is_install(command)


@pytest.mark.parametrize(
    "command",
    [
        "pip list",
        "pip --version",
        "echo pip install x",
        "git commit -m 'pip install x'",
        "grep install pip.log",
        "python -m http.server",
        "python pip_install.py install",
        "uv --version",
        "apipe install",
        "",
    ],
)
def test_what_only_names_it_is_not(command: str) -> None:
    """A job may look at its packages, and say the words."""
    assert not is_install(command)
