"""Files of all kinds through the command line: odd sounds, official checkpoints, parity cases, and hostile ones."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from auricle.methods.ssast.official import to_official
from auricle.training import checkpoint as ckpt

Cli = Callable[..., Any]


def one_sentence(outcome: Any) -> str:
    """The message of a refused command: a single line and no trace."""
    lines = outcome.err.strip().splitlines()
    assert outcome.code == 2, outcome.err
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in outcome.err
    return str(lines[0])


# Sounds -------------------------------------------------------------------------------------------------------------


def odd_sounds(folder: Path) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, rate, shape in (
        ("stereo 48k.wav", 48000, (24000, 2)),
        ("rate 12345.flac", 12345, (12345,)),
        ("six channels.wav", 8000, (9000, 6)),
        ("192k.wav", 192000, (96000,)),
        ("ten samples.wav", 16000, (10,)),
        ("one sample.wav", 16000, (1,)),
        ("exactly one window.wav", 16000, (10480,)),
        ("one window and a sample.wav", 16000, (10481,)),
        ("ünïcode näme.wav", 16000, (8000,)),
    ):
        soundfile.write(folder / name, rng.uniform(-0.3, 0.3, shape), rate)
    soundfile.write(folder / "silence.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "constant.wav", np.full(16000, 0.5), 16000)
    return sorted(folder.iterdir())


def test_sounds_of_any_rate_channels_and_length_are_embedded_and_predicted(
    cli: Cli, pretrained: Path, finetuned: Path, tmp_path: Path
) -> None:
    paths = odd_sounds(tmp_path / "odd")
    end = cli("embed", pretrained, tmp_path / "odd", "--out", tmp_path / "x.npz", "--frames")
    assert end.code == 0, end.err
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert sorted(arrays["paths"].tolist()) == [str(path) for path in paths]
        assert np.isfinite(arrays["embeddings"]).all()
        assert np.isfinite(arrays["frames"]).all()
        for path, first, last in zip(arrays["paths"], arrays["offsets"], arrays["offsets"][1:], strict=False):
            times, duration = arrays["times"][first:last], soundfile.info(path).duration
            assert len(times) > 0
            assert (np.diff(times) > 0).all()
            assert times[-1] <= duration + 1e-4
    end = cli("predict", finetuned, tmp_path / "odd", "--json", tmp_path / "p.json")
    assert end.code == 0, end.err
    predictions = json.loads((tmp_path / "p.json").read_text())["predictions"]
    assert len(predictions) == len(paths)
    for row in predictions:
        assert row["label"] in ("buzz", "chirp", "hiss")
        assert row["score"] == max(row["scores"].values())
        assert sum(row["scores"].values()) == pytest.approx(1)
        assert row["duration"] == pytest.approx(soundfile.info(row["path"]).duration, abs=1e-4)


def test_a_file_that_is_read_again_is_warned_of_once(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave, folder = np.random.default_rng(0).uniform(-0.3, 0.3, 16000), tmp_path / "stereo"
    folder.mkdir()
    soundfile.write(folder / "anti.wav", np.stack([wave, -wave], axis=1), 16000)
    soundfile.write(folder / "mono.wav", wave, 16000)
    # As outside of tests, where warnings are not errors.
    monkeypatch.setattr(warnings, "filters", [])
    outcome = cli("pretrain", "ssast", folder, "--preset", "test", "--steps", 3, "--quiet", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("warning: "))
    assert "silent after downmix" in line


def test_channels_that_cancel_give_a_warning_of_one_line(cli: Cli, pretrained: Path, tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 8000)
    soundfile.write(tmp_path / "anti.wav", np.stack([wave, -wave], 1), 16000)
    with pytest.MonkeyPatch.context() as monkeypatch:
        # As outside of tests, where warnings are not errors.
        monkeypatch.setattr(warnings, "filters", [])
        end = cli("embed", pretrained, tmp_path / "anti.wav", "--out", tmp_path / "x.npz")
    assert end.code == 0
    (line,) = end.err.strip().splitlines()
    assert line.startswith(f"warning: {tmp_path / 'anti.wav'}: silent after downmix")
    # embed has no --set.
    assert "write one of them to a file of its own (pretrain and finetune hear one with --set channel=0" in line


def test_predict_lists_what_cannot_be_read_and_predicts_the_rest(
    cli: Cli, finetuned: Path, tones: Path, tmp_path: Path
) -> None:
    good, bad = tones / "audio/hiss6.wav", tmp_path / "bad.wav"
    bad.write_bytes(good.read_bytes()[:2000])
    end = cli("predict", finetuned, bad, good, tmp_path / "gone.wav", "--json", tmp_path / "p.json")
    assert end.code == 2
    assert f"{good}: hiss" in end.out
    assert [line.split(":")[0] for line in end.err.strip().splitlines()] == ["error", "error"]
    rows = json.loads((tmp_path / "p.json").read_text())["predictions"]
    assert [("error" in row, row["path"]) for row in rows] == [
        (True, str(bad)),
        (False, str(good)),
        (True, str(tmp_path / "gone.wav")),
    ]
    assert "truncated" in rows[0]["error"]


def test_embed_leaves_the_old_file_where_nothing_could_be_embedded(cli: Cli, pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"old")
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    assert "bad.wav" in one_sentence(cli("embed", pretrained, tmp_path / "bad.wav", "--out", tmp_path / "x.npz"))
    assert (tmp_path / "x.npz").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.wav", "x.npz"]


# Official checkpoints -----------------------------------------------------------------------------------------------


@pytest.fixture
def official(pretrained: Path, tmp_path: Path) -> Path:
    """Our pretraining as SSAST's authors would have saved it."""
    weights = ckpt.resolve(pretrained).weights()
    state = {f"module.{to_official(name)}": value for name, value in weights.items()}
    state |= {"module.v.head.weight": torch.zeros(10, 48), "module.v.head.bias": torch.zeros(10)}
    state |= {"module.v.head_dist.weight": torch.zeros(10, 48), "module.v.head_dist.bias": torch.zeros(10)}
    state |= {"module.p_input_fdim": torch.tensor(128), "module.p_input_tdim": torch.tensor(64)}
    torch.save(state, tmp_path / "official.pth")
    return tmp_path / "official.pth"


