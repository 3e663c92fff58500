"""`auricle pretrain` and `auricle finetune`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.cli.evaluation import show_result
from auricle.cli.options import data_argument, data_source, label_arguments, label_options, training_options, verb
from auricle.config import parse_assignments
from auricle.errors import ConfigError

if TYPE_CHECKING:
    from auricle.cli.options import Verbs


def add(verbs: Verbs) -> None:
    """Add the commands that train."""
    p = verb(verbs, "pretrain", run_pretrain, "learn from unlabelled audio")
    p.add_argument("method", help="method or preset; see: auricle list")
    data_argument(p, "folders of audio, manifests, or both")
    training_options(p)
    p.add_argument("--preset", default="", help="configuration; see: auricle list")
    p.add_argument("--init", metavar="CKPT", help="continue from these weights")
    p.add_argument(
        "--monitor", metavar="DATA", default=(), help="labelled data for a quick look (kNN) at each validation"
    )

    p = verb(verbs, "finetune", run_finetune, "adapt a checkpoint to labelled audio")
    p.add_argument("model", help="checkpoint or run directory; a preset name with --random-weights")
    data_argument(p, "labelled data: a folder with manifest.csv, a CSV, or a folder per class")
    training_options(p)
    label_options(p)
    p.add_argument("--recipe", default="", help="a published fine-tuning; see: auricle list")
    p.add_argument(
        "--task",
        default="",
        choices=("classification", "tagging", "detection"),
        help="one label per clip, any number, or events in time (what the labels say)",
    )
    p.add_argument(
        "--held-out", default="", metavar="FOLD", help="fold or group to leave out (the last); all: each in turn"
    )
    p.add_argument("--random-weights", type=int, metavar="SEED", help="train the same network from scratch")
    p.add_argument("--teacher", default="", metavar="RUN", help="a fine-tuned run to learn from; see --set distil")


def run_pretrain(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.evaluation.monitor import Monitor
    from auricle.training import estimate, pretrain

    settings = _settings(args)
    if args.dry_run:
        if args.monitor:
            Monitor(args.monitor)
        plan = pretrain.plan(
            args.method,
            data_source(args),
            preset=args.preset,
            settings=settings,
            init=args.init,
            steps=args.steps,
            seed=args.seed,
        )
        print(estimate.pretraining(plan, args.max_minutes))
        return 0
    api.pretrain(
        args.method,
        data_source(args),
        args.out,
        preset=args.preset,
        settings=settings,
        init=args.init,
        monitor=args.monitor,
        **_budget(args),
    )
    return _finish(args.out)


def run_finetune(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.training import estimate, finetune

    options: dict[str, Any] = {
        **label_arguments(args),
        "task": args.task,
        "recipe": args.recipe,
        "settings": _settings(args),
        "random_weights": args.random_weights,
        "teacher": args.teacher,
    }
    if args.held_out == "all":
        return _cross_validate(args, options)
    if args.dry_run:
        plan = finetune.plan(
            args.model, data_source(args), held_out=args.held_out, **options, steps=args.steps, seed=args.seed
        )
        print(estimate.finetuning(plan, args.max_minutes))
        return 0
    api.finetune(args.model, data_source(args), args.out, held_out=args.held_out, **options, **_budget(args))
    return _finish(args.out)


def _finish(out: str) -> int:
    from auricle.training.distributed import processes

    if processes().first:
        print(f"run: {Path(out)}\nreport: {Path(out) / 'report.html'}")
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    settings = parse_assignments(args.set)
    return settings if args.accumulate is None else settings | {"accumulate": args.accumulate}


def _cross_validate(args: argparse.Namespace, options: dict[str, Any]) -> int:
    from auricle import api
    from auricle.training import estimate, finetune
    from auricle.training.distributed import processes

    if args.max_minutes:
        raise ConfigError("--held-out all trains all folds equally long: give --steps or epochs, not --max-minutes.")
    if args.dry_run:
        plans = finetune.plan_folds(args.model, data_source(args), **options, steps=args.steps, seed=args.seed)
        print(f"{estimate.finetuning(plans[0])}\nfolds       {len(plans)}, each as above")
        return 0
    budget = {name: value for name, value in _budget(args).items() if name != "max_minutes"}
    result = api.cross_validate(args.model, data_source(args), args.out, **options, **budget)
    if processes().first:
        show_result(result)
    return _finish(args.out)


def _budget(args: argparse.Namespace) -> dict[str, Any]:
    names = ("steps", "max_minutes", "checkpoint_every", "workers", "seed", "track", "quiet")
    return {name: getattr(args, name) for name in names}
