"""A run carried out in this process, in the shape that `RayRun` has: for debugging and for tests.

Owns the coordinator's thread. Knows no signals and shows nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from swarm.config import RunConfig
from swarm.coordinator import Coordinator
from swarm.rundir import RunDir
from swarm.runtime import Inline


class InlineRun:
    """A run in this process: the coordinator in a thread of its own."""

    def __init__(
        self,
        rundir: RunDir,
        config: RunConfig,
        *,
        prefixes: Mapping[str, str],
        keys: Mapping[str, str],
    ) -> None:
        self._runtime = Inline()
        self._coordinator = Coordinator(rundir, config, self._runtime, prefixes=prefixes, keys=keys)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="coordinator", daemon=True)

    def _work(self) -> None:
        try:
            self._coordinator.run()
        except BaseException as error:  # raised again by `poll`, in the main thread
            self._error = error

    def __enter__(self) -> InlineRun:
        self._thread.start()
        return self

    def poll(self, timeout_s: float) -> bool:
        """Wait a little; True when the run has ended. Raises what it ended with."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def kill(self) -> None:
        """Cancel what is under way and leave."""
        self._coordinator.interrupt("killed")
        self._runtime.close()
        self._thread.join(2)

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.kill()
