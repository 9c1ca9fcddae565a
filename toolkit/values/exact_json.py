"""JSON in and out without a change to any integer: account numbers have more digits than 64 bits hold.

``orjson`` is fast and strict, reads longer integers as floats and does not write them; the standard
library takes over for those.  The kernel's side does not have ``orjson``: it is imported on first use.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["read_json", "write_json"]

# The shortest that may not fit has 19 digits.  A longer fraction is found too, which costs time only.
_LONG = re.compile(rb"[0-9]{19}")


def read_json(data: bytes) -> Any:
    """Return a JSON document's value.

    Raises:
        ValueError: It is not JSON (RFC 8259: no ``NaN``, valid UTF-8), or an integer in it is longer
            than Python reads (4,300 digits).
    """
    import orjson

    value = orjson.loads(data)  # the judge of what is JSON
    return value if _LONG.search(data) is None else json.loads(data)


def write_json(value: Any) -> bytes:
    """Return a JSON value's text.

    Raises:
        TypeError: It is not a JSON value.
    """
    import orjson

    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
