"""HTTP services with an OpenAPI document, asked for real over loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_world import DOCUMENT, OPERATIONS, Service, http_service, make_certificate
from hypothesis import given
from hypothesis import strategies as st
from tools_world import Names, open_toolbox, write_tools

from toolkit.errors import CallDenied, CallInDoubt, ConfigurationError, ToolFailed, UsageError
from toolkit.tools import Resolver, Toolbox
from toolkit.tools.services import _segment
from toolkit.values import digest_bytes

TOKEN = "s3cr3t-crm-token"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with http_service() as made:
        yield made


@pytest.fixture
def asked(service: Service) -> list[Any]:
    service.asked.clear()
    return service.asked


def crm(
    folder: Path,
    base_url: str,
    *lines: str,
    resolver: Resolver | None = None,
    environ: dict[str, str] | None = None,
) -> Toolbox:
    """Return a toolbox with one service at ``base_url``, loopback written down."""
    text = ["tools: {}", "http:", "  crm:", "    openapi: crm.yaml", f"    base_url: {base_url}"]
    if not any(line.startswith("allow_private") for line in lines):
        text.append("    allow_private: [127.0.0.0/8]")
    path = write_tools(folder, "\n".join([*text, *(f"    {line}" for line in lines)]) + OPERATIONS)
    (folder / "registry" / "crm.yaml").write_text(DOCUMENT)
    names = Names(**{"127_0_0_1": "127.0.0.1"}).add("localhost", ["127.0.0.1"])
    return open_toolbox(path, environ or {"CRM_TOKEN": TOKEN}, resolver or names)


def call(
    box: Toolbox, name: str, /, *, timeout_s: float = 5.0, again: bool = True, **given: Any
) -> Any:
    async def once() -> Any:
        try:
            return await box.call(f"crm.{name}", given, timeout_s=timeout_s, repeatable=again)
        finally:
            await box.close()

    return asyncio.run(once())


BEARER = "auth: {type: bearer, env: CRM_TOKEN}"


def test_arguments_go_where_the_document_says(
    tmp_path: Path, service: Service, asked: list
) -> None:
    """Path, query, header and body; the credential is added by the gateway."""
    box = crm(tmp_path, f"{service.url}/api", BEARER)
    call(box, "findCustomer", email="a&b=c@x.org", tags=["x", "y z"], **{"x-trace": "t-1"})
    one = asked[0]
    assert (one.method, one.path) == ("GET", "/api/customers")
    assert one.query == [("email", "a&b=c@x.org"), ("tags", "x"), ("tags", "y z")]
    assert one.headers["x-trace"] == "t-1"
    assert one.headers["authorization"] == f"Bearer {TOKEN}"


def test_whoever_is_asked_learns_because_of_which_call(
    tmp_path: Path, service: Service, asked: list
) -> None:
    """A key that makes two requests one, and the span of the call, in the standard headers."""
    box = crm(tmp_path, service.url)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def once() -> None:
        try:
            await box.call(
                "crm.createCustomer",
                {"email": "a@x.org"},
                timeout_s=5.0,
                repeatable=False,
                key="order-7",
                trace=trace,
            )
        finally:
            await box.close()

    asyncio.run(once())
    assert asked[0].headers["idempotency-key"] == "order-7"
    assert asked[0].headers["traceparent"] == trace


def test_a_plain_body_is_flat_arguments(tmp_path: Path, service: Service, asked: list) -> None:
    """Members of the body are arguments of their own, so that policies can name them."""
    box = crm(tmp_path, service.url)
    call(box, "createCustomer", email="a@x.org", nick=None, friends=[{"email": "b@x.org"}])
    assert asked[0].body == {"email": "a@x.org", "nick": None, "friends": [{"email": "b@x.org"}]}
    assert asked[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "wrong",
    [{}, {"email": 5}, {"email": "a", "id": 3}, {"email": "a", "friends": [{"nick": "x"}]}],
    ids=["missing", "type", "read only", "nested"],
)
def test_arguments_that_do_not_fit_are_not_sent(
    tmp_path: Path, service: Service, asked: list, wrong: dict
) -> None:
    """The schema is checked before anything leaves."""
    with pytest.raises(UsageError, match="do not fit"):
        call(crm(tmp_path, service.url), "createCustomer", **wrong)
    assert asked == []


@pytest.mark.parametrize("place", ["..", ".", "", "../admin", "a/../b", "..\\x", "a/"])
def test_a_path_argument_cannot_leave_its_place(
    tmp_path: Path, service: Service, asked: list, place: str
) -> None:
    """Not by dots, not by slashes."""
    with pytest.raises(UsageError, match="leads away"):
        call(crm(tmp_path, service.url), "readCustomer", id=place)
    assert asked == []


@given(st.text(max_size=30))
def test_a_path_argument_is_one_segment(text: str) -> None:
    """Whatever text a model writes, it is refused or stays one segment."""
    try:
        made = _segment("id", text)
    except UsageError:
        return
    except UnicodeEncodeError:
        assert any(0xD800 <= ord(c) <= 0xDFFF for c in text)
        return
    assert made
    assert not set(made) & set("/?#\\ ")
    assert made not in (".", "..")


def test_a_header_argument_cannot_bring_a_second_line(
    tmp_path: Path, service: Service, asked: list
) -> None:
    """No header can be smuggled in, and the credential's cannot be set."""
    box = crm(tmp_path, service.url, BEARER)
    with pytest.raises(UsageError, match="header"):
        call(box, "findCustomer", email="a", **{"x-trace": "t\r\nx-admin: yes"})
    with pytest.raises(UsageError, match="do not fit"):
        call(crm(tmp_path, service.url), "findCustomer", email="a", authorization="Bearer mine")
    assert asked == []


