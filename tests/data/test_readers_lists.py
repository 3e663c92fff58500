"""Lists that other tools make, and how a reader is chosen."""

import json
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from layouts import only, read_as, sound, sounds, text, windows

from auricle.data import readers
from auricle.data.formats import read_data
from auricle.data.items import AudioRef
from auricle.data.readers import table
from auricle.errors import ConfigError, DataError

# SSAST -----------------------------------------------------------------------------------------------------------

LABELS = 'index,mid,display_name\n0,/m/dog,"Dog"\n1,/m/rain,"Rain, heavy"\n'


def test_ssast(tmp_path: Path) -> None:
    sounds(tmp_path, "audio/a, b.WAV", "audio/für.wav", "audio/extra.wav")
    listed = {
        "data": [
            {"wav": str(tmp_path / "audio" / "a, b.wav"), "labels": "/m/dog,/m/rain"},
            {"wav": "audio/" + unicodedata.normalize("NFD", "für.wav"), "labels": "/m/rain"},
        ]
    }
    path = tmp_path / "data" / "datafiles" / "train.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(windows(json.dumps(listed, indent=1)))
    assert [item.labels["label"] for item in read_as("ssast", path)] == ["/m/dog;/m/rain", "/m/rain"]
    (tmp_path / "data" / "class_labels_indices.csv").write_bytes(windows(LABELS))
    text(tmp_path / "data" / "datafiles" / "other_class_labels_indices.csv", "index,mid,display_name\n0,/m/x,X\n")
    manifest = read_as("ssast", path)
    assert [dict(item.labels) for item in manifest] == [
        {"mids": "/m/dog;/m/rain", "label": "Dog;Rain, heavy"},
        {"mids": "/m/rain", "label": "Rain, heavy"},
    ]
    assert {Path(item.streams["audio"].path).name for item in manifest} == {"a, b.WAV", "für.wav"}


