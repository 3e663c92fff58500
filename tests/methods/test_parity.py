"""The official numbers, recomputed from the official inputs, and proof that the comparison can fail."""

from __future__ import annotations

import json
import re
from pathlib import Path

import goldens
import pytest
import torch
from goldens import altered, cases_of, computes, each_case, inputs_of, needs_goldens
from safetensors.torch import load_file
from torch import Tensor

from auricle.errors import DataError
from auricle.interop import parity_asit, parity_atst, parity_ssamba, parity_ssast
from auricle.interop.parity import CaseResult, families, find_cases, run_case

RUNNERS = (parity_ssast, parity_ssamba, parity_atst, parity_asit)
FAMILIES = {name: family for runner in RUNNERS for name, family in runner.FAMILIES.items()}


def failures(result: CaseResult) -> list[str]:
    return [result.error] * bool(result.error) + [f"{row.name}: {row}" for row in result.rows if not row.passed]


@each_case([case for case in goldens.CASES if computes(case) in families()])
def test_every_value_of_a_case_is_reproduced(case: Path) -> None:
    result = run_case(case)
    assert failures(result) == []
    assert result.passed
    stored = load_file(case / "io.safetensors")
    assert {row.name for row in result.rows} == set(stored) - set(inputs_of(case))


@needs_goldens
def test_all_families_of_the_goldens_are_known() -> None:
    assert {computes(case) for case in goldens.CASES} <= set(families())
    assert set(FAMILIES) <= {computes(case) for case in goldens.CASES}


def blanked(case: Path, to: Path) -> Path:
    given = inputs_of(case)
    return altered(case, to, "io.safetensors", lambda name, x: x if name in given else torch.zeros_like(x))


@each_case([case for case in goldens.CASES if computes(case) in families()])
def test_nothing_is_copied_from_the_expected_values(case: Path, tmp_path: Path) -> None:
    run_case(case, tmp_path / "seeing")
    blind = run_case(blanked(case, tmp_path / "blank"), tmp_path / "blind")
    assert not blind.error
    seen, unseen = (
        load_file(tmp_path / who / case.parent.name / case.name / "io.safetensors") for who in ("seeing", "blind")
    )
    assert seen.keys() == unseen.keys() == set(load_file(case / "io.safetensors")) - set(inputs_of(case))
    for name, value in seen.items():
        assert torch.equal(value, unseen[name]), name
    # The same outputs against blanked values: the comparison fails on everything that is not itself zero.
    assert not blind.passed
    assert {row.name for row in blind.rows if row.passed} <= {n for n, x in seen.items() if x.abs().max() < 1e-3}


@each_case([case for case in goldens.CASES if computes(case) in families()])
def test_a_case_moves_with_its_files_not_with_its_name(case: Path, tmp_path: Path) -> None:
    moved = altered(case, tmp_path, "io.safetensors", lambda _, x: x).rename(tmp_path / "renamed")
    assert run_case(moved).passed


# It can fail ------------------------------------------------------------------------------------------------------


def nudge(x: Tensor) -> Tensor:
    return x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) if x.is_floating_point() else x


@each_case([*cases_of("pretrain_losses"), *cases_of("pretrain_losses", "ssamba")])
def test_every_weight_that_the_official_forward_uses_matters(case: Path, tmp_path: Path) -> None:
    unused = json.loads((case / "meta.json").read_text())["params_without_grad"]
    silent = []
    # Of the layers, one stands for all.
    for name in (n for n in load_file(case / "weights.safetensors") if not re.search(r"\.[02-9]\.(mixer|attn|mlp)", n)):

        def change(n: str, x: Tensor, hit: str = name) -> Tensor:
            return nudge(x) if n == hit else x

        if run_case(altered(case, tmp_path / name, "weights.safetensors", change)).passed:
            silent.append(name.removeprefix("module."))
    assert sorted(silent) == sorted(unused)


WEIGHTS = {
    "asit": ["pos_embed", "patch_embed.proj.weight", "blocks.1.mlp.fc1.bias", "norm.weight"],
    "ssast": ["v.pos_embed", "v.patch_embed.proj.weight", "v.blocks.1.mlp.fc1.bias", "v.norm.weight"],
    "ssamba": ["v.pos_embed", "v.patch_embed.proj.weight", "v.layers.1.mixer.x_proj_b.weight", "v.norm_f.weight"],
}
FORWARD = [case for system in WEIGHTS for f in ("finetune_forward", "superb_upstream") for case in cases_of(f, system)]
FORWARD += [
    case
    for f in ("vit_forward", "pretrain_step", "finetune_ast_style", "pretrainedsed_forward")
    for case in cases_of(f, "asit")
]