ANSWERS = [
    ("text", "grüße"),
    ("nothing", None),
    ("bytes", {"type": "bytes", "media_type": "application/octet-stream", "bytes": 3,
               "digest": digest_bytes(b"\x00\x01\x02")}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "answer"), ANSWERS, ids=[kind for kind, _ in ANSWERS])
def test_answers_become_json_values(
    tmp_path: Path, service: Service, asked: list, kind: str, answer: Any
) -> None:
    """Text in its encoding, nothing as null, bytes as type, length and digest."""
    assert call(crm(tmp_path, service.url), "answer", kind=kind) == answer


REFUSED = [
    ("large", "more than the 1000 bytes"),
    ("packed", "compressed"),
    ("broken", "JSON that is none"),
    ("busy", r'answered 429: \{"detail":"later"\}'),
]


@pytest.mark.parametrize(("kind", "told"), REFUSED, ids=[kind for kind, _ in REFUSED])
def test_answers_that_cannot_be_used_are_told(
    tmp_path: Path, service: Service, asked: list, kind: str, told: str
) -> None:
    """A short sentence for the model, with what it may do about it."""
    with pytest.raises(ToolFailed, match=told) as failed:
        call(crm(tmp_path, service.url, "max_answer_bytes: 1000"), "answer", kind=kind)
    if kind == "busy":
        assert failed.value.details == {"status": 429, "retry_after_s": 7}


def test_the_credential_is_cut_out_of_answers_and_errors(
    tmp_path: Path, service: Service, asked: list
) -> None:
    """A service that repeats what it was sent gives nothing away."""
    answer = call(crm(tmp_path, service.url, BEARER), "answer", kind="echo")
    assert answer["headers"]["authorization"] == "Bearer [secret]"
    with pytest.raises(ToolFailed, match=r"500: Bearer \[secret\]"):
        call(crm(tmp_path, service.url, BEARER), "answer", kind="leak")
    basic = crm(
        tmp_path, service.url, "auth: {type: basic, env: CRM_USER}",
        environ={"CRM_USER": "ana:correct-horse"},
    )  # fmt: skip
    told = json.dumps(call(basic, "answer", kind="echo"))
    assert "[secret]" in told
    assert "correct-horse" not in told
    assert "YW5hOmNvcnJlY3QtaG9yc2U=" not in told


