"""The only importer of Ray: a `Runtime` made of actors, and the driver that starts it.

The driver (`RayRun`, in the `swarm launch` process) starts or joins a cluster and the coordinator
actor; the coordinator's own runtime (`Actors`) owns a node actor per machine, an actor per slot
and one per agent. Truth is the ledger and git: any actor may die at any moment, and what was lost
is done again by experiment number, never by Ray's retries.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

# Read by Ray when it is imported or when it starts processes: no telemetry, no `uv run` hook, and
# measurements at normal priority instead of Ray's nice 15.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_DEDUP_LOGS": "0",
}.items():
    os.environ.setdefault(_name, _value)

import psutil  # noqa: E402
import ray as _ray  # noqa: E402
from ray.exceptions import GetTimeoutError, RayActorError, RayError  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from swarm.agent import Journal, ProposeDone, ProposeJob, Ready  # noqa: E402
from swarm.config import RunConfig, SlotConfig  # noqa: E402
from swarm.coordinator import Coordinator  # noqa: E402
from swarm.errors import PreconditionError, RunFailedError, SwarmError  # noqa: E402
from swarm.node import Bench, MeasureDone, MeasureJob, Node, NodeSite, machine_kind  # noqa: E402
from swarm.records import ProcessStamp, SlotInfo  # noqa: E402
from swarm.rundir import RunDir  # noqa: E402
from swarm.runtime import Done, Lost, Muster, Pairs, Post, Up, shares, slot_count  # noqa: E402
from swarm.sandbox import stamp  # noqa: E402

# Ray's own annotations are partial: what crosses this border is checked by our own types.
ray: Any = _ray

READY_S = 90.0
"""How long an actor may take to come up before its resources are taken for missing."""
CALL_OFF_S = 10.0
"""How long a node may take to read what an agent has spent."""
RESTARTS = 3
"""Times that the driver starts a dead coordinator again without progress in between."""


# --- actors: thin shells around plain classes ---------------------------------------------------


def _die_with_parent() -> None:
    """End this process when its raylet goes: Ray lets busy workers live on for minutes."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


class NodeActor:
    """One machine's mirror and set-up."""

    def __init__(self, gpus: bool) -> None:
        _die_with_parent()
        self._gpus = gpus

    def prepare(self, site: NodeSite) -> tuple[str, ProcessStamp] | SwarmError:
        """Build the node and name its kind of machine."""
        try:
            Node(site).prepare()
        except SwarmError as error:
            return error
        return machine_kind(_gpu_model() if self._gpus else None), stamp("node")

    def unpaid(self, site: NodeSite, agent: str) -> Ready:
        """Read what an agent that is dead has spent without a result."""
        return Ready(agent, Journal(Node(site), agent).unpaid())


class SlotActor:
    """One place to measure."""

    def __init__(self, site: NodeSite, slot: SlotInfo) -> None:
        _die_with_parent()
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if slot.gpus else ""
        self._bench = Bench(Node(site), slot, gpus)
        self._name = slot.name

    def hello(self) -> ProcessStamp:
        """Tell that the slot is up."""
        return stamp(self._name)

    def measure(self, job: MeasureJob) -> tuple[MeasureDone, ProcessStamp | None]:
        """Make one measurement."""
        return self._bench.measure(job), self._bench.supervisor


class AgentActor:
    """One agent."""

    def __init__(self, site: NodeSite, post: Post) -> None:
        _die_with_parent()
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._node, self._name = Node(site), post.info.name
        self._pairs = Pairs(self._node, post)

    def hello(self) -> tuple[ProcessStamp, Ready]:
        """Tell that the agent is up, and what the one before it left unpaid."""
        return stamp(self._name), Ready(self._name, Journal(self._node, self._name).unpaid())

    def propose(self, job: ProposeJob) -> ProposeDone:
        """Make one proposal."""
        return self._pairs.propose(job)


