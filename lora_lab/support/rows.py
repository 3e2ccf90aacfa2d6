"""The rows of the support matrix: each method as it is tried."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lora_lab.specs import METHODS, MOVING_INITS, Init, MethodSpec, Quant

_STARTS: tuple[Init, ...] = ("gaussian", "orthogonal", "pissa", "olora", "eva", "loftq")
_RATES = {
    "lora+": 0.01,
    "adalora": 0.3,
}  # B takes 16 times the one; the other's A and B begin small, and its ΔW would drown in rounding
_QUANTS: tuple[Quant, ...] = ("nf4", "nf4-dq", "int8")


@dataclass(frozen=True, slots=True)
class Row:
    """A method as the matrix tries it."""

    title: str
    spec: MethodSpec
    quant: Quant = "none"
    learning_rate: float = 0.05

    @property
    def start(self) -> Literal["exact", "rounding", "none"]:
        """How the outputs at step 0 are the base's: bit for bit, to rounding, or not at all."""
        if self.spec.method in ("prefix", "preembed"):
            return "none"
        return "rounding" if self.spec.init_lora_weights in ("orthogonal", *MOVING_INITS) else "exact"


def _rows_of(method: str) -> Iterator[Row]:
    if method == "qlora":
        yield from (Row(f"qlora ({quant})", MethodSpec(method=method, r=2), quant) for quant in _QUANTS)
        return
    yield Row(method, MethodSpec(method=method, r=2), learning_rate=_RATES.get(method, 0.05))
    if method == "lora":
        yield Row("lora (MLP)", MethodSpec(r=2, target_modules=("up", "down")))
        yield from (Row(f"lora ({init})", MethodSpec(r=2, init_lora_weights=init)) for init in _STARTS)


ROWS: dict[str, Row] = {row.title: row for method in METHODS for row in _rows_of(method)}
