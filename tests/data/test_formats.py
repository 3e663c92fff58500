import os
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.data.formats import read_data
from auricle.data.items import AudioRef, Event
from auricle.errors import DataError

RATE = 8000


def sound(path: Path, seconds: float = 0.25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * RATE), 0.1, np.float32), RATE, format="WAV")
    return path


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


# Folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_a_data_set_at_any_depth(tmp_path: Path) -> None:
    for name in ("b.WAV", "x/a.wav", "x/y/z/ü d.wav"):
        sound(tmp_path / name, 0.5)
    table(tmp_path / "notes.txt", "no sound")
    manifest = read_data(tmp_path)
    assert manifest.ids == ("b.WAV", "x/a.wav", "x/y/z/ü d.wav")
    assert manifest[0].streams == {"audio": AudioRef(str(tmp_path / "b.WAV"))}
    assert manifest[0].duration == 0.5
    assert manifest.columns == ()
    assert (manifest.root, manifest.skipped) == (tmp_path, ())


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "opus", "mp3", "aiff", "au", "caf", "w64", "rf64", "FLAC"])
def test_every_extension_is_found(tmp_path: Path, extension: str) -> None:
    sound(tmp_path / f"a.{extension}")
    assert len(read_data(tmp_path)) == 1


def test_the_first_level_is_the_label(tmp_path: Path) -> None:
    for name in ("dog/1.wav", "dog/deep/2.wav", "cat/1.wav"):
        sound(tmp_path / name)
    manifest = read_data(str(tmp_path))
    assert manifest.labels_of("label") == ("cat", "dog", "dog")
    sound(tmp_path / "loose.wav")
    assert read_data(tmp_path).columns == ()


