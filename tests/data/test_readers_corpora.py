"""Published corpora: their layouts with the oddities that copies of them have."""

import unicodedata
from pathlib import Path

import pytest
from layouts import lost, only, read_as, sound, sounds, text, windows

from auricle.data.formats import read_data
from auricle.data.items import AudioRef, Event
from auricle.data.labels import read_labels
from auricle.data.splits import folds
from auricle.data.writers import write_data
from auricle.errors import DataError

# ESC-50 ----------------------------------------------------------------------------------------------------------

ESC = (
    "filename,fold,target,category,esc10,src_file,take\n"
    "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
    "2-1-A-1.wav,2,1,rooster,False,1,A\n"
    '"5-9, b-A-1.wav",5,1,rooster,False,9,A\n'
)


def esc50(root: Path) -> Path:
    text(root / "meta" / "esc50.csv", ESC)
    sounds(root, "audio/1-100032-A-0.WAV", "audio/5-9, b-A-1.wav", "audio/0-extra-A-0.wav")
    return root


def test_esc50(tmp_path: Path) -> None:
    manifest = read_as("esc50", esc50(tmp_path))
    assert manifest.ids == ("audio/1-100032-A-0.WAV", "audio/5-9, b-A-1.wav")
    assert manifest[0].labels == {
        "label": "dog",
        "split": "fold1",
        "esc10": "True",
        "src_file": "100032",
        "take": "A",
        "target": "0",
    }
    assert [fold.name for fold in folds(manifest)] == ["fold1", "fold5"]
    assert lost(manifest) == {"audio/2-1-A-1.wav": "missing"}
    assert manifest.notes[0].endswith(
        "read as esc50 (it holds meta/esc50.csv): 2 items, 1 missing; not the whole corpus: "
        "2 of 2,000 published clips, 1 of 400 published fold1, 0 of 400 published fold2, 0 of 400 published fold3, "
        "0 of 400 published fold4, 1 of 400 published fold5"
    )


