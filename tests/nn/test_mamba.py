"""Mamba mixers: equal to the official ones, to clips alone when padded, and to the whole when streamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from auricle.errors import ConfigError
from auricle.methods.ssamba.official import mixer_to_ours
from auricle.nn import mamba
from auricle.nn.mamba import Kind, Mamba


@pytest.mark.parametrize("case", ["bimamba_v2", "bimamba_v2_nodivide", "bimamba_v1", "unidirectional"])
def test_outputs_and_all_gradients_equal_the_official_code(goldens: Path, case: str) -> None:
    folder = goldens / "ssamba" / f"mixer_{case}"
    args = json.loads((folder / "meta.json").read_text())["args"]
    given, weights = load_file(folder / "io.safetensors"), load_file(folder / "weights.safetensors")
    kind: Kind = args["bimamba_type"]
    sizes = {"expand": args["expand"], "states": args["d_state"], "taps": args["d_conv"]}
    mixer = Mamba(args["d_model"], **sizes, kind=kind, divide=args["if_devide_out"])
    mixer.load_state_dict({mixer_to_ours(key, kind): value for key, value in weights.items()})
    x = given["x"].requires_grad_()
    y = mixer(x)
    (y * given["loss_weight"]).sum().backward()
    torch.testing.assert_close(y, given["y"], rtol=1e-5, atol=1e-6)
    found = {"grad.x": x.grad} | {f"grad.{k}": mixer.get_parameter(mixer_to_ours(k, kind)).grad for k in weights}
    for name, gradient in found.items():
        assert gradient is not None
        assert float((gradient - given[name]).abs().max()) <= 1e-5 * float(given[name].abs().max()), name


@pytest.mark.parametrize("kind", ["v2", "v1", "none"])
def test_a_padded_row_equals_the_clip_alone(kind: Kind) -> None:
    torch.manual_seed(0)
    mixer, x = Mamba(24, kind=kind), torch.randn(3, 70, 24)
    lengths = torch.tensor([70, 1, 33])
    with torch.no_grad():
        padded = mixer(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = mixer(x[row : row + 1, :length])[0]
            torch.testing.assert_close(padded[row, :length], alone, rtol=1e-5, atol=1e-6)
            assert not padded[row, length:].any()


@pytest.mark.parametrize("kind", ["v2", "v1", "none"])
def test_reading_from_the_end_is_reading_the_tokens_in_the_opposite_order(kind: Kind) -> None:
    torch.manual_seed(0)
    mixer, x = Mamba(24, kind=kind), torch.randn(3, 40, 24)
    lengths = torch.tensor([40, 1, 23])
    with torch.no_grad():
        reverse = mixer(x, lengths, reverse=True)
        for row, length in enumerate(lengths.tolist()):
            flipped = mixer(x[row : row + 1, :length].flip(1))[0].flip(0)
            torch.testing.assert_close(reverse[row, :length], flipped, rtol=1e-5, atol=1e-6)
        # Not the same as reading them in order.
        assert not torch.allclose(reverse, mixer(x, lengths), atol=1e-3)


def test_a_stream_in_pieces_equals_the_whole() -> None:
    torch.manual_seed(0)
    mixer, x = Mamba(24, kind="none"), torch.randn(2, 37, 24)
    with torch.no_grad():
        state, pieces = None, []
        for start, stop in ((0, 1), (1, 2), (2, 20), (20, 37)):
            piece, state = mixer.step(x[:, start:stop], state)
            pieces.append(piece)
        torch.testing.assert_close(torch.cat(pieces, 1), mixer(x), rtol=1e-5, atol=1e-6)


def test_a_mixer_that_looks_ahead_refuses_to_stream() -> None:
    with pytest.raises(ValueError, match="looks ahead"):
        Mamba(24).step(torch.zeros(1, 1, 24))


def whole(mixer: Mamba, *given: Tensor | bool | None) -> Tensor:
    """The output over the whole sequence at once, as it is computed for training."""
    with torch.enable_grad():
        return mixer(*given).detach()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 63, 64, 65, 130, 257])
@pytest.mark.parametrize("kind", ["v2", "v1", "none"])
def test_tiles_equal_the_whole(monkeypatch: pytest.MonkeyPatch, kind: Kind, steps: int, reverse: bool) -> None:
    monkeypatch.setattr(mamba, "TILE", 64)
    torch.manual_seed(0)
    mixer, x = Mamba(24, kind=kind), torch.randn(3, steps, 24)
    # Rows that end with the last tile, amid one, at the end of one, and within the first.
    for lengths in (None, torch.tensor([steps, max(1, steps // 2), 1]), torch.tensor([min(steps, 64), steps, 3])):
        with torch.no_grad():
            tiled = mixer(x, lengths, reverse)
        torch.testing.assert_close(tiled, whole(mixer, x, lengths, reverse), rtol=1e-5, atol=1e-6)


def test_short_rows_share_a_tile_and_are_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba, "TILE", 64)
    torch.manual_seed(0)
    mixer, x, lengths = Mamba(24), torch.randn(5, 30, 24), torch.tensor([30, 7, 30, 1, 16])
    with torch.no_grad():
        tiled = mixer(x, lengths)
        alone = [mixer(x[row : row + 1, :length])[0] for row, length in enumerate(lengths.tolist())]
    torch.testing.assert_close(tiled, whole(mixer, x, lengths), rtol=1e-5, atol=1e-6)
    for row, want in enumerate(alone):
        torch.testing.assert_close(tiled[row, : len(want)], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tiles_equal_the_whole_in_other_types(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(mamba, "TILE", 32)
    torch.manual_seed(0)
    mixer, x = Mamba(24).to(dtype), torch.randn(2, 70, 24, dtype=dtype)
    with torch.no_grad():
        tiled = mixer(x)
    assert tiled.dtype == dtype
    torch.testing.assert_close(tiled, whole(mixer, x))


def test_tiles_equal_the_whole_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba, "TILE", 32)
    torch.manual_seed(0)
    mixer, x = Mamba(24), torch.randn(2, 70, 24)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            tiled = mixer(x)
        want = whole(mixer, x)
    assert tiled.dtype == torch.bfloat16
    torch.testing.assert_close(tiled, want)


@pytest.mark.parametrize("grad", [False, True])
def test_no_rows_give_none_and_no_tokens_are_refused(grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        assert Mamba(24)(torch.zeros(0, 5, 24)).shape == (0, 5, 24)
        with pytest.raises(ConfigError):
            Mamba(24)(torch.zeros(2, 0, 24))


def test_tiles_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    mixer, x = Mamba(24), torch.randn(1, 2 * mamba.TILE + 7, 24)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                found.append(mixer(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_only_the_backward_direction_sees_what_follows() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 20, 24)
    changed = x.clone()
    changed[:, 15] += 1
    with torch.no_grad():
        ahead, both = Mamba(24, kind="none"), Mamba(24)
        assert torch.equal(ahead(x)[:, :15], ahead(changed)[:, :15])
        assert not torch.allclose(both(x)[:, :15], both(changed)[:, :15])
