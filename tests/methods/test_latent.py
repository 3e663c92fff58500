"""Masked latent prediction: what is kept, what the student sees, what the teacher says, and what is learned of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from networks import batch, samples, sounds
from torch import Tensor

from auricle.data.batch import Batch
from auricle.errors import ConfigError
from auricle.methods import get_method, get_preset
from auricle.methods.base import Objective
from auricle.methods.spectrogram.latent import LatentObjective, hidden_tokens
from auricle.methods.spectrogram.masks import Mask
from auricle.methods.spectrogram.tokens import Tokens

METHODS = ("ssast", "asit", "atst-frame", "ssamba")
every_method = pytest.mark.parametrize("name", METHODS)


def objective(name: str, **changes: Any) -> LatentObjective:
    """The smallest network of a method, with patches of 16 mel bins where the method has any."""
    torch.manual_seed(0)
    patches = {"patch_freq": 16, "patch_time": 4, "latent_clones": 3, "latent_decoder_depth": 2, "latent_block": 2}
    if name != "atst-frame":
        patches |= {"stride_freq": 16, "stride_time": 4}
    settings = {"pretext": "latent", **patches, **changes}
    module = get_method(name).build_objective(dataclasses.replace(get_preset(name, "test").model, **settings))
    assert isinstance(module, LatentObjective)
    return module.train()


def heard(task: LatentObjective, frames: tuple[int, ...] = (60, 60, 41)) -> tuple[Tokens, Tensor, Tensor, Batch]:
    """Tokens of the student, features and frames of clips of so many frames."""
    given = batch(*sounds([samples(n) for n in frames]))
    features, own = task.encoder.features(given.audio.data, given.audio.lengths)
    return task.student.encoder.placed(features, own), features, own, given


# What is kept -----------------------------------------------------------------------------------------------------


@every_method
def test_every_mask_of_a_clip_keeps_the_same_share_of_its_own_tokens(name: str) -> None:
    task = objective(name, latent_keep=0.3)
    tokens, _, _, given = heard(task)
    kept = task.draw_kept(tokens, given.draw)
    rows, own = tokens.grid[0], tokens.valid.sum(1).tolist()
    assert len(kept.ids) == 3 * len(given)
    for row, (ids, real) in enumerate(zip(kept.ids, kept.valid, strict=True)):
        chosen = ids[real].tolist()
        assert len(chosen) == len(set(chosen)) == round(0.3 * rows * own[row // 3])
        assert chosen == sorted(chosen)
        assert all(place % tokens.grid[1] < own[row // 3] for place in chosen)
    # The masks of a clip differ, and so do those of clips.
    assert len({tuple(ids.tolist()) for ids in kept.ids[:6]}) == 6


@every_method
def test_what_is_kept_of_a_clip_does_not_depend_on_its_neighbours(name: str) -> None:
    task = objective(name)
    tokens, _, _, given = heard(task)
    whole = task.draw_kept(tokens, given.draw)
    alone = given.rows(2, 3)
    features, frames = task.encoder.features(alone.audio.data, alone.audio.lengths)
    short = task.student.encoder.placed(features, frames)
    own = task.draw_kept(short, alone.draw)
    for row in range(3):
        ids = whole.ids[6 + row][whole.valid[6 + row]]
        places = [(int(i) // tokens.grid[1], int(i) % tokens.grid[1]) for i in ids]
        assert places == [(int(i) // short.grid[1], int(i) % short.grid[1]) for i in own.ids[row]]


def test_kept_tokens_lie_in_blocks() -> None:
    task = objective("ssast", latent_keep=0.2, latent_block=3, patch_freq=8, stride_freq=8)
    tokens, _, _, given = heard(task, (64, 64, 64, 64))
    kept = task.draw_kept(tokens, given.draw)
    grid = torch.zeros(len(kept.ids), tokens.grid[0] * tokens.grid[1])
    grid.scatter_(1, kept.ids, 1.0)
    grid = grid.unflatten(1, tokens.grid)
    together = (grid[:, 1:] * grid[:, :-1]).sum((1, 2)).mean() / kept.ids.shape[1]
    # Of squares of side 3 two thirds of the tokens have one below them; at random a fifth would.
    assert 0.45 < float(together) < 0.8


@pytest.mark.parametrize(("frames", "kept"), [(4, 1), (8, 1), (12, 2)])
def test_of_the_shortest_clips_one_token_is_kept_and_of_two_one_is_hidden(frames: int, kept: int) -> None:
    task = objective("ssast", patch_freq=128, stride_freq=128, latent_keep=0.7)
    tokens, _, _, given = heard(task, (frames,))
    mask = task.draw_kept(tokens, given.draw)
    assert mask.ids.shape == (3, kept)
    hidden = hidden_tokens(tokens.token_valid().repeat_interleave(3, 0), mask)
    assert hidden.sum(1).tolist() == [tokens.grid[1] - kept] * 3


# What the student sees --------------------------------------------------------------------------------------------


@every_method
def test_the_student_sees_nothing_of_what_is_hidden(name: str) -> None:
    task = objective(name, latent_clones=1, latent_reconstruction=1.0).eval()
    tokens, _, _, given = heard(task)
    kept = task.draw_kept(tokens, given.draw)
    hidden = hidden_tokens(tokens.token_valid(), kept)
    noise = torch.where(hidden.unsqueeze(-1), torch.randn_like(tokens.embeddings), 0.0)
    with torch.no_grad():
        first = task.predict(tokens, kept)
        again = task.predict(dataclasses.replace(tokens, embeddings=tokens.embeddings + 10 * noise), kept)
        other = dataclasses.replace(tokens, embeddings=torch.where(hidden.unsqueeze(-1), tokens.embeddings, 0.5))
        changed = task.predict(other, kept)
    for name in ("tokens", "clip", "patches"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(changed, name))


@every_method
def test_only_kept_tokens_are_encoded_and_the_teacher_encodes_each_clip_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = objective(name, latent_keep=0.25)
    sizes: dict[str, list[tuple[int, ...]]] = {"student": [], "teacher": []}
    for who, network in (("student", task.student.encoder), ("teacher", task.encoder)):
        encode = network.encode

        def counted(placed: Tensor, *rest: Any, who: str = who, encode: Any = encode) -> list[Tensor]:
            sizes[who].append(tuple(placed.shape[:2]))
            found: list[Tensor] = encode(placed, *rest)
            return found

        monkeypatch.setattr(network, "encode", counted)
    tokens, _, _, given = heard(task, (60, 60))
    task(given, 0.0)
    count = tokens.grid[0] * tokens.grid[1]
    assert sizes == {"teacher": [(2, count)], "student": [(6, round(0.25 * count))]}


@every_method
def test_a_clip_is_predicted_beside_longer_ones_as_it_is_alone(name: str) -> None:
    task = objective(name).eval()
    tokens, _, _, given = heard(task)
    kept = task.draw_kept(tokens, given.draw)
    assert not bool(kept.valid.all())
    rows, columns = tokens.grid[0], int(tokens.valid[2].sum())

    def cut(x: Tensor) -> Tensor:
        """The last clip's tokens [., N, D] on its own grid."""
        return x.unflatten(1, tokens.grid)[:, :, :columns].flatten(1, 2)

    own = Tokens(cut(tokens.embeddings[2:]), (rows, columns), torch.ones(1, columns, dtype=torch.bool))
    ids = torch.stack([i[real] for i, real in zip(kept.ids[6:], kept.valid[6:], strict=True)])
    ids = ids // tokens.grid[1] * columns + ids % tokens.grid[1]
    with torch.no_grad():
        found = task.predict(tokens, kept)
        want = task.predict(own, Mask(ids, torch.ones_like(ids, dtype=torch.bool)))
    torch.testing.assert_close((cut(found.tokens[6:]), found.clip[6:]), (want.tokens, want.clip), atol=1e-5, rtol=1e-5)


