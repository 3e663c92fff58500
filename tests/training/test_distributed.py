"""Several processes compute what one computes, resume to the same bits, and end together."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from auricle.data.formats import read_data
from auricle.data.loader import Loader
from auricle.errors import AuricleError, ConfigError, Interrupted, NonFiniteLoss, plural
from auricle.training import checkpoint as ckpt
from auricle.training.checkpoint import steps_saved
from auricle.training.distributed import Group, processes
from launch import Command, Together, pretext_tasks

STEPS = 8
# Batches of 7: the rows of two processes, and their micro-batches, differ in number.
SETTINGS = (
    *("--set", "batch_size=7", "--set", "lr=1e-4", "--set", "clip_norm=0", "--set", "precision=fp32"),
    *("--checkpoint-every", 1),
)


@pytest.fixture(scope="module")
def pretraining(tones: Path) -> tuple[object, ...]:
    return ("pretrain", "ssast", tones, "--preset", "test", "--steps", STEPS, *SETTINGS)


@pytest.fixture(scope="module")
def alone(pretraining: Sequence[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pretraining in one process."""
    folder = tmp_path_factory.mktemp("alone")
    command = Command(folder / "log", *pretraining, "--out", folder / "run", prepare=keep_all)
    assert command.wait() == 0, (folder / "log").read_text()
    return folder / "run"


@pytest.fixture(scope="module")
def pair(pretraining: Sequence[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pretraining in two processes, its log beside it."""
    folder = tmp_path_factory.mktemp("pair")
    codes = Together(folder / "log", 2, *pretraining, "--out", folder / "run", prepare=keep_all).wait()
    assert codes == [0, 0], (folder / "log").read_text()
    return folder / "run"


def keep_all() -> None:
    """No checkpoint is removed."""
    from auricle.training import checkpoint

    checkpoint.prune = lambda *arguments: None  # type: ignore[assignment]


def start_torchrun(log: Path, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "auricle"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*command, *map(str, arguments)], stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def rows_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def gradients(run: Path) -> dict[str, Tensor]:
    """Those of the first step: Adam's first average holds a tenth of them."""
    tensors = load_file(run / "step-000001" / "optimizer.safetensors")
    return {key: 10 * value for key, value in tensors.items() if key.startswith("exp_avg.")}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def assert_same_bits(run: Path, other: Path, step: int = STEPS) -> None:
    for name in ("weights.safetensors", "optimizer.safetensors"):
        path = Path(f"step-{step:06d}") / name
        assert (run / path).read_bytes() == (other / path).read_bytes(), name
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    states = [json.loads((r / f"step-{step:06d}" / "state.json").read_text()) | {"elapsed": 0} for r in (run, other)]
    assert states[0] == states[1]


def assert_equal_training(run: Path, other: Path) -> None:
    """Losses and weights to 1e-6, except weights without a gradient: Adam makes steps of its rounding errors."""
    for one, two in zip(rows_of(run), rows_of(other), strict=True):
        assert one.keys() == two.keys()
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    last = f"step-{STEPS:06d}/weights.safetensors"
    weights = [load_file(r / last) for r in (run, other)]
    # A constant added to all keys, or to all predictions that are contrasted, changes nothing.
    moved = [k for k in weights[0] if k.endswith("qkv.bias") or (k.startswith("discriminative") and "bias" in k)]
    kept = [{k: v for k, v in w.items() if k not in moved} for w in weights]
    assert len(kept[0]) > 20
    assert largest_difference(*kept) < 1e-6
    states = [json.loads((r / f"step-{STEPS:06d}" / "state.json").read_text()) for r in (run, other)]
    for key in ("step", "total", "loader", "bad_files", "audio_seconds"):
        assert states[0][key] == states[1][key]


# The same training -------------------------------------------------------------------------------------------------


def test_two_processes_train_as_one(alone: Path, pair: Path) -> None:
    assert largest_difference(gradients(alone), gradients(pair)) < 1e-6
    assert_equal_training(alone, pair)
    log = (pair.parent / "log").read_text()
    assert f"training: {STEPS} steps, fp32, 2 processes" in log
    assert log.count(f"run: {pair}\n") == 1
    assert log.count(f"step {STEPS}/{STEPS}") == 1
    assert "processes: 2" in (pair / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        *((name, task and f"pretext={task}") for name, task in pretext_tasks() if (name, task) != ("ssast", "paper")),
        # ASiT's official form counts hidden pixels over all processes.
        ("asit", "reconstruct_over=pixels"),
    ],
)
def test_every_pretext_task_trains_in_two_processes_as_in_one(
    method: str, setting: str, tones: Path, tmp_path: Path
) -> None:
    settings = (*SETTINGS, "--set", "optimizer=adamw", *(("--set", setting) if setting else ()))
    command = ("pretrain", method, tones, "--preset", "test", "--steps", 3, *settings)
    assert Command(tmp_path / "log", *command, "--out", tmp_path / "one", prepare=keep_all).wait() == 0
    codes = Together(tmp_path / "log", 2, *command, "--out", tmp_path / "two", prepare=keep_all).wait()
    assert codes == [0, 0], (tmp_path / "log").read_text()
    one, two = gradients(tmp_path / "one"), gradients(tmp_path / "two")
    assert largest_difference(one, two) < 2e-6 * max(1.0, *(float(x.abs().max()) for x in one.values()))
    for first, second in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
        if method.startswith("atst") and setting != "pretext=latent":
            # Normalised over the batch, so the outputs are those of one process, and so is what is said of them all.
            assert second["spread_student"] == pytest.approx(first["spread_student"], rel=1e-4)
            assert second["spread_teacher"] == pytest.approx(first["spread_teacher"], rel=1e-4)


def test_accumulation_within_processes(pretraining: Sequence[object], tmp_path: Path) -> None:
    # Two, three and three rows, in pieces of one and of two.
    command = (*pretraining, "--set", "batch_size=8", "--steps", 2, "--out")
    assert Command(tmp_path / "log", *command, tmp_path / "one").wait() == 0
    codes = Together(tmp_path / "log", 3, *command, tmp_path / "three", "--accumulate", 2).wait()
    assert codes == [0, 0, 0], (tmp_path / "log").read_text()
    assert largest_difference(gradients(tmp_path / "one"), gradients(tmp_path / "three")) < 1e-6
    for one, three in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "three"), strict=True):
        assert three["loss"] == pytest.approx(one["loss"], rel=1e-6)


