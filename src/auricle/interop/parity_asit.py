"""ASiT's parity cases, computed by the classes that train and serve.

Official spectrograms are [B, 1, T, F], and official tokens run along the mel axis first; ours run along time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from auricle.config import override
from auricle.interop import official as files
from auricle.interop.parity_patches import all_frames, load
from auricle.interop.parity_teachers import asked, cosine_schedule
from auricle.methods import asit
from auricle.methods.asit import ASiTConfig, ASiTEncoder, ASiTObjective, official
from auricle.methods.asit.corruption import Corrupted, Fill, filled, rectangles
from auricle.methods.asit.objective import View
from auricle.methods.asit.sequence import pooled_sequence
from auricle.methods.spectrogram.encoder import adapt_encoder
from auricle.nn.patches import Pair, time_major, unpatchify
from auricle.nn.transformer import Block
from auricle.tasks.classification import Classifier
from auricle.training.optim import (
    build_optimizer,
    clip_gradients,
    set_rates,
)

Outputs = tuple[dict[str, Tensor], dict[str, Any] | None]


def frontend(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Log-mel features as they are, cut or padded to the length of a table of positions, and normalised."""
    given = meta["arguments"]
    settings = {
        "compat": "official",
        "sample_rate": given["sample_rate"],
        "mel_bins": given["num_mel_bins"],
        "norm_mean": given["mean"],
        "norm_std": given["std"],
        "window_frames": given["num_frames"],
        # Nothing is pretrained here, and a view must fit into the window.
        "view_seconds": 0.025,
    }
    (config,) = override((ASiTConfig(width=24, depth=1),), settings)
    encoder, outputs = ASiTEncoder(config), {}
    for name, wave in inputs.items():
        kind = name.removeprefix("wave_")
        features, _ = encoder.features(wave[:1])
        missing = max(0, given["num_frames"] - features.shape[1])
        padded = nn.functional.pad(features, (0, 0, 0, missing), value=encoder.pad_value)[0, : given["num_frames"]]
        outputs[f"norm_{kind}"] = padded
        outputs[f"fbank_{kind}"] = padded * (2 * config.norm_std) + config.norm_mean
        if kind == "long":
            outputs["fbank_uncut"] = encoder.frontend(wave[:1] - wave[:1].mean())[0]
    return outputs, None


