"""Heads on frozen embeddings, with settings fixed in advance. Which one is used can change a verdict: report both.

N clips, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.errors import ConfigError

Array = NDArray[Any]
RIDGE_ALPHAS = tuple(float(a) for a in np.logspace(-2, 4, 13))
LOGISTIC_C = (0.003, 0.03, 0.3, 3.0)
INNER_FOLDS = 3


@dataclass(frozen=True)
class Fitted:
    """A trained head: `scores(X [N, D]) -> [N, C]` in the order of `classes`."""

    classes: tuple[str, ...]
    scores: Callable[[Array], Array]

    def predict(self, x: Array) -> list[str]:
        return [self.classes[i] for i in self.scores(x).argmax(1)]


def fit_ridge(x: Array, labels: Sequence[str]) -> Fitted:
    """Ridge regression on +-1 targets; alpha by leave-one-out error on the training clips.

    Embeddings are centred and divided by one common scale, so that directions keep their relative variance.
    """
    from sklearn.linear_model import RidgeClassifierCV

    mean = x.mean(0)
    scale = float(np.sqrt(np.mean((x - mean) ** 2))) or 1.0
    head = RidgeClassifierCV(alphas=RIDGE_ALPHAS, class_weight="balanced").fit((x - mean) / scale, list(labels))
    return _fitted(head, lambda new: head.decision_function((new - mean) / scale))


def fit_linear(x: Array, labels: Sequence[str]) -> Fitted:
    """Logistic regression on standardised dimensions; C by stratified 3-fold accuracy on the training clips."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    mean, std = x.mean(0), x.std(0)
    std = np.where(std > 1e-8 * max(1.0, float(std.max())), std, 1.0)
    z, y = (x - mean) / std, np.asarray(labels)

    def fit(c: float, rows: Array) -> Any:
        return LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(z[rows], y[rows])

    smallest = int(np.unique(y, return_counts=True)[1].min())
    best = LOGISTIC_C[len(LOGISTIC_C) // 2]
    if smallest >= INNER_FOLDS:
        inner = list(StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=0).split(z, y))
        accuracy = [np.mean([fit(c, train).score(z[val], y[val]) for train, val in inner]) for c in LOGISTIC_C]
        best = LOGISTIC_C[int(np.argmax(accuracy))]
    head = fit(best, np.arange(len(y)))
    return _fitted(head, lambda new: head.decision_function((new - mean) / std))


def _fitted(head: Any, decide: Callable[[Array], Array]) -> Fitted:
    def scores(x: Array) -> Array:
        values = np.asarray(decide(x))
        # With two classes scikit-learn returns one column.
        return np.stack([-values, values], axis=1) if values.ndim == 1 else values

    return Fitted(tuple(str(c) for c in head.classes_), scores)


HEADS: dict[str, Callable[[Array, Sequence[str]], Fitted]] = {"ridge": fit_ridge, "linear": fit_linear}


def fit(head: str, x: Array, labels: Sequence[str]) -> Fitted:
    """Train the head called `head`.

    Raises:
        ConfigError: no such head.
    """
    if head not in HEADS:
        raise ConfigError(f"no head '{head}'; the heads are {', '.join(HEADS)}.")
    return HEADS[head](x, labels)
