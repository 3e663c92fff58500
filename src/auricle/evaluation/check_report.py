"""What `auricle check` found: in sentences, as JSON, and as a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from auricle.data.check import BadFile, Duplicate, Findings, Leak, Sound
from auricle.environment import environment
from auricle.errors import DataError, printable, sentence
from auricle.evaluation import distributions
from auricle.evaluation.exhibits import add_sound
from auricle.evaluation.report import Report
from auricle.evaluation.results import write_json

SCHEMA = 1
NAMED = 3
COPIES_SHOWN = 3
BINS = 20


def warnings(findings: Findings) -> list[str]:
    """One sentence for each kind of trouble, with the first few names."""
    copies = (*findings.duplicates, *findings.near_duplicates)
    across = [d for d in copies if d.across_splits]
    within = [d for d in copies if not d.across_splits]
    relabelled = [d for d in copies if d.labels[0] != d.labels[1]]
    misstated = [f"{s.id}: stated {stated:.2f} s, decoded {s.seconds:.2f} s" for s, stated in findings.misstated]
    found: list[tuple[int, str, Sequence[str]]] = [
        (
            len(across),
            "copies in different splits, so that a test would see what was trained on",
            _pairs(across),
        ),
        (len(within), "copies within a split", _pairs(within)),
        (len(relabelled), "copies with different labels", _pairs(relabelled)),
        (len(findings.silent), "sounds that are silent for more than 95 % of their time", _ids(findings.silent)),
        (len(findings.clipped), "sounds with more than 0.1 % of their samples at full scale", _ids(findings.clipped)),
        (len(findings.shifted), "sounds with a DC offset above 1 % of full scale", _ids(findings.shifted)),
        (len(misstated), "stated durations that are wrong by more than 0.1 s", misstated),
    ]
    lines = [
        f"{what}: {count} ({'; '.join(names[:NAMED])}{'; ...' if len(names) > NAMED else ''})"
        for count, what, names in found
        if count
    ]
    return [*findings.event_notes, *(_leak_line(leak) for leak in findings.leaks), *lines]


def _leak_line(leak: Leak) -> str:
    names = [f"{value} in {' and '.join(splits)}" for value, splits in list(leak.values.items())[:NAMED]]
    more = "; ..." if len(leak.values) > NAMED else ""
    return f"values of '{leak.column}' in more than one split: {len(leak.values)} ({'; '.join(names)}{more})"


def _pairs(duplicates: Sequence[Duplicate]) -> list[str]:
    return [f"{d.first} = {d.second}" for d in duplicates]


def _ids(sounds: Sequence[Sound]) -> list[str]:
    return [sound.id for sound in sounds]


def write_summary(
    path: Path | str, findings: Findings, command: str = "", statistics: Mapping[str, Any] | None = None
) -> None:
    """Write everything that was found as JSON; `statistics` are those of a front end's input.

    File names come back from it as they are (bytes that are no UTF-8 as surrogates, as Python has them).

    Raises:
        ConfigError: the path cannot be written.
    """
    write_json(path, summary(findings, command, statistics))


def summary(findings: Findings, command: str = "", statistics: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `write_summary` writes: lists of ids and files, counts, and spreads (see `spread`)."""
    manifest, sounds = findings.manifest, findings.sounds
    try:
        data_hash = manifest.hash
    except DataError:
        data_hash = ""
    return {
        "schema": SCHEMA,
        "task": "check",
        "command": command,
        "data": {"source": manifest.source, "hash": data_hash, "notes": manifest.notes},
        "files": len(sounds) + len(findings.bad),
        "hours": findings.hours,
        "bad_files": [asdict(b) for b in findings.bad],
        # Of the bad files, those that were left out before any was decoded.
        "skipped": [skipped._asdict() for skipped in manifest.skipped],
        "bad_by_reason": dict(Counter(b.reason for b in findings.bad).most_common()),
        "rates": _count(s.rate for s in sounds),
        "channels": _count(s.channels for s in sounds),
        "formats": _count(s.format for s in sounds),
        "seconds": spread([s.seconds for s in sounds], logarithmic=True),
        "levels": {"peak": spread([s.peak for s in sounds]), "rms": spread([s.rms for s in sounds])},
        "silent": _ids(findings.silent),
        "clipped": _ids(findings.clipped),
        "dc_offset": _ids(findings.shifted),
        "misstated": [{"id": s.id, "stated": stated, "decoded": s.seconds} for s, stated in findings.misstated],
        "duplicates": [asdict(d) for d in findings.duplicates],
        "near_duplicates": [asdict(d) for d in findings.near_duplicates],
        "leaks": [asdict(leak) for leak in findings.leaks],
        "labels": {c: counted for c in manifest.columns if len(counted := findings.counts(c)) <= len(manifest) // 2},
        "statistics": statistics or {},
        "event_errors": list(findings.event_errors),
        "warnings": warnings(findings),
        "environment": environment(),
    }


def spread(values: Sequence[float], logarithmic: bool = False) -> dict[str, Any]:
    """Least, median and most of the finite values, and a histogram: `counts[i]` lie from `edges[i]` to `edges[i + 1]`.

    `infinite` counts the others: levels of digital silence. Equal ratios, or differences, lie between the edges.
    """
    finite = np.sort([value for value in values if math.isfinite(value)])
    infinite = len(values) - len(finite)
    if not len(finite):
        return {"infinite": infinite, "edges": [], "counts": []}
    least, most = finite[0], finite[-1]
    edges = np.geomspace(least, most, BINS + 1) if logarithmic else np.linspace(least, most, BINS + 1)
    # Where all are equal, or nearly so, there is one bin.
    edges = edges if np.all(np.diff(edges) > 0) else np.array([least, most])
    edges[0], edges[-1] = least, most
    counts = np.histogram(finite, edges)[0] if least < most else np.array([len(finite)])
    return {
        "least": float(least),
        "median": float(np.median(finite)),
        "most": float(most),
        "infinite": infinite,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _count(values: Any) -> dict[str, int]:
    return {str(value): count for value, count in Counter(values).most_common()}


def check_page(findings: Findings, path: Path, command: str = "") -> Path:
    """The page of a check: what is there, what is wrong with it, pictures of lengths, levels and labels."""
    report = Report("Data check", findings.manifest.source)
    report.facts(
        {
            "files": len(findings.sounds) + len(findings.bad),
            "hours": findings.hours,
            "unusable": len(findings.bad),
            "rates": ", ".join(f"{int(rate) / 1000:g} kHz" for rate in _count(s.rate for s in findings.sounds)),
            "channels": ", ".join(_count(s.channels for s in findings.sounds)),
            "formats": ", ".join(_count(s.format for s in findings.sounds)),
        }
    )
    for note in findings.manifest.notes:
        report.text(note)
    lines = [*findings.event_errors, *map(sentence, warnings(findings))]
    report.heading("Worth a look")
    report.text("\n\n".join(lines) if lines else "Nothing.")
    _add_bad(report, findings.bad)
    report.heading("Lengths and levels")
    report.figure(
        distributions.histograms({"duration": [s.seconds for s in findings.sounds]}, "seconds", logarithmic=True),
        "Decoded durations.",
        "Histogram of durations",
    )
    levels = {
        name: [value for value in values if value > -math.inf]
        for name, values in (
            ("peak", [s.peak for s in findings.sounds]),
            ("root mean square", [s.rms for s in findings.sounds]),
        )
    }
    report.figure(
        distributions.histograms(levels, "dB below full scale"),
        "Levels over all channels; digitally silent files are left out.",
        "Histograms of peak and mean level",
    )
    for column in findings.manifest.columns:
        counted = findings.counts(column)
        if 1 < len(counted) <= len(findings.manifest) // 2:
            report.heading(f"Column {column}")
            report.figure(
                distributions.counts(counted, "files"),
                f"Files for each value of {column}.",
                f"Bars: files per {column}",
            )
    _add_copies(report, findings)
    report.heading("Reproduce")
    report.code(command or "(called from Python)")
    return report.write(path)


def _add_bad(report: Report, bad: Sequence[BadFile]) -> None:
    if not bad:
        return
    report.heading("Unusable files")
    report.table(["reason", "files"], [[r, n] for r, n in Counter(b.reason for b in bad).most_common()])
    report.table(["file", "reason", "detail"], [[printable(b.path), b.reason, b.detail] for b in bad])


def _both(values: tuple[str, str]) -> str:
    return " / ".join(dict.fromkeys(values))


def _add_copies(report: Report, findings: Findings) -> None:
    copies = sorted(
        [*findings.duplicates, *findings.near_duplicates], key=lambda d: (not d.across_splits, d.bit_errors)
    )
    if not copies:
        return
    report.heading("Copies")
    report.table(
        ["sound", "copy", "splits", "labels", "differing bits"],
        [[d.first, d.second, _both(d.splits), _both(d.labels), f"{100 * d.bit_errors:.1f} %"] for d in copies],
        note="0 %: the same samples. Otherwise the share of differing bits between acoustic fingerprints; "
        "unrelated sounds differ in about half.",
    )
    items = {item.id: item for item in findings.manifest}
    for d in copies[:COPIES_SHOWN]:
        for name in (d.first, d.second):
            add_sound(report, items[name], name)
