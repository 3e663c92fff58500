"""Events as labels: what is known of a clip, what a crop holds of it, and which frames they make active."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.data.formats import read_data
from auricle.data.items import Event, events_between
from auricle.data.labels import Labels, read_labels
from auricle.data.loader import Loader
from auricle.data.targets import frame_targets
from auricle.errors import DataError

RATE = 8000
DOG, RAIN = Event(0.5, 1.0, "dog"), Event(0.0, 3.0, "rain")


def folder(path: Path, rows: str, events: str, clips: int = 4) -> Path:
    path.mkdir()
    for number in range(clips):
        wave = np.zeros(3 * RATE)
        wave[RATE // 2 : RATE] = 0.5  # where DOG is
        soundfile.write(path / f"{number}.wav", wave, RATE)
    (path / "manifest.csv").write_text(rows)
    (path / "events.csv").write_text(events)
    return path


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Strong, weak, unlabelled, and strong without any event."""
    return folder(
        tmp_path / "scenes",
        "path,split,label,annotation\n0.wav,train,,strong\n1.wav,train,dog;rain,weak\n2.wav,train,,none\n"
        "3.wav,test,,strong\n",
        "path,onset,offset,label\n0.wav,0.5,1.0,dog\n0.wav,0,3,rain\n",
    )


def labels_of(path: Path, task: str = "") -> Labels:
    return read_labels(read_data(path), "label", task)


def test_a_column_says_what_is_known_of_a_clip(scenes: Path) -> None:
    labels = labels_of(scenes)
    assert labels.task == "detection"
    assert labels.events == ((RAIN, DOG), None, None, ())
    assert labels.sets == (("rain", "dog"), ("dog", "rain"), (), ())
    assert labels.strong(range(4)) == (0, 3)
    targets = labels.targets(range(4), ("dog", "rain"))
    assert targets[[0, 1, 3]].tolist() == [[1, 1], [1, 1], [0, 0]]
    assert np.isnan(targets[2]).all()
    assert str(labels) == "detection: 2 classes, 2 events in 2 clips, 1 clip with labels only, 1 clip unlabelled"


def test_without_that_column_events_and_labels_say_it(tmp_path: Path) -> None:
    path = folder(
        tmp_path / "plain", "path,split\n0.wav,train\n1.wav,train\n", "path,onset,offset,label\n0.wav,1,2,dog\n"
    )
    assert labels_of(path).events == ((Event(1.0, 2.0, "dog"),), ())
    (path / "manifest.csv").write_text("path,label\n0.wav,dog\n1.wav,dog\n2.wav,\n")
    assert labels_of(path, "detection").events == ((Event(1.0, 2.0, "dog"),), None, ())


def test_events_beside_a_label_column_do_not_change_the_task(tmp_path: Path) -> None:
    path = folder(tmp_path / "both", "path,label\n0.wav,a\n1.wav,b\n", "path,onset,offset,label\n0.wav,1,2,dog\n")
    labels = labels_of(path)
    assert labels.task == "classification"
    assert (
        str(labels) == "classification: 2 classes in column 'label'; 1 event with times not used (see --task detection)"
    )
    assert labels_of(path, "classification").unused == 0
    assert labels_of(path, "detection").task == "detection"


def test_detection_needs_an_event(tmp_path: Path) -> None:
    path = folder(tmp_path / "none", "path,label\n0.wav,a\n1.wav,b\n", "path,onset,offset,label\n9.wav,1,2,dog\n")
    (path / "events.csv").unlink()
    with pytest.raises(DataError, match="detection needs events"):
        labels_of(path, "detection")


def test_lists_of_dcase_make_strong_weak_and_unlabelled_clips(tmp_path: Path) -> None:
    for kind in ("strong", "weak", "unlabel"):
        (tmp_path / "audio" / "train" / kind).mkdir(parents=True)
        soundfile.write(tmp_path / "audio" / "train" / kind / f"{kind}.wav", np.zeros(3 * RATE), RATE)
    lists = tmp_path / "metadata" / "train"
    lists.mkdir(parents=True)
    (lists / "strong.tsv").write_text("filename\tonset\toffset\tevent_label\nstrong.wav\t0.5\t1.0\tdog\n")
    (lists / "weak.tsv").write_text("filename\tevent_labels\nweak.wav\tdog,rain\n")
    (lists / "unlabel.tsv").write_text("filename\nunlabel.wav\n")
    manifest = read_data(tmp_path)
    labels = read_labels(manifest, "label")
    known = {Path(name).stem: (labels.events[i], labels.sets[i]) for i, name in enumerate(manifest.ids)}
    assert known == {"strong": ((DOG,), ("dog",)), "weak": (None, ("dog", "rain")), "unlabel": (None, ())}


