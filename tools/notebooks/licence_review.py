# %% [markdown] id=title
# # Licence review
#
# Which licence does each installed Python package carry, and what does that mean for us?
#
# 1. **Rules** read the licence files and decide what can be decided.
# 2. The **model** reads what no rule knows. Its answer counts only when the likeness of the text to that
#    licence's phrases says the same; elsewhere it is a suggestion for the person who decides.
# 3. Everything else **needs a person**. Not knowing is an answer; a wrong licence is not.
#
# The tools show the *text* of licence files (and trove classifiers for packages that ship no such
# file). They never show the licence that a package declares in its metadata: the evaluation set
# `licence-review` uses that declaration as the truth.

# %% id=setup
# %load_ext toolkit
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pandas as pd

import toolkit

# %% id=parameters tags=parameters
limit: int = 40  # how many packages to review at most, in alphabetical order
only: list[str] = []  # review these packages alone; empty means all
allowed: list[str] = [  # licences that need no further talk
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "PSF-2.0",
    "Unlicense",
    "Zlib",
]

# %% [markdown] id=words-of-licences
# ## What we know about licences
#
# A licence is recognised by phrases that all its copies share, compared word by word. Phrases in the
# second list rule it out: MIT without its notice clause is MIT-0, BSD with the endorsement clause has
# three clauses.

# %% id=families
NEEDS_A_PERSON = "needs a person"
RISK = {
    **dict.fromkeys(
        ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC"],
        "permissive",
    ),
    **dict.fromkeys(["MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib"], "permissive"),
    **dict.fromkeys(["LGPL-2.1-only", "LGPL-3.0-only", "MPL-2.0"], "weak copyleft"),
    **dict.fromkeys(["AGPL-3.0-only", "GPL-2.0-only", "GPL-3.0-only"], "strong copyleft"),
}
CLASSES = ["permissive", "weak copyleft", "strong copyleft", "unknown", NEEDS_A_PERSON]

_MIT = "permission is hereby granted free of charge to any person obtaining a copy"
_ISC = (
    "permission to use copy modify and or distribute this software for any purpose "
    "with or without fee is hereby granted"
)
_BSD = ["redistributions of source code must retain", "redistributions in binary form must reproduce"]
_ENDORSE = "used to endorse or promote products"
_ADVERTISE = "all advertising materials"

FAMILIES: list[tuple[str, list[str], list[str]]] = [
    ("MIT", [_MIT, "this permission notice shall be included in all copies"], []),
    ("MIT-0", [_MIT], ["this permission notice shall be included"]),
    (
        "MIT-CMU",
        [
            "permission to use copy modify and distribute this software and its documentation "
            "for any purpose and without fee is hereby granted"
        ],
        [],
    ),
    ("ISC", [f"{_ISC} provided that"], []),
    ("0BSD", [_ISC], [f"{_ISC} provided that"]),
    ("BSD-3-Clause", [*_BSD, _ENDORSE], [_ADVERTISE]),
    ("BSD-2-Clause", _BSD, [_ENDORSE, _ADVERTISE]),
    ("Apache-2.0", ["apache license version 2 0"], []),
    ("MPL-2.0", ["mozilla public license version 2 0"], []),
    ("MPL-2.0", ["subject to the terms of the mozilla public license v 2 0"], []),
    # The text alone does not say "or later", so the claim is the one that grants less.
    ("LGPL-3.0-only", ["gnu lesser general public license version 3 29 june 2007"], []),
    ("LGPL-2.1-only", ["gnu lesser general public license version 2 1 february 1999"], []),
    ("AGPL-3.0-only", ["gnu affero general public license version 3 19 november 2007"], []),
    ("GPL-3.0-only", ["gnu general public license version 3 29 june 2007"], []),
    ("GPL-2.0-only", ["gnu general public license version 2 june 1991"], []),
    ("PSF-2.0", ["python software foundation license version 2"], []),
    ("Zlib", ["altered source versions must be plainly marked as such"], []),
    ("CC0-1.0", ["cc0 1 0 universal"], []),
    ("Unlicense", ["free and unencumbered software released into the public domain"], []),
    ("BSL-1.0", ["boost software license version 1 0"], []),
]

# %% id=matching
HEAD_WORDS = 600  # a licence that begins later in a file is somebody else's, bundled with it


@dataclass(frozen=True)
class FileMatch:
    path: str  # inside the package's licence folder; "/" marks bundled code
    begins: list[tuple[int, str]]  # word number and licence
    either: bool  # the text offers a choice


