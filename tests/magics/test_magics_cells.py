"""%%model, %%tool, %%agent and %%evaluate in a real shell."""

from __future__ import annotations

import re

import pytest

from toolkit.client import wire
from toolkit.errors import UsageError

SCHEMA = "import pydantic\nclass Found(pydantic.BaseModel):\n    spdx: str\n"
TOOL = "%%tool\ndef read(path: str) -> str:\n    '''Read a file.'''\n    return path.upper()\n"
AGENT = (
    "%%agent --name reviewer\ndef review(text: str) -> str:\n    return toolkit.model(text).text\n"
)


def _asked(gateway):
    return gateway.asked(wire.MODEL)[-1]


def test_the_cell_is_the_prompt(notebook, gateway):
    """Options reach the call; names are filled in prompt and system text."""
    notebook.ok("who = 'Ana'")
    reply = notebook.ok(
        '%%model careful --out r --system "You help {who}." --max-tokens 9 --temperature 0.5\n'
        "Hello {who}, {{}}"
    )
    body = _asked(gateway)
    assert body["name"] == "careful"
    assert body["arguments"]["messages"] == [
        {"role": "system", "content": "You help Ana."},
        {"role": "user", "content": "Hello Ana, {}"},
    ]
    assert (body["arguments"]["max_tokens"], body["arguments"]["temperature"]) == (9, 0.5)
    assert notebook.ok("r.text") == reply.text == "echo: Hello Ana, {}"


def test_with_a_schema_the_variable_holds_data(notebook, gateway):
    """--schema constrains the answer and --out gets the object."""
    gateway.answers.append({"text": "", "data": {"spdx": "MIT"}})
    notebook.ok(SCHEMA)
    notebook.ok("%%model --schema Found --out found\nWhich licence?")
    assert notebook.ok("found.spdx") == "MIT"
    assert _asked(gateway)["arguments"]["schema"]["required"] == ["spdx"]


def test_the_model_may_use_tools(notebook, gateway):
    """--tools runs governed tools until the model answers."""
    notebook.ok(TOOL)
    call = {"id": "1", "function": {"name": "read", "arguments": '{"path": "a"}'}}
    gateway.answers += [{"text": "", "tool_calls": [call]}, {"text": "done"}]
    assert notebook.ok("%%model --tools read\nRead a").text == "done"
    assert gateway.asked(wire.FINISH)[-1]["answer"] == "A"


def asked(gateway):
    """What came, but for the news that a cell begins (sent where an SDK is loaded)."""
    return [path for path, _ in gateway.requests if path != wire.CELL]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%model --colour red\nhi", "unrecognized arguments: --colour"),
        ("%%model --max-tokens many\nhi", "invalid int value"),
        ('%%model --system "open\nhi', "No closing quotation"),
        ("%%model --out 1x\nhi", "not a variable's name"),
        ("%%model --schema Nope\nhi", "'Nope', which is not defined"),
        ("%%model --tools nope\nhi", "'nope', which is not defined"),
        ("%%model --tools len\nhi", "not a tool"),
        ("%%model\nhi {nobody}", "'nobody', which is not defined"),
        ("%%model\n  \n", "the prompt is empty"),
        ("%%tool --effect maybe\ndef f() -> int: ...", "invalid choice: 'maybe'"),
        ("%%tool\nx = 1", "this one has no function"),
        ("%%tool\ndef f() -> int: ...\ndef g() -> int: ...", "2 functions: f, g"),
        ("%%tool\ndef f(x) -> int: ...", "no annotation for x"),
        ("%%tool\n@toolkit.tool\ndef f() -> int: ...", "f is decorated already"),
        ("%evaluate", "the following arguments are required: SET"),
        ("%evaluate licences", "no single agent to evaluate; this notebook has none"),
    ],
)
def test_mistakes_are_one_sentence_and_make_no_call(notebook, gateway, cell, message):
    """A wrong line is a usage error that names the mistake; nothing is asked of the gateway."""
    before = asked(gateway)
    error = notebook.fails(cell)
    assert isinstance(error, UsageError)
    assert message in str(error)
    assert asked(gateway) == before


def test_a_tool_cell_makes_a_governed_tool(notebook, gateway):
    """Effect and name reach the gateway; statements beside the function run too."""
    notebook.ok(
        "%%tool --effect write --name send-order\nimport math\n"
        "def send(n: float) -> int:\n    return math.floor(n)\nfirst = send(2.5)\n"
    )
    assert notebook.published[0]["text/plain"] == "send-order(n: float) -> int  [tool, writes]"
    begun = gateway.asked(wire.BEGIN)[-1]
    assert (begun["kind"], begun["name"], begun["effect"]) == ("tool", "send-order", "write")
    assert notebook.ok("first") == 2
    assert "__toolkit_decorate__" not in notebook.shell.user_ns


def test_an_agent_cell_makes_an_agent(notebook, gateway):
    """The model call inside has the agent's call as its parent."""
    notebook.ok(AGENT)
    assert notebook.ok("review('hi')") == "echo: hi"
    agent = gateway.asked(wire.BEGIN)[-1]
    assert (agent["kind"], agent["name"]) == ("agent", "reviewer")
    assert _asked(gateway)["parent"] == gateway.asked(wire.FINISH)[-1]["key"]