def test_an_official_file_is_imported_and_used(
    cli: Cli, official: Path, pretrained: Path, tones: Path, tmp_path: Path
) -> None:
    out = tmp_path / "imported"
    end = cli("import", official, "--out", out, "--set", "heads=3")
    assert end.code == 0, end.err
    assert "module.v" not in end.out
    assert "v.pos_embed [1, 34, 48] -> encoder.positions (weight)" in end.out
    assert "v.head.weight [10, 48] -> - (unused: ImageNet head" in end.out
    ours, theirs = ckpt.resolve(pretrained).weights(), ckpt.resolve(out).weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    sound = tones / "audio/hiss6.wav"
    assert "pretraining" in cli("info", out).out
    assert cli("embed", out, sound, "--out", tmp_path / "x.npz").code == 0
    assert cli("probe", out, tones).code == 0
    assert cli("pretrain", "ssast", tones, "--init", out, "--steps", 1, "--out", tmp_path / "more").code == 0
    # Once more into the same place is refused; so is a file as the place.
    assert "not an empty directory" in one_sentence(cli("import", official, "--out", out, "--set", "heads=3"))
    assert "not an empty directory" in one_sentence(cli("import", official, "--out", official, "--set", "heads=3"))


def test_an_official_classifier_gets_its_names_and_predicts(
    cli: Cli, finetuned: Path, tones: Path, tmp_path: Path
) -> None:
    weights = ckpt.resolve(finetuned).weights()
    state = {f"module.{to_official(name)}": value for name, value in weights.items()}
    save_file(state, tmp_path / "tuned.safetensors")
    (tmp_path / "names.txt").write_text("buzz\nchirp\n\nhiss\n")
    settings = ckpt.resolve(finetuned).config["model"]
    assert settings["stride_freq"] == 128
    structure: list[object] = []
    for key in ("stride_freq", "stride_time", "window_frames", "heads", "norm_mean", "norm_std", "pooling"):
        structure += ["--set", f"{key}={settings[key]}"]
    command = ("import", tmp_path / "tuned.safetensors", "--classes", tmp_path / "names.txt", *structure, "--out")
    end = cli(*command, tmp_path / "imported")
    assert end.code == 0, end.err
    assert "buzz, chirp, hiss" in cli("info", tmp_path / "imported").out
    assert cli("predict", tmp_path / "imported", tones / "audio/hiss6.wav").code == 0

    (tmp_path / "names.txt").write_text("buzz\nbuzz\nhiss\n")
    assert "must be different" in one_sentence(cli(*command, tmp_path / "other"))
    (tmp_path / "names.txt").write_text("buzz\nhiss\n")
    assert "has 3 classes, but 2 names were given" in one_sentence(cli(*command, tmp_path / "other"))
    assert "names.txt" in one_sentence(
        cli("import", tmp_path / "tuned.safetensors", "--classes", tmp_path / "no names.txt", "--out", tmp_path / "o")
    )
    assert not (tmp_path / "other").exists()


# Parity -------------------------------------------------------------------------------------------------------------


