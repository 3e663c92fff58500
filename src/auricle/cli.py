"""The command line. What trains, evaluates and applies models are functions of `auricle.api` with the same options.

Only the standard library is imported until a verb runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import json
import math
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from auricle import __version__
from auricle.config import parse_assignments
from auricle.errors import AudioError, AuricleError, ConfigError
from auricle.files import atomic_path

if TYPE_CHECKING:
    from auricle.evaluation.results import Result

CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class Parser(argparse.ArgumentParser):
    """argparse with the nearest valid option in its complaint about an unknown one."""

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ").split() if "unrecognized" in message else []
        options = [option for action in self._all_actions() for option in action.option_strings]
        for word in words:
            near = difflib.get_close_matches(word.partition("=")[0], options, n=1, cutoff=0.6)
            if word.startswith("-") and near:
                message += f" (did you mean {near[0]}?)"
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message}\n")

    def _all_actions(self) -> list[argparse.Action]:
        found = list(self._actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for sub in action.choices.values():
                    found += sub._actions
        return found


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    parser = Parser(prog="auricle", description="Learn from audio without labels, and use what was learned.")
    parser.add_argument("--version", action="version", version=f"auricle {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    p = verb("pretrain", run_pretrain, "learn from unlabelled audio")
    p.add_argument("method", help="see: auricle list")
    p.add_argument("data", nargs="+", help="folders of audio, manifests, or both")
    _training_options(p)
    p.add_argument("--preset", default="", help="configuration; see: auricle list")
    p.add_argument("--init", metavar="CKPT", help="continue from these weights")

    p = verb("finetune", run_finetune, "adapt a checkpoint to labelled audio")
    p.add_argument("model", help="checkpoint or run directory")
    p.add_argument("data", nargs="+", help="labelled data: a folder with manifest.csv, a CSV, or a folder per class")
    _training_options(p)
    _label_options(p)
    p.add_argument("--held-out", default="", metavar="FOLD", help="fold or group to leave out (the last)")
    p.add_argument("--random-weights", type=int, metavar="SEED", help="train the same network from scratch")

    p = verb("probe", run_probe, "read out a frozen model with a simple head")
    p.add_argument("model", help="checkpoint or run directory; a preset name with --random-weights")
    p.add_argument("data", nargs="+", help="labelled data")
    p.add_argument("--head", default="ridge", choices=("ridge", "linear"), help="ridge or logistic regression")
    _label_options(p)
    p.add_argument("--random-weights", type=int, metavar="SEED", help="the same network with fresh weights")
    p.add_argument(
        "--baseline",
        action="append",
        default=[],
        choices=("mfcc", "logmel", "random"),
        help="compare with it in the same run; may be repeated",
    )
    _result_options(p)
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of the folds, where the data has no split")

    p = verb("evaluate", run_evaluate, "score a fine-tuned classifier on labelled audio")
    p.add_argument("model", metavar="run", help="run or checkpoint of a fine-tuning")
    p.add_argument("data", nargs="+", help="labelled data")
    p.add_argument("--split", default="test", help="train, val, test or all")
    _label_options(p, default="")
    _result_options(p)

    p = verb("embed", run_embed, "turn sounds into vectors")
    p.add_argument("model", help="checkpoint or run directory")
    p.add_argument("paths", nargs="+", metavar="PATH", help="sound files, or folders of them")
    p.add_argument("--out", required=True, metavar="FILE.npz", help="where to write")
    p.add_argument("--frames", action="store_true", help="also one vector per time step, with times")

    p = verb("predict", run_predict, "classify sounds")
    p.add_argument("model", metavar="run", help="run or checkpoint of a fine-tuning")
    p.add_argument("paths", nargs="+", metavar="FILE", help="sound files, or folders of them")
    p.add_argument("--json", type=_json_file, metavar="FILE", help="write everything as JSON")

    p = verb("import", run_import, "convert a published checkpoint")
    p.add_argument("file", help="a .pth or .safetensors file")
    p.add_argument("--out", required=True, metavar="DIR", help="checkpoint directory to make")
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="structure that the file does not hold"
    )
    p.add_argument("--classes", metavar="FILE", help="label names of a fine-tuned file, one per line")

    p = verb("parity", run_parity, "recompute reference cases and compare")
    p.add_argument("paths", nargs="+", metavar="PATH", help="case directories, or folders of them")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")
    p.add_argument("--outputs", metavar="DIR", help="write what was computed below DIR")

    p = verb("synth", run_synth, "generate labelled sound scenes")
    p.add_argument("out", help="directory to make")
    p.add_argument("--clips", type=_positive_int, default=400, help="how many")
    p.add_argument("--seconds", type=_positive_float, default=2.5, help="length of each")
    p.add_argument("--seed", type=int, default=0)

    verb("list", run_list, "show methods and presets")
    p = verb("info", run_info, "show what a checkpoint or sound file is")
    p.add_argument("model", help="checkpoint, run directory or sound file")
    return parser


def _training_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", required=True, metavar="RUN", help="run directory; the same command resumes it")
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting; may be repeated"
    )
    budget = p.add_mutually_exclusive_group()
    budget.add_argument(
        "--max-minutes", type=_positive_float, default=0.0, metavar="M", help="as many steps as fit in M minutes"
    )
    budget.add_argument("--steps", type=_positive_int, default=0, metavar="N", help="number of steps")
    p.add_argument("--checkpoint-every", type=_positive_int, default=0, metavar="N", help="steps between checkpoints")
    p.add_argument("--workers", type=_count, default=0, metavar="W", help="processes that read ahead (0: none)")
    p.add_argument("--seed", type=int, default=0, metavar="S")
    p.add_argument("--dry-run", action="store_true", help="print parameters, memory, steps and time, and stop")
    p.add_argument("--quiet", action="store_true", help="no progress")


def _label_options(p: argparse.ArgumentParser, default: str = "label") -> None:
    p.add_argument("--label", default=default, metavar="COLUMN", help="column with the labels")
    p.add_argument("--split-column", metavar="C", help="column with train/val/test or folds (split, if there is one)")
    p.add_argument("--group-column", metavar="C", help="leave one group of this column out")


def _result_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--json", type=_json_file, metavar="FILE", help="write the result, and a page of the same name with .html"
    )


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or above, got '{text}'")
    return int(text)


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got '{text}'")
    return value


def _json_file(text: str) -> str:
    # Refused here, before hours of work that would have nowhere to go.
    if Path(text).is_dir() or Path(text).suffix == ".html":
        raise argparse.ArgumentTypeError(f"expected a file for JSON, got '{text}'; name it for example result.json")
    return text


def run_pretrain(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.training import estimate, pretrain

    settings = parse_assignments(args.set)
    if args.dry_run:
        plan = pretrain.plan(
            args.method,
            args.data,
            preset=args.preset,
            settings=settings,
            init=args.init,
            steps=args.steps,
            seed=args.seed,
        )
        print(estimate.pretraining(plan, args.max_minutes))
        return 0
    run = api.pretrain(
        args.method,
        args.data,
        args.out,
        preset=args.preset,
        settings=settings,
        init=args.init,
        **_budget(args),
    )
    print(f"run: {run}\nreport: {run / 'report.html'}")
    return 0


def run_finetune(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.training import estimate, finetune

    options: dict[str, Any] = {
        "label": args.label,
        "settings": parse_assignments(args.set),
        "split_column": args.split_column,
        "group_column": args.group_column,
        "held_out": args.held_out,
        "random_weights": args.random_weights,
    }
    if args.dry_run:
        plan = finetune.plan(args.model, args.data, **options, steps=args.steps, seed=args.seed)
        print(estimate.finetuning(plan, args.max_minutes))
        return 0
    run = api.finetune(args.model, args.data, args.out, **options, **_budget(args))
    print(f"run: {run}\nreport: {run / 'report.html'}")
    return 0


def _budget(args: argparse.Namespace) -> dict[str, Any]:
    names = ("steps", "max_minutes", "checkpoint_every", "workers", "seed", "quiet")
    return {name: getattr(args, name) for name in names}


def run_probe(args: argparse.Namespace) -> int:
    from auricle import api

    result = api.probe(
        args.model,
        args.data,
        head=args.head,
        label=args.label,
        split_column=args.split_column,
        group_column=args.group_column,
        random_weights=args.random_weights,
        baselines=args.baseline,
        seed=args.seed,
        command=args.command_line,
    )
    return _finish(result, args.json)


def run_evaluate(args: argparse.Namespace) -> int:
    from auricle import api

    result = api.evaluate(
        args.model,
        args.data,
        split=args.split,
        label=args.label,
        split_column=args.split_column,
        group_column=args.group_column,
        command=args.command_line,
    )
    return _finish(result, args.json)


def _finish(result: Result, path: str | None) -> int:
    from auricle.evaluation.pages import result_page

    for name, q in result.metrics.items():
        print(f"{name:10} {_percent(q['value'])} [{_percent(q['low'])}, {_percent(q['high'])}]")
    for name, baseline in result.baselines.items():
        q = baseline["metrics"]["accuracy"]
        print(f"{name + ' accuracy':18} {_percent(q['value'])} [{_percent(q['low'])}, {_percent(q['high'])}]")
    for c in result.comparisons:
        print(f"model - {c['b']}: {_points(c['value'])} [{_points(c['low'])}, {_points(c['high'])}] points")
    for note in result.protocol.get("notes", ()):
        print(f"note: {note}", file=sys.stderr)
    if path:
        result.write(path)
        print(f"report: {result_page(result, Path(path).with_suffix('.html'))}")
    return 0


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:+.1f}"


def run_embed(args: argparse.Namespace) -> int:
    import numpy as np

    from auricle import api

    out = Path(args.out)
    if out.suffix != ".npz" or out.is_dir():
        raise ConfigError(f"--out {out} must be a file that ends in .npz.")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.absolute().parent} does not exist.")
    arrays, errors = api.embed(args.model, args.paths, frames=args.frames)
    with atomic_path(out) as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    clips, width = arrays["embeddings"].shape
    print(f"{out}: {clips} embeddings of {width} dimensions")
    return _report_bad(errors)


def run_predict(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.evaluation.results import write_json

    errors: list[AudioError] = []
    rows: list[dict[str, Any]] = []
    for path, outcome in api.predict(args.model, args.paths):
        if isinstance(outcome, AudioError):
            errors.append(outcome)
            rows.append({"path": path, "error": str(outcome)})
            continue
        print(f"{path}: {outcome.label} ({_percent(outcome.score)})")
        for s in outcome.segments:
            print(f"  {s.onset:9.2f} - {s.offset:9.2f} s  {s.label} ({_percent(s.score)})")
        segments = [dict(vars(s)) for s in outcome.segments]
        rows.append({"path": path, **vars(outcome), "segments": segments})
    if args.json:
        write_json(args.json, {"schema": 1, "model": args.model, "command": args.command_line, "predictions": rows})
    return _report_bad(errors)


def _report_bad(errors: Sequence[AudioError]) -> int:
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0


def run_import(args: argparse.Namespace) -> int:
    from auricle.interop.official import import_checkpoint

    classes: list[str] = []
    if args.classes:
        try:
            classes = [
                line.strip() for line in Path(args.classes).read_text(encoding="utf-8").splitlines() if line.strip()
            ]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--classes {args.classes} cannot be read: {error}.") from None
    report = import_checkpoint(Path(args.file), Path(args.out), options=parse_assignments(args.set), classes=classes)
    print("\n".join(report.lines()))
    print(f"checkpoint: {report.path}")
    return 0


def run_parity(args: argparse.Namespace) -> int:
    from auricle.interop.parity import find_cases, run_case

    outputs = Path(args.outputs) if args.outputs else None
    results = []
    for case in find_cases([Path(p) for p in args.paths]):
        result = run_case(case, outputs)
        results.append(result)
        if args.json:
            continue
        print(f"{'pass' if result.passed else 'FAIL'}  {result.case}  ({result.computes}) {result.error}")
        for row in result.rows:
            mark = " " if row.passed else "!"
            print(f"   {mark} {row.name:45} abs {row.absolute:.2e}  rel {row.relative:.2e}  [{row.rule}] {row.note}")
    passed = sum(result.passed for result in results)
    if args.json:
        print(json.dumps({"passed": passed, "cases": [r.as_dict() for r in results]}, indent=1))
    else:
        print(f"{passed} of {len(results)} cases pass")
    return 0 if passed == len(results) else 1


def run_synth(args: argparse.Namespace) -> int:
    from auricle.data.synth import write_scenes

    path = write_scenes(Path(args.out), clips=args.clips, seconds=args.seconds, seed=args.seed)
    print(f"{args.clips} clips in {path}")
    return 0


def run_list(args: argparse.Namespace) -> int:
    from auricle.methods import get_method, method_names
    from auricle.training.estimate import parameters

    for name in method_names():
        method = get_method(name)
        print(f"{name}: {', '.join(sorted(method.CAPABILITIES))}")
        for preset, value in method.PRESETS.items():
            print(f"  {preset:14} {parameters(method, value.model) / 1e6:6.1f} M parameters  {value.note}")
    return 0


def run_info(args: argparse.Namespace) -> int:
    path = Path(args.model)
    if path.is_file():
        from auricle import audio

        info = audio.probe(path)
        print(
            f"{path}: {info.format} {info.subtype}, {info.rate} Hz, {info.channels} channel(s), {info.duration:.3f} s"
        )
        # The header proves nothing: only decoding does.
        samples = sum(len(block) for block in audio.blocks(path))
        print(f"decodes whole: {samples} samples")
        return 0
    from auricle.inference.model import load

    model = load(path)
    encoder = model.encoder
    facts = {
        "kind": model.config["kind"],
        "method": model.config["method"],
        "parameters": f"{sum(p.numel() for p in encoder.parameters()):,} in the encoder",
        "weights": model.hash,
        "sample rate": f"{encoder.sample_rate} Hz",
        "embedding": f"{encoder.dim} dimensions, {encoder.frame_rate:g} time steps per second",
        "window": f"{encoder.window_samples / encoder.sample_rate:.3f} s; longer sounds are cut into windows",
        "shortest": f"{encoder.min_samples / encoder.sample_rate:.3f} s; shorter sounds are zero-padded",
        "classes": ", ".join(model.classes),
    }
    for key, value in facts.items():
        if value:
            print(f"{key:12} {value}")
    print(json.dumps(model.config["model"], indent=1))
    return 0


def _show_warning(message: Warning | str, *where: object, **more: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see `auricle.errors`)."""
    args = build_parser().parse_args(argv)
    args.command_line = shlex.join(["auricle", *(sys.argv[1:] if argv is None else argv)])
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code: int = args.run(args)
        sys.stdout.flush()
    except AuricleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        print(f"error: {error}; free some space or mend the permissions, and run it again.", file=sys.stderr)
        return 1
    return code