def test_checkpoints_of_one_and_of_two_processes_are_interchangeable(
    pretraining: Sequence[object], alone: Path, pair: Path, tmp_path: Path
) -> None:
    for source, size in ((alone, 2), (pair, 1)):
        log, run = tmp_path / f"log{size}", tmp_path / f"run{size}"
        shutil.copytree(source, run)
        for step in steps_saved(run):
            if step > STEPS // 2:
                shutil.rmtree(run / f"step-{step:06d}")
        command = (log, *pretraining, "--out", run)
        codes = Together(log, 2, *command[1:]).wait() if size == 2 else [Command(*command).wait()]
        assert codes == [0] * size, log.read_text()
        assert_equal_training(alone, run)


def test_finetuning_in_two_processes(tones: Path, pretrained: Path, tmp_path: Path) -> None:
    command = ("finetune", pretrained, tones, "--steps", STEPS, *SETTINGS, "--set", "mixup=0.5", "--set", "noise=true")
    assert Command(tmp_path / "log", *command, "--out", tmp_path / "one", prepare=keep_all).wait() == 0
    assert Together(tmp_path / "log", 2, *command, "--out", tmp_path / "two", prepare=keep_all).wait() == [0, 0]
    assert largest_difference(gradients(tmp_path / "one"), gradients(tmp_path / "two")) < 1e-6
    for one, two in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5)
    assert "val_accuracy" in rows_of(tmp_path / "two")[-1]


@pytest.mark.slow
def test_a_cross_validation_in_two_processes(tones: Path, pretrained: Path, tmp_path: Path) -> None:
    folds = ("finetune", pretrained, tones, "--held-out", "all", "--group-column", "group", "--set", "batch_size=7")
    averaged = ("--set", "epochs=2", "--set", "average_epochs=[1,2]", "--set", "precision=fp32")
    log, out = tmp_path / "log", tmp_path / "two"
    assert Together(log, 2, *folds, *averaged, "--out", out).wait() == [0, 0], log.read_text()
    assert Command(log, *folds, *averaged, "--out", tmp_path / "one").wait() == 0
    results = [json.loads((run / "result.json").read_text()) for run in (tmp_path / "one", out)]
    assert [fold["fold"] for fold in results[1]["protocol"]["folds"]] == ["g0", "g1", "g2", "g3"]
    for one, two in zip(results[0]["items"], results[1]["items"], strict=True):
        assert (two["id"], two["score"]) == (one["id"], pytest.approx(one["score"], abs=1e-3))


def test_each_process_reads_its_rows_of_the_same_batches(tones: Path) -> None:
    items = read_data(tones).items

    def loader(rank: int, size: int, workers: int = 0) -> Loader:
        return Loader(
            items, rate=16000, batch_size=7, crop_seconds=0.5, seed=1, cover=True, share=(rank, size), workers=workers
        )

    whole = iter(loader(0, 1))
    parts = [iter(loader(rank, 3, workers=rank)) for rank in range(3)]
    for _ in range(5):
        batch, shares = next(whole), [next(part) for part in parts]
        assert [len(share) for share in shares] == [2, 2, 3]
        assert sum((share.ids for share in shares), ()) == batch.ids
        assert sum((tuple(share.draw.indices) for share in shares), ()) == tuple(batch.draw.indices)
        lengths = torch.cat([share.audio.lengths for share in shares])
        assert torch.equal(lengths, batch.audio.lengths)
        longest = shares[0].audio.data.shape[1]
        assert torch.equal(shares[0].audio.data, batch.audio.data[:2, :longest])
    with pytest.raises(ConfigError, match="a batch of 7 cannot be shared by 8 processes; raise batch_size"):
        loader(0, 8)


