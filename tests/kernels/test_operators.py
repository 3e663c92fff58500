"""The kernels as torch operators: fake tensors, autocast, compilation, export, and what is kept for the way back."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scan_cases import NAMES, inputs
from torch import Tensor, library, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from auricle.errors import ConfigError
from auricle.kernels import backends, causal_conv1d, native, reference, scan_native, selective_scan
from auricle.kernels.convolution import _convolution
from auricle.kernels.scan import _scan
from auricle.nn.mamba import Mamba


@pytest.mark.parametrize("absent", [(), NAMES[5:]])
@pytest.mark.parametrize("reverse", [[False], [False, True]])
def test_the_scan_is_well_behaved(reverse: list[bool], absent: tuple[str, ...]) -> None:
    given = {name: x for name, x in inputs(2, 6, 4, 9).items() if name not in absent}
    stacked = {name: x if name == "z" else torch.stack([x] * len(reverse)) for name, x in given.items()}
    arguments = [stacked[name].requires_grad_() if name in stacked else None for name in NAMES]
    library.opcheck(_scan, (*arguments, torch.tensor([7, 9]), True, reverse, True))


@pytest.mark.parametrize("reverse", [[True], [False, True]])
def test_the_convolution_is_well_behaved(reverse: list[bool]) -> None:
    x, weight, bias = (
        torch.randn(1, 9, 6).transpose(1, 2),
        torch.randn(len(reverse), 6, 4),
        torch.randn(len(reverse), 6),
    )
    for t in (x, weight, bias):
        t.requires_grad_()
    library.opcheck(_convolution, (x, weight, bias, torch.tensor([7]), True, reverse))


def test_fake_tensors_have_the_shape_type_and_strides_of_real_ones() -> None:
    given = [x.bfloat16() for x in inputs(2, 6, 4, 9).values()]
    real, last = selective_scan(*given[:8], True, True)
    with FakeTensorMode() as mode:
        fake, fake_last = selective_scan(*[mode.from_tensor(x) for x in given[:8]], True, True)
    for found, wanted in ((fake, real), (fake_last, last)):
        assert (found.shape, found.dtype, found.stride()) == (wanted.shape, wanted.dtype, wanted.stride())


def test_autocast_leaves_the_kernels_alone() -> None:
    given = list(inputs(1, 8, 16, 30).values())
    wanted = selective_scan(*given[:8], True)
    convolved = causal_conv1d(given[0], torch.ones(8, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(selective_scan(*given[:8], True), wanted)
        assert torch.equal(causal_conv1d(given[0], torch.ones(8, 4)), convolved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_have_the_types_of_what_they_belong_to(dtype: torch.dtype) -> None:
    given = {name: x.to(dtype) if x.ndim == 3 else x for name, x in inputs(1, 8, 16, 30).items()}
    leaves = {name: x.detach().clone().requires_grad_() for name, x in given.items()}
    out = selective_scan(*[leaves[name] for name in NAMES[:8]], True, initial_state=leaves["initial_state"])
    assert out.dtype == dtype
    out.float().sum().backward()
    exact = {name: x.detach().float().requires_grad_() for name, x in given.items()}
    selective_scan(*[exact[n] for n in NAMES[:8]], True, initial_state=exact["initial_state"]).sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad.dtype == given[name].dtype
        largest = exact[name].grad.abs().max()
        assert (leaf.grad.float() - exact[name].grad).abs().max() <= 0.01 * largest, name


class Last(nn.Module):
    """A mixer whose rows have different lengths."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.mixer = Mamba(8, states=4, kind=kind)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.mixer(x, lengths)


def results_of(mixer: nn.Module, run: Callable[..., Tensor], x: Tensor, lengths: Tensor) -> list[Tensor]:
    """The output, and the gradients of all parameters and of x."""
    x = x.clone().requires_grad_()
    mixer.zero_grad()
    y = run(x, lengths)
    y.square().sum().backward()
    return [y.detach(), x.grad, *[p.grad.clone() for p in mixer.parameters()]]


@pytest.mark.parametrize("kind", ["v2", "v1", "none"])
def test_a_compiled_mixer_is_one_graph_and_equal(kind: str) -> None:
    torch.manual_seed(0)
    mixer, x, lengths = Last(kind), torch.randn(2, 21, 8), torch.tensor([21, 13])
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
    for found, wanted in zip(*[results_of(mixer, run, x, lengths) for run in (mixer, compiled)], strict=True):
        torch.testing.assert_close(found, wanted)


