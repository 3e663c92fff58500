"""Flat frozen dataclasses <-> YAML, JSON and `--set KEY=VALUE`.

jsonargparse does the typing; this file adds what users need around it: the nearest valid names for an unknown key, one
sentence for a wrong value, and values that can only be data (`class_path` in a recipe is an unknown key as any other).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints, overload

import yaml

from auricle.errors import ConfigError, did_you_mean


class DataclassInstance(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


ALL_KEYS = "auricle info PRESET shows all keys"
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}

C = TypeVar("C", bound=DataclassInstance)
D = TypeVar("D", bound=DataclassInstance)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; the same fields for pretraining and fine-tuning.

    `batch_size` is the global batch: what one optimizer step sees over all processes and accumulated micro-batches.
    A step budget is `steps`, or `epochs` when `steps` is 0. Schedules are described in `auricle.training.optim`:
    `warmup`, `decay_start` and `decay_every` are fractions of the budget, but epochs where `schedule` is "multistep".
    `warmup_steps` is SSAST's own warm-up, in steps. Optimizers, `decay_tokens` and `layer_decay` are described there,
    too; where `final_weight_decay` is given, the weight decay moves to it on a cosine.
    `clip_norm` bounds the norm of the gradient, or with `clip_each` that of each tensor by itself; 0: neither.

    For fine-tuning: `loss` is cross-entropy over classes that exclude each other, or one yes-or-no question per class;
    "auto" takes the first to tell classes apart, the second for tagging. `head` reads the pooled output, a learned
    mixture of the layers ("mix"), or the last `head_layers` through batch normalisation ("batchnorm"); with `freeze` it
    alone learns, or it and the last `tuned_layers` of the encoder. `balanced` draws clips so that rare labels come as
    often as common ones.
    `mixup` is the probability of mixing a clip with another one, whose share is drawn from Beta(`mixup_alpha`,
    `mixup_alpha`): their waveforms, or with `mix_spectrograms` their powers; `resize_crop` stretches random crops of
    spectrograms. `distil` is the share of a teacher's word in the loss; `teacher_trains` runs it in training mode.
    For detection (`auricle.tasks.detection`): `collar` is how many seconds an event may be off when thresholds and
    filters are chosen, `frame_norm` whether the head normalises each time step, which is a mean over `frame_seconds`
    (0: one of the network's own), `frame_pooling` how a weakly labelled clip's probability follows from those of its
    frames, `consistency` the weight of agreeing with a mean teacher (0: none), reached after the share `ramp` of the
    budget, and `teacher_momentum` how slowly that teacher follows.
    `window_seconds` is what the network hears at once when it is applied; 0: as much as `crop_seconds`.
    `average_epochs` (first, last) makes the final weights the mean of those at the ends of these epochs; 0, 0 does not.
    """

    steps: int = 0
    epochs: float = 10.0
    batch_size: int = 16
    accumulate: int = 1
    crop_seconds: float = 10.24
    window_seconds: float = 0.0
    optimizer: Literal["adamw", "adamw-hf", "adam", "sgd"] = "adamw"
    lr: float = 1e-3
    head_lr_factor: float = 1.0
    layer_decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    final_weight_decay: float | None = None
    decay_tokens: bool = False
    clip_norm: float = 1.0
    clip_each: bool = False
    schedule: Literal["cosine", "dino", "step", "constant", "multistep", "plateau"] = "cosine"
    warmup: float = 0.1
    warmup_steps: int = 0
    final_lr: float = 0.02
    decay_start: float = 0.5
    decay_every: float = 0.1
    decay_factor: float = 0.5
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    loss: Literal["auto", "ce", "bce"] = "auto"
    head: Literal["linear", "mix", "batchnorm"] = "linear"
    head_layers: int = 1
    freeze: bool = False
    tuned_layers: int = 0
    balanced: bool = False
    collar: float = 0.2
    frame_norm: bool = True
    frame_seconds: float = 0.0
    frame_pooling: Literal["linear_softmax", "attention"] = "linear_softmax"
    consistency: float = 0.0
    ramp: float = 0.25
    teacher_momentum: float = 0.999
    average_epochs: tuple[int, int] = (0, 0)
    crop: Literal["random", "central"] = "random"
    mixup: float = 0.0
    mixup_alpha: float = 10.0
    mix_spectrograms: bool = False
    resize_crop: bool = False
    distil: float = 0.0
    teacher_trains: bool = False
    mask_freq: int = 0
    mask_time: int = 0
    noise: bool = False
    label_smoothing: float = 0.0
    validate_every: int = 0
    val_fraction: float = 0.0
    max_bad_fraction: float = 0.01

    def __post_init__(self) -> None:
        check_ranges(
            self,
            positive=(
                *("batch_size", "accumulate", "crop_seconds", "lr", "layer_decay", "decay_every", "decay_factor"),
                *("head_layers", "mixup_alpha"),
            ),
            not_negative=(
                *(
                    "steps",
                    "epochs",
                    "head_lr_factor",
                    "weight_decay",
                    "clip_norm",
                    "warmup_steps",
                    "final_lr",
                    "window_seconds",
                ),
                *("collar", "frame_seconds", "consistency", "tuned_layers"),
                *("decay_start", "mask_freq", "mask_time", "validate_every", "max_bad_fraction"),
            ),
            shares=("warmup", "mixup", "label_smoothing", "val_fraction", "ramp", "teacher_momentum"),
        )
        if not self.steps and not self.epochs:
            raise ConfigError("the budget is empty: steps is 0 and epochs is 0; set one of them above 0.")
        if self.batch_size % self.accumulate:
            raise ConfigError(f"batch_size ({self.batch_size}) must be a multiple of accumulate ({self.accumulate}).")
        if self.tuned_layers and not self.freeze:
            raise ConfigError("tuned_layers are what learns of a frozen encoder; add --set freeze=true.")
        first, last = self.average_epochs
        if self.average_epochs != (0, 0) and not 1 <= first <= last:
            raise ConfigError(f"average_epochs must be a first and a last epoch, from 1 on, got {first}, {last}.")
        if self.final_weight_decay is not None and not 0 <= self.final_weight_decay < math.inf:
            raise ConfigError(f"final_weight_decay must be 0 or above, got {self.final_weight_decay}.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must lie from 0 to below 1, got {', '.join(map(str, self.betas))}.")


