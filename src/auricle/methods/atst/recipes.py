"""Published fine-tunings."""

from __future__ import annotations

from auricle.methods.base import Recipe

CLIP_RECIPES: dict[str, Recipe] = {}
FRAME_RECIPES: dict[str, Recipe] = {}
