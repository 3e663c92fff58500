"""Speech Commands V1 and V2: a folder per word, `validation_list.txt` and `testing_list.txt`."""

from __future__ import annotations

from pathlib import Path

from auricle.data.items import Manifest
from auricle.data.readers.shared import CERTAIN, Entry, Finder, Match, is_sound, manifest_of, visible
from auricle.data.tables import text_lines
from auricle.errors import DataError

LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"
# Warden, arXiv 1804.03209, without the six files of background noise; the lists' lengths as in torchaudio and TFDS.
V1 = {"clips": 64_721, "train": 51_088, "val": 6_798, "test": 6_835}
V2 = {"clips": 105_829, "train": 84_843, "val": 9_981, "test": 11_005}
ONLY_V2 = ("backward", "follow", "forward", "learn", "visual")
MAY_MISS_FILES = True


def detect(path: Path) -> Match | None:
    if all((path / name).is_file() for name in LISTS.values()):
        return Match(CERTAIN, f"it holds {' and '.join(LISTS.values())}")
    return None


def read(root: Path) -> Manifest:
    """Columns: label (the word), split (val and test by the corpus's lists, all else train) and speaker.

    The corpus defines the speaker as what stands before `_nohash_` in a file's name. `_background_noise_` holds no
    words and is left out.
    """
    finder = Finder(root)
    entries: dict[str, Entry] = {}
    for split, name in LISTS.items():
        for line, text in text_lines(root / name):
            word, _, base = text.strip().replace("\\", "/").rpartition("/")
            if not word:
                raise DataError(f"{root / name}: line {line}: expected WORD/FILE.wav, got '{text.strip()}'.")
            file = finder.find(f"{word}/{base}")
            identity = f"{word}/{Path(file).name if file else base}"
            entries[identity] = _entry(identity, file, split)
    words = [folder for folder in visible(root, "*/") if folder.is_dir() and folder.name != NOISE]
    for folder in words:
        for path in visible(folder, "*"):
            identity = f"{folder.name}/{path.name}"
            if is_sound(path.name) and identity not in entries:
                entries[identity] = _entry(identity, str(path), "train")
    second = any((root / word).is_dir() for word in ONLY_V2)
    return manifest_of(root, root, entries.values(), V2 if second else V1)


def _entry(identity: str, file: str | None, split: str) -> Entry:
    word, _, name = identity.partition("/")
    speaker, marked, _ = name.partition("_nohash_")
    return Entry(identity, identity, file, {"label": word, "split": split, "speaker": speaker if marked else ""})
