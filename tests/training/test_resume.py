"""A run that is interrupted, however and wherever, and started again by the same command ends with the same bits."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from auricle.evaluation import pages
from auricle.methods import get_method
from auricle.training import loop, planning, pretrain
from auricle.training.checkpoint import steps_saved
from auricle.training.job import Job
from auricle.training.planning import Costs
from auricle.training.run import locked
from launch import Command, pretext_tasks, run_and_kill

STEPS = 30
PRETRAIN = ("--preset", "test", "--steps", STEPS, "--checkpoint-every", 2, "--set", "validate_every=7")
FINETUNE = (
    *("--steps", STEPS, "--checkpoint-every", 2, "--set", "validate_every=7", "--set", "mixup=0.5"),
    *("--set", "balanced=true", "--set", "average_epochs=[5,25]"),
    *("--set", "noise=true", "--set", "mask_freq=16", "--set", "mask_time=8", "--set", "accumulate=2"),
)
Outcome = Any


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports take longer to draw than these runs to train."""
    monkeypatch.setattr(pages, "pretraining_page", lambda *arguments: None)
    monkeypatch.setattr(pages, "finetuning_page", lambda *arguments: None)


@pytest.fixture(scope="module")
def pretraining(tones: Path) -> tuple[object, ...]:
    return ("pretrain", "ssast", tones, *PRETRAIN)


@pytest.fixture(scope="module")
def finetuning(tones: Path, pretrained: Path) -> tuple[object, ...]:
    return ("finetune", pretrained, tones, *FINETUNE)


