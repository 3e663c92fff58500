"""Several processes that train one network, started by torchrun.

Symptom: one process of a run fails, and the others wait for ever, or each prints a traceback of its own. Cause: they
meet only where gradients are added up, and who fails never comes there. Here everything that can fail on one process
alone is done `together`: its error is raised on all of them at the same point, and the first process tells it. A
process that dies without a word is noticed by the others at their next meeting.

The meetings go over gloo, on CUDA too: they hold Python objects and must not wait for a GPU. Gradients go through
torch's DistributedDataParallel, over NCCL on CUDA.
"""

from __future__ import annotations

import atexit
import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from auricle.errors import AuricleError, ConfigError

T = TypeVar("T")
E = TypeVar("E", bound=AuricleError)


@dataclass(frozen=True)
class Group:
    """The processes of a run and which of them this is; one process alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes, validates and talks."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank.

        Raises:
            AuricleError: another process has ended.
        """
        if self.size == 1:
            return [value]
        values = [value] * self.size
        with self.peers():
            dist.all_gather_object(values, value)
        return values

    def together(self, work: Callable[[], T]) -> T:
        """Do `work` on every process; an error on one of them is raised on all."""
        if self.size == 1:
            return work()
        result: list[T] = []
        own: Exception | None = None
        try:
            result.append(work())
        except Exception as error:
            own = error
        errors = [error for error in self.gather(self._portable(own)) if error is not None]
        if own is not None and not isinstance(own, AuricleError):
            raise own
        if errors:
            raise self.common(errors[0]) from own
        return result[0]

    def on_first(self, work: Callable[[], T]) -> T:
        """Do `work` on the first process only, and give its result, or its error, to all."""
        done = self.together(lambda: [work()] if self.first else [])
        return self.gather(done)[0][0]

    def common(self, error: E) -> E:
        """An error that all processes raise, marked so that only the first one tells it."""
        error.told_elsewhere = not self.first
        return error

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose backward pass leaves in every process the mean over processes of its gradients."""
        if self.size == 1:
            return module
        # Buffers are the same everywhere, as all that is drawn or computed; torch 2.13 renamed the option.
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        # Looking for unused parameters also keeps the buckets of the first step. Otherwise they are cut anew after it,
        # and a resumed run adds up three or more processes in another order than one that was not interrupted.
        options: dict[str, Any] = {"find_unused_parameters": True, buffers: False}
        return DistributedDataParallel(module, **options)

    def accumulating(self, network: nn.Module) -> AbstractContextManager[None]:
        """Forward and backward passes whose gradients stay in this process until the next pass outside."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    @contextmanager
    def peers(self) -> Iterator[None]:
        """Where this process waits for others: their end becomes one sentence."""
        try:
            with warnings.catch_warnings():
                # Of parameters like [1, 1, D] torch complains that a copy of D numbers is slow.
                warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
                yield
        except RuntimeError as error:
            if self.size == 1 or not any(library in str(error) for library in ("gloo", "NCCL")):
                raise
            if re.search("time(d )?out", str(error), re.IGNORECASE):
                raise AuricleError(
                    f"process {self.rank} of {self.size} has waited too long for another one, which hangs or is very "
                    "slow; end the run and give the same command again to resume."
                ) from error
            raise AuricleError(
                f"process {self.rank} of {self.size} cannot go on: another process of the run has ended; "
                "mend what that one says, or, if it was killed, run the same command again to resume."
            ) from error

    def _portable(self, error: Exception | None) -> AuricleError | None:
        if error is None or isinstance(error, AuricleError):
            return error
        return AuricleError(f"process {self.rank} of {self.size} failed: {type(error).__name__}: {error}")


def processes() -> Group:
    """The processes that torchrun started with this one; connects them at the first call.

    Raises:
        ConfigError: the environment is incomplete, or a machine runs more processes than it has GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE") or 1)
    if size == 1:
        return Group()
    if not dist.is_initialized():
        lacking = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if lacking:
            raise ConfigError(
                f"WORLD_SIZE is {size}, but {', '.join(lacking)} is not set: start several processes with torchrun, "
                "or unset WORLD_SIZE."
            )
        cuda = torch.cuda.is_available()
        if cuda:
            local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= gpus:
                raise ConfigError(f"process {local} of this machine finds only {gpus} GPUs; lower --nproc-per-node.")
            torch.cuda.set_device(local)
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)
    return Group(dist.get_rank(), dist.get_world_size())
