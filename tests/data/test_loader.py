"""Batches are a function of the seed and the step, whoever reads them and wherever one begins."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from auricle import audio
from auricle.data import loader as loader_module
from auricle.data import workers
from auricle.data.batch import Batch
from auricle.data.formats import read_data
from auricle.data.items import AudioRef, Item
from auricle.data.loader import Loader, WaveCache
from auricle.data.workers import read_ahead
from auricle.errors import AuricleError, ConfigError, DataError

RATE = 8000


@pytest.fixture(scope="module")
def items(tones: Path) -> tuple[Item, ...]:
    return read_data(tones).items


def make(items: tuple[Item, ...], **options: Any) -> Loader:
    targets = np.eye(len(items), dtype=np.float32)
    settings: dict[str, Any] = {"batch_size": 7, "crop_seconds": 0.5, "seed": 3, "targets": targets, "mixup": 0.3}
    return Loader(items, rate=RATE, **{**settings, **options})


def take(loader: Loader, count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others)
    for a, b in zip(batches, others, strict=True):
        assert (a.ids, a.draw, a.replaced) == (b.ids, b.draw, b.replaced)
        assert torch.equal(a.audio.data, b.audio.data)
        assert torch.equal(a.audio.lengths, b.audio.lengths)
        assert a.targets is not None
        assert b.targets is not None
        assert torch.equal(a.targets, b.targets)


# The same batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_workers_deliver_the_same_batches_in_the_same_order(items: tuple[Item, ...], count: int) -> None:
    assert_same(take(make(items, workers=count), 12), take(make(items), 12))


@pytest.mark.parametrize("position", [0, 1, 3, 4, 9])
def test_a_loader_continues_from_any_position(items: tuple[Item, ...], position: int) -> None:
    straight = take(make(items), 12)
    first = make(items)
    taken = take(first, position)
    assert first.state_dict() == {"position": position}
    second = make(items)
    second.load_state_dict(first.state_dict())
    assert_same(taken + take(second, 12 - position), straight)


def test_a_loader_continues_with_another_number_of_workers(items: tuple[Item, ...]) -> None:
    loader = make(items, workers=2)
    loader.load_state_dict({"position": 5})
    assert_same(take(loader, 4), take(make(items), 9)[5:])
    assert loader.state_dict() == {"position": 9}


def test_another_seed_gives_other_batches(items: tuple[Item, ...]) -> None:
    (a,), (b,) = take(make(items), 1), take(make(items, seed=4), 1)
    assert a.ids != b.ids


def test_a_sample_does_not_depend_on_the_size_of_its_batch(items: tuple[Item, ...]) -> None:
    def by_draw(size: int) -> dict[tuple[int, int], tuple[str, list[float]]]:
        return {
            (epoch, index): (name, row[:n].tolist())
            for batch in take(make(items, batch_size=size), 24 // size)
            for epoch, index, name, row, n in zip(
                batch.draw.epochs, batch.draw.indices, batch.ids, batch.audio.data, batch.audio.lengths, strict=True
            )
        }

    assert by_draw(1) == by_draw(4) == by_draw(24)


def test_hash_seeds_of_python_have_no_influence(tones: Path) -> None:
    code = (
        "import sys; from auricle.training import pretrain, finetune; from auricle.data.loader import Loader;"
        f"m = finetune.read_data(['{tones}']); b = next(iter(Loader(m.items, rate=8000, batch_size=6, crop_seconds=0.5,"
        "seed=1, mixup=1.0))); print(b.ids, b.audio.data.sum(1).tolist(), m.hash);"
        "print(pretrain.hold_out(m.items * 3, 0.1, 0)[1])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "audio/" in outputs.pop()


# What an epoch is ---------------------------------------------------------------------------------------------------


def test_every_clip_comes_once_in_an_epoch_in_a_new_order(items: tuple[Item, ...]) -> None:
    batches = take(make(items, batch_size=5, mixup=0.0), 24)
    drawn = [
        (epoch, index, name)
        for batch in batches
        for epoch, index, name in zip(batch.draw.epochs, batch.draw.indices, batch.ids, strict=True)
    ]
    assert [epoch for epoch, _, _ in drawn] == [n // 24 for n in range(120)]
    assert sorted((epoch, index) for epoch, index, _ in drawn) == [(n // 24, n % 24) for n in range(120)]
    orders = [[name for epoch, _, name in drawn if epoch == e] for e in range(5)]
    assert all(sorted(order) == sorted(item.id for item in items) for order in orders)
    assert len({tuple(order) for order in orders}) == 5


def test_covering_gives_long_clips_a_slot_for_each_crop_that_fits(items: tuple[Item, ...]) -> None:
    loader = make(items, cover=True, targets=None, mixup=0.0, batch_size=1)
    count = Counter(batch.ids[0] for batch in take(loader, len(loader.slots)))
    # 0.3 to 2 s in crops of half a second.
    assert count == {item.id: -(-item.duration // 0.5) for item in items}
    assert set(count.values()) == {1, 2, 3, 4}
    assert loader.steps_per_epoch == sum(count.values())


def test_fewer_clips_than_a_batch_fill_it_from_several_epochs(items: tuple[Item, ...]) -> None:
    (batch,) = take(make(items[:3], targets=None, batch_size=8), 1)
    assert batch.draw.epochs == (0, 0, 0, 1, 1, 1, 2, 2)
    assert set(batch.ids) == {item.id for item in items[:3]}


# What a batch holds -------------------------------------------------------------------------------------------------


def test_crops_lie_inside_the_clip_and_short_clips_are_whole_and_padded(items: tuple[Item, ...]) -> None:
    waves = {item.id: audio.read(item.streams["audio"].path, rate=RATE)[0] for item in items}
    starts: dict[str, set[int]] = {}
    for batch in take(make(items, mixup=0.0, targets=None), 40):
        assert batch.audio.rate == RATE
        assert batch.audio.data.dtype == torch.float32
        assert batch.audio.data.shape[1] == int(batch.audio.lengths.max())
        for name, row, length in zip(batch.ids, batch.audio.data.numpy(), batch.audio.lengths.tolist(), strict=True):
            whole = waves[name]
            assert length == min(len(whole), RATE // 2)
            assert not row[length:].any()
            places = np.flatnonzero(whole[: len(whole) - length + 1] == row[0])
            start = next(s for s in places if np.array_equal(whole[s : s + length], row[:length]))
            starts.setdefault(name, set()).add(int(start))
    longest = max(items, key=lambda item: item.duration).id
    assert len(starts[longest]) > 5
    assert max(starts[longest]) - min(starts[longest]) > RATE // 4


def test_crops_of_files_too_long_to_keep_are_read_from_the_file(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 70 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", wave, RATE, subtype="FLOAT")
    item = Item("long", {"audio": AudioRef(str(tmp_path / "long.wav"))}, {}, (), 70.0)
    loader = make((item,), targets=None, mixup=0.0, batch_size=4)
    for batch in take(loader, 5):
        assert batch.audio.lengths.tolist() == 4 * [RATE // 2]
        for row in batch.audio.data.numpy():
            assert any(np.array_equal(wave[s : s + RATE // 2], row) for s in np.flatnonzero(wave == row[0]))
    assert loader.dataset.cache.size == 0


def test_a_reference_to_a_part_of_a_file_and_a_channel_is_kept_to(tmp_path: Path) -> None:
    left, right = np.full(4 * RATE, 0.25, np.float32), np.linspace(0, 1, 4 * RATE, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    item = Item("a", {"audio": AudioRef(str(tmp_path / "a.wav"), 1.0, 2.0, 1)}, {}, (), 1.0)
    for batch in take(make((item,), targets=None, mixup=0.0, batch_size=8), 3):
        assert float(batch.audio.data.min()) >= 0.25
        assert float(batch.audio.data.max()) <= 0.5


def test_mixup_mixes_waves_and_targets_alike(items: tuple[Item, ...]) -> None:
    mixed = plain = 0
    for batch in take(make(items, mixup=0.5), 20):
        assert batch.targets is not None
        for name, target in zip(batch.ids, batch.targets, strict=True):
            own = next(i for i, item in enumerate(items) if item.id == name)
            assert float(target.sum()) == pytest.approx(1.0)
            assert target.count_nonzero() <= 2
            assert float(target[own]) > 0
            mixed, plain = mixed + (float(target[own]) < 1), plain + (float(target[own]) == 1)
    assert 40 < mixed < 100
    assert mixed + plain == 140


def test_partners_are_other_clips_with_their_targets_and_travel_with_their_row(items: tuple[Item, ...]) -> None:
    batches = take(make(items, partners=2, mixup=0.0), 6)
    plain = take(make(items, mixup=0.0), 6)
    assert_same(batches, plain)
    place = {item.id: number for number, item in enumerate(items)}
    seen = set()
    for batch in batches:
        assert len(batch.partners) == 2
        for number, partner in enumerate(batch.partners):
            assert partner.draw == batch.draw
            assert partner.audio.lengths.max() <= RATE // 2
            assert partner.targets is not None
            assert partner.targets.argmax(1).tolist() == [place[name] for name in partner.ids]
            seen |= set(partner.ids)
            part = batch.rows(2, 5).partners[number]
            assert part.ids == partner.ids[2:5]
            assert torch.equal(part.audio.data, partner.audio.data[2:5])
        assert batch.partners[0].ids != batch.partners[1].ids
    assert len(seen) > len(items) // 2
    # What is drawn for a sample does not depend on the batch it is in.
    drawn = {b.draw.indices[0]: b.partners[1].ids[0] for b in take(make(items, partners=2, mixup=0.0, batch_size=1), 7)}
    whole = take(make(items, partners=2, mixup=0.0, batch_size=len(items)), 1)[0]
    ids = dict(zip(whole.draw.indices, whole.partners[1].ids, strict=True))
    assert drawn == {index: ids[index] for index in drawn}


def test_central_crops_are_the_middle_of_a_clip(tmp_path: Path) -> None:
    long, short = np.arange(24000) / 24000, np.arange(3000) / 24000
    for name, wave in (("long", long), ("short", short), ("very_long", np.tile(long, 22))):
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE, subtype="FLOAT")
    loader = make(read_data(tmp_path).items, targets=None, mixup=0.0, central=True, batch_size=3)
    batch = next(iter(loader))
    rows = {name: batch.audio.data[n, : batch.audio.lengths[n]].numpy() for n, name in enumerate(batch.ids)}
    np.testing.assert_allclose(rows["long.wav"], long[10000:14000], atol=1e-6)
    np.testing.assert_allclose(rows["short.wav"], short, atol=1e-6)
    # 66 s are read in part: the middle up to a hundredth of a second.
    assert len(rows["very_long.wav"]) == 4000


def test_an_unreadable_partner_does_not_spoil_the_clips_it_is_drawn_for(tones: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes((tones / "audio/hiss4.wav").read_bytes()[:3000])
    broken = Item("bad", {"audio": AudioRef(str(bad))}, {}, (), 0.5)
    good = Item("good", {"audio": AudioRef(str(tones / "audio/hiss4.wav"))}, {}, (), 0.5)
    loader = make((broken, good), targets=None, mixup=1.0, batch_size=2)
    for batch in take(loader, 40):
        assert set(batch.ids) == {"good"}
        assert set(batch.replaced) == {(str(bad), "truncated")}


def test_nothing_but_unreadable_files_end_the_iteration_with_their_names(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    broken = Item("bad", {"audio": AudioRef(str(tmp_path / "bad.wav"))}, {}, (), 0.5)
    for count in (0, 1):
        with pytest.raises(
            DataError, match=r"20 files in a row cannot be read, the first ones being .*bad\.wav"
        ) as caught:
            take(make((broken,), targets=None, workers=count), 1)
        assert "\n" not in str(caught.value)


def test_the_cache_keeps_to_its_limit_and_forgets_the_oldest(items: tuple[Item, ...], monkeypatch: Any) -> None:
    read: list[str] = []

    def counted(item: Item, rate: int) -> np.ndarray:
        read.append(item.id)
        return np.zeros(1000, np.float32)

    monkeypatch.setattr(loader_module, "read_item", counted)
    cache = WaveCache(3 * 4000)
    a, b, c, d = items[:4]
    for item in (a, b, c, a, d, a, c, b):
        cache.get(item, RATE)
        assert cache.size <= 3 * 4000
        assert cache.size == sum(wave.nbytes for wave in cache.waves.values())
    assert read == [a.id, b.id, c.id, d.id, b.id]
    cache.get(a, RATE + 1)
    assert read[-1] == a.id


def test_senseless_arguments_are_refused(items: tuple[Item, ...]) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        make(())
    with pytest.raises(ConfigError, match="workers must be 0 or more, got -1"):
        make(items, workers=-1)


# Workers ------------------------------------------------------------------------------------------------------------


def children() -> list[int]:
    return sorted(child.pid or 0 for child in multiprocessing.active_children())


@pytest.mark.parametrize("moment", ["at once", "while it hands over"])
def test_a_killed_worker_is_replaced_and_the_batches_stay_the_same(items: tuple[Item, ...], moment: str) -> None:
    before = children()
    # A batch of 4 MB does not fit into a pipe: the worker stands in the middle of handing it over.
    loader = make(items, workers=2, batch_size=256)
    loader.load_state_dict({"position": 3})
    batches = iter(loader)
    taken = [next(batches)]
    if moment != "at once":
        time.sleep(0.5)
    kill_one(before)
    with pytest.warns(workers.WorkerWarning, match=r"^a loader worker died \(killed by SIGKILL, .*another takes its"):
        taken += itertools.islice(batches, 5)
    assert_same(taken, take(make(items, batch_size=256), 9)[3:])
    assert len(children()) == len(before) + 2


def test_a_second_worker_that_is_killed_is_one_clear_error_and_not_a_hang(
    items: tuple[Item, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    batches = iter(make(items, workers=2))
    next(batches)
    kill_one(before)
    with pytest.warns(workers.WorkerWarning):
        list(itertools.islice(batches, 8))
    # A minute later it would be another matter.
    with monkeypatch.context() as later:
        later.setattr(workers, "RESTART_SECONDS", 0.0)
        kill_one(before)
        with pytest.warns(workers.WorkerWarning):
            list(itertools.islice(batches, 8))
    kill_one(before)
    begin = time.monotonic()
    with pytest.raises(AuricleError, match=r"worker died again \(killed by SIGKILL, .*run the same") as caught:
        list(itertools.islice(batches, 10))
    assert time.monotonic() - begin < 10
    assert caught.value.exit_code == 1
    assert children() == before


def test_a_worker_that_is_told_to_end_is_not_replaced(items: tuple[Item, ...]) -> None:
    before = children()
    batches = iter(make(items, workers=1))
    next(batches)
    kill_one(before, signal.SIGTERM)
    with pytest.raises(AuricleError, match=r"worker died \(killed by SIGTERM, "):
        list(itertools.islice(batches, 10))
    assert children() == before


def kill_one(others: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(next(pid for pid in children() if pid not in others), number)


def test_workers_need_no_main_guard_in_the_script(tones: Path, tmp_path: Path) -> None:
    # multiprocessing runs an unguarded script again in every process that it starts.
    (tmp_path / "script.py").write_text(
        "from auricle.data.formats import read_data\n"
        "from auricle.data.loader import Loader\n"
        "print('once', flush=True)\n"
        f"items = read_data('{tones}').items\n"
        "batches = iter(Loader(items, rate=8000, batch_size=4, crop_seconds=1, seed=0, workers=2))\n"
        "print(next(batches).ids == next(batches).ids)\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("once\nFalse\n", "", 0)


def test_workers_end_with_the_iterator(items: tuple[Item, ...]) -> None:
    before = children()
    batches = iter(make(items, workers=2))
    next(batches)
    assert len(children()) == len(before) + 2
    del batches
    gc.collect()
    assert children() == before


def test_workers_end_when_the_process_that_trains_is_killed(tones: Path) -> None:
    code = (
        "import multiprocessing, sys, time\n"
        "from auricle.data.formats import read_data\n"
        "from auricle.data.loader import Loader\n"
        "if __name__ == '__main__':\n"
        f"    items = read_data('{tones}').items\n"
        "    batches = iter(Loader(items, rate=8000, batch_size=64, crop_seconds=1, seed=0, workers=1))\n"
        "    next(batches)\n"
        "    print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        (worker,) = map(int, process.stdout.readline().split())
        os.kill(worker, 0)
        process.kill()
    deadline = time.monotonic() + 20
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        # A zombie that nobody has waited for yet has ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def count_up(first: int, step: int) -> Iterator[int]:
    return itertools.count(first, step)


def raise_third(first: int, step: int) -> Iterator[int]:
    yield from (first, first + step)
    raise DataError("the third is missing.")


def crash(first: int, step: int) -> Iterator[int]:
    os._exit(3)
    yield first


def stall(first: int, step: int) -> Iterator[int]:
    yield first
    workers.doing("reading slow.wav")
    time.sleep(60)


def run_short_of_memory(first: int, step: int) -> Iterator[int]:
    workers.doing("reading long.wav")
    raise MemoryError


@pytest.mark.parametrize("count", [1, 3])
def test_reading_ahead_keeps_the_order(count: int) -> None:
    assert list(itertools.islice(read_ahead(count_up, count), 20)) == list(range(20))


def test_what_a_worker_raises_is_raised_in_its_place() -> None:
    numbers = read_ahead(raise_third, 2)
    assert list(itertools.islice(numbers, 4)) == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"^the third is missing\.$"):
        next(numbers)


def test_a_worker_that_always_crashes_stalls_or_is_short_of_memory_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        pytest.warns(workers.WorkerWarning, match=r"died \(exit code 3, starting\); another"),
        pytest.raises(AuricleError, match=r"a loader worker died again \(exit code 3, starting\)"),
    ):
        list(read_ahead(crash, 1))
    with pytest.raises(AuricleError, match=r"^a loader worker ran out of memory while reading long\.wav; use fewer"):
        list(read_ahead(run_short_of_memory, 1))
    slow = read_ahead(stall, 1)
    assert next(slow) == 0
    monkeypatch.setattr(workers, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(
        AuricleError, match=r"a loader worker has delivered nothing for 0\.2 s, it was reading slow\.wav;"
    ):
        next(slow)
