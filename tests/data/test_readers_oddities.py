"""Every reader meets the oddities that copies of its layout may have; docs/data.md says which these are."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from layouts import lost, read_as, sound, text

from auricle.data import readers
from auricle.data.formats import read_data
from auricle.errors import DataError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"
ODDITIES = ("BOM", "CRLF", "names", "`._*`", "upper case", "converted", "missing", "extra", "absolute", "commas")
COMMAS = "Rain, heavy"


@dataclass
class Made:
    """A folder in the making: two sounds and the lists that name them, with one oddity."""

    root: Path
    oddity: str
    files: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stems = ("für a 1", "b2") if self.oddity == "names" else ("a1", "b2")
        self.listed = (*stems, "gone") if self.oddity == "missing" else stems
        self.present = (*stems, "extra") if self.oddity == "extra" else stems
        self.label = COMMAS if self.oddity == "commas" else "rain"
        self.several = '"Rain,Water"' if self.oddity == "commas" else "Rain"

    def list(self, name: str, content: str) -> Path:
        """A list at `name`, as the oddity has it."""
        path = text(self.root / name, content.replace("\n", "\r\n") if self.oddity == "CRLF" else content)
        if self.oddity == "BOM":
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        self._fork(path)
        return path

    def sounds(self, folder: str, prefix: str = "", exact: bool = False) -> None:
        """The sounds in a folder; unless their names are `exact`, in the other Unicode form than the lists'."""
        for stem in self.present:
            name = prefix + stem + {"upper case": ".WAV", "converted": ".flac"}.get(self.oddity, ".wav")
            path = self.root / folder / (name if exact else unicodedata.normalize("NFD", name))
            self.files[stem] = sound(path)
            self._fork(path)

    def path(self, name: str) -> str:
        """How a list names a path."""
        return str(self.root / name) if self.oddity == "absolute" else name

    def lines(self, form: str) -> str:
        """A line of this form for each sound that is listed."""
        return "".join(form.format(stem=stem) + "\n" for stem in self.listed)

    def rows(self, folder: str = "") -> str:
        """Rows of a table: path and label."""
        return "".join(f'{self.path(f"{folder}{stem}.wav")},"{self.label}"\n' for stem in self.listed)

    def _fork(self, path: Path) -> None:
        if self.oddity == "`._*`":
            path.with_name("._" + path.name).write_bytes(b"\0\5\26\7")


def csv(made: Made) -> Path:
    made.sounds("audio")
    made.list("manifest.csv", "path,label\n" + made.rows("audio/"))
    return made.root


def manifest(made: Made) -> Path:
    made.sounds("audio", exact=True)
    header = {"format": "auricle-manifest", "version": 1, "source": "x", "root": ".", "roots": ["."], "skipped": []}
    lines = [json.dumps(header)]
    for stem in made.listed:
        ref = {"path": made.path(f"audio/{stem}.wav"), "start": 0.0, "end": None, "channel": None, "root": 0}
        item = {"id": stem, "streams": {"audio": ref}, "labels": {"label": made.label}, "events": [], "duration": 0.25}
        lines.append(json.dumps(item))
    return made.list("list.jsonl", "\n".join(lines) + "\n")


def folder(made: Made) -> Path:
    made.sounds("rain")
    return made.root


def esc50(made: Made) -> Path:
    made.sounds("audio")
    rows = made.lines(f'{{stem}}.wav,1,0,"{made.label}"')
    made.list("meta/esc50.csv", "filename,fold,target,category\n" + rows)
    return made.root


def speech_commands(made: Made) -> Path:
    made.sounds("rain")
    first, *others = [f"rain/{stem}.wav\n" for stem in made.listed]
    made.list("validation_list.txt", first)
    made.list("testing_list.txt", "".join(others))
    return made.root


def fsd50k(made: Made) -> Path:
    made.sounds("FSD50K.dev_audio")
    made.list(
        "FSD50K.ground_truth/dev.csv", "fname,labels,mids,split\n" + made.lines(f"{{stem}},{made.several},/m/1,train")
    )
    return made.root


def audioset(made: Made) -> Path:
    made.sounds("eval")
    made.list(
        "eval_segments.csv",
        "# YTID, start_seconds, end_seconds, positive_labels\n" + made.lines('{stem}, 0, 10, "/m/1"'),
    )
    made.list("class_labels_indices.csv", f'index,mid,display_name\n0,/m/1,"{made.label}"\n')
    return made.root


def hear(made: Made) -> Path:
    made.sounds("48000/test")
    made.list("task_metadata.json", '{"splits": ["test"]}')
    made.list("test.json", json.dumps({f"{stem}.wav": [made.label] for stem in made.listed}, ensure_ascii=False))
    return made.root


def desed(made: Made) -> Path:
    made.sounds("audio/train/weak")
    made.list("metadata/train/weak.tsv", "filename\tevent_labels\n" + made.lines(f"{{stem}}.wav\t{made.several}"))
    return made.root


def iemocap(made: Made) -> Path:
    made.sounds("Session1/sentences/wav/Ses01F_impro01", "Ses01F_impro01_F")
    turns = made.lines("[6.29 - 8.23]\tSes01F_impro01_F{stem}\train\t[2.5, 2.5, 2.5]")
    made.list("Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", turns)
    return made.root