def test_esc50_from_windows_converted_to_flac_and_by_its_table(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_bytes(windows(ESC))
    sounds(tmp_path, "audio/1-100032-A-0.flac", "audio/2-1-A-1.flac", "audio/5-9, b-A-1.flac")
    assert read_as("esc50", tmp_path).skipped == ()
    assert read_as("esc50", tmp_path / "meta" / "esc50.csv").ids == read_data(tmp_path).ids


def test_a_complete_corpus_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.data.readers.esc50.PUBLISHED", {"clips": 2, "fold1": 1, "fold5": 1})
    note = read_data(esc50(tmp_path)).notes[0]
    assert note.endswith("; complete: 2 of 2 published clips, 1 of 1 published fold1, 1 of 1 published fold5")


# Speech Commands -------------------------------------------------------------------------------------------------


def speech_commands(root: Path) -> Path:
    text(root / "validation_list.txt", "yes/a1_nohash_0.wav\r\nno/gone_nohash_0.wav\r\n")
    text(root / "testing_list.txt", "no/b2_nohash_1.wav\n\n")
    sounds(root, "yes/a1_nohash_0.wav", "yes/c3_nohash_0.wav", "yes/c3_nohash_1.WAV", "no/b2_nohash_1.wav")
    sounds(root, "_background_noise_/rain noise.wav", "loose.wav")
    text(root / "README.md", "words")
    text(root / "no" / "notes.txt", "no sound")
    return root


def test_speech_commands(tmp_path: Path) -> None:
    manifest = read_as("speech-commands", speech_commands(tmp_path))
    assert {item.id: tuple(item.labels.values()) for item in manifest} == {
        "no/b2_nohash_1.wav": ("no", "test", "b2"),
        "yes/a1_nohash_0.wav": ("yes", "val", "a1"),
        "yes/c3_nohash_0.wav": ("yes", "train", "c3"),
        "yes/c3_nohash_1.WAV": ("yes", "train", "c3"),
    }
    assert lost(manifest) == {"no/gone_nohash_0.wav": "missing"}
    assert "4 of 64,721 published clips, 2 of 51,088 published train" in manifest.notes[0]
    (tmp_path / "backward").mkdir()
    assert "4 of 105,829 published clips, 2 of 84,843 published train" in read_data(tmp_path).notes[0]


def test_speech_commands_needs_paths_in_its_lists(tmp_path: Path) -> None:
    text(speech_commands(tmp_path) / "testing_list.txt", "b2_nohash_1.wav\n")
    with pytest.raises(DataError, match=r"testing_list\.txt: line 1: expected WORD/FILE\.wav, got 'b2_nohash_1\.wav'"):
        read_data(tmp_path)


# FSD50K ----------------------------------------------------------------------------------------------------------


def test_fsd50k(tmp_path: Path) -> None:
    text(
        tmp_path / "FSD50K.ground_truth" / "dev.csv",
        'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf",train\n'
        "16399,Bark,/m/05tny_,val\n7,Bark,/m/05tny_,train\n",
    )
    text(tmp_path / "FSD50K.ground_truth" / "eval.csv", "fname,labels,mids\r\n37199,Bark,/m/05tny_\r\n")
    sounds(tmp_path, "FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.WAV", "FSD50K.dev_audio/999.wav")
    sounds(tmp_path, "FSD50K.eval_audio/37199.flac", "FSD50K.eval_audio/7.wav")
    manifest = read_as("fsd50k", tmp_path)
    assert {item.id: (item.labels["label"], item.labels["split"]) for item in manifest} == {
        "FSD50K.dev_audio/16399.WAV": ("Bark", "val"),
        "FSD50K.dev_audio/64760.wav": ("Electric_guitar;Guitar;Music", "train"),
        "FSD50K.eval_audio/37199.flac": ("Bark", "test"),
    }
    assert manifest[1].labels["mids"] == "/m/02sgy;/m/0342h;/m/04rlf"
    assert lost(manifest) == {"FSD50K.dev_audio/7.wav": "missing"}
    assert "3 of 51,197 published clips, 1 of 36,796 published train, 1 of 4,170 published val" in manifest.notes[0]


# AudioSet --------------------------------------------------------------------------------------------------------

SEGMENTS = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=4, num_segs=4, num_unique_labels=2, num_positive_labels=5\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
    '-0RWZT-miFs, 1.000, 2.000, "/m/09x0r"\n'
    'whole_video, 0.500, 1.500, "/m/09x0r"\n'
    'gone0000000, 5.000, 15.000, "/t/dd00088"\n'
)
NAMES = 'index,mid,display_name\n0,/m/09x0r,"Child speech, kid speaking"\n1,/t/dd00088,Gush\n'


def test_audioset_weak(tmp_path: Path) -> None:
    text(tmp_path / "eval_segments.csv", SEGMENTS)
    text(tmp_path / "class_labels_indices.csv", NAMES)
    sounds(tmp_path, "eval/Y--PJHxphWEs.wav", "eval/-0RWZT-miFs_1000_2000.WAV", "eval/unlisted.wav", seconds=1.0)
    sounds(tmp_path, "eval/whole_video.wav", seconds=3.0)
    manifest = read_as("audioset", tmp_path)
    assert manifest.ids == ("eval/-0RWZT-miFs_1000_2000.WAV", "eval/Y--PJHxphWEs.wav", "eval/whole_video.wav@0.5")
    assert manifest[1].labels == {
        "mids": "/m/09x0r;/t/dd00088",
        "label": "Child speech, kid speaking;Gush",
        "split": "test",
    }
    assert manifest[2].streams["audio"] == AudioRef(str(tmp_path / "eval" / "whole_video.wav"), 0.5, 1.5)
    assert manifest[2].duration == 1.0
    assert lost(manifest) == {"gone0000000_5.wav": "missing"}
    assert manifest.notes[0].endswith("3 items, 1 missing; not the whole corpus: 3 of 4 published clips")


