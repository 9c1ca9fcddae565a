"""Rows as Arrow: digests, caps, promises; files and HTTP; the catalog's faults."""

from __future__ import annotations

import gzip
import http.server
import io
import json
from datetime import UTC, datetime
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_world import serving
from sources_world import rows

from toolkit.errors import (
    CallDenied,
    ConfigurationError,
    InfrastructureError,
    InvalidAnswer,
    InvalidFile,
    NotFound,
    UsageError,
)
from toolkit.sources import Ask, DataCatalog, Sources
from toolkit.sources.columnar import Table, table_of
from toolkit.sources.expectations import check_promises
from toolkit.sources.promises import Expect

CELLS = st.one_of(
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=30),
    st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"))), max_size=30),
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), max_size=30),
    st.lists(st.one_of(st.none(), st.booleans()), max_size=30),
    st.lists(st.one_of(st.none(), st.binary(max_size=20)), max_size=30),
)


def table(values, cut: int = 0, hint=None) -> Table:
    """Build a table of one column, cut into two batches."""
    parts = [values[:cut], values[cut:]]
    return table_of(["x"], ([(v,) for v in part] for part in parts if part), [hint])


@given(values=CELLS, cut=st.integers(0, 30))
def test_the_digest_does_not_depend_on_how_rows_are_cut(values, cut):
    """The same rows in other batches are the same rows."""
    assert table(values, cut).digest() == table(values).digest()


@given(values=st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=8), at=st.integers(0))
def test_the_digest_changes_with_any_value_and_with_the_order(values, at):
    """Neither an edit nor a shifted border between two texts goes unseen."""
    changed = list(values)
    changed[at % len(values)] += "x"
    assert table(changed).digest() != table(values).digest()
    if values[::-1] != values:
        assert table(values[::-1]).digest() != table(values).digest()
    shifted = [values[0] + values[1][:1], values[1][1:], *values[2:]]
    assert table(shifted).digest() != table(values).digest()
    assert table([None, *values]).digest() != table(["", *values]).digest()


@given(values=CELLS)
def test_the_stream_is_arrow_that_anybody_can_read(values):
    """With facts in its metadata; a batch that was sent is let go of."""
    made = table(values, hint=pa.string())
    data = b"".join(made.stream({"a": 1}))
    read = pa.ipc.open_stream(data).read_all()
    assert json.loads(read.schema.metadata[b"toolkit"]) == {"a": 1}
    assert read.column(0).to_pylist() == values
    assert made.batches == ()


def test_mixed_columns_become_text_or_numbers():
    """SQLite does not keep a column to one type."""
    assert table([1, "x", 2.5]).batches[0].column(0).to_pylist() == ["1", "x", "2.5"]
    assert table([1, 2.5]).batches[0].column(0).to_pylist() == [1.0, 2.5]
    assert table([1, "x"], 1).schema.field(0).type == pa.string()
    with pytest.raises(ConfigurationError, match="mixes bytes"):
        table([b"x", "x"])


# -- promises --------------------------------------------------------------------------------------


def promise(values, **said) -> tuple[str, ...]:
    """Check a promise about one column."""
    expect = Expect.model_validate({"columns": {"x": said}})
    return check_promises("s", expect, table(values), [None])


@pytest.mark.parametrize(
    ("values", "said", "told"),
    [
        ([1, -5, None], {"min": 0}, "x is below 0 in 1 of 3 rows"),
        ([1.5, 9.0], {"max": 2}, "x is above 2 in 1 of 2 rows"),
        ([1, None], {"nullable": False}, "x is missing in 1 of 2 rows"),
        (["a", "secret"], {"one_of": ["a"]}, "x has another value than one_of in 1 of 2 rows"),
        (["a"], {"type": "number"}, "x is string, not number"),
        ([1.5], {"type": "integer"}, "x is double, not integer"),
        (["a"], {"min": 1}, "x is string, which has no bounds"),
    ],
)
def test_a_broken_promise_is_told_with_its_count(values, said, told):
    """And never with a value."""
    with pytest.raises(InvalidAnswer) as caught:
        promise(values, **said)
    assert told in caught.value.message
    assert "secret" not in str(caught.value.to_json())
    assert "-5" not in str(caught.value.to_json())


