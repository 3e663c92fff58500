"""IEMOCAP: `Session1` ... `Session5` with `sentences/wav/` and `dialog/EmoEvaluation/`."""

from __future__ import annotations

import re
from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, manifest_of, visible
from auricle.data.tables import text_lines

# Busso et al., "IEMOCAP", Language Resources and Evaluation 42, 2008: 10,039 turns.
PUBLISHED = {"clips": 10_039}
TURN = re.compile(r"\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\s+(?P<name>\S+)\s+(?P<label>\S+)\s+\[(?P<vad>[^\]]*)\]")
WORDS = re.compile(r"(?P<name>\S+) \[[^\]]*\]:\s*(?P<text>.*)")
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    found = visible(path, "Session[1-5]/dialog/EmoEvaluation") if path.is_dir() else []
    return Match(CERTAIN, f"it holds {found[0].relative_to(path).as_posix()}") if found else None


def read(root: Path) -> Manifest:
    """Columns: label (the three-letter emotion), split (session1 ... session5: the usual folds), dialog, speaker,
    gender, valence, activation, dominance and text.

    A turn is called by its dialog and the letter of who speaks (Ses01F_impro01_M002: the man of session 1).
    """
    entries = []
    for session in visible(root, "Session[1-5]"):
        texts = {
            match["name"]: match["text"].strip()
            for path in visible(session / "dialog" / "transcriptions", "*.txt")
            for _, line in text_lines(path)
            if (match := WORDS.match(line))
        }
        for path in visible(session / "dialog" / "EmoEvaluation", "*.txt"):
            finder = Finder(session / "sentences" / "wav" / path.stem)
            for _, line in text_lines(path):
                turn = TURN.match(line)
                if turn is None:
                    continue
                name = turn["name"]
                gender = name.rpartition("_")[2][:1]
                valence, activation, dominance = [*turn["vad"].split(","), "", "", ""][:3]
                labels = {
                    "label": turn["label"],
                    "split": session.name.lower(),
                    "dialog": path.stem,
                    "speaker": name[:5] + gender,
                    "gender": gender,
                    "valence": valence.strip(),
                    "activation": activation.strip(),
                    "dominance": dominance.strip(),
                    "text": texts.get(name, ""),
                }
                place = f"{session.name}/sentences/wav/{path.stem}/{name}.wav"
                entries.append(Entry(name, place, finder.find(f"{name}.wav"), labels))
    return manifest_of(root, root, entries, PUBLISHED)