def test_a_missing_variable_is_named(tmp_path: Path, service: Service, asked: list) -> None:
    """The person who starts the gateway learns what to set."""
    with pytest.raises(ConfigurationError, match="CRM_TOKEN"):
        call(crm(tmp_path, service.url, BEARER, environ={"X": "y"}), "answer", kind="echo")
    assert asked == []


def test_time_limits_hold_and_writes_are_in_doubt(tmp_path: Path, service: Service) -> None:
    """A slow service costs no more than the limit; a write is not said to have failed."""
    with pytest.raises(ToolFailed, match=r"within 0\.2 s"):
        call(crm(tmp_path, service.url), "answer", kind="slow", timeout_s=0.2)
    with pytest.raises(CallInDoubt, match="whether it took effect is not known"):
        call(crm(tmp_path, service.url), "change", kind="slow", timeout_s=0.2, again=False)


def test_a_service_that_is_down_was_not_asked(tmp_path: Path) -> None:
    """Nothing was sent, so nothing is in doubt."""
    with pytest.raises(ToolFailed, match="cannot be reached"):
        call(crm(tmp_path, "http://127.0.0.1:9"), "change", kind="x", again=False)


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0", "10.0.0.7"],
)
def test_a_name_inside_the_house_is_not_asked(
    tmp_path: Path, service: Service, asked: list, address: str
) -> None:
    """Even where a service listens."""
    names = Names().add("crm.example", [address])
    box = crm(tmp_path, f"http://crm.example:{service.port}", "allow_private: []", resolver=names)
    with pytest.raises(CallDenied, match=r"may not ask crm\.example"):
        call(box, "answer", kind="echo")
    assert asked == []


def test_a_name_that_changes_its_mind_is_asked_once(
    tmp_path: Path, service: Service, asked: list
) -> None:
    """Rebinding: the address that was checked is the one that is used."""
    names = Names().add("crm.example", ["127.0.0.1"], ["169.254.169.254"])
    box = crm(tmp_path, f"http://crm.example:{service.port}", resolver=names)
    call(box, "answer", kind="echo")
    assert asked[0].headers["host"] == f"crm.example:{service.port}"
    assert names.asked == ["crm.example"]
    back = Names().add("crm.example", ["8.8.8.8", "127.0.0.1"])
    box = crm(tmp_path, f"http://crm.example:{service.port}", "allow_private: []", resolver=back)
    with pytest.raises(CallDenied):
        call(box, "answer", kind="echo")
    assert len(asked) == 1


def test_a_second_connection_is_checked_again(
    tmp_path: Path, service: Service, asked: list
) -> None:
    """A name that points elsewhere later is refused later."""
    names = Names().add("crm.example", ["127.0.0.1"], ["10.9.9.9"])
    box = crm(tmp_path, f"http://crm.example:{service.port}", resolver=names)

    async def twice() -> None:
        await box.call("crm.answer", {"kind": "text"}, timeout_s=5, repeatable=True)
        await box._servers["crm"].caller.close()  # what a kept connection's end is
        with pytest.raises(CallDenied, match=r"10\.9\.9\.9"):
            await box.call("crm.answer", {"kind": "text"}, timeout_s=5, repeatable=True)
        await box.close()

    asyncio.run(twice())


def test_the_environments_proxy_is_not_used(
    tmp_path: Path, service: Service, asked: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would be asked instead of the address that was checked."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    call(crm(tmp_path, service.url), "answer", kind="text")
    assert len(asked) == 1


def test_tls_verifies_the_host_not_the_address(tmp_path: Path) -> None:
    """The connection goes to the address, name and certificate are the host's."""
    authority, key = make_certificate(tmp_path, "crm.example")
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "ca.pem").write_bytes(authority.read_bytes())
    names = Names().add("crm.example", ["127.0.0.1"]).add("other.example", ["127.0.0.1"])
    with http_service(ssl_certfile=str(authority), ssl_keyfile=str(key)) as safe:
        lines = (BEARER, "ca_file: ca.pem")
        box = crm(tmp_path, f"https://crm.example:{safe.port}", *lines, resolver=names)
        call(box, "answer", kind="text")
        assert safe.asked[0].headers["host"] == f"crm.example:{safe.port}"
        for host, more in [("other.example", lines), ("crm.example", (BEARER,))]:
            box = crm(tmp_path, f"https://{host}:{safe.port}", *more, resolver=names)
            with pytest.raises(ToolFailed, match="cannot be reached"):
                call(box, "answer", kind="text")
        assert len(safe.asked) == 1
        box = crm(tmp_path, f"https://crm.example:{safe.port}", *lines, resolver=names)
        with pytest.raises(CallDenied, match="from https to http"):
            call(box, "follow", to=f"http://crm.example:{safe.port}/answer?kind=text")