# Killed and resumed ------------------------------------------------------------------------------------------------


def killed_and_resumed(run: Path, size: int, kills: int, *arguments: object) -> None:
    """Run to the end with `kills` SIGKILLs to all processes, each a random moment after a new checkpoint."""
    log, rng, newest, killed = run.parent / "log", random.Random(0), 0, 0
    for _ in range(kills):
        command = Together(log, size, *arguments, "--out", run)
        newest = command.commands[0].wait_for_checkpoint(run, newest)
        time.sleep(rng.uniform(0.0, 0.02))
        killed += command.signal(signal.SIGKILL) == [-signal.SIGKILL] * size
    assert Together(log, size, *arguments, "--out", run).wait() == [0] * size, log.read_text()
    assert killed, log.read_text()


def test_killed_and_resumed_two_processes_end_with_the_same_bits(
    pretraining: Sequence[object], pair: Path, tmp_path: Path
) -> None:
    killed_and_resumed(tmp_path / "run", 2, 2, *pretraining)
    assert_same_bits(tmp_path / "run", pair)


@pytest.mark.slow
def test_three_processes_too_whose_sums_depend_on_their_order(pretraining: Sequence[object], tmp_path: Path) -> None:
    assert Together(tmp_path / "log", 3, *pretraining, "--out", tmp_path / "straight").wait() == [0, 0, 0]
    killed_and_resumed(tmp_path / "run", 3, 4, *pretraining, "--workers", 1)
    assert_same_bits(tmp_path / "run", tmp_path / "straight")