def test_parity_passes_on_golden_cases_and_fails_on_a_wrong_one(cli: Cli, goldens: Path, tmp_path: Path) -> None:
    case = goldens / "ssast" / "frontend"
    end = cli("parity", case, "--outputs", tmp_path / "outputs")
    assert end.code == 0, end.out
    assert end.out.splitlines()[0].startswith("pass  ssast/frontend")
    assert "1 of 1 cases pass" in end.out
    assert (tmp_path / "outputs" / "ssast" / "frontend" / "io.safetensors").is_file()

    wrong = tmp_path / "ssast" / "wrong"
    shutil.copytree(case, wrong, copy_function=shutil.copyfile)
    meta = json.loads((wrong / "meta.json").read_text())
    (wrong / "meta.json").write_text(json.dumps(meta | {"contract": {**meta["contract"], "computes": "ssast/nothing"}}))
    end = cli("parity", case, wrong, "--json")
    assert end.code == 1
    report = json.loads(end.out)
    assert report["passed"] == 1
    assert [c["passed"] for c in report["cases"]] == [True, False]
    assert "does not compute 'ssast/nothing'" in report["cases"][1]["error"]


# Hostile files ------------------------------------------------------------------------------------------------------


class Trap:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def hostile_files(folder: Path) -> dict[str, Path]:
    """Checkpoints that would make the file `canary` if anything in them ran."""
    touch = f"touch '{folder / 'canary'}'"
    write = f"open({str(folder / 'canary')!r}, 'w')"
    tensor = torch.zeros(2)
    contents: dict[str, Any] = {
        "system": {"a": Trap(os.system, touch)},
        "eval": {"a": Trap(eval, write)},
        "exec": {"a": Trap(exec, write)},
        "import": {"a": Trap(__import__, "os"), "b": Trap(os.system, touch)},
        "nested": {"state_dict": {"a": tensor, "b": [{"c": (Trap(os.system, touch),)}]}},
        "beside": {"model": {"a": tensor}, "args": Trap(os.system, touch)},
        "key": {Trap(os.system, touch): tensor},
        "getattr": {"a": Trap(getattr, Trap(__import__, "os"), "system")},
        "namespace": {"a": tensor, "args": argparse.Namespace(x=Trap(os.system, touch))},
        "numpy": {"a": np.zeros(2), "b": Trap(os.system, touch)},
    }
    files = {}
    for name, content in contents.items():
        files[name] = folder / f"{name}.pth"
        torch.save(content, files[name])
    files["legacy"] = folder / "legacy.pth"
    torch.save(contents["system"], files["legacy"], _use_new_zipfile_serialization=False)
    files["raw pickle"] = folder / "raw.pth"
    files["raw pickle"].write_bytes(pickle.dumps(contents["system"]))
    files["renamed"] = folder / "renamed.safetensors"
    shutil.copy(files["system"], files["renamed"])
    return files


