"""Which arguments a function of a notebook takes by name."""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Signature", "signature_of"]


@dataclass(frozen=True, slots=True)
class Signature:
    """The arguments of a function, as its ``def`` says them.

    Attributes:
        required: Names without a default, in order.
        optional: Names with one.
        more: Whether it takes any other name (``**values``).
        by_place: Names before ``/``, which cannot be given by name; they are in ``required`` or
            ``optional``, too.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    more: bool = False
    by_place: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What can be given by name."""
        return tuple(n for n in (*self.required, *self.optional) if n not in self.by_place)

    def missing(self, given: Collection[str]) -> list[str]:
        """Return the names that must be given and are not."""
        return [name for name in self.required if name not in given or name in self.by_place]

    def unknown(self, given: Collection[str]) -> list[str]:
        """Return the given names that it does not take."""
        return [] if self.more else [name for name in given if name not in self.names]


def signature_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature:
    """Return what a ``def`` takes; decorators are taken to change nothing about it."""
    spec = node.args
    placed = [*spec.posonlyargs, *spec.args]
    with_default = {arg.arg for arg in placed[len(placed) - len(spec.defaults) :]}
    with_default |= {
        arg.arg for arg, value in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if value
    }
    names = [arg.arg for arg in (*placed, *spec.kwonlyargs)]
    return Signature(
        required=tuple(name for name in names if name not in with_default),
        optional=tuple(name for name in names if name in with_default),
        more=spec.kwarg is not None,
        by_place=tuple(arg.arg for arg in spec.posonlyargs),
    )