def test_a_stretch_holds_what_sounds_in_it_timed_from_its_start() -> None:
    assert events_between((DOG, RAIN), 0.75, 2.0) == (Event(0.0, 0.25, "dog"), Event(0.0, 1.25, "rain"))
    assert events_between((DOG,), 1.0, 2.0) == ()
    assert events_between((DOG,), 0.0, 0.5) == ()


def loader(path: Path, mixup: float = 0.0, clips: tuple[int, ...] = (0, 1, 2)) -> Loader:
    manifest, labels = read_data(path), labels_of(path)
    return Loader(
        [manifest[i] for i in clips],
        rate=RATE,
        batch_size=3,
        crop_seconds=1.0,
        seed=3,
        targets=labels.targets(clips, ("dog", "rain")),
        events=[labels.events[i] for i in clips],
        mixup=mixup,
    )


def test_a_crop_and_its_events_belong_together(scenes: Path) -> None:
    seen = 0
    for batch, _ in zip(loader(scenes), range(20), strict=False):
        assert batch.events is not None
        for name, wave, events in zip(batch.ids, batch.audio.data, batch.events, strict=True):
            if name != "0.wav":
                assert events is None
                continue
            assert events is not None
            loud = np.flatnonzero(wave.numpy() > 0.25)
            dogs = [event for event in events if event.label == "dog"]
            assert len(dogs) == bool(len(loud))
            if dogs:
                seen += 1
                assert dogs[0].onset * RATE == pytest.approx(loud[0], abs=2)
                assert dogs[0].offset * RATE == pytest.approx(loud[-1] + 1, abs=2)
    assert 5 < seen < 20
    part = batch.rows(1, 3)
    assert part.events == batch.events[1:3]


def test_mixed_clips_have_the_events_of_both(scenes: Path) -> None:
    mixed = [
        (name, events, targets)
        for batch, _ in zip(loader(scenes, mixup=1.0), range(20), strict=False)
        for name, events, targets in zip(batch.ids, batch.events or (), batch.targets, strict=True)  # type: ignore[arg-type]
    ]
    with_itself = [events for name, events, _ in mixed if name == "0.wav"]
    assert with_itself
    assert all(sum(event.label == "rain" for event in events or ()) == 2 for events in with_itself)
    assert {0.0, 1.0} >= {float(x) for *_, targets in mixed for x in targets[~targets.isnan()]}


def test_mixing_loses_nothing_that_is_known_of_a_clip(tmp_path: Path) -> None:
    kinds = ("strong", "strong", "weak", "weak", "none", "none")
    weak = {"2": "dog", "3": "rain"}
    rows = [f"{n}.wav,train,{weak.get(str(n), '')},{kind}" for n, kind in enumerate(kinds)]
    events = "path,onset,offset,label\n0.wav,0,3,dog\n1.wav,0,3,rain\n"
    path = folder(tmp_path / "mixed", "\n".join(["path,split,label,annotation", *rows, ""]), events, clips=6)
    together: dict[str, set[tuple[str, ...]]] = {}
    for batch, _ in zip(loader(path, mixup=1.0, clips=tuple(range(6))), range(40), strict=False):
        assert batch.events is not None
        assert batch.targets is not None
        for name, known, targets in zip(batch.ids, batch.events, batch.targets, strict=True):
            kind = kinds[int(name[0])]
            assert (known is not None) == (kind == "strong")
            assert bool(targets.isnan().any()) == (kind == "none")
            sounding = tuple(np.array(("dog", "rain"))[targets.numpy() == 1])
            if known is not None:
                assert tuple(sorted({event.label for event in known})) == sounding
            together.setdefault(kind, set()).add(sounding)
    both = {("dog",), ("rain",), ("dog", "rain")}
    assert together == {"strong": both, "weak": both, "none": {()}}


def test_a_frame_is_active_if_an_event_touches_it() -> None:
    edges = np.arange(6) / 2
    targets = frame_targets(
        (Event(0.6, 1.5, "dog"), Event(1.9, 9.0, "rain"), Event(0, 1, "cat")), ("dog", "rain"), edges
    )
    assert targets.T.tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert frame_targets((), ("dog",), edges).sum() == 0
