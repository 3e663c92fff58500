"""What a wrong option or value is answered with, and what it must not cost: time, files, a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from auricle.kernels import native

Cli = Callable[..., Any]


def last_line(outcome: Any) -> str:
    """The message of a refused command; argparse prints its usage before it."""
    assert outcome.code == 2, (outcome.out, outcome.err)
    assert "Traceback" not in outcome.err
    line = str(outcome.err.strip().splitlines()[-1])
    assert line.startswith("error: ")
    return line


def test_help_takes_less_than_a_second(run_cli: Cli) -> None:
    def seconds(*arguments: str) -> float:
        begin = time.monotonic()
        assert run_cli(*arguments).code == 0
        return time.monotonic() - begin

    # The least of some: the machine may be busy with other things.
    assert min(seconds("--help") for _ in range(3)) < 1
    assert min(seconds("pretrain", "--help") for _ in range(3)) < 1


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"'{sys.executable}' -m auricle list | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.strip() == "0"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [("AURICLE_KERNELS", "triton", "Triton"), ("AURICLE_ISA", "sse9", "no instructions 'sse9'")],
)
def test_kernels_that_cannot_run_here_end_a_command_with_a_sentence(
    cli: Cli, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    native.kernels.cache_clear()
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setenv(variable, value)
    outcome = cli("pretrain", "ssamba", tones, "--preset", "test", "--steps", "1", "--out", tmp_path / "run")
    native.kernels.cache_clear()
    assert sentence in last_line(outcome)


VALUES = {
    "steps=-5": "steps must be 0 or above, got -5",
    "steps=1.5": "steps",
    "batch_size=0": "batch_size must be above 0",
    "accumulate=3": "batch_size (8) must be a multiple of accumulate (3)",
    "lr=nan": "lr must be above 0, got nan",
    "lr=fast": "lr",
    "lr=[": "'[' is neither a number, a word nor a list",
    "lr=!!python/object/apply:os.system [touch canary]": "is neither a number, a word nor a list",
    "betas=[0.9,1.5]": "betas must lie from 0 to below 1, got 0.9, 1.5",
    "betas=[0.9]": "betas",
    "precision=fp64": "precision",
    "schedule=linear": "schedule",
    "decay_every=0": "decay_every must be above 0",
    "warmup=5": "warmup must lie between 0 and 1, got 5",
    "weight_decay=inf": "weight_decay must be 0 or above, got inf",
    "val_fraction=-1": "val_fraction must lie between 0 and 1",
    "heads=0": "heads must be above 0",
    "heads=5": "width (48) must be a multiple of heads (5)",
    "depth=-1": "depth must be above 0",
    "patch_time=0": "patch_time must be above 0",
    "sample_rate=0": "sample_rate must lie from 1,000 to 768,000 Hz, got 0",
    "norm_mean=nan": "norm_mean must be a number",
    "mask_ratio=1": "mask_ratio must lie between 0 and 1",
    "stride_time=1": "stride (128, 1) must equal the patch (128, 2)",
    "class_path=os.system": "unknown key 'class_path'",
    "=5": "--set takes KEY=VALUE, got '=5'",
    "wieght_decay=0": "did you mean 'weight_decay'",
}


@pytest.mark.parametrize("setting", VALUES)
def test_a_senseless_setting_is_refused_before_anything_is_written(
    cli: Cli, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("pretrain", "ssast", tones, "--preset", "test", "--out", "run", "--set", setting)
    outcome = cli(*command, "--dry-run")
    assert VALUES[setting] in last_line(outcome)
    # What needs the data is found after it was read, and said so.
    assert len([line for line in outcome.err.strip().splitlines() if not line.startswith("data: ")]) == 1
    assert last_line(cli(*command)) == last_line(outcome)
    assert list(tmp_path.glob("**/weights.safetensors")) == []
    assert not (tmp_path / "canary").exists()


def test_a_setting_of_the_pretext_task_has_no_place_in_a_finetuning(
    cli: Cli, pretrained: Path, tones: Path, tmp_path: Path
) -> None:
    command = ("finetune", pretrained, tones, "--out", tmp_path / "run", "--set", "mask_ratio=0.5")
    assert "fine-tuning does not use mask_ratio, a setting of the pretext task" in last_line(cli(*command))


OPTIONS = [
    (("--steps", "0"), "argument --steps: expected a whole number above 0, got '0'"),
    (("--steps", "many"), "argument --steps: expected a whole number above 0, got 'many'"),
    (("--steps", "-3"), "argument --steps: expected"),
    (("--workers", "-1"), "argument --workers: expected a whole number, 0 or above, got '-1'"),
    (("--checkpoint-every", "0"), "argument --checkpoint-every: expected a whole number above 0"),
    (("--max-minutes", "0"), "argument --max-minutes: expected a number above 0, got '0'"),
    (("--max-minutes", "nan"), "argument --max-minutes: expected a number above 0, got 'nan'"),
    (("--max-minutes", "inf"), "argument --max-minutes: expected a number above 0, got 'inf'"),
    (("--max-minutes", "1", "--steps", "5"), "argument --steps: not allowed with argument --max-minutes"),
    (("--seed", "x"), "argument --seed: invalid int value: 'x'"),
    (("--stpes", "5"), "unrecognized arguments: --stpes 5 (did you mean --steps?)"),
    (("--steps",), "argument --steps: expected one argument"),
]


@pytest.mark.parametrize("options, expected", OPTIONS, ids=[" ".join(options) for options, _ in OPTIONS])
def test_a_wrong_option_says_what_it_takes(
    cli: Cli, tones: Path, tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    outcome = cli("pretrain", "ssast", tones, "--preset", "test", "--out", tmp_path / "run", *options)
    assert expected in last_line(outcome)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("word", ["--epochs", "--jsn", "--gpu"])
def test_an_option_that_is_like_none_gets_no_suggestion(cli: Cli, word: str) -> None:
    assert last_line(cli("pretrain", "ssast", "data", "--out", "run", word)).endswith(f"unrecognized arguments: {word}")


def test_a_missing_verb_and_an_unknown_one_list_the_verbs(cli: Cli) -> None:
    assert "COMMAND" in last_line(cli())
    near = "invalid choice: 'perdict' (did you mean 'predict' or 'parity'?) (choose from 'pretrain',"
    assert near in last_line(cli("perdict"))
    assert "(did you mean 'pretrain' or 'predict'?)" in last_line(cli("pretrian"))
    assert "did you mean" not in last_line(cli("zzz"))
    assert "following arguments are required: method, data, --out" in last_line(cli("pretrain"))


@pytest.mark.parametrize("verb", ["probe", "evaluate", "predict"])
def test_a_place_for_the_result_that_cannot_work_is_refused_at_once(
    cli: Cli, tones: Path, tmp_path: Path, verb: str
) -> None:
    # The page goes beside the JSON, as .html: with that name one would replace the other.
    for place in (tmp_path, tmp_path / "result.html"):
        assert f"expected a file for JSON, got '{place}'" in last_line(cli(verb, "x", tones, "--json", place))


def test_embed_wants_a_file_that_can_be_written(cli: Cli, pretrained: Path, tones: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").touch()
    for place, expected in (
        (tmp_path / "x.csv", "must be a file that ends in .npz"),
        (tmp_path / "folder.npz", "must be a file that ends in .npz"),
        (tmp_path / "file" / "x.npz", "cannot be written: a part of its path is a file"),
        (tmp_path / "file" / "deeper" / "x.npz", "cannot be written: a part of its path is a file"),
    ):
        assert expected in last_line(cli("embed", pretrained, tones, "--out", place))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.npz"]


def test_an_option_of_another_command_is_not_recommended(cli: Cli) -> None:
    # `finetune` has --task, `evaluate` does not.
    outcome = cli("evaluate", "run", "data", "--task", "detection")
    assert last_line(outcome).endswith("unrecognized arguments: --task detection")
    assert outcome.err.startswith("usage: auricle evaluate ")
    assert "(did you mean --split-column?)" in last_line(cli("evaluate", "run", "data", "--split-colum", "x"))


def test_options_are_not_abbreviated(cli: Cli, tones: Path) -> None:
    assert "unrecognized arguments: --quie (did you mean --quiet?)" in last_line(
        cli("pretrain", "ssast", tones, "--out", "x", "--quie")
    )


def test_a_full_disk_is_one_sentence(
    cli: Cli, pretrained: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    outcome = cli("embed", pretrained, tones / "audio/hiss6.wav", "--out", tmp_path / "x.npz")
    assert outcome.code == 1
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("error: ")
    assert "No space left on device" in line
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_run_and_the_reverse(
    cli: Cli, pretrained: Path, finetuned: Path, tones: Path, tmp_path: Path
) -> None:
    sound = tones / "audio/hiss6.wav"
    assert f"{sound} is a file; convert a published checkpoint" in last_line(cli("predict", sound, sound))
    assert "a sound file is not a data set" in last_line(cli("probe", pretrained, sound))
    assert "is a file; give a directory" in last_line(cli("pretrain", "ssast", tones, "--out", sound))
    assert "holds no usable checkpoint" in last_line(cli("info", tones))
    assert "none is a sound file" in last_line(cli("predict", finetuned, pretrained))
    assert "is not a run of auricle" in last_line(cli("finetune", pretrained, tones, "--out", tones))
    # An imported or copied checkpoint is not a run to train in either.
    checkpoint = next(pretrained.glob("step-*"))
    assert "is not a run of auricle" in last_line(cli("pretrain", "ssast", tones, "--out", checkpoint))


def test_a_bare_preset_is_not_a_model_anywhere(cli: Cli, tones: Path, tmp_path: Path) -> None:
    sound = tones / "audio/hiss6.wav"
    option = "(--random-weights SEED, from Python random_weights=SEED)."
    python = '(from Python, auricle.load(..., weights="random")).'
    for command, advice in (
        (("finetune", "ssast-test", tones, "--out", tmp_path / "f"), option),
        (("probe", "ssast-test", tones), option),
        (("embed", "ssast-test", sound, "--out", tmp_path / "x.npz"), python),
        (("predict", "ssast", sound), python),
        (("pretrain", "ssast", tones, "--init", "ssast-test", "--out", tmp_path / "p"), "of a published file)."),
        (
            ("probe", "ssast-test", tones, "--random-weights", 0, "--against", "ssast-tiny-patch"),
            "of a published file).",
        ),
    ):
        message = last_line(cli(*command))
        assert "names a configuration" in message
        assert message.endswith(advice)
    assert "did you mean 'ssast-test'" in last_line(cli("predict", "ssast-tset", sound))
    assert "no preset 'ssast-tset' (did you mean 'test'?)" in last_line(
        cli("finetune", "ssast-tset", tones, "--random-weights", 1, "--out", tmp_path / "f")
    )
    assert list(tmp_path.iterdir()) == []


def test_other_structure_than_the_checkpoint_has_is_named(
    cli: Cli, pretrained: Path, tones: Path, tmp_path: Path
) -> None:
    message = last_line(cli("finetune", pretrained, tones, "--set", "depth=3", "--out", tmp_path / "f"))
    assert "does not fit the network: 12 missing tensors (blocks.2." in message
    message = last_line(
        cli("pretrain", "ssast", tones, "--init", pretrained, "--set", "width=96", "--out", tmp_path / "p")
    )
    assert " of another shape (" in message


def test_evaluate_says_which_part_or_label_is_missing(cli: Cli, finetuned: Path, tones: Path) -> None:
    assert "--split must be one of train, val, test, all, got 'dev'" in last_line(
        cli("evaluate", finetuned, tones, "--split", "dev")
    )
    assert "is this the right --label?" in last_line(cli("evaluate", finetuned, tones, "--label", "group"))
    assert "no label columns" in last_line(cli("evaluate", finetuned, tones / "audio"))


def test_silence_has_no_statistics_but_can_be_trained_on_with_given_ones(cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "silence"
    data.mkdir()
    for number in range(3):
        soundfile.write(data / f"{number}.wav", np.zeros(9000), 16000)
    command = ("pretrain", "ssast", data, "--preset", "test", "--steps", 2, "--out", tmp_path / "run")
    assert "silent or constant" in last_line(cli(*command))
    assert cli(*command, "--set", "norm_mean=-5", "--set", "norm_std=2").code == 0


def test_one_clip_and_clips_of_a_few_samples_can_be_trained_on(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, lengths in (("one", [9000]), ("short", [50, 100, 150])):
        (tmp_path / name).mkdir()
        for number, length in enumerate(lengths):
            soundfile.write(tmp_path / name / f"{number}.wav", rng.uniform(-0.3, 0.3, length), 16000)
        out = tmp_path / f"run-{name}"
        assert cli("pretrain", "ssast", tmp_path / name, "--preset", "test", "--steps", 3, "--out", out).code == 0
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert all(np.isfinite(list(row.values())).all() for row in rows)
