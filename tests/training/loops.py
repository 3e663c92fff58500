"""Small trainings, and what is left of them to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from auricle.training import pretrain
from auricle.training.job import Job
from auricle.training.log import Console

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


def job_of(data: Path, run: Path, *, method: str = "ssast", seed: int = 0, **settings: Any) -> Job:
    """A pretraining of preset `test`, without what surrounds the loop; a checkpoint after every step."""
    plan = pretrain.plan(method, [data], preset="test", settings={"steps": 6, **settings}, seed=seed)
    run.mkdir(exist_ok=True)
    config = {"kind": "pretraining", "method": method, "model": {}}
    return Job(pretrain.build(plan), pretrain.build_loader(plan), plan.train, run, seed, config, checkpoint_every=1)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