def words(text: str) -> str:
    """The text as lower-case words, single spaces between them."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def found_in(text: str) -> list[tuple[int, str]]:
    """Where (in words) each licence begins in a text, first one first."""
    known = words(text)
    first: dict[str, int] = {}
    for spdx, needed, excluded in FAMILIES:
        if all(p in known for p in needed) and not any(p in known for p in excluded):
            begin = known[: known.index(needed[0])].count(" ")
            first[spdx] = min(begin, first.get(spdx, begin))
    return sorted((begin, spdx) for spdx, begin in first.items())


def likeness(text: str) -> list[tuple[float, str]]:
    """How much of each licence's phrases a text holds (runs of four words), most first."""

    def runs(phrase: str) -> set[str]:
        parts = phrase.split()
        return {" ".join(parts[i : i + 4]) for i in range(len(parts) - 3)}

    known = runs(words(text))
    shares: dict[str, float] = {}
    for spdx, needed, _ in FAMILIES:
        wanted = set().union(*(runs(phrase) for phrase in needed))
        shares[spdx] = max(len(wanted & known) / len(wanted), shares.get(spdx, 0.0))
    return sorted(((round(s, 3), spdx) for spdx, s in shares.items() if s), key=lambda x: (-x[0], x[1]))


# %% [markdown] id=about-tools
# ## Tools
#
# Each is a plain typed function. The gateway decides on every call and records it.

# %% id=tools
LICENCE_FILE = re.compile(r"licen[cs]e|copying", re.IGNORECASE)


@dataclass(frozen=True)
class LicenceText:
    name: str
    source: str  # file, classifiers or nothing
    files: list[str]
    text: str


def licence_files(name: str) -> list[tuple[str, str]]:
    """Path and text of a package's licence files, its own before those of bundled code."""
    found = []
    for file in metadata.distribution(name).files or []:
        if ".dist-info" in file.parts[0] and LICENCE_FILE.search(file.name):
            inner = file.parts[2:] if file.parts[1] == "licenses" else file.parts[1:]
            found.append(("/".join(inner), file.locate().read_text("utf-8", "replace")))
    return sorted(found, key=lambda item: (item[0].count("/"), item[0]))


@toolkit.tool(effect="read")
def list_distributions() -> list[str]:
    """Names of the installed packages, in alphabetical order."""
    names = {d.metadata["Name"] or "" for d in metadata.distributions()}
    return sorted({re.sub(r"[-_.]+", "-", name).lower() for name in names if name})


@toolkit.tool(effect="read")
def read_licence(name: str, characters: int) -> LicenceText:
    """The beginning of a package's licence files; its licence classifiers if it ships none."""
    files = licence_files(name)
    if files:
        text = "\n\n".join(text.strip() for _, text in files if text.strip())
        return LicenceText(name, "file", [path for path, _ in files], text[:characters])
    classifiers = metadata.metadata(name).get_all("Classifier") or []
    lines = [line for line in classifiers if line.startswith("License ::")]
    return LicenceText(name, "classifiers" if lines else "nothing", [], "\n".join(lines))


@toolkit.tool(effect="read")
def match_spdx(name: str) -> list[FileMatch]:
    """Which licences each licence file of a package holds, and where they begin."""
    return [
        FileMatch(path, found_in(text), "either" in words(text).split()[:60])
        for path, text in licence_files(name)
    ]


# %% [markdown] id=about-agent
# ## The agent

# %% id=finding
@dataclass(frozen=True)
class LicenceFinding:
    name: str
    licence: str  # an SPDX expression, or "needs a person"
    risk: str
    decided_by: str  # rules, model or nobody
    bundled: list[str]  # licences of code that the package carries along
    note: str
    suggestion: str  # what the model would say, for the person who must decide


@dataclass(frozen=True)
class Ruling:
    licence: str | None  # None: no rule applies
    note: str
    bundled: list[str]
    candidates: list[str]  # what a person would have to choose from


def heaviest(licences: set[str]) -> int:
    """The position of the heaviest risk class, 0 is the lightest."""
    return max((CLASSES.index(RISK[spdx]) for spdx in licences), default=0)


def decide(matches: list[FileMatch]) -> Ruling:
    """What the rules say of a package's licence files."""
    heads: set[str] = set()
    everything: set[str] = set()
    crowded = ""
    for match in matches:
        own = [] if "/" in match.path else [spdx for at, spdx in match.begins if at < HEAD_WORDS]
        if len(own) > 1:
            crowded = crowded or f"{match.path} holds {' and '.join(own)}"
        heads.update(own)
        everything.update(spdx for _, spdx in match.begins)
    bundled = everything - heads
    if crowded:
        return Ruling(NEEDS_A_PERSON, crowded, sorted(bundled), sorted(heads))
    if not heads:
        return Ruling(None, "no known phrase", sorted(bundled), [])
    if heaviest(bundled) > heaviest(heads):
        note = f"bundles {', '.join(sorted(s for s in bundled if RISK[s] != 'permissive'))}"
        return Ruling(NEEDS_A_PERSON, note, sorted(bundled), sorted(everything))
    if len(heads) == 1:
        return Ruling(min(heads), "phrases of the licence", sorted(bundled), [])
    if any(match.either and not match.begins for match in matches):
        return Ruling(" OR ".join(sorted(heads)), "a choice between files", sorted(bundled), [])
    note = f"separate files: {', '.join(sorted(heads))}"
    return Ruling(NEEDS_A_PERSON, note, sorted(bundled), sorted(heads))


