"""One isolated process: what it sees, what it may take, how it ends."""

from swarm.sandbox.box import Command, Limits, Outcome, Sandbox
from swarm.sandbox.ladder import INSTALL, PROCESS, Mode, Rung, holds, probe
from swarm.sandbox.ladder import ORDER as RUNGS
from swarm.sandbox.leftovers import MARKER, end_leftover, stamp
from swarm.sandbox.system import program_at, system, tools_of
from swarm.sandbox.walls import OUT, WORK, Door, Mount, View

__all__ = [
    "INSTALL",
    "MARKER",
    "OUT",
    "PROCESS",
    "RUNGS",
    "WORK",
    "Command",
    "Door",
    "Limits",
    "Mode",
    "Mount",
    "Outcome",
    "Rung",
    "Sandbox",
    "View",
    "end_leftover",
    "holds",
    "probe",
    "program_at",
    "stamp",
    "system",
    "tools_of",
]