def check_ranges(
    config: DataclassInstance,
    *,
    positive: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> None:
    """Check numbers by the names of their fields; NaN and infinity are in no range.

    Raises:
        ConfigError: a number is out of its range.
    """
    for name in (*positive, *not_negative, *shares):
        value = getattr(config, name)
        if name in positive and not 0 < value < math.inf:
            raise ConfigError(f"{name} must be above 0, got {value}.")
        if name in not_negative and not 0 <= value < math.inf:
            raise ConfigError(f"{name} must be 0 or above, got {value}.")
        if name in shares and not 0 <= value <= 1:
            raise ConfigError(f"{name} must lie between 0 and 1, got {value}.")


def from_dict(cls: type[C], values: Mapping[str, Any], where: str = "config") -> C:
    """Build `cls` from plain data, typed by its annotations.

    Raises:
        ConfigError: unknown key (with the nearest valid names) or a value of the wrong type.
    """
    # Imported here so that `auricle --help` does not wait for it.
    import jsonargparse

    names = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            raise ConfigError(f"{where}: unknown key '{key}'{did_you_mean(key, names)}; {ALL_KEYS}.")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    try:
        parsed = parser.parse_object(plain)
    except jsonargparse.ArgumentError:
        raise ConfigError(_wrong_type(cls, parser, plain, where)) from None
    typed = {name: getattr(parsed, name) for name in names}
    for name, value in typed.items():
        if isinstance(value, list):
            typed[name] = tuple(value)
    return cls(**typed)


def _wrong_type(cls: type[DataclassInstance], parser: Any, values: Mapping[str, Any], where: str) -> str:
    """The sentence for the first of the values that has the wrong type."""
    import jsonargparse

    types = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name not in values:
            continue
        try:
            parser.parse_object({field.name: values[field.name]})
        except jsonargparse.ArgumentError:
            default = field.default if not isinstance(field.default, tuple) else list(field.default)
            example = yaml.safe_dump(default, default_flow_style=True).split("\n")[0].replace(", ", ",")
            return (
                f"{where}: {field.name} must be {_expected(types[field.name])}, got {values[field.name]!r}; "
                f"write for example {field.name}={example}."
            )
    return f"{where}: the values do not fit together."


def _expected(kind: Any) -> str:
    """What a type takes, in words."""
    if kind in _WORDS:
        return _WORDS[kind]
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, arguments))
    if get_origin(kind) is tuple:
        return f"a list of {len(arguments)}, each {_expected(arguments[0])}"
    return " or ".join(_expected(a) for a in arguments)


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """Plain data (tuples become lists) that JSON and YAML can hold."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}


@overload
def override(configs: tuple[C], assignments: Mapping[str, Any], where: str = ...) -> tuple[C]: ...
@overload
def override(configs: tuple[C, D], assignments: Mapping[str, Any], where: str = ...) -> tuple[C, D]: ...
def override(
    configs: Sequence[DataclassInstance], assignments: Mapping[str, Any], where: str = "--set"
) -> tuple[DataclassInstance, ...]:
    """Apply `KEY=VALUE` overrides to the first of `configs` that has the key.

    The key `compat` stands for the settings of that name in a config's `COMPAT`.

    Raises:
        ConfigError: no config has the key, or the value has the wrong type.
    """
    assignments = spelled_out(configs, assignments, where)
    owners: dict[str, int] = {}
    for index, config in enumerate(configs):
        for field in dataclasses.fields(config):
            owners.setdefault(field.name, index)
    changes: list[dict[str, Any]] = [{} for _ in configs]
    for key, value in assignments.items():
        if key not in owners:
            raise ConfigError(f"{where}: unknown key '{key}'{did_you_mean(key, owners)}; {ALL_KEYS}.")
        changes[owners[key]][key] = value
    return tuple(
        from_dict(type(config), {**to_dict(config), **change}, where) if change else config
        for config, change in zip(configs, changes, strict=True)
    )


def spelled_out(
    configs: Sequence[DataclassInstance], assignments: Mapping[str, Any], where: str = "--set"
) -> dict[str, Any]:
    """`assignments` with the settings that `compat` stands for in its place; those that are given by name go before.

    Raises:
        ConfigError: `compat` is none of the names that a config has.
    """
    groups = {name: group for config in configs for name, group in getattr(config, "COMPAT", {}).items()}
    if not groups or "compat" not in assignments:
        return dict(assignments)
    compat = str(assignments["compat"])
    if compat not in groups:
        raise ConfigError(f"{where}: compat must be {' or '.join(groups)}, got '{compat}'.")
    return {**groups[compat], **{k: v for k, v in assignments.items() if k != "compat"}}


# Which schedules read a setting; those that are not here are read under all of them.
_SCHEDULES = {
    "warmup": ("cosine", "dino", "step", "constant"),
    "warmup_steps": ("multistep", "plateau"),
    "final_lr": ("cosine", "dino"),
    "decay_start": ("step", "multistep"),
    "decay_every": ("step", "multistep"),
    "decay_factor": ("step", "multistep", "plateau"),
}


def refuse_unused(config: TrainConfig, assignments: Mapping[str, Any], unused: Sequence[str], training: str) -> None:
    """Refuse settings that were asked for and would do nothing; `unused` are those that a `training` never reads.

    Raises:
        ConfigError: an assignment of another value than the default changes nothing.
    """
    for key in assignments:
        if not hasattr(config, key) or to_dict(config)[key] == to_dict(TrainConfig())[key]:
            continue
        if key == "epochs" and config.steps and config.epochs:
            raise ConfigError(f"epochs has no effect beside steps={config.steps}; give one of them.")
        if key in unused:
            raise ConfigError(f"{training} does not use {key}; leave out --set {key}.")
        if key in _SCHEDULES and config.schedule not in _SCHEDULES[key]:
            raise ConfigError(
                f"{key} has no effect under schedule={config.schedule}; leave it out, "
                f"or choose --set schedule={' or '.join(_SCHEDULES[key])}."
            )


def used_settings(config: TrainConfig, unused: Sequence[str]) -> dict[str, Any]:
    """The settings that a training reads, as plain data; `unused` as in `refuse_unused`."""
    idle = {*unused, "epochs" if config.steps else "steps"}
    idle |= {key for key, schedules in _SCHEDULES.items() if config.schedule not in schedules}
    return {key: value for key, value in to_dict(config).items() if key not in idle}


def parse_assignments(pairs: Sequence[str]) -> dict[str, Any]:
    """`["lr=1e-4", "steps=100"]` to typed plain values, read as YAML scalars."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set takes KEY=VALUE, got '{pair}'; write for example --set lr=0.0001.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(
                f"--set {key}: '{text}' is neither a number, a word nor a list; write for example --set lr=0.0001, "
                "or --set 'betas=[0.9, 0.98]'."
            ) from None
        # YAML 1.1 reads 1e-4 (no dot) as a string.
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)
        values[key.strip()] = value
    return values


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping without constructing objects.

    Raises:
        ConfigError: missing file, broken YAML, or something that is not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ConfigError(f"{path} is damaged: it is not YAML{where}; restore it.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of KEY: VALUE lines, got {type(values).__name__}.")
    return values
