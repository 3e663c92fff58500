"""Generated scenes of sound: labelled data, and data for pretraining, that need no download."""

from auricle.data.synth.corpus import write_scenes
from auricle.data.synth.scenes import Scene, Sound, plan, render
from auricle.data.synth.sources import SOURCES

__all__ = ["SOURCES", "Scene", "Sound", "plan", "render", "write_scenes"]
