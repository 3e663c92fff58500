"""Check a folder of 20,000 short files of which 1 % are bad, and see that exactly those are reported.

    python benchmarks/check_corpus.py [--write] [--files N]

The folder is made anew: WAV, FLAC, Ogg, MP3 and AIFF of nine kinds, 0.3 to 1 s at seven rates, no two alike, and
among them every way of being bad in turn. `auricle check` must report exactly the bad ones, each for its reason, and no
copies; anything else ends the benchmark. A plain loop (soundfile in one process, no questions asked) reads the same
files in the same run. `--write` replaces docs/check_corpus.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from timing import machine, table, write_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "check_corpus.md"
FILES = 20_000
BAD_EACH = 100  # One file in so many.
RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000)
# Name, ending, format, subtype, channels, and how many of a hundred files are so.
KINDS = (
    ("16 bit", ".wav", "WAV", "PCM_16", 1, 40),
    ("stereo", ".wav", "WAV", "PCM_16", 2, 10),
    ("24 bit", ".WAV", "WAV", "PCM_24", 1, 5),
    ("float", ".wav", "WAV", "FLOAT", 1, 5),
    ("mu-law", ".wav", "WAV", "ULAW", 1, 3),
    ("FLAC", ".flac", "FLAC", "PCM_16", 1, 25),
    ("Ogg Vorbis", ".ogg", "OGG", "VORBIS", 1, 5),
    ("MP3", ".mp3", "MP3", "MPEG_LAYER_III", 1, 4),
    ("AIFF", ".aiff", "AIFF", "PCM_16", 1, 3),
)

Wave = NDArray[np.float32]


def sound(rng: np.random.Generator, rate: int) -> Wave:
    """0.3 to 1 s of a gliding tone in noise, unlike any other."""
    count = int(rng.uniform(0.3, 1.0) * rate)
    t = np.arange(count, dtype=np.float32) / rate
    tone = np.sin(2 * np.pi * t * (rng.uniform(100, 1500) + rng.uniform(-800, 800) * t))
    level = np.interp(t, np.linspace(0, 1, 6), rng.uniform(0.02, 0.3, 6))
    return (level * (tone + 0.5 * rng.standard_normal(count, np.float32))).astype(np.float32)


def encoded(wave: Wave, rate: int, kind: str = "WAV", subtype: str = "PCM_16") -> bytearray:
    """A whole sound file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, subtype, format=kind)
    return bytearray(buffer.getvalue())


# Ways of being bad ---------------------------------------------------------------------------------------------------


def cut(content: bytearray, share: float = 0.6) -> bytes:
    """The beginning of a file, as a broken download leaves it."""
    return bytes(content[: int(share * len(content))])


def patched(content: bytearray, at: int, value: bytes) -> bytes:
    """The file with other bytes at one place."""
    content[at : at + len(value)] = value
    return bytes(content)


