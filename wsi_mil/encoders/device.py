"""Which device an encoder runs on, how many threads it takes there, and how many small operations share them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from wsi_mil.errors import EncoderError


def choose_device(wanted: str = "auto") -> str:
    """The device of a name: "auto" takes a CUDA device where there is one, else the CPU.

    Raises EncoderError where a device is asked for that this machine, or this build of torch, does not have.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EncoderError(f"device {wanted!r} cannot be used here ({reason}); use 'cpu' or 'auto'") from error
    return wanted


def limit_threads(count: int) -> None:
    """Let torch use this many threads for one operation in this process."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def lone_threads(size: int) -> ThreadPoolExecutor:
    """A pool whose threads compute on one core each, for whole batches side by side; other threads stay as they are."""
    return ThreadPoolExecutor(
        size, thread_name_prefix="wsi-mil-encode", initializer=torch.set_num_threads, initargs=(1,)
    )


class Crew:
    """Threads that take one part of the work each and compute on one core, with torch in inference mode.

    For work made of many small operations: torch's own threads meet after every one of them, which costs more than the
    operation, and with other work on the cores (decoding tiles) they wait for each other most of the time.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="wsi_mil-encoder")
        together = threading.Barrier(size)

        def settle(_: int) -> None:
            torch.set_num_threads(1)
            together.wait()

        threads = torch.get_num_threads()
        list(self._pool.map(settle, range(size)))
        # The number is each thread's own, but setting it anywhere also sets what later threads begin with.
        torch.set_num_threads(threads)

    def map(self, work: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> list[Tensor]:
        """What `work` makes of each part, in order."""

        def quietly(part: Tensor) -> Tensor:
            with torch.inference_mode():
                return work(part)

        return list(self._pool.map(quietly, parts))
