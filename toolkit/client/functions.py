"""``@tool`` and ``@agent``: typed Python functions whose every call passes the gateway.

The body runs in the kernel between a *begin* (decide, record the intent) and a *finish* (record
the outcome).  A call that is already recorded answers from the ledger and the body does not run.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import typing
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, overload

from toolkit.client import approvals, wire
from toolkit.client.codec import decoder, encode, signature_schema, validate
from toolkit.client.connection import Connection, current
from toolkit.client.frames import CURRENT, TRIAL, Frame
from toolkit.client.remote import RemoteTool
from toolkit.errors import CallInDoubt, ToolFailed, ToolkitError, UsageError, error_from_json
from toolkit.values import CallKind, Effect, canonical_bytes, idempotency_key

__all__ = ["agent", "call_with_json", "case", "governed_schema", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

_CASE: contextvars.ContextVar[str | None] = contextvars.ContextVar("toolkit_case", default=None)


@overload
def tool(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def tool(
    *, effect: str = "read", name: str | None = None, idempotent: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    effect: str = "read",
    name: str | None = None,
    idempotent: bool = False,
) -> Any:
    """Make a typed function a governed tool.

    Args:
        function: A function (plain or ``async``) whose parameters and return are annotated.
        effect: ``read`` may be repeated after a crash; ``write`` is never repeated without a
            person's decision.
        name: The tool's name in policy and catalog; default: the function's name.
        idempotent: Of a ``write``: doing it twice with the same :func:`toolkit.idempotency_key` is
            doing it once, so it may be repeated after a crash.  Where ``tools.yaml`` lists the
            tool, what stands there counts instead.

    Raises:
        UsageError: Annotations are missing, or the effect is unknown.
    """
    if effect not in (Effect.READ, Effect.WRITE):
        raise UsageError(f"the effect {effect!r} is unknown", next_step="use 'read' or 'write'")

    def decorate(target: Callable[P, R]) -> Callable[P, R]:
        governed: Callable[P, R] = _govern(
            target, CallKind.TOOL, name or target.__name__, effect, idempotent=idempotent
        )
        return governed

    return decorate if function is None else decorate(function)


@overload
def agent(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def agent(*, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def agent(function: Callable[P, R] | None = None, /, *, name: str | None = None) -> Any:
    """Make a typed function an agent: an entry point whose calls form one trace.

    Args:
        function: A function (plain or ``async``) whose parameters and return are annotated.
        name: The agent's name in policy and evaluation sets; default: the function's name.

    Raises:
        UsageError: Annotations are missing.
    """

    def decorate(target: Callable[P, R]) -> Callable[P, R]:
        label = name or target.__name__
        governed: Callable[P, R] = _govern(target, CallKind.AGENT, label, Effect.READ)
        return governed

    return decorate if function is None else decorate(function)


def governed_schema(function: Any) -> dict[str, Any]:
    """Return the OpenAI-shaped tool definition of a tool or a remote tool.

    Raises:
        UsageError: The function is not a tool.
        NotFound, CallDenied, ToolFailed: The gateway cannot describe the remote tool.
    """
    if isinstance(function, RemoteTool):
        return function.schema()
    if getattr(function, "__toolkit_kind__", None) not in (CallKind.TOOL, CallKind.AGENT):
        raise UsageError(
            f"{getattr(function, '__name__', function)!r} is not a tool",
            next_step="decorate it with @toolkit.tool",
        )
    return {
        "type": "function",
        "function": {
            "name": function.__toolkit_name__,
            "description": inspect.getdoc(function) or "",
            "parameters": signature_schema(inspect.unwrap(function)),
        },
    }


def call_with_json(function: Any, arguments: Any) -> Any:
    """Call a tool with arguments that a model wrote, each read as its parameter's type.

    Raises:
        UsageError: The arguments are no object, or one does not fit.
    """
    if not isinstance(arguments, dict):
        raise UsageError(f"the arguments are a {type(arguments).__name__}, not an object")
    if isinstance(function, RemoteTool):
        return function(**arguments)
    hints = typing.get_type_hints(inspect.unwrap(function))
    typed = {n: validate(v, hints[n], n) if n in hints else v for n, v in arguments.items()}
    return function(**typed)


@contextmanager
def case(case_id: str) -> Iterator[None]:
    """Mark the calls inside as answers to one evaluation case (``france``, or its trial ``france#2``)."""
    trial = case_id.rpartition("#")[2] if "#" in case_id else ""
    token, number = _CASE.set(case_id), TRIAL.set(int(trial) if trial.isdigit() else 1)
    try:
        yield
    finally:
        TRIAL.reset(number)
        _CASE.reset(token)


def _check_annotations(function: Any, signature: inspect.Signature) -> None:
    missing = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    if signature.return_annotation is inspect.Signature.empty:
        missing.append("return")
    odd = [
        p.name for p in signature.parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if missing or odd:
        faults = [f"no annotation for {', '.join(missing)}"] if missing else []
        faults += [f"*{name} cannot be recorded by name" for name in odd]
        raise UsageError(
            f"{function.__name__} is not fully typed: {'; '.join(faults)}",
            where=f"def {function.__name__}",
            next_step="annotate every parameter and the return value",
        )


class _Governed:
    """What one decorated function needs at each call."""

    def __init__(
        self, function: Any, kind: CallKind, name: str, effect: str, *, idempotent: bool = False
    ) -> None:
        self.function = function
        self.kind = kind
        self.name = name
        self.extra = {"effect": effect, **({"idempotent": True} if idempotent else {})}
        self.signature = inspect.signature(function)
        _check_annotations(function, self.signature)

    @functools.cached_property
    def read(self) -> Callable[[Any], Any]:
        """Rebuilds answers as annotated; made late: classes may be defined after the function."""
        return decoder(typing.get_type_hints(self.function).get("return", Any))

    def arguments(self, args: Any, kwargs: Any) -> dict[str, Any]:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise UsageError(f"{self.name}: {error}") from error
        bound.apply_defaults()
        return {k: encode(v, f"{self.name}({k})") for k, v in bound.arguments.items()}

    def begin(self, connection: Connection, args: Any, kwargs: Any) -> dict[str, Any]:
        _ = self.read  # a return type that no record can hold is told before anything happens
        request = connection.identify(
            self.kind, self.name, self.arguments(args, kwargs), **self.extra
        )
        request["case_id"] = request["case_id"] or _CASE.get()
        reply = approvals.call(connection, wire.BEGIN, request)
        if reply["outcome"] is not None:
            connection.announce(reply, self.kind, self.name)
        return reply

    def given(self, reply: dict[str, Any], args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments to run with: a person who approved the call may have changed them.

        Raises:
            UsageError: A changed argument does not fit its annotation; the body does not run.
        """
        change = reply.get("change")
        if change is None:
            return args, kwargs
        hints = typing.get_type_hints(self.function)
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in change["set"].items():
            bound.arguments[name] = validate(value, hints[name], f"{self.name}({name})")
        for name in change["drop"]:  # left out: the default holds
            default = self.signature.parameters[name].default
            if default is inspect.Parameter.empty:
                raise UsageError(f"{self.name} was approved without its argument {name}")
            bound.arguments[name] = default
        return bound.args, bound.kwargs

    def recorded(self, reply: dict[str, Any]) -> Any:
        """Return a recorded answer, or raise the recorded error."""
        outcome = reply["outcome"]
        if outcome["state"] != "ok":
            raise error_from_json(outcome["error"] or {})
        return self.read(outcome["answer"])

    def check_limit(self, reply: dict[str, Any]) -> None:
        """Refuse a limit that cannot be kept: nothing ends a plain function but its whole kernel.

        Raises:
            UsageError: ``tools.yaml`` gives the tool a ``timeout_s``; the body does not run.
        """
        if (limit := reply.get("limit")) is not None:
            raise UsageError(
                f"{self.name} is a plain function, which nothing can end after "
                f"{limit['timeout_s']:g} s",
                where=f"registry/tools.yaml, tools.{self.name}.timeout_s",
                next_step=f"write it as `async def {self.function.__name__}`, or remove timeout_s",
            )

    async def in_time(self, reply: dict[str, Any], body: Awaitable[Any]) -> Any:
        """Return what the body returns, or cancel it when its time is up.

        Raises:
            ToolFailed: It was cancelled, and may be called again.
            CallInDoubt: It was cancelled, and nobody knows how far its write came.
        """
        if (limit := reply.get("limit")) is None:
            return await body
        try:
            async with asyncio.timeout(limit["timeout_s"]) as patience:
                return await body
        except TimeoutError as error:
            if not patience.expired():  # its own
                raise
            late = f"{self.name} did not end within {limit['timeout_s']:g} s and was cancelled"
            if limit["repeatable"]:
                raise ToolFailed(late) from error
            raise CallInDoubt(
                f"{late}: it may have happened or not",
                next_step="look where it writes to before it is called again",
            ) from error

    def finish(self, connection: Connection, reply: dict[str, Any], value: Any) -> Any:
        try:
            # The same value whether fresh or replayed: what is recorded is what is returned.
            answer = json.loads(canonical_bytes(encode(value, f"the answer of {self.name}")))
            returned = self.read(answer)
        except UsageError as error:
            self.fail(connection, reply, error)  # an outcome too: the call is not in doubt
            raise
        call = {"key": reply["key"], "generation": reply["generation"]}
        done = connection.post(wire.FINISH, {**call, "state": "ok", "answer": answer})
        connection.announce(done, self.kind, self.name)
        return returned

    def fail(self, connection: Connection, reply: dict[str, Any], error: BaseException) -> None:
        if isinstance(error, ToolkitError):
            body = error.to_json()
        else:
            text = f"{type(error).__name__}: {error}"[:2000]
            body = ToolFailed(f"{self.name} raised {text}").to_json()
        call = {"key": reply["key"], "generation": reply["generation"]}
        done = connection.post(wire.FINISH, {**call, "state": "error", "error": body})
        connection.announce(done, self.kind, self.name)


def _govern(
    function: Any, kind: CallKind, name: str, effect: str, *, idempotent: bool = False
) -> Any:
    governed = _Governed(function, kind, name, effect, idempotent=idempotent)

    def frame_of(reply: dict[str, Any]) -> Frame:
        outer = CURRENT.get()
        key = idempotency_key(reply["call_id"]) if kind is CallKind.TOOL else None
        case_id = outer.case_id if outer else _CASE.get()
        return Frame(reply["key"], case_id, idempotency_key=key)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            connection = current()
            reply = await asyncio.to_thread(governed.begin, connection, args, kwargs)
            if reply["outcome"] is not None:
                return governed.recorded(reply)
            token = CURRENT.set(frame_of(reply))
            try:
                args, kwargs = governed.given(reply, args, kwargs)
                value = await governed.in_time(reply, function(*args, **kwargs))
            except BaseException as error:
                CURRENT.reset(token)
                await asyncio.to_thread(governed.fail, connection, reply, error)
                raise
            CURRENT.reset(token)
            return await asyncio.to_thread(governed.finish, connection, reply, value)

        wrapper: Any = call_async
    else:

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            connection = current()
            reply = governed.begin(connection, args, kwargs)
            if reply["outcome"] is not None:
                return governed.recorded(reply)
            token = CURRENT.set(frame_of(reply))
            try:
                governed.check_limit(reply)
                args, kwargs = governed.given(reply, args, kwargs)
                value = function(*args, **kwargs)
            except BaseException as error:
                CURRENT.reset(token)
                governed.fail(connection, reply, error)
                raise
            CURRENT.reset(token)
            return governed.finish(connection, reply, value)

        wrapper = call
    wrapper.__toolkit_kind__ = kind
    wrapper.__toolkit_name__ = name
    wrapper.__toolkit_effect__ = effect
    return wrapper