def test_audioset_strong_beside_weak(tmp_path: Path) -> None:
    text(tmp_path / "balanced_train_segments.csv", SEGMENTS)
    text(
        tmp_path / "audioset_train_strong.tsv",
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        "--PJHxphWEs_30000\t2.627\t7.237\t/m/09x0r\n--PJHxphWEs_30000\t0.5\t1\t/t/dd00088\n",
    )
    text(tmp_path / "mid_to_display_name.tsv", "/m/09x0r\tSpeech\n/t/dd00088\tGush\n")
    sounds(tmp_path, "audio/--PJHxphWEs_30.wav", seconds=10)
    item = only(read_as("audioset", tmp_path))
    assert item.events == (Event(0.5, 1.0, "Gush"), Event(2.627, 7.237, "Speech"))
    assert (item.labels["label"], item.labels["split"]) == ("Speech;Gush", "train")
    alone = only(read_as("audioset", tmp_path / "audioset_train_strong.tsv"))
    assert (alone.events, alone.labels["split"]) == (item.events, "train")
    both, strong = read_data(tmp_path), read_data(tmp_path / "audioset_train_strong.tsv")
    assert (read_labels(both, "label").task, read_labels(strong, "label").task) == ("tagging", "detection")
    assert read_labels(both, "label", "detection").strong([0]) == (0,)
    write_data(strong, tmp_path / "ssast" / "list.json", "ssast")
    assert (tmp_path / "ssast/list_class_labels_indices.csv").read_text().splitlines()[1:] == [
        "0,/t/dd00088,Gush",
        "1,/m/09x0r,Speech",
    ]


def test_audioset_counts_the_clips_of_each_kind_of_list(tmp_path: Path) -> None:
    text(
        tmp_path / "eval_segments.csv",
        '# num_ytids=3, num_segs=3\na, 0, 10, "/m/1"\nb, 0, 10, "/m/1"\ngone, 0, 10, "/m/1"\n',
    )
    text(
        tmp_path / "audioset_eval_strong.tsv",
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\nother_0\t0\t1\t/m/1\na_0\t0\t1\t/m/1\n",
    )
    sounds(tmp_path, "a.wav", "b.wav", "other.wav")
    manifest = read_as("audioset", tmp_path)
    assert manifest.notes[0].endswith(
        "3 items, 1 missing; not the whole corpus: 2 of 3 published clips with weak labels, "
        "2 of 16,996 published clips with strong labels"
    )


def test_audioset_lists_of_any_name(tmp_path: Path) -> None:
    """Also one that the user cut; it states no count, so nothing is said of completeness."""
    text(tmp_path / "My_Segments.CSV", '# YTID, start_seconds, end_seconds, positive_labels\na, 0, 10, "/m/1,/m/2"\n')
    text(tmp_path / "._My_Segments.CSV", "# YTID, start_seconds, end_seconds, positive_labels\n")
    text(tmp_path / "other_segments.csv", "path,label\na.wav,x\n")
    sounds(tmp_path, "a.wav", "b.wav")
    manifest = read_as("audioset", tmp_path)
    assert only(manifest).labels == {"mids": "/m/1;/m/2", "label": "/m/1;/m/2"}
    assert manifest.notes[0].endswith("read as audioset (it holds My_Segments.CSV): 1 item")


@pytest.mark.parametrize(
    "line, message",
    [
        ("x, 1.0, 2.0, /m/1,/m/2\n", 'line 2: expected YTID, start, end, "labels"'),
        ('x, one, 2.0, "/m/1"\n', "line 2: expected seconds, got 'one', '2.0'"),
    ],
)
def test_malformed_segments(tmp_path: Path, line: str, message: str) -> None:
    sound(tmp_path / "x.wav")
    with pytest.raises(DataError, match=message):
        read_data(text(tmp_path / "mine.csv", "# YTID, start_seconds, end_seconds, positive_labels\n" + line))


# HEAR ------------------------------------------------------------------------------------------------------------


def hear(root: Path, kind: str, splits: str) -> Path:
    text(root / "task_metadata.json", f'{{"task_name": "t", "embedding_type": "{kind}", "splits": {splits}}}')
    text(root / "labelvocabulary.csv", "idx,label\n0,a\n1,b\n")
    return root