class CoordinatorActor:
    """The coordinator in a process of its own."""

    def __init__(
        self,
        rundir: RunDir,
        config: RunConfig,
        prefixes: Mapping[str, str],
        local: bool,
        keys: Mapping[str, str],
    ) -> None:
        _die_with_parent()
        self._args = (rundir, config, prefixes, local, keys)

    def hello(self) -> ProcessStamp:
        """Tell that the process is up."""
        return stamp("coordinator")

    def run(self) -> SwarmError | None:
        """Go on until the run ends; an expected error is handed back as it is."""
        rundir, config, prefixes, local, keys = self._args
        logging.basicConfig(filename=rundir.path / "swarm.log", level=logging.INFO, format=LOG)
        try:
            Coordinator(rundir, config, Actors(local=local), prefixes=prefixes, keys=keys).run()
        except SwarmError as error:
            return error
        return None


_NEVER_AGAIN = {"max_restarts": 0, "max_task_retries": 0}
"""Retries are ours, by experiment number: Ray's would run a measurement twice."""


def _remote(cls: type, **options: Any) -> Any:
    return ray.remote(**_NEVER_AGAIN, num_cpus=0, **options)(cls)


LOG = "%(asctime)s %(levelname)s %(message)s"


def _gpu_model() -> str | None:
    with suppress(OSError):
        for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
            for line in info.read_text().splitlines():
                if line.startswith("Model:"):
                    return line.split(":", 1)[1].strip()
    return None


# --- the coordinator's runtime ------------------------------------------------------------------


@dataclass
class _Place:
    """An actor with all that is needed to put up another in its stead."""

    make: Any
    node: str
    actor: Any = None
    agent: bool = False
    job: Any = None
    losses: int = 0


