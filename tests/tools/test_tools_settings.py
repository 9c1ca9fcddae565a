"""``servers:`` and ``http:`` of tools.yaml, read by two rooms that have to agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from http_world import DOCUMENT
from tools_world import Names, open_toolbox, write_tools

from toolkit.errors import InvalidFile, NotFound
from toolkit.policy import ToolCatalog
from toolkit.tools import RemoteFile
from toolkit.values import Effect

GOOD = """
tools:
  add: {effect: read, description: Adds.}
servers:
  files:
    transport: stdio
    command: [python, server.py]
    env_from: [FILES_TOKEN]
    tools:
      read_file: {effect: read, labels: {sources: [untrusted]}}
  wiki:
    transport: http
    url: https://wiki.example/mcp
    token_env: WIKI_TOKEN
    tools:
      search: {effect: read, external: true, digest: "sha256:%s"}
http:
  crm:
    openapi: crm.yaml
    base_url: https://crm.example/api/
    auth: {type: header, env: CRM_KEY, name: X-Api-Key}
    allow_private: [10.1.0.0/16]
    operations:
      createCustomer: {effect: write, idempotent: true, timeout_s: 5}
""" % ("a" * 64)


def test_policy_and_this_room_read_the_same_tools(tmp_path: Path) -> None:
    """Every tool that can be reached is one that policy knows, under the same name."""
    path = write_tools(tmp_path, GOOD, crm=DOCUMENT)
    catalog = ToolCatalog.load(path)
    box = open_toolbox(path, {}, Names())
    assert set(box.names) == {"files.read_file", "wiki.search", "crm.createCustomer"}
    assert set(catalog) == {"add", *box.names}
    assert catalog["wiki.search"].external
    assert catalog["crm.createCustomer"].effect is Effect.WRITE
    assert catalog["crm.createCustomer"].timeout_s == 5
    assert catalog["files.read_file"].labels.tainted
    assert box.host("crm.createCustomer") == "crm.example"
    assert box.host("files.read_file") is None


def test_the_catalogs_digest_covers_how_tools_are_reached(tmp_path: Path) -> None:
    """Another address or another pinned description is another catalog."""
    before = ToolCatalog.load(write_tools(tmp_path, GOOD, crm=DOCUMENT)).digest
    moved = GOOD.replace("crm.example", "crm.other")
    pinned = GOOD.replace("a" * 64, "b" * 64)
    digests = {ToolCatalog.load(write_tools(tmp_path, text)).digest for text in (moved, pinned)}
    assert len({before, *digests}) == 3


BAD = {
    "no transport": ("transport: stdio", "transport: carrier-pigeon", "transport"),
    "unknown key": ("command:", "commando:", "commando"),
    "empty command": ("command: [python, server.py]", "command: []", "command"),
    "cwd outside": ("env_from: [FILES_TOKEN]", "cwd: ../..", "leaves the workspace"),
    "no address": ("https://wiki.example/mcp", "ftp://wiki.example", "http:// or https://"),
    "user in address": ("https://wiki.example", "https://me:pw@wiki.example", "holds a user"),
    "clear text": ("https://wiki.example", "http://wiki.example", "clear text"),
    "digest": ('"sha256:aaaa', '"md5:aaaa', "digest"),
    "fetched document": ("openapi: crm.yaml", "openapi: https://x.example/y", "never fetched"),
    "auth name": ("env: CRM_KEY, name: X-Api-Key", "env: CRM_KEY", "header's name"),
    "auth host": ("name: X-Api-Key", "name: Host", "the protocol's own"),
    "all networks": ("10.1.0.0/16", "0.0.0.0/0", "not part of a private network"),
    "metadata network": ("10.1.0.0/16", "169.254.0.0/16", "not part of a private network"),
    "server name": ("  wiki:\n", "  wi.ki:\n", "cannot name a server"),
    "two of a name": (
        "  crm:\n    openapi",
        "  files:\n    openapi",
        "both in servers and in http",
    ),
}


@pytest.mark.parametrize(("old", "new", "told"), BAD.values(), ids=BAD.keys())
def test_a_fault_is_told_with_its_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    """Nothing is started from a file with a fault."""
    assert old in GOOD
    path = write_tools(tmp_path, GOOD.replace(old, new), crm=DOCUMENT)
    with pytest.raises(InvalidFile, match=r"tools\.yaml") as refused:
        RemoteFile.load(path)
    assert told in str(refused.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """One look at the file is enough."""
    text = GOOD.replace("10.1.0.0/16", "8.8.8.0/24").replace("FILES_TOKEN", "FILES TOKEN")
    with pytest.raises(InvalidFile, match="2 faults"):
        RemoteFile.load(write_tools(tmp_path, text))


def test_an_entry_for_an_unknown_key_is_policys_to_refuse(tmp_path: Path) -> None:
    """What this room does not read, the other does."""
    path = write_tools(tmp_path, GOOD.replace("external: true", "extern: true"))
    with pytest.raises(InvalidFile, match="extern"):
        ToolCatalog.load(path)


def test_a_missing_or_incomplete_document_is_told(tmp_path: Path) -> None:
    """An operation that is listed exists, or nothing is served."""
    with pytest.raises(NotFound, match=r"crm\.yaml cannot be read"):
        open_toolbox(write_tools(tmp_path, GOOD), {}, Names())
    path = write_tools(tmp_path, GOOD.replace("createCustomer", "makeCustomer"), crm=DOCUMENT)
    with pytest.raises(InvalidFile, match="no such operationId"):
        open_toolbox(path, {}, Names())