def test_all_broken_promises_are_told_at_once():
    """Missing columns, too few rows, and stale ones."""
    expect = Expect.model_validate(
        {
            "columns": {"x": {"type": "integer"}, "y": {"required": True}},
            "min_rows": 5,
            "freshness": {"column": "x", "max_age": "2d"},
        }
    )
    with pytest.raises(InvalidAnswer, match="4 expectations"):
        check_promises("s", expect, table(["a"]), [None])
    warn = expect.model_copy(update={"on_failure": "warn"})
    assert len(check_promises("s", warn, table(["a"]), [None])) == 4


def test_freshness_is_the_age_of_the_newest_row():
    """In UTC where a time has no zone."""
    expect = Expect.model_validate({"freshness": {"column": "x", "max_age": "2d"}})
    newest = datetime(2026, 1, 10, tzinfo=UTC)
    made = table([newest.replace(day=1, tzinfo=None), newest.replace(tzinfo=None), None])
    soon, late = newest.timestamp() + 86_400, newest.timestamp() + 3 * 86_400
    assert check_promises("s", expect, made, [None], now_s=lambda: soon) == ()
    with pytest.raises(InvalidAnswer, match=r"72.0 hours old, more than 2d"):
        check_promises("s", expect, made, [None], now_s=lambda: late)


# -- files and HTTP --------------------------------------------------------------------------------

FILES = """
sources:
  files:
    kind: files
    url: {url}
    labels: {{classes: [internal], sources: [untrusted]}}
    columns: {{email: {{classes: [pii]}}}}
    formats: [csv, parquet, json, text, bytes]
    max_rows: 100
    max_bytes: 20000
"""


def catalog(root, text: str, **environ) -> Sources:
    """Write a catalog and open it."""
    path = root / "data.yaml"
    path.write_text(text, "utf-8")
    return Sources(root, path, environ)


@pytest.fixture(params=["local", "memory"])
def files(request, tmp_path):
    """The same files in a folder and in fsspec's memory."""
    folder = tmp_path / "files"
    url = "files" if request.param == "local" else f"memory://{tmp_path.name}"
    system = fsspec.filesystem("file" if request.param == "local" else "memory")
    base = str(folder) if request.param == "local" else f"/{tmp_path.name}"
    system.makedirs(f"{base}/2026", exist_ok=True)
    parquet = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2], "email": ["a", None]}), parquet)
    for name, data in {
        "2026/10.csv": b"id,email\n1,a@x\n2,\n",
        "10.parquet": parquet.getvalue(),
        "10.json": b'[{"id": 1, "email": "a"}, {"id": 2, "more": [1]}]',
        "10.jsonl": b'{"id": 1}\n{"id": 2}\n',
        "odd.json": b"[1, 2]",
        "note.txt": "håndskrift".encode(),
        "many.csv": b"id\n" + b"1\n" * 101,
        "large.txt": b"x" * 2_000_000,
        "zip.csv.gz": gzip.compress(b"id\n1\n"),
        "broken.parquet": b"PAR1 nonsense canary-7",
    }.items():
        system.pipe_file(f"{base}/{name}", data)
    return catalog(tmp_path, FILES.format(url=url)).source("files")


def take(source, path, check=lambda _: (), **more):
    """Read one file."""
    return source.plan(Ask("read", path=path, **more)).fetch(check)


def test_every_format_is_read(files):
    """Tables, text and bytes."""
    assert rows(take(files, "2026/10.csv")) == [(1, "a@x"), (2, "")]
    assert rows(take(files, "10.parquet")) == [(1, "a"), (2, None)]
    assert rows(take(files, "10.json")) == [(1, "a", None), (2, None, "[1]")]
    assert rows(take(files, "10.jsonl")) == [(1,), (2,)]
    assert rows(take(files, "note.txt")) == [("håndskrift",)]
    assert rows(take(files, "note.txt", format="bytes")) == [("håndskrift".encode(),)]
    assert rows(take(files, "10.parquet", columns=("id",))) == [(1,), (2,)]


