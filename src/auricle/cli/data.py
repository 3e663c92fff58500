"""`auricle check`, `auricle convert` and `auricle synth`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from auricle.cli.options import count, data_argument, data_source, json_file, positive_float, positive_int, verb
from auricle.errors import DataError, plural, printable

if TYPE_CHECKING:
    from auricle.cli.options import Verbs
    from auricle.data.check import Findings


def add(verbs: Verbs) -> None:
    """Add the commands about data."""
    p = verb(verbs, "check", run_check, "decode all of a data set and say what is wrong with it")
    data_argument(p, "folders of audio, manifests, or both", exclude=False)
    p.add_argument("--json", type=json_file, metavar="FILE", help="write what was found, and a page of the same name")
    p.add_argument("--exclude", metavar="FILE", help="write a list of the unusable files, for --exclude of training")
    p.add_argument("--stats", metavar="MODEL", help="measure input statistics for a method or preset, such as ssast")
    p.add_argument("--label", default="label", metavar="COLUMN", help="column with the labels")
    p.add_argument("--split-column", default="split", metavar="C", help="column with the splits")
    p.add_argument("--group-column", action="append", default=[], metavar="C", help="look for leaks of it, too")
    p.add_argument("--processes", type=count, default=0, metavar="N", help="decode so many at once (0: all cores)")

    p = verb(verbs, "convert", run_convert, "write the lists of a data set for other tools")
    data_argument(p, "folders of audio, corpora, manifests")
    p.add_argument("--out", required=True, metavar="FILE", help="file to write; a folder for lhotse")
    p.add_argument("--to", default="", metavar="FORMAT", help="jsonl, csv, ssast or lhotse (by the ending of --out)")
    p.add_argument("--label", default="label", metavar="COLUMN", help="column with the labels of an SSAST list")

    p = verb(verbs, "synth", run_synth, "generate labelled sound scenes")
    p.add_argument("out", help="directory to make")
    p.add_argument("--clips", type=positive_int, default=400, help="how many")
    p.add_argument("--seconds", type=positive_float, default=2.5, help="length of each")
    p.add_argument("--seed", type=int, default=0, help="of the scenes")


def run_check(args: argparse.Namespace) -> int:
    from auricle.data.exclude import check_exclude_path

    if args.exclude:
        check_exclude_path(args.exclude)
    findings = _decode(args)
    _tell(findings)
    _keep(findings, args)
    # Last: it may fail, and what was found has taken hours.
    if args.stats:
        _measure(findings, args)
    return 2 if findings.bad or findings.event_errors else 0


def _decode(args: argparse.Namespace) -> Findings:
    from rich.console import Console
    from rich.progress import Progress

    from auricle import api

    data = data_source(args)()
    console = Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("decoding", total=None)
        return api.check(
            data,
            label=args.label,
            split_column=args.split_column,
            group_columns=args.group_column,
            processes=args.processes,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _tell(findings: Findings) -> None:
    from auricle.evaluation import check_report

    print(f"{plural(len(findings.sounds), 'usable file')}, {findings.hours:.2f} hours; {len(findings.bad)} unusable")
    for b in findings.bad:
        print(f"error: {printable(b.path)}: {b.reason}{': ' + b.detail if b.detail else ''}", file=sys.stderr)
    for line in findings.event_errors:
        print(f"error: {line}", file=sys.stderr)
    for line in check_report.warnings(findings):
        print(f"warning: {line}", file=sys.stderr)


def _keep(findings: Findings, args: argparse.Namespace) -> None:
    """Write the list and the page, and the JSON file but for the statistics."""
    from auricle.data.exclude import write_exclude_list
    from auricle.evaluation import check_report

    if args.exclude:
        write_exclude_list(args.exclude, [(b.path, b.reason) for b in findings.bad])
    if args.json:
        check_report.write_summary(args.json, findings, args.command_line)
        page = check_report.check_page(findings, Path(args.json).with_suffix(".html"), args.command_line)
        print(f"report: {page}")


def _measure(findings: Findings, args: argparse.Namespace) -> None:
    from auricle import api
    from auricle.evaluation import check_report

    if not findings.sounds:
        raise DataError(f"--stats {args.stats}: no file is usable, so there is nothing to measure.")
    statistics = api.input_statistics(args.stats, findings.usable)
    for name, value in statistics.items():
        print(f"{name}={value}")
    if args.json:
        check_report.write_summary(args.json, findings, args.command_line, statistics)


def run_convert(args: argparse.Namespace) -> int:
    from auricle.data.writers import write_data

    manifest = data_source(args)()
    for path in write_data(manifest, args.out, args.to, args.label):
        print(path)
    return 0


def run_synth(args: argparse.Namespace) -> int:
    from auricle.data.synth import write_scenes

    path = write_scenes(Path(args.out), clips=args.clips, seconds=args.seconds, seed=args.seed)
    print(f"{plural(args.clips, 'clip')} in {path}")
    return 0
