"""Where agents and slots live: the `Runtime` protocol, and `Inline`, which is threads in here.

A runtime carries jobs to places and brings back what came of them. It knows no ledger and no
verdicts; when a place dies under a job it says so (`Lost`) and puts a new one there.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from swarm.agent import Hands, Journal, ProposeDone, ProposeJob, Ready, Terms
from swarm.config import SlotConfig
from swarm.errors import PreconditionError, SwarmError
from swarm.groups import ProposerConfig
from swarm.node import Bench, MeasureDone, MeasureJob, Node, NodeSite, machine_kind
from swarm.proposers import make
from swarm.records import AgentInfo, ProcessStamp, SlotInfo


@dataclass(frozen=True)
class Post:
    """One agent to be set up; picklable."""

    info: AgentInfo
    proposer: ProposerConfig
    index: int
    """Which of its group's `count` agents it is."""
    count: int
    terms: Mapping[str, Terms]
    """For each target that it works on."""
    keys: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """The environment variables of its provider. Never written anywhere."""

    def hands(self, node: Node) -> Hands:
        """Build the agent for the target of a node."""
        proposer = make(
            self.proposer,
            agent=self.info.name,
            index=self.index,
            count=self.count,
            keys=self.keys,
        )
        return Hands(node, self.info, proposer, self.terms[node.target.name])


class Pairs:
    """All the hands of one agent, a pair for each target, made when they are needed."""

    def __init__(self, node: Node, post: Post) -> None:
        self._node, self._post = node, post
        self._hands: dict[str, Hands] = {}

    def propose(self, job: ProposeJob) -> ProposeDone:
        """Make one proposal.

        Hands are kept only if it goes well: after a fault everything is opened, and repaired, anew.
        """
        hands = self._hands.pop(job.target, None)
        hands = hands or self._post.hands(self._node.serving(job.target))
        done = hands.propose(job)
        self._hands[job.target] = hands
        return done


@dataclass(frozen=True)
class Muster:
    """What a runtime is to set up."""

    site: NodeSite
    slot: SlotConfig
    posts: tuple[Post, ...]


@dataclass(frozen=True)
class Lost:
    """A place died. Its job, if it had one, is gone; the place has been put up again."""

    place: str
    reason: str


@dataclass(frozen=True)
class Up:
    """A process of the run that a resume would have to end."""

    process: ProcessStamp


Done = MeasureDone | ProposeDone | Ready | Lost | Up


class Runtime(Protocol):
    """Carries jobs to slots and agents. Used by one thread, the coordinator's."""

    name: str

    def start(self, muster: Muster) -> tuple[SlotInfo, ...]:
        """Set everything up and give the slots; agents may still be coming up.

        Raises:
            PreconditionError: what is asked for is not there (GPUs, say), or set-up failed.
        """
        ...

    def node_of(self, agent: str) -> str:
        """Give the node of an agent, as `SlotInfo.node` names it."""
        ...

    def measure(self, job: MeasureJob) -> None:
        """Start a measurement on its slot, which must be free."""
        ...

    def propose(self, job: ProposeJob) -> None:
        """Start a proposal by its agent, which must be idle and have been `Ready`."""
        ...

    def call_off(self, agents: Sequence[str]) -> list[Ready]:
        """End what these agents are proposing, without a result, and give what it has cost."""
        ...

    def unpaid(self, agents: Sequence[str]) -> list[Ready]:
        """Give what these agents, here or not, have spent without a result in earlier launches."""
        ...

    def wait(self, timeout_s: float) -> list[Done]:
        """Give what has happened, waiting up to `timeout_s` seconds for the first thing."""
        ...

    def close(self) -> None:
        """End everything at once; what is under way is lost."""
        ...


_ROUNDING = 1e-9
"""So that ten tenths make one."""


def slot_count(slot: SlotConfig, *, cpus: float, gpus: float) -> int:
    """Give how many slots fit, or say what is missing.

    Raises:
        PreconditionError: not one slot fits, or fewer GPUs than asked for are there.
    """
    if slot.gpus > gpus:
        raise PreconditionError(
            f"slot.gpus is {slot.gpus:g}, and this cluster has {gpus:g} GPUs",
            hint="lower `target.slot.gpus`, or attach to a cluster that has GPUs (--address)",
        )
    by_gpu = shares(gpus, slot.gpus) if slot.gpus else None
    if slot.count != "auto":
        if by_gpu is not None and slot.count > by_gpu:
            raise PreconditionError(
                f"slot.count is {slot.count} with {slot.gpus:g} GPUs each, and there is room "
                f"for {by_gpu} on {gpus:g} GPUs",
                hint="lower `target.slot.count`, or use `auto`",
            )
        return slot.count
    by_cpu = max(1, int(cpus / slot.cpus + _ROUNDING))
    return by_cpu if by_gpu is None else by_gpu