@dataclass
class Actors:
    """`Runtime` on a cluster that this process has joined."""

    local: bool
    name: str = "ray"
    _places: dict[str, _Place] = field(default_factory=dict[str, _Place])
    _refs: dict[Any, str] = field(default_factory=dict[Any, str])
    _hellos: dict[Any, str] = field(default_factory=dict[Any, str])
    _supervisors: dict[str, ProcessStamp] = field(default_factory=dict[str, ProcessStamp])
    _nodes: dict[str, Any] = field(default_factory=dict[str, Any])
    _site: NodeSite | None = None

    def start(self, muster: Muster) -> tuple[SlotInfo, ...]:
        """Prepare the nodes, then put up slots and agents."""
        rooms = _rooms(muster.slot, local=self.local)
        kinds = self._prepare(muster, [node for node, count in rooms if count])
        light = self._site = replace(muster.site, bundle=b"")
        slots: list[SlotInfo] = []
        for node, count in rooms:
            for _ in range(count):
                slot = SlotInfo(
                    name=f"s{len(slots) + 1}",
                    node=node,
                    machine=kinds[node],
                    gpus=muster.slot.gpus,
                    cpus=muster.slot.cpus,
                )
                slots.append(slot)
                self._put_up(_Place(_slot_maker(light, slot), node), slot.name)
        nodes = list(kinds)
        for i, post in enumerate(muster.posts):
            node = nodes[i % len(nodes)]
            self._put_up(_Place(_agent_maker(light, post, node), node, agent=True), post.info.name)
        self._await_slots(slots)
        return tuple(slots)

    def _prepare(self, muster: Muster, nodes: list[str]) -> dict[str, str]:
        gpus = bool(muster.slot.gpus)
        actors = {
            n: _remote(NodeActor).options(scheduling_strategy=_pin(n)).remote(gpus) for n in nodes
        }
        self._nodes = actors
        answers = {n: a.prepare.remote(muster.site) for n, a in actors.items()}
        kinds: dict[str, str] = {}
        for node, answer in answers.items():
            found = ray.get(answer)
            if isinstance(found, SwarmError):
                raise found
            kinds[node] = found[0]
        return kinds

    def _await_slots(self, slots: list[SlotInfo]) -> None:
        """An actor whose resources are not there waits for ever without a word: do not.

        In a cluster of our own nobody else can hold them, and the first slot may begin at once.
        """
        waiting = [r for r, p in self._hellos.items() if p in {s.name for s in slots}]
        needed = 1 if self.local else len(waiting)
        ready, late = ray.wait(waiting, num_returns=needed, timeout=READY_S)
        if len(ready) < needed:
            raise PreconditionError(
                f"{len(late)} of {len(slots)} slots did not come up within {READY_S:g} s",
                hint="`ray status` shows what the cluster has left; lower `target.slot`",
            )

    def _put_up(self, place: _Place, name: str) -> None:
        place.actor = place.make()
        self._places[name] = place
        self._hellos[place.actor.hello.remote()] = name

    def node_of(self, agent: str) -> str:
        """Give the node that the agent is pinned to."""
        return self._places[agent].node

    def measure(self, job: MeasureJob) -> None:
        """Send the job to its slot."""
        self._send(job.slot, job, self._places[job.slot].actor.measure.remote(job))

    def propose(self, job: ProposeJob) -> None:
        """Send the job to its agent."""
        self._send(job.agent, job, self._places[job.agent].actor.propose.remote(job))

    def _send(self, place: str, job: Any, ref: Any) -> None:
        self._places[place].job = job
        self._refs[ref] = place

    def call_off(self, agents: Sequence[str]) -> list[Ready]:
        """Kill these agents, then read what they have spent from their nodes."""
        for name in agents:
            with suppress(RayError):
                ray.kill(self._places[name].actor)
        return self.unpaid(agents)

    def unpaid(self, agents: Sequence[str]) -> list[Ready]:
        """Read what is noted on any node."""
        nodes = [*self._nodes.values()]
        answers = [n.unpaid.remote(self._site, name) for name in agents for n in nodes]
        found: list[Ready] = []
        if not answers:
            return found
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=CALL_OFF_S)
        for answer in ready:
            with suppress(RayError):
                found.append(ray.get(answer))
        return found

    def wait(self, timeout_s: float) -> list[Done]:
        """Give what has come in."""
        refs = [*self._refs, *self._hellos]
        if not refs:
            time.sleep(timeout_s)
            return []
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        if ready and len(refs) > 1:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        done: list[Done] = []
        for ref in ready:
            done += self._collect(ref)
        return done

    def _collect(self, ref: Any) -> list[Done]:
        hello = ref in self._hellos
        name = (self._hellos if hello else self._refs).pop(ref)
        place = self._places[name]
        try:
            found = ray.get(ref)
        except RayActorError as error:
            if hello and not place.agent:
                return []  # its job, or the next one, will tell; an agent gets none before
            return self._replace(name, str(error))
        except RayError as error:
            place.job = None
            if place.agent:
                self._hellos[place.actor.hello.remote()] = name
            return [Lost(name, str(error))]
        if hello:
            return [Up(found[0]), found[1]] if place.agent else [Up(found)]
        place.job, place.losses = None, 0
        if isinstance(found, ProposeDone):
            return [found]
        done, supervisor = found
        if supervisor is not None and self._supervisors.get(name) != supervisor:
            self._supervisors[name] = supervisor
            return [Up(supervisor), done]
        return [done]

    def _replace(self, name: str, reason: str) -> list[Done]:
        """Put a new actor where one died, slower each time in a row."""
        place = self._places[name]
        with suppress(RayError):
            ray.kill(place.actor)
        time.sleep(min(5.0, 0.1 * 2**place.losses))
        self._put_up(replace(place, job=None, losses=place.losses + 1), name)
        lines = reason.strip().splitlines() or ["actor died"]
        # An actor that cannot be built says why in the last line, one that died in the first.
        return [Lost(name, lines[-1 if "creation task" in lines[0] else 0])]

    def close(self) -> None:
        """Kill all actors; what their slots still run dies with their supervisors."""
        for actor in [*(p.actor for p in self._places.values()), *self._nodes.values()]:
            with suppress(RayError, ValueError):
                ray.kill(actor)


