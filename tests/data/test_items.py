import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from auricle.data.items import AudioRef, Event, Item, Manifest, Skipped
from auricle.errors import DataError
from auricle.files import atomic_path


def item(path: Path, name: str, **labels: str) -> Item:
    return Item(name, {"audio": AudioRef(str(path))}, labels, (), 1.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "sounds"
    root.mkdir()
    for number, name in enumerate(["a.wav", "b.wav", "ü c.wav"]):
        (root / name).write_bytes(b"x" * (number + 10))
    return root


def manifest_of(root: Path) -> Manifest:
    names = sorted(path.name for path in root.iterdir())
    items = tuple(item(root / name, name, split="train", label=f"class {name[0]}") for name in names)
    return Manifest(items, root, str(root))


def with_first(manifest: Manifest, **changes: object) -> Manifest:
    return dataclasses.replace(manifest, items=(dataclasses.replace(manifest[0], **changes), *manifest.items[1:]))  # type: ignore[arg-type]


def test_items_are_in_the_order_of_their_ids(folder: Path) -> None:
    manifest = manifest_of(folder)
    reversed_ = dataclasses.replace(manifest, items=manifest.items[::-1])
    assert reversed_.ids == manifest.ids == ("a.wav", "b.wav", "ü c.wav")
    assert reversed_.hash == manifest.hash
    assert len(manifest) == 3
    assert manifest[1].id == "b.wav"
    assert [item.id for item in manifest] == list(manifest.ids)


def test_hash_does_not_depend_on_where_the_folder_lies(folder: Path, tmp_path: Path) -> None:
    before = manifest_of(folder).hash
    elsewhere = tmp_path / "deep" / "er"
    shutil.copytree(folder, elsewhere)
    assert manifest_of(elsewhere).hash == before
    assert len(before) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "other"},
        {"labels": {"split": "train", "label": "other"}},
        {"labels": {"split": "test", "label": "class a"}},
        {"labels": {"split": "train", "klass": "class a"}},
        {"events": (Event(0.1, 0.2, "x"),)},
    ],
)
def test_hash_changes_with_the_description(folder: Path, changes: dict[str, object]) -> None:
    manifest = manifest_of(folder)
    assert with_first(manifest, **changes).hash != manifest.hash


@pytest.mark.parametrize("changes", [{"start": 0.5}, {"end": 1.0}, {"channel": 1}, {"path": "b.wav"}])
def test_hash_changes_with_the_reference(folder: Path, changes: dict[str, object]) -> None:
    manifest = manifest_of(folder)
    if "path" in changes:
        changes = {"path": str(folder / "b.wav")}
    reference = dataclasses.replace(manifest[0].streams["audio"], **changes)  # type: ignore[arg-type]
    assert with_first(manifest, streams={"audio": reference}).hash != manifest.hash


def test_hash_changes_with_the_size_of_a_file_and_needs_the_file(folder: Path) -> None:
    before = manifest_of(folder).hash
    (folder / "b.wav").write_bytes(b"x" * 99)
    changed = manifest_of(folder)
    assert changed.hash != before
    again = manifest_of(folder)
    (folder / "b.wav").unlink()
    with pytest.raises(DataError, match=r"b\.wav: cannot be read"):
        again.hash  # noqa: B018


def test_ids_must_be_unique(folder: Path) -> None:
    with pytest.raises(DataError, match=r"occur more than once.*'same'"):
        Manifest((item(folder / "a.wav", "same"), item(folder / "b.wav", "same")), folder)


def test_columns_and_hours(folder: Path) -> None:
    items = (item(folder / "a.wav", "a", x="1"), item(folder / "b.wav", "b", y="2", x="3"))
    manifest = Manifest(items, folder)
    assert manifest.columns == ("x", "y")
    assert manifest.hours == pytest.approx(3 / 3600)


