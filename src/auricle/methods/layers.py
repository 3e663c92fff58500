"""Outputs of a network's layers, of which only those that somebody asked for are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import SupportsIndex, overload

from torch import Tensor


class LayerOutputs(tuple[Tensor, ...]):
    """A tuple of the outputs of all layers, in which some may be missing.

    An index counts all layers, whichever are kept: -1 is the last one.

    Args:
        total: how many layers there are.
        kept: outputs by the number of their layer, from 0.
    """

    def __new__(cls, total: int = 0, kept: Mapping[int, Tensor] | None = None) -> LayerOutputs:
        # Empty tuples stand where nothing is kept, which every function of torch refuses.
        return super().__new__(cls, [(kept or {}).get(number, ()) for number in range(total)])  # type: ignore

    @property
    def kept(self) -> dict[int, Tensor]:
        """Those that are there, by number."""
        return {number: x for number, x in enumerate(super().__iter__()) if isinstance(x, Tensor)}

    @overload
    def __getitem__(self, index: SupportsIndex) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tensor, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Tensor | tuple[Tensor, ...]:
        """One layer's output, or those of a slice.

        Raises:
            IndexError: there is no such layer.
            LookupError: it was not asked for.
        """
        found = super().__getitem__(index)
        for x in found if isinstance(index, slice) else [found]:
            if not isinstance(x, Tensor):
                raise LookupError("a layer is read that was not asked for; name it in layers= of the encoder's call.")
        return found

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self[:])


NO_LAYERS = LayerOutputs()


def numbers_of(layers: Iterable[int] | None, total: int) -> tuple[int, ...]:
    """The layers that are asked for, numbered from 0 and rising; all of `total`, if None, and -1 is the last.

    Raises:
        IndexError: there is no such layer.
    """
    if layers is None:
        return tuple(range(total))
    asked = tuple(layers)
    if wrong := [layer for layer in asked if not -total <= layer < total]:
        raise IndexError(
            f"there is no layer {wrong[0]} in a network of {total}: layers= counts from 0 to {total - 1}, or from the "
            f"end by -1 to -{total}."
        )
    return tuple(sorted({layer % total for layer in asked}))
