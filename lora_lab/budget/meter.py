"""Counting live bytes on the meta device: every storage that an operation makes, until nothing refers to it."""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora_lab.budget.ledger import Ledger, Part

_BLOCK_BYTES = 512  # the CUDA allocator rounds up to it


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, every new storage is billed to `part`, or to the loss where it is as wide as the vocabulary.

    `peak` is the bill at the moment when most was alive.
    """

    def __init__(self, vocab: int, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part: Part = "activations"
        self.alive: Counter[Part] = Counter()
        self.peak: Counter[Part] = Counter()
        self._vocab, self._tokens = vocab, tokens
        self._bills: dict[int, tuple[Part, int]] = {}
        self._total = self._most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_meta:  # an optimizer counts its steps on the CPU
                self.bill(leaf, "loss" if self._is_logits(leaf) else self.part)
        return result

    def _is_logits(self, tensor: Tensor) -> bool:
        return self.part == "activations" and tensor.shape[-1:] == (self._vocab,) and tensor.numel() >= self._tokens * self._vocab

    def bill(self, tensor: Tensor, part: Part, *, again: bool = False) -> None:
        """Count a tensor's storage once; `again` moves it to another part."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._bills:
            if again:
                old, size_bytes = self._bills[key]
                self._bills[key] = (part, size_bytes)
                self.alive[old] -= size_bytes
                self.alive[part] += size_bytes
            return
        size_bytes = -(-storage.nbytes() // _BLOCK_BYTES) * _BLOCK_BYTES
        self._bills[key] = (part, size_bytes)
        self.alive[part] += size_bytes
        self._total += size_bytes
        weakref.finalize(storage, self._free, key)
        if self._total > self._most:
            self._most, self.peak = self._total, Counter(self.alive)

    def _free(self, key: int) -> None:
        part, size_bytes = self._bills.pop(key)
        self.alive[part] -= size_bytes
        self._total -= size_bytes

    @contextmanager
    def billing(self, part: Part) -> Iterator[None]:
        """New storages go to `part`."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def ledger(self) -> Ledger:
        """The bill at the peak."""
        return Ledger(**{part: int(n) for part, n in self.peak.items()})