def test_ssast_with_missing_files_or_another_shape(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    rows = [{"wav": "a.wav", "labels": "x"}, {"wav": "/data/sls/b.wav", "labels": "x"}]
    path = text(tmp_path / "train.json", json.dumps({"data": rows}))
    with pytest.raises(
        DataError, match=r"train\.json: 1 of the 2 listed files are missing: /data/sls/b\.wav; relative"
    ):
        read_data(path)
    assert len(read_data(path, keep_going=True)) == 1
    text(path, '{"data": [{"path": "a.wav"}]}')
    with pytest.raises(DataError, match=r'expected \{"data": \[\{"wav": PATH, "labels": "mid,mid"\}'):
        read_data(path)
    text(path, '{"data": [{"wav": "a.wav"')
    with pytest.raises(DataError, match=r"train\.json: it is not JSON"):
        read_data(path)


# Kaldi -----------------------------------------------------------------------------------------------------------


def test_kaldi(tmp_path: Path) -> None:
    data = tmp_path / "data" / "train"
    sounds(tmp_path, "wavs/rec one.wav", "data/train/two.WAV", seconds=2.0)
    data.mkdir(parents=True, exist_ok=True)
    (data / "wav.scp").write_bytes(windows(f"r1 {tmp_path}/wavs/rec one.wav\nr2\ttwo.wav\n"))
    text(data / "text", "r1 hello  world\nr2 ünd\n")
    text(data / "utt2spk", "r1 s1\r\nr2 s2\r\n")
    text(data / "spk2gender", "s1 f\n")
    manifest = read_as("kaldi", data)
    assert manifest.ids == ("r1", "r2")
    assert manifest[0].labels == {"text": "hello  world", "speaker": "s1", "gender": "f"}
    assert manifest[1].labels == {"text": "ünd", "speaker": "s2"}
    assert [item.duration for item in manifest] == [2.0, 2.0]
    text(data / "wav.scp", "r1 wavs/rec one.wav\nr2 two.wav\n")
    assert read_data(data).items == manifest.items


def test_kaldi_segments(tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav", seconds=2.0)
    text(tmp_path / "wav.scp", "r a.wav\n")
    text(tmp_path / "segments", "u1 r 0.25 1.0\nu2 r 1.5 -1\n")
    text(tmp_path / "utt2spk", "u1 s\nu2 s\n")
    manifest = read_as("kaldi", tmp_path)
    file = str(tmp_path / "a.wav")
    assert [item.streams["audio"] for item in manifest] == [AudioRef(file, 0.25, 1.0), AudioRef(file, 1.5)]
    assert [item.duration for item in manifest] == [0.75, 0.5]
    text(tmp_path / "reco2dur", "r 3.5\n")
    assert read_data(tmp_path)[1].duration == 2.0


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("wav.scp", "r sox a.mp3 -t wav - |\n", "line 1: 'r' is the output of a command, and auricle runs no commands"),
        ("segments", "u r 0\n", r"segments: line 1: expected UTTERANCE RECORDING START END"),
        ("reco2dur", "q 1\nr long\n", "reco2dur: line 2: expected seconds, got 'long'"),
        ("segments", "u r 2 1\n", "expected 0 <= start < end, got 2 and 1"),
        ("segments", "u q 0 1\n", "'u' is cut from 'q', which wav.scp does not have"),
        ("wav.scp", "r a.wav\nq b.wav\n", r"1 of the 2 listed files are missing: b\.wav"),
    ],
)
def test_malformed_kaldi(tmp_path: Path, name: str, content: str, message: str) -> None:
    sound(tmp_path / "a.wav")
    text(tmp_path / "wav.scp", "r a.wav\n")
    text(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        read_data(tmp_path)


# NeMo ------------------------------------------------------------------------------------------------------------


def test_nemo(tmp_path: Path) -> None:
    sounds(tmp_path, "wavs/a b.wav", "wavs/c.WAV", seconds=3.0)
    lines = [
        {"audio_filepath": "wavs/a b.wav", "duration": 3.0, "text": "hi, ü", "lang": None, "label": "yes"},
        {"audio_filepath": str(tmp_path / "wavs" / "c.wav"), "offset": 0.5, "duration": 1.0, "label": "no"},
        {"audio_filepath": "wavs/c.wav", "offset": 2, "duration": 1, "label": 3},
    ]
    path = tmp_path / "train.json"
    path.write_bytes(windows("\n".join(map(json.dumps, lines)) + "\n\n"))
    manifest = read_as("nemo", path)
    assert manifest.ids == ("wavs/a b.wav", "wavs/c.WAV@0.5", "wavs/c.WAV@2")
    assert manifest[0].labels == {"text": "hi, ü", "label": "yes"}
    assert manifest[0].streams["audio"] == AudioRef(str(tmp_path / "wavs" / "a b.wav"))
    assert manifest[1].streams["audio"] == AudioRef(str(tmp_path / "wavs" / "c.WAV"), 0.5, 1.5)
    assert (manifest[1].duration, manifest[2].labels["label"]) == (1.0, "3")


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"duration": 1}', 'line 2: it names no "audio_filepath"'),
        ('{"audio_filepath": "a.wav", "duration": "long"}', "line 2: expected seconds, got 'long'"),
        ('{"audio_filepath": "a.wav", "offset": -1}', "line 2: expected offset >= 0 and duration > 0"),
        ("[1]", "line 2 is not a JSON object"),
        ('{"audio_filepath": "b.wav"}', r"1 of the 2 listed files are missing: b\.wav"),
    ],
)
def test_malformed_nemo(tmp_path: Path, line: str, message: str) -> None:
    sound(tmp_path / "a.wav")
    with pytest.raises(DataError, match=message):
        read_data(text(tmp_path / "x.jsonl", '{"audio_filepath": "a.wav", "duration": 1}\n' + line + "\n"))


# fairseq ---------------------------------------------------------------------------------------------------------


def test_fairseq(tmp_path: Path) -> None:
    sounds(tmp_path, "wavs/x/a b.wav", "wavs/ü.FLAC", "wavs/extra.wav")
    (tmp_path / "train.tsv").write_bytes(windows(f"{tmp_path}/wavs\nx/a b.wav\t2000\nü.flac\t2000\n"))
    text(tmp_path / "train.ltr", "H I |\n\n")
    text(tmp_path / "train.km", "1 2 2\n3 3\n")
    manifest = read_as("fairseq", tmp_path / "train.tsv")
    assert {item.id: dict(item.labels) for item in manifest} == {
        "x/a b.wav": {"ltr": "H I |", "km": "1 2 2"},
        "ü.FLAC": {"km": "3 3"},
    }
    text(tmp_path / "valid.tsv", "wavs\nextra.wav\t2000\n")
    assert [item.labels["split"] for item in read_as("fairseq", tmp_path)] == ["valid", "train", "train"]


def test_fairseq_that_was_moved_or_does_not_fit(tmp_path: Path) -> None:
    sounds(tmp_path, "x/a.wav")
    path = text(tmp_path / "train.tsv", "/checkpoint/abaevski/data\nx/a.wav\t2000\n")
    assert only(read_as("fairseq", path)).id == "x/a.wav"
    text(tmp_path / "train.wrd", "ONE\nTWO\n")
    with pytest.raises(DataError, match=r"train\.wrd: 2 lines for the 1 files of train\.tsv"):
        read_data(path)
    text(path, "/checkpoint\nx/a.wav\t2000\nx/b.wav\n")
    with pytest.raises(DataError, match=r"line 3: expected PATH, a tab and the number of samples"):
        read_data(path)


