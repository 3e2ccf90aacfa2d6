"""The LoRA paper's own figures, each beside ours: computed from the catalogue's shapes, never bent towards the paper's.

Source: Hu et al. 2021 (arXiv 2106.09685v2), as `data/paper.json` keeps it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from lora_lab.assets import DATA_DIR
from lora_lab.budget.counts import method_params
from lora_lab.budget.files import disk_for_tasks_bytes
from lora_lab.budget.formula import formula
from lora_lab.budget.models import find_model
from lora_lab.geometry import Geometry
from lora_lab.specs import MethodSpec, StepSpec
from lora_lab.units import file_size

PAPER_JSON = DATA_DIR / "paper.json"
Unit = Literal["parameters", "bytes", "ratio"]
_SUFFIXES = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "M": 10**6, "x": 1, "": 1}
_FP16_BYTES = 2
_TASKS = 100  # of the footnote


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that the paper prints, and what the same thing comes to here.

    `paper` and `ours` are in `unit`; `assumes` is one sentence on what ours takes for granted.
    """

    name: str
    source: str
    paper_text: str
    ours: int | float
    unit: Unit
    assumes: str

    @property
    def paper(self) -> float:
        """The printed number, in its unit."""
        return float(_printed(self.paper_text)[0])

    @property
    def gap(self) -> float:
        """How far ours lies from the paper's, as a share of the paper's."""
        return self.ours / self.paper - 1

    @property
    def is_as_printed(self) -> bool:
        """Whether ours differs by less than one unit of the last digit printed: the paper rounds some counts and cuts others."""
        value, last_digit = _printed(self.paper_text)
        return abs(Fraction(self.ours) - value) < last_digit

    @property
    def ours_text(self) -> str:
        """Ours as people read it; a count in full."""
        return {"parameters": f"{self.ours:,}", "bytes": file_size(round(self.ours)), "ratio": f"{self.ours:,.4g}"}[self.unit]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What GPT-3 reached with one choice of matrices at one rank; accuracies as shares of 1."""

    targets: tuple[str, ...]
    r: int
    wikisql: float
    multinli: float


@dataclass(frozen=True, slots=True)
class PaperLatency:
    """One forward pass of GPT-2 medium at one shape, in seconds: mean and standard deviation of the paper's trials.

    `seconds` is by the lab's names: `base` stands for fine-tuning and merged LoRA, which the paper times as one,
    `adapter_pfeiffer` for its Adapter^L and `adapter` for its Adapter^H.
    """

    batch: int
    tokens: int
    adapter_params: str
    seconds: dict[str, tuple[float, float]]

    def ratio(self, name: str) -> float:
        """Mean time over the base's."""
        return self.seconds[name][0] / self.seconds["base"][0]


@dataclass(frozen=True, slots=True)
class PaperAmplification:
    """A half of Table 7: ‖UᵀWVᵀ‖_F with U and V of r directions from ΔW, from W itself and at random."""

    matrix: str
    base_frobenius: float
    r: int
    on_delta: float
    on_base: float
    on_random: float
    frobenius: float

    @property
    def factor(self) -> float:
        """‖ΔW‖_F / on_delta, which the paper gives as 21.5 for r = 4."""
        return self.frobenius / self.on_delta


@cache
def paper_figures() -> tuple[Figure, ...]:
    """Every count and size of the paper that follows from shapes, in the paper's order."""
    return tuple(_figure(record) for record in _facts()["figures"])


def table_1() -> tuple[PaperLatency, ...]:
    """Inference latency on a GPU (Quadro RTX 8000), 100 trials each."""
    return tuple(_latency(column) for column in _facts()["table_1"]["columns"])


def table_5() -> tuple[Accuracy, ...]:
    """Which matrices to adapt, at 18,874,368 parameters each. The paper gives ±0.5 % for WikiSQL and ±0.1 % for MultiNLI."""
    return tuple(_accuracy(record) for record in _facts()["table_5"])


def table_6() -> tuple[Accuracy, ...]:
    """The effect of r on three choices of matrices."""
    return tuple(_accuracy(record) for record in _facts()["table_6"])


