"""How much memory tensors take while something runs."""

from __future__ import annotations

import weakref

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Held(TorchDispatchMode):
    """The most bytes that tensors made within this context held at once.

    What the kernels allocate inside a call counts as far as they return it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._made: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        sizes = self._sizes()
        given = {_place(x) for x in _tensors([*args, *(kwargs or {}).values()])}
        # Views of what was there before are not made here.
        self._made += [weakref.ref(x) for x in _tensors([out]) if _place(x) in sizes or _place(x) not in given]
        self.most = max(self.most, sum(self._sizes().values()))
        return out

    def _sizes(self) -> dict[int, int]:
        alive = [x for x in (made() for made in self._made) if x is not None]
        self._made = [weakref.ref(x) for x in alive]
        return {_place(x): x.untyped_storage().nbytes() for x in alive}


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _tensors(values: list[object]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(list(value))
    return found