# Hugging Face audiofolder ----------------------------------------------------------------------------------------


def test_audiofolder_with_metadata(tmp_path: Path) -> None:
    sounds(tmp_path, "train/a b.wav", "test/c.WAV", "test/extra.wav")
    (tmp_path / "metadata.csv").write_bytes(
        windows('file_name,label,text\ntrain/a b.wav,x,"one, two"\ntest/c.wav,y,\n')
    )
    manifest = read_as("audiofolder", tmp_path)
    assert {item.id: dict(item.labels) for item in manifest} == {
        "train/a b.wav": {"label": "x", "text": "one, two", "split": "train"},
        "test/c.WAV": {"label": "y", "split": "test"},
    }


def test_audiofolder_with_metadata_in_each_split(tmp_path: Path) -> None:
    sounds(tmp_path, "data/train/a.wav", "data/validation/b.wav")
    text(tmp_path / "data" / "train" / "metadata.jsonl", '{"file_name": "a.wav", "label": ["x", "y"]}\r\n')
    text(tmp_path / "data" / "validation" / "metadata.jsonl", '{"file_name": "b.wav", "label": ["x"], "loud": true}\n')
    assert {item.id: dict(item.labels) for item in read_as("audiofolder", tmp_path)} == {
        "data/train/a.wav": {"label": "x;y", "split": "train"},
        "data/validation/b.wav": {"label": "x", "loud": "true", "split": "validation"},
    }


def test_audiofolder_by_folders(tmp_path: Path) -> None:
    sounds(tmp_path, "Train/dog/1.wav", "Train/cat/2.wav", "test/dog/3.WAV", "loose.wav")
    manifest = read_as("audiofolder", tmp_path)
    assert [(item.id, *item.labels.values()) for item in manifest] == [
        ("Train/cat/2.wav", "cat", "Train"),
        ("Train/dog/1.wav", "dog", "Train"),
        ("test/dog/3.WAV", "dog", "test"),
    ]