def risk_of(licence: str) -> str:
    """The risk class of an expression; a choice counts with its mildest part."""
    return CLASSES[min(CLASSES.index(RISK[part]) for part in licence.split(" OR "))]


# %% id=opinion
INSTRUCTIONS = "You identify software licences. Answer with one SPDX identifier."
EXAMPLES = [
    ("Free of charge, to any person obtaining a copy, to deal in the Software without restriction", "MIT"),
    ("Use, copy, modify and distribute, with or without fee, if the notices appear in all copies", "ISC"),
    ("Redistributions must retain the notice; no endorsement with the names of contributors", "BSD-3-Clause"),
    ("Terms and conditions for use, reproduction and distribution; grant of patent licence", "Apache-2.0"),
]
ALIKE = 0.5  # least share of a licence's phrases before an opinion is asked for


def opinion(text: str, candidates: list[str]) -> str:
    """Which of the candidates the model takes the text for."""
    question = "Licence text:\n\n{}\n\nWhich licence is this?"
    messages: list[dict[str, Any]] = [{"role": "system", "content": INSTRUCTIONS}]
    for example, answer in EXAMPLES:
        messages.append({"role": "user", "content": question.format(example)})
        messages.append({"role": "assistant", "content": f'{{"licence": "{answer}"}}'})
    messages.append({"role": "user", "content": question.format(text)})
    schema = {
        "type": "object",
        "properties": {"licence": {"type": "string", "enum": candidates}},
        "required": ["licence"],
        "additionalProperties": False,
    }
    reply = toolkit.model(messages, route="licence", schema=schema, max_tokens=40)
    return str(reply.data["licence"])


@toolkit.agent
def review_licence(name: str) -> LicenceFinding:
    """Find the licence of one installed package, or say that a person must look."""
    matches = match_spdx(name)
    if not matches:
        source = read_licence(name, 600).source
        note = "ships no licence file" + ("" if source == "nothing" else ", only classifiers")
        return LicenceFinding(name, NEEDS_A_PERSON, "unknown", "nobody", [], note, "")
    ruling = decide(matches)
    if ruling.licence not in (None, NEEDS_A_PERSON):
        risk = risk_of(ruling.licence)
        return LicenceFinding(name, ruling.licence, risk, "rules", ruling.bundled, ruling.note, "")
    text = read_licence(name, 600)
    alike = likeness(text.text)[:3]
    candidates = ruling.candidates or [spdx for _, spdx in alike]
    if not ruling.candidates and (len(alike) < 2 or alike[0][0] < ALIKE):
        note = f"{ruling.note}, resembles no known licence"
        return LicenceFinding(name, NEEDS_A_PERSON, NEEDS_A_PERSON, "nobody", ruling.bundled, note, "")
    said = opinion(text.text, candidates)
    if ruling.licence is None and said == alike[0][1]:  # two readers agree
        note = "the model, and the likeness of the text"
        return LicenceFinding(name, said, RISK[said], "model", ruling.bundled, note, "")
    return LicenceFinding(
        name, NEEDS_A_PERSON, NEEDS_A_PERSON, "nobody", ruling.bundled, ruling.note, said
    )


# %% [markdown] id=about-review
# ## The review

# %% id=review
chosen = [name for name in list_distributions() if not only or name in only][: max(limit, 0)]
findings = []
for number, name in enumerate(chosen, 1):
    findings.append(review_licence(name))
    if number % 20 == 0 or number == len(chosen):
        print(f"{number} of {len(chosen)} packages reviewed")

# %% id=table
COLUMNS = ["name", "licence", "risk", "decided_by", "bundled", "note", "suggestion"]
table = pd.DataFrame(
    [
        [f.name, f.licence, f.risk, f.decided_by, ", ".join(f.bundled), f.note, f.suggestion]
        for f in findings
    ],
    columns=COLUMNS,
)
table["allowed"] = [
    any(part in allowed for part in licence.split(" OR ")) for licence in table["licence"]
]
table[["name", "licence", "risk", "decided_by"]].head(10)

# %% id=counts
counts = {risk: int((table["risk"] == risk).sum()) for risk in CLASSES}
for risk, number in counts.items():
    print(f"{risk:16} {number:4}  {'█' * round(50 * number / max(len(findings), 1))}")

# %% id=for-people
table.loc[~table["allowed"], ["name", "licence", "note", "suggestion"]]

# %% [markdown] id=about-results
# ## Results

# %% id=results
toolkit.result(
    table=table,
    counts=counts,
    reviewed=len(findings),
    not_allowed=int((~table["allowed"].astype(bool)).sum()),
    decided_by_model=int((table["decided_by"] == "model").sum()),
)