def test_nothing_in_a_hostile_checkpoint_runs(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    files = hostile_files(tmp_path / "files")
    assert len(files) == 13
    for name, file in files.items():
        for command in (("import", file, "--out", tmp_path / "out"), ("info", file), ("predict", file, file)):
            message = one_sentence(cli(*command))
            assert str(file) in message, name
            # torch's own message recommends to switch the protection off.
            assert "weights_only" not in message
            assert "\x1b" not in message
        assert not (tmp_path / "files" / "canary").exists(), name
    assert not (tmp_path / "out").exists()
    # The trap does work where pickles are trusted.
    torch.load(files["system"], weights_only=False)
    assert (tmp_path / "files" / "canary").exists()


def malformed_safetensors() -> dict[str, bytes]:
    def with_header(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return (len(text) if length is None else length).to_bytes(8, "little") + text + data

    def tensor(dtype: str = "F32", shape: tuple[int, ...] = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    good = with_header({"a": tensor()}, bytes(8))
    return {
        "empty": b"",
        "truncated": good[:-3],
        "surplus": good + b"more",
        "huge header": with_header({"a": tensor()}, bytes(8), 2**40),
        "no json": with_header(b"{nonsense", bytes(8)),
        "past the end": with_header({"a": tensor(offsets=(0, 80), shape=(20,))}, bytes(8)),
        "lying shape": with_header({"a": tensor(shape=(200,))}, bytes(8)),
        "overflowing shape": with_header({"a": tensor(shape=(2**40, 2**40))}, bytes(8)),
        "unknown type": with_header({"a": tensor("F31")}, bytes(8)),
        "overlap": with_header({"a": tensor(), "b": tensor(offsets=(4, 12))}, bytes(12)),
        "deep": with_header(b'{"a":' + b"[" * 100_000),
    }


def test_malformed_safetensors_are_refused(cli: Cli, pretrained: Path, tones: Path, tmp_path: Path) -> None:
    for name, data in malformed_safetensors().items():
        file = tmp_path / "x.safetensors"
        file.write_bytes(data)
        assert "cannot be read as a checkpoint" in one_sentence(cli("import", file, "--out", tmp_path / "out")), name
        # The same in a checkpoint of our own whose manifest agrees with it.
        run = tmp_path / name
        shutil.copytree(ckpt.resolve(pretrained).path, run)
        forge(run, "weights.safetensors", data)
        message = one_sentence(cli("embed", run, tones / "audio/hiss6.wav", "--out", tmp_path / "x.npz"))
        assert "weights.safetensors cannot be read" in message, name


def forge(checkpoint: Path, name: str, data: bytes) -> None:
    """Replace a file of a checkpoint, and the manifest with it."""
    (checkpoint / name).write_bytes(data)
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"method": "os"}, "no method 'os'"),
        ({"method": "../../evil"}, "no method '../../evil'"),
        ({"method": 5}, "config.json lacks method"),
        ({"method": None}, "config.json lacks method"),
        ({"kind": "hook"}, "unknown kind 'hook'"),
        ({"kind": ["classifier"]}, "config.json lacks kind"),
        ({"model": {"class_path": "os.system", "init_args": {"command": "touch x"}}}, "unknown key 'class_path'"),
        ({"model": {"width": "os.system('x')"}}, "width"),
        ({"model": {"heads": 0}}, "heads must be above 0"),
        ({"model": [1]}, "config.json lacks model"),
        ({"classes": None}, "list of class names"),
        ({"classes": "abc"}, "list of class names"),
        ({"classes": [1, 2, 3]}, "list of class names"),
        ({"classes": []}, "list of class names"),
        (
            {"classes": ["a", "b"]},
            "does not fit the network: 2 tensors of another shape (head.linear.bias: [3], expected [2]; head",
        ),
        ({"model": {}}, "does not fit the network: "),
    ],
)
def test_a_config_can_only_name_what_is_registered(
    cli: Cli, finetuned: Path, tones: Path, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(ckpt.resolve(finetuned).path, run)
    config = json.loads((run / "config.json").read_text())
    forge(run, "config.json", json.dumps({**config, **change}).encode())
    assert expected in one_sentence(cli("predict", run, tones / "audio/hiss6.wav"))


@pytest.mark.parametrize("text", ["[]", "5", "null", "{", "\udcff"])
def test_a_config_that_is_no_object_is_refused(
    cli: Cli, finetuned: Path, tones: Path, tmp_path: Path, text: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(ckpt.resolve(finetuned).path, run)
    forge(run, "config.json", text.encode("utf-8", "surrogateescape"))
    assert "config.json" in one_sentence(cli("predict", run, tones / "audio/hiss6.wav"))


def test_files_that_are_no_checkpoints_are_refused_by_import(cli: Cli, tones: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(300)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("x/data.pkl", "x")
    for name, data in (
        ("empty.pth", b""),
        ("zeros.pth", bytes(5000)),
        ("text.pth", b"path,label\n"),
        ("cut.pth", whole[:-99]),
    ):
        (tmp_path / name).write_bytes(data)
    for file in (
        *(tmp_path / n for n in ("empty.pth", "zeros.pth", "text.pth", "cut.pth", "archive.pth")),
        tones / "audio/hiss6.wav",
    ):
        assert str(file) in one_sentence(cli("import", file, "--out", tmp_path / "out"))
    assert "is no checkpoint of ssast" in one_sentence(cli("import", tmp_path / "whole.pth", "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_damaged_official_file_never_escapes_as_a_traceback(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for legacy in (False, True):
        torch.save({"a": torch.zeros(9), "b": [1, "x"]}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
        whole = (tmp_path / "w.pth").read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            for offset in rng.integers(0, len(data), 3):
                data[offset] ^= 1 << int(rng.integers(8))
            (tmp_path / "w.pth").write_bytes(data)
            one_sentence(cli("import", tmp_path / "w.pth", "--out", tmp_path / "out"))


def test_weights_that_are_not_finite_are_not_imported(cli: Any, official: Path, tmp_path: Path) -> None:
    state = torch.load(official, weights_only=True)
    next(value for name, value in state.items() if name.endswith("v.norm.bias"))[3] = float("nan")
    torch.save(state, tmp_path / "broken.pth")
    outcome = cli("import", tmp_path / "broken.pth", "--out", tmp_path / "out", "--set", "heads=3")
    assert outcome.code == 2
    assert "in 1 tensor (v.norm.bias)." in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_file_of_a_run_is_named(cli: Any, pretrained: Path, tones: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(pretrained, copy)
    (copy / "data.json").write_text(text)
    outcome = cli("pretrain", "ssast", tones, "--preset", "test", "--steps", 12, "--out", copy)
    assert outcome.code == 2
    assert "data.json" in outcome.err