def _pin(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def _slot_maker(site: NodeSite, slot: SlotInfo) -> Any:
    options = _remote(SlotActor).options(
        num_cpus=slot.cpus, num_gpus=slot.gpus, scheduling_strategy=_pin(slot.node)
    )
    return lambda: options.remote(site, slot)


def _agent_maker(site: NodeSite, post: Post, node: str) -> Any:
    return lambda: _remote(AgentActor).options(scheduling_strategy=_pin(node)).remote(site, post)


def _rooms(slot: SlotConfig, *, local: bool) -> list[tuple[str, int]]:
    """Give how many slots each node gets.

    Raises:
        PreconditionError: the cluster has no room for what is asked.
    """
    nodes = [n for n in ray.nodes() if n["Alive"]]
    gpus = sum(n["Resources"].get("GPU", 0.0) for n in nodes)
    if local:  # its CPU resource is a label for Ray's scheduler, not a count of cores
        node = nodes[0]
        cpus = float(os.cpu_count() or 1)
        return [(node["NodeID"], slot_count(slot, cpus=cpus, gpus=gpus))]
    cpus = sum(n["Resources"].get("CPU", 0.0) for n in nodes)
    wanted = slot_count(slot, cpus=cpus, gpus=gpus)
    rooms = [(n["NodeID"], _fits(slot, n["Resources"])) for n in nodes]
    if slot.count != "auto" and wanted > sum(count for _, count in rooms):
        raise PreconditionError(
            f"{wanted} slots were asked for, and the cluster has room for "
            f"{sum(count for _, count in rooms)}",
            hint="lower `target.slot.count`, or use `auto`",
        )
    return _spread(rooms, wanted)


def _fits(slot: SlotConfig, resources: dict[str, float]) -> int:
    by_cpu = int(resources.get("CPU", 0.0) / slot.cpus + 1e-9)
    return min(by_cpu, shares(resources.get("GPU", 0.0), slot.gpus)) if slot.gpus else by_cpu


def _spread(rooms: list[tuple[str, int]], wanted: int) -> list[tuple[str, int]]:
    """Deal slots to nodes in turn, as far as each has room."""
    given = dict.fromkeys((n for n, _ in rooms), 0)
    while wanted > 0 and any(given[n] < room for n, room in rooms):
        for node, room in rooms:
            if wanted > 0 and given[node] < room:
                given[node] += 1
                wanted -= 1
    return list(given.items())


# --- the driver ---------------------------------------------------------------------------------


class RayRun:
    """A run on Ray, seen from the `swarm launch` process. Enter it in the main thread."""

    def __init__(
        self,
        rundir: RunDir,
        config: RunConfig,
        *,
        prefixes: Mapping[str, str],
        keys: Mapping[str, str],
        address: str | None = None,
    ) -> None:
        self._rundir, self._config, self._prefixes = rundir, config, prefixes
        self._keys = keys
        configured = config.cluster.address if config.cluster.address != "local" else None
        self._address = address or configured or os.environ.get("RAY_ADDRESS") or "local"
        self._local = self._address == "local"
        self._actor: Any = None
        self._ref: Any = None
        self._restarts = 0
        self._ledger_size = 0
        self._temp: Path | None = None

    def __enter__(self) -> RayRun:
        self._quiet = _ray_noise_to(self._rundir.ray_log)
        self._quiet.__enter__()
        try:
            self._connect()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self) -> None:
        common: dict[str, Any] = {
            "logging_level": logging.ERROR,
            "log_to_driver": False,
            "namespace": f"swarm-{self._rundir.run}",
        }
        if self._local:
            self._temp = _temp_dir()
            common |= {
                "address": "local",
                "include_dashboard": False,
                "num_cpus": self._label(),
                "object_store_memory": 100_000_000,
                "_temp_dir": str(self._temp),
            }
        else:
            common["address"] = self._address
        for attempt in (1, 2):
            try:
                ray.init(**common)
                return
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                with suppress(Exception):
                    ray.shutdown()
                if attempt == 2 or not self._local:
                    raise PreconditionError(
                        f"cannot {'start' if self._local else 'reach'} Ray at "
                        f"{self._address}: {error}",
                        hint="check the address and that Ray and Python have the same versions "
                        f"there (here: Ray {ray.__version__}); see {self._rundir.ray_log}",
                    ) from error

    def _label(self) -> int:
        """Ray's CPU count of an own cluster: enough for every slot, whatever the cores are."""
        slot, cores = self._config.target.slot, os.cpu_count() or 1
        count = cores if slot.count == "auto" else slot.count
        agents = sum(g.count for g in self._config.agents)
        return max(cores, int(count * max(1.0, slot.cpus)) + min(agents, 16) + 2)

    def _start(self) -> None:
        here = ray.get_runtime_context().get_node_id()
        self._actor = (
            _remote(CoordinatorActor, max_concurrency=2)
            .options(scheduling_strategy=_pin(here))
            .remote(self._rundir, self._config, self._prefixes, self._local, self._keys)
        )
        try:
            ray.get(self._actor.hello.remote(), timeout=READY_S)
        except (GetTimeoutError, RayActorError) as error:
            raise RunFailedError(
                f"the coordinator did not come up: {error}",
                hint=f"launch again to resume; Ray's own words are in {self._rundir.ray_log}",
            ) from error
        self._ref = self._actor.run.remote()
        self._ledger_size = self._rundir.ledger.stat().st_size

    def poll(self, timeout_s: float) -> bool:
        """Wait a little; True when the run has ended. A dead coordinator is started again.

        Raises:
            SwarmError: what the coordinator ended with.
        """
        ready, _ = ray.wait([self._ref], timeout=timeout_s)
        if not ready:
            return False
        try:
            error: SwarmError | None = ray.get(self._ref)
        except RayActorError as died:
            self._restart(died)
            return False
        if error is not None:
            raise error
        return True

    def _restart(self, died: RayActorError) -> None:
        grown = self._rundir.ledger.stat().st_size > self._ledger_size
        self._restarts = 1 if grown else self._restarts + 1
        if self._restarts > RESTARTS or not _cluster_alive():
            raise RunFailedError(
                f"the coordinator died: {str(died).strip().splitlines()[0]}",
                hint="nothing decided is lost; launch again to resume",
            ) from died
        self._start()

    def kill(self) -> None:
        """End everything at once; the run can be resumed."""
        if self._actor is not None:
            with suppress(Exception):
                ray.kill(self._actor)

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            ray.shutdown()
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
        self._quiet.__exit__(None, None, None)


