"""An adapter as the analysis sees it: module name -> LowRank."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_lab.lowrank import LowRank


@dataclass(frozen=True)
class Adapter(Mapping[str, LowRank]):
    """Every ΔW of an adapter by its module path in the base model, without any framework's prefix.

    `scaling_source` says where the scaling was found; `warnings` are sentences about what the factors do not tell.
    """

    format: str
    modules: Mapping[str, LowRank]
    scaling_source: str
    warnings: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> LowRank:
        return self.modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)
