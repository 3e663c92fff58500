"""`auricle embed`, `auricle search` and `auricle predict`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.cli.options import (
    count,
    format_option,
    json_file,
    page_file,
    percent,
    positive_float,
    positive_int,
    share,
    tell,
    verb,
)
from auricle.errors import AudioError, ConfigError, plural, printable

if TYPE_CHECKING:
    from auricle.cli.options import Verbs
    from auricle.inference.model import Prediction


def add(verbs: Verbs) -> None:
    """Add the commands that apply a model."""
    p = verb(verbs, "embed", run_embed, "turn sounds into vectors")
    p.add_argument("model", help="checkpoint or run directory")
    p.add_argument("paths", nargs="+", metavar="PATH", help="sound files, or folders of them")
    format_option(p)
    p.add_argument(
        "--out", required=True, metavar="FILE", help="file to write, .parquet or .npz; the same command resumes it"
    )
    p.add_argument(
        "--rows",
        choices=("windows", "clips"),
        default="",
        help="one vector per window or per file (windows in .parquet, clips in .npz)",
    )
    p.add_argument("--frames", action="store_true", help="also one vector per time step, with times (.npz)")
    p.add_argument(
        "--layers",
        metavar="L",
        help="blocks side by side, such as 1,6,9-12 or all, instead of the last one as the paper pools it",
    )
    p.add_argument(
        "--context",
        type=positive_float,
        default=0.0,
        metavar="S",
        help="seconds that each time step of a long sound has on either side: windows overlap",
    )
    p.add_argument("--quiet", action="store_true", help="no progress")

    p = verb(verbs, "search", run_search, "find the sounds of a library that are most like another")
    p.add_argument("table", metavar="library", help="file that auricle embed wrote")
    p.add_argument("query", help="sound file")
    p.add_argument("-k", type=positive_int, default=10, metavar="K", help="how many to find")
    p.add_argument("--model", metavar="MODEL", help="what made the library, if it does not lie any more where it did")
    p.add_argument("--json", type=json_file, metavar="FILE", help="write them as JSON")
    p.add_argument("--page", type=page_file, metavar="FILE.html", help="write a page that shows and plays them")

    p = verb(verbs, "predict", run_predict, "classify or tag sounds, or detect events in them")
    p.add_argument("model", metavar="run", help="run or checkpoint of a fine-tuning")
    p.add_argument("paths", nargs="+", metavar="FILE", help="sound files, or folders of them")
    format_option(p)
    p.add_argument(
        "--threshold",
        type=share,
        metavar="P",
        help="probability that makes a tag present (0.5), or an event (chosen for each class in training)",
    )
    p.add_argument("--top", type=count, default=0, metavar="K", help="also print the K likeliest labels")
    p.add_argument(
        "--json",
        type=json_file,
        metavar="FILE",
        help="write everything as JSON; in a .jsonl file, a line as soon as it is known",
    )
    p.add_argument("--tsv", metavar="FILE", help="write detected events as a table, each when it is over")
    p.add_argument("--audacity", metavar="DIR", help="write detected events as Audacity labels, a file for each sound")


def run_embed(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.cli.progress import EmbeddingProgress

    out = Path(args.out)
    api.check_place(out, args.frames)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"--out {out} cannot be written: a part of its path is a file.") from None
    sounds = api.expand(args.paths, args.format, tell)
    with EmbeddingProgress(args.quiet) as progress:
        library = api.embed_library(
            args.model,
            sounds,
            out,
            rows=args.rows,
            frames=args.frames,
            layers=args.layers,
            context=args.context,
            tell=progress,
        )
    print(f"{out}: {plural(len(library), 'embedding')} of {library.metadata['dim']} dimensions")
    if seams := library.metadata.get("seams"):
        print(f"seams: {_show_seams(seams)}")
    return _report_bad(library.bad_files)


def _show_seams(seams: Mapping[str, Any]) -> str:
    """What the cuts between overlapping windows cost, in words."""
    if not seams["count"]:
        return "none, no sound is longer than a window"
    return (
        f"{seams['count']:,}, at which two windows differ by {percent(seams['mean'])} on average, "
        f"{percent(seams['largest'])} at most"
    )


def run_search(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.evaluation.results import write_json
    from auricle.evaluation.search_page import search_page, summary

    library = api.open_library(args.table)
    hits = api.search(library, args.query, args.k, model=args.model)
    for hit in hits:
        print(f"{hit.similarity:.4f}  {hit.start:9.2f} - {hit.end:9.2f} s  {printable(hit.path)}")
    if args.json:
        write_json(args.json, summary(library, args.query, hits, args.command_line))
    if args.page:
        print(f"page: {search_page(library, args.query, hits, Path(args.page), args.command_line)}")
    return 0


def run_predict(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.cli.events import EventOutput
    from auricle.evaluation.results import GrowingFile, json_text, write_json
    from auricle.inference.model import Prediction

    model = api.load(args.model)
    detects = model.task == "detection"
    _check_outputs(args, detects)
    files = api.expand(args.paths, args.format, tell)
    errors: list[AudioError] = []
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        lines = stack.enter_context(GrowingFile(args.json)) if str(args.json).endswith(".jsonl") else None
        output = EventOutput(list(map(str, files)), table=args.tsv, audacity=args.audacity, lines=lines)
        events = stack.enter_context(output)
        for path, outcome in api.predict_each(model, files, args.threshold, events.add):
            if isinstance(outcome, AudioError):
                errors.append(outcome)
            if isinstance(outcome, Prediction):
                row = _show_labels(path, outcome, args.threshold, args.top)
            else:
                row = events.end(path, outcome) if detects else {"path": path, "error": str(outcome)}
            if lines:
                # A detector's events have lines of their own.
                lines.add(json_text(row | ({"events": len(row["events"])} if detects else {})))
                lines.mark()
            else:
                rows.append(row)
    if args.json and not lines:
        write_json(args.json, {"schema": 1, "model": args.model, "command": args.command_line, "predictions": rows})
    return _report_bad(errors)


def _check_outputs(args: argparse.Namespace, detects: bool) -> None:
    """Refuse options that would do nothing with this model, before hours of work."""
    if detects and args.top:
        raise ConfigError(f"--top is for clips, and {args.model} detects events; leave it out.")
    if not detects and (args.tsv or args.audacity):
        option = "--tsv" if args.tsv else "--audacity"
        raise ConfigError(f"{option} is for events, and {args.model} detects none; use --json.")
    if args.tsv and Path(args.tsv).is_dir():
        raise ConfigError(f"--tsv {args.tsv} is a folder; name a file, for example events.tsv.")
    if args.tsv and not Path(args.tsv).absolute().parent.parent.is_dir():
        # One folder is made, as by auricle embed; several missing ones are a mistyped path.
        raise ConfigError(
            f"--tsv {args.tsv}: there is no folder {Path(args.tsv).absolute().parent.parent}; make it first."
        )
    if args.audacity and Path(args.audacity).is_file():
        raise ConfigError(f"--audacity {args.audacity} is a file; name a folder.")


def _show_labels(path: str, outcome: Prediction, threshold: float | None, top: int) -> dict[str, Any]:
    """Print what a clip was taken for; returns its row of the JSON file."""
    from auricle.cli.events import show_stretch

    found = ", ".join(f"{name} ({percent(outcome.scores[name])})" for name in outcome.labels)
    print(f"{printable(path)}: {found or f'nothing reaches {percent(0.5 if threshold is None else threshold)}'}")
    for name in sorted(outcome.scores, key=lambda name: -outcome.scores[name])[:top]:
        print(f"  {percent(outcome.scores[name]):>8}  {name}")
    whole = len(outcome.segments) == 1 and outcome.segments[0].covers(outcome.duration)
    for s in () if whole else outcome.segments:
        show_stretch(s.onset, s.offset, s.label, s.score)
    return {"path": path, **vars(outcome), "segments": [dict(vars(s)) for s in outcome.segments]}


def _report_bad(errors: Sequence[AudioError]) -> int:
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0