def test_labels_of(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert manifest.labels_of("label") == ("class a", "class b", "class ü")
    with pytest.raises(
        DataError, match=r"no column 'lable' \(did you mean 'label'\?\); the columns are split, label\."
    ):
        manifest.labels_of("lable")
    bare = Manifest((item(folder / "a.wav", "a"),), folder)
    with pytest.raises(DataError, match="this data has no label columns"):
        bare.labels_of("label")


def test_empty_labels_are_counted(folder: Path) -> None:
    items = (item(folder / "a.wav", "a", x="1"), item(folder / "b.wav", "b", x=""), item(folder / "c", "c", y="1"))
    with pytest.raises(DataError, match=r"column 'x' is empty for 2 of 3 items \(first: b\)"):
        Manifest(items, folder).labels_of("x")


def full(root: Path) -> Manifest:
    rich = Item(
        "x/ü c",
        {"audio": AudioRef(str(root / "ü c.wav"), 0.25, 1.75, 1), "far": AudioRef(str(root.parent / "far.wav"))},
        {"label": 'comma, "quote"\nnew line', "split": "test"},
        (Event(0.1, 0.2, "ä"), Event(0.3, 0.4, "b")),
        1.5,
    )
    skipped = (Skipped(str(root / "bad.wav"), "not audio", "the file is empty"),)
    return Manifest((*manifest_of(root).items, rich), root, "somewhere", skipped)


def test_save_and_load_give_the_same(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far.wav").write_bytes(b"123")
    manifest = full(folder)
    for place in (folder / "list.jsonl", tmp_path / "list.jsonl", tmp_path / "runs" / "1" / "list.jsonl"):
        manifest.save(place)
        loaded = Manifest.load(place)
        assert loaded == manifest
        assert loaded.hash == manifest.hash


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_survives(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (folder / name).write_bytes(b"1")
    manifest = Manifest((item(folder / name, name, label="x"),), folder)
    manifest.save(folder / "list.jsonl")
    assert Manifest.load(folder / "list.jsonl") == manifest
    assert manifest.hash


def test_a_manifest_that_was_saved_without_details_is_read(tmp_path: Path) -> None:
    header = {"format": "auricle-manifest", "version": 1, "source": "x", "root": ".", "roots": ["."]}
    (tmp_path / "x.jsonl").write_text(json.dumps({**header, "skipped": [[0, "b.wav", "truncated"]]}) + "\n")
    assert Manifest.load(tmp_path / "x.jsonl").skipped == (Skipped(str(tmp_path / "b.wav"), "truncated"),)


@pytest.mark.parametrize("where", [".", "lists", ".."])
def test_a_saved_manifest_moves_with_its_data(folder: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "far.wav").write_bytes(b"123")
    full(folder).save(folder / where / "list.jsonl")
    moved = tmp_path.with_name(tmp_path.name + " moved")
    shutil.move(tmp_path, moved)
    loaded = Manifest.load(moved / "sounds" / where / "list.jsonl")
    assert loaded.root == moved / "sounds"
    assert loaded.skipped == (Skipped(str(moved / "sounds" / "bad.wav"), "not audio", "the file is empty"),)
    assert all(Path(ref.path).is_file() for item in loaded for ref in item.streams.values())
    shutil.move(moved, tmp_path)


def saved_lines(folder: Path) -> list[str]:
    manifest_of(folder).save(folder / "list.jsonl")
    return (folder / "list.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda lines: [*lines[:-1], lines[-1][:-20]], "line 4 is not a JSON object"),
        (lambda lines: [lines[0], "[1]", *lines[1:]], "line 2 is not a JSON object"),
        (lambda lines: [lines[0], '{"id": "x"}'], "line 2 is not as auricle wrote it"),
        (lambda lines: lines[1:], "not a manifest of auricle"),
        (lambda lines: [], "not a manifest of auricle"),
        (lambda lines: [lines[0].replace('"version": 1', '"version": 9')], "version 9"),
        (lambda lines: [json.dumps({"format": "auricle-manifest", "version": 1})], "line 1 is not as auricle wrote it"),
    ],
)
def test_damaged_manifests_are_refused(folder: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    lines = damage(saved_lines(folder))
    (folder / "list.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        Manifest.load(folder / "list.jsonl")


def test_load_of_nothing_and_of_sound(folder: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Manifest.load(folder / "none.jsonl")
    (folder / "x.jsonl").write_bytes(b"RIFF\xff\xfe\x00")
    with pytest.raises(DataError, match="it is not text"):
        Manifest.load(folder / "x.jsonl")


def test_atomic_path_replaces_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with atomic_path(target) as partial:
        partial.write_text("first")
        assert not target.exists()
        assert partial.suffix == ".txt"
    assert target.read_text() == "first"

    def write_and_fail() -> None:
        with atomic_path(target) as partial:
            partial.write_text("sec")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]
