"""Another scheduler's few lines: they call the command, and nothing in them can become code."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.app.exports import Export, Target, command_of, render
from toolkit.errors import UsageError

PYTHON = [Target.AIRFLOW, Target.DAGSTER, Target.PREFECT]
WHEN = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}


def constants(text: str) -> dict[str, Any]:
    """The module's constants, read without running anything."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


@pytest.mark.parametrize("when", [{}, WHEN], ids=["by hand", "at night"])
@pytest.mark.parametrize("target", PYTHON)
@given(value=st.text(max_size=40), folder=st.text(max_size=40))
@settings(max_examples=25)
def test_no_value_becomes_code(
    target: Target, when: dict[str, str], value: str, folder: str
) -> None:
    """Whatever a parameter or a folder holds, the module has the same shape and gives it back."""
    plain = render(Export("triage@3", ("note=x",), workspace="w", **when), target)[1]
    asked = Export("triage@3", (f"note={value}",), workspace=folder, **when)
    _, text = render(asked, target)
    read = constants(text)
    assert read["COMMAND"] == ["toolkit", "run", "triage@3", "-p", f"note={value}", "--json"]
    assert read["WORKSPACE"] == folder
    assert len(text.splitlines()) == len(plain.splitlines())
    kinds = [[type(node) for node in ast.walk(ast.parse(each))] for each in (text, plain)]
    assert kinds[0] == kinds[1]


@given(value=st.text(max_size=40))
@settings(max_examples=40)
def test_kubernetes_gets_the_same_command(value: str) -> None:
    """What Kubernetes makes of `$(NAME)` in arguments is escaped; all else is as it was."""
    asked = Export("triage", (f"note={value}",), image="team/jobs:1", timeout="15m")
    body = yaml.safe_load(render(asked, Target.KUBERNETES)[1])
    (container,) = body["spec"]["template"]["spec"]["containers"]
    command = [part.replace("$$(", "$(") for part in container["command"]]
    assert command == [*command_of(asked), "--run-key", "kubernetes:$(JOB_UID)"]
    assert body["kind"] == "Job"


def test_kubernetes_fails_at_once_where_trying_again_changes_nothing() -> None:
    """1, 2, 78 and 99 end the Job; anything else, such as 75 or a killed pod, is tried again."""
    body = yaml.safe_load(render(Export("a@1", image="i", **WHEN), Target.KUBERNETES)[1])
    assert (body["kind"], body["spec"]["timeZone"]) == ("CronJob", "Europe/Berlin")
    spec = body["spec"]["jobTemplate"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2, 78, 99])
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # which the policy asks for


def test_what_cannot_be_said_is_refused() -> None:
    """Seconds in a cron line, and Kubernetes without an image."""
    with pytest.raises(UsageError, match="has seconds"):
        render(Export("a", cron="0 0 3 * * *"), Target.AIRFLOW)
    with pytest.raises(UsageError, match="none is named"):
        render(Export("a"), Target.KUBERNETES)
