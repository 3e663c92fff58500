"""Checkpoints of other people's code, read without running any of it, as checkpoints of ours."""

from __future__ import annotations

import argparse
import dataclasses
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from auricle.config import to_dict
from auricle.data.labels import Task
from auricle.errors import CheckpointError, plural
from auricle.files import sha256
from auricle.methods import get_method, method_names
from auricle.methods.base import EncoderOnly, Imported, quirks
from auricle.tasks.classification import Classifier
from auricle.tasks.detection import Detector, first_decisions, frame_width
from auricle.training.checkpoint import restore, save_checkpoint

# Keys under which trainers wrap a state dict.
WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
# Networks and centres that stand side by side in a file of self-distillation; their tensors become "teacher/NAME".
BRANCHES = ("teacher", "student", "loss_cls", "loss_data")
# Where trainers write the settings that they were given.
SETTINGS = ("hyper_parameters", "args")
# What trainers save beside tensors: plain values that run no code when they are read.
_SCALAR: Any = np.float64(0).__reduce__()[0]
PLAIN_DATA: list[Any] = [
    *(argparse.Namespace, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType),
    # numpy 2 has moved the function.
    *((_SCALAR, f"numpy.{module}.multiarray.scalar") for module in ("_core", "core")),
]


@dataclass(frozen=True)
class ImportReport:
    """What became of a foreign file: where the checkpoint is, and every tensor's fate."""

    path: Path
    imported: Imported

    def lines(self) -> list[str]:
        """One line per tensor, then the counts."""
        rows = [
            f"{t.source} {list(t.shape)} -> {t.target or '-'} ({t.use}{': ' + t.note if t.note else ''})"
            for t in self.imported.tensors
        ]
        uses = [t.use for t in self.imported.tensors]
        counts = ", ".join(f"{uses.count(use)} {use}" for use in ("weight", "structure", "unused"))
        stated = [f"settings in the file: {self.imported.stated}"] if self.imported.stated else []
        assumed = [f"assumed, not in the file: {self.imported.assumed}"] if self.imported.assumed else []
        found = quirks(self.imported.config)
        official = [f"as in the official code: {', '.join(f'{k}={v}' for k, v in found.items())}"] if found else []
        return [*rows, *stated, *assumed, *official, f"{len(uses)} tensors: {counts}"]


def import_checkpoint(
    file: Path,
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
    task: Task = "classification",
) -> ImportReport:
    """Convert a published checkpoint file to a checkpoint directory.

    Args:
        file: a `.pth`/`.pt` state dict, or a `.safetensors` file.
        out: the directory to make.
        options: structure that the file does not hold; the error says which.
        classes: label names of a fine-tuned file; numbers, if left out.
        task: of a fine-tuned file: whether its classes exclude each other, or any number may be present. A file with a
            head for time steps is a detector all the same.

    Raises:
        CheckpointError: the file is unreadable, holds code, is of no known method, or does not fit.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"--out {out} exists and is not an empty directory; give a new one.")
    state, stated = read_file(file)
    imported = recognise(state, options, str(file), stated)
    sources = _sources(imported)
    broken = [sources.get(name, name) for name, value in imported.state.items() if not value.isfinite().all()]
    if broken:
        names = ", ".join(broken[:5])
        raise CheckpointError(f"{file} holds NaN or infinity in {plural(len(broken), 'tensor')} ({names}).")
    module = build(imported, classes, str(file), task)
    if isinstance(module, Detector):
        imported = dataclasses.replace(imported, assumed="; ".join(filter(None, (imported.assumed, decided(module)))))
    config: dict[str, Any] = {
        "kind": imported.kind,
        "method": imported.method,
        "preset": imported.preset,
        "model": to_dict(imported.config),
        "imported": {
            "file": file.name,
            "sha256": sha256(file),
            "stated": imported.stated,
            "assumed": imported.assumed,
        },
        "tensors": [t.__dict__ for t in imported.tensors],
    }
    if isinstance(module, Classifier):
        config |= {"classes": list(module.classes), "label": "label", "task": module.task, "loss": module.loss}
        config["head"] = imported.head
    if isinstance(module, Detector):
        config |= {**module.settings(), "classes": list(module.classes), "label": "label"}
    path = save_checkpoint(out.absolute().parent, out.name, weights=module.state_dict(), config=config)
    return ImportReport(path, imported)


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, as `read_file` reads them."""
    return read_file(file)[0]


