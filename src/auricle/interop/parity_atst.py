"""ATST's parity cases, computed by the classes that train and serve; `atst/sed_metrics` is in parity_sed.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auricle.audio.augment import ResizeCrop, central_crop, mix_log
from auricle.audio.mel import DecibelMel
from auricle.interop import official as files
from auricle.interop.parity_patches import load
from auricle.interop.parity_teachers import asked, cosine_schedule
from auricle.methods.atst import clip, frame
from auricle.methods.atst.model import ATSTEncoder
from auricle.methods.atst.objective import ATSTObjective, ClipObjective, FrameObjective
from auricle.methods.atst.official import CLIP, FRAME, Variant
from auricle.methods.atst.views import View
from auricle.nn.collapse import unit_spread
from auricle.nn.heads import BatchNormHead, FrameHead, pool_frames
from auricle.nn.patches import patchify, time_major
from auricle.tasks.classification import Classifier
from auricle.tasks.distillation import Distillation
from auricle.training.optim import build_optimizer, layer_scales, set_rates

Outputs = tuple[dict[str, Tensor], dict[str, Any] | None]
# The official names of the constructors' arguments.
_ARGUMENTS = {
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
    "patch_h": "patch_freq",
    "patch_w": "patch_time",
    "spec_h": "mel_bins",
    "spec_w": "window_frames",
    "drop_path_rate": "drop_path",
}
_FRONT_END = {
    "sample_rate": "sample_rate",
    "n_fft": "fft_size",
    "win_length": "fft_window",
    "hop_length": "hop_samples",
    "f_min": "lowest_hz",
    "f_max": "highest_hz",
    "n_mels": "mel_bins",
    "top_db": "top_db",
}


def settings(arguments: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Official constructor arguments as our settings; those that we read from the weights are left to the importer."""
    found = {ours: arguments[name] for name, ours in _ARGUMENTS.items() if name in arguments}
    patch = arguments.get("patch") or (parameters or {}).get("patch")
    if patch:
        found |= {"patch_freq": patch[0], "patch_time": patch[1]}
    for name in ("width", "depth"):
        found.pop(name, None)
    return found