def test_audiofolder_with_what_is_not_read_or_not_there(tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav")
    text(tmp_path / "metadata.parquet", "PAR1")
    with pytest.raises(DataError, match=r"metadata\.parquet: parquet is not read; save it as metadata\.csv beside it"):
        read_data(tmp_path)
    text(tmp_path / "metadata.csv", "file_name,label\na.wav,x\nb.wav,y\n")
    with pytest.raises(DataError, match=r"1 of the 2 listed files are missing: b\.wav"):
        read_data(tmp_path)
    text(tmp_path / "metadata.csv", "file_name,label\na.wav,x\n,y\n")
    with pytest.raises(DataError, match=r"metadata\.csv: line 3: it has no file_name"):
        read_data(tmp_path)


# Choosing --------------------------------------------------------------------------------------------------------


def test_plain_data_says_that_it_is_plain(tmp_path: Path) -> None:
    sounds(tmp_path, "dog/a.wav", "cat/b.wav")
    assert read_data(tmp_path).notes == (
        f"{tmp_path}: read as folder (a folder without the lists of a known corpus): 2 items",
    )
    listed = text(tmp_path / "x.csv", "path,label\ndog/a.wav,dog\n")
    assert "read as csv (a table that is not the list of a known corpus): 1 item" in read_data(listed).notes[0]


def test_the_users_own_manifest_comes_first(tmp_path: Path) -> None:
    sounds(tmp_path, "audio/a.wav")
    text(tmp_path / "meta" / "esc50.csv", "filename,fold,target,category\na.wav,1,0,dog\n")
    text(tmp_path / "manifest.csv", "path,label\naudio/a.wav,mine\n")
    assert only(read_as("csv", tmp_path)).labels == {"label": "mine"}
    assert only(read_data(tmp_path, "esc50")).labels["label"] == "dog"


def test_two_equal_claims_are_not_decided(tmp_path: Path) -> None:
    sounds(tmp_path, "audio/a.wav")
    text(tmp_path / "meta" / "esc50.csv", "filename,fold,target,category\na.wav,1,0,dog\n")
    text(tmp_path / "wav.scp", "r audio/a.wav\n")
    with pytest.raises(
        DataError,
        match=r"read in several ways: esc50 \(it holds meta/esc50\.csv\); kaldi \(it holds wav\.scp\); choose one with",
    ):
        read_data(tmp_path)
    assert read_data(tmp_path, "kaldi").ids == ("r",)


def test_a_format_that_does_not_exist_or_does_not_fit(tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav")
    with pytest.raises(ConfigError, match=r"no format 'ecs50' \(did you mean 'esc50'.*; the formats are esc50, "):
        read_data(tmp_path, "ecs50")
    for name, (_, looks_for) in readers.READERS.items():
        if name != "folder":
            with pytest.raises(DataError) as error:
                read_data(tmp_path, name)
            assert str(error.value) == (
                f"{tmp_path}: it cannot be read as {name}, which looks for {looks_for}; "
                f"leave out --format to detect what it is."
            )
    listed = text(tmp_path / "x.csv", "path,label\na.wav,x\n")
    by_line = {
        "nemo": "line 1 is not",
        "manifest": "line 1 is not",
        "fairseq": "line 2: exp",
        "audioset": "line 1: exp",
    }
    for name in set(readers.READERS) - {"csv", *by_line}:
        with pytest.raises(DataError, match=f"x.csv: it cannot be read as {name}, which looks for "):
            read_data(listed, name)
    for name, message in by_line.items():
        with pytest.raises(DataError, match=rf"x\.csv: {message}"):
            read_data(listed, name)


def test_missing_files_are_an_error_of_a_reader_that_does_not_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = text(tmp_path / "x.csv", "path\na.wav\nb.wav\n")
    sounds(tmp_path, "a.wav")
    monkeypatch.setattr(readers, "get_reader", lambda name: SimpleNamespace(detect=table.detect, read=table.read))
    with pytest.raises(DataError, match=r"1 of the 2 listed files are missing: b\.wav"):
        read_data(path, "of-a-package")
    monkeypatch.setattr(
        readers, "get_reader", lambda name: SimpleNamespace(detect=table.detect, read=table.read, MAY_MISS_FILES=True)
    )
    assert "1 item, 1 missing" in read_data(path, "of-a-package").notes[0]


def test_an_installed_package_brings_its_own_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text(tmp_path / "site" / "reader_of_tests-1.dist-info" / "METADATA", "Name: reader-of-tests\nVersion: 1\n")
    text(
        tmp_path / "site" / "reader_of_tests-1.dist-info" / "entry_points.txt",
        "[auricle.readers]\nfolder = nonsense\nlisted = reader_of_tests\n",
    )
    text(
        tmp_path / "site" / "reader_of_tests.py",
        "from auricle.data.readers import folder\nfrom auricle.data.readers.shared import CERTAIN, Match\n"
        "read = folder.read\n"
        "def detect(path):\n    return Match(CERTAIN, 'a test') if (path / 'listed').is_file() else None\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    sounds(tmp_path / "data", "a.wav")
    text(tmp_path / "data" / "listed", "")
    assert read_as("listed", tmp_path / "data").ids == ("a.wav",)
    assert readers.reader_names()[-1] == "listed"
    with pytest.raises(ConfigError, match=r"no format 'lister' \(did you mean 'listed'"):
        read_data(tmp_path / "data", "lister")
    # A package does not take the name of one of ours.
    (tmp_path / "data" / "listed").unlink()
    assert read_as("folder", tmp_path / "data").ids == ("a.wav",)


def test_files_that_were_missing_when_a_manifest_was_made_stay_known(tmp_path: Path) -> None:
    sounds(tmp_path, "audio/a.wav")
    text(tmp_path / "meta" / "esc50.csv", "filename,fold,target,category\na.wav,1,0,dog\nb.wav,2,0,dog\n")
    read_data(tmp_path).save(tmp_path / "esc.jsonl")
    again = read_as("manifest", tmp_path / "esc.jsonl")
    assert [skipped.reason for skipped in again.skipped] == ["missing when listed"]
    assert again.hash == read_data(tmp_path).hash
    (tmp_path / "audio" / "a.wav").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 listed files are missing: audio/a\.wav"):
        read_data(tmp_path / "esc.jsonl")


def test_excluded_files_are_not_missed(tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav", "b.wav")
    text(tmp_path / "wav.scp", "a a.wav\nb b.wav\ngone gone.wav\n")
    text(tmp_path / "exclude.txt", "b.wav\ngone.wav\n")
    manifest = read_data(tmp_path, exclude=tmp_path / "exclude.txt")
    assert (manifest.ids, manifest.skipped) == (("a",), ())
    text(tmp_path / "exclude.txt", "a.wav\nb.wav\ngone.wav\n")
    with pytest.raises(DataError, match="nothing is left of it: it lists no sound files, or all are excluded"):
        read_data(tmp_path, exclude=tmp_path / "exclude.txt")
