import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from layouts import only, sound, sounds, text

from auricle.data.formats import read_data
from auricle.data.items import Manifest
from auricle.data.writers import write_data
from auricle.errors import ConfigError, DataError


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Two clips with awkward names and labels, one with events."""
    sounds(tmp_path, "data/a, b.wav", "data/ü.wav", seconds=2.0)
    text(
        tmp_path / "data" / "manifest.csv",
        'path,label,split,speaker,text\n"a, b.wav",dog;rain,train,s1,"hi, ""you"""\nü.wav,"Rain, heavy",test,s2,\n',
    )
    text(tmp_path / "data" / "events.csv", 'path,onset,offset,label\n"a, b.wav",0.1,0.7,dog\n"a, b.wav",1,2,rain\n')
    return read_data(tmp_path / "data")


def test_csv_reads_back(manifest: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "data" / "copy" / "list.csv"
    assert write_data(manifest, out) == [out, out.with_name("events.csv")]
    again = read_data(out)
    assert [(i.streams, i.labels, i.events, i.duration) for i in again] == [
        (i.streams, i.labels, i.events, i.duration) for i in manifest
    ]
    write_data(manifest, tmp_path / "above.csv")
    assert "\ndata/ü.wav,2.0," in (tmp_path / "above.csv").read_text()


def test_jsonl_reads_back(manifest: Manifest, tmp_path: Path) -> None:
    write_data(manifest, tmp_path / "list.jsonl")
    assert read_data(tmp_path / "list.jsonl").items == manifest.items


def test_a_list_of_what_is_there_of_a_corpus_is_whole(tmp_path: Path) -> None:
    sounds(tmp_path, "audio/a.wav")
    text(tmp_path / "meta" / "esc50.csv", "filename,fold,target,category\na.wav,1,0,dog\nb.wav,2,0,dog\n")
    corpus = read_data(tmp_path)
    with pytest.raises(DataError, match="1 file cannot be read"):
        corpus.require_all("a probe")
    write_data(corpus, tmp_path / "mine.jsonl")
    read_data(tmp_path / "mine.jsonl").require_all("a probe")


def test_ssast_reads_back_with_a_list_for_each_split(manifest: Manifest, tmp_path: Path) -> None:
    written = write_data(manifest, tmp_path / "x.json")
    assert [path.name for path in written] == ["x_train.json", "x_test.json", "x_class_labels_indices.csv"]
    assert json.loads(written[0].read_text()) == {
        "data": [{"wav": str(tmp_path / "data" / "a, b.wav"), "labels": "dog,rain"}]
    }
    assert written[2].read_text().splitlines() == [
        "index,mid,display_name",
        '0,Rain_ heavy,"Rain, heavy"',
        "1,dog,dog",
        "2,rain,rain",
    ]
    assert only(read_data(written[1])).labels == {"mids": "Rain_ heavy", "label": "Rain, heavy"}
    again = write_data(read_data(written[1]), tmp_path / "again.json")
    assert json.loads(again[0].read_text())["data"][0]["labels"] == "Rain_ heavy"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]


def test_lhotse(manifest: Manifest, tmp_path: Path) -> None:
    recordings, supervisions, events = write_data(manifest, tmp_path / "out", "lhotse")
    assert lines(recordings)[0] == {
        "id": "a, b.wav",
        "sources": [{"type": "file", "channels": [0], "source": str(tmp_path / "data" / "a, b.wav")}],
        "sampling_rate": 8000,
        "num_samples": 16000,
        "duration": 2.0,
        "channel_ids": [0],
    }
    first, _ = lines(supervisions)
    event, _ = lines(events)
    assert first == {
        "id": "a, b.wav",
        "recording_id": "a, b.wav",
        "start": 0.0,
        "duration": 2.0,
        "channel": 0,
        "text": 'hi, "you"',
        "speaker": "s1",
        "custom": {"label": "dog;rain", "split": "train"},
    }
    assert (event["start"], event["duration"], event["custom"]) == (0.1, 0.6, {"event": "dog"})
    other = write_data(manifest, tmp_path / "other", "lhotse")
    assert other[0].read_bytes() == recordings.read_bytes()


