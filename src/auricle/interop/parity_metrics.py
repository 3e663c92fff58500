"""The metric families of `auricle parity`: from the inputs of a golden case to what it expects.

A family gets the case's folder, the tensors that the case declares as inputs, and its meta.json; it returns the tensors
of `io.safetensors` and, where the case has one, the structure of `expected.json`. Expected values never reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auricle.errors import DataError
from auricle.interop.parity_json import compare_json
from auricle.metrics import binary_probability_metrics, classification_metrics, tagging_metrics

__all__ = ["FAMILIES", "binary_probability", "classification", "compare_json", "ssast_statistics", "tagging"]

Outcome = tuple[dict[str, Tensor], dict[str, Any] | None]
Family = Callable[[Path, dict[str, Tensor], dict[str, Any]], Outcome]


def classification(case_dir: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outcome:
    """`logits` [N, C] and `labels` [N]; classes are "c0", "c1", ... unless meta.json lists `class_names`.

    Raises:
        DataError: an input is missing or unusable.
    """
    logits, labels = _take(case_dir, inputs, "logits", "labels")
    return {}, classification_metrics(logits, labels, meta.get("class_names"))


def binary_probability(case_dir: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outcome:
    """`prob` [N] of the positive class and `labels` [N].

    Raises:
        DataError: an input is missing or unusable.
    """
    prob, labels = _take(case_dir, inputs, "prob", "labels")
    return {}, binary_probability_metrics(prob, labels)


def tagging(case_dir: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outcome:
    """`scores` [N, C] and multi-hot `targets` [N, C].

    Raises:
        DataError: an input is missing or unusable.
    """
    scores, targets = _take(case_dir, inputs, "scores", "targets")
    return {}, tagging_metrics(scores, targets)


def ssast_statistics(case_dir: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outcome:
    """`output` [N, C] and multi-hot `target` [N, C]; an undefined class is NaN.

    Raises:
        DataError: an input is missing or unusable.
    """
    output, target = _take(case_dir, inputs, "output", "target")
    table = tagging_metrics(output, target)
    # The stored per-class values and accuracy are float32, the means float64.
    return {
        "AP": _tensor(table["per_class_AP"], torch.float32),
        "auc": _tensor(table["per_class_AUC"], torch.float32),
        "acc": _tensor(table["argmax_accuracy"], torch.float32),
        "mAP": _tensor(table["mAP"], torch.float64),
        "mAUC": _tensor(table["mAUC"], torch.float64),
        "d_prime": _tensor(table["d_prime_of_mean_auc"], torch.float64),
    }, None


FAMILIES: dict[str, Family] = {
    "metrics/classification": classification,
    "metrics/binary_probability": binary_probability,
    "metrics/tagging": tagging,
    "ssast/metrics": ssast_statistics,
}


def _take(case_dir: Path, inputs: Mapping[str, Tensor], *names: str) -> list[Any]:
    missing = [name for name in names if name not in inputs]
    if missing:
        raise DataError(
            f"{case_dir}: io.safetensors has no input {' and no '.join(map(repr, missing))}; "
            f"this family needs {', '.join(names)}, got {', '.join(sorted(inputs)) or 'none'}."
        )
    return [inputs[name].detach().cpu().numpy() for name in names]


def _tensor(value: float | list[float | None] | None, dtype: torch.dtype) -> Tensor:
    if isinstance(value, list):
        return torch.tensor([float("nan") if entry is None else entry for entry in value], dtype=dtype)
    return torch.tensor(float("nan") if value is None else value, dtype=dtype)
