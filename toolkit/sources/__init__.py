"""Other people's data: what a read would touch, and the reading, within its caps.

Rules
-----
* Nothing is read before policy has decided: a plan says which tables and columns, a fetch reads.
* What cannot be analysed is refused.  Statements, parts of statements and functions are on lists
  of what is allowed; there is no list of what is forbidden.
* What is executed is the text that was analysed, with every name written out, never the text that
  was asked.  Parameters are bound, never written into the text.
* The database checks again: SQLite asks us about every column that it reads, PostgreSQL's plan
  may name only relations that were analysed.  Both are opened read-only unless it is a write.
* A view counts with every column that it reads, used or not; a generated column with its table.
* A listing says of each row what it names, so that only what policy lets be read is shown; no error
  names a table that was not asked for.
* A cap that is passed gives nothing, never a part.
* No error of this room holds a value of a row or a parameter, or a credential.
* Credentials come from the environment of this process by name; they are never in a file.
* Entering the room is cheap: pyarrow, sqlglot and fsspec load when a source is opened.
* This room owns sqlglot and fsspec, and uses SQLAlchemy for databases that are not ours.

Known limits: functions of a view that read tables of their own are not seen (somebody with rights
on the database made them).  PostgreSQL's row security that reads other tables makes a plan name
relations that the query does not, and is refused.
"""

from __future__ import annotations

from toolkit.sources.caps import Caps
from toolkit.sources.catalog import DataCatalog
from toolkit.sources.current import Sources
from toolkit.sources.types import About, Ask, Check, Plan, Reading, Source

__all__ = [
    "About",
    "Ask",
    "Caps",
    "Check",
    "DataCatalog",
    "Plan",
    "Reading",
    "Source",
    "Sources",
]
