"""Mamba mixers: equal to the official ones, to clips alone when padded, and to the whole when streamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from auricle.methods.ssamba.official import mixer_to_ours
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


def test_only_the_backward_direction_sees_what_follows() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 20, 24)
    changed = x.clone()
    changed[:, 15] += 1
    with torch.no_grad():
        ahead, both = Mamba(24, kind="none"), Mamba(24)
        assert torch.equal(ahead(x)[:, :15], ahead(changed)[:, :15])
        assert not torch.allclose(both(x)[:, :15], both(changed)[:, :15])