def test_async_functions_work_too(notebook):
    """An async function in a %%tool cell is awaited as usual."""
    notebook.ok("%%tool\nasync def later(n: int) -> int:\n    return n + 1\n")
    assert notebook.ok("await later(1)") == 2


def test_errors_in_a_tool_cell_point_at_its_lines(notebook, capsys):
    """Line numbers count from the magic, as the reader sees them."""
    notebook.ok("%%tool\n\ndef broken() -> int:\n    return 1 // 0\n")
    notebook.fails("broken()")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "----> 4     return 1 // 0" in shown


def test_an_evaluation_shows_scores_gates_and_wrong_cases(notebook, gateway):
    """Inputs go to the agent, labels stay away, the verdict is a table."""
    gateway.cases = [("c1", {"text": "a"}), ("c2", {"text": "b"})]
    gateway.verdict = {
        "scores": {"correct": {"mean": 0.5, "n": 2, "lower": 0.09, "upper": 0.91}},
        "gates": [{"sentence": "correct is at least 0.8", "passed": False, "observed": 0.5}],
        "rows": [
            {
                "case_id": "c1",
                "output": "a",
                "expected": "a",
                "error": None,
                "scores": {"correct": True},
            },
            {
                "case_id": "c2",
                "output": "<b>",
                "expected": "B",
                "error": None,
                "scores": {"correct": False},
            },
        ],
    }
    notebook.ok(
        "%%evaluate letters --limit 2\n@toolkit.agent\ndef answer(text: str) -> str:\n    return text\n"
    )
    start = gateway.asked("/toolkit/v1/evaluations/start")[0]
    takes = {"known": ["text"], "required": ["text"]}
    assert start == {
        "set": "letters",
        "agent": "answer",
        "limit": 2,
        "trials": None,
        "takes": takes,
    }
    assert gateway.answered["c2"]["output"] == "b"
    told = notebook.published[0]
    lines = told["text/plain"].split("\n")
    assert lines[0] == "letters: 2 of 2 cases answered by answer"
    assert lines[2].split() == ["correct", "0.5", "0.09", "–", "0.91", "2"]
    assert lines[4].split()[-2:] == ["0.5", "failed"]
    assert lines[-1] == "1 wrong: c2"
    assert "&lt;b&gt;" in told["text/html"]


def test_trials_are_asked_for_and_shown_with_what_they_cost(notebook, gateway):
    """A wrong trial is named; a mean of costs says how many of them are known."""
    gateway.cases = [("c1", {"text": "a"}), ("c1#2", {"text": "a"})]
    row = {"case_id": "c1", "output": "a", "expected": "a", "error": None}
    gateway.verdict = {
        "scores": {},
        "gates": [],
        "rows": [
            {**row, "trial": 1, "scores": {"right": True}, "measures": {"usd": 0.5, "seconds": 1}},
            {**row, "trial": 2, "scores": {"right": False}, "measures": {"seconds": 3}},
        ],
    }
    notebook.ok(AGENT)
    notebook.ok("%evaluate letters --trials 2")
    assert gateway.asked("/toolkit/v1/evaluations/start")[0]["trials"] == 2
    lines = notebook.published[0]["text/plain"].split("\n")
    assert lines[0] == "letters: 2 of 2 trials (2 of each case) answered by reviewer"
    assert "an answer: 0.5 USD (1 of 2 known), 2 s on average" in lines
    assert lines[-1] == "1 wrong: c1#2"


def test_no_case_is_not_a_limit(notebook, gateway):
    """Nothing is asked, least of all everything."""
    notebook.ok(AGENT)
    assert "--limit takes 1 or more" in str(notebook.fails("%evaluate letters --limit 0"))
    assert gateway.asked("/toolkit/v1/evaluations/start") == []


def test_a_failing_case_does_not_end_the_evaluation(notebook, gateway):
    """An agent that raises gets an error recorded for that case, and the next case is asked."""
    gateway.cases = [("c1", {"text": ""}), ("c2", {"text": "b"})]
    gateway.verdict = {"scores": {}, "gates": [], "rows": []}
    notebook.ok("@toolkit.agent\ndef first(text: str) -> str:\n    return text[0]\n")
    notebook.ok("%evaluate letters")
    assert gateway.answered["c1"]["error"]["code"] == "tool_failed"
    assert gateway.answered["c2"]["output"] == "b"
    assert "production has no gates for this set" in notebook.published[0]["text/plain"]


def test_of_two_agents_one_must_be_named(notebook, gateway):
    """The agents there are, are named; --agent takes the governed name or the variable's."""
    gateway.verdict = {"scores": {}, "gates": [], "rows": []}
    notebook.ok(AGENT)
    notebook.ok("@toolkit.agent\ndef other(text: str) -> str:\n    return text\n")
    assert "other, reviewer" in str(notebook.fails("%evaluate letters"))
    notebook.ok("%evaluate letters --agent review")
    assert gateway.asked("/toolkit/v1/evaluations/start")[0]["agent"] == "reviewer"