def test_lhotse_itself_accepts_it(manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lhotse = pytest.importorskip("lhotse", reason="needs lhotse, which the extra `dev` installs")
    recordings, *sets = (lhotse.load_manifest(path) for path in write_data(manifest, tmp_path / "out", "lhotse"))
    assert list(map(len, sets)) == [2, 2]
    for supervisions in sets:
        lhotse.validate_recordings_and_supervisions(recordings, supervisions, read_data=True)
    # One of the two clips has no events; nothing else is worth a warning.
    (told,) = (record.message for record in caplog.records)
    assert told.startswith("There are 1 recordings that do not have any corresponding supervisions")


@pytest.mark.parametrize("name", ["x.csv", "x.json"])
def test_a_name_that_is_not_utf8_is_refused_where_text_has_to_be(tmp_path: Path, name: str) -> None:
    sound(tmp_path / "dogs" / "a.wav", 0.1)
    (tmp_path / "dogs" / "a.wav").rename(tmp_path / "dogs" / "a\udcff.wav")
    sound(tmp_path / "cats" / "b.wav", 0.1)
    manifest = read_data(tmp_path)
    with pytest.raises(DataError, match=r"its name is not UTF-8, which .* has to be; rename it, or write jsonl or"):
        write_data(manifest, tmp_path / name, label="label")
    assert not (tmp_path / name).exists()


def test_stretches_of_files(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 2.0)
    text(tmp_path / "wav.scp", "r a.wav\n")
    text(tmp_path / "segments", "u1 r 0.25 1\nu2 r 1 -1\n")
    manifest = read_data(tmp_path)
    for name in ("x.csv", "x.json"):
        with pytest.raises(DataError, match=r"item 'u1' is a stretch or channel of a file, which .*; write jsonl or"):
            write_data(manifest, tmp_path / name)
    _, supervisions = write_data(manifest, tmp_path / "out", "lhotse")
    assert [(s["recording_id"], s["start"], s["duration"]) for s in lines(supervisions)] == [
        ("a.wav", 0.25, 0.75),
        ("a.wav", 1.0, 1.0),
    ]


def test_what_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--to must be one of jsonl, csv, ssast, lhotse, got ''"):
        write_data(manifest, tmp_path / "x.txt")
    with pytest.raises(ConfigError, match=r"got 'lotse' \(did you mean 'lhotse'\?\)"):
        write_data(manifest, tmp_path / "x", "lotse")
    text(tmp_path / "events.csv", "mine")
    with pytest.raises(ConfigError, match=r"events\.csv exists; give another --out"):
        write_data(manifest, tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()
    with pytest.raises(DataError, match="no column 'lable'"):
        write_data(manifest, tmp_path / "x.json", label="lable")


def test_convert(cli: Callable[..., tuple[int, str, str]], manifest: Manifest, tmp_path: Path) -> None:
    end = cli("convert", tmp_path / "data", "--out", tmp_path / "list.jsonl")
    assert end == (
        0,
        f"{tmp_path / 'list.jsonl'}\n",
        f"data: {tmp_path / 'data' / 'manifest.csv'}: read as csv (it holds manifest.csv): 2 items\n",
    )
    code, _, err = cli("convert", tmp_path / "data", "--format", "folder", "--out", tmp_path / "plain.csv")
    assert (code, err) == (0, f"data: {tmp_path / 'data'}: read as folder (as asked): 2 items\n")
    code, _, err = cli("convert", tmp_path / "data", "--format", "foldr", "--out", tmp_path / "more.csv")
    assert code == 2
    assert err.startswith("error: no format 'foldr' (did you mean 'folder'")
