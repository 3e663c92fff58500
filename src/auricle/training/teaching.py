"""A fine-tuned run as the teacher of a fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from auricle.config import TrainConfig
from auricle.data.heard import Heard, content_keys
from auricle.data.items import Item
from auricle.data.labels import Task
from auricle.errors import CheckpointError, ConfigError, with_article
from auricle.tasks.distillation import Distillation, DistilledClassifier, DistilledDetector, FrameDistillation
from auricle.training import checkpoint as ckpt
from auricle.training.finetuned import build_classifier, build_detector


def resolve_teacher(path: str | Path, train: TrainConfig, task: Task) -> ckpt.Checkpoint | None:
    """The checkpoint of a teacher for a task, if its word counts.

    Raises:
        ConfigError: a teacher without a share in the loss, or the other way round.
        CheckpointError: it is no classifier, or for detection no detector.
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
    if checkpoint.config["kind"] != ("detector" if task == "detection" else "classifier"):
        raise CheckpointError(
            f"--teacher {path} is {with_article(checkpoint.config['kind'])} checkpoint; fine-tune it on the same "
            "labels first."
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


def teach(student: DistilledClassifier | DistilledDetector, teacher: ckpt.Checkpoint, train: TrainConfig) -> None:
    """Put the teacher's word into the loss of a student.

    Raises:
        ConfigError: the student cannot learn from it.
        CheckpointError: the teacher's checkpoint is damaged.
    """
    weights, path = teacher.weights(), str(teacher.path)
    if isinstance(student, DistilledDetector):
        detector = ckpt.restore(lambda: build_detector(teacher), weights, path)
        student.distillation = FrameDistillation(detector, train.distil)
        student.distillation.check(student, train.crop_seconds)
    else:
        classifier = ckpt.restore(lambda: build_classifier(teacher), weights, path)
        student.distillation = Distillation(classifier, train.distil, train.teacher_trains)
        student.distillation.check(student)
