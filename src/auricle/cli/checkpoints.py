"""`auricle import`, `parity`, `list`, `info` and `bench`: what a model is, whether it is right, and how fast."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from auricle.cli.options import json_file, positive_int, verb
from auricle.config import parse_assignments
from auricle.errors import ConfigError, in_words, plural

if TYPE_CHECKING:
    from auricle.cli.options import Verbs


def add(verbs: Verbs) -> None:
    """Add the commands about checkpoints."""
    p = verb(verbs, "import", run_import, "convert a published checkpoint")
    p.add_argument("file", help="a .pth or .safetensors file")
    p.add_argument("--out", required=True, metavar="DIR", help="checkpoint directory to make")
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="structure that the file does not hold"
    )
    p.add_argument(
        "--task",
        default="classification",
        choices=("classification", "tagging"),
        help="of a fine-tuned file for clips: one label each, or any number",
    )
    p.add_argument("--classes", metavar="FILE", help="label names of a fine-tuned file, one per line")

    p = verb(verbs, "parity", run_parity, "recompute reference cases and compare")
    p.add_argument("paths", nargs="+", metavar="PATH", help="case directories, or folders of them")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")
    p.add_argument("--outputs", metavar="DIR", help="write what was computed below DIR")

    verb(verbs, "list", run_list, "show methods, presets and recipes")

    p = verb(verbs, "info", run_info, "show what a checkpoint or sound file is, or all settings of a preset")
    p.add_argument("model", help="checkpoint, run directory, sound file or preset")

    p = verb(verbs, "bench", run_bench, "measure how fast a model is on this machine, and its memory")
    p.add_argument("model", help="checkpoint, run directory or preset name")
    p.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"), help="of the network")
    p.add_argument("--batch", type=positive_int, default=0, metavar="N", help="clips at once (the recipe's, or fewer)")
    p.add_argument("--json", type=json_file, metavar="FILE", help="write everything as JSON")


def run_import(args: argparse.Namespace) -> int:
    from auricle.interop.official import import_checkpoint

    classes: list[str] = []
    if args.classes:
        try:
            classes = [
                line.strip() for line in Path(args.classes).read_text(encoding="utf-8").splitlines() if line.strip()
            ]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--classes {args.classes} cannot be read: {in_words(error)}.") from None
    report = import_checkpoint(
        Path(args.file), Path(args.out), options=parse_assignments(args.set), classes=classes, task=args.task
    )
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


def run_list(args: argparse.Namespace) -> int:
    from auricle.methods import get_method, method_names
    from auricle.training.estimate import parameters

    for name in method_names():
        method = get_method(name)
        print(f"{name}: {', '.join(sorted(method.CAPABILITIES))}")
        for preset, value in method.PRESETS.items():
            size = parameters(method, value.model) / 1e6
            print(f"  {f'{name}-{preset}':20} {size:6.1f} M parameters in the encoder  {value.note}")
        longest = max(map(len, method.RECIPES), default=0)
        for recipe, published in method.RECIPES.items():
            print(f"  --recipe {recipe:{longest}} {published.note}")
    return 0


def _show_preset(name: str) -> int:
    """Every setting that `--set` can change, with the preset's values."""
    from auricle.config import to_dict
    from auricle.methods import find_preset, get_preset

    preset = get_preset(find_preset(name)[0], name)
    for title, config in (("network", preset.model), ("pretrain", preset.pretrain), ("finetune", preset.finetune)):
        print(f"{title}:")
        for key, value in to_dict(config).items():
            print(f"  {key}={value if isinstance(value, str) else json.dumps(value)}")
    return 0


def run_info(args: argparse.Namespace) -> int:
    path = Path(args.model)
    if path.is_file():
        from auricle import audio

        info = audio.probe(path)
        print(
            f"{path}: {info.format} {info.subtype}, {info.rate} Hz, {plural(info.channels, 'channel')}, "
            f"{info.duration:.3f} s"
        )
        # The header proves nothing: only decoding does.
        samples = sum(len(block) for block in audio.blocks(path))
        print(f"decodes whole: {samples} samples")
        return 0
    from auricle.inference.model import load
    from auricle.methods import find_preset
    from auricle.methods.base import quirks

    if not path.exists() and find_preset(args.model)[0]:
        return _show_preset(args.model)
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
        "official": ", ".join(f"{name}={value}" for name, value in quirks(encoder.config).items()),
    }
    for key, value in facts.items():
        if value:
            print(f"{key:12} {value}")
    print(json.dumps(model.config["model"], indent=1))
    return 0


def run_bench(args: argparse.Namespace) -> int:
    import torch

    from auricle.environment import environment
    from auricle.evaluation.results import write_json
    from auricle.evaluation.speed import bench
    from auricle.training.precision import resolve_precision
    from auricle.training.pretrain import pick_device

    machine = environment()
    precision = resolve_precision(args.precision, pick_device())
    where = machine["accelerator"] or f"{machine['processor']}, {torch.get_num_threads()} threads"
    print(f"{args.model} on {where}, {precision}, random weights")
    print(f"{'work':12} {'clip':>7} {'batch':>6} {'clips/s':>9} {'slowest':>9} {'x real time':>12} {'memory':>10}")
    rows = []
    for row in bench(args.model, args.precision, args.batch):
        rows.append(vars(row))
        heard = row.clips_per_second * row.clip_seconds
        print(
            f"{row.work:12} {row.clip_seconds:5.1f} s {row.batch:6} {row.clips_per_second:9.2f} {row.slowest:9.2f} "
            f"{heard:12.0f} {row.memory_mb:7.0f} MB",
            flush=True,
        )
    if args.json:
        facts = {"schema": 1, "model": args.model, "command": args.command_line, "precision": precision}
        write_json(args.json, {**facts, "environment": machine, "threads": torch.get_num_threads(), "works": rows})
    return 0
