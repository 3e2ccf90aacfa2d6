"""What is selected, as one frozen value that travels in the address from view to view."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast
from urllib.parse import urlencode

from lora_lab.plots import choices
from lora_lab.specs import COLUMNS, DataSpec, Task

# As an address writes them.
ALPHAS = tuple((label, value if isinstance(value, str) else f"{value:g}") for label, value in choices.ALPHAS)


@dataclass(frozen=True)
class Selection:
    """Every choice on the page. Values that the address does not name, or names wrongly, are these."""

    bench: str = "digits"
    base: str = ""
    data: str = ""
    task: str = ""
    text_column: str = "text"
    label_column: str = "label"
    pair_column: str = ""
    prompt_column: str = "prompt"
    completion_column: str = "completion"
    methods: tuple[str, ...] = ("lora",)
    r: tuple[int, ...] = (1, 2, 4, 8)
    alpha: str = "16"
    targets: tuple[str, ...] = ("q", "v")
    seeds: tuple[int, ...] = (0, 1)
    lr: float | None = None
    steps: int | None = None
    init: tuple[str, ...] = ("default",)
    base_quant: str = ""
    optim: str = "AdamW"
    dropout: float = 0.0
    tokens: int = 8
    snapshots: int = 0
    shapes: tuple[str, ...] = ()
    repeats: int = 20
    job: str = ""
    run: str = ""
    against: str = ""
    matrix: str = ""
    side: str = "in"
    of: str = "delta"
    measure: str = ""  # what the map of matrices shows; each room of Look has a default
    threshold: float = 0.5  # of an intruder dimension
    under: str = ""  # the base under an adapter opened from a file
    asked: tuple[str, ...] = ()
    example: int = 0
    model: str = "Llama-3.2-3B"
    method: str = "lora"
    rank: int = 8
    layers: str = ""
    batch: int = 4
    seq: int = 1024
    dtype: str = "bf16"
    quant: str = "none"
    optimizer: str = "adamw"
    attention: str = "sdpa"
    options: tuple[str, ...] = ()
    card: str = "RTX 4090"
    shade: str = "params"
    params: int = 0
    compared: tuple[str, ...] = ()  # methods of the method bench; none stands for all that the base can take
    budgets: str = ""
    factors: str = "0.3,1,3"
    trials: tuple[int, ...] = (0, 1, 2)
    pay: str = "trainable_params"
    get: str = "score"
    kept: str = ""  # the bench whose results are shown
    paper: str = ""  # a recorded reproduction, or own: and the bench of one in this store
    only: tuple[str, ...] = ()  # methods among them; none stands for all

    @property
    def is_own(self) -> bool:
        """Whether base and data are the user's own."""
        return self.bench == "yours"

    @property
    def bench_name(self) -> str:
        """The bench as the core knows it."""
        return self.base if self.is_own else self.bench

    @property
    def data_spec(self) -> DataSpec | None:
        """The user's own data, where they are chosen.

        Raises:
            SpecError: no such task.
        """
        if not self.is_own:
            return None
        columns = {column: getattr(self, column) for column in COLUMNS}
        return DataSpec(path=self.data, task=cast(Task, self.task), **columns)

    def query(self) -> str:
        """The address's query: what differs from the defaults."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        flat = {name: ",".join(map(str, v)) if isinstance(v, tuple) else v for name, v in changed.items()}
        return urlencode({name: value for name, value in flat.items() if value is not None}, safe=",:/")

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> "Selection":
        """The selection that an address names."""
        values: dict[str, Any] = {}
        for f in fields(cls):
            if f.name in query:
                try:
                    values[f.name] = _parse(f.default, f.name, query[f.name])
                except ValueError:
                    continue
        selection = cls(**values)
        of = selection.of if selection.of in ("delta", "a") else cls.of
        side = selection.side if selection.side in ("in", "out") and of == "delta" else cls.side
        threshold = selection.threshold if 0 < selection.threshold <= 1 else cls.threshold
        return replace(selection, of=of, side=side, threshold=threshold)


def _parse(default: object, name: str, text: str) -> Any:
    if isinstance(default, tuple):
        kind = type(default[0]) if default else str
        return tuple(kind(part) for part in text.split(",") if part)
    if isinstance(default, int):
        return int(text)
    if isinstance(default, float):
        return float(text)
    if default is None:
        return int(text) if name == "steps" else float(text)
    return text
