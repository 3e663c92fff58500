"""What a mistake is answered with: one sentence each, read as a newcomer reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from auricle.config import parse_assignments
from auricle.errors import in_words, plural, with_article
from auricle.methods import get_preset, method_names

Cli = Callable[..., Any]
SOUNDS = "files that end in .wav, .flac, .ogg, .opus, .mp3, .aiff, .aif, .au, .caf, .w64, .rf64 at any depth."
PRETRAIN = ("pretrain", "ssast", "{tones}", "--preset", "test", "--out", "x")


@pytest.fixture
def place(tones: Path, pretrained: Path, finetuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with things to get wrong."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "nan").mkdir()
    wave = np.zeros(16000, np.float32)
    wave[5] = np.nan
    soundfile.write("nan/x.wav", wave, 16000, subtype="FLOAT")
    Path("text.wav").write_text("hello")
    sounds = sorted((tones / "audio").iterdir())
    Path("one.csv").write_text("path,label\n" + "".join(f"{path},a\n" for path in sounds[:6]))
    Path("wide.csv").write_text(f"path,label\n{sounds[0]},a,b\n")
    Path("texts").mkdir()
    Path("texts/readme.md").write_text("hello")
    Path("nothing").mkdir()
    Path("nothing/x.wav").touch()
    Path("gone.csv").write_text(f"path,label\n{sounds[0]},a\nnot-there.wav,b\n")
    Path("untitled.csv").write_text(f"{sounds[0]},a\n")
    rows = [f"{path},{path.stem[0]}" for path in sounds]
    Path("test.csv").write_text("path,label,split\n" + "".join(f"{row},test\n" for row in rows[:6]))
    Path("labelled.csv").write_text("path,label\n" + "\n".join(rows))
    shutil.copytree(pretrained, "broken")
    Path("broken/config.yaml").write_text("a: [\n")
    shutil.copytree(pretrained, "cut")
    for config in Path("cut").glob("step-*/config.json"):
        config.write_text("{")
    shutil.copytree(pretrained, "damaged")
    for weights in Path("damaged").glob("step-*/weights.safetensors"):
        content = bytearray(weights.read_bytes())
        content[-9] ^= 1
        weights.write_bytes(content)
    return tmp_path


MISTAKES: dict[tuple[str, ...], str] = {
    # Data
    ("pretrain", "ssast", "nowhere", "--out", "x"): "{here}/nowhere: no such file or folder.",
    ("pretrain", "ssast", "nan", "--preset", "test", "--out", "x"): (
        "of 1 clip none can be read, such as {here}/nan/x.wav (non-finite); repair or replace them."
    ),
    ("pretrain", "ssast", "text.wav", "--out", "x"): (
        "{here}/text.wav: a sound file is not a data set; give its folder, or a CSV file that lists it."
    ),
    ("finetune", "{pretrained}", "wide.csv", "--out", "x"): (
        "{here}/wide.csv: line 2 has 3 cells, but the header names 2 columns; put double quotes around cells that hold "
        "the delimiter."
    ),
    ("finetune", "{pretrained}", "one.csv", "--out", "x"): (
        "column 'label' has 1 class in the training part (a); a classifier needs at least two: choose another --label."
    ),
    ("finetune", "{pretrained}", "{tones}", "--label", "color", "--out", "x"): (
        "{tones}/manifest.csv: no column 'color'; the columns are label, split, group."
    ),
    ("pretrain", "ssast", "empty", "--out", "x"): f"{{here}}/empty: no audio: the folder is empty; expected {SOUNDS}",
    ("pretrain", "ssast", "texts", "--out", "x"): (
        f"{{here}}/texts: no audio: of 1 file none is a sound file; expected {SOUNDS}"
    ),
    ("pretrain", "ssast", "nothing", "--out", "x"): (
        "{here}/nothing: of 1 sound file none can be read, such as {here}/nothing/x.wav (not audio: the file is empty)."
    ),
    ("check", "nothing"): "{here}/nothing/x.wav: not audio: the file is empty",
    ("check", "nothing", "--format", "nemo"): (
        "{here}/nothing: it cannot be read as nemo, which looks for a JSON Lines file whose lines have audio_filepath; "
        "leave out --format to detect what it is."
    ),
    ("check", "nan", "--stats", "ssast", "--processes", "1"): (
        "--stats ssast: no file is usable, so there is nothing to measure."
    ),
    ("pretrain", "ssast", "gone.csv", "--out", "x"): (
        "{here}/gone.csv: 1 of the 2 listed files are missing: not-there.wav; relative paths start at {here}."
    ),
    ("pretrain", "ssast", "untitled.csv", "--out", "x"): (
        "{here}/untitled.csv: not a manifest: no column names the sound files: expected one of path, file, filename, "
        "file_name, audio, wav, relpath in the first line, got {first}, a."
    ),
    ("finetune", "{pretrained}", "{tones}", "--label", "lable", "--out", "x"): (
        "{tones}/manifest.csv: no column 'lable' (did you mean 'label'?); the columns are label, split, group."
    ),
    ("finetune", "{pretrained}", "{tones}/audio", "--out", "x"): (
        "{tones}/audio: no column 'label'; this data has no label columns: put a manifest.csv (path,label) "
        "there, or a folder per class."
    ),
    ("finetune", "{pretrained}", "test.csv", "--out", "x"): (
        "{here}/test.csv: column 'split' names no train items: it holds test (6); mark some as train, name another "
        "column, or remove this one to cross-validate."
    ),
    ("finetune", "{pretrained}", "{tones}", "--group-column", "group", "--held-out", "g9", "--out", "x"): (
        "no fold 'g9' (did you mean 'g3' or 'g2' or 'g1'?); the data has g0, g1, g2, g3."
    ),
    ("evaluate", "{finetuned}", "{tones}", "--split", "dev"): (
        "--split must be one of train, val, test, all, got 'dev'."
    ),
    ("evaluate", "{finetuned}", "labelled.csv", "--split", "all"): (
        "none of the labels (b, c, h) is known to the model, which tells apart buzz, chirp, hiss ...; is this the "
        "right --label?"
    ),
    ("pretrain", "ssast", "{tones}", "--format", "esc51", "--out", "x"): (
        "no format 'esc51' (did you mean 'esc50'?); the formats are esc50, speech-commands, fsd50k, audioset, hear, "
        "desed, iemocap, voxceleb, manifest, csv, ssast, kaldi, nemo, fairseq, audiofolder, folder."
    ),
    # Names
    ("pretrain", "ssast", "{tones}", "--preset", "tiny-pach", "--out", "x"): (
        "ssast has no preset 'tiny-pach' (did you mean 'tiny-patch' or 'tiny-frame' or 'base-patch'?); its presets are "
        "tiny-patch, tiny-frame, small-patch, small-frame, base-patch, base-frame, demo, test, base-latent, "
        "demo-latent."
    ),
    ("finetune", "{pretrained}", "{tones}", "--recipe", "esc", "--out", "x"): (
        "ssast has no recipe 'esc' (did you mean 'esc50'?); its recipes are audioset-20k, audioset, esc50, "
        "speech-commands-v2, speech-commands-v1, iemocap, voxceleb1."
    ),
    ("finetune", "ssast-test", "{tones}", "--out", "x"): (
        "'ssast-test' names a configuration, not weights: give a checkpoint or run directory (auricle "
        "import FILE --out DIR makes one of a published file), or ask for random weights (--random-weights SEED, from "
        "Python random_weights=SEED)."
    ),
    ("pretrain", "ssast", "{tones}", "--init", "{finetuned}", "--out", "x"): (
        "--init {finetuned} is a classifier of ssast; it takes a pretraining checkpoint of ssast."
    ),
    ("pretrain", "atst-clip", "{tones}", "--init", "{pretrained}", "--out", "x"): (
        "--init {pretrained} is a pretraining of ssast; it takes a pretraining checkpoint of atst-clip."
    ),
    ("evaluate", "{pretrained}", "{tones}"): (
        "{pretrained} has no classifier; fine-tune it first: auricle finetune {pretrained} DATA --out RUN"
    ),
    ("finetune", "{pretrained}", "{tones}", "--set", "sample_rate=8000", "--out", "x"): (
        "{pretrained} was trained at 16000 Hz, not 8000; leave out --set sample_rate: sounds of any rate are resampled."
    ),
    ("probe", "{pretrained}", "{tones}", "--layers", "7"): (
        "--layers 7: the network has 2 blocks; give 1 to 2, -2 to -1, last, all or mix."
    ),
    ("pretrain", "ssats", "{tones}", "--out", "x"): (
        "no method 'ssats' (did you mean 'ssast' or 'ssamba'?); the methods are {methods}."
    ),
    ("predict", "{pretrained}", "{tones}"): (
        "{pretrained} is a pretraining checkpoint without classes; train a classifier first: "
        "auricle finetune {pretrained} DATA --out RUN"
    ),
    ("embed", "nowhere", "{tones}", "--out", "x.npz"): "nowhere: no such checkpoint or run directory.",
    ("finetune", "text.wav", "{tones}", "--out", "x"): (
        "text.wav is a file; convert a published checkpoint with: auricle import text.wav --out DIR"
    ),
    # Settings
    (*PRETRAIN, "--set", "lr=fast"): "--set: lr must be a number, got 'fast'; write for example lr=0.001.",
    (*PRETRAIN, "--set", "steps=1.5"): "--set: steps must be a whole number, got 1.5; write for example steps=0.",
    (*PRETRAIN, "--set", "betas=[0.9]"): (
        "--set: betas must be a list of 2, each a number, got [0.9]; write for example betas=[0.9,0.98]."
    ),
    (*PRETRAIN, "--set", "balanced=maybe"): (
        "--set: balanced must be true or false, got 'maybe'; write for example balanced=false."
    ),
    (*PRETRAIN, "--set", "optimizer=lion"): (
        "--set: optimizer must be adamw or adamw-hf or adam or sgd, got 'lion'; write for example optimizer=adamw."
    ),
    (*PRETRAIN, "--set", "channel=left"): (
        "--set: channel must be mean or a whole number, got 'left'; write for example channel=mean."
    ),
    (*PRETRAIN, "--set", "wieght_decay=0"): (
        "--set: unknown key 'wieght_decay' (did you mean 'weight_decay' or 'final_weight_decay' or 'layer_decay'?); "
        "auricle info PRESET shows all keys."
    ),
    (*PRETRAIN, "--set", "lr=["): (
        "--set lr: '[' is neither a number, a word nor a list; write for example --set lr=0.0001, "
        "or --set 'betas=[0.9, 0.98]'."
    ),
    (*PRETRAIN, "--set", "mixup=0.5"): "pretraining does not use mixup; leave out --set mixup.",
    (*PRETRAIN, "--set", "warmup_steps=9"): (
        "warmup_steps has no effect under schedule=cosine; leave it out, or choose --set schedule=multistep or plateau."
    ),
    (*PRETRAIN, "--steps", "5", "--set", "epochs=2"): "epochs has no effect beside steps=5; give one of them.",
    # Options
    (*PRETRAIN, "--max-minuts", "5"): "unrecognized arguments: --max-minuts 5 (did you mean --max-minutes?)",
    (*PRETRAIN, "--workers", "two"): "argument --workers: expected a whole number, 0 or above, got 'two'",
    (*PRETRAIN, "--track", "wandb"): (
        "Weights & Biases cannot be imported (No module named 'wandb'); pip install wandb, or leave --track out."
    ),
    ("probe", "{pretrained}", "{tones}", "--json", "one.csv/result.json"): (
        "argument --json: 'one.csv/result.json' cannot be written: {here}/one.csv is a file"
    ),
    # Places
    ("pretrain", "ssast", "{tones}", "--preset", "test", "--out", "{finetuned}"): (
        "{finetuned} is a run of auricle finetune, not of auricle pretrain; give another --out."
    ),
    (*PRETRAIN[:-1], "/proc/nowhere/run"): "--out /proc/nowhere/run cannot be written: No such file or directory.",
    ("embed", "damaged", "{tones}", "--out", "x.npz"): (
        "damaged holds no usable checkpoint (damaged/step-000012/weights.safetensors is damaged: its SHA-256 differs "
        "from the manifest; use another checkpoint); give a run or checkpoint directory."
    ),
    (*PRETRAIN[:-1], "one.csv"): "--out one.csv is a file; give a directory.",
    (*PRETRAIN[:-1], "{tones}"): "--out {tones} exists and is not a run of auricle; give a new or empty directory.",
    (*PRETRAIN[:-1], "broken"): "broken/config.yaml is damaged: it is not YAML (line 2); restore it.",
    (*PRETRAIN[:-1], "{pretrained}", "--steps", "12", "--seed", "1"): (
        "{pretrained} was started with other settings (seed: was 0, now 1); repeat the settings it was started with to "
        "resume it, or give another --out."
    ),
    ("embed", "cut", "{tones}", "--out", "x.npz"): (
        "cut holds no usable checkpoint (cut/step-000012/config.json has 1 bytes, expected {size}; use another "
        "checkpoint); give a run or checkpoint directory."
    ),
    ("embed", "{pretrained}", "nan", "--out", "x.npz"): (
        "{here}/nan/x.wav: non-finite: sample 5 of channel 0 is nan; write the sound anew without it (in Python, "
        "auricle.audio.read with nonfinite='zero' reads silence there)"
    ),
    (
        "import",
        "text.wav",
        "--out",
        "x",
        "--classes",
        "nowhere",
    ): "--classes nowhere cannot be read: No such file or directory.",
}


@pytest.mark.parametrize("command", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_sentence(
    cli: Cli, place: Path, tones: Path, pretrained: Path, finetuned: Path, command: tuple[str, ...]
) -> None:
    size = (pretrained / "step-000012/config.json").stat().st_size
    first = min((tones / "audio").iterdir())
    names = {"here": place, "tones": tones, "pretrained": pretrained, "finetuned": finetuned}
    names |= {"size": size, "first": first, "methods": ", ".join(method_names())}
    outcome = cli(*(word.format(**names) for word in command))
    *before, message = outcome.err.splitlines()
    assert message == f"error: {MISTAKES[command].format(**names)}"
    # How the data was read comes first, where it could be; argparse shows the options.
    assert all(line.startswith(("data: ", "usage: ", "      ")) for line in before if command[0] != "check")
    assert outcome.code == 2
    # A tracker keeps its own notes in the run's folder, so that must be there before the tracker can be missed.
    assert not (place / "x").exists() or "--track" in command


def test_speakers_of_the_test_part_in_the_training_part_are_a_warning(cli: Cli, tones: Path, tmp_path: Path) -> None:
    rows = ["path,label,split,speaker"]
    for name, split, speaker in (
        ("buzz0.wav", "train", "ann"),
        ("hiss0.wav", "train", "bob"),
        ("buzz4.wav", "test", "ann"),
        ("hiss4.wav", "test", "eve"),
    ):
        rows.append(f"{tones}/audio/{name},{name[:4]},{split},{speaker}")
    (tmp_path / "leak.csv").write_text("\n".join(rows))
    outcome = cli("check", tmp_path / "leak.csv", "--processes", 1)
    assert outcome.code == 0
    assert outcome.err.splitlines()[-1] == (
        "warning: values of 'speaker' in more than one split: 1 (ann in test and train)"
    )


def test_all_keys_are_shown_for_a_preset(cli: Cli) -> None:
    outcome = cli("info", "ssast-demo")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    for line in ("network:", "  norm_mean=-4.2677393", "pretrain:", "  steps=750", "finetune:", "  betas=[0.9, 0.98]"):
        assert line in lines
    # As --set takes them.
    for line in lines[lines.index("finetune:") + 1 :]:
        ((key, value),) = parse_assignments([line.strip()]).items()
        assert getattr(get_preset("ssast", "demo").finetune, key) == (
            tuple(value) if isinstance(value, list) else value
        )


def test_counts_and_errors_inside_sentences() -> None:
    assert [plural(n, "clip") for n in (0, 1, 2, 1000)] == ["0 clips", "1 clip", "2 clips", "1,000 clips"]
    assert [plural(n, "class") for n in (1, 3)] == ["1 class", "3 classes"]
    assert [with_article(noun) for noun in ("encoder", "detector")] == ["an encoder", "a detector"]
    with pytest.raises(OSError) as missing:
        Path("/nowhere/at/all").read_text()
    with pytest.raises(ValueError) as broken:
        json.loads('{"a": 1,\n')
    with pytest.raises(ValueError) as binary:
        b"\xff".decode()
    assert in_words(missing.value) == "No such file or directory"
    assert in_words(broken.value) == "it is not JSON (line 2)"
    assert in_words(binary.value) == "it is not UTF-8 text (byte 0)"
    assert in_words(ValueError("one\n  two.")) == "one two"