@pytest.fixture(scope="module")
def straight_pretraining(pretraining: Sequence[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return straight(pretraining, tmp_path_factory)


@pytest.fixture(scope="module")
def straight_finetuning(finetuning: Sequence[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return straight(finetuning, tmp_path_factory)


def straight(arguments: Sequence[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert run_and_kill(folder / "log", folder / "run", *arguments, kills=0) == []
    return folder / "run"


def assert_same(run: Path, other: Path, steps: int = STEPS) -> None:
    """Weights, optimizer, metrics and state of two runs are the same bits; only the time they took may differ."""
    last = f"step-{steps:06d}"
    for name in (f"{last}/weights.safetensors", f"{last}/optimizer.safetensors", "metrics.jsonl"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    states = [json.loads((r / last / "state.json").read_text()) | {"elapsed": 0} for r in (run, other)]
    assert states[0] == states[1]
    assert states[0]["step"] == steps
    assert [p.name for p in run.iterdir() if ".tmp" in p.name] == []


@pytest.mark.parametrize("workers", [0, 2])
def test_pretraining_killed_and_resumed_ends_with_the_same_bits(
    pretraining: Sequence[object], straight_pretraining: Path, tmp_path: Path, workers: int
) -> None:
    log = tmp_path / "log"
    at = run_and_kill(log, tmp_path / "run", *pretraining, "--workers", workers, kills=1 if workers else 3)
    assert at == sorted(set(at))
    assert f"resuming {tmp_path / 'run'} at step" in log.read_text()
    assert_same(tmp_path / "run", straight_pretraining)


@pytest.mark.parametrize(("method", "pretext"), [task for task in pretext_tasks() if task != ("ssast", "paper")])
def test_every_pretext_task_killed_and_resumed_ends_with_the_same_bits(
    method: str, pretext: str, tones: Path, tmp_path: Path
) -> None:
    # Teachers, centres and running statistics among them.
    steps = 10
    command = ["pretrain", method, tones, "--preset", "test", "--steps", steps, "--checkpoint-every", 2]
    if pretext:
        command += ["--set", f"pretext={pretext}"]
    if hasattr(get_method(method).CONFIG, "drop_path"):
        # What is drawn from torch's own generator comes again, too.
        command += ["--set", "drop_path=0.3"]
    assert run_and_kill(tmp_path / "log", tmp_path / "straight", *command, kills=0) == []
    assert run_and_kill(tmp_path / "log", tmp_path / "run", *command, kills=2)
    assert_same(tmp_path / "run", tmp_path / "straight", steps)


@pytest.mark.parametrize("workers", [0, 2])
def test_finetuning_killed_and_resumed_ends_with_the_same_bits(
    finetuning: Sequence[object], straight_finetuning: Path, tmp_path: Path, workers: int
) -> None:
    at = run_and_kill(tmp_path / "log", tmp_path / "run", *finetuning, "--workers", workers, kills=1 if workers else 3)
    assert at == sorted(set(at))
    assert_same(tmp_path / "run", straight_finetuning)
    means = [run / "averaged" / "weights.safetensors" for run in (tmp_path / "run", straight_finetuning)]
    assert means[0].read_bytes() == means[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", ["pretraining", "finetuning"])
def test_five_kills_in_one_run(request: pytest.FixtureRequest, tmp_path: Path, what: str, workers: int) -> None:
    arguments, other = request.getfixturevalue(what), request.getfixturevalue(f"straight_{what}")
    for seed in range(3):
        run = tmp_path / f"run{seed}"
        at = run_and_kill(tmp_path / "log", run, *arguments, "--workers", workers, kills=5, seed=seed)
        assert at == sorted(set(at))
        assert_same(run, other)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_and_the_same_command_goes_on(
    pretraining: Sequence[object], straight_pretraining: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    command = Command(log, *pretraining, "--out", run)
    command.wait_for_checkpoint(run)
    assert command.signal(number) == code
    saved = max(steps_saved(run))
    assert f"error: {number.name}: saved step {saved}; run the same command again" in log.read_text()
    assert Command(log, *pretraining, "--out", run).wait() == 0
    assert f"resuming {run} at step {saved}." in log.read_text()
    assert_same(run, straight_pretraining)


def test_a_signal_to_the_loader_too_still_saves(
    pretraining: Sequence[object], straight_pretraining: Path, tmp_path: Path
) -> None:
    # Ctrl-C, batch systems and `timeout` signal the whole process group, and with it the workers that read ahead.
    log, run = tmp_path / "log", tmp_path / "run"
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75)):
        command = Command(log, *pretraining, "--workers", 1, "--out", run, group=True)
        command.wait_for_checkpoint(run, max(steps_saved(run), default=-1))
        assert command.signal(number) == code, log.read_text()
    assert Command(log, *pretraining, "--out", run).wait() == 0
    assert_same(run, straight_pretraining)


def test_other_settings_are_refused_and_listed(
    pretraining: Sequence[object], straight_pretraining: Path, cli: Callable[..., Outcome]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in straight_pretraining.rglob("*") if p.name != ".lock"}
    end = cli(*pretraining, "--set", "lr=0.01", "--set", "mask_ratio=0.5", "--seed", 1, "--out", straight_pretraining)
    assert end.code == 2
    for difference in ("train.lr: was 0.001, now 0.01", "model.mask_ratio: was 0.7, now 0.5", "seed: was 0, now 1"):
        assert difference in end.err
    assert "repeat the settings it was started with" in end.err
    fewer = cli(*pretraining, "--steps", STEPS - 1, "--out", straight_pretraining)
    assert fewer.code == 2
    assert f"train.steps: was {STEPS}, now {STEPS - 1}" in fewer.err
    kind = cli("finetune", straight_pretraining, pretraining[2], "--out", straight_pretraining)
    assert kind.code == 2
    assert "is a run of auricle pretrain, not of auricle finetune; give another --out." in kind.err
    # It does not even touch the run.
    assert {p: p.stat().st_mtime_ns for p in straight_pretraining.rglob("*") if p.name != ".lock"} == before


def test_statistics_measured_on_another_processor_are_kept_from_the_run(
    pretraining: Sequence[object],
    straight_pretraining: Path,
    tmp_path: Path,
    cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight_pretraining, run)
    shutil.rmtree(run / f"step-{STEPS:06d}")
    measure = pretrain.measure_statistics
    config = (run / "config.yaml").read_text()

    def elsewhere(*arguments: Any) -> tuple[float, float]:
        mean, std = measure(*arguments)
        return mean + difference, std - difference

    monkeypatch.setattr(pretrain, "measure_statistics", elsewhere)
    difference = 2e-6
    assert cli(*pretraining, "--out", run).code == 0
    assert_same(run, straight_pretraining)
    assert (run / "config.yaml").read_text() == config
    # That is no rounding any more.
    difference = 0.01
    assert "model.norm_mean: was" in cli(*pretraining, "--out", run).err


def test_what_only_changes_the_speed_may_change(
    pretraining: Sequence[object], straight_pretraining: Path, cli: Callable[..., Outcome]
) -> None:
    end = cli(*pretraining, "--workers", 1, "--checkpoint-every", 7, "--out", straight_pretraining)
    assert end.code == 0, end.err
    assert f"complete: {STEPS} of {STEPS} steps" in end.err


def test_other_data_are_refused_and_listed(tones: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data = tmp_path / "data"
    shutil.copytree(tones, data)
    command = ("pretrain", "ssast", data, "--preset", "test", "--steps", 2, "--out", tmp_path / "run")
    assert cli(*command).code == 0
    rows = (data / "manifest.csv").read_text().splitlines()
    shutil.copy(data / "audio/hiss0.wav", data / "audio/new.wav")
    with (data / "audio/buzz7.flac").open("ab") as file:
        file.write(b"\0")
    (data / "manifest.csv").write_text("\n".join([*rows[:2], *rows[3:], "audio/new.wav,hiss,train,g0"]) + "\n")
    end = cli(*command)
    assert end.code == 2
    assert "was started with other data" in end.err
    assert "1 added: audio/new.wav" in end.err
    assert f"1 removed: {rows[2].split(',')[0]}" in end.err
    assert "1 altered: audio/buzz7.flac" in end.err
    # As it was, it goes on: nothing about the run has changed, nor has the time of the files a meaning.
    shutil.rmtree(data)
    shutil.copytree(tones, data, copy_function=shutil.copyfile)
    assert cli(*command).code == 0


def test_changed_labels_are_changed_data(
    tones: Path, pretrained: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tones, data)
    command = ("finetune", pretrained, data, "--steps", 2, "--out", tmp_path / "run")
    assert cli(*command).code == 0
    text = (data / "manifest.csv").read_text()
    (data / "manifest.csv").write_text(text.replace("buzz0.wav,buzz", "buzz0.wav,hiss"))
    end = cli(*command)
    assert end.code == 2
    assert "1 altered: audio/buzz0.wav" in end.err


def test_more_steps_continue_a_complete_run_which_may_have_moved(
    pretraining: Sequence[object], straight_pretraining: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(straight_pretraining, moved)
    end = cli(*pretraining, "--steps", STEPS + 5, "--out", moved)
    assert end.code == 0, end.err
    assert f"resuming {moved} at step {STEPS}" in end.err
    steps = [json.loads(line)["step"] for line in (moved / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 6))
    assert max(steps_saved(moved)) == STEPS + 5


def test_a_run_that_moved_in_the_middle_resumes(
    pretraining: Sequence[object], straight_pretraining: Path, tmp_path: Path
) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    command = Command(log, *pretraining, "--out", run)
    command.wait_for_checkpoint(run)
    assert command.signal(signal.SIGKILL) == -signal.SIGKILL
    run.rename(tmp_path / "moved")
    assert Command(log, *pretraining, "--out", tmp_path / "moved").wait() == 0
    assert_same(tmp_path / "moved", straight_pretraining)


def test_one_process_per_run_and_a_killed_owner_leaves_no_lock(
    pretraining: Sequence[object], straight_pretraining: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    owner = Command(log, *pretraining, "--out", run)
    owner.wait_for_checkpoint(run)
    second = cli(*pretraining, "--out", run)
    assert owner.process.is_alive()
    assert second.code == 2
    assert f"{run} is in use by process {owner.process.pid}; wait for it" in second.err
    assert owner.signal(signal.SIGKILL) == -signal.SIGKILL
    assert cli(*pretraining, "--out", run).code == 0
    assert_same(run, straight_pretraining)
    with locked(run):
        assert cli(*pretraining, "--out", run).code == 2


def test_a_damaged_checkpoint_is_told_and_the_previous_one_resumed(
    pretraining: Sequence[object], straight_pretraining: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight_pretraining, run)
    weights = run / f"step-{STEPS:06d}" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "lo')
    end = cli(*pretraining, "--quiet", "--out", run)
    assert end.code == 0
    assert f"warning: {weights} is damaged" in end.err
    assert_same(run, straight_pretraining)


def test_minutes_are_turned_into_steps_once(
    tones: Path, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    command = ("pretrain", "ssast", tones, "--preset", "test", "--checkpoint-every", 4, "--out", run)
    monkeypatch.setattr(planning, "measure_costs", lambda job: Costs(2.0))
    assert cli(*command, "--max-minutes", 1).code == 0
    budget = json.loads((run / "budget.json").read_text())
    # 60 s, of which 93 % are planned with, less what planning itself took.
    assert 20 <= budget["steps"] <= 27
    assert budget["seconds_per_step"] == 2.0
    assert max(steps_saved(run)) == budget["steps"]

    shutil.rmtree(run / f"step-{budget['steps']:06d}")
    monkeypatch.setattr(planning, "measure_costs", lambda job: pytest.fail("measured again"))
    assert cli(*command, "--max-minutes", 3).code == 0
    assert json.loads((run / "budget.json").read_text()) == budget
    assert max(steps_saved(run)) == budget["steps"]

    without = cli(*command)
    assert without.code == 2
    assert "max_minutes: was 3.0, now 0.0" in without.err
    assert max(steps_saved(run)) == budget["steps"]


def test_the_deadline_ends_a_run_that_became_slow(
    tones: Path, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    command = ("pretrain", "ssast", tones, "--preset", "test", "--out", run)
    monkeypatch.setattr(loop, "plan_steps", lambda job, console: 10_000)
    end = cli(*command, "--max-minutes", 0.01)
    assert end.code == 0
    done = max(steps_saved(run))
    assert 0 < done < 10_000
    assert f"time is up at step {done} of 10000" in end.err


def test_a_run_that_time_ended_is_finished_by_the_same_command(
    tones: Path, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("pretrain", "ssast", tones, "--preset", "test", "--checkpoint-every", 5, "--out")
    monkeypatch.setattr(planning, "measure_costs", lambda job: Costs(1.0))
    assert cli(*command, tmp_path / "whole", "--max-minutes", 0.5).code == 0
    steps = max(steps_saved(tmp_path / "whole"))

    ended = tmp_path / "ended"
    clock = time.monotonic
    with monkeypatch.context() as slow:
        # The clock jumps by a minute as soon as the budget is planned.
        slow.setattr(loop.time, "monotonic", lambda: clock() + 60 * (ended / "budget.json").exists())
        assert "run the same command again" in cli(*command, ended, "--max-minutes", 0.5).err
    assert max(steps_saved(ended)) < steps
    budget = json.loads((ended / "budget.json").read_text()) | {"steps": steps}
    (ended / "budget.json").write_text(json.dumps(budget))
    # Restarts do not count against the minutes: however often it is killed, the run reaches its steps.
    assert cli(*command, ended, "--max-minutes", 0.5).code == 0
    assert max(steps_saved(ended)) == steps


def test_trial_steps_leave_no_trace_in_the_run_that_follows(
    tones: Path, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed, given = tmp_path / "timed", tmp_path / "given"
    command = ("pretrain", "ssast", tones, "--preset", "test", "--out")
    measure = planning.measure_costs
    measured: list[Costs] = []

    def slower(job: Job) -> Costs:
        measured.append(measure(job))
        return Costs(3.0)

    monkeypatch.setattr(planning, "TRIAL_SECONDS", 0.05)
    monkeypatch.setattr(planning, "measure_costs", slower)
    assert cli(*command, timed, "--max-minutes", 1).code == 0
    assert len(measured) == 1
    assert 0 < measured[0].step < 1
    assert 0 < measured[0].save < 1
    steps = json.loads((timed / "budget.json").read_text())["steps"]
    assert cli(*command, given, "--steps", steps).code == 0
    assert_same(timed, given, steps)