def test_hear_scenes(tmp_path: Path) -> None:
    hear(tmp_path, "scene", '["train", "valid", "test"]')
    (tmp_path / "train.json").write_bytes(windows('{"é 1.wav": ["a", "b"]}'))
    text(tmp_path / "valid.json", '{"1.wav": ["b"]}')
    text(tmp_path / "test.json", '{"1.wav": ["b"], "2.wav": ["a"]}')
    sounds(tmp_path, "16000/train/x.wav")
    sounds(tmp_path, f"48000/train/{unicodedata.normalize('NFD', 'é')} 1.wav", "48000/valid/1.WAV", "48000/test/1.wav")
    manifest = read_as("hear", tmp_path)
    assert {item.id: item.labels for item in manifest} == {
        "test/1.wav": {"label": "b", "split": "test"},
        "train/é 1.wav": {"label": "a;b", "split": "train"},
        "valid/1.wav": {"label": "b", "split": "valid"},
    }
    assert Path(manifest[2].streams["audio"].path) == tmp_path / "48000" / "valid" / "1.WAV"
    assert lost(manifest) == {"48000/test/2.wav": "missing"}


def test_hear_events_are_milliseconds(tmp_path: Path) -> None:
    hear(tmp_path, "event", '["fold00"]')
    text(tmp_path / "fold00.json", '{"1.wav": [{"start": 500.0, "end": 1250, "label": "a"}], "2.wav": []}')
    sounds(tmp_path, "48000/fold00/1.wav", "48000/fold00/2.wav")
    manifest = read_as("hear", tmp_path)
    assert manifest[0].events == (Event(0.5, 1.25, "a"),)
    assert manifest[0].labels == {"label": "a", "split": "fold00"}
    assert manifest[1].events == ()
    text(tmp_path / "fold00.json", '{"1.wav": [{"start": 500.0, "label": "a"}]}')
    with pytest.raises(DataError, match=r"fold00\.json: '1\.wav': expected labels, or events with \"start\", \"end\""):
        read_data(tmp_path)
    text(tmp_path / "fold00.json", '{"1.wav": [{"start": 500.0, "end": 20, "label": "a"}]}')
    with pytest.raises(DataError, match=r"fold00\.json: '1\.wav': expected 0 <= onset < offset, got onset 0\.5"):
        read_data(tmp_path)


# DESED -----------------------------------------------------------------------------------------------------------


def test_desed(tmp_path: Path) -> None:
    text(tmp_path / "metadata/train/weak.tsv", "filename\tevent_labels\nYa_1.wav\tSpeech,Dog\nYgone.wav\tDog\n")
    text(tmp_path / "metadata/train/unlabel_in_domain.tsv", "filename\nYu 1.wav\n")
    synthetic = "filename\tonset\toffset\tevent_label\r\n0.wav\t0.5\t1.25\tDog\r\n1.wav\t\t\t\r\n"
    text(tmp_path / "metadata/train/synthetic21_train/soundscapes.tsv", synthetic)
    text(tmp_path / "metadata/validation/validation.tsv", "filename\tonset\toffset\tevent_label\nYv.wav\t0\t2\tCat\n")
    text(
        tmp_path / "metadata/validation/test_dcase2018.tsv", "filename\tonset\toffset\tevent_label\nYv.wav\t0\t2\tCat\n"
    )
    text(tmp_path / "metadata/validation/validation_durations.tsv", "filename\tduration\nYv.wav\t10\n")
    sounds(
        tmp_path, "audio/train/weak_16k/Ya_1.wav", "audio/train/unlabel_in_domain/Yu 1.WAV", "audio/validation/Yv.wav"
    )
    sounds(tmp_path, *(f"audio/train/synthetic21_train/soundscapes/{name}.wav" for name in (0, 1)))
    sounds(tmp_path, "audio/train/elsewhere/0.wav")
    manifest = read_as("desed", tmp_path)
    items = {item.id.removeprefix("audio/"): item for item in manifest}
    assert {name: dict(item.labels) for name, item in items.items()} == {
        "train/weak_16k/Ya_1.wav": {"label": "Speech;Dog", "set": "weak", "annotation": "weak", "split": "train"},
        "train/unlabel_in_domain/Yu 1.WAV": {"set": "unlabel_in_domain", "annotation": "none", "split": "train"},
        "train/synthetic21_train/soundscapes/0.wav": {
            "label": "Dog",
            "set": "soundscapes",
            "annotation": "strong",
            "split": "train",
        },
        "train/synthetic21_train/soundscapes/1.wav": {"set": "soundscapes", "annotation": "strong", "split": "train"},
        "validation/Yv.wav": {"label": "Cat", "set": "test_dcase2018", "annotation": "strong", "split": "test"},
    }
    assert items["train/synthetic21_train/soundscapes/0.wav"].events == (Event(0.5, 1.25, "Dog"),)
    assert items["validation/Yv.wav"].events == (Event(0.0, 2.0, "Cat"),)
    assert lost(manifest) == {"audio/train/weak/Ygone.wav": "missing"}
    assert manifest.notes[0].endswith(
        "5 items, 1 missing; test_dcase2018, validation: the test part, as there is no list for evaluation; "
        "listed: 2 of 1,578 published weak, 1 of 14,412 published unlabel_in_domain, "
        "1 of 1,168 published validation"
    )
    one = only(read_as("desed", tmp_path / "metadata/validation/validation.tsv"))
    assert (one.id, one.labels["split"]) == ("audio/validation/Yv.wav", "test")