def shares(gpus: float, each: float) -> int:
    """Give how many slots with `each` GPUs fit: a share of one lies on one, never across two."""
    return int(gpus) * int(1 / each + _ROUNDING) if each < 1 else int(gpus // each)


def local_gpus() -> int:
    """Count the NVIDIA GPUs that the kernel driver shows and the environment admits."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([v for v in visible.split(",") if v.strip() not in ("", "-1")])
    try:
        return len(list(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        return 0


class Inline:
    """All in this process: a thread for each slot and agent. For tests and debugging."""

    name = "inline"

    def __init__(self) -> None:
        self._outbox: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self._inboxes: dict[str, queue.SimpleQueue[MeasureJob | ProposeJob | None]] = {}
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._node: Node | None = None

    def start(self, muster: Muster) -> tuple[SlotInfo, ...]:
        """Prepare the one node and start the threads."""
        node = self._node = Node(muster.site)
        node.prepare()
        count = slot_count(muster.slot, cpus=os.cpu_count() or 1, gpus=local_gpus())
        kind = machine_kind()
        slots = tuple(
            SlotInfo(
                name=f"s{i + 1}",
                node="local",
                machine=kind,
                gpus=muster.slot.gpus,
                cpus=muster.slot.cpus,
            )
            for i in range(count)
        )
        for i, slot in enumerate(slots):
            self._spawn(slot.name, self._slot_loop, node, slot, _gpus_of(i, muster.slot.gpus))
        for post in muster.posts:
            self._spawn(post.info.name, self._agent_loop, node, post)
        return slots

    def _spawn(self, name: str, loop: Callable[..., None], *args: object) -> None:
        self._inboxes[name] = queue.SimpleQueue()
        thread = threading.Thread(target=loop, args=(name, *args), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _slot_loop(self, name: str, node: Node, slot: SlotInfo, gpus: str) -> None:
        bench: Bench | None = None
        told: ProcessStamp | None = None

        def measure(job: MeasureJob) -> MeasureDone:
            nonlocal bench
            bench = bench or Bench(node, slot, gpus)
            return bench.measure(job, self._stop)

        try:
            while (job := self._inboxes[name].get()) is not None:
                assert isinstance(job, MeasureJob)
                done = self._safely(name, partial(measure, job))
                if bench is not None and bench.supervisor not in (None, told):
                    told = bench.supervisor
                    self._outbox.put(Up(told))
                self._outbox.put(done)
        finally:
            if bench is not None:
                bench.close()

    def _agent_loop(self, name: str, node: Node, post: Post) -> None:
        pairs = Pairs(node, post)
        self._outbox.put(Ready(name, Journal(node, name).unpaid()))
        while (job := self._inboxes[name].get()) is not None:
            assert isinstance(job, ProposeJob)
            done = self._safely(name, partial(pairs.propose, job))
            self._outbox.put(done)
            if isinstance(done, Lost):
                pairs = Pairs(node, post)  # it has forgotten the history, as a process would
                self._outbox.put(Ready(name, Journal(node, name).unpaid()))

    @staticmethod
    def _safely(name: str, work: Callable[[], Done]) -> Done:
        """A place whose own code fails is lost, as it would be in a process of its own."""
        try:
            return work()
        except SwarmError as error:
            return Lost(name, str(error))
        except BaseException:  # SystemExit too: a thread that ends in silence is waited for
            return Lost(name, traceback.format_exc())

    def node_of(self, agent: str) -> str:
        """All agents are on the one node."""
        return "local"

    def measure(self, job: MeasureJob) -> None:
        """Hand the job to the slot's thread."""
        self._inboxes[job.slot].put(job)

    def propose(self, job: ProposeJob) -> None:
        """Hand the job to the agent's thread."""
        self._inboxes[job.agent].put(job)

    def call_off(self, agents: Sequence[str]) -> list[Ready]:
        """Read what they have cost so far. A thread cannot be ended: it goes with the process."""
        return self.unpaid(agents)

    def unpaid(self, agents: Sequence[str]) -> list[Ready]:
        """Read what is noted on the one node."""
        assert self._node is not None
        return [Ready(name, Journal(self._node, name).unpaid()) for name in agents]

    def wait(self, timeout_s: float) -> list[Done]:
        """Give all that has come in, waiting for the first."""
        try:
            done = [self._outbox.get(timeout=timeout_s)]
        except queue.Empty:
            return []
        while not self._outbox.empty():
            done.append(self._outbox.get())
        return done

    def close(self) -> None:
        """Cancel what runs and join the threads."""
        self._stop.set()
        for inbox in self._inboxes.values():
            inbox.put(None)
        for thread in self._threads:
            thread.join(timeout=10)


def _gpus_of(index: int, gpus: float) -> str:
    """Name the devices of a slot, packing fractions: half a GPU each gives 0, 0, 1, 1."""
    if not gpus:
        return ""
    first = int(index * gpus) if gpus >= 1 else index // shares(1, gpus)
    devices = [str(first + i) for i in range(max(1, round(gpus)))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        names = [v.strip() for v in visible.split(",")]
        devices = [names[int(d)] for d in devices if int(d) < len(names)]
    return ",".join(devices)
