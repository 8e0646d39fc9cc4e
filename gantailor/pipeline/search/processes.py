"""Worker processes of this machine: replaced when they are killed, ended with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

from gantailor.search.errors import SearchError
from gantailor.supernet.errors import GantailorError, told

RESTARTS = 3  # of killed workers, one after the other without a new result
INTERVAL = 0.3  # seconds between two looks at the results
ENDING = 5.0  # seconds that a worker has to end before it is killed

Work = Callable[..., None]


def run_workers(work: Work, arguments: Sequence[Any], *, count: int, results: Callable[[], int]) -> None:
    """Run ``work(*arguments)`` in several processes until all have ended. They end with this call, however it ends.

    Args:
        work: importable, for it is spawned; what it raises ends the worker, and it is not replaced.
        results: called now and then; how many results there are by now.

    Raises:
        SearchError: every worker failed, or workers were killed one after the other without a new result.
    """
    workers = [_start(work, arguments) for _ in range(count)]
    try:
        _watch(workers, lambda: _start(work, arguments), results)
    finally:
        _end(workers)
    if all(worker.exitcode for worker in workers):
        raise SearchError("every search worker failed; the reasons stand above and in the study's trials")


def _start(work: Work, arguments: Sequence[Any]) -> SpawnProcess:
    worker = multiprocessing.get_context("spawn").Process(target=_worker, args=(work, *arguments), daemon=True)
    worker.start()
    return worker


def _watch(workers: list[SpawnProcess], start: Callable[[], SpawnProcess], results: Callable[[], int]) -> None:
    known, restarts = results(), 0
    while any(worker.exitcode is None or worker.exitcode < 0 for worker in workers):
        wait([worker.sentinel for worker in workers if worker.exitcode is None], timeout=INTERVAL)
        if (now := results()) != known:
            known, restarts = now, 0
        for place, worker in enumerate(workers):
            code = worker.exitcode
            if code is not None and code < 0:
                if restarts == RESTARTS:
                    raise SearchError(_killed(-code))
                restarts += 1
                workers[place] = start()
    results()


def _killed(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    told = f"search workers were killed by {name} {RESTARTS + 1} times without a new result in between"
    if number == signal.SIGKILL:
        return (
            f"{told}: most likely memory ran out (the system's log, dmesg, names the process). Take fewer "
            "search.workers, fewer evaluation.search_images, or a machine with more memory; the same command continues"
        )
    return f"{told}; what they wrote stands above. With search.workers 1 the error shows where it happens"


def _end(workers: Sequence[SpawnProcess]) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + ENDING
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _worker(work: Work, *arguments: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it holds is given back
    try:
        work(*arguments)
    except KeyboardInterrupt:  # the parent tells
        sys.exit(128 + signal.SIGINT)
    except GantailorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        print(f"error: a search worker ends with {told(error)}", file=sys.stderr)
        sys.exit(1)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
