"""Every verb end to end, and what a mistake is answered with: one sentence, exit code 2."""

from __future__ import annotations

import inspect
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import auricle
from auricle.methods import find_preset, get_preset

Cli = Callable[..., Any]


def test_help_answers_without_importing_torch(run_cli: Cli) -> None:
    outcome = run_cli("--help")
    assert outcome.code == 0
    for verb in ("pretrain", "finetune", "probe", "evaluate", "embed", "predict", "import", "parity", "list", "info"):
        assert verb in outcome.out
    assert "bench" in outcome.out


def test_main_job_from_folder_to_prediction(cli: Cli, tones: Path, tmp_path: Path) -> None:
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    assert cli("pretrain", "ssast", tones, "--out", run, "--preset", "test", "--steps", 6, "--quiet").code == 0
    assert (run / "report.html").is_file()
    assert (run / "step-000006" / "MANIFEST.json").is_file()

    outcome = cli("probe", run, tones, "--baseline", "mfcc", "--baseline", "random", "--json", tmp_path / "probe.json")
    assert outcome.code == 0
    result = json.loads((tmp_path / "probe.json").read_text())
    assert set(result["metrics"]["accuracy"]) == {"value", "low", "high"}
    assert set(result["baselines"]) == {"mfcc", "random"}
    assert [c["b"] for c in result["comparisons"]] == ["mfcc", "random"]
    assert result["command"].startswith("auricle ")
    assert len(result["data"]["hash"]) == 64
    assert (tmp_path / "probe.html").is_file()

    assert cli("finetune", run, tones, "--out", tuned, "--steps", 60, "--quiet").code == 0
    assert cli("evaluate", tuned, tones, "--json", tmp_path / "eval.json").code == 0
    evaluated = json.loads((tmp_path / "eval.json").read_text())
    assert evaluated["protocol"]["tested"] == 6
    assert sum(map(sum, evaluated["confusion"]["rows"])) == 6

    sound = next((tones / "audio").glob("*.flac"))
    outcome = cli("predict", tuned, sound, "--json", tmp_path / "predictions.json")
    assert outcome.code == 0
    (prediction,) = json.loads((tmp_path / "predictions.json").read_text())["predictions"]
    assert prediction["label"] in ("buzz", "chirp", "hiss")
    assert sum(prediction["scores"].values()) == pytest.approx(1)


def test_random_weights_of_a_preset_can_be_probed_but_a_bare_preset_cannot(cli: Cli, tones: Path) -> None:
    assert cli("probe", "ssast-test", tones, "--random-weights", 3).code == 0
    outcome = cli("probe", "ssast-test", tones)
    assert outcome.code == 2
    assert "--random-weights" in outcome.err
    assert "auricle import" in outcome.err


def test_group_column_leaves_one_group_out(cli: Cli, pretrained: Path, tones: Path, tmp_path: Path) -> None:
    assert cli("probe", pretrained, tones, "--group-column", "group", "--json", tmp_path / "p.json").code == 0
    result = json.loads((tmp_path / "p.json").read_text())
    assert result["protocol"]["chosen_by"].startswith("4 fold")
    assert result["protocol"]["tested"] == 24


def test_linear_head_and_other_label_column(cli: Cli, pretrained: Path, tones: Path) -> None:
    assert cli("probe", pretrained, tones, "--head", "linear").code == 0
    assert cli("probe", pretrained, tones, "--label", "group").code == 0