def read_file(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and the settings that its trainer wrote beside them; nothing in it is executed.

    Raises:
        CheckpointError: missing, truncated, not a checkpoint, or it holds objects other than tensors and plain data.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file.")
    try:
        if file.suffix == ".safetensors":
            loaded: Any = load_file(file)
        else:
            with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN_DATA):
                warnings.simplefilter("ignore")
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Not torch's own message: it advises to load the file all the same.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise CheckpointError(
                f"{file} is not a checkpoint, is damaged, or holds objects that could run code; download it again."
            ) from None
        raise CheckpointError(
            f"{file} holds objects that could run code, so it is not loaded: it refers to '{named[1]}'."
        ) from None
    except PermissionError:
        raise CheckpointError(f"{file} cannot be read: its permissions forbid it.") from None
    except Exception:  # what a damaged file raises depends on which of its bytes are wrong, and says nothing to users
        raise CheckpointError(
            f"{file} ({file.stat().st_size:,} bytes) cannot be read as a checkpoint: it is damaged, or only a part of "
            "it was downloaded; download it again."
        ) from None
    stated = _stated(loaded)
    if isinstance(loaded, Mapping) and any(isinstance(loaded.get(branch), Mapping) for branch in BRANCHES):
        # DINO's layout: each network beside the other, the optimizer's state and the arguments.
        parts = {branch: loaded[branch] for branch in BRANCHES if isinstance(loaded.get(branch), Mapping)}
        loaded = {f"{branch}/{name}": value for branch, part in parts.items() for name, value in part.items()}
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{file} holds {type(loaded).__name__}, expected a mapping of names to tensors.")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if len(tensors) != len(loaded):
        others = [str(name) for name in loaded if str(name) not in tensors]
        names = ", ".join(others[:5])
        raise CheckpointError(f"{file} holds {plural(len(others), 'value')} beside tensors ({names}).")
    hollow = [n for n, t in tensors.items() if t.numel() * t.element_size() > t.untyped_storage().nbytes()]
    if hollow:
        # A few stored bytes repeated: to use such a tensor could take any amount of memory.
        count = plural(len(hollow), "tensor")
        raise CheckpointError(f"{file}: fewer values are stored than {count} should have ({hollow[0]}).")
    return tensors, stated


def _stated(loaded: Any) -> dict[str, Any]:
    """The settings that Lightning (`hyper_parameters`) and DINO (`args`) write beside tensors."""
    settings: dict[str, Any] = {}
    for name in SETTINGS:
        value = loaded.get(name) if isinstance(loaded, Mapping) else None
        value = vars(value) if isinstance(value, argparse.Namespace) else value
        if isinstance(value, Mapping):
            settings |= {str(key): setting for key, setting in value.items()}
    return settings


def recognise(
    state: Mapping[str, Tensor],
    options: Mapping[str, Any] | None,
    where: str,
    stated: Mapping[str, Any] | None = None,
) -> Imported:
    """Find the method that a state dict belongs to, and translate it.

    `options` are settings that the user gave, `stated` those that the file holds beside its tensors.

    Raises:
        CheckpointError: no method knows it.
    """
    for name in method_names():
        method = get_method(name)
        if method.recognises(state):
            return method.import_state(state, options, stated)
    known = ", ".join(method_names())
    raise CheckpointError(f"{where} is no checkpoint of {known}; its first tensors are {', '.join(list(state)[:4])}.")


def build(
    imported: Imported, classes: Sequence[str] = (), where: str = "the file", task: Task = "classification"
) -> nn.Module:
    """The module of an imported checkpoint with its weights.

    Raises:
        CheckpointError: a tensor is missing or has the wrong shape, or `classes` are not as many as the file's, or not
            all different.
    """
    method = get_method(imported.method)
    names = list(classes) or [str(i) for i in range(imported.classes)]
    if len(names) != imported.classes:
        raise CheckpointError(f"{where} has {imported.classes} classes, but {len(names)} names were given.")
    if len(set(names)) != len(names):
        raise CheckpointError(f"the names for the classes of {where} must be different, but some are given twice.")

    def fresh() -> nn.Module:
        if imported.kind == "pretraining":
            return method.build_objective(imported.config)
        encoder = method.build_encoder(imported.config)
        if imported.kind == "detector":
            return Detector(encoder, names, reads, pooling=imported.pooling, normalise=False)
        return Classifier(encoder, names, task=task, head=imported.head) if names else EncoderOnly(encoder)

    # What is drawn here is overwritten; the caller's generators stay as they are.
    with torch.random.fork_rng(devices=[]):
        state = imported.state
        if imported.kind == "detector":
            reads = state["head.linear.weight"].shape[-1]
            with torch.device("meta"):
                rate = method.build_encoder(imported.config).frame_rate
            # A published detector brings neither thresholds nor filters.
            state = first_decisions(imported.classes, rate) | state
        module = restore(fresh, state, where, _sources(imported))
    if isinstance(module, Detector) and (gives := frame_width(module.encoder)) != reads:
        raise CheckpointError(
            f"the head of {where} reads {reads} numbers of each time step, but its network has {gives}; give the "
            "settings that it was made with by --set KEY=VALUE."
        )
    return module


def decided(detector: Detector) -> str:
    """In words, by what a detector decides that nobody has tuned."""
    steps, rate = int(detector.filters[0]), detector.frame_rate
    return (
        f"threshold={float(detector.thresholds[0]):g} of every class and a median filter of {steps} steps "
        f"({steps / rate:g} s); predict --threshold gives another"
    )


def _sources(imported: Imported) -> dict[str, str]:
    """What the file calls each of our tensors."""
    return {t.target: t.source for t in imported.tensors if t.use == "weight"}
