"""SSAST's parity cases, computed by the classes that train and serve."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auricle.audio.augment import draw_mask, mix_waveforms, noise_and_roll
from auricle.audio.read import one_channel
from auricle.config import TrainConfig, override
from auricle.data.targets import mix_targets, multi_hot
from auricle.errors import DataError
from auricle.interop import parity_patches as patches
from auricle.interop.parity_patches import Outputs
from auricle.methods.base import Imported
from auricle.methods.spectrogram.superb import superb_features
from auricle.methods.ssast import (
    PRESETS,
    SSASTConfig,
    SSASTEncoder,
    official,
)
from auricle.methods.ssast.superb import SuperbUpstream
from auricle.nn import masking
from auricle.training.optim import Clock, learning_rate_factor


def finetune_forward(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """A pretraining checkpoint adapted to other strides and another length, with a head, in evaluation mode."""
    pretrained = patches.pretraining(import_case(case, meta)).encoder
    with torch.no_grad():
        head = patches.load(case / "head.safetensors")
        tuned = patches.Finetuned(pretrained, meta["finetune_args"], head, official.LAYOUT, inputs["x"])
        *blocks, normed = tuned.encoder.transform(tuned.tokens)
    return {**tuned.outputs, **{f"block_{i}_out": x for i, x in enumerate(blocks)}, "norm_out": normed}, None


def pretrain_losses(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Both losses on given masks, and the gradient of every parameter under its official name."""
    objective = patches.pretraining(import_case(case, meta)).train()
    return patches.pretrain_losses(objective, inputs, official.to_official)