def test_a_desed_with_a_list_for_evaluation_chooses_by_its_validation_list(tmp_path: Path) -> None:
    for part in ("train", "validation", "eval", "validation/synthetic"):
        name = f"{part.replace('/', '_')}.wav"
        text(tmp_path / "metadata" / part / "list.tsv", f"filename\tonset\toffset\tevent_label\n{name}\t0\t0.1\tCat\n")
        sounds(tmp_path, f"audio/{part}/{name}")
    found = {item.id.rsplit("/", 1)[-1]: item.labels["split"] for item in read_as("desed", tmp_path)}
    assert found == {
        "train.wav": "train",
        "validation.wav": "validation",
        "validation_synthetic.wav": "validation",
        "eval.wav": "eval",
    }
    (tmp_path / "metadata/eval/list.tsv").unlink()
    found = {item.id.rsplit("/", 1)[-1]: item.labels["split"] for item in read_as("desed", tmp_path)}
    assert found == {"train.wav": "train", "validation.wav": "test", "validation_synthetic.wav": "validation"}


def test_lists_of_dcase_are_recognised_one_by_one_and_joined(tmp_path: Path) -> None:
    events = "filename\tonset\toffset\tevent_label\n{}.wav\t0\t0.1\tCat\n"
    lists = [
        text(tmp_path / "metadata/train/synthetic/soundscapes.tsv", events.format("s")),
        text(tmp_path / "metadata/train/unlabel_in_domain.tsv", "filename\nu.wav\n"),
        text(tmp_path / "metadata/validation/synthetic/soundscapes.tsv", events.format("v")),
        text(tmp_path / "metadata/validation/validation.tsv", events.format("t")),
    ]
    sounds(tmp_path, "audio/train/synthetic/soundscapes/s.wav", "audio/train/unlabel_in_domain/u.wav")
    sounds(tmp_path, "audio/validation/synthetic/v.wav", "audio/validation/t.wav")
    found = read_data(lists)
    assert {Path(item.id).name: (item.labels["split"], item.labels["annotation"]) for item in found} == {
        "s.wav": ("train", "strong"),
        "u.wav": ("train", "none"),
        "v.wav": ("validation", "strong"),
        "t.wav": ("test", "strong"),
    }
    beside = text(tmp_path / "elsewhere/unlabelled.tsv", "filename\nx.wav\n")
    sounds(tmp_path / "elsewhere", "x.wav")
    assert only(read_as("desed", beside)).labels["annotation"] == "none"


