"""Where a workspace is, whose word counts, and what happens when it cannot be read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.errors import ConfigurationError, InvalidFile
from toolkit.settings import FILE_NAME, Settings, find_workspace, open_workspace


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, wherever the tests' own folders are."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:  # noqa: S108
        yield Path(folder)


@pytest.fixture
def root(short: Path) -> Path:
    """A workspace with an empty ``toolkit.toml``."""
    folder = short / "ws"
    folder.mkdir()
    (folder / FILE_NAME).write_text("")
    return folder


@pytest.fixture
def private_tmp(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own, where long socket paths are moved to."""
    folder = short / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_nearest_workspace_above_is_found(root: Path) -> None:
    """From any folder inside, however deep; the innermost one wins."""
    deep = root / "notebooks" / "a"
    deep.mkdir(parents=True)
    assert find_workspace(deep) == find_workspace(root) == root
    (root / "notebooks" / FILE_NAME).write_text("")
    assert find_workspace(deep) == root / "notebooks"


def test_no_workspace_is_told_with_the_two_ways_out(tmp_path: Path) -> None:
    """Where was looked, and what to do."""
    with pytest.raises(ConfigurationError, match=f"no {FILE_NAME} in") as caught:
        open_workspace(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "toolkit init" in (caught.value.next_step or "")
    assert caught.value.exit_code == 78


def test_a_folder_of_that_name_is_no_workspace(tmp_path: Path) -> None:
    """Only a file makes a workspace."""
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(ConfigurationError):
        find_workspace(tmp_path)


def test_environment_over_file_over_default(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three sources, each seen where the one above it is silent."""
    (root / FILE_NAME).write_text('user = "file"\nteam = "file"\nslots = 7\n')
    monkeypatch.setenv("TOOLKIT_USER", "environment")
    settings = open_workspace(root).settings
    assert (settings.user, settings.team, settings.slots) == ("environment", "file", 7)
    assert settings.experiment == Settings.model_fields["experiment"].default


def test_a_number_in_the_environment_is_a_number(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables are text; settings are typed."""
    monkeypatch.setenv("TOOLKIT_SLOTS", "5")
    assert open_workspace(root).settings.slots == 5


def test_variables_that_are_no_settings_are_left_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel's own variables (socket, token) share the prefix and disturb nothing."""
    monkeypatch.setenv("TOOLKIT_GATEWAY", "/somewhere.sock")
    monkeypatch.setenv("TOOLKIT_RUN_TOKEN", "x")
    assert open_workspace(root).settings == Settings()


def test_all_faults_of_the_file_and_the_environment_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look tells everything that has to be mended."""
    (root / FILE_NAME).write_text('mlflow_port = "many"\nslot = 3\n[extra]\na = 1\n')
    monkeypatch.setenv("TOOLKIT_SLOTS", "some")
    with pytest.raises(InvalidFile) as caught:
        open_workspace(root)
    assert {fault["where"] for fault in caught.value.details["faults"]} == {
        "toolkit.toml:1 mlflow_port", "toolkit.toml:2 slot", "toolkit.toml:3 extra", "TOOLKIT_SLOTS",
    }  # fmt: skip
    assert "toolkit.toml:2 slot: is not a known key" in caught.value.message
    assert caught.value.next_step


def test_values_are_not_repeated_in_the_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with a password, put under a wrong name, does not reach a screen or a log."""
    (root / FILE_NAME).write_text('database = "postgresql://me:hunter2@db/x"\n')
    monkeypatch.setenv("TOOLKIT_SLOTS", "hunter3")
    with pytest.raises(InvalidFile) as caught:
        open_workspace(root)
    told = f"{caught.value} {caught.value.to_json()}"
    assert "hunter2" not in told
    assert "hunter3" not in told


@pytest.mark.parametrize("text", [b"user = ", b"a = 1\na = 2\n", b'user = "\xff"\n'])
def test_what_is_no_toml_is_a_fault_of_the_file(root: Path, text: bytes) -> None:
    """Never a parser's own exception."""
    (root / FILE_NAME).write_bytes(text)
    with pytest.raises(InvalidFile) as caught:
        open_workspace(root)
    assert caught.value.where == str(root / FILE_NAME)


def test_state_is_private_and_defaults_live_in_it(root: Path) -> None:
    """Databases, sockets and logs are under ``.toolkit/``, for its owner only."""
    workspace = open_workspace(root)
    assert workspace.state == root / ".toolkit"
    assert workspace.state.stat().st_mode & 0o777 == 0o700
    for url in (workspace.database_url, workspace.engine_url, workspace.mlflow_uri):
        assert url.startswith(f"sqlite:///{workspace.state}/")
    assert workspace.socket == workspace.state / "door" / "gateway.sock"
    assert workspace.socket.parent.stat().st_mode & 0o777 == 0o700
    assert workspace.registry == root / "registry"


def test_urls_of_the_settings_are_used_as_they_are(root: Path) -> None:
    """A team's own servers replace the embedded defaults."""
    (root / FILE_NAME).write_text(
        'database_url = "postgresql://db/l"\nmlflow_uri = "http://ml:5000"\nregistry = "../reg"\n'
    )
    workspace = open_workspace(root)
    assert (workspace.database_url, workspace.mlflow_uri) == ("postgresql://db/l", "http://ml:5000")
    assert workspace.registry == root.parent / "reg"


def test_a_socket_path_that_is_too_long_moves_to_a_private_folder(
    tmp_path: Path, private_tmp: Path
) -> None:
    """Unix sockets hold 107 bytes of path; each workspace keeps its own, always the same."""
    deep = tmp_path / ("ä" * 60) / "ws"
    deep.mkdir(parents=True)
    (deep / FILE_NAME).write_text("")
    workspace = open_workspace(deep)
    assert workspace.socket.parent.parent == private_tmp / f"toolkit-{os.getuid()}"
    assert workspace.socket.parent.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(workspace.socket)) < 107
    assert open_workspace(deep).socket == workspace.socket
    other = deep.with_name("other")
    other.mkdir()
    (other / FILE_NAME).write_text("")
    assert open_workspace(other).socket != workspace.socket


def test_a_folder_for_sockets_that_others_can_enter_is_refused(
    tmp_path: Path, private_tmp: Path
) -> None:
    """Somebody else may have made it to listen in."""
    (private_tmp / f"toolkit-{os.getuid()}").mkdir(mode=0o755)
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    (deep / FILE_NAME).write_text("")
    with pytest.raises(ConfigurationError, match="not private"):
        _ = open_workspace(deep).socket


def test_who_acts_is_the_login_or_the_setting(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login name by default, and the setting before it."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "bea")
    assert open_workspace(root).user == "bea"
    (root / FILE_NAME).write_text('user = "ana"\n')
    assert open_workspace(root).user == "ana"
