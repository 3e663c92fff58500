"""A fine-tuned run as the teacher of a fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from auricle.config import TrainConfig
from auricle.data.heard import Heard, content_keys
from auricle.data.items import Item
from auricle.errors import CheckpointError, ConfigError
from auricle.tasks.distillation import Distillation
from auricle.training import checkpoint as ckpt
from auricle.training.finetuned import build_classifier


def resolve_teacher(path: str | Path, train: TrainConfig) -> ckpt.Checkpoint | None:
    """The checkpoint of a teacher, if its word counts.

    Raises:
        ConfigError: a teacher without a share in the loss, or the other way round.
        CheckpointError: it is no classifier.
    """
    if bool(path) != bool(train.distil):
        raise ConfigError(
            "a teacher has no say without --set distil=SHARE; give for example distil=0.5."
            if path
            else "distil is the share of a teacher; name a fine-tuned run with --teacher."
        )
    if not path:
        return None
    checkpoint = ckpt.resolve(Path(path))
    if checkpoint.config["kind"] != "classifier":
        raise CheckpointError(
            f"--teacher {path} is a {checkpoint.config['kind']} checkpoint; fine-tune it on the same labels first."
        )
    return checkpoint


def check_teacher(teacher: ckpt.Checkpoint | None, held_out: Sequence[Item]) -> None:
    """Refuse a teacher that has learned from clips that its student is tested on.

    Raises:
        ConfigError: it has.
        DataError: a file is gone.
    """
    if teacher is None:
        return
    known = Heard.load(teacher.config.get("heard", {})).train
    seen = sum(key in known for key in content_keys(held_out))
    if seen:
        raise ConfigError(
            f"the teacher was trained on {seen} of the {len(held_out)} clips that are held out here, and would give "
            "them away; fine-tune it with the same --held-out and split."
        )


def taught_by(teacher: ckpt.Checkpoint, train: TrainConfig) -> Distillation:
    """The loss of a student with its teacher's word in it.

    Raises:
        CheckpointError: the teacher's checkpoint is damaged.
    """
    network = ckpt.restore(lambda: build_classifier(teacher), teacher.weights(), str(teacher.path))
    return Distillation(network, train.distil, train.teacher_trains)
