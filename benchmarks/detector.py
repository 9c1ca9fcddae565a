"""Secrets found and look-alikes left alone: our detector against detect-secrets.

``python -m benchmarks.detector [--peer PYTHON]`` prints a table and writes ``results/detector.json``.

``PYTHON`` is the interpreter of an environment of its own with detect-secrets in it; it scans every
text of the same set as a file of its own with its default plugins and filters, and asks no service
whether a find is real.  The set is ``tests/privacy/privacy_cases.py``; figures are of its held-out split, whose
values and contexts no rule was tuned on.  A secret counts as found when nothing of it is left after
the finds are cut out (ours), or when its text has any find (the peer, which tells no place).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.results import figure, machine, publish
from toolkit.privacy import Detector, KnownSecrets, Redactor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "privacy"))

from privacy_cases import Case, cases  # noqa: E402

_PEER = """
import json, pathlib, sys, tempfile
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings
texts = json.load(sys.stdin)
found = []
with tempfile.TemporaryDirectory() as folder, default_settings() as settings:
    settings.disable_filters("detect_secrets.filters.common.is_ignored_due_to_verification_policies")
    for n, text in enumerate(texts):
        path = pathlib.Path(folder, f"case{n}.txt")
        path.write_text(text, "utf-8")
        found.append(any(True for _ in scan_file(str(path))))
print(json.dumps(found))
"""
ROUNDS = 2_000
PARAGRAPH = (
    "Dear team, the quarterly report for order 4711 is ready and the customer asked on 2024-05-12 "
    "about invoice INV-2024-001. Please check the token budget of the key account and reply. "
)


def ours(case: Case, detector: Detector) -> bool:
    text = case.text
    found = detector.find(text)
    if not case.planted:
        return bool(found)
    for finding in reversed(found):
        text = text[: finding.start] + text[finding.end :]
    return case.planted not in text


def peer(python: str, texts: list[str]) -> list[bool]:
    done = subprocess.run(
        [python, "-c", _PEER], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout))


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def cost_ms(call: Callable[[], object]) -> float:
    """Median of the processor time of one call, in milliseconds."""
    times = []
    for _ in range(20):
        start = time.process_time()
        for _ in range(ROUNDS // 20):
            call()
        times.append((time.process_time() - start) / (ROUNDS // 20) * 1e3)
    return sorted(times)[len(times) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="interpreter of an environment with detect-secrets")
    arguments = parser.parse_args()
    with_peer = (
        arguments.peer
        and not subprocess.run(
            [arguments.peer, "-c", "import detect_secrets"], capture_output=True, check=False
        ).returncode
    )
    detector = Detector()
    figures = {}
    for split in ("dev", "held-out"):
        every = list(cases(split))
        groups = {
            name: [c for c in every if c.category == category]
            for name, category in (
                ("secrets recall", "secret"),
                ("personal data recall", "pii"),
                ("false positives", "none"),
            )
        }
        for name, group in groups.items():
            theirs = None
            if with_peer and "personal" not in name:
                theirs = share(peer(arguments.peer, [c.text for c in group]))
            figures[f"{name}, {split}"] = figure(
                share([ours(c, detector) for c in group]),
                theirs,
                "share",
                f"own synthetic set, {split}; peer: detect-secrets with default plugins; {machine()}",
                lower_is_better=name == "false positives",
            )
    known = KnownSecrets([f"{n}aB3dE5gH7jK9mN1pQ2rS4tU6v" for n in range(10)])
    redactor = Redactor(detector, known, salt="run-1")
    messages = [{"role": "user", "content": PARAGRAPH * 4} for _ in range(2)]
    payload = {"messages": [{"role": "system", "content": PARAGRAPH * 3}, *messages], "n": 1}
    figures["screening a 2 kB call"] = figure(
        cost_ms(lambda: redactor.redact(payload)),
        None,
        "ms",
        f"{len(json.dumps(payload))} bytes, 10 known secrets, nothing found; processor time; {machine()}",
        lower_is_better=True,
    )
    publish("detector", figures)


if __name__ == "__main__":
    main()