def test_policy_sees_the_columns_before_anybody_else(files):
    """What the check refuses is not given; labels are those of the columns that are."""
    seen = []
    reading = take(files, "2026/10.csv", lambda columns: seen.append(columns) or ("heard",))
    assert seen == [("email", "id")]
    assert reading.warnings == ("heard",)
    assert "pii" in reading.labels.classes
    assert "pii" not in take(files, "2026/10.csv", columns=("id",)).labels.classes


def test_files_over_a_cap_or_of_another_format_are_refused(files):
    """Rows, bytes, suffixes; no error holds what is in a file."""
    with pytest.raises(CallDenied, match="more than 100 rows"):
        take(files, "many.csv")
    with pytest.raises(CallDenied, match="more than 20,000 bytes"):
        take(files, "large.txt")
    for path in ("broken.parquet", "odd.json"):
        with pytest.raises(InvalidAnswer) as caught:
            take(files, path)
        assert "canary" not in str(caught.value.to_json())
    with pytest.raises(UsageError, match="not plain from its name"):
        take(files, "zip.csv.gz")
    with pytest.raises(UsageError, match="has no column nothing"):
        take(files, "2026/10.csv", columns=("nothing",))
    with pytest.raises(NotFound):
        take(files, "missing.csv")


@pytest.mark.parametrize(
    "path",
    ["", "..", "../x.csv", "2026/../../x.csv", "/etc/passwd", "file:///etc/passwd", "a\\b.csv",
     "s3://x/y.csv", "*.csv", "a\0.csv", "a\n.csv", "zip://x::y.csv", "%2e%2e/x.csv"],
)  # fmt: skip
def test_a_path_stays_below_its_source(files, path):
    """Nothing that goes up, is absolute, or is another address."""
    with pytest.raises(UsageError):
        take(files, path)


def test_links_do_not_lead_out(tmp_path):
    """Neither of files nor of folders; pipes and folders are no files."""
    (tmp_path / "files").mkdir()
    (tmp_path / "outside.csv").write_text("id\n1\n")
    (tmp_path / "files" / "link.csv").symlink_to(tmp_path / "outside.csv")
    (tmp_path / "files" / "up").symlink_to(tmp_path)
    (tmp_path / "files" / "folder.csv").mkdir()
    source = catalog(tmp_path, FILES.format(url="files")).source("files")
    for path in ("link.csv", "up/outside.csv", "folder.csv"):
        with pytest.raises(UsageError, match="cannot be read"):
            take(source, path)


class _Service(http.server.BaseHTTPRequestHandler):
    """Answers by path; notes the token that it was shown."""

    seen: ClassVar[list[str | None]] = []
    hosts: ClassVar[list[str]] = []

    def do_GET(self):
        self.seen.append(self.headers.get("authorization"))
        self.hosts.append(str(self.headers.get("host")))
        path = self.path.partition("?")[0]
        bodies = {"/v1/rates": b'[{"a": 1}]', "/v1/big": b"[" + b" " * 30_000 + b"]"}
        self.send_response(302 if path == "/v1/moved" else 200 if path in bodies else 404)
        self.send_header("content-type", "application/json")
        self.send_header("location", "/v1/rates")
        self.end_headers()
        self.wfile.write(bodies.get(path, b""))

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def service(tmp_path):
    """A service on loopback that wants a token."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    text = FILES.format(url=f"http://127.0.0.1:{server.server_port}/v1")
    text = text.replace(
        "kind: files", "kind: http\n    token_env: RATES_TOKEN\n    allow_private: [127.0.0.0/8]"
    )
    with serving(server):
        yield catalog(tmp_path, text, RATES_TOKEN="hunter2-canary").source("files")


class Names:
    """A resolver with answers by turns, the last one again and again; counts its questions."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        assert (host, bool(port)) == ("rates.example", True)
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            raise OSError("no such name")
        return found


