"""Fine-tuned checkpoints as networks again, without their weights."""

from __future__ import annotations

from auricle.config import from_dict
from auricle.errors import CheckpointError
from auricle.methods import get_method
from auricle.methods.base import AudioEncoder
from auricle.tasks.classification import Classifier
from auricle.tasks.detection import Detector
from auricle.training.checkpoint import Checkpoint


def build_classifier(checkpoint: Checkpoint) -> Classifier:
    """The classifier of a checkpoint of that kind.

    Raises:
        CheckpointError: its list of classes is damaged.
    """
    kinds = {k: checkpoint.config[k] for k in ("task", "loss", "head", "head_layers") if k in checkpoint.config}
    return Classifier(_encoder(checkpoint), class_names(checkpoint), **kinds)


def build_detector(checkpoint: Checkpoint) -> Detector:
    """The detector of a checkpoint of that kind.

    Raises:
        CheckpointError: its list of classes is damaged.
    """
    options = {key: checkpoint.config[key] for key in ("frame_width", "pooling", "consistency", "collar")}
    # Older checkpoints do not have these.
    options |= {key: checkpoint.config[key] for key in ("normalise", "frame_seconds") if key in checkpoint.config}
    return Detector(_encoder(checkpoint), class_names(checkpoint), **options)


def _encoder(checkpoint: Checkpoint) -> AudioEncoder:
    method = get_method(checkpoint.config["method"])
    return method.build_encoder(
        from_dict(method.CONFIG, checkpoint.config["model"], str(checkpoint.path / "config.json"))
    )


def class_names(checkpoint: Checkpoint) -> list[str]:
    """The classes of a fine-tuned checkpoint.

    Raises:
        CheckpointError: its config.json lists none.
    """
    classes = checkpoint.config.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{checkpoint.path / 'config.json'}: expected a list of class names in 'classes'.")
    return classes
