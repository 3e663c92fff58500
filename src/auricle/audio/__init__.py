"""Sound files to waveforms, and waveforms to features."""

from auricle.audio.read import as_wave, blocks, decode, probe, read
from auricle.audio.source import REASONS, AudioInfo, AudioWarning

__all__ = ["REASONS", "AudioInfo", "AudioWarning", "as_wave", "blocks", "decode", "probe", "read"]