def gmml_corruption(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Rectangles of recorded draws, and what they leave of a spectrogram."""
    outputs = {}
    for name, given in meta["contract"]["parameters"].items():
        draws: Iterator[int] = iter(inputs[f"{name}.draws"].tolist())
        x, fill = inputs["x"][0], given["fill"]
        kind: Fill = fill
        hidden = torch.from_numpy(
            rectangles(
                (x.shape[0], x.shape[1]),
                inputs[f"{name}.fraction"].item(),
                lambda low, high, draws=draws: next(draws),  # type: ignore[misc]
                kind,
                given["align"],
                given["max_block"],
            )
        )
        outputs[f"{name}.out"] = filled(x, hidden, kind, inputs["x_replace"][0])[None]
        outputs[f"{name}.mask"] = hidden.to(x.dtype)[None]
    return outputs, None


def schedules(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Learning rate, weight decay and momentum at each step, and the teacher's temperature at each epoch."""
    given = meta["contract"]["parameters"]
    outputs = {
        name: torch.tensor(cosine_schedule(given[name]), dtype=torch.float64) for name in ("lr", "wd", "momentum")
    }
    temp = given["teacher_temp"]
    (config,) = override(
        (asit.PRESETS["test"].model,),
        {
            "teacher_temperature": temp["start"],
            "final_teacher_temperature": temp["end"],
            "temperature_warmup": (temp["warmup_epochs"] - 1) / temp["epochs"],
        },
    )
    assert isinstance(config, ASiTConfig)
    objective = asit.build_objective(config)
    assert isinstance(objective, ASiTObjective)
    temperatures = [objective.temperature(epoch / temp["epochs"]) for epoch in range(temp["epochs"])]
    outputs["teacher_temp"] = torch.tensor(temperatures, dtype=torch.float64)
    return outputs, None


def vit_forward(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The network on a spectrogram of the length of its table, block by block, in evaluation mode."""
    given, weights = meta["arguments"], load(case / "weights.safetensors")
    frames, mel_bins = given["audio_size"]
    encoder = _network(weights, {"heads": given["num_heads"], "mel_bins": mel_bins, "window_frames": frames})
    features = inputs["x"][:, 0]
    with torch.no_grad():
        tokens, _ = encoder.embed_patches(features, all_frames(features))
        *blocks, normed = encoder.transform(tokens)
        first = encoder.with_prefix(encoder.with_positions(tokens))
        encoded = encoder.forward_features(features, all_frames(features))
        order = _official_order(tokens.grid)
        outputs = {
            "patch_embed": time_major(tokens.embeddings, tokens.grid),
            "tokens": first[:, order],
            **{f"block{i}": x[:, order] for i, x in enumerate(blocks)},
            "out": normed[:, order],
        }
        if "head.weight" in weights:
            outputs["logits"] = nn.functional.linear(encoded.pooled, weights["head.weight"], weights["head.bias"])
        for number, (block, before) in enumerate(zip(encoder.blocks, [first, *blocks[:-1]], strict=True)):
            assert isinstance(block, Block)
            q, k = block.attn.qkv(block.norm1(before)).unflatten(2, (3, block.attn.heads, -1)).unbind(2)[:2]
            scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
            outputs[f"attn_block{number}"] = scores.softmax(-1)[:, :, order][..., order]
    return asked(outputs, meta), None


def pretrain_step(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The losses of given views, all gradients, clipped one by one, a step of AdamW, the centres' and the teacher's.

    In double precision: the first step of AdamW is nearly the sign of the gradient, so that single rounding errors
    become steps wherever a gradient is as small as its epsilon.
    """
    inputs = {name: x.double() for name, x in inputs.items()}
    given = meta["arguments"]
    lr, decay, momentum, most, _, temperature = inputs["hyper"].tolist()
    frames, mel_bins = given["audio_size"]
    centres = {"loss_cls/center": inputs["center_cls"], "loss_data/center": inputs["center_data"]}
    options = {
        "heads": given["num_heads"],
        "mel_bins": mel_bins,
        "window_frames": frames,
        "student_temperature": given["student_temp"],
        "centre_momentum": given["center_momentum"],
        "drop_path": given["drop_path"],
    }
    objective = files.build(asit.import_state(load(case / "weights.safetensors") | centres, options))
    assert isinstance(objective, ASiTObjective)
    objective.double().train()
    grid, kernel = objective.config.grid, objective.config.kernel

    def both(name: str) -> Tensor:
        return torch.cat([inputs[f"{name}{view}"][:, 0] for view in (0, 1)])

    clean, valid = objective.encoder.cover(both("clean"), all_frames(both("clean")))
    damaged = Corrupted(both("corrupted"), both("mask") > 0)
    compared = objective.compare(View(clean, valid), damaged, temperature)
    compared.losses["loss"].backward()
    outputs = {
        **{f"loss_{ours}": compared.losses[name] for ours, name in _LOSSES.items()},
        "loss": compared.losses["loss"],
        "student_tokens": compared.student_encoded[:, _official_order(grid)],
        "s_recons": unpatchify(compared.painted, grid, kernel).unsqueeze(1),
    }
    for who, (clip, patch) in (("s", compared.student), ("t", compared.teacher)):
        by_clip = patch.unflatten(0, (len(clip), -1))
        outputs |= {f"{who}_cls": clip, f"{who}_data": time_major(by_clip, grid).flatten(0, 1)}
    recipe = dataclasses.replace(asit.PRESETS["base"].pretrain, lr=lr, clip_norm=most)
    optimizer = build_optimizer(objective, recipe)
    names = {name: f"student.{official.to_ours(name)}" for name in official.official_names(objective.config.depth)}
    parameters = dict(objective.named_parameters())
    gradients = {name: g for name, ours in names.items() if (g := parameters[ours].grad) is not None}
    every = list(gradients.values())

    def turned(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{prefix}.{n}": official.turned(names[n], x, grid, back=True).clone() for n, x in tensors.items()}

    outputs |= turned("grad", gradients) | {"grad_norms_before_clip": torch.stack([g.norm() for g in every])}
    clip_gradients(every, nn.utils.get_total_norm(every), recipe)
    outputs |= turned("grad_clipped", gradients)
    set_rates(optimizer, lr, decay)
    optimizer.step()
    objective.clip_centre.after_step()
    objective.patch_centre.after_step()
    objective.follow(momentum)
    outputs |= {"center_cls_after": objective.clip_centre.mean, "center_data_after": objective.patch_centre.mean}
    state = objective.state_dict()
    for branch, prefix in (("student", "student."), ("teacher", "")):
        outputs |= turned(f"after.{branch}", {name: state[prefix + official.to_ours(name)] for name in names})
    return asked({n: x.detach().reshape(x.shape or (1,)).float() for n, x in outputs.items()}, meta), None


def finetune_ast_style(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """A pretrained network adapted to overlapping patches and another length, with a head on its class token."""
    given, fixed = meta["arguments"], meta["contract"]["parameters"]
    # What is called the stride of frequency moves along the first axis of the image, and that is time.
    strides = {"stride_time": given["fstride"], "stride_freq": given["tstride"]}
    columns, rows = given["pretrained grid"]
    patch = fixed["patch"]
    options = {
        "heads": given["num_heads"],
        "mel_bins": rows * patch,
        "window_frames": columns * patch,
        **{"stride_time": patch, "stride_freq": patch},
        "norm_mean": ASiTConfig.norm_mean,
        "norm_std": ASiTConfig.norm_std,
    }
    model = files.build(
        asit.import_state(load(case / "weights.safetensors"), options), [str(i) for i in range(given["label_dim"])]
    ).eval()
    assert isinstance(model, Classifier)
    encoder = model.encoder
    assert isinstance(encoder, ASiTEncoder)

    def adapted(frames: int, **changes: Any) -> ASiTEncoder:
        return adapt_encoder(encoder, dataclasses.replace(encoder.config, window_frames=frames, **changes)).eval()

    outputs = {}
    for name, at in fixed.items():
        if isinstance(at, Mapping):
            time, freq = at["stride"]
            outputs[name] = _positions(adapted(at["input_tdim"], stride_time=time, stride_freq=freq))
    model.encoder = fitted = adapted(given["input_tdim"], **strides, mel_bins=given["input_fdim"])
    with torch.no_grad():
        logits = model.logits(fitted.forward_features(inputs["x"], all_frames(inputs["x"])))
    return outputs | {"pos_embed_resized": _positions(fitted), "logits": logits}, None


def pretrainedsed_forward(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The network as PretrainedSED uses it: positions read with their axes swapped, and all tokens as a sequence."""
    given, fixed = meta["arguments"], meta["contract"]["parameters"]
    rows, columns = fixed["grid"]
    options = {
        "compat": "pretrainedsed",
        "heads": given["num_heads"],
        "mel_bins": rows * fixed["patch"],
        "window_frames": columns * fixed["patch"],
    }
    encoder = _network(load(case / "weights.safetensors"), options)
    features = inputs["x"][:, 0].transpose(1, 2)
    with torch.no_grad():
        encoded = encoder.forward_features(features, all_frames(features))
        positions = encoder.swapped_positions(encoded.grid[1])
        outputs = {
            "pos": torch.cat([encoder.positions[:, :1], time_major(positions, encoded.grid)], dim=1),
            "out": torch.cat([encoded.prefix[-1], time_major(encoded.layers[-1], encoded.grid)], dim=1),
            f"sequence{fixed['sequence_length']}": pooled_sequence(encoded, fixed["sequence_length"]),
        }
    return outputs, None


_LOSSES = {"cls": "global", "data": "local", "recons": "reconstruction"}


def _network(weights: dict[str, Tensor], options: dict[str, Any]) -> ASiTEncoder:
    """The encoder of an official state dict, through the importer that users call."""
    encoder = files.build(asit.import_state(weights, options)).get_submodule("encoder").eval()
    assert isinstance(encoder, ASiTEncoder)
    return encoder


def _positions(encoder: ASiTEncoder) -> Tensor:
    return official.turned("positions", encoder.positions.detach(), encoder.config.grid, back=True)


def _official_order(grid: Pair) -> Tensor:
    """Where the official tokens [1 + N] are among ours, the class token first."""
    ours = torch.arange(grid[0] * grid[1]).view(1, -1, 1)
    return torch.cat([torch.zeros(1, dtype=torch.long), 1 + time_major(ours, grid).flatten()])


FAMILIES = {
    "asit/frontend": frontend,
    "asit/gmml_corruption": gmml_corruption,
    "asit/schedules": schedules,
    "asit/vit_forward": vit_forward,
    "asit/pretrain_step": pretrain_step,
    "asit/finetune_ast_style": finetune_ast_style,
    "asit/pretrainedsed_forward": pretrainedsed_forward,
}
