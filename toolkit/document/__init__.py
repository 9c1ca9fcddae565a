"""An ``.ipynb`` as data: cells, parameters, results, normal form, digest.

Rules
-----
* Reading ends for any bytes: with a notebook, or with every reason why not (``InvalidFile``).
* Nothing of a notebook is executed or imported; all is read from text and syntax trees.
* Messages name cells, lines and parameters, never values: a value may be a secret.
* Cells are counted from 1 where people see them, markdown included, as JupyterLab shows them.
* The normal form does not change when a notebook is run, viewed or moved to another machine.
* This room owns the notebook format; it reads nbformat's schema files, not its slow package.
"""

from __future__ import annotations

from toolkit.document.arguments import check_parameters, default_values, parse_value
from toolkit.document.cells import Cell, CellCode
from toolkit.document.dependencies import Dependencies, Dependency, guarded_lines
from toolkit.document.flaws import Flaw
from toolkit.document.names import Names
from toolkit.document.notebook import Examination, Notebook, examine, examine_bytes
from toolkit.document.parameters import Declared, Parameter
from toolkit.document.reading import MAX_BYTES
from toolkit.document.saving import save_outputs
from toolkit.document.syntax import Magic
from toolkit.document.uses import Definition, ResultUse, RouteUse

__all__ = [
    "MAX_BYTES",
    "Cell",
    "CellCode",
    "Declared",
    "Definition",
    "Dependencies",
    "Dependency",
    "Examination",
    "Flaw",
    "Magic",
    "Names",
    "Notebook",
    "Parameter",
    "ResultUse",
    "RouteUse",
    "check_parameters",
    "default_values",
    "examine",
    "examine_bytes",
    "guarded_lines",
    "parse_value",
    "save_outputs",
]