def test_hidden_files_and_leftovers_of_macos_are_passed_over(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    for name in (".b.wav", "._a.wav", ".cache/c.wav", "__MACOSX/a.wav", "x/__MACOSX/._a.wav"):
        sound(tmp_path / name)
    assert read_data(tmp_path).ids == ("a.wav",)


def test_a_folder_that_is_hidden_itself_can_be_read(tmp_path: Path) -> None:
    sound(tmp_path / ".data" / "a.wav")
    assert read_data(tmp_path / ".data").ids == ("a.wav",)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    sound(tmp_path / "elsewhere" / "a.wav")
    data = tmp_path / "data"
    sound(data / "b.wav")
    (data / "link").symlink_to(tmp_path / "elsewhere")
    (data / "up").symlink_to(data)
    (tmp_path / "elsewhere" / "loop").symlink_to(data)
    assert read_data(data).ids == ("b.wav", "link/a.wav")


def test_unreadable_files_are_listed(tmp_path: Path) -> None:
    sound(tmp_path / "good.wav")
    table(tmp_path / "text.wav", "this is no sound")
    table(tmp_path / "zero.flac", "")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    manifest = read_data(tmp_path)
    assert manifest.ids == ("good.wav",)
    assert {path: reason for path, reason, _ in manifest.skipped} == {
        str(tmp_path / "text.wav"): "not audio",
        str(tmp_path / "zero.flac"): "not audio",
        str(tmp_path / "gone.wav"): "missing",
        str(tmp_path / "pipe.wav"): "not audio",
    }
    details = {Path(path).name: detail for path, _, detail in manifest.skipped}
    assert details["zero.flac"] == "the file is empty"
    assert details["pipe.wav"] == "this is a pipe, socket or device; copy the sound into a file first"


def test_a_folder_without_usable_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no audio: the folder is empty; expected files that end in \.wav, \.flac"):
        read_data(tmp_path)
    table(tmp_path / "a.txt", "x")
    with pytest.raises(DataError, match="of 1 file none is a sound file"):
        read_data(tmp_path)
    table(tmp_path / "a.wav", "x")
    with pytest.raises(
        DataError, match=r"of 1 sound file none can be read, such as .*a\.wav \(not audio: its first bytes belong"
    ):
        read_data(tmp_path)


def test_the_hash_does_not_depend_on_where_the_data_lies(tmp_path: Path) -> None:
    sound(tmp_path / "one" / "dog" / "1.wav")
    sound(tmp_path / "one" / "cat" / "1.wav")
    shutil.copytree(tmp_path / "one", tmp_path / "far" / "away" / "two")
    assert read_data(tmp_path / "one").hash == read_data(tmp_path / "far" / "away" / "two").hash


# CSV and TSV -----------------------------------------------------------------------------------------------------


def test_a_folder_with_a_manifest(tmp_path: Path) -> None:
    sound(tmp_path / "audio" / "b.wav")
    sound(tmp_path / "audio" / "a.wav")
    sound(tmp_path / "audio" / "extra.wav")
    table(tmp_path / "manifest.csv", "path,duration,split,label\naudio/b.wav,7.5,test,dog\naudio/a.wav,,train,cat\n")
    table(
        tmp_path / "events.csv",
        "path,onset,offset,label\naudio/b.wav,2,3.5,y\naudio/b.wav,0.5,1,x\naudio/b.wav,4,5,x\naudio/extra.wav,0,1,z\n",
    )
    manifest = read_data(tmp_path)
    assert manifest.ids == ("audio/a.wav", "audio/b.wav")
    assert [item.duration for item in manifest] == [0.25, 7.5]
    assert manifest.columns == ("split", "label")
    assert manifest[1].labels == {"split": "test", "label": "dog"}
    assert manifest[1].events == (Event(0.5, 1.0, "x"), Event(2.0, 3.5, "y"), Event(4.0, 5.0, "x"))
    assert manifest[0].events == ()
    assert read_data(tmp_path / "manifest.csv") == manifest


@pytest.mark.parametrize("column", ["path", "file", "filename", "file_name", "audio", "wav", "relpath", "File_Name"])
def test_names_of_the_path_column(tmp_path: Path, column: str) -> None:
    sound(tmp_path / "a.wav")
    manifest = read_data(table(tmp_path / "x.csv", f"label,{column}\ndog,a.wav\n"))
    assert manifest.ids == ("a.wav",)
    assert manifest.columns == ("label",)


@pytest.mark.parametrize("duration", ["", "nan", "inf", "0", "-3", "2.5 s"])
def test_invalid_durations_are_replaced_by_the_true_one(tmp_path: Path, duration: str) -> None:
    sound(tmp_path / "a.wav", 0.5)
    assert read_data(table(tmp_path / "x.csv", f"path,duration\na.wav,{duration}\n"))[0].duration == 0.5


@pytest.mark.parametrize(
    "name, text, encoding",
    [
        ("x.csv", 'path,label\n"a, b.wav","x, y"\n', "utf-8"),
        ("x.csv", 'path,label\r\n"a, b.wav","x, y"\r\n', "utf-8-sig"),
        ("x.csv", "path;label\na, b.wav;x, y\n", "utf-8"),
        ("x.tsv", "path\tlabel\na, b.wav\tx, y\n", "utf-8"),
        ("x.TSV", "path\tlabel\r\na, b.wav\tx, y\r\n\r\n", "utf-8-sig"),
        ("x.txt", "path\tlabel\na, b.wav\tx, y\n", "utf-8"),
        ("x.csv", "path|label\na, b.wav|x, y\n", "utf-8"),
        ("x.csv", 'path,label\n"a, b.wav","x, y"\n', "utf-16"),
        ("x.csv", '\n\n path , label \n"a, b.wav", "x, y" \n  \n'.replace(', "x, y" ', ',"x, y"'), "utf-8"),
        ("x.csv", ',path,label,\n0,"a, b.wav","x, y",\n', "utf-8"),
        ("x.csv", 'path,label\r"a, b.wav","x, y"\r', "utf-8"),
    ],
)
def test_dialects(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    sound(tmp_path / "a, b.wav")
    manifest = read_data(table(tmp_path / name, text, encoding))
    assert manifest.ids == ("a, b.wav",)
    assert manifest[0].labels == {"label": "x, y"}


def test_strange_names(tmp_path: Path) -> None:
    names = [" blanks .wav", "日本語 ü.wav", 'quo"te.wav', "semi;colon.wav", "new\nline.wav"]
    for name in names:
        sound(tmp_path / name)
    rows = "".join('"{}",x\n'.format(name.replace('"', '""')) for name in names)
    manifest = read_data(table(tmp_path / "x.csv", "path,label\n" + rows))
    assert sorted(manifest.ids) == sorted(names)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_the_other_unicode_form_are_found(tmp_path: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    sound(tmp_path / unicodedata.normalize(form, "für.wav"))
    listed = table(tmp_path / "x.csv", "path\n" + unicodedata.normalize(other, "für.wav") + "\n")
    assert len(read_data(listed)) == 1


def test_another_extension_than_listed_is_found_for_the_events_too(tmp_path: Path) -> None:
    sound(tmp_path / "Ünï.WAV")
    sound(tmp_path / "b.flac")
    table(tmp_path / "manifest.csv", "path,label\nÜnï.wav,x\nb.wav,y\n")
    table(tmp_path / "events.csv", "path,onset,offset,label\nÜnï.wav,0,0.1,z\n")
    manifest = read_data(tmp_path)
    assert manifest.ids == ("b.flac", "Ünï.WAV")
    assert manifest[1].events == (Event(0.0, 0.1, "z"),)


def test_what_needs_pyav_says_so_beside_other_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "s.wav")
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    monkeypatch.setitem(sys.modules, "av", None)
    (skipped,) = read_data(tmp_path).skipped
    advice = "pip install 'auricle[video]' to read it, or convert it to FLAC or WAV"
    assert str(skipped) == f"{tmp_path}/a.m4a: unsupported: this is MP4 (m4a, mp4, mov); {advice}"


def test_video_beside_sound_is_left_out_and_said(tmp_path: Path) -> None:
    sound(tmp_path / "s.wav")
    for name in ("b.mp4", "c.MKV"):
        (tmp_path / name).touch()
    manifest = read_data(tmp_path)
    assert manifest.ids == ("s.wav",)
    assert manifest.notes[0].endswith(
        ": 1 item; 2 video files left out beside other sound (a list that names them is read)"
    )


def test_paths_with_backslashes_and_dots_and_from_the_root(tmp_path: Path) -> None:
    sound(tmp_path / "lists" / "in" / "a.wav")
    sound(tmp_path / "audio" / "b.wav")
    sound(tmp_path / "audio" / "c.wav")
    listed = table(tmp_path / "lists" / "x.csv", f"path\nin\\a.wav\n./../audio/b.wav\n{tmp_path}/audio/c.wav\n")
    manifest = read_data(listed)
    assert set(manifest.ids) == {"in/a.wav", "../audio/b.wav", f"{tmp_path.as_posix()}/audio/c.wav"}
    assert manifest.root == tmp_path / "lists"
    inside = table(tmp_path / "lists" / "y.csv", f"path\n{tmp_path}/lists/in/a.wav\n")
    assert read_data(inside).ids == ("in/a.wav",)


def test_missing_files_are_named_up_to_five(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    few = table(tmp_path / "few.csv", "path\na.wav\nm0.wav\nm1.wav\n")
    with pytest.raises(DataError, match=r"few.csv: 2 of the 3 listed files are missing: m0\.wav, m1\.wav; relative"):
        read_data(few)
    many = table(tmp_path / "many.csv", "path\n" + "".join(f"m{i}.wav\n" for i in range(12)))
    with pytest.raises(DataError, match=r"12 of the 12 .*: m0\.wav, m1\.wav, m2\.wav, m3\.wav, m4\.wav and 7 more;"):
        read_data(many)


def test_unreadable_listed_files_are_kept_out_and_listed(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    table(tmp_path / "bad.wav", "text")
    manifest = read_data(table(tmp_path / "x.csv", "path,label\nbad.wav,x\na.wav,y\n"))
    assert manifest.ids == ("a.wav",)
    assert [skipped[:2] for skipped in manifest.skipped] == [(str(tmp_path / "bad.wav"), "not audio")]
    with pytest.raises(DataError, match="of 1 sound file none can be read"):
        read_data(table(tmp_path / "y.csv", "path,label\nbad.wav,x\n"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("name,label\na.wav,x\n", "no column names the sound files: expected one of path, .* got name, label"),
        ("path,label\n", "the header is there but no rows"),
        ("path,label,label\na.wav,x,y\n", "column 'label' occurs more than once"),
        ("path,label\na.wav,x,y\n", "line 2 has 3 cells, but the header names 2 columns"),
        ("path,label\na.wav,x\n,y\n", "line 3: column 'path' is empty"),
        ("path,label\na.wav,x\n./a.wav,y\n", "lines 2 and 3 name the same file"),
        ('path,label\n"a.wav,x\n', "not valid CSV"),
    ],
)
def test_malformed_tables(tmp_path: Path, text: str, message: str) -> None:
    sound(tmp_path / "a.wav")
    with pytest.raises(DataError, match=message):
        read_data(table(tmp_path / "x.csv", text))


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such file or folder"):
        read_data(tmp_path / "none")
    with pytest.raises(DataError, match="a sound file is not a data set; give its folder"):
        read_data(sound(tmp_path / "a.wav"))
    (tmp_path / "a.M4A").touch()
    with pytest.raises(DataError, match="a sound file is not a data set; give its folder"):
        read_data(tmp_path / "a.M4A")
    (tmp_path / "x.bin").write_bytes(b"\x7fELF\0\0\0")
    with pytest.raises(DataError, match="not a manifest: it is not text"):
        read_data(tmp_path / "x.bin")
    (tmp_path / "latin.csv").write_bytes("path\nfür.wav\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_data(tmp_path / "latin.csv")
    with pytest.raises(DataError, match="not a manifest of auricle"):
        read_data(table(tmp_path / "x.json", '{"wav": 1}'))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read_data(tmp_path / "pipe")
    with pytest.raises(DataError, match="no data was given"):
        read_data([])


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,onset,label\na.wav,1,x\n", "expected the columns path, onset, offset, label, got path, onset, label"),
        ("path,onset,offset,label\na.wav,one,2,x\n", "line 2: onset 'one' and offset '2' must be seconds"),
        ("path,onset,offset,label\na.wav,1,2,x\na.wav,2,1,x\n", "line 3: expected 0 <= onset < offset"),
        ("path,onset,offset,label\na.wav,-1,1,x\n", "expected 0 <= onset < offset"),
        ("path,onset,offset,label\na.wav,0,nan,x\n", "expected 0 <= onset < offset"),
        ("path,onset,offset,label\na.wav,0,1,\n", "the event has no label"),
        ("path,onset,offset,label\nother.wav,0,1,x\n", "none of its 1 events belongs to a file of manifest.csv"),
    ],
)
def test_malformed_events(tmp_path: Path, text: str, message: str) -> None:
    sound(tmp_path / "a.wav")
    table(tmp_path / "manifest.csv", "path,label\na.wav,x\n")
    table(tmp_path / "events.csv", text)
    with pytest.raises(DataError, match=message):
        read_data(tmp_path)


# JSONL and several sources ---------------------------------------------------------------------------------------


def test_a_saved_manifest_reads_as_the_same_data(tmp_path: Path) -> None:
    sound(tmp_path / "data" / "dog" / "1.wav")
    sound(tmp_path / "data" / "cat" / "1.wav")
    manifest = read_data(tmp_path / "data")
    for name in ("list.jsonl", "list.txt"):
        manifest.save(tmp_path / name)
        again = read_data(tmp_path / name)
        assert again.items == manifest.items
        assert again.hash == manifest.hash
    (tmp_path / "data" / "dog" / "1.wav").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 listed files are missing: .*dog/1\.wav"):
        read_data(tmp_path / "list.jsonl")


def test_several_sources(tmp_path: Path) -> None:
    sound(tmp_path / "x" / "birds" / "a.wav")
    sound(tmp_path / "x" / "dogs" / "wav" / "a.wav")
    table(tmp_path / "x" / "dogs" / "manifest.csv", "path,label\nwav/a.wav,dog\n")
    table(tmp_path / "x" / "birds" / "bad.wav", "text")
    manifest = read_data([tmp_path / "x" / "dogs", tmp_path / "x" / "birds"])
    assert manifest.ids == ("birds/a.wav", "dogs/wav/a.wav")
    assert manifest.root == tmp_path / "x"
    assert [Path(skipped.path).name for skipped in manifest.skipped] == ["bad.wav"]
    with pytest.raises(DataError, match=r"column 'label' is empty for 1 of 2 items \(first: birds/a\.wav\)"):
        manifest.labels_of("label")
    assert read_data([tmp_path / "x" / "birds", tmp_path / "x" / "dogs"]).hash == manifest.hash


def test_the_hash_of_several_sources_does_not_depend_on_where_each_lies(tmp_path: Path) -> None:
    sound(tmp_path / "birds" / "a.wav")
    sound(tmp_path / "dogs" / "a.wav")
    before = read_data([tmp_path / "birds", tmp_path / "dogs"])
    before.save(tmp_path / "list.jsonl")
    assert read_data(tmp_path / "list.jsonl").hash == before.hash
    (tmp_path / "deep").mkdir()
    shutil.move(tmp_path / "dogs", tmp_path / "deep" / "dogs")
    assert read_data([tmp_path / "birds", tmp_path / "deep" / "dogs"]).hash == before.hash


def test_sources_of_one_name_take_more_of_their_paths(tmp_path: Path) -> None:
    sound(tmp_path / "birds" / "audio" / "a.wav")
    sound(tmp_path / "dogs" / "audio" / "a.wav")
    manifest = read_data([tmp_path / "birds" / "audio", tmp_path / "dogs" / "audio"])
    assert manifest.ids == ("birds/audio/a.wav", "dogs/audio/a.wav")


def test_two_tables_of_one_folder(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav")
    one = table(tmp_path / "one.csv", "path\na.wav\n")
    two = table(tmp_path / "two.csv", "path\nb.wav\n")
    assert read_data([one, two]).ids == ("one/a.wav", "two/b.wav")


def test_overlapping_sources_are_refused(tmp_path: Path) -> None:
    sound(tmp_path / "x" / "a.wav")
    with pytest.raises(DataError, match="was given twice"):
        read_data([tmp_path / "x", tmp_path / "x"])
    with pytest.raises(DataError, match=r"a\.wav: two of the sources list this file"):
        read_data([tmp_path, tmp_path / "x"])
