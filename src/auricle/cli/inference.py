"""`auricle embed`, `auricle search` and `auricle predict`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.cli.options import (
    count,
    format_option,
    json_file,
    page_file,
    percent,
    positive_int,
    share,
    tell,
    verb,
)
from auricle.errors import AudioError, ConfigError, plural, printable

if TYPE_CHECKING:
    from auricle.cli.options import Verbs


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
    p.add_argument("--quiet", action="store_true", help="no progress")

    p = verb(verbs, "search", run_search, "find the sounds of a library that are most like another")
    p.add_argument("library", help="file that auricle embed wrote")
    p.add_argument("query", help="sound file")
    p.add_argument("-k", type=positive_int, default=10, metavar="K", help="how many to find")
    p.add_argument("--model", metavar="MODEL", help="what made the library, if it does not lie any more where it did")
    p.add_argument("--json", type=json_file, metavar="FILE", help="write them as JSON")
    p.add_argument("--page", type=page_file, metavar="FILE.html", help="write a page that shows and plays them")

    p = verb(verbs, "predict", run_predict, "classify or tag sounds")
    p.add_argument("model", metavar="run", help="run or checkpoint of a fine-tuning")
    p.add_argument("paths", nargs="+", metavar="FILE", help="sound files, or folders of them")
    format_option(p)
    p.add_argument("--threshold", type=share, default=0.5, metavar="P", help="probability that makes a tag present")
    p.add_argument("--top", type=count, default=0, metavar="K", help="also print the K likeliest labels")
    p.add_argument("--json", type=json_file, metavar="FILE", help="write everything as JSON")


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
        library = api.embed_library(args.model, sounds, out, rows=args.rows, frames=args.frames, tell=progress)
    print(f"{out}: {plural(len(library), 'embedding')} of {library.metadata['dim']} dimensions")
    return _report_bad(library.bad_files)


def run_search(args: argparse.Namespace) -> int:
    from auricle import api
    from auricle.evaluation.results import write_json
    from auricle.evaluation.search_page import search_page, summary

    library = api.open_library(args.library)
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
    from auricle.evaluation.results import write_json

    errors: list[AudioError] = []
    rows: list[dict[str, Any]] = []
    for path, outcome in api.predict(args.model, api.expand(args.paths, args.format, tell), threshold=args.threshold):
        if isinstance(outcome, AudioError):
            errors.append(outcome)
            rows.append({"path": path, "error": str(outcome)})
            continue
        found = ", ".join(f"{name} ({percent(outcome.scores[name])})" for name in outcome.labels)
        print(f"{printable(path)}: {found or f'nothing reaches {percent(args.threshold)}'}")
        for name in sorted(outcome.scores, key=lambda name: -outcome.scores[name])[: args.top]:
            print(f"  {percent(outcome.scores[name]):>8}  {name}")
        whole = len(outcome.segments) == 1 and outcome.segments[0].covers(outcome.duration)
        for s in () if whole else outcome.segments:
            print(f"  {s.onset:9.2f} - {s.offset:9.2f} s  {s.label} ({percent(s.score)})")
        segments = [dict(vars(s)) for s in outcome.segments]
        rows.append({"path": path, **vars(outcome), "segments": segments})
    if args.json:
        write_json(args.json, {"schema": 1, "model": args.model, "command": args.command_line, "predictions": rows})
    return _report_bad(errors)


def _report_bad(errors: Sequence[AudioError]) -> int:
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0
