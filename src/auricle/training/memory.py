"""What is said when a training does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from auricle.config import TrainConfig
from auricle.errors import ConfigError, plural

# torch.OutOfMemoryError on accelerators; the allocator of the CPU raises plain RuntimeErrors with these words.
SIGNS = ("not enough memory", "can't allocate memory", "out of memory")


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
        raise ConfigError(f"memory is not enough {advice(config)}.") from None


def advice(config: TrainConfig) -> str:
    """What was too much, and what needs less; accumulating micro-batches comes first, as it changes no result."""
    clips = -(-config.batch_size // config.accumulate)
    more = next((n for n in range(2 * config.accumulate, config.batch_size + 1) if config.batch_size % n == 0), 0)
    remedies = [f"raise accumulate (--set accumulate={more})"] if more else []
    remedies += [f"lower batch_size (--set batch_size={config.batch_size // 2})"] if config.batch_size > 1 else []
    remedies += [f"shorten crop_seconds (--set crop_seconds={config.crop_seconds / 2:g})"]
    return f"for {plural(clips, 'clip')} of {config.crop_seconds:g} s at once; {', or '.join(remedies)}"