def front_end(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Official front-end arguments as our settings: min and max become what -1 and 1 stand for."""
    found = {ours: arguments[name] for name, ours in _FRONT_END.items() if name in arguments}
    low, high = arguments["min"], arguments["max"]
    return found | {"norm_mean": (low + high) / 2, "norm_std": (high - low) / 4}


def frontend(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Power, decibels and normalised decibels, with a floor for each clip and for a whole batch; and the crops."""
    encoder = any_encoder(meta["arguments"])
    mel: DecibelMel = encoder.frontend
    waves = inputs["wave"][:, 0]
    power = mel.power(waves)
    shared = mel.decibels(power.flatten(0, 1)[None]).view_as(power)
    outputs = {
        "power": _as_image(power),
        "decibel": _as_image(mel(waves)),
        "normalized": _as_image(encoder.features(waves)[0]),
        "decibel_rank3_batch": shared.transpose(1, 2),
        "normalized_short": _as_image(encoder.features(inputs["wave_short"][:, 0])[0]),
        "mel_filterbank": mel.mel_filters,
        "window": mel.window,
    }
    for name, crop in meta["contract"]["parameters"].items():
        cut = central_crop(inputs["crop_in"][0].numpy(), crop["length"], crop["pad"])
        outputs[name] = torch.from_numpy(np.ascontiguousarray(cut))[None]
    return outputs, None


def any_encoder(arguments: Mapping[str, Any]) -> ATSTEncoder:
    """A network with the front end that a case states; its size does not matter."""
    given = front_end(arguments)
    config = frame.CONFIG(width=24, depth=1, heads=1, patch_freq=given["mel_bins"], view_seconds=0.1, **given)
    return frame.build_encoder(config)


def augment(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Mixing in the log domain, and resized crops at given places."""
    x, z = inputs["x"][0].T, inputs["z"][0].T
    outputs = {"log_mixup": mix_log(x, z, inputs["alpha"].item()).T[None]}
    for kind, parameters in meta["contract"]["parameters"].items():
        options = {"canvas": tuple(parameters["virtual_crop_scale"])}
        if "time_scale" in parameters:
            options["time"] = tuple(parameters["time_scale"])
        resize = ResizeCrop(**options)
        for number, box in enumerate(inputs[f"rrc_params_{kind.removeprefix('rrc_')}"].tolist()):
            outputs[f"{kind}{number}"] = resize.apply(x, tuple(box)).T[None]
    return outputs, None


def heads_schedules(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The heads of fine-tuning, and the schedules and layer-wise rates of the training loop."""
    weights = load(case / "weights.safetensors")
    probe = BatchNormHead(*reversed(weights["clip_head.linear.weight"].shape))
    probe.load_state_dict(_under(weights, "clip_head."))
    classes, width = weights["sed_head.linear.weight"].shape
    sed = FrameHead(width, classes, pooling="attention", normalise=False)
    sed.load_state_dict({k.replace("linear_softmax", "attention"): v for k, v in _under(weights, "sed_head.").items()})
    with torch.no_grad():
        outputs = {"clip_head_eval": probe.eval()(inputs["x"]), "clip_head_train": probe.train()(inputs["x"])}
        logits, attention = sed(inputs["frames"])
    strong = logits.sigmoid()
    every = torch.ones(strong.shape[:2], dtype=torch.bool)
    outputs |= {"sed_strong": strong.transpose(1, 2), "sed_weak": pool_frames(strong, attention, every)}
    outputs |= {f"after_{name}": getattr(probe.norm, name) for name in ("running_mean", "running_var")}
    for name, given in meta["contract"]["parameters"].items():
        if "decay" in given:
            outputs[name] = torch.tensor(layer_scales(given["decay"], given["depth"]), dtype=torch.float64)
        else:
            outputs[name] = torch.tensor(cosine_schedule(given), dtype=torch.float64)
    return outputs, None


def clip_encoder(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """Everything that the encoder gives for whole clips and for clips in chunks."""
    stated = meta["contract"]["parameters"]
    encoder = _encoder(CLIP, case, settings(meta["arguments"]) | {"chunking": "downstream"})
    whole = encoder_at(encoder, chunk_frames=0)
    last = stated["last_n"]
    mel, length = inputs["mel"], inputs["length"]
    outputs, blocks, normed = _whole(whole, mel, length)
    outputs |= {f"fwd.block{i}": x for i, x in enumerate(blocks)}
    outputs |= {f"intermediate{i}": x for i, x in enumerate(normed[-last:])}
    outputs["cls"] = normed[-1][:, 0]
    # The mean over the class tokens of all but the first depth - 8 blocks, before the final norm.
    outputs["avg8"] = torch.stack(blocks[-8:]).mean(0)[:, 0]
    chunked = encoder_at(encoder, chunk_frames=stated["chunk_len"])
    for prefix, suffix in (("", ""), ("long_", "_long")):
        with torch.no_grad():
            encoded = chunked.forward_features(_as_features(inputs[f"mel{suffix}"]), inputs[f"length{suffix}"])
        tokens, means = (
            torch.cat([part[:, place] for part in encoded.summaries[-last:]], dim=1)
            for place in (slice(0, encoder.dim), slice(encoder.dim, None))
        )
        outputs[f"{prefix}chunks_avgpool"] = torch.cat([tokens, means], dim=1)
        if prefix:
            outputs[f"{prefix}chunks_cls"] = tokens
    return outputs, None


def frame_encoder(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The student's pass over masked tokens, the teacher's over all, and the last blocks' tokens and means."""
    last = meta["contract"]["parameters"]["last_n"]
    encoder = _encoder(FRAME, case, settings(meta["arguments"]))
    mask_embed = load(case / "weights.safetensors")["mask_embed"]
    mel, length, masked = inputs["mel"], inputs["length"], inputs["mask"].bool()
    outputs, _, normed = _whole(encoder, mel, length)
    outputs["tokens_unmasked"] = outputs.pop("tokens")
    del outputs["patch"]
    with torch.no_grad():
        tokens, valid = encoder.embed_view(_as_features(mel), length, masked.shape[1])
        # As the student does it: `objective.MaskToken`.
        hidden = torch.where(masked.unsqueeze(-1), mask_embed, tokens)
        blocks = encoder.blocks_of(hidden, valid)
        outputs["tokens_masked"] = encoder.with_prefix(encoder.with_positions(hidden))
        outputs |= {f"student.block{i}": x for i, x in enumerate(blocks)}
        outputs["student_out"] = encoder.norm(blocks[-1])[masked & valid]
        outputs["teacher_out"] = normed[-1][masked & valid]
        encoded = encoder.forward_features(_as_features(mel), length)
    outputs["frames_last_n"] = torch.cat(normed[-last:], dim=2)
    outputs["frames_last_1"] = normed[-1]
    outputs["scene_last_n"] = torch.cat(encoded.summaries[-last:], dim=1)
    return outputs, None


def frame_embedding(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """The official embedding functions: scenes and time steps of audio of any length."""
    stated = meta["contract"]["parameters"]
    options = settings(meta["arguments"]) | front_end(stated["front_end"]) | {"chunk_frames": stated["chunk_len"]}
    encoder = _encoder(FRAME, case, options)
    waves, blocks = inputs["audio"][:, 0], stated["n_blocks"]
    with torch.no_grad():
        encoded = encoder(waves)
        first = encoder(waves[:, : stated["scene_1s_samples"]])
        outputs = {
            "mel": _as_image(encoder.features(waves)[0]),
            "scene": torch.cat(encoded.summaries[-blocks:], dim=1),
            # Their function takes its twelve blocks whatever it is asked for.
            "scene_when_N_BLOCKS_is_1": torch.cat(encoded.summaries[-blocks:], dim=1),
            "scene_1s": torch.cat(first.summaries[-blocks:], dim=1),
            "timestamp": torch.cat(encoded.layers[-blocks:], dim=2),
            "timestamp_1block": encoded.layers[-1],
        }
    outputs["timestamps_ms"] = (1000 * encoded.times).repeat(len(waves), 1)
    return outputs, None


def clip_pretrain_step(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """One step of ATST-Clip on two given views."""
    objective = _objective(case, meta, CLIP, {"chunking": "downstream"})
    assert isinstance(objective, ClipObjective)
    compared = objective.compare(*_views(inputs))
    encoded = {"teacher_cls": compared.teacher_encoded, "student_cls": compared.student_encoded}
    return asked(_step(objective, compared.losses(False), {**encoded, **_outs(compared)}, inputs, CLIP), meta), None


def frame_pretrain_step(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """One step of ATST-Frame on two given views and their mask."""
    options = {"chunking": "downstream", "symmetric": meta["arguments"]["symmetric"]}
    objective = _objective(case, meta, FRAME, options)
    assert isinstance(objective, FrameObjective)
    first, second = _views(inputs)
    own = torch.tensor([objective.config.columns_of(frames) for frames in first.frames.tolist()])
    masked = inputs["mask"].bool() & (torch.arange(inputs["mask"].shape[1]) < own[:, None])
    compared = objective.compare(first, second, masked)
    encoded = {"teacher_frames": compared.teacher_encoded, "student_frames": compared.student_encoded}
    return asked(_step(objective, compared.losses(False), {**encoded, **_outs(compared)}, inputs, FRAME), meta), None


def c2f_finetune_step(case: Path, inputs: dict[str, Tensor], meta: dict[str, Any]) -> Outputs:
    """ATST-Frame fine-tuned with ATST-Clip as its teacher: losses, gradients, and both networks' predictions."""
    weights, stated = load(case / "weights.safetensors"), meta["contract"]["parameters"]
    options = settings(meta["arguments"], stated)

    def network(variant: Variant, state: dict[str, Tensor], chunk: int) -> Classifier:
        module = _build(variant, state, {**options, "chunk_frames": chunk})
        assert isinstance(module, Classifier)
        return module

    outputs: dict[str, Tensor] = {}
    for name in [name for name, given in stated.items() if isinstance(given, dict)]:
        given = stated[name]
        suffix = "_as2m" if f"mel_{name}" in inputs else ""
        student = network(FRAME, weights, stated["student_chunk_len"])
        teacher = network(CLIP, _under(weights, "teacher."), stated["teacher_chunk_len"])
        target = inputs[given["target"]]
        single = not target.is_floating_point()
        for each in (student, teacher):
            each.loss = "ce" if single else "bce"
        if single:
            target = nn.functional.one_hot(target, len(student.classes)).float()
        distillation = Distillation(teacher, given["lambda_d"], teacher_trains=True)
        features, frames = _as_features(inputs[f"mel{suffix}"]), inputs[f"length{suffix}"]
        logits = student.train().logits(student.spectrogram_encoder.forward_features(features, frames))
        losses = distillation.losses(student, logits, target, features, frames)
        losses["loss"].backward()
        outputs[f"{name}.loss"] = losses["loss"]
        outputs[f"{name}.loss_c"], outputs[f"{name}.loss_d"] = losses["label_loss"], losses["distillation_loss"]
        outputs |= {f"{name}.grad.{_distilled(n)}": p.grad for n, p in student.named_parameters() if p.grad is not None}
    with torch.no_grad():
        features, frames = _as_features(inputs["mel"]), inputs["length"]
        student = network(FRAME, weights, stated["student_chunk_len"]).eval()
        teacher = network(CLIP, _under(weights, "teacher."), stated["teacher_chunk_len"]).eval()
        encoded = student.spectrogram_encoder.forward_features(features, frames)
        outputs["eval.student_scene"] = encoded.pooled
        outputs["eval.student_logits"] = student.logits(encoded)
        outputs["eval.teacher_logits"] = teacher.logits(teacher.spectrogram_encoder.forward_features(features, frames))
    outputs = {name: value.detach().reshape(value.shape or (1,)) for name, value in outputs.items()}
    return asked(outputs, meta), None


def _distilled(name: str) -> str:
    """The official name of a student's parameter."""
    if name.startswith("head."):
        return "linear." + name.removeprefix("head.")
    return "student." + FRAME.to_official(name).removeprefix("teacher.encoder.")


def _whole(encoder: ATSTEncoder, mel: Tensor, length: Tensor) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
    """Of clips that are not cut: patches and tokens under their names, the blocks' outputs, and those normed.

    In official order, and also where padding is.
    """
    c = encoder.config
    features, grid = _as_features(mel), (c.grid[0], mel.shape[3] // c.patch_time)
    steps = torch.tensor([c.columns_of(frames) for frames in length.tolist()])
    valid = torch.arange(grid[1]) < steps[:, None]
    with torch.no_grad():
        patches, embedded = patchify(features, c.kernel, c.kernel), encoder.embed_patches(features)
        blocks = encoder.blocks_of(embedded, valid)
        tokens = encoder.with_prefix(encoder.with_positions(embedded))
        normed = [encoder.norm(x) for x in blocks]

    def official(x: Tensor) -> Tensor:
        prefix = encoder.PREFIX
        return torch.cat([x[:, :prefix], time_major(x[:, prefix:], grid)], dim=1)

    found = {
        "patch": time_major(patches, grid),
        "patch_embed": time_major(embedded, grid),
        "patch_length": steps * grid[0],
        "tokens": official(tokens),
    }
    return found, [official(x) for x in blocks], [official(x) for x in normed]


def _views(inputs: Mapping[str, Tensor]) -> tuple[View, View]:
    first, second = (View(_as_features(inputs[f"view{i}"]), inputs[f"length{i}"]) for i in (0, 1))
    return first, second


def _outs(compared: Any) -> dict[str, Tensor]:
    return {"teacher_out": compared.teacher, "student_out": compared.student}


def _step(
    objective: ATSTObjective,
    losses: dict[str, Tensor],
    outputs: dict[str, Tensor],
    inputs: Mapping[str, Tensor],
    variant: Variant,
) -> dict[str, Tensor]:
    """Gradients of a loss, an optimizer step and a teacher's, all under official names."""
    lr, decay, momentum = inputs["hyper"].tolist()
    outputs |= {"loss": losses["loss"]}
    outputs |= {f"std_{who}": unit_spread(outputs[f"{who}_out"]) for who in ("student", "teacher")}
    recipe = frame.PRESETS["base"].pretrain
    optimizer = build_optimizer(objective, recipe)
    losses["loss"].backward()
    gradients = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    outputs["grad_global_norm"] = nn.utils.get_total_norm(list(gradients.values()))
    set_rates(optimizer, lr, decay)
    optimizer.step()
    objective.follow(momentum)

    def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{prefix}.{variant.to_official(name)}": value for name, value in tensors.items()}

    outputs |= named("grad", gradients) | named("after", objective.state_dict())
    return {name: value.detach().reshape(value.shape or (1,)) for name, value in outputs.items()}


def _objective(case: Path, meta: dict[str, Any], variant: Variant, options: dict[str, Any]) -> ATSTObjective:
    module = _build(variant, load(case / "weights.safetensors"), settings(meta["arguments"]) | options)
    assert isinstance(module, ATSTObjective)
    return module.train()


def _encoder(variant: Variant, case: Path, options: dict[str, Any]) -> ATSTEncoder:
    encoder = _build(variant, load(case / "weights.safetensors"), options).get_submodule("encoder").eval()
    assert isinstance(encoder, ATSTEncoder)
    return encoder


def _build(variant: Variant, state: dict[str, Tensor], options: dict[str, Any]) -> nn.Module:
    """The module of an official state dict, through the importer that users call."""
    method = clip if variant is CLIP else frame
    return files.build(method.import_state(state, options))


def encoder_at(encoder: ATSTEncoder, **changes: Any) -> ATSTEncoder:
    """The same weights under settings that do not change the network."""
    other = type(encoder)(replace(encoder.config, **changes))  # type: ignore[arg-type]
    other.load_state_dict(encoder.state_dict())
    return other.eval()


def _as_features(mel: Tensor) -> Tensor:
    """Official [B, 1, F, T] as our [B, T, F]."""
    return mel[:, 0].transpose(1, 2)


def _as_image(features: Tensor) -> Tensor:
    return features.transpose(1, 2).unsqueeze(1)


def _under(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


FAMILIES = {
    "atst/frontend": frontend,
    "atst/augment": augment,
    "atst/heads_schedules": heads_schedules,
    "atst/clip_encoder": clip_encoder,
    "atst/frame_encoder": frame_encoder,
    "atst/frame_embedding": frame_embedding,
    "atst/clip_pretrain_step": clip_pretrain_step,
    "atst/frame_pretrain_step": frame_pretrain_step,
    "atst/c2f_finetune_step": c2f_finetune_step,
}