# What is learned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1])
def test_targets_are_the_mean_of_the_teachers_normalised_layers(layers: int) -> None:
    task = objective("asit", latent_layers=layers)
    tokens, features, frames, _ = heard(task)
    with torch.no_grad():
        outputs = task.encoder.encode(task.encoder.placed(features, frames).embeddings, tokens.token_valid())[:-1]
    own = tokens.token_valid()[2]
    found = []
    for output in outputs[-layers:]:
        x = output[2, 1:][own]
        found.append((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt())
    want = torch.nn.functional.layer_norm(torch.stack(found).mean(0), (48,))
    got = task.teach(features, frames)
    torch.testing.assert_close(got.tokens[2][own], want, atol=1e-5, rtol=1e-5)
    assert not got.tokens.requires_grad


def test_losses_are_means_over_hidden_tokens_then_masks_then_clips() -> None:
    task = objective("atst-frame", latent_utterance=0.5, latent_reconstruction=2.0)
    tokens, features, frames, given = heard(task)
    targets, kept = task.teach(features, frames), task.draw_kept(tokens, given.draw)
    predicted = task.predict(tokens, kept)
    got = task.losses(targets, predicted, tokens.token_valid(), kept)
    assert targets.patches is not None
    assert predicted.patches is not None
    errors, patch_errors, clip_errors = [], [], []
    for row in range(len(predicted.clip)):
        seen = set(kept.ids[row][kept.valid[row]].tolist())
        hidden = [i for i in tokens.token_valid()[row // 3].nonzero().flatten().tolist() if i not in seen]
        errors.append((predicted.tokens[row, hidden] - targets.tokens[row // 3, hidden]).square().mean())
        patch_errors.append((predicted.patches[row, hidden] - targets.patches[row // 3, hidden]).square().mean())
        clip_errors.append((predicted.clip[row] - targets.clip[row // 3]).square().mean())
    torch.testing.assert_close(got["tokens"], torch.stack(errors).mean())
    torch.testing.assert_close(got["utterance"], torch.stack(clip_errors).mean())
    torch.testing.assert_close(got["reconstruction"], torch.stack(patch_errors).mean())
    torch.testing.assert_close(got["loss"], got["tokens"] + 0.5 * got["utterance"] + 2 * got["reconstruction"])
    assert float(got["weight"]) == 3


@every_method
def test_patches_to_rebuild_are_those_of_the_features(name: str) -> None:
    task = objective(name)
    tokens, features, _, _ = heard(task, (60, 41))
    patches = task.patches(features, tokens.grid)
    rows, columns = tokens.grid
    for row, column in ((0, 0), (1, 3), (rows - 1, columns - 2)):
        want = features[1, 4 * column : 4 * column + 4, 16 * row : 16 * row + 16].T
        torch.testing.assert_close(patches[1, row * columns + column].view(16, 4), 2 * want)


def test_pictures_show_what_the_first_mask_hid() -> None:
    given = batch(*sounds([samples(60), samples(41)]))
    assert objective("asit", latent_reconstruction=0.0).reconstruct(given) is None
    task = objective("asit", latent_reconstruction=1.0)
    shown = task.reconstruct(given)
    assert shown is not None
    tokens, *_ = heard(task, (60, 41))
    kept = task.draw_kept(tokens, given.draw)
    for row in range(2):
        hidden = shown.hidden[row].unfold(0, 4, 4).unfold(1, 16, 16).all((-1, -2)).T.flatten()
        seen = set((~hidden & tokens.token_valid()[row]).nonzero().flatten().tolist())
        assert seen == set(kept.ids[3 * row][kept.valid[3 * row]].tolist())
    assert torch.equal(shown.original[~shown.hidden], shown.rebuilt[~shown.hidden])


@every_method
def test_the_teacher_begins_as_the_student_never_trains_and_follows_it(name: str) -> None:
    task = objective(name, latent_momentum=0.9)
    # What is dropped of the student is not dropped of its teacher.
    assert task.student.encoder.training
    assert not any(module.training for module in task.encoder.modules())
    assert not any(parameter.requires_grad for parameter in task.encoder.parameters())
    before = dict(task.encoder.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in task.student.encoder.state_dict().items())
    before = {key: value.clone() for key, value in before.items()}
    with torch.no_grad():
        for parameter in task.student.encoder.parameters():
            parameter += 1.0
    task.after_step(0.0)
    for key, parameter in task.encoder.named_parameters():
        torch.testing.assert_close(parameter, before[key] + 0.1, atol=1e-6, rtol=1e-6)
    # At the end it stays.
    task.after_step(1.0)
    for key, parameter in task.encoder.named_parameters():
        torch.testing.assert_close(parameter, before[key] + 0.1, atol=1e-6, rtol=1e-6)


def test_spreads_tell_outputs_that_are_all_alike() -> None:
    task = objective("ssast")
    tokens, features, frames, given = heard(task)
    targets, kept = task.teach(features, frames), task.draw_kept(tokens, given.draw)
    predicted, valid = task.predict(tokens, kept), tokens.token_valid()
    usual = task.losses(targets, predicted, valid, kept)
    same = dataclasses.replace(predicted, tokens=torch.ones_like(predicted.tokens))
    alike = task.losses(targets, same, valid, kept)
    assert float(usual["spread_teacher"]) > 0.5
    assert float(usual["spread_student"]) > 0.01
    assert float(alike["spread_student"]) == 0


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_keep": 1.0}, "latent_keep must be below 1"),
        ({"latent_keep": 0.0}, "latent_keep must be above 0"),
        ({"latent_layers": 3}, "latent_layers is 3, but there are 2 layers"),
        ({"latent_clones": 0}, "latent_clones must be above 0"),
        ({"stride_time": 2}, "pretraining needs patches that do not overlap"),
    ],
)
def test_settings_that_make_no_task_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objective("ssast", **settings)


def test_atst_clip_has_no_masked_tokens_to_predict() -> None:
    fields = {field.name for field in dataclasses.fields(get_method("atst-clip").CONFIG)}
    assert not any(name.startswith("latent") or name == "pretext" for name in fields)


@every_method
def test_both_pretext_tasks_have_the_same_encoder(name: str) -> None:
    latent = objective(name)
    paper = get_method(name).build_objective(dataclasses.replace(latent.config, pretext="paper"))
    assert isinstance(paper, Objective)
    paper.encoder.load_state_dict(latent.encoder.state_dict())
    waves, lengths = sounds([samples(60), samples(41)])
    with torch.no_grad():
        one, other = (task.eval().encoder(waves, lengths) for task in (paper, latent))
    assert torch.equal(one.pooled, other.pooled)


@pytest.mark.parametrize("name", ["ssast", "asit", "atst-frame"])
def test_a_base_network_takes_a_step(name: str) -> None:
    preset = get_preset(name, "base-patch" if name == "ssast" else "base")
    torch.manual_seed(0)
    task = (
        get_method(name).build_objective(dataclasses.replace(preset.model, pretext="latent", latent_clones=2)).train()
    )
    given = batch(*sounds([samples(256)]))
    before = [parameter.detach().clone() for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4)
    loss = task(given, 0.0)["loss"]
    loss.backward()
    optimizer.step()
    task.after_step(0.0)
    after = [parameter for parameter in task.parameters() if parameter.requires_grad]
    assert loss.isfinite()
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))