# Slow: the compiler that users have writes C++ and compiles it.
@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_mixer_compiled_by_inductor_takes_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    torch.manual_seed(0)
    mixer = Last("v2")
    compiled = torch.compile(mixer, fullgraph=True, dynamic=True)
    for steps in (21, 50):
        x, lengths = torch.randn(2, steps, 8), torch.tensor([steps, 13])
        for found, wanted in zip(*[results_of(mixer, run, x, lengths) for run in (mixer, compiled)], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_an_exported_mixer_takes_any_length() -> None:
    torch.manual_seed(0)
    mixer, lengths = Last("v2").eval(), torch.tensor([20, 13])
    steps = torch.export.Dim("steps", min=2, max=4096)
    # Without gradients: what is kept for them comes in whole chunks, and export would fix their number.
    with torch.no_grad():
        given = torch.randn(2, 21, 8), lengths
        program = torch.export.export(mixer, given, dynamic_shapes=({1: steps}, None), strict=False)
    x = torch.randn(2, 50, 8)
    torch.testing.assert_close(program.module()(x, lengths), mixer(x, lengths))


def test_nothing_is_kept_for_a_way_back_that_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(1, 8, 16, 200)
    kept = []
    original = scan_native.forward

    def spied(*args: object) -> tuple[Tensor, Tensor, Tensor]:
        result = original(*args)
        kept.append(result[2].numel())
        return result

    monkeypatch.setattr(scan_native, "forward", spied)
    selective_scan(*[given[name] for name in NAMES[:8]], True)
    with torch.no_grad():
        selective_scan(*[given[name].requires_grad_() for name in NAMES[:8]], True)
    selective_scan(*[given[name] for name in NAMES[:8]], True)
    assert kept == [0, 0, math.ceil(200 / scan_native.CHUNK) * 8 * 16]


@pytest.mark.parametrize("used", ["out", "last", "both"])
def test_without_its_registration_the_operator_is_the_same(used: str) -> None:
    given = inputs(2, 8, 4, 40)
    lengths = torch.tensor([40, 31])

    def registered(*x: Tensor) -> tuple[Tensor, Tensor]:
        stacked = [t if index == scan_native.Z else t[None] for index, t in enumerate(x)]
        out, last, _ = _scan(*stacked, lengths, True, [False], True)
        return out, last[0]

    def front_door(*x: Tensor) -> tuple[Tensor, Tensor]:
        return selective_scan(*x[:8], True, True, initial_state=x[8], lengths=lengths)

    def truth(*x: Tensor) -> tuple[Tensor, Tensor]:
        return reference.selective_scan(*x[:8], True, initial_state=x[8], lengths=lengths)

    results = []
    for scan in (registered, front_door, truth):
        leaves = [given[name].clone().requires_grad_() for name in NAMES]
        out, last = scan(*leaves)
        loss = {"out": out.sum(), "last": last.square().sum(), "both": out.sum() + last.sum()}[used]
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        results.append([torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)])
    for op, door, right in zip(*results, strict=True):
        assert torch.equal(op, door)
        torch.testing.assert_close(door, right, rtol=1e-4, atol=1e-4)


def test_other_kernels_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [inputs(1, 8, 16, 30)[name] for name in NAMES[:8]]
    wanted = selective_scan(*given, True)
    with backends.use("torch"):
        assert backends.backend("cpu") == "torch"
        torch.testing.assert_close(selective_scan(*given, True), wanted, rtol=1e-5, atol=1e-5)
    assert backends.backend("cpu") == "native"
    monkeypatch.setenv("AURICLE_KERNELS", "torch")
    assert backends.backend("cpu") == "torch"
    with pytest.raises(ConfigError, match="choose one of native, triton, torch"), backends.use("cuda"):
        pass


@pytest.mark.parametrize(
    ("asked", "device", "sentence"),
    [
        ("cuda", "cpu", "there are no kernels 'cuda'; choose one of native, triton, torch"),
        ("native", "cpu", "installed without its C\\+\\+ kernels; install a C\\+\\+ compiler and reinstall auricle"),
        ("native", "cuda", "the native kernels run on CPUs, not on 'cuda'"),
        ("triton", "cpu", "the Triton kernels run on GPUs, not on 'cpu'"),
    ],
)
def test_kernels_that_cannot_run_are_refused_in_a_sentence(
    asked: str, device: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked == "triton":
        pytest.importorskip("triton", reason="needs triton (extra 'gpu')")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(native, "LIBRARY", Path("nowhere.so"))
    monkeypatch.setenv("AURICLE_KERNELS", asked)
    native.kernels.cache_clear()
    try:
        with pytest.raises(ConfigError, match=sentence):
            backends.backend(device)
    finally:
        native.kernels.cache_clear()


@pytest.mark.parametrize("name", ["ABI", "CHUNK", "BLOCK", "MAX_TAPS"])
def test_a_library_of_other_sizes_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.kernels() is not None
    monkeypatch.setattr(native, name, getattr(native, name) + 1)
    native.kernels.cache_clear()
    try:
        assert native.kernels() is None
    finally:
        native.kernels.cache_clear()


def test_a_library_of_other_structures_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(native.Scan):
        _fields_ = (("more", native.c_int64),)

    monkeypatch.setattr(native, "Scan", Longer)
    native.kernels.cache_clear()
    try:
        assert native.kernels() is None
    finally:
        native.kernels.cache_clear()


def test_triton_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with backends.use("triton"), pytest.raises(ConfigError, match="triton is not installed"):
        backends.backend("cuda")


def test_instructions_of_no_name_are_refused_without_a_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LIBRARY", Path("nowhere.so"))
    native.kernels.cache_clear()
    try:
        monkeypatch.setenv("AURICLE_ISA", "sse9")
        with pytest.raises(ConfigError, match="no instructions 'sse9'; AURICLE_ISA may be avx512 or avx2 or neon or"):
            backends.backend("cpu")
        monkeypatch.setenv("AURICLE_ISA", "avx2")
        assert native.kernels() is None
    finally:
        native.kernels.cache_clear()


def test_instructions_that_are_not_there_are_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as asked:
        asked.setenv("AURICLE_ISA", "sse9")
        native.kernels.cache_clear()
        with pytest.raises(ConfigError, match="no instructions 'sse9'") as refused:
            selective_scan(*[inputs(1, 8, 16, 30)[name] for name in NAMES[:8]], True)
    offered = str(refused.value).partition("may be ")[2].rstrip(".").split(" or ")
    assert offered
    for name in offered:
        native.set_instruction_set(name)
        assert native.instruction_set() == name
    native.set_instruction_set("")