def table_7() -> tuple[PaperAmplification, ...]:
    """What ΔW_q of one layer amplifies, at r = 4 and at r = 64."""
    facts = _facts()["table_7"]
    return tuple(PaperAmplification(facts["matrix"], facts["base_frobenius"], **column) for column in facts["columns"])


@cache
def _facts() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(PAPER_JSON.read_text(encoding="utf-8"))
    return facts


def _accuracy(record: Mapping[str, Any]) -> Accuracy:
    shares = (float(Fraction(str(record[name])) / 100) for name in ("wikisql_percent", "multinli_percent"))
    return Accuracy(tuple(record["target_modules"]), record["r"], *shares)


def _latency(column: Mapping[str, Any]) -> PaperLatency:
    seconds = {name: (mean / 1000, sd / 1000) for name, (mean, sd) in column["ms"].items()}
    return PaperLatency(column["batch"], column["tokens"], column["adapter_params"], seconds)


def _figure(record: Mapping[str, Any]) -> Figure:
    ours = _OURS[record["of"]](find_model(record["model"]).geometry, record)
    return Figure(record["name"], record["source"], record["printed"], ours, record["unit"], record["assumes"])


def _printed(text: str) -> tuple[Fraction, Fraction]:
    """A printed number and one unit of its last digit; a fraction such as 2/3 is meant exactly.

    >>> _printed("37.7M")
    (Fraction(37700000, 1), Fraction(100000, 1))
    """
    number = text.rstrip("MGTBx")
    scale = _SUFFIXES[text.removeprefix(number)]
    value = Fraction(number.replace(",", "")) * scale
    if "/" in number:
        return value, Fraction(0)
    return value, Fraction(scale, 10 ** len(number.partition(".")[2]))


def _specs(record: Mapping[str, Any]) -> list[MethodSpec]:
    return [MethodSpec(**{**spec, "target_modules": tuple(spec.get("target_modules", ()))}) for spec in record["specs"]]


def _trained(geometry: Geometry, record: Mapping[str, Any]) -> int:
    """The parameters of all methods together, and of LayerNorms that an adapter brings along."""
    hidden = geometry.architecture.hidden if geometry.architecture else 0
    norms_a_block: int = record.get("layer_norms_a_block", 0)
    norms = norms_a_block * len(geometry.blocks) * 2 * hidden
    return norms + sum(method_params(geometry, spec) for spec in _specs(record))


def _weight_bytes(geometry: Geometry, record: Mapping[str, Any]) -> int:
    """The base's weights, as the ledger of a step in fp16 has them."""
    return formula(geometry, _specs(record)[0], StepSpec(seq=1, dtype="fp16")).weights


def _state_bytes(geometry: Geometry, record: Mapping[str, Any]) -> int:
    """Weights, gradients and Adam's two moments of everything, each as wide as the weights."""
    return 4 * _weight_bytes(geometry, record)


def _saved_share(geometry: Geometry, record: Mapping[str, Any]) -> float:
    return 1 - _weight_bytes(geometry, record) / _state_bytes(geometry, record)


def _adapter_bytes(geometry: Geometry, record: Mapping[str, Any]) -> int:
    return _FP16_BYTES * _trained(geometry, record)


def _model_to_adapter(geometry: Geometry, record: Mapping[str, Any]) -> float:
    return _weight_bytes(geometry, record) / _adapter_bytes(geometry, record)


def _as_models(geometry: Geometry, record: Mapping[str, Any]) -> int:
    return disk_for_tasks_bytes(_weight_bytes(geometry, record), _adapter_bytes(geometry, record), _TASKS)[0]


def _as_adapters(geometry: Geometry, record: Mapping[str, Any]) -> int:
    return disk_for_tasks_bytes(_weight_bytes(geometry, record), _adapter_bytes(geometry, record), _TASKS)[1]


_OURS: dict[str, Callable[[Geometry, Mapping[str, Any]], int | float]] = {
    "trained": _trained,
    "frozen weights": _weight_bytes,
    "model file": _weight_bytes,
    "16-bit training state": _state_bytes,
    "saved share": _saved_share,
    "adapter file": _adapter_bytes,
    "model to adapter": _model_to_adapter,
    "tasks as models": _as_models,
    "tasks as adapters": _as_adapters,
}
