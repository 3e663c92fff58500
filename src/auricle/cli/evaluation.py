"""`auricle probe` and `auricle evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.cli.options import (
    data_argument,
    data_source,
    label_arguments,
    label_options,
    percent,
    positive_int,
    result_options,
    verb,
)

if TYPE_CHECKING:
    from auricle.cli.options import Verbs
    from auricle.evaluation.results import Result


def add(verbs: Verbs) -> None:
    """Add the commands that score."""
    p = verb(verbs, "probe", run_probe, "read out a frozen model with a simple head")
    p.add_argument("model", help="checkpoint or run directory; a preset name with --random-weights")
    data_argument(p, "labelled data")
    p.add_argument(
        "--head",
        default="ridge",
        choices=("ridge", "linear", "mlp", "knn"),
        help="ridge, logistic regression, one hidden layer, or nearest neighbours",
    )
    p.add_argument(
        "--layers",
        default="last",
        metavar="L",
        help="last, a block from 1 on (-1: the last), all (the best, chosen on training clips), or mix (learned)",
    )
    p.add_argument(
        "--pooling",
        default="",
        choices=("own", "mean", "rows", "cls", "summary"),
        help="as the paper pools, mean over tokens, mean over time per frequency row, the prefix tokens, or what the "
        "method's authors read of each layer",
    )
    label_options(p)
    p.add_argument("--random-weights", type=int, metavar="SEED", help="the same network with fresh weights")
    p.add_argument(
        "--baseline",
        action="append",
        default=[],
        choices=("mfcc", "logmel", "random"),
        help="compare with it in the same run; may be repeated",
    )
    p.add_argument("--against", metavar="MODEL", help="compare with another model, read in the same way")
    result_options(p)
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of the folds, where the data has no split")
    p.add_argument(
        "--seeds", type=positive_int, default=3, metavar="N", help="runs of what is drawn: mlp, random weights (3)"
    )
    p.add_argument("--no-cache", action="store_true", help="embed again, and keep nothing")

    p = verb(verbs, "evaluate", run_evaluate, "score a fine-tuned classifier, tagger or detector on labelled audio")
    p.add_argument("model", metavar="run", help="run or checkpoint of a fine-tuning")
    data_argument(p, "labelled data")
    p.add_argument(
        "--ensemble", action="append", default=[], metavar="RUN", help="average with this run too; may be repeated"
    )
    p.add_argument("--split", default="test", help="train, val, test or all")
    label_options(p, default="")
    result_options(p)


def run_probe(args: argparse.Namespace) -> int:
    from auricle import api

    result = api.probe(
        args.model,
        data_source(args),
        head=args.head,
        layers=args.layers,
        pooling=args.pooling,
        **label_arguments(args),
        random_weights=args.random_weights,
        baselines=args.baseline,
        against=args.against,
        seeds=args.seeds,
        seed=args.seed,
        cache=not args.no_cache,
    )
    return _finish(result, args.json)


def run_evaluate(args: argparse.Namespace) -> int:
    from auricle import api

    result = api.evaluate(
        args.model,
        data_source(args),
        ensemble=args.ensemble,
        split=args.split,
        **label_arguments(args),
    )
    return _finish(result, args.json)


def _finish(result: Result, path: str | None) -> int:
    from auricle.evaluation.pages import result_page

    show_result(result)
    if path:
        result.write(path)
        print(f"report: {result_page(result, Path(path).with_suffix('.html'))}")
    return 0


def show_result(result: Result) -> None:
    """Print the scores of a result with their intervals."""
    from auricle.evaluation.results import system_name, verdict

    p = result.protocol
    print(f"tested {p['tested']} of {result.data['items']} clips, part '{p['split']}': {p['chosen_by']}")
    width = max(10, *map(len, result.metrics))
    for name, q in result.metrics.items():
        # d' is a distance, not a share, and infinite where no clip is ranked wrongly; errors may outnumber events.
        shown = _decimal if name == "d_prime" or name.endswith("error_rate") else percent
        print(f"{name:{width}} {shown(q['value'])} [{shown(q['low'])}, {shown(q['high'])}]")
    names = {key: system_name(key, baseline) for key, baseline in result.baselines.items()}
    for key, baseline in result.baselines.items():
        q = baseline["metrics"]["accuracy"]
        print(f"{names[key] + ' accuracy':18} {percent(q['value'])} [{percent(q['low'])}, {percent(q['high'])}]")
    for c in result.comparisons:
        interval = f"[{_points(c['low'])}, {_points(c['high'])}]"
        print(f"model - {names[c['b']]}: {_points(c['value'])} {interval} points: {verdict(c)}")
    for row in result.layers:
        print(_layer(row))
    for note in result.protocol.get("notes", ()):
        print(f"note: {note}", file=sys.stderr)


def _decimal(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"


def _layer(row: Mapping[str, Any]) -> str:
    if "weight" in row:
        return f"layer {row['layer']:2}  weight {percent(row['weight']['value'])}"
    return (
        f"layer {row['layer']:2}  validation {percent(row['validation'])}  test {percent(row['accuracy']['value'])}  "
        f"chosen {row['chosen']}x"
    )


def _points(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:+.1f}"
