"""Self-supervised audio representation learning, and working systems built on it.

import auricle
auricle.pretrain("ssast", "my_audio/", "runs/mine", max_minutes=5)
auricle.load("runs/mine").embed("a.wav").clip
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from auricle.api import (
        check,
        cross_validate,
        embed,
        embed_library,
        evaluate,
        finetune,
        input_statistics,
        list_models,
        load,
        predict,
        pretrain,
        probe,
        search,
    )

__all__ = [
    "__version__",
    "check",
    "cross_validate",
    "embed",
    "embed_library",
    "evaluate",
    "finetune",
    "input_statistics",
    "list_models",
    "load",
    "predict",
    "pretrain",
    "probe",
    "search",
]


def __getattr__(name: str) -> object:
    # Torch is imported when something is used, so that `auricle --help` answers at once.
    if name in __all__:
        return getattr(importlib.import_module("auricle.api"), name)
    raise AttributeError(f"module 'auricle' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
