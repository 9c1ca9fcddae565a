"""Examples in the documentation are files that the real loaders take."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from docs_pages import Block, blocks, page
from IPython.core.inputtransformer2 import TransformerManager

from toolkit.evaluation import EvaluationSet
from toolkit.policy import PolicyBundle, PolicyRequest, ToolCatalog
from toolkit.promotion.check.waivers import MAX_DAYS, Waivers
from toolkit.providers import Catalog
from toolkit.settings import FILE_NAME, open_workspace
from toolkit.values import Effect, Environment, Money, Verdict

LIMITS = """
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "1", tokens: 1, calls: 1, seconds: 1}
"""
KNOWN = {"console", "text", "python", "yaml", "cedar", "toml", "json"}


def examples(file: str) -> list[Block]:
    return [block for block in blocks("yaml", "toml", "json") if block.file == file]


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_every_file_shown_is_one_that_is_loaded_below():
    """A YAML, TOML, JSON or Cedar block says which file it is; other blocks have known languages."""
    files = {"models.yaml", "policy.yaml", "tools.yaml", "data.yaml", "set.yaml"}
    files |= {"cases.jsonl", "jobs.yaml", "people.yaml", "tests.yaml", "waivers.yaml", FILE_NAME}
    for block in blocks("yaml", "toml", "json", "cedar"):
        assert block.file in files or block.file.endswith("/rules.cedar"), str(block)
    from docs_pages import pages

    assert {block.language for each in pages() for block in each.blocks} <= KNOWN


@pytest.mark.parametrize("block", examples("models.yaml"), ids=str)
def test_model_catalogs_load(block: Block, tmp_path: Path):
    """Every catalog shown is valid, and its routes resolve."""
    catalog = Catalog.load(put(tmp_path / "models.yaml", block.text))
    assert catalog.route(None).name == catalog.default_route
    assert len(catalog.routes) >= 3


@pytest.mark.parametrize("block", examples("waivers.yaml"), ids=str)
def test_waivers_load(block: Block, tmp_path: Path):
    """The waiver shown holds on a day within half a year of its end, and every field is described."""
    day_us = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    (waiver,) = Waivers.load(put(tmp_path / "waivers.yaml", block.text), day_us).waivers
    assert waiver.expires.isoformat() == "2027-03-31"
    shown = re.findall(r"`(\w+)`", page("docs/waivers.md").text.partition("| field |")[2])
    assert {"rule", "notebook", "job", "cell", "owner", "reason", "expires"} <= set(shown)
    assert f"{MAX_DAYS} days" in page("docs/waivers.md").text


def test_the_readme_shows_every_kind_of_server_that_it_names(tmp_path: Path):
    """OpenAI, vLLM, Ollama and Anthropic, with their usual addresses."""
    (block,) = [b for b in examples("models.yaml") if b.page == "README.md"]
    providers = Catalog.load(put(tmp_path / "models.yaml", block.text)).providers
    assert providers["openai"].address.startswith("https://api.openai.com")
    assert providers["vllm"].address.endswith(":8000/v1")
    assert providers["ollama"].address.endswith(":11434/v1")
    assert providers["anthropic"].kind == "anthropic"


@pytest.mark.parametrize("block", examples("policy.yaml"), ids=str)
def test_policies_load(block: Block, tmp_path: Path):
    """Every policy.yaml shown is valid; without Cedar beside it, it denies."""
    folder = tmp_path / "production"
    put(folder / "policy.yaml", block.text)
    bundle = PolicyBundle.load(folder, tools=ToolCatalog({}))
    assert bundle.budget.usd == Money.of_usd("2.50")
    assert bundle.gates["licence-review"][0].minimum == pytest.approx(0.8)
    assert not bundle.decide(_ask("call_model", "default"))


def _ask(action: str, resource: str, **facts: object) -> PolicyRequest:
    return PolicyRequest("ana", action, resource, Environment.PRODUCTION, **facts)  # type: ignore[arg-type]


@pytest.fixture
def documented(tmp_path: Path) -> PolicyBundle:
    """The bundle of docs/policy.md: its Cedar file with its tool catalog."""
    (cedar,) = [b for b in blocks("cedar") if str(b.file) == "production/rules.cedar"]
    tools = next(b for b in examples("tools.yaml") if b.page == cedar.page)
    put(tmp_path / "tools.yaml", tools.text)
    folder = tmp_path / "policies" / "production"
    put(folder / "policy.yaml", LIMITS)
    put(folder / "rules.cedar", cedar.text)
    return PolicyBundle.load(folder)


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        (_ask("call_agent", "anything"), True),
        (_ask("call_model", "house"), True),
        (_ask("call_model", "careful"), False),
        (_ask("call_tool", "read_order", arguments={"number": 1}), True),
        (_ask("call_tool", "unlisted", arguments={}), False),
        (_ask("call_tool", "file_ticket", effect=Effect.WRITE, arguments={"orders": 2}), False),
        (
            _ask("call_tool", "file_ticket", job="triage", effect=Effect.WRITE,
                 arguments={"orders": 2}),
            True,
        ),
        (
            _ask("call_tool", "file_ticket", job="triage", effect=Effect.WRITE,
                 arguments={"orders": 11}),
            False,
        ),
        (
            _ask("call_tool", "file_ticket", job="triage", effect=Effect.WRITE,
                 arguments={"orders": 2, "note": None}),
            False,
        ),
        (_ask("call_job", "other"), False),
    ],
)  # fmt: skip
def test_the_documented_policy_says_what_the_page_says(
    documented: PolicyBundle, request_: PolicyRequest, allowed: bool
):
    """The rules of docs/policy.md, asked."""
    assert (documented.decide(request_).verdict is Verdict.ALLOW) == allowed


def test_a_denial_is_told_with_the_policys_reason(documented: PolicyBundle):
    """`@reason` is what a person reads."""
    asked = _ask(
        "call_tool", "file_ticket", job="triage", effect=Effect.WRITE, arguments={"orders": 11}
    )
    assert documented.decide(asked).reasons == ("a ticket for more than 10 orders needs a person",)


def test_the_documented_evaluation_set_loads(tmp_path: Path):
    """docs/evaluation.md shows a set with its cases, and names every kind of scorer."""
    (header,), (cases,) = examples("set.yaml"), examples("cases.jsonl")
    put(tmp_path / "orders" / "set.yaml", header.text)
    put(tmp_path / "orders" / "cases.jsonl", cases.text)
    (own,) = (block for block in blocks("python") if block.file == "close.py")
    put(tmp_path / "orders" / "close.py", own.text)
    loaded = EvaluationSet.load(tmp_path / "orders")
    assert [case.id for case in loaded.cases] == ["order-17", "order-18"]
    from toolkit.evaluation import ScorerKind

    table = page("docs/evaluation.md").text.partition("## Gates")[0]
    table = table.partition("## A scorer of your own")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == set(ScorerKind)


def test_the_documented_judges_fit(tmp_path: Path):
    """The page's judges can be put into its set, and its table names every scorer of MLflow's."""
    from toolkit.evaluation.judges import KNOWN

    text = page("docs/evaluation.md").text
    (shown,) = (block for block in blocks("text") if "kind: mlflow" in block.text)
    (header,), (cases,) = examples("set.yaml"), examples("cases.jsonl")
    put(tmp_path / "orders" / "set.yaml", header.text.partition("scorers:")[0] + shown.text)
    put(tmp_path / "orders" / "cases.jsonl", cases.text)
    assert [each.name for each in EvaluationSet.load(tmp_path / "orders").scorers] == ["brief", "helpful"]  # fmt: skip
    table = text.partition("| `mlflow` | needs |")[2].partition("\n\n")[0]
    named = re.findall(
        r"`([A-Za-z_]+)`", " ".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))
    )
    assert set(named) == set(KNOWN)


@pytest.mark.parametrize("block", examples(FILE_NAME), ids=str)
def test_settings_load(block: Block, tmp_path: Path):
    """Every toolkit.toml shown is valid."""
    put(tmp_path / FILE_NAME, block.text)
    workspace = open_workspace(tmp_path)
    assert workspace.mlflow_uri == "http://mlflow.example:5000"
    assert workspace.database_url.startswith("postgresql")
    assert workspace.engine_url.startswith("postgresql")


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_cells_parse(block: Block):
    """Every Python block is a cell that IPython can read."""
    ast.parse(TransformerManager().transform_cell(block.text))
