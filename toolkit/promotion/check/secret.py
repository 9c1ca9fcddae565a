"""Credentials and personal data; reported by kind and place, never printed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from toolkit.privacy import Category
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Find, Hit, Rule, Subject
from toolkit.promotion.check.spotted import Part

__all__ = ["RULES"]

_WHERE = {
    Part.SOURCE: "the source",
    Part.OUTPUT: "an output",
    Part.METADATA: "its metadata",
    Part.ATTACHMENT: "an attachment",
}
_WHAT = {Category.SECRET: "what looks like a secret", Category.PII: "personal data"}


def _find(part: Part, category: Category, subject: Subject) -> Iterator[Hit]:
    # Personal data is a matter of policy; a secret is one of safety.
    personal = subject.catalog.personal_data if category is Category.PII else None
    for spot in subject.spots:
        if spot.part is part and spot.category is category:
            where = _WHERE[part] if spot.cell else "the notebook's metadata"
            message = f"{where} holds {_WHAT[category]} ({spot.kind})"
            yield Hit(message, spot.cell, spot.line, severity=personal)


def _secrets(part: Part) -> Find:
    return partial(_find, part, Category.SECRET)


def _personal(part: Part) -> Find:
    return partial(_find, part, Category.PII)


def _secret_rule(part: Part, why: str, fix: str) -> Rule:
    name = f"secret-in-{part}"
    return Rule(name, Severity.ERROR, why, fix, _secrets(part), waivable=False, quotes=False)


def _personal_rule(part: Part, why: str, fix: str) -> Rule:
    name = f"personal-data-in-{part}"
    return Rule(name, Severity.WARNING, why, fix, _personal(part), quotes=False)


RULES = (
    _secret_rule(
        Part.SOURCE,
        "a version is readable for everybody who may read the registry, for ever",
        "revoke the secret, delete it here, and put it where the gateway reads it: the environment"
        " variable that registry/models.yaml names, or a tool that holds it",
    ),
    _secret_rule(
        Part.OUTPUT,
        "the saved notebook is shared together with its outputs",
        "revoke the secret, stop printing it, and clear the output",
    ),
    _secret_rule(
        Part.METADATA,
        "nobody looks into metadata, and it is shared with the notebook",
        "revoke the secret; then edit the notebook's JSON (Settings > Advanced Tools > Metadata)",
    ),
    _secret_rule(
        Part.ATTACHMENT,
        "attachments of text cells are sealed with the version",
        "revoke the secret, and delete the attachment from the cell",
    ),
    _personal_rule(
        Part.SOURCE,
        "a version cannot be changed later, so nobody could delete the data from it; an error"
        " where policy.yaml says `privacy: {pii: redact}`",
        "read it from a data source, or use invented data",
    ),
    _personal_rule(
        Part.OUTPUT,
        "everybody who gets the notebook gets its outputs; an error where policy.yaml says"
        " `privacy: {pii: redact}`",
        "print counts and ids instead, and clear the output",
    ),
    _personal_rule(
        Part.METADATA,
        "nobody looks into metadata, and it is shared with the notebook; an error where"
        " policy.yaml says `privacy: {pii: redact}`",
        "edit the notebook's JSON (Settings > Advanced Tools > Metadata)",
    ),
    _personal_rule(
        Part.ATTACHMENT,
        "attachments of text cells are sealed with the version; an error where policy.yaml says"
        " `privacy: {pii: redact}`. Pictures are not searched",
        "delete the attachment from the cell",
    ),
)