@pytest.fixture
def named(tmp_path):
    """A source on loopback that is asked by a name, as a resolver says."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    text = FILES.format(url=f"http://rates.example:{server.server_port}/v1")
    text = text.replace("kind: files", "kind: http\n    allow_private: [127.0.0.0/8]")
    path = tmp_path / "data.yaml"
    path.write_text(text, "utf-8")

    def make(*answers: list[str]):
        names = Names(*answers)
        return Sources(tmp_path, path, {}, resolver=names).source("files"), names

    with serving(server):
        _Service.hosts.clear()
        yield make


def test_a_name_is_resolved_once_for_each_read(named):
    """The connection goes to an address that was checked, under the service's own name."""
    source, names = named(["127.0.0.1"], ["169.254.169.254"])
    assert rows(take(source, "rates")) == [(1,)]
    assert names.asked == 1
    assert [host.partition(":")[0] for host in _Service.hosts] == ["rates.example"]
    with pytest.raises(CallDenied, match="where a cloud keeps its machines' credentials"):
        take(source, "rates")
    assert len(_Service.hosts) == 1


@pytest.mark.parametrize(
    ("addresses", "problem"),
    [
        (["127.0.0.1", "10.0.0.1"], "a private address"),
        (["10.0.0.1"], "a private address"),
        (["::1"], "the gateway's own machine"),
        (["169.254.169.254"], "credentials"),
    ],
)
def test_a_name_with_an_address_inside_of_the_house_is_not_asked(named, addresses, problem):
    """Every address is checked; the refusal says where it is opened."""
    source, _ = named(addresses)
    with pytest.raises(CallDenied, match=problem) as caught:
        take(source, "rates")
    assert "registry/data.yaml" in str(caught.value.next_step)
    assert _Service.hosts == []


def test_the_next_address_is_asked_where_one_is_silent(named):
    """In their order; a name that nobody knows is a service that cannot be reached."""
    source, _ = named(["127.0.0.9", "127.0.0.1"])
    assert rows(take(source, "rates")) == [(1,)]
    with pytest.raises(InfrastructureError, match=r"'files' cannot be reached.*resolved"):
        take(named([])[0], "rates")


def test_a_service_is_asked_with_its_token(service):
    """Below its address only; the format is the one that it tells."""
    assert rows(take(service, "rates", parameters={"day": "today"})) == [(1,)]
    assert _Service.seen[-1] == "Bearer hunter2-canary"
    with pytest.raises(NotFound):
        take(service, "nothing")
    with pytest.raises(InfrastructureError, match="redirect, which is not followed"):
        take(service, "moved")
    with pytest.raises(CallDenied, match="more than 20,000 bytes"):
        take(service, "big")
    with pytest.raises(UsageError):
        take(service, "../admin")


# -- the catalog -----------------------------------------------------------------------------------

FAULTY = """
sources:
  Bad Name: {kind: sql, url: "sqlite:///x.db", labels: {classes: [internal], sources: [internal]}}
  a: {kind: sql, url: "mysql://h/d", labels: {classes: [internal], sources: [internal]}}
  b: {kind: sql, url: "postgresql://u:hunter2@h/d", labels: {classes: [x], sources: [internal]}}
  c: {kind: files, url: "zip://x::y", labels: {classes: [internal], sources: [internal]}}
  d: {kind: files, url: f, options: {secret: hunter2}, labels: {classes: [pii], sources: [user]}}
  e: {kind: http, url: "http://h.example", token_env: T, labels: {classes: [], sources: []}}
  f: {kind: sql, url: "sqlite:///x.db", writeable: true}
"""


def test_all_faults_of_a_catalog_are_told_and_no_secret(tmp_path):
    """With their lines."""
    path = tmp_path / "data.yaml"
    path.write_text(FAULTY, "utf-8")
    with pytest.raises(InvalidFile) as caught:
        DataCatalog.load(path)
    told = caught.value.message
    for part in ("neither sqlite", "holds a password", "options_env", "not a known key", "labels"):
        assert part in told, part
    assert "hunter2" not in told


def test_a_changed_catalog_is_used_and_a_broken_one_fails_closed(tmp_path):
    """Until it is mended."""
    sources = catalog(tmp_path, "sources: {}\n")
    with pytest.raises(NotFound, match="no data source 'files'"):
        sources.source("files")
    (tmp_path / "data.yaml").write_text(FILES.format(url="files"))
    assert sources.source("files")
    (tmp_path / "data.yaml").write_text("sources: [")
    with pytest.raises(InvalidFile):
        sources.source("files")
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(NotFound, match="no data sources"):
        sources.source("files")