def test_a_list_of_events_beside_its_sound(tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav")
    listed = text(tmp_path / "events.tsv", "filename\tonset\toffset\tevent_label\na.wav\t1\t0.5\tCat\n")
    with pytest.raises(DataError, match=r"events\.tsv: line 2: expected 0 <= onset < offset"):
        read_data(listed)


# IEMOCAP ---------------------------------------------------------------------------------------------------------


def test_iemocap(tmp_path: Path) -> None:
    dialog = tmp_path / "Session1" / "dialog"
    evaluation = (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\n"
        "[10.0100 - 11.3925]\tSes01F_impro01_M001\texc\t[4.0000, 2.5000, 2.0000]\n"
        "[12.0000 - 13.0000]\tSes01F_impro01_F001\txxx\t[2.5000, 2.5000, 2.5000]\n"
    )
    (dialog / "EmoEvaluation").mkdir(parents=True)
    (dialog / "EmoEvaluation" / "Ses01F_impro01.txt").write_bytes(windows(evaluation))
    text(dialog / "EmoEvaluation" / "._Ses01F_impro01.txt", "\0\5\26\7")
    text(dialog / "EmoEvaluation" / "Categorical" / "Ses01F_impro01_e2_cat.txt", "Ses01F_impro01_F000 :Neutral; ()\n")
    text(dialog / "transcriptions" / "Ses01F_impro01.txt", "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n")
    turns = tmp_path / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    sounds(turns, "Ses01F_impro01_F000.wav", "Ses01F_impro01_M001.WAV", "Ses01F_impro01_MXX0.wav")
    manifest = read_as("iemocap", tmp_path)
    assert manifest.ids == ("Ses01F_impro01_F000", "Ses01F_impro01_M001")
    assert manifest[0].labels == {
        "label": "neu",
        "split": "session1",
        "dialog": "Ses01F_impro01",
        "speaker": "Ses01F",
        "gender": "F",
        "valence": "2.5000",
        "activation": "2.5000",
        "dominance": "2.5000",
        "text": "Excuse me.",
    }
    assert (manifest[1].labels["speaker"], manifest[1].labels["label"]) == ("Ses01M", "exc")
    assert list(lost(manifest)) == ["Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F001.wav"]
    assert "2 of 10,039 published clips" in manifest.notes[0]


# VoxCeleb1 -------------------------------------------------------------------------------------------------------


def test_voxceleb1(tmp_path: Path) -> None:
    sounds(tmp_path, "wav/id10001/Y8hIVOBuels/00001.wav", "wav/id10001/Y8hIVOBuels/00002.WAV")
    sounds(tmp_path, "wav/id11251/-s4eI/00003.m4a", "wav/README/x.wav")
    where = read_as("voxceleb", tmp_path)
    assert where.columns == ("label", "speaker", "video")
    assert "(it holds folders of speakers called like id10001)" in where.notes[0]
    text(
        tmp_path / "iden_split.txt",
        "1 id10001/Y8hIVOBuels/00001.wav\r\n3 id10001/Y8hIVOBuels/00002.wav\r\n2 id11251/-s4eI/00003.wav\r\n"
        "1 id10002/gone/00001.wav\r\n",
    )
    text(
        tmp_path / "vox1_meta.csv",
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA.J._Buckley\tm\tIreland\tdev\n",
    )
    manifest = read_as("voxceleb", tmp_path)
    assert {item.id: item.labels["split"] for item in manifest} == {
        "id10001/Y8hIVOBuels/00001.wav": "train",
        "id10001/Y8hIVOBuels/00002.WAV": "test",
        "id11251/-s4eI/00003.m4a": "val",
    }
    assert manifest[0].labels == {
        "label": "id10001",
        "speaker": "id10001",
        "video": "Y8hIVOBuels",
        "split": "train",
        "gender": "m",
        "nationality": "Ireland",
        "set": "dev",
    }
    assert lost(manifest) == {"wav/id10002/gone/00001.wav": "missing"}
    assert "3 of 153,516 published clips, 1 of 138,361 published train" in manifest.notes[0]


def test_voxceleb1_as_the_archives_unpack(tmp_path: Path) -> None:
    sounds(tmp_path, "dev/wav/id10001/a/00001.wav", "test/wav/id10270/b/00001.wav")
    assert [item.labels["label"] for item in read_as("voxceleb", tmp_path)] == ["id10001", "id10270"]


# All of them -----------------------------------------------------------------------------------------------------


def test_a_corpus_of_which_nothing_is_there(tmp_path: Path) -> None:
    text(tmp_path / "meta" / "esc50.csv", ESC)
    with pytest.raises(DataError, match=r"esc50\.csv: 3 of the 3 listed files are missing: audio/1-100032-A-0\.wav, "):
        read_data(tmp_path)