@pytest.mark.parametrize("name", [pytest.param(i, id=f"weight-{i}") for i in range(4)])
@each_case(FORWARD)
def test_a_wrong_weight_fails_the_forward_cases(case: Path, name: int, tmp_path: Path) -> None:
    wrong = WEIGHTS[case.parent.name][name]
    copy = altered(case, tmp_path, "weights.safetensors", lambda n, x: nudge(x) if n.endswith(wrong) else x)
    result = run_case(copy)
    assert not result.error
    assert not result.passed


@each_case([case for case in FORWARD if (case / "head.safetensors").exists()])
def test_a_wrong_head_fails_its_logits_and_nothing_else(case: Path, tmp_path: Path) -> None:
    result = run_case(altered(case, tmp_path, "head.safetensors", lambda _, x: nudge(x)))
    logits = {row.name for row in result.rows if row.name.startswith("logits")}
    assert {"logits_avgtok", "logits_cls"} <= logits
    assert {row.name for row in result.rows if not row.passed} == logits


@each_case(cases_of("clip_pretrain_step", "atst") + cases_of("frame_pretrain_step", "atst"))
def test_every_weight_of_teacher_and_student_matters(case: Path, tmp_path: Path) -> None:
    # Statistics of earlier batches do not matter to a step, and ATST-Clip has no use for its mask token.
    unused = re.compile(r"running_|num_batches|" + ("mask_embed" if "clip" in case.name else "^$"))
    for name in load_file(case / "weights.safetensors"):
        if re.search(r"blocks\.1", name) or unused.search(name):
            continue

        def change(n: str, x: Tensor, hit: str = name) -> Tensor:
            return nudge(x) if n == hit else x

        assert not run_case(altered(case, tmp_path / name, "weights.safetensors", change)).passed, name


@each_case([case for case in goldens.CASES if computes(case) in FAMILIES])
def test_a_wrong_input_fails_the_case(case: Path, tmp_path: Path) -> None:
    # Given twice, the draws say the same; a scan of one step begins at zero, so nothing decays.
    ignored = {"specaug_freq_mask", "specaug_time_mask", "case1.A"}
    for name in set(inputs_of(case)) - ignored:

        def change(n: str, x: Tensor, hit: str = name) -> Tensor:
            if n != hit:
                return x
            if n.startswith("length"):
                # By more than a patch.
                return x - 16
            if x.numel() == 1 and x.is_floating_point():
                # A share of what rectangles cover is noticed only where it is one rectangle less.
                return x / 2
            return nudge(x) + 0.01 if x.is_floating_point() else (x + 1 if x.ndim == 0 else x.roll(1, dims=-1) + 1)

        result = run_case(altered(case, tmp_path / name, "io.safetensors", change))
        assert not result.passed, name


# The runner -------------------------------------------------------------------------------------------------------


def write_case(folder: Path, computes: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"contract": {"computes": computes, "inputs": []}}))
    return folder


def test_an_unknown_family_is_a_failure_never_a_skip(tmp_path: Path) -> None:
    result = run_case(write_case(tmp_path / "a", "ssast/mind_reading"))
    assert not result.passed
    assert "does not compute 'ssast/mind_reading'" in result.error


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_case_without_its_files_fails_and_does_not_stop_the_others(family: str, tmp_path: Path) -> None:
    result = run_case(write_case(tmp_path / "a", family))
    assert not result.passed
    assert result.error


def test_a_damaged_case_fails(tmp_path: Path) -> None:
    case = write_case(tmp_path / "a", "ssast/mask_sampler")
    (case / "io.safetensors").write_bytes(b"not a file of tensors")
    assert "SafetensorError" in run_case(case).error
    (case / "meta.json").write_text("{")
    assert "meta.json cannot be read" in run_case(case).error


def test_cases_are_found_at_and_below_a_path(tmp_path: Path) -> None:
    cases = [write_case(tmp_path / "x" / name, "f") for name in ("a", "b")]
    assert find_cases([tmp_path]) == cases
    assert find_cases(cases[:1]) == cases[:1]
    with pytest.raises(DataError, match="no such folder"):
        find_cases([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no parity case"):
        find_cases([tmp_path / "empty"])