def frontend(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The loader's features: statistics, padding, cutting, mixup, SpecAugment, noise, and the SUPERB variant."""
    conf, long, short = meta["conf"], meta["T_long"], meta["T_short"]
    rates = sample_rates(meta)
    targets = item_targets(meta)
    (config,) = override(
        (SSASTConfig(width=48, depth=1, heads=3),),
        {"compat": "official", "mel_bins": conf["num_mel_bins"], "norm_mean": conf["mean"], "norm_std": conf["std"]},
    )

    def encoder(name: str = "") -> SSASTEncoder:
        return SSASTEncoder(dataclasses.replace(config, sample_rate=rates.get(name, config.sample_rate)))

    def wave(name: str) -> NDArray[np.float32]:
        return one_channel(inputs[name].numpy().T, config.channel)

    def item(samples: NDArray[np.float32], frames: int = long, name: str = "") -> Tensor:
        model = encoder(name)
        features = model.features(torch.from_numpy(samples)[None])[0][0, :frames]
        return torch.nn.functional.pad(features, (0, 0, 0, frames - len(features)), value=model.pad_value)

    a = wave("wave_a")
    outputs = {
        "fbank_a_raw": encoder().frontend(torch.from_numpy(a - a.mean())[None])[0],
        "feat_a": item(a),
        "feat_a_cut": item(a, short),
        "feat_stereo": item(wave("wave_stereo")),
        "feat_22k": item(wave("wave_22k"), name="wave_22k"),
        "label_a": torch.from_numpy(targets["a"]),
    }
    for first, second in ("ab", "ba"):
        weight = inputs[f"mix_lambda_{first}{second}"].item()
        mixed = mix_waveforms(wave(f"wave_{first}"), wave(f"wave_{second}"), weight)
        outputs[f"feat_mix_{first}{second}"] = item(mixed)
        soft = mix_targets(targets[first], targets[second], weight)
        outputs[f"label_mix_{first}{second}"] = torch.from_numpy(soft)
    draws = inputs["specaug_draws"].tolist()
    masked, pad = item(a).clone(), encoder().pad_value
    freq, time = draw_mask(masked.shape[1], meta["freqm"], *draws[:2]), draw_mask(long, meta["timem"], *draws[2:])
    masked[:, slice(*freq)] = pad
    masked[slice(*time)] = pad
    outputs["feat_specaug"] = masked
    outputs["feat_noise"] = noise_and_roll(
        item(a), inputs["noise_field"], inputs["noise_scale"].item(), int(inputs["noise_roll"])
    )
    outputs["superb_feat_a_pad"] = superb_features(encoder(), torch.from_numpy(a), long)
    outputs["superb_feat_a_cut"] = superb_features(encoder(), torch.from_numpy(a), short)
    return outputs, None


def sample_rates(meta: dict[str, Any]) -> dict[str, int]:
    """Rates in Hz of the waveforms that the case says have another than the rest."""
    found = re.findall(r"(wave_\w+) \((\d+) Hz\)", meta["tensors"]["wave_*"])
    return {name: int(rate) for name, rate in found}


def item_targets(meta: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Targets of the items by name, which the case states as "[class,class]; items: a=class,class  b=class"."""
    stated = meta["tensors"]["label_mix_*"]
    classes = re.search(r"\[(.*?)\]", stated)
    items = dict(re.findall(r"(\w+)=(\S+)", stated))
    if classes is None or not items:
        raise DataError(f"the labels of the items cannot be read from '{stated}'.")
    names = [name.strip() for name in classes[1].split(",")]
    targets = multi_hot([labels.split(",") for labels in items.values()], names)
    return dict(zip(items, targets, strict=True))


def superb_upstream(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The upstream that SUPERB's downstream tasks see."""
    upstream = SuperbUpstream(
        patches.pretraining(import_case(case, meta)).encoder, meta["args"]["target_length"]
    ).eval()
    waves = [inputs[name] for name in sorted(inputs, key=lambda name: int(name.removeprefix("wav_")))]
    with torch.no_grad():
        blocks, normed = upstream(waves)
    hidden = {f"hidden_{i}": x for i, x in enumerate(blocks)}
    return {"features": upstream.features(waves), **hidden, "last_hidden_state": normed}, None


def lr_traces(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The learning rate at every step of the official loops, from the schedules that train."""
    outputs: dict[str, Tensor] = {}
    for name, spec in meta["cases"].items():
        if "eval_accs" in spec:
            # A case that states no learning rate ran the authors' recipe of the base model.
            recipe = PRESETS["base-patch"].pretrain
            config = dataclasses.replace(recipe, lr=spec.get("lr", recipe.lr))
            scores = [((i + 1) * spec["epoch_iter"], score) for i, score in enumerate(spec["eval_accs"])]
            steps, groups = range(spec["total_steps"]), None
            clocks = [Clock(i, len(steps), scores=[s for s in scores if s[0] <= i]) for i in steps]
        else:
            config = TrainConfig(
                schedule="multistep",
                lr=spec["lr"],
                warmup_steps=1000 if spec.get("warmup") else 0,
                decay_start=spec["lrscheduler_start"],
                decay_every=spec["lrscheduler_step"],
                decay_factor=spec["lrscheduler_decay"],
            )
            steps = range(spec["steps_per_epoch"] * spec["n_epochs"])
            groups = torch.tensor([1.0, spec.get("head_lr", 1)], dtype=torch.float64)
            clocks = [Clock(i, len(steps), spec["steps_per_epoch"]) for i in steps]
        rates = [config.lr * learning_rate_factor(clock, config) for clock in clocks]
        trace = torch.tensor(rates, dtype=torch.float64)
        outputs[name] = trace if groups is None else trace[:, None] * groups
    return outputs, None


def mask_sampler(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The official samplers, from recorded starts and from Python's own generator."""
    outputs: dict[str, Tensor] = {}
    for index, spec in enumerate(meta["cases"]):
        grid, count = (spec["f_dim"], spec["t_dim"]), spec["mask_size"]
        starts = iter(inputs[f"case{index}.start_ids"].tolist())
        ids = masking.official_cluster_mask(grid, count, spec["cluster_side"], starts)
        frame = masking.official_frame_mask(grid[0] * grid[1], count, random.Random(spec["python_random_seed"]))
        outputs[f"case{index}.mask_ids"] = torch.from_numpy(ids)
        outputs[f"case{index}.frame_mask_ids"] = torch.from_numpy(frame)
    return outputs, None


def import_case(case: Path, meta: dict[str, Any]) -> Imported:
    """The case's official state dict through the importer that users call."""
    heads = re.search(r"num_heads\s*=\s*(\d+)", meta.get("monkeypatch", ""))
    return official.import_state(patches.load(case / "weights.safetensors"), {"heads": int(heads[1])} if heads else {})


FAMILIES = {
    "ssast/finetune_forward": finetune_forward,
    "ssast/pretrain_losses": pretrain_losses,
    "ssast/frontend": frontend,
    "ssast/mask_sampler": mask_sampler,
    "ssast/superb_upstream": superb_upstream,
    "ssast/lr_traces": lr_traces,
}

__all__ = [
    "FAMILIES",
    "finetune_forward",
    "frontend",
    "import_case",
    "lr_traces",
    "mask_sampler",
    "pretrain_losses",
    "superb_upstream",
]
