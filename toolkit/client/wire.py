"""The words of the wire between a kernel and its gateway: JSON over HTTP on a unix socket.

Every request carries ``Authorization: Bearer <run token>`` except :data:`HEALTH` and
:data:`SESSIONS`.  An error answers with a 4xx or 5xx status and ``{"error": {…}}``, the form of
``ToolkitError.to_json``.
"""

from __future__ import annotations

PREFIX = "/toolkit/v1"
HEALTH = f"{PREFIX}/health"
SESSIONS = f"{PREFIX}/sessions"
MODEL = f"{PREFIX}/calls/model"
BEGIN = f"{PREFIX}/calls/begin"
FINISH = f"{PREFIX}/calls/finish"
RESULT = f"{PREFIX}/calls/result"
TOOL = f"{PREFIX}/calls/tool"
DATA = f"{PREFIX}/calls/data"
TOOLS = f"{PREFIX}/tools"
JOB = f"{PREFIX}/calls/job"
JOB_CANCEL = f"{PREFIX}/calls/job/cancel"
JOBS = f"{PREFIX}/jobs"
APPROVAL = f"{PREFIX}/calls/approval"
ANSWER_APPROVAL = f"{PREFIX}/calls/approval/answer"
CALLS = f"{PREFIX}/calls"
STATUS = f"{PREFIX}/status"
CELL = f"{PREFIX}/cell"
VALUE = f"{PREFIX}/calls/value"
JOURNAL = f"{PREFIX}/journal"
NEXT_CASE = f"{PREFIX}/cases/next"
ANSWER_CASE = f"{PREFIX}/cases/answer"

ENV_SOCKET = "TOOLKIT_GATEWAY"
"""The gateway's unix socket, or the address of a team's gateway (``https://host:port``)."""
ENV_TOKEN = "TOOLKIT_RUN_TOKEN"  # noqa: S105 - a variable's name
ENV_TEAM_TOKEN = "TOOLKIT_TOKEN"  # noqa: S105 - a variable's name
ENV_RUN = "TOOLKIT_RUN_ID"
ENV_PARAMETERS = "TOOLKIT_PARAMETERS"

MAX_BODY_BYTES = 8 * 1024 * 1024
