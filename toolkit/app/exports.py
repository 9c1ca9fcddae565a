"""The few lines with which another scheduler runs a registered version.

Every value is written by the target's own printer (``repr`` of Python, PyYAML), never pasted: a
parameter cannot become code.  The command is the contract, with the exit codes of ``toolkit run``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import jinja2
import yaml

from toolkit.errors import UsageError

__all__ = ["Export", "Target", "command_of", "render"]

_FILES = Path(__file__).with_name("export_files")
_NO_RETRY = [1, 2, 78]
_RETRIES = 3
# Kubernetes: names of objects are DNS labels (RFC 1123), and a CronJob adds eleven characters.
_LABEL_LENGTH = 52
_GRACE_S = 60


class Target(StrEnum):
    """For whom."""

    AIRFLOW = "airflow"
    KUBERNETES = "kubernetes"
    DAGSTER = "dagster"
    PREFECT = "prefect"


@dataclass(frozen=True)
class Export:
    """What is to be run.

    Attributes:
        reference: ``job@alias`` or ``job@number``.
        pairs: ``name=value`` as on the command line, checked against the version's schema.
        cron, timezone: When; ``None``: only when somebody asks.
        workspace: The folder of the workspace where the command will run.
        image: Kubernetes only: an image that holds the toolkit and the workspace.
        timeout: Limit of the whole run, as on the command line.
    """

    reference: str
    pairs: tuple[str, ...] = ()
    cron: str | None = None
    timezone: str = "UTC"
    workspace: str = "."
    image: str | None = None
    timeout: str | None = None

    @property
    def name(self) -> str:
        """A name for the other scheduler: letters, digits and ``-``."""
        return re.sub(r"[^a-z0-9]+", "-", self.reference.lower()).strip("-")


def command_of(export: Export) -> list[str]:
    """Return the command, without the key that the other scheduler adds."""
    command = ["toolkit", "run", export.reference]
    for pair in export.pairs:
        command += ["-p", pair]
    if export.timeout:
        command += ["--timeout", export.timeout]
    return [*command, "--json"]


def render(export: Export, target: Target) -> tuple[str, str]:
    """Return the file's name and its text.

    Raises:
        UsageError: Kubernetes needs an image, or a cron line cannot be said to the target.
    """
    if export.cron is not None and len(export.cron.split()) != 5:
        raise UsageError(
            f"{export.cron!r} has seconds, which other schedulers do not know",
            where="--cron",
            next_step="write five fields: minute hour day month weekday",
        )
    return _RENDERERS[target](export)


def _python(target: Target) -> Callable[[Export], tuple[str, str]]:
    def made(export: Export) -> tuple[str, str]:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FILES),
            autoescape=False,  # noqa: S701 - Python, not HTML; every value passes `py`
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["py"] = _literal
        template = environment.get_template(f"{target}.py.j2")
        return f"{export.name.replace('-', '_')}_{target}.py", template.render(_values(export))

    return made


def _literal(value: Any) -> str:
    """Write a value as Python reads it back, whatever is in it: ASCII, one line."""
    return ascii(value)


def _values(export: Export) -> Mapping[str, Any]:
    symbol = export.name.replace("-", "_")
    zoned = export.timezone != "UTC" and export.cron is not None
    schedule = "None" if export.cron is None else _literal(export.cron)
    if zoned:
        text = (
            f"CronTriggerTimetable({_literal(export.cron)}, timezone={_literal(export.timezone)})"
        )
        schedule = text
    return {
        "ref": export.reference,
        "name": export.name,
        "symbol": f"run_{symbol}",
        "job_symbol": f"job_{symbol}",
        "command": command_of(export),
        "workspace": export.workspace,
        "cron": export.cron,
        "timezone": export.timezone,
        "airflow_schedule": schedule,
        "zoned": zoned,
        "retries": _RETRIES,
    }


def _kubernetes(export: Export) -> tuple[str, str]:
    if not export.image:
        raise UsageError(
            "Kubernetes runs images, and none is named",
            where="--image",
            next_step="name an image that holds the toolkit and the workspace: --image REGISTRY/NAME:TAG",
        )
    name = export.name[:_LABEL_LENGTH].rstrip("-")
    job = {"spec": _job_spec(export)}
    body: dict[str, Any] = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    if export.cron is None:
        body |= job
    else:
        body["kind"] = "CronJob"
        body["spec"] = {
            "schedule": export.cron,
            "timeZone": export.timezone,
            "concurrencyPolicy": "Forbid",
            "jobTemplate": job,
        }
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=False, width=100)
    return f"{name}.yaml", _KUBERNETES_HEAD.format(ref=export.reference) + text


_KUBERNETES_HEAD = """\
# {ref} under Kubernetes.  All pods of one Job share its uid as the run's key, so a new pod goes
# on with the same run, once the lease of a dead one is over (30 s).  1, 2, 78: trying again would change nothing.  99: there was nothing to do.
"""


def _job_spec(export: Export) -> dict[str, Any]:
    key = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/controller-uid']"}}
    # Kubernetes replaces $(NAME) in arguments; a doubled dollar stands for itself.
    command = [part.replace("$(", "$$(") for part in command_of(export)]
    container = {
        "name": "run",
        "image": export.image,
        "workingDir": export.workspace,
        "env": [{"name": "JOB_UID", "valueFrom": key}],
        "command": [*command, "--run-key", "kubernetes:$(JOB_UID)"],
    }
    rule = {"containerName": "run", "operator": "In", "values": [*_NO_RETRY, 99]}
    return {
        "backoffLimit": _RETRIES,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": rule}]},
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": _GRACE_S,
                "containers": [container],
            }
        },
    }


_RENDERERS: Mapping[Target, Callable[[Export], tuple[str, str]]] = {
    Target.KUBERNETES: _kubernetes,
    **{each: _python(each) for each in Target if each is not Target.KUBERNETES},
}
