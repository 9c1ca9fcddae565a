"""A registry of 100,000 versions: resolving, verifying and sealing one.

``python -m benchmarks.registry [--versions N]`` prints a table and writes ``results/registry.json``.

Half of the versions are one job's, the other half is spread over 100 jobs.  They are written in
the public layout without the registry's own syncing: manifests from :class:`Manifest`, files as
hard links, a log with two records a version.  Then a root is made, and signed versions are sealed
on top the normal way; their alias moves too.  What is measured is a whole
``registry.load(registry.resolve(reference))``: every file read, every digest recomputed, and in
the signed part every signature, the root's chain and the place in the log checked.  References are
drawn at random from all versions; the registry's object is new for each, as in a new process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from benchmarks.results import figure, machine, publish
from toolkit.registry import AuditRecord, Manifest, Registry
from toolkit.trust import KeySigner, PublicKey, RootOffice

FACTS = {"by": "ana", "parameters": {"type": "object"}, "policy_digest": "sha256:" + "a" * 64}
LINKS_MAX = 30_000  # a file system allows so many names of one file


def files() -> dict[str, bytes]:
    """A notebook of ten cells, its evidence and its lock."""
    cells = [{"cell_type": "code", "id": f"c{n}", "source": "x = 1\n" * 10} for n in range(10)]
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return {
        "notebook.ipynb": json.dumps(book).encode(),
        "evidence.json": b'{"score": 0.9}\n' * 20,
        "requirements.lock": b"package==1.0 --hash=sha256:00\n" * 40,
    }


class Bulk:
    """Writes versions and their records without a sync each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = files()
        self.draft = Manifest.draft("any", self.files, FACTS, "2026-11-21T00:00:00.000000Z")
        self.last: AuditRecord | None = None
        (root / "log").mkdir(parents=True)
        (root / "sources").mkdir()
        self.log = (root / "log" / "audit.jsonl").open("wb")
        self.made = 0

    def add(self, job: str, count: int) -> None:
        """Write versions 1 to ``count`` of a job."""
        (self.root / "jobs" / job).mkdir(parents=True)
        sources: dict[str, Path] = {}
        for number in range(1, count + 1):
            if self.made % LINKS_MAX == 0 or not sources:
                sources = self._sources()
            folder = f"{self.root}/jobs/{job}/{number}"
            os.mkdir(folder)  # noqa: PTH102 - 100,000 times
            manifest = replace(self.draft, name=job, version=number)
            data = manifest.to_bytes()
            with open(f"{folder}/job.yaml", "wb") as file:  # noqa: PTH123
                file.write(data)
            for name, source in sources.items():
                os.link(source, f"{folder}/{name}")
            body = {"name": job, "version": number, "bundle_digest": manifest.bundle_digest}
            self._record("version.sealing", body)
            self._record("version.sealed", body)
            self.made += 1

    def _sources(self) -> dict[str, Path]:
        folder = self.root / "sources" / str(self.made)
        folder.mkdir()
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return {name: folder / name for name in self.files}

    def _record(self, event: str, body: dict[str, object]) -> None:
        at = "2026-11-21T00:00:00.000000Z"
        if self.last is None:
            zero = "sha256:" + "0" * 64
            self._write(AuditRecord.of(1, at, "audit.created", "ana", {"format": "audit/1"}, zero))
        assert self.last is not None
        self._write(AuditRecord.of(self.last.n + 1, at, event, "ana", body, self.last.hash))

    def _write(self, record: AuditRecord) -> None:
        self.log.write(record.to_line())
        self.last = record


def timed(count: int, act: Callable[[int], object]) -> tuple[list[float], list[float]]:
    """Milliseconds and processor milliseconds of each of ``count`` turns, sorted."""
    times, used = [], []
    for turn in range(count):
        begin, before = time.perf_counter(), time.process_time()
        act(turn)
        times.append((time.perf_counter() - begin) * 1e3)
        used.append((time.process_time() - before) * 1e3)
    return sorted(times), sorted(used)


def at(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=100_000)
    total = parser.parse_args().versions
    chance = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "registry"
        bulk, began = Bulk(root), time.perf_counter()
        jobs = {"big": total // 2} | {f"job-{n}": total // 200 for n in range(100)}
        for job, count in jobs.items():
            bulk.add(job, count)
        bulk.log.close()
        made_s = time.perf_counter() - began
        refs = [f"{j}@{chance.randint(1, jobs[j])}" for j in chance.choices(list(jobs), k=2_000)]
        refs += [f"big@{chance.randint(1, jobs['big'])}" for _ in range(2_000)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        def load(registry: Registry, reference: str) -> None:
            found = registry.load(registry.resolve(reference))
            assert found.keys() == bulk.files.keys()

        plain = timed(len(refs), lambda turn: load(Registry(root), refs[turn]))
        seals = timed(20, lambda turn: Registry(root).seal("big", bulk.files, FACTS))
        Registry(root).set_alias("big", "production", jobs["big"], by="ana")
        alias = timed(500, lambda turn: load(Registry(root), "big@production"))

        key = ed25519.Ed25519PrivateKey.generate()
        signer = KeySigner(key, PublicKey.of(key.public_key()))

        def signed() -> Registry:
            return Registry(root, trust_state=Path(folder) / "state.json", signer=lambda: signer)

        trust = signed().trust
        assert trust is not None
        RootOffice(trust.verifier, signer).begin("ana", "Ana", "ana@example.com", protected={})
        signed_seals = timed(20, lambda turn: signed().seal("big", bulk.files, FACTS))
        newest = signed().versions("big")[-1]
        signed().set_alias("big", "production", newest, by="ana")
        signed_alias = timed(500, lambda turn: load(signed(), "big@production"))
        signed_number = timed(500, lambda turn: load(signed(), f"big@{newest - turn % 20}"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        log_mb = (root / "log" / "audit.jsonl").stat().st_size / 1e6
    about = f"{sum(jobs.values())} versions, {jobs['big']} of one job, log of {log_mb:.0f} MB; {machine()}"
    figures = {}
    for name, (times, used) in {
        "resolve and verify by number": plain,
        "resolve and verify by alias": alias,
        "the same by number, signed": signed_number,
        "the same by alias, signed": signed_alias,
        "seal, synced": seals,
        "seal, synced and signed": signed_seals,
    }.items():
        figures[f"{name}, median"] = figure(at(times, 0.5), None, "ms", about)
        figures[f"{name}, processor, median"] = figure(at(used, 0.5), None, "ms", about)
        figures[f"{name}, p99"] = figure(at(times, 0.99), None, "ms", about)
    figures["memory added by reading and sealing"] = figure(peak - before, None, "MB", about)
    figures["time to write them all"] = figure(made_s, None, "s", about)
    publish("registry", figures)


if __name__ == "__main__":
    main()
