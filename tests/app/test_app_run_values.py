"""Parameters with secrets are refused before they are recorded."""

from __future__ import annotations

import pytest

from toolkit.app.run_values import check_values
from toolkit.errors import UsageError

TOKEN = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT" + "1vW4xY7zA0cD3fG6"


def test_a_secret_among_the_parameters_is_refused_without_its_value(tmp_path):
    """By its form, wherever it is; every parameter is named, and its value is in no word."""
    with pytest.raises(UsageError) as told:
        check_values({"limit": 3, "login": TOKEN, "more": {"deep": [TOKEN]}}, tmp_path)
    shown = f"{told.value} {told.value.to_json()}"
    assert "login (" in shown
    assert "more (" in shown
    assert "limit" not in shown
    assert TOKEN not in shown
    assert told.value.next_step


def test_a_credential_of_this_process_is_refused_whatever_it_looks_like(tmp_path, monkeypatch):
    """A plain word is a secret where a variable that names one holds it."""
    parameters = {"word": "tortoise-on-tuesdays"}
    check_values(parameters, tmp_path)
    monkeypatch.setenv("HOUSE_API_KEY", "tortoise-on-tuesdays")
    with pytest.raises(UsageError, match="word"):
        check_values(parameters, tmp_path)


@pytest.mark.parametrize(
    "value",
    ["MIT", 3, None, ["a@example.org"], "2026-11-21", "sha256:" + "ab12" * 16, {"path": "a/b.csv"}],
)
def test_ordinary_parameters_pass(value, tmp_path):
    """Numbers, names, addresses, digests."""
    check_values({"value": value}, tmp_path)
