"""How much memory is held and how much is free, and what is said when a training does not fit into it."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from auricle.config import TrainConfig
from auricle.errors import ConfigError, plural

# torch.OutOfMemoryError on accelerators; the allocator of the CPU raises plain RuntimeErrors with these words.
SIGNS = ("not enough memory", "can't allocate memory", "out of memory")
# Limits of the control groups that containers and batch jobs run in: (limit, usage) of version 2, then of version 1.
GROUPS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))

# Seconds: shorter crops are no remedy.
LEAST_CROP = 0.1


@contextmanager
def enough_memory(config: TrainConfig) -> Iterator[None]:
    """Turn an allocation that fails into advice.

    Raises:
        ConfigError: memory ran out; the message says which settings need less.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in SIGNS):
            raise
        clips = plural(-(-config.batch_size // config.accumulate), "clip")
        raise ConfigError(
            f"memory is not enough for {clips} of {config.crop_seconds:g} s at once; {remedies(config)}."
        ) from None


def remedies(config: TrainConfig, fits: float | None = None, batch_size: int = 0, whole_batch: bool = False) -> str:
    """What needs less memory; accumulating micro-batches comes first, as it changes no result.

    Args:
        fits: how many clips fit at once, or the share of one that does; 0: none however short. Where it is not known
            (None), the advice is half of what did not fit.
        batch_size: clips of a batch, where the data holds fewer than the settings say.
        whole_batch: the batch cannot be cut into pieces.
    """
    if fits is not None and fits <= 0:
        return "the network alone does not fit; take a smaller preset, or a machine with more memory"
    batch_size = batch_size or config.batch_size
    held = -(-batch_size // config.accumulate)
    room = held / 2 if fits is None else fits
    found = []
    if held > 1 and room >= 1:
        most = int(room)
        pieces = (n for n in range(-(-batch_size // most), config.batch_size + 1) if config.batch_size % n == 0)
        found += [] if whole_batch else [f"raise accumulate (--set accumulate={next(pieces)})"]
        found += [f"lower batch_size (--set batch_size={most * config.accumulate})"]
    elif held > 1:
        # Not even one clip fits as it is.
        found += [
            f"take one clip at a time, shorter (--set accumulate={config.batch_size} and "
            f"--set crop_seconds={_rounded_down(config.crop_seconds * room)})"
        ]
        return found[0]
    shorter = config.crop_seconds * room / held
    found += [f"shorten crop_seconds (--set crop_seconds={_rounded_down(shorter)})"] if shorter >= LEAST_CROP else []
    return ", or ".join(found) or "take a smaller preset, or a machine with more memory"


def _rounded_down(seconds: float) -> str:
    """With four significant digits."""
    digits = 3 - math.floor(math.log10(seconds))
    return f"{math.floor(seconds * 10**digits) / 10**digits:g}"


def peak_mb() -> float:
    """The most memory that this process has held so far, in MB."""
    # On Linux, getrusage counts what the process that started this one held.
    found = _status("VmHWM:")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def available_mb(device: torch.device) -> float:
    """What this process could hold in MB, with what it holds already; infinite where the system does not say.

    On a CPU, the machine's free memory or what is left of the control group's limit, whichever is less.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    return min(_machine_mb(), _group_mb()) + (_status("VmRSS:") or 0.0)


def _machine_mb() -> float:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 2**10
    return math.inf


def _group_mb(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """What the control groups of this process leave free."""
    folders = [root, root / "memory"]
    with suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            number, controllers, place = line.split(":", 2)
            if number == "0" or "memory" in controllers.split(","):
                below = root if number == "0" else root / "memory"
                # A limit of a group holds for those inside it.
                parts = Path(place.lstrip("/")).parts
                folders += [below.joinpath(*parts[: n + 1]) for n in range(len(parts))]
    left = [math.inf]
    for folder in folders:
        for limit, usage in GROUPS:
            # No such file, or the word "max": there is no limit.
            with suppress(OSError, ValueError):
                left.append((int((folder / limit).read_text()) - int((folder / usage).read_text())) / 2**20)
    return max(0.0, min(left))


def _status(name: str) -> float | None:
    """A size from /proc/self/status in MB; None where there is no such thing."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 2**10
    return None
