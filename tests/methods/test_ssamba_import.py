"""Official SSAMBA checkpoints: every tensor finds its place, and what no file holds is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens import GOLDEN
from networks import RATE, batch, descend, outputs, sounds
from torch import Tensor

import auricle
from auricle.errors import CheckpointError
from auricle.interop.official import build, import_checkpoint, recognise
from auricle.methods.base import Imported
from auricle.methods.spectrogram.masked import MaskedPatchObjective
from auricle.methods.ssamba import SSAMBAEncoder, recognises
from auricle.methods.ssamba.official import layout, mixer_to_official, mixer_to_ours
from auricle.nn.mamba import Kind, Mamba
from auricle.tasks.classification import Classifier

KEYS = GOLDEN / "ssamba" / "checkpoint_keys.json"
RELEASED: dict[str, Any] = json.loads(KEYS.read_text())["layouts"] if KEYS.is_file() else {}
needs_keys = pytest.mark.skipif(not RELEASED, reason="no golden cases found; set AURICLE_GOLDEN to their folder")
ABSENT = [pytest.param("absent", marks=needs_keys)]
# What a fine-tuned file does not hold.
INPUT = {"stride_freq": 10, "stride_time": 10, "window_frames": 64, "norm_mean": -6.6, "norm_std": 5.4}
INPUT |= {"pooling": "mean"}
WIDTH, DEPTH, STATES = 24, 4, 5


def official_state(kind: Kind = "v2", classes: int = 0, tokens: int = 32, rms_norm: bool = False) -> dict[str, Tensor]:
    """A file as the official code writes it, its values random: 128 x 64 in patches of 16 x 16, or fine-tuned."""
    mixer = Mamba(WIDTH, states=STATES, kind=kind).state_dict()
    shapes: dict[str, tuple[int, ...]] = {
        "v.cls_token": (1, 1, WIDTH),
        "v.pos_embed": (1, 1 + tokens, WIDTH),
        "v.patch_embed.proj.weight": (WIDTH, 1, 16, 16),
        "v.patch_embed.proj.bias": (WIDTH,),
        "v.head.weight": (10, WIDTH),
        "v.head.bias": (10,),
    }
    for number in range(DEPTH):
        shapes |= {f"v.layers.{number}.mixer.{mixer_to_official(n)}": tuple(x.shape) for n, x in mixer.items()}
    norms = [*(f"v.layers.{number}.norm" for number in range(DEPTH)), "v.norm_f"]
    shapes |= {f"{norm}.{part}": (WIDTH,) for norm in norms for part in ("weight", "bias")[: 2 - rms_norm]}
    if classes:
        shapes |= {"mlp_head.0.weight": (WIDTH,), "mlp_head.0.bias": (WIDTH,)}
        shapes |= {"mlp_head.1.weight": (classes, WIDTH), "mlp_head.1.bias": (classes,)}
    else:
        shapes["mask_embed"] = (1, 1, WIDTH)
        for head in ("cpredlayer", "gpredlayer"):
            shapes |= {f"{head}.0.weight": (WIDTH, WIDTH), f"{head}.0.bias": (WIDTH,)}
            shapes |= {f"{head}.2.weight": (256, WIDTH), f"{head}.2.bias": (256,)}
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if not classes:
        state |= {"p_input_fdim": torch.tensor(128), "p_input_tdim": torch.tensor(64)}
    return {f"module.{name}": value for name, value in state.items()}


def imported(state: dict[str, Tensor], **options: Any) -> tuple[Imported, Any]:
    result = recognise(state, options, "the file")
    assert result.method == "ssamba"
    return result, build(result).eval()


# The released layouts ---------------------------------------------------------------------------------------------


def released_state(size: str, device: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, shape, dtype in RELEASED[size]:
        state[name] = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
    return state | {"module.p_input_fdim": torch.tensor(128), "module.p_input_tdim": torch.tensor(1024)}


@pytest.mark.parametrize("size", sorted(RELEASED) or ABSENT)
def test_every_released_layout_fits_without_options(size: str) -> None:
    state = released_state(size, "meta")
    assert len(state) == 451
    with torch.device("meta"):
        result = recognise(state, None, size)
        module = build(result)
    assert isinstance(module, MaskedPatchObjective)
    assert isinstance(module.encoder, SSAMBAEncoder)
    c = module.encoder.config
    assert (c.depth, c.states, c.taps, c.expand, c.mixer, c.rms_norm) == (24, 16, 4, 2, "v2", False)
    assert (c.pairs, c.divide, c.final_norms, c.grid) == (True, True, 2, (8, 64))
    assert (result.preset, result.kind, c.width) == (
        size,
        "pretraining",
        {"tiny": 192, "small": 384, "base": 768}[size],
    )
    uses = [t.use for t in result.tensors]
    assert {use: uses.count(use) for use in uses} == {"weight": 447, "structure": 2, "unused": 2}
    assert sorted(t.source for t in result.tensors) == sorted(name.removeprefix("module.") for name in state)
    assert sorted(t.target for t in result.tensors if t.use == "weight") == sorted(module.state_dict())


@needs_keys
def test_a_released_base_file_trains_on_after_import() -> None:
    # A hundred million weights: some ten seconds.
    state = released_state("base", "cpu")
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if name.endswith("A_log"):
            value.uniform_(0.0, 2.7, generator=generator)
        elif value.is_floating_point():
            value.fill_(0.01) if value.ndim == 1 else value.normal_(std=0.02, generator=generator)
    quick = {"attend_padding": False, "passes": 1, "mask_count": 0, "drop_path": 0.0}
    module: Any = build(recognise(state, quick, "base"))
    assert torch.equal(module.encoder.positions, state["module.v.pos_embed"])
    given = batch(*sounds([RATE // 5]))
    first, second = descend(module, given)
    assert second < first


# Every tensor counts ----------------------------------------------------------------------------------------------


CONTRADICTED: dict[str, dict[str, Any]] = {
    "as it is": {},
    "RMSNorm": {"rms_norm": True},
    "v1": {"mixer": "v1"},
    "forward only": {"mixer": "none"},
    "in sequence": {"pairs": False},
    "cls in the middle": {"cls_position": "middle"},
}


@pytest.mark.parametrize("options", CONTRADICTED.values(), ids=CONTRADICTED)
def test_changing_any_tensor_changes_an_output_or_the_report_calls_it_unused(options: dict[str, Any]) -> None:
    state = official_state()
    report, module = imported(state, **options)
    before = outputs(module)
    fate = {"module." + t.source: t.use for t in report.tensors}
    assert fate.keys() == state.keys()
    for name, value in state.items():
        # Of the four layers, one stands for all.
        if fate[name] == "structure" or any(f".layers.{number}." in name for number in (0, 1, 3)):
            continue
        noise = 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
        after = outputs(imported(state | {name: value + noise}, **options)[1])
        changed = any((a - b).abs().max() > 1e-5 for a, b in zip(after, before, strict=True))
        assert changed == (fate[name] == "weight"), name


def test_weights_without_use_are_reported_with_the_reason() -> None:
    report, _ = imported(official_state(), rms_norm=True, mixer="v1")
    why = {t.source: t.note for t in report.tensors if t.use == "unused"}
    assert why["v.layers.2.norm.bias"] == why["v.norm_f.bias"] == "RMSNorm has no bias"
    assert why["v.layers.0.mixer.conv1d_b.weight"] == "a mixer of kind 'v1' has no second direction of its own"
    assert "v.layers.0.mixer.A_b_log" not in why
    assert len(why) == 2 + (DEPTH + 1) + 6 * DEPTH


@pytest.mark.parametrize("kind", ["v2", "v1", "none"])
@pytest.mark.parametrize("rms_norm", [False, True])
def test_the_kinds_of_mixers_and_norms_are_read_from_the_file(kind: Kind, rms_norm: bool) -> None:
    config = imported(official_state(kind, rms_norm=rms_norm))[0].config
    assert (config.mixer, config.rms_norm) == (kind, rms_norm)  # type: ignore[attr-defined]
    assert (config.depth, config.states, config.taps, config.expand) == (4, 5, 4, 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "name", "ours"),
    [
        ("v2", "v.layers.0.mixer.D_b", "layers.0.mixer.backward_direction.D"),
        ("v2", "v.layers.3.mixer.D_b", "layers.3.mixer.backward_direction.D"),
        ("v2", "v.layers.0.mixer.A_b_log", "layers.0.mixer.backward_direction.A_log"),
        ("v1", "v.layers.0.mixer.A_b_log", "layers.0.mixer.backward_A_log"),
        ("v2", "v.norm_f.bias", "norm.bias"),
        ("v2", "v.layers.0.norm.bias", "layers.0.norm.bias"),
    ],
)
def test_one_missing_tensor_makes_no_other_network_of_a_file(kind: Kind, name: str, ours: str) -> None:
    state = official_state(kind)
    del state[f"module.{name}"]
    with pytest.raises(CheckpointError, match=rf"1 missing tensor \(encoder\.{re.escape(ours)}\)"):
        imported(state)


def test_a_file_that_is_a_mixture_of_kinds_is_refused() -> None:
    # Two layers without a second direction, two with.
    state = {n: x for n, x in official_state().items() if not re.search(r"layers\.[01]\.mixer\..*(_b\.|_b_|_b$)", n)}
    with pytest.raises(CheckpointError, match=r"14 missing tensors \(encoder\.layers\.0\.mixer\.backward_direction"):
        imported(state)
    # What is asked for is taken.
    config: Any = imported(state, mixer="none")[0].config
    assert config.mixer == "none"


@pytest.mark.parametrize("kind", ["v2", "v1", "none"])
def test_names_of_a_mixer_go_there_and_back(kind: Kind) -> None:
    for name in Mamba(WIDTH, kind=kind).state_dict():
        assert mixer_to_ours(mixer_to_official(name), kind) == name
    names = layout(kind)
    assert names.to_official("encoder.layers.3.mixer.out_proj.weight") == "v.layers.3.mixer.out_proj.weight"
    assert names.to_ours("v.norm_f.weight") == "encoder.norm.weight"
    assert names.to_ours("v.layers.0.gate.weight") is None


# What the file does not hold ----------------------------------------------------------------------------------------


def test_the_structure_that_no_file_holds_is_said_to_be_assumed(tmp_path: Path) -> None:
    torch.save(official_state(), tmp_path / "official.pth")
    report = import_checkpoint(tmp_path / "official.pth", tmp_path / "out")
    (line,) = [line for line in report.lines() if "assumed" in line]
    assert "norm_mean=-4.2677393, norm_std=4.5689974 (AudioSet and LibriSpeech" in line
    assert "pairs=True, divide=True, final_norms=2, cls_position=first (the official scripts)" in line
    given = {"pairs": True, "divide": False, "final_norms": 1, "cls_position": "first"}
    result = imported(official_state(), **given, norm_mean=-5.0, norm_std=4.0)[0]
    assert result.assumed == ""
    assert result.config.divide is False  # type: ignore[attr-defined]
    embedding = auricle.load(report.path).embed(torch.randn(RATE), RATE)
    assert embedding.clip.shape == (WIDTH,)


def test_a_fine_tuned_file_asks_for_its_input_and_becomes_a_classifier() -> None:
    state = official_state(classes=5, tokens=12 * 5)
    with pytest.raises(CheckpointError) as raised:
        imported(state)
    message = str(raised.value)
    assert "does not record stride_freq, stride_time, window_frames, norm_mean, norm_std, pooling;" in message
    assert "UrbanSound: stride_freq=16 stride_time=16 window_frames=6144 norm_mean=-5.138" in message
    result, module = imported(state, **INPUT)
    assert isinstance(module, Classifier)
    assert (result.kind, result.classes, module.encoder.config.grid) == ("classifier", 5, (12, 5))


def test_the_official_quirks_are_on_after_an_import() -> None:
    config: Any = imported(official_state())[0].config
    assert (config.attend_padding, config.mask_sampler, config.passes, config.channel) == (True, "official", 2, 0)
    assert config.seconds == "official"


# Files that do not fit ---------------------------------------------------------------------------------------------


def test_other_methods_files_are_not_taken_for_ssambas() -> None:
    names = set(official_state())
    assert recognises(dict.fromkeys(names))
    assert not recognises(dict.fromkeys(name for name in names if ".mixer." not in name))
    assert not recognises({"v.layers.0.mixer.A_log": None})


@pytest.mark.parametrize("name", ["v.pos_embed", "v.norm_f.weight", "v.layers.0.mixer.A_log"])
def test_a_file_without_the_tensors_that_give_the_structure_is_named_incomplete(name: str) -> None:
    state = official_state()
    del state[f"module.{name}"]
    with pytest.raises(CheckpointError, match=f"lacks '{name}'|is no checkpoint of"):
        imported(state)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "v.layers.1.mixer.conv1d.bias",
            None,
            r"1 missing tensor \(encoder\.layers\.1\.mixer\.forward_direction\.conv\.bias\)",
        ),
        (
            "v.layers.1.mixer.gate",
            torch.zeros(3),
            r"1 unknown tensor \(v\.layers\.1\.mixer\.gate as encoder\.layers\.1\.mixer\.forward_",
        ),
        ("v.layers.1.gate.weight", torch.zeros(3), r"1 unknown tensor: v\.layers\.1\.gate\.weight"),
        ("v.layers.0.mixer.A_log", torch.zeros(3), r"A_log and conv1d\.weight must be \[E, S\]"),
        ("v.layers.0.mixer.conv1d.weight", None, r"A_log and conv1d\.weight must be \[E, S\]"),
        (
            "v.pos_embed",
            torch.zeros(1, 31, WIDTH),
            r"positions for 30 tokens, but 128 mel bins x 64 frames .* = 32; is the file whole\? If so, give",
        ),
    ],
)
def test_a_file_that_does_not_fit_says_why(name: str, value: Tensor | None, message: str) -> None:
    state = official_state()
    state.pop(f"module.{name}", None)
    if value is not None:
        state[f"module.{name}"] = value
    with pytest.raises(CheckpointError, match=message):
        imported(state)
