"""Where work runs: in this process, in processes of this machine, or on a dask cluster. No stage knows which."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from wsi_mil.errors import ConfigError, MissingExtra

IN_FLIGHT_PER_WORKER = 2
"""Calls submitted ahead for each worker: enough to keep it busy, few enough to keep 50,000 slides out of memory."""


class Lost(Exception):
    """The worker that ran a call died (killed, out of memory, crashed in a library)."""


class Executor(ABC):
    """Runs one function over many argument lists and yields (argument index, result or Lost) as each ends."""

    remote: bool
    """Whether calls run outside this process, so that they cannot tick a progress bar here."""

    @abstractmethod
    def run(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call `function(*arguments)` for each of `calls`; both must be picklable where the executor is remote."""


class Here(Executor):
    """One call after the other, in this process."""

    remote = False

    def run(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call in order."""
        for index, arguments in enumerate(calls):
            yield index, function(*arguments)


class Processes(Executor):
    """A pool of fresh processes on this machine; the death of one costs at most the calls that were running."""

    remote = True

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call in a pool; calls that were in flight when a worker died are tried once more, each alone."""
        waiting = list(range(len(calls)))[::-1]
        while waiting:
            suspects: list[int] = []
            yield from self._pool(function, calls, waiting, suspects)
            for index in suspects:
                alone: list[int] = []
                yield from self._pool(function, calls, [index], alone, workers=1)
                if alone:
                    yield index, Lost("the process that worked on it died twice (killed, or out of memory)")

    def _start(self, context: Any, workers: int) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """What each worker does first, and with what arguments."""
        return _share_cores, (self.workers,)

    def _pool(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        waiting: list[int],
        suspects: list[int],
        *,
        workers: int | None = None,
    ) -> Iterator[tuple[int, Any]]:
        workers = workers or self.workers
        # Fresh interpreters: a fork after torch or OpenSlide started threads can hang.
        context = multiprocessing.get_context("spawn")
        first, arguments = self._start(context, workers)
        with ProcessPoolExecutor(workers, mp_context=context, initializer=first, initargs=arguments) as pool:
            running: dict[Future[Any], int] = {}
            while waiting or running:
                try:
                    while waiting and len(running) < workers * IN_FLIGHT_PER_WORKER:
                        running[pool.submit(function, *calls[waiting[-1]])] = waiting[-1]
                        waiting.pop()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        yield running.pop(future), result
                except BrokenProcessPool:
                    suspects.extend(running.values())
                    return


class Gpus(Processes):
    """A process for each GPU, which sees that one alone; who is done takes the next call."""

    def __init__(self, gpus: Sequence[str]) -> None:
        super().__init__(len(gpus))
        self.gpus = tuple(gpus)

    def _start(self, context: Any, workers: int) -> tuple[Callable[..., None], tuple[Any, ...]]:
        free = context.Queue()
        for gpu in self.gpus[:workers]:
            free.put(gpu)
        return _take_gpu, (free, self.workers)


class Dask(Executor):
    """A dask cluster that is already there; dask reroutes the work of a worker that dies."""

    remote = True

    def __init__(self, address: str) -> None:
        self.address = address

    def run(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call on the cluster, a bounded number at a time; a call that kills its workers is given up by dask."""
        try:
            from distributed import Client, as_completed
            from distributed.scheduler import KilledWorker
        except ImportError as error:
            raise MissingExtra("distributed", extra="dask", purpose="running on dask") from error
        keywords = {"scheduler_file": self.address} if self.address.endswith(".json") else {"address": self.address}
        try:
            client: Any = Client(timeout=15, set_as_default=False, **keywords)
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(
                f"no dask scheduler answers at {self.address!r} ({error}): start one, or use --on here"
            ) from error
        with client:
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            if not workers:
                raise ConfigError(f"the dask scheduler at {self.address} has no workers: start some with `dask worker`")
            waiting = list(range(len(calls)))[::-1]
            first = [waiting.pop() for _ in range(min(len(waiting), workers * IN_FLIGHT_PER_WORKER))]
            index_of = {}
            for index in first:
                index_of[client.submit(function, *calls[index], pure=False)] = index
            ended = as_completed(list(index_of), loop=client.loop)
            for future in ended:
                index = index_of.pop(future)
                try:
                    result = future.result()
                except KilledWorker as error:
                    result = Lost(f"its dask workers died again and again: {error}")
                yield index, result
                if waiting:
                    following = waiting.pop()
                    more = client.submit(function, *calls[following], pure=False)
                    index_of[more] = following
                    ended.add(more)


def executor(where: str) -> Executor:
    """The executor for "here", "processes:N", "gpus", "gpus:N", or "dask:ADDRESS" (tcp://host:port, scheduler file).

    Raises ConfigError for any other, and where there are not as many GPUs.
    """
    kind, _, rest = where.partition(":")
    if kind == "here" and not rest:
        return Here()
    if kind == "processes":
        with contextlib.suppress(ValueError):
            if int(rest) >= 1:
                return Processes(int(rest))
    if kind == "gpus" and (not rest or (rest.isdigit() and int(rest) >= 1)):
        found = visible_gpus()
        wanted = int(rest or len(found))
        if not found or wanted > len(found):
            raise ConfigError(
                f"cannot run on {where!r}: {len(found)} GPU(s) are visible here (CUDA_VISIBLE_DEVICES, nvidia-smi -L)"
            )
        return Gpus(found[:wanted])
    if kind == "dask" and rest:
        return Dask(rest)
    raise ConfigError(
        f"cannot run on {where!r}: write here, processes:N (as in processes:4), gpus, gpus:N or dask:ADDRESS (as in "
        "dask:tcp://host:8786)"
    )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them; torch is not imported."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


def _take_gpu(free: Any, workers: int) -> None:
    """Let this worker see one GPU of its own, before torch is imported and counts them."""
    os.environ["CUDA_VISIBLE_DEVICES"] = free.get(timeout=60)
    _share_cores(workers)


def _share_cores(workers: int) -> None:
    """Give each of several worker processes its share of the cores, before any library starts its threads."""
    share = str(max(1, cores() // workers))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, share)
