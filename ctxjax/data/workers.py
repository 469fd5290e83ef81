"""Worker processes that take one task after another, die with their parent, and are not there where one is enough."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from ctxjax.config import ConfigError


class Pool:
    """Worker processes with few tasks waiting; with one worker everything happens here."""

    def __init__(self, workers: int):
        self.workers = workers
        self._waiting: dict[concurrent.futures.Future[Any], Callable[[Any], None]] = {}
        self._executor: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        if self.workers > 1:
            self._executor = concurrent.futures.ProcessPoolExecutor(
                self.workers, multiprocessing.get_context("spawn"), _start_worker, (os.getpid(),)
            )
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=kind is not None)

    def submit(self, task: Callable[..., Any], arguments: tuple[Any, ...], done: Callable[[Any], None]) -> None:
        """Run a task; `done` gets its result, in this process, some time before `drain` returns."""
        if self._executor is None:
            done(task(*arguments))
            return
        try:
            self._waiting[self._executor.submit(task, *arguments)] = done
        except concurrent.futures.process.BrokenProcessPool:
            raise self._died() from None
        if len(self._waiting) >= self.workers + 2:
            self._collect(concurrent.futures.FIRST_COMPLETED)

    def drain(self) -> None:
        """Wait for all tasks."""
        self._collect(concurrent.futures.ALL_COMPLETED)

    def _collect(self, until: str) -> None:
        finished, _ = concurrent.futures.wait(self._waiting, return_when=until)
        for future in finished:
            done = self._waiting.pop(future)
            try:
                done(future.result())
            except concurrent.futures.process.BrokenProcessPool:
                raise self._died() from None

    def _died(self) -> ConfigError:
        return ConfigError(
            f"a worker process died, perhaps for want of memory; the same command continues, with less memory "
            f"where --workers is below {self.workers}"
        )


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
