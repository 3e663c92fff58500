"""m4a, aac and the sound of video files: read by PyAV, which the extra `video` installs."""

from pathlib import Path

import numpy as np
import pytest

from auricle import audio
from auricle.data.formats import read_data
from auricle.errors import AudioError

av = pytest.importorskip("av", reason="needs PyAV, which the extras `video` and `dev` install")
RATE = 16000


def encode(
    path: Path, seconds: float = 2.0, codec: str = "aac", channels: int = 1, picture: bool = False
) -> np.ndarray:
    """Write a rising tone; returns it as (samples,)."""
    t = np.arange(round(seconds * RATE)) / RATE
    wave = (0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t)).astype(np.float32)
    layout = {1: "mono", 2: "stereo"}[channels]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.layout = layout
        if picture:
            video = container.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for _ in range(round(25 * seconds)):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return wave


@pytest.mark.parametrize("name", ["a.m4a", "a.aac", "a.mkv", "a.MOV", "a.mp4"])
def test_it_sounds_as_what_was_encoded(name: str, tmp_path: Path) -> None:
    wave = encode(tmp_path / name, channels=2 if name == "a.m4a" else 1, picture=name == "a.mp4")
    info = audio.probe(tmp_path / name)
    assert (info.rate, info.channels, info.subtype) == (RATE, 2 if name == "a.m4a" else 1, "AAC")
    got, rate = audio.read(tmp_path / name)
    assert (len(got), rate) == (info.frames, RATE)
    # Raw AAC keeps what the encoder put before and behind the sound.
    assert 0 <= info.frames - len(wave) <= 2048
    lag = int(np.argmax(np.correlate(got, wave[4000:8000], "valid"))) - 4000
    assert lag == (1024 if name == "a.aac" else 0)
    assert np.corrcoef(got[lag : lag + len(wave)], wave[: len(got) - lag])[0, 1] > 0.99


def test_ranges_blocks_and_other_rates(tmp_path: Path) -> None:
    encode(tmp_path / "a.m4a")
    whole, _ = audio.read(tmp_path / "a.m4a")
    part, _ = audio.read(tmp_path / "a.m4a", start=0.5, end=1.25)
    np.testing.assert_array_equal(part, whole[8000:20000])
    np.testing.assert_array_equal(np.concatenate(list(audio.blocks(tmp_path / "a.m4a", seconds=0.3))), whole)
    assert len(audio.read(tmp_path / "a.m4a", rate=8000)[0]) == pytest.approx(len(whole) / 2, abs=1)


def test_cut_damaged_and_silent_files_are_named(tmp_path: Path) -> None:
    encode(tmp_path / "a.m4a")
    encode(tmp_path / "a.mkv", 10.0)
    data = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="damaged: it starts like MP4"):
        audio.probe(tmp_path / "cut.m4a")
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"(truncated: decoding ended at|damaged: decoding failed)"):
        audio.read(tmp_path / "cut.mkv")
    middle = data[: len(data) // 2] + bytes(3000) + data[len(data) // 2 + 3000 :]
    (tmp_path / "bad.mkv").write_bytes(middle)
    with pytest.raises(AudioError, match=r"(truncated|damaged): decoding"):
        audio.read(tmp_path / "bad.mkv")
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
    with pytest.raises(AudioError, match=r"not audio: this is MP4 .* without sound"):
        audio.probe(tmp_path / "mute.mp4")


def test_a_header_that_leads_out_of_its_file_is_damage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.wma"
    path.write_bytes(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + b"0" * 100)
    with pytest.raises(AudioError, match="damaged: it starts like ASF"):
        audio.probe(path)
    assert capfd.readouterr().err == ""


def test_a_folder_of_videos_is_a_data_set_unless_it_has_sound_files(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    encode(tmp_path / "dog" / "a.mp4")
    manifest = read_data(tmp_path)
    assert (manifest.ids, manifest[0].labels) == (("dog/a.mp4",), {"label": "dog"})
    encode(tmp_path / "dog" / "b.m4a")
    assert read_data(tmp_path).ids == ("dog/b.m4a",)
