"""How far a kernel is kept from its machine: nothing, limits, namespaces, a hardened enclosure.

Rules
-----
* A level is what was *probed*: attempts to escape are made from inside, against canaries that were
  planted outside.  Options and version numbers are not believed.
* An enclosure is made as it was asked for, or not at all.  Nothing falls back to a lower level
  here; who chooses a level does so before, with :func:`choose_level`.
* L3 is both, the filter and a control group that counts memory and processes together; without the
  group there is no L3.  What was not reached is asked again after minutes.
* Bubblewrap is started with a clean environment, because what is inside can read it.
* One way out from L2 on: the gateway's socket, and a loopback port that leads to it.
* Everything inside dies with the enclosure, and the enclosure with the process that opened it.
* There is one way in, for warm and cold kernels: :func:`enter`.  After it nothing is left: no
  capability, no open file, no keyring, no way to gain rights.
* What runs inside (``inside.py``, ``relay.py``, ``probes.py``,
  ``group_probes.py``) imports the standard library only.

Known limits: the system's kernel is shared, so a fault in it is a way out; this is no virtual
machine.  Who runs as root outside is the same user inside, without its rights.  Below L3, without a control
group, memory is limited for each process, not for all together.  Programs in ``/usr`` can be read.
Linux on x86_64 and aarch64 only; aarch64 has not been tried.
"""

from __future__ import annotations

from toolkit.isolation.enclosure import Enclosure, enter
from toolkit.isolation.probing import (
    Probe,
    ProbeReport,
    Reached,
    choose_level,
    probe,
    probe_again,
    reached_level,
)
from toolkit.isolation.spec import EnclosureSpec, Ticket, interpreter_paths

__all__ = [
    "Enclosure",
    "EnclosureSpec",
    "Probe",
    "ProbeReport",
    "Reached",
    "Ticket",
    "choose_level",
    "enter",
    "interpreter_paths",
    "probe",
    "probe_again",
    "reached_level",
]