@pytest.mark.slow
def test_torchrun_starts_what_the_tests_start(pretraining: Sequence[object], pair: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    assert start_torchrun(log, *pretraining, "--out", run).wait(300) == 0, log.read_text()
    assert_same_bits(run, pair)
    assert (run / "report.html").exists()
    assert log.read_text().count(f"report: {run / 'report.html'}\n") == 1


def test_a_signal_to_torchrun_saves_one_step_and_ends_all(
    pretraining: Sequence[object], tmp_path: Path, pair: Path
) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    torchrun = start_torchrun(log, *pretraining, "--steps", 2000, "--workers", 1, "--out", run)
    begin = time.monotonic()
    while max(steps_saved(run), default=0) < 2 and time.monotonic() - begin < 100:
        time.sleep(0.05)
    torchrun.send_signal(signal.SIGTERM)
    assert torchrun.wait(60) != 0
    newest, problems = ckpt.latest(run)
    assert newest is not None
    assert problems == []
    step = newest.state["step"]
    assert step < 2000
    text = log.read_text()
    assert text.count(f"error: SIGTERM: saved step {step}; run the same command again to go on.") == 1
    assert text.count("error: ") == 1
    assert [row["step"] for row in rows_of(run)] == list(range(1, step + 1))


# One fails ---------------------------------------------------------------------------------------------------------


def spoil_the_second() -> None:
    """The loss of the second process is NaN from its third step on."""
    from auricle.training import step

    forward, calls = step.forward, []

    def spoiled(*arguments: Any) -> dict[str, Tensor]:
        result = forward(*arguments)
        calls.append(None)
        return result | {"loss": result["loss"] * math.nan} if len(calls) > 2 else result

    if os.environ["RANK"] == "1":
        step.forward = spoiled  # type: ignore[assignment]


def fill_the_disk() -> None:
    """The third checkpoint finds no space."""
    from auricle.training import checkpoint

    flush = checkpoint._flush

    def full(path: Path) -> None:
        if "step-000003" in str(path):
            raise OSError(28, "No space left on device", str(path))
        flush(path)

    checkpoint._flush = full


def break_the_second() -> None:
    """A mistake of ours, in the second process only."""
    from auricle.data.loader import Loader

    if os.environ["RANK"] == "1":
        Loader.samples = lambda self, first, step: [][first]  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize(
    "prepare, code, sentence",
    [
        (spoil_the_second, 1, "the loss is nan at step 2 in process 1 of 2; the batch was audio/"),
        (fill_the_disk, 2, "step-000003 could not be saved: No space left on device"),
        (break_the_second, 1, "process 1 of 2 failed: IndexError: list index out of range"),
    ],
)
def test_what_fails_in_one_process_ends_all_with_one_sentence(
    pretraining: Sequence[object], tmp_path: Path, prepare: Any, code: int, sentence: str
) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    assert Together(log, 2, *pretraining, "--out", run, prepare=prepare).wait() == [code, code], log.read_text()
    text = log.read_text()
    assert text.count("error: ") == 1
    assert sentence in next(line for line in text.splitlines() if line.startswith("error: "))
    newest, _ = ckpt.latest(run)
    assert (newest.state["step"] if newest else 0) == {spoil_the_second: 2, fill_the_disk: 2}.get(prepare, 0)


def test_unreadable_files_of_all_processes_are_counted_together(tones: Path, tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    shutil.copytree(tones, data)
    names = ("audio/hiss2.wav", "audio/buzz4.wav", "audio/chirp6.flac")
    for name in names:
        whole = (data / name).read_bytes()
        (data / name).write_bytes(whole[: len(whole) // 2])
    command = ("pretrain", "ssast", data, "--preset", "test", "--steps", 20)
    assert Together(log, 2, *command, "--out", tmp_path / "few").wait() == [2, 2]
    assert log.read_text().count("files cannot be read, more than the 1 allowed") == 1
    log.unlink()
    more = ("--set", "max_bad_fraction=0.2", "--out", tmp_path / "more")
    assert Together(log, 2, *command, *more).wait() == [0, 0]
    assert all(log.read_text().count(f"warning: {data / name}") == 1 for name in names)


def test_a_process_that_is_killed_ends_the_others(pretraining: Sequence[object], pair: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    for rank, other in ((1, 0), (0, 1)):
        command = Together(log, 2, *pretraining, "--out", run)
        command.commands[0].wait_for_checkpoint(run, max(steps_saved(run), default=0))
        begin = time.monotonic()
        codes = command.signal(signal.SIGKILL, rank)
        assert time.monotonic() - begin < 30
        assert (codes[rank], codes[other]) == (-signal.SIGKILL, 1)
        text = log.read_text()
        assert f"error: process {other} of 2 cannot go on: another process of the run has ended" in text
        assert "Traceback" not in text
    assert Together(log, 2, *pretraining, "--out", run).wait() == [0, 0]
    assert_same_bits(run, pair)


def disagree() -> None:
    """The second process is given another seed."""
    if os.environ["RANK"] == "1":
        from auricle.training import pretrain

        plan = pretrain.plan
        pretrain.plan = lambda *a, **k: plan(*a, **{**k, "seed": 5})  # type: ignore[assignment]


def test_a_process_that_hangs_is_told_apart_from_one_that_ended() -> None:
    with (
        pytest.raises(AuricleError, match="process 0 of 2 has waited too long for another one"),
        Group(0, 2).peers(),
    ):
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms")


def test_processes_that_were_started_differently_are_refused(pretraining: Sequence[object], tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert Together(log, 2, *pretraining, "--out", tmp_path / "run", prepare=disagree).wait() == [2, 2]
    # Another seed holds other clips out, so that the input statistics differ as well.
    begin = "error: processes 0 and 1 resolve to other settings ("
    told = [line for line in log.read_text().splitlines() if line.startswith(begin)]
    assert len(told) == 1
    assert told[0].startswith(f"{begin}seed: 0 and 5; ")
    assert told[0].endswith("); give all of them the same command and the same data.")
    assert not (tmp_path / "run").exists()


def test_a_wrong_option_is_told_once(tones: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ("pretrain", "ssast", tones, "--set", "learning_rate=1", "--out", tmp_path / "run")
    assert Together(log, 2, *command).wait() == [2, 2]
    assert log.read_text().count("unknown key 'learning_rate'") == 1


def test_minutes_become_the_same_number_of_steps_everywhere(tones: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    command = ("pretrain", "ssast", tones, "--preset", "test", "--max-minutes", 0.1, "--out", run)
    assert Together(log, 2, *command).wait() == [0, 0], log.read_text()
    steps = json.loads((run / "budget.json").read_text())["steps"]
    assert 0 < max(steps_saved(run)) <= steps
    assert log.read_text().count(f"0.1 minutes: {plural(steps, 'step')} at") == 1


# Alone -------------------------------------------------------------------------------------------------------------


def test_one_process_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    group = processes()
    assert (group.rank, group.size, group.first) == (0, 1, True)
    assert group.gather("a") == ["a"]
    assert group.together(lambda: 3) == group.on_first(lambda: 3) == 3
    module = torch.nn.Linear(1, 1)
    assert group.wrap(module) is module
    with pytest.raises(RuntimeError, match="gloo"), group.peers():
        raise RuntimeError("gloo")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"):
        processes()


def test_only_the_first_process_tells_a_common_error() -> None:
    assert not Group(0, 2).common(NonFiniteLoss("x")).told_elsewhere
    assert Group(1, 2).common(Interrupted("x", 75)).told_elsewhere
