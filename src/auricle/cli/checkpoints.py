"""`auricle import`, `parity`, `list` and `info`: what a checkpoint is and whether it is right."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from auricle.cli.options import verb
from auricle.config import parse_assignments
from auricle.errors import ConfigError

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
    p.add_argument("--classes", metavar="FILE", help="label names of a fine-tuned file, one per line")

    p = verb(verbs, "parity", run_parity, "recompute reference cases and compare")
    p.add_argument("paths", nargs="+", metavar="PATH", help="case directories, or folders of them")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")
    p.add_argument("--outputs", metavar="DIR", help="write what was computed below DIR")

    verb(verbs, "list", run_list, "show methods and presets")

    p = verb(verbs, "info", run_info, "show what a checkpoint or sound file is")
    p.add_argument("model", help="checkpoint, run directory or sound file")


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