def _cluster_alive() -> bool:
    try:
        return any(n["Alive"] for n in ray.nodes())
    except Exception:  # whatever Ray raises here means that it is gone
        return False


def _temp_dir() -> Path:
    """Make Ray's own folder: short, because socket paths end at 107 bytes, and swept by us."""
    root = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    for old in root.glob("swarm-ray-*"):
        pid = old.name.split("-")[2]
        with suppress(FileNotFoundError):  # another launch sweeps too
            mine = old.stat().st_uid == os.getuid()
            if mine and pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"swarm-ray-{os.getpid()}-", dir=root))


class _MainThreadOnly:
    """A stream for our own words: what Ray's background threads print goes to its log instead."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    def _mine(self) -> TextIO:
        ours = threading.current_thread() is threading.main_thread()
        return self._stream if ours else self._log

    def write(self, text: str) -> int:
        return self._mine().write(text)

    def flush(self) -> None:
        self._mine().flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _ray_noise_to(path: Path) -> Generator[None]:
    """Send what Ray's libraries and threads print to a file; stdout and stderr stay ours."""
    sys.stderr.flush()
    before = sys.stdout, sys.stderr
    descriptor = os.dup(2)
    terminal = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
    with open(path, "a", buffering=1, encoding="utf-8", errors="replace") as log:
        os.dup2(log.fileno(), 2)
        out: Any = _MainThreadOnly(sys.stdout, log)
        err: Any = _MainThreadOnly(terminal, log)
        sys.stdout, sys.stderr = out, err
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            with suppress(OSError, ValueError):
                terminal.close()
            os.dup2(descriptor, 2)
            os.close(descriptor)
