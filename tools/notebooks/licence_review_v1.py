# %% [markdown] id=title
# # Licence review, first version
#
# The first idea: show the beginning of a package's licence text to the model and ask which licence it
# is. Nothing else, no examples, no way to say *I do not know*.
#
# Several answers below look convincing. `toolkit promote` measures all of them on the evaluation set
# `licence-review`, and the gate says no. `licence_review.ipynb` is the second version.

# %% id=setup
# %load_ext toolkit
import re
from dataclasses import dataclass
from importlib import metadata

import pandas as pd

import toolkit

# %% id=parameters tags=parameters
limit: int = 8  # how many packages to review at most, in alphabetical order
only: list[str] = []  # review these packages alone; empty means all
allowed: list[str] = ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0"]

# %% id=licences
RISK = {
    **dict.fromkeys(
        ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC"],
        "permissive",
    ),
    **dict.fromkeys(["MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib"], "permissive"),
    **dict.fromkeys(["LGPL-2.1-only", "LGPL-3.0-only", "MPL-2.0"], "weak copyleft"),
    **dict.fromkeys(["AGPL-3.0-only", "GPL-2.0-only", "GPL-3.0-only"], "strong copyleft"),
}
CLASSES = ["permissive", "weak copyleft", "strong copyleft"]
ANSWER = {
    "type": "object",
    "properties": {"licence": {"type": "string", "enum": sorted(RISK)}},
    "required": ["licence"],
    "additionalProperties": False,
}

# %% [markdown] id=about-tools
# ## Tools

# %% id=tools
LICENCE_FILE = re.compile(r"licen[cs]e|copying", re.IGNORECASE)


@dataclass(frozen=True)
class LicenceText:
    name: str
    source: str  # file, classifiers or nothing
    files: list[str]
    text: str


@toolkit.tool(effect="read")
def list_distributions() -> list[str]:
    """Names of the installed packages, in alphabetical order."""
    names = {d.metadata["Name"] or "" for d in metadata.distributions()}
    return sorted({re.sub(r"[-_.]+", "-", name).lower() for name in names if name})


@toolkit.tool(effect="read")
def read_licence(name: str, characters: int) -> LicenceText:
    """The beginning of a package's licence files; its licence classifiers if it ships none."""
    found = []
    for file in metadata.distribution(name).files or []:
        if ".dist-info" in file.parts[0] and LICENCE_FILE.search(file.name):
            inner = file.parts[2:] if file.parts[1] == "licenses" else file.parts[1:]
            found.append(("/".join(inner), file.locate().read_text("utf-8", "replace")))
    found.sort(key=lambda item: (item[0].count("/"), item[0]))
    if found:
        text = "\n\n".join(text.strip() for _, text in found if text.strip())
        return LicenceText(name, "file", [path for path, _ in found], text[:characters])
    classifiers = metadata.metadata(name).get_all("Classifier") or []
    lines = [line for line in classifiers if line.startswith("License ::")]
    return LicenceText(name, "classifiers" if lines else "nothing", [], "\n".join(lines))


# %% [markdown] id=about-agent
# ## The agent

# %% id=agent
INSTRUCTIONS = "You identify software licences. Answer with one SPDX identifier."


@dataclass(frozen=True)
class LicenceFinding:
    name: str
    licence: str  # an SPDX identifier
    risk: str


@toolkit.agent
def review_licence(name: str) -> LicenceFinding:
    """Ask the model for the licence of one installed package."""
    text = read_licence(name, 600).text
    reply = toolkit.model(
        f"Licence text:\n\n{text}\n\nWhich licence is this?",
        system=INSTRUCTIONS,
        route="licence",
        schema=ANSWER,
        max_tokens=40,
    )
    licence = reply.data["licence"]
    return LicenceFinding(name, licence, RISK[licence])


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
table = pd.DataFrame(
    [[f.name, f.licence, f.risk] for f in findings], columns=["name", "licence", "risk"]
)
table["allowed"] = [licence in allowed for licence in table["licence"]]
table

# %% id=results
counts = {risk: int((table["risk"] == risk).sum()) for risk in CLASSES}
toolkit.result(table=table, counts=counts, reviewed=len(findings))
counts