def holed(content: bytearray) -> bytes:
    """The file with 300 zeros in its middle, as a bad disk leaves it."""
    return patched(content, len(content) // 2, bytes(300))


def spoiled(wave: Wave, value: float) -> Wave:
    """The sound with one sample of `value`."""
    wave[len(wave) // 3] = value
    return wave


@dataclass(frozen=True)
class Way:
    """A way of being bad: what `make` puts at a path from a sound and its rate, and the reason that must be given.

    Where a cut falls decides whether a FLAC file ends early or in the middle of a frame: both reasons are right.
    """

    name: str
    ending: str
    reason: str
    make: Callable[[Path, Wave, int], object]


def content(make: Callable[[Wave, int], bytes]) -> Callable[[Path, Wave, int], object]:
    return lambda path, wave, rate: path.write_bytes(make(wave, rate))


WAYS = (
    Way("empty file", ".wav", "not audio", content(lambda w, r: b"")),
    Way("header without sound", ".wav", "0 samples", content(lambda w, r: bytes(encoded(w[:0], r)))),
    Way("WAV, cut", ".wav", "truncated", content(lambda w, r: cut(encoded(w, r)))),
    Way("FLAC, cut", ".flac", "truncated or damaged", content(lambda w, r: cut(encoded(w, r, "FLAC")))),
    Way("Ogg, cut", ".ogg", "truncated", content(lambda w, r: cut(encoded(w, r, "OGG", "VORBIS")))),
    Way("cut inside the header", ".wav", "truncated", content(lambda w, r: bytes(encoded(w, r)[:20]))),
    Way("FLAC, 300 bytes lost", ".flac", "damaged", content(lambda w, r: holed(encoded(w, r, "FLAC")))),
    Way("random bytes", ".wav", "not audio", content(lambda w, r: w.tobytes()[2:5000])),
    Way("zeros, as after a crash", ".flac", "not audio", content(lambda w, r: bytes(20_000))),
    Way("text", ".mp3", "not audio", content(lambda w, r: b"<html>404 Not Found</html>\n" * 40)),
    Way("a picture", ".wav", "not audio", content(lambda w, r: b"\x89PNG\r\n\x1a\n" + w.tobytes()[:4000])),
    Way("NaN", ".wav", "non-finite", content(lambda w, r: bytes(encoded(spoiled(w, np.nan), r, subtype="FLOAT")))),
    Way(
        "infinity", ".wav", "non-finite", content(lambda w, r: bytes(encoded(spoiled(w, -np.inf), r, subtype="FLOAT")))
    ),
    Way("wrongly scaled", ".wav", "level", content(lambda w, r: bytes(encoded(spoiled(w, 2e4), r, subtype="FLOAT")))),
    Way(
        "rate of 4 GHz",
        ".wav",
        "not audio",
        content(lambda w, r: patched(encoded(w, r), 24, struct.pack("<I", 4_000_000_000))),
    ),
    Way("rate of 0 Hz", ".wav", "not audio", content(lambda w, r: patched(encoded(w, r), 24, bytes(4)))),
    Way("no channels", ".wav", "not audio", content(lambda w, r: patched(encoded(w, r), 22, bytes(2)))),
    Way(
        "1.5 GB declared",
        ".wav",
        "truncated",
        content(lambda w, r: patched(encoded(w, r), 40, struct.pack("<I", 1_500_000_000))),
    ),
    Way("link to nothing", ".wav", "missing", lambda path, w, r: path.symlink_to(path.with_name("gone.wav"))),
    Way("link to itself", ".wav", "missing", lambda path, w, r: path.symlink_to(path.name)),
    Way("a pipe", ".wav", "not audio", lambda path, w, r: os.mkfifo(path)),
    Way("not permitted", ".wav", "unreadable", lambda path, w, r: (path.write_bytes(encoded(w, r)), path.chmod(0))),
)


# Odd, but not bad: what a sound and its rate become.
ODDITIES: dict[str, Callable[[Path, Wave, int], object]] = {
    "digital silence": content(lambda w, r: bytes(encoded(0 * w, r))),
    "FLAC called .wav": content(lambda w, r: bytes(encoded(w, r, "FLAC"))),
    "WAV of unknown size, as programs write it to a pipe": content(
        lambda w, r: patched(encoded(w, r), 40, struct.pack("<I", 2**32 - 1))
    ),
    "folder called .wav": lambda path, w, r: (path.mkdir(), (path / "inside.wav").write_bytes(encoded(w, r))),
    "link to a file elsewhere": lambda path, w, r: (
        path.with_suffix(".kept").write_bytes(encoded(w, r)),
        path.symlink_to(path.with_suffix(".kept").name),
    ),
}


# The corpus ----------------------------------------------------------------------------------------------------------


def ways() -> list[Way]:
    """All ways of being bad that this user can meet: nothing is forbidden to root."""
    return [way for way in WAYS if way.name != "not permitted" or os.geteuid() != 0]


def make_corpus(folder: Path, files: int) -> dict[str, Way]:
    """Write the files into folders of a thousand; returns the bad ones by their path."""
    rng = np.random.default_rng(0)
    share = np.array([kind[-1] for kind in KINDS]) / sum(kind[-1] for kind in KINDS)
    bad: dict[str, Way] = {}
    possible = ways()
    for number in range(files):
        below = folder / f"part {number // 1000:02d}"
        if number % 1000 == 0:
            below.mkdir(parents=True)
        rate = RATES[number % len(RATES)]
        wave = sound(rng, rate)
        if number % BAD_EACH == BAD_EACH // 2:
            way = possible[len(bad) % len(possible)]
            path = below / f"{number:05d}{way.ending}"
            way.make(path, wave, rate)
            bad[str(path)] = way
            continue
        if number % BAD_EACH == 0:
            odd = number // BAD_EACH % len(ODDITIES)
            list(ODDITIES.values())[odd](below / f"{number:05d}.wav", wave, rate)
            continue
        _, ending, kind, subtype, channels, _ = KINDS[rng.choice(len(KINDS), p=share)]
        wave = np.stack([wave, wave[::-1]], axis=1) if channels == 2 else wave
        (below / f"{number:05d}{ending}").write_bytes(encoded(wave, rate, kind, subtype))
    return bad


# The contestants -----------------------------------------------------------------------------------------------------


def read_plainly(folder: Path) -> float:
    """Seconds to decode every regular file that soundfile can, in one process."""
    begin = time.perf_counter()
    for path in sorted(folder.rglob("*.*")):
        if path.is_file():
            with contextlib.suppress(soundfile.LibsndfileError, OSError):
                soundfile.read(path, dtype="float32")
    return time.perf_counter() - begin


@dataclass(frozen=True)
class Outcome:
    """What one `auricle check` did: seconds, peak memory of all its processes in MB, and its JSON."""

    seconds: float
    memory: float
    found: dict[str, object]


def run_check(folder: Path, processes: int, place: Path) -> Outcome:
    """The whole command, with its imports, its JSON and its page."""
    command = [sys.executable, "-m", "auricle", "check", str(folder), "--json", str(place / "check.json")]
    begin = time.perf_counter()
    child = subprocess.Popen(
        [*command, "--processes", str(processes)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak, done = [0.0], threading.Event()
    watcher = threading.Thread(target=watch, args=(child.pid, peak, done))
    watcher.start()
    code = child.wait()
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    if code != 2:
        raise SystemExit(f"auricle check ended with exit code {code}, expected 2 for a folder with bad files.")
    return Outcome(seconds, peak[0], json.loads((place / "check.json").read_text()))


def watch(pid: int, peak: list[float], done: threading.Event) -> None:
    """Keep in `peak` the most memory (MB) that a process and its descendants held together, looked at twice a second.

    Proportional set sizes: pages that processes share count once.
    """
    while not done.wait(0.5):
        peak[0] = max(peak[0], sum(proportional_mb(process) for process in family(pid)))


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold blanks.
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [pid]
    for process in found:
        found += parents.get(process, [])
    return found


def proportional_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


# The verdict ---------------------------------------------------------------------------------------------------------


def compare(found: dict[str, object], bad: dict[str, Way], files: int) -> None:
    """See that exactly the bad files were reported, each for its reason, and no copies.

    Raises:
        SystemExit: they were not.
    """
    reported = {str(entry["path"]): str(entry["reason"]) for entry in found["bad_files"]}  # type: ignore[attr-defined]
    wrong = [f"not reported: {path} ({way.name})" for path, way in bad.items() if path not in reported]
    wrong += [f"reported, though good: {path} ({reason})" for path, reason in reported.items() if path not in bad]
    wrong += [
        f"{path} ({bad[path].name}): reason '{reason}', expected '{bad[path].reason}'"
        for path, reason in reported.items()
        if path in bad and reason not in bad[path].reason.split(" or ")
    ]
    copies = [*found["duplicates"], *found["near_duplicates"]]  # type: ignore[misc]
    wrong += [f"reported as copies, though different: {c['first']}, {c['second']}" for c in copies]
    if found["files"] != files:
        wrong.append(f"{found['files']} files were counted, expected {files}")
    if wrong:
        raise SystemExit("\n".join([*wrong[:40], f"{len(wrong)} mistakes"]))


def page(options: argparse.Namespace, folder: Path) -> str:
    """Make the files, let both go through them, and say what happened."""
    corpus = folder / "sounds"
    busy = os.getloadavg()[1]
    begin = time.perf_counter()
    bad = make_corpus(corpus, options.files)
    print(f"made {options.files:,} files in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    cores = len(os.sched_getaffinity(0))
    # In turn, and the plain loop before and after, so that a slow minute of the machine shows.
    loops = [read_plainly(corpus)]
    outcomes = {}
    for processes in sorted({1, cores}, reverse=True):
        outcomes[processes] = run_check(corpus, processes, folder)
        compare(outcomes[processes].found, bad, options.files)
        loops.append(read_plainly(corpus))
    loop = sorted(loops)[len(loops) // 2]
    found = outcomes[cores].found
    counts = Counter(way.name for way in bad.values())
    rows = [["plain loop, 1 process", f"{options.files / loop:,.0f}", f"{loop:.1f}", "1.00", ""]] + [
        [
            f"auricle check, {processes} process" + "es" * (processes > 1),
            f"{options.files / o.seconds:,.0f}",
            f"{o.seconds:.1f}",
            f"{o.seconds / loop:.2f}",
            f"{o.memory:,.0f} MB",
        ]
        for processes, o in sorted(outcomes.items())
    ]
    parts = [
        "# `auricle check` on 20,000 files",
        "Made by `python benchmarks/check_corpus.py --write`, which makes the files, checks them and compares.",
        f"{options.files:,} files ({found['hours']:.2f} hours) of 0.3 to 1 s at {len(RATES)} rates: "
        + ", ".join(kind[0] for kind in KINDS)
        + f". {len(bad)} of them are bad in {len(counts)} ways. **Exactly these were reported, each for the reason "
        "below**, and no file was taken for a copy of another one. As many are odd and were not reported: "
        + ", ".join(ODDITIES)
        + ".",
        f"{machine(cores)}; files in the file system's cache; other processes kept {busy:.1f} cores "
        "busy or waiting before it began. `auricle check` is the whole command: it starts, "
        "decodes, checks for truncation and for samples that are not finite, measures levels, takes hashes and "
        "fingerprints, compares all files with each other, and writes its JSON and its page. The plain loop decodes "
        "with soundfile and keeps nothing.",
        table(["", "files per second", "seconds", "time / plain loop", "peak memory, all processes"], rows),
        f"The plain loop ran {len(loops)} times in between: {', '.join(f'{s:.1f}' for s in loops)} s.",
        "## Ways of being bad",
        table(
            ["file", "reported as", "files"],
            [[way.name, way.reason, counts[way.name]] for way in ways() if counts[way.name]],
        ),
    ]
    if len(ways()) < len(WAYS):
        parts.append("A file that may not be read is reported too; this run was root's, to whom nothing is forbidden.")
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/check_corpus.md")
    parser.add_argument("--files", type=int, default=FILES, metavar="N", help="fewer, to try it")
    options = parser.parse_args()
    if options.write and options.files != FILES:
        parser.error("the page is about 20,000 files; leave out --write or --files")
    with tempfile.TemporaryDirectory() as folder:
        text = page(options, Path(folder))
    print(text)
    if options.write:
        write_page(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
