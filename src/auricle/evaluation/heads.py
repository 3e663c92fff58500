"""Heads on frozen embeddings, with settings fixed in advance. Which one is used can change a verdict: report several.

N clips, L layers, D width, C classes. The heads that are trained by gradient are in `neural.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from auricle.errors import ConfigError
from auricle.evaluation import neural

Array = NDArray[Any]
RIDGE_ALPHAS = tuple(float(a) for a in np.logspace(-2, 4, 13))
LOGISTIC_C = (0.003, 0.03, 0.3, 3.0)
INNER_FOLDS = 3
# As Caron et al. (DINO, 2021) weigh neighbours; their 20 are too many where a class has a dozen clips.
NEIGHBOURS = 10
TEMPERATURE = 0.07


@dataclass(frozen=True)
class Fitted:
    """A trained head: `scores(X [N, D]) -> [N, C]` in the order of `classes`; `SCORES` says what they are.

    Trained on a mix of layers, it takes X [N, L, D], and `mixture` [L] holds the layers' weights, which sum to 1.
    """

    classes: tuple[str, ...]
    scores: Callable[[Array], Array]
    mixture: Array | None = None

    def predict(self, x: Array) -> list[str]:
        return [self.classes[i] for i in self.scores(x).argmax(1)]


def fit_ridge(x: Array, labels: Sequence[str], seed: int = 0) -> Fitted:
    """Ridge regression on +-1 targets; alpha by leave-one-out error on the training clips.

    Embeddings are centred and divided by one common scale, so that directions keep their relative variance.
    """
    from sklearn.linear_model import RidgeClassifierCV

    mean = x.mean(0)
    scale = float(np.sqrt(np.mean((x - mean) ** 2))) or 1.0
    head = RidgeClassifierCV(alphas=RIDGE_ALPHAS, class_weight="balanced").fit((x - mean) / scale, list(labels))

    def scores(new: Array) -> Array:
        values = np.asarray(head.decision_function((new - mean) / scale))
        # With two classes scikit-learn returns one column.
        return np.stack([-values, values], axis=1) if values.ndim == 1 else values

    return Fitted(tuple(map(str, head.classes_)), scores)


def fit_linear(x: Array, labels: Sequence[str], seed: int = 0) -> Fitted:
    """Logistic regression on standardised dimensions; C by stratified 3-fold accuracy on the training clips."""
    from sklearn.linear_model import LogisticRegression

    mean, std = neural.moments(x)
    z, y = (x - mean) / std, np.asarray(labels)

    def fit(c: float, rows: Array) -> Any:
        return LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(z[rows], y[rows])

    head = fit(_choose_c(y, lambda c, train, val: fit(c, train).score(z[val], y[val])), np.arange(len(y)))
    return Fitted(tuple(map(str, head.classes_)), lambda new: np.asarray(head.predict_proba((new - mean) / std)))


def fit_knn(x: Array, labels: Sequence[str], seed: int = 0) -> Fitted:
    """The 10 nearest training clips by cosine vote, each with exp(cosine / 0.07) over the size of its class.

    Embeddings are centred on the training clips first: a part that all clips share would make all cosines alike. Scores
    are shares of the vote.
    """
    names, y = np.unique(np.asarray(labels), return_inverse=True)
    mean = x.mean(0)
    known, k = _unit(x - mean), min(NEIGHBOURS, len(x))
    votes = np.eye(len(names))[y] / np.bincount(y)

    def scores(new: Array) -> Array:
        # In parts: all pairs of two large sets do not fit into memory.
        parts = [_unit(part - mean) @ known.T for part in np.array_split(new, len(new) // 1024 + 1)]
        shares = []
        for cosine in parts:
            nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
            weight = np.exp((np.take_along_axis(cosine, nearest, 1) - 1) / TEMPERATURE)
            tally = np.einsum("nk,nkc->nc", weight, votes[nearest])
            shares.append(tally / tally.sum(1, keepdims=True))
        return np.concatenate(shares)

    return Fitted(tuple(map(str, names)), scores)


def fit_mlp(x: Array, labels: Sequence[str], seed: int = 0) -> Fitted:
    """One hidden layer on standardised dimensions, drawn and trained as `neural.train_mlp` says."""
    return _network(x, labels, lambda z, y: neural.train_mlp(z, y, seed))


def fit_mixed_linear(x: Array, labels: Sequence[str], seed: int = 0) -> Fitted:
    """Logistic regression on a learned mix of layers, X [N, L, D]; C as in `fit_linear`."""

    def train(z: Array, y: Array) -> neural.Network:
        def accuracy(c: float, inner: Array, val: Array) -> float:
            head = neural.train_linear(z[inner], y[inner], c)
            return float(np.mean(head.scores(z[val]).argmax(1) == y[val]))

        return neural.train_linear(z, y, _choose_c(y, accuracy))

    return _network(x, labels, train)


def _network(x: Array, labels: Sequence[str], train: Callable[[Array, Array], neural.Network]) -> Fitted:
    """Standardise X [N, D] or [N, L, D] in every dimension and train a network on it."""
    names, y = np.unique(np.asarray(labels), return_inverse=True)
    mean, std = neural.moments(x)
    network = train((x - mean) / std, y)

    def probabilities(new: Array) -> Array:
        return np.asarray(softmax(network.scores((new - mean) / std).astype(np.float64), axis=1))

    return Fitted(tuple(map(str, names)), probabilities, network.mixture())


def _choose_c(y: Array, accuracy: Callable[[float, Array, Array], float]) -> float:
    """The C of best accuracy(C, train rows, validation rows) over stratified folds; a middle one for tiny classes."""
    from sklearn.model_selection import StratifiedKFold

    if int(np.unique(y, return_counts=True)[1].min()) < INNER_FOLDS:
        return LOGISTIC_C[len(LOGISTIC_C) // 2]
    inner = list(StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=0).split(y, y))
    return LOGISTIC_C[int(np.argmax([np.mean([accuracy(c, *rows) for rows in inner]) for c in LOGISTIC_C]))]


def _unit(x: Array) -> Array:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norm > 0, norm, 1.0))


Fit = Callable[[Array, Sequence[str], int], Fitted]
HEADS: dict[str, Fit] = {"ridge": fit_ridge, "linear": fit_linear, "mlp": fit_mlp, "knn": fit_knn}
# What the scores of a head are. A ridge is trained towards 1 for the class and -1 for all others.
SCORES = {"ridge": "margin", "linear": "probability", "mlp": "probability", "knn": "share of the vote"}
# On a mix of layers. A ridge is solved in one step and neighbours are only looked up: neither can train the mix.
MIXED: dict[str, Fit] = {"linear": fit_mixed_linear, "mlp": fit_mlp}
# Heads whose result depends on the seed.
DRAWN = frozenset({"mlp"})


def fit(head: str, x: Array, labels: Sequence[str], seed: int = 0) -> Fitted:
    """Train the head called `head` on X [N, D], or on a learned mix of the layers of X [N, L, D].

    Raises:
        ConfigError: no such head, or one that cannot train a mix.
    """
    check(head, mixed=x.ndim == 3)
    return (MIXED if x.ndim == 3 else HEADS)[head](x, labels, seed)


def check(head: str, mixed: bool = False) -> None:
    """Refuse a head that does not exist, or that cannot train a mix of layers.

    Raises:
        ConfigError: so it is.
    """
    if head not in HEADS:
        raise ConfigError(f"no head '{head}'; the heads are {', '.join(HEADS)}.")
    if mixed and head not in MIXED:
        raise ConfigError(
            f"a mix of layers is learned by gradient together with its head, which {head} does not do; "
            f"use --head {' or '.join(MIXED)}, or --layers all."
        )