# -- redirects -------------------------------------------------------------------------------------


def test_a_redirect_on_the_same_host_is_followed(
    tmp_path: Path, service: Service, asked: list
) -> None:
    """With the credential, which is meant for it."""
    answer = call(crm(tmp_path, service.url, BEARER), "follow", to="/customers/7")
    assert answer["path"] == "/customers/7"
    assert asked[1].headers["authorization"] == f"Bearer {TOKEN}"


def test_another_host_gets_no_credential(tmp_path: Path, service: Service, asked: list) -> None:
    """Also where the address is the same, and also on the way back."""
    box = crm(tmp_path, service.url, BEARER, f"hosts: ['localhost:{service.port}']")
    back = f"http://localhost:{service.port}/go?to={service.url}/customers/7"
    call(box, "follow", to=back)
    assert [one.headers["host"].partition(":")[0] for one in asked] == [
        "127.0.0.1",
        "localhost",
        "127.0.0.1",
    ]
    assert [("authorization" in one.headers) for one in asked] == [True, False, False]


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://localhost:1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "//metadata.google.internal/",
    ],
)
def test_a_redirect_to_elsewhere_is_refused(
    tmp_path: Path, service: Service, asked: list, to: str
) -> None:
    """Each step is checked like the first one."""
    with pytest.raises((CallDenied, ToolFailed)):
        call(crm(tmp_path, service.url), "follow", to=to)
    assert len(asked) == 1


def test_a_listed_host_that_points_inside_is_refused_after_a_redirect(
    tmp_path: Path, service: Service, asked: list
) -> None:
    """Being on the list is not enough."""
    names = Names(**{"127_0_0_1": "127.0.0.1"}).add("cdn.example", ["169.254.169.254"])
    box = crm(tmp_path, service.url, "hosts: [cdn.example]", resolver=names)
    with pytest.raises(CallDenied, match="credentials"):
        call(box, "follow", to="http://cdn.example/latest/meta-data/")
    assert len(asked) == 1


def test_redirects_end(tmp_path: Path, service: Service, asked: list) -> None:
    """Three of them are enough."""
    with pytest.raises(ToolFailed, match="more than 3 times"):
        call(crm(tmp_path, service.url), "follow", to="/round")
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("status", "followed"), [(303, True), (307, True), (308, True), (302, False)]
)
def test_a_write_is_sent_on_only_where_that_is_meant(
    tmp_path: Path, service: Service, asked: list, status: int, followed: bool
) -> None:
    """303 asks for the result, 307 and 308 repeat the request, 302 could mean either."""
    box = crm(tmp_path, service.url)
    if not followed:
        with pytest.raises(ToolFailed, match="not sent on"):
            call(box, "followPost", to="/customers/7", status=status, note="n")
        assert len(asked) == 1
        return
    call(box, "followPost", to="/customers/7", status=status, note="n")
    assert (asked[1].method, asked[1].body) == (
        ("GET", None) if status == 303 else ("POST", {"note": "n"})
    )


def test_a_body_is_not_sent_to_another_host(tmp_path: Path, service: Service, asked: list) -> None:
    """Also not to one that is listed."""
    box = crm(tmp_path, service.url, f"hosts: ['localhost:{service.port}']")
    with pytest.raises(ToolFailed, match="not sent on"):
        call(box, "followPost", to=f"http://localhost:{service.port}/x", status=307, note="n")
    assert len(asked) == 1