def test_long_file_is_predicted_in_segments(cli: Cli, finetuned: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", rng.uniform(-0.3, 0.3, 16000 * 12), 16000)
    outcome = cli("predict", finetuned, tmp_path / "long.wav", "--json", tmp_path / "p.json")
    assert outcome.code == 0
    segments = json.loads((tmp_path / "p.json").read_text())["predictions"][0]["segments"]
    # One that is the whole file says nothing that the line above it does not.
    assert len(outcome.out.splitlines()) == 1 + (len(segments) if len(segments) > 1 else 0)
    assert segments[0]["onset"] == 0
    assert segments[-1]["offset"] == pytest.approx(12, abs=0.01)
    for before, after in itertools.pairwise(segments):
        assert before["offset"] == after["onset"]
        assert before["label"] != after["label"]


def test_embed_writes_the_good_files_and_names_the_bad(cli: Cli, pretrained: Path, tones: Path, tmp_path: Path) -> None:
    good = next((tones / "audio").glob("*.wav"))
    bad = tmp_path / "bad.wav"
    bad.write_bytes(good.read_bytes()[:2000])
    out = tmp_path / "x.npz"
    outcome = cli("embed", pretrained, good, bad, "--out", out, "--frames")
    assert outcome.code == 2
    assert "bad.wav" in outcome.err
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["paths"].tolist() == [str(good)]
        assert arrays["embeddings"].shape == (1, 48)
        assert len(arrays["frames"]) == len(arrays["times"]) == arrays["offsets"][-1]
        assert (np.diff(arrays["times"]) >= 0).all()


def test_unreadable_files_of_a_folder_are_named(
    cli: Cli, pretrained: Path, finetuned: Path, tones: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    for kind in ("buzz", "hiss"):
        (folder / kind).mkdir(parents=True)
        for sound in sorted((tones / "audio").glob(f"{kind}*"))[:6]:
            shutil.copy(sound, folder / kind)
    (folder / "hiss" / "notes.wav").write_text("no sound")
    (folder / "buzz" / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))

    for arguments in (("embed", pretrained, folder, "--out", tmp_path / "x.npz"), ("predict", finetuned, folder)):
        outcome = cli(*arguments)
        assert outcome.code == 2
        assert "notes.wav" in outcome.err
        assert "phone.m4a" in outcome.err
    for arguments in (("probe", pretrained, folder), ("evaluate", finetuned, folder, "--split", "all")):
        outcome = cli(*arguments)
        assert outcome.code == 2
        assert "2 files cannot be read" in outcome.err
    outcome = cli("pretrain", "ssast", folder, "--out", tmp_path / "r", "--preset", "test", "--steps", 1)
    assert outcome.code == 0
    why = "its first bytes belong to no known sound format"
    assert f"notes.wav: not audio: {why}; it is left out" in outcome.err
    assert len(json.loads((tmp_path / "r" / "data.json").read_text())["skipped"]) == 2


def test_init_continues_from_a_checkpoint(cli: Cli, pretrained: Path, tones: Path, tmp_path: Path) -> None:
    from auricle.training.checkpoint import resolve

    out = tmp_path / "more"
    assert cli("pretrain", "ssast", tones, "--out", out, "--init", pretrained, "--steps", 1, "--quiet").code == 0
    before, after = resolve(pretrained), resolve(out)
    assert after.config["model"] == before.config["model"]
    moved = {n for n, t in after.weights().items() if not torch.equal(t, before.weights()[n])}
    assert moved
    # One warm-up step of one: nothing is far from where it began.
    assert max(float((after.weights()[n] - before.weights()[n]).abs().max()) for n in moved) < 0.01


def test_dry_run_says_what_it_would_take_and_writes_nothing(cli: Cli, tones: Path, tmp_path: Path) -> None:
    outcome = cli("pretrain", "ssast", tones, "--out", tmp_path / "r", "--preset", "test", "--dry-run")
    assert outcome.code == 0
    for word in ("parameters", "memory", "steps", "time"):
        assert word in outcome.out
    assert not (tmp_path / "r").exists()


def test_list_and_info(cli: Cli, pretrained: Path, tones: Path) -> None:
    outcome = cli("list")
    assert outcome.code == 0
    names = [line.split()[0] for line in outcome.out.splitlines() if line.startswith("  ssast-")]
    assert set(names) >= {"ssast-tiny-patch", "ssast-small-frame", "ssast-base-patch", "ssast-demo", "ssast-test"}
    # As they stand there, they go behind --preset and in place of a model.
    for name in names:
        method, preset = find_preset(name)
        assert get_preset(method, name) is get_preset(method, preset)
    assert "sample rate" in cli("info", pretrained).out
    assert "decodes whole" in cli("info", next((tones / "audio").glob("*.flac"))).out


def test_embed_makes_the_folder_of_its_file(cli: Cli, pretrained: Path, tones: Path, tmp_path: Path) -> None:
    sound = next((tones / "audio").glob("*.flac"))
    assert cli("embed", pretrained, sound, "--out", tmp_path / "new" / "deeper" / "x.npz").code == 0
    assert (tmp_path / "new" / "deeper" / "x.npz").is_file()


def test_synth_makes_a_labelled_data_set(cli: Cli, tmp_path: Path) -> None:
    assert cli("synth", tmp_path / "scenes", "--clips", 4, "--seconds", 0.5).code == 0
    assert (tmp_path / "scenes" / "manifest.csv").is_file()


MISTAKES = [
    (("pretrain", "ssast", "{tones}", "--out", "{tmp}/r", "--preest", "test"), "--preset"),
    (("pretrain", "ssast", "{tones}", "--out", "{tmp}/r", "--set", "lrr=1"), "did you mean 'lr'"),
    (("pretrain", "ssast", "{tones}", "--out", "{tmp}/r", "--set", "lr=fast"), "lr"),
    (("pretrain", "ssast", "{tones}", "--out", "{tmp}/r", "--set", "lr"), "KEY=VALUE"),
    (("pretrain", "ssast", "{tones}", "--out", "{tmp}/r", "--preset", "tiny-path"), "tiny-patch"),
    (("pretrain", "sast", "{tones}", "--out", "{tmp}/r"), "ssast"),
    (("pretrain", "ssamba-tset", "{tones}", "--out", "{tmp}/r"), "ssamba"),
    (("pretrain", "ssamba-test", "{tones}", "--out", "{tmp}/r", "--preset", "demo"), "give one of them"),
    (("pretrain", "ssast", "{tmp}/nowhere", "--out", "{tmp}/r"), "nowhere"),
    (("pretrain", "ssast", "{empty}", "--out", "{tmp}/r"), "no audio"),
    (("pretrain", "ssast", "{tones}", "--out", "{full}"), "not a run"),
    (("pretrain", "ssast", "{tones}", "--out", "{tmp}/r", "--preset", "test", "--set", "mask_count=400"), "mask_count"),
    (("pretrain", "ssast", "{tones}", "--out", "{tmp}/r", "--init", "{tuned}"), "pretraining checkpoint"),
    (("probe", "{run}", "{tones}", "--label", "lable"), "label"),
    (("probe", "{tmp}/nowhere", "{tones}"), "no such checkpoint"),
    (("probe", "{run}", "{tones}", "--split-column", "spilt"), "split"),
    (("predict", "{run}", "{tones}"), "auricle finetune"),
    (("evaluate", "{run}", "{tones}"), "finetune"),
    (("finetune", "{run}", "{tones}", "--out", "{tmp}/f", "--held-out", "g9"), "g9"),
    (("finetune", "{run}", "{one}", "--out", "{tmp}/f"), "class"),
    (("embed", "{run}", "{tones}", "--out", "{tmp}/x.txt"), ".npz"),
    (("embed", "{run}", "{tmp}/no.wav", "--out", "{tmp}/x.npz"), "no.wav"),
    (("import", "{tmp}/no.pth", "--out", "{tmp}/i"), "no such file"),
    (("info", "{tmp}/nothing"), "no such"),
    (("parity", "{empty}"), "no parity case"),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=[" ".join(mistake[0]) for mistake in MISTAKES])
def test_mistakes_get_one_sentence_and_exit_code_two(
    cli: Cli, tones: Path, pretrained: Path, finetuned: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    one = tmp_path / "one.csv"
    one.write_text(f"path,label,split\n{next((tones / 'audio').glob('*.wav'))},buzz,train\n")
    with one.open("a") as file:
        file.write(f"{next((tones / 'audio').glob('*.flac'))},buzz,test\n")
    places = {
        "tones": tones,
        "run": pretrained,
        "tuned": finetuned,
        "tmp": tmp_path,
        "empty": tmp_path / "empty",
        "full": tmp_path / "full",
        "one": one,
    }
    outcome = cli(*(argument.format(**places) for argument in arguments))
    assert outcome.code == 2, outcome.err
    message = outcome.err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert expected in message
    assert "Traceback" not in outcome.err
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_pickled_code_is_refused_and_does_not_run(cli: Cli, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            import os

            return os.system, (f"touch {canary}",)

    torch.save({"state_dict": Trap()}, tmp_path / "evil.pth")
    outcome = cli("import", tmp_path / "evil.pth", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "run code" in outcome.err
    assert not canary.exists()
    assert not (tmp_path / "out").exists()


def test_damaged_checkpoint_is_refused_by_name(cli: Cli, pretrained: Path, tones: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(pretrained, copy)
    for weights in copy.glob("step-*/weights.safetensors"):
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(bytes(data))
    outcome = cli("probe", copy, tones)
    assert outcome.code == 2
    assert "weights.safetensors" in outcome.err


@pytest.mark.parametrize("function", ["probe", "evaluate", "embed", "predict", "finetune", "pretrain"])
def test_functions_name_their_options(function: str) -> None:
    kinds = {parameter.kind for parameter in inspect.signature(getattr(auricle, function)).parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
