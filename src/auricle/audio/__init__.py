"""Sound files to waveforms, and waveforms to features."""

from auricle.audio.read import Channel, as_wave, blocks, decoded, one_channel, probe, read
from auricle.audio.source import REASONS, AudioInfo, AudioWarning

__all__ = [
    "REASONS",
    "AudioInfo",
    "AudioWarning",
    "Channel",
    "as_wave",
    "blocks",
    "decoded",
    "one_channel",
    "probe",
    "read",
]