def voxceleb(made: Made) -> Path:
    made.sounds("wav/id10001/video")
    made.list("iden_split.txt", made.lines("1 id10001/video/{stem}.wav"))
    return made.root


def ssast(made: Made) -> Path:
    made.sounds("data/audio")
    rows = [
        {"wav": made.path(f"data/audio/{stem}.wav").removeprefix("data/"), "labels": "/m/1"} for stem in made.listed
    ]
    made.list("data/class_labels_indices.csv", f'index,mid,display_name\n0,/m/1,"{made.label}"\n')
    return made.list("data/train.json", json.dumps({"data": rows}, ensure_ascii=False))


def kaldi(made: Made) -> Path:
    made.sounds("wavs")
    made.list("wav.scp", "".join(f"u{n} {made.path(f'wavs/{stem}.wav')}\n" for n, stem in enumerate(made.listed)))
    made.list("text", "".join(f"u{n} rain\n" for n in range(len(made.listed))))
    return made.root


def nemo(made: Made) -> Path:
    made.sounds("wavs")
    rows = [
        {"audio_filepath": made.path(f"wavs/{stem}.wav"), "duration": 0.25, "label": made.label} for stem in made.listed
    ]
    return made.list("train.json", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def fairseq(made: Made) -> Path:
    made.sounds("wavs")
    made.list("train.ltr", made.lines("rain"))
    return made.list("train.tsv", f"{made.path('wavs')}\n" + made.lines("{stem}.wav\t2000"))


def audiofolder(made: Made) -> Path:
    made.sounds("train")
    made.list("metadata.csv", "file_name,label\n" + made.rows("train/"))
    return made.root


@dataclass(frozen=True)
class Layout:
    """How a layout is made; which oddities it cannot have; where its labels are, and whether unlisted sound is data."""

    make: Callable[[Made], Path]
    without: tuple[str, ...] = ()
    column: str = "label"
    takes_extra: bool = False


IDS = ("absolute",)
PLAIN = ("commas",)
LAYOUTS = {
    "csv": Layout(csv),
    "manifest": Layout(manifest, ("upper case", "converted")),
    "folder": Layout(folder, ("BOM", "CRLF", "missing", "extra", *IDS, *PLAIN)),
    "esc50": Layout(esc50, IDS),
    "speech-commands": Layout(speech_commands, (*IDS, *PLAIN), takes_extra=True),
    "fsd50k": Layout(fsd50k, IDS),
    "audioset": Layout(audioset, IDS),
    "hear": Layout(hear, IDS),
    "desed": Layout(desed, IDS),
    "iemocap": Layout(iemocap, ("names", *IDS, *PLAIN)),
    "voxceleb": Layout(voxceleb, (*IDS, *PLAIN), takes_extra=True),
    "ssast": Layout(ssast),
    "kaldi": Layout(kaldi, PLAIN, "text"),
    "nemo": Layout(nemo),
    "fairseq": Layout(fairseq, PLAIN, "ltr"),
    "audiofolder": Layout(audiofolder),
}
CASES = [
    (name, oddity) for name, layout in LAYOUTS.items() for oddity in ("none", *ODDITIES) if oddity not in layout.without
]
# What quoted commas give: one label, or several.
LABELS = {"voxceleb": "id10001", "fsd50k": "Rain", "desed": "Rain"}


@pytest.mark.parametrize("name, oddity", CASES)
def test_a_layout_with_an_oddity_is_read(tmp_path: Path, name: str, oddity: str) -> None:
    layout, made = LAYOUTS[name], Made(tmp_path, oddity)
    path = layout.make(made)
    if oddity == "missing" and not getattr(readers.get_reader(name), "MAY_MISS_FILES", False):
        with pytest.raises(DataError, match=r"1 of the 3 listed files are missing: [\w/]*gone\.wav"):
            read_data(path)
        found = read_data(path, keep_going=True)
    else:
        found = read_as(name, path)
    expected = [made.files[stem] for stem in made.present if stem != "extra" or layout.takes_extra]
    assert sorted(item.streams["audio"].path for item in found) == sorted(map(str, expected))
    label = LABELS.get(name, made.label)
    if oddity == "commas" and label == "Rain":
        label = "Rain;Water"
    assert {item.labels[layout.column] for item in found} == {label}
    missing = lost(found)
    assert list(missing.values()) == (["missing"] if oddity == "missing" else [])
    assert all("gone" in place for place in missing)
    # Where it is said to be missing, it would be found.
    for place in missing:
        sound(found.root / place)
        assert read_data(path, name).skipped == ()


def test_every_reader_is_tested() -> None:
    assert set(LAYOUTS) == set(readers.READERS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_table_of_readers_says_what_each_was_tested_with(name: str) -> None:
    (row,) = (line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |"))
    assert row.strip("| ").rpartition(" | ")[2] == in_words(LAYOUTS[name])


def in_words(layout: Layout) -> str:
    """In words: all, or all but a few, or the few."""
    rest = [oddity for oddity in ODDITIES if oddity not in layout.without]
    if not layout.without:
        return "all"
    return ", ".join(rest) if len(rest) < len(layout.without) else f"all but {', '.join(layout.without)}"
