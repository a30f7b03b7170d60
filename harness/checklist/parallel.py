"""Many pieces of work at once, of which the first that fails ends all the others."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

T = TypeVar("T")


def in_parallel(jobs: int, work: Sequence[Callable[[], T]], cancel: Event) -> list[T]:
    """Do all of it, some at a time; when one fails, or a signal comes, the others are ended."""
    with ThreadPoolExecutor(jobs) as pool:
        try:  # from the first piece on: a signal may come before the last one is handed in
            futures = [pool.submit(piece) for piece in work]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            cancel.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]
