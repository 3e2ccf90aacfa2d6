"""`python -m lora_lab.budget.evidence`: how far formula and trace lie from measurements, from each other and from the paper.

It writes `docs/evidence.md`. Its numbers depend on the code and on `data/` alone.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_lab.assets import DATA_DIR
from lora_lab.budget.budget import budget
from lora_lab.budget.models import find_model, model_names
from lora_lab.budget.paper import Figure, paper_figures
from lora_lab.specs import METHODS, MethodSpec, StepSpec, unique
from lora_lab.units import difference, gigabytes

EVIDENCE_MD = DATA_DIR.parent / "docs" / "evidence.md"
CASES_CSV = DATA_DIR / "vram_cases.csv"
SUPPORT_JSON = DATA_DIR / "support.json"


@dataclass(frozen=True, slots=True)
class Setting:
    """One configuration whose memory is reckoned both ways."""

    model: str
    spec: MethodSpec
    step: StepSpec


@dataclass(frozen=True, slots=True)
class Case:
    """A configuration that somebody measured on a card, and which counter was read."""

    id: str
    setting: Setting
    measured_bytes: int
    counter: str
    source: str


def cases() -> tuple[Case, ...]:
    """The published measurements of `data/vram_cases.csv`."""
    with CASES_CSV.open(newline="", encoding="utf-8") as file:
        return tuple(_case(row) for row in csv.DictReader(file))


def _case(row: dict[str, str]) -> Case:
    spec = MethodSpec(
        method=row["method"],
        r=int(row["r"] or MethodSpec().r),
        target_modules=tuple(row["targets"].split("|")) if row["targets"] else (),
        lora_dropout=float(row["dropout"]),
    )
    chosen: dict[str, Any] = {name: row[name] for name in ("dtype", "quant", "adapter_dtype", "optimizer", "attention")}
    chosen |= {name: row[name] == "yes" for name in ("checkpointing", "kbit_prepare")}
    step = StepSpec(batch=int(row["batch"]), seq=int(row["seq"]), **chosen)
    measured_bytes = round(float(row["measured_gb"]) * 10**9)
    return Case(row["id"], Setting(row["model"], spec, step), measured_bytes, row["counter"], row["source"])


def _on(model: str, method: str = "lora", r: int = 8, targets: tuple[str, ...] = (), dropout: float = 0.0, **step: Any) -> Setting:
    spec = MethodSpec(method=method, r=r, target_modules=targets, lora_dropout=dropout)
    return Setting(model, spec, StepSpec(**step))


# A family, a method and a setting each at least once; small enough to be traced within a minute.
GRID: tuple[Setting, ...] = (
    _on("gpt2", batch=8),
    _on("gpt2", "full", batch=8),
    _on("bert-base-uncased", batch=32, seq=128),
    _on("bert-base-uncased", "bitfit", batch=32, seq=128),
    _on("roberta-large", batch=16, seq=256, dtype="fp32"),
    _on("deberta-v2-xxlarge", r=16, batch=8, seq=128),
    _on("opt-1.3b", batch=4),
    _on("pythia-1b", batch=4),
    _on("phi-2", batch=2, seq=1024),
    _on("Llama-3.2-1B", "qlora", targets=("all-linear",), seq=1024, quant="nf4-dq", checkpointing=True, kbit_prepare=True),
    _on("Llama-3.2-1B", "dora", r=16, batch=4),
    _on("Llama-3.2-1B", "vera", r=256, batch=4),
    _on("Llama-3.2-1B", "full", batch=2, seq=1024, attention="eager"),
    _on("Llama-3.2-1B", r=64, targets=("all-linear",), batch=4, attention="flash", optimizer="paged-adamw8bit"),
    _on("Mistral-7B-v0.1", seq=1024, quant="int8"),
    _on("Mixtral-8x7B-v0.1", seq=1024),
    _on("Qwen2.5-0.5B", dropout=0.05, batch=4, fused_loss=True),
    _on("Gemma-2-2b", batch=2),
    _on("Phi-3-mini-4k-instruct", batch=2),
    _on("SmolLM2-1.7B", "prefix", r=20, batch=4),
    _on("SmolLM2-1.7B", "adapter", r=64, batch=4),
    _on("SmolLM2-1.7B", "ia3", batch=4),
    _on("SmolLM2-1.7B", "partial", r=2, batch=4, optimizer="sgd"),
)


@dataclass(frozen=True, slots=True)
class Reckoned:
    """A setting's peak, told both ways."""

    setting: Setting
    trace_bytes: int
    formula_bytes: int


def reckon(setting: Setting) -> Reckoned:
    """Formula and trace of a setting; the trace takes seconds."""
    fields = {name: getattr(setting.step, name) for name in StepSpec.__dataclass_fields__}
    traced, closed = (budget(setting.model, setting.spec, trace=trace, **fields).ledger.peak for trace in (True, False))
    return Reckoned(setting, traced, closed)


def as_markdown() -> str:
    """The page. Every configuration is traced anew, which takes about a minute."""
    measured = [(case, reckon(case.setting)) for case in cases()]
    parts = (_OPENING, _measured_section(measured), _grid_section([reckon(setting) for setting in GRID]))
    return "\n\n".join(part.strip() for part in (*parts, _paper_section(), _counts_section(), _UNCHECKED)) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings_text(setting: Setting) -> str:
    """Method and step in words; dropout, optimizer and quantization only where they are not the default."""
    spec, step, method = setting.spec, setting.step, METHODS[setting.spec.method]
    said = [method.label]
    said += [f"r = {spec.r}"] if method.r_is else []
    said += [f"on {', '.join(spec.targets)}"] if method.has_targets else []
    said += [f"dropout {spec.lora_dropout:g}"] if spec.lora_dropout else []
    said += [f"{step.batch} × {step.seq} tokens", step.dtype]
    said += [f"base in {step.quant}"] if step.quant != "none" else []
    said += [step.optimizer] if step.optimizer != "adamw" else []
    said += [f"{step.attention} attention"]
    flags = {"checkpointing": step.checkpointing, "fused loss": step.fused_loss, "k-bit preparation": step.kbit_prepare}
    return ", ".join(said + [name for name, is_on in flags.items() if is_on])


def _measured_section(measured: Sequence[tuple[Case, Reckoned]]) -> str:
    sources = unique(case.source for case, _ in measured)
    head = ("case", "model", "method and settings", "measured", "counter", "trace", "error", "formula", "error", "source")
    rows = [_measured_row(case, found, sources.index(case.source) + 1) for case, found in measured]
    numbered = "\n".join(f"{i}. {source}" for i, source in enumerate(sources, 1))
    ranges = "\n".join(_range_line(counter, measured) for counter in unique(case.counter for case, _ in measured))
    return f"{_MEASURED.strip()}\n\n{_table(head, rows)}\n\n{ranges}\n\nSources:\n\n{numbered}"


def _measured_row(case: Case, found: Reckoned, source: int) -> list[str]:
    row = [case.id, found.setting.model, settings_text(found.setting), gigabytes(case.measured_bytes), case.counter]
    for size_bytes in (found.trace_bytes, found.formula_bytes):
        row += [gigabytes(size_bytes), difference(size_bytes / case.measured_bytes - 1)]
    return [*row, str(source)]


def _range_line(counter: str, measured: Sequence[tuple[Case, Reckoned]]) -> str:
    """How far the errors against one counter reach."""
    chosen = [(case.measured_bytes, found) for case, found in measured if case.counter == counter]
    traced = [found.trace_bytes / measured_bytes - 1 for measured_bytes, found in chosen]
    closed = [found.formula_bytes / measured_bytes - 1 for measured_bytes, found in chosen]
    reach = f"the trace {_reach(traced)}, the formula {_reach(closed)}"
    return f"- Against what was {counter}, {len(chosen)} cases: {reach}."


def _reach(errors: Sequence[float]) -> str:
    return f"{difference(min(errors))} to {difference(max(errors))}"


def _grid_section(found: Sequence[Reckoned]) -> str:
    head = ("model", "method and settings", "trace", "formula", "difference")
    furthest = max(found, key=lambda one: abs(_apart(one)))
    sentence = f"The largest difference is {difference(_apart(furthest), 2)}, on {furthest.setting.model}."
    return f"{_GRID_TEXT.strip()}\n\n{_table(head, map(_grid_row, found))}\n\n{sentence}"


def _apart(found: Reckoned) -> float:
    return found.formula_bytes / found.trace_bytes - 1


def _grid_row(found: Reckoned) -> list[str]:
    sizes = (gigabytes(found.trace_bytes), gigabytes(found.formula_bytes))
    return [found.setting.model, settings_text(found.setting), *sizes, difference(_apart(found), 2)]


def _paper_section() -> str:
    figures = paper_figures()
    as_printed = sum(figure.is_as_printed for figure in figures)
    head = ("what", "where", "paper", "ours", "gap", "same digits", "ours assumes")
    count = f"{as_printed} of {len(figures)} figures come out in the digits that the paper prints."
    return f"{_PAPER.strip()}\n\n{_table(head, map(_paper_row, figures))}\n\n{count}"


def _paper_row(figure: Figure) -> list[str]:
    same = "yes" if figure.is_as_printed else ""
    return [figure.name, figure.source, figure.paper_text, figure.ours_text, difference(figure.gap, 2), same, figure.assumes]


def _counts_section() -> str:
    support: dict[str, dict[str, str]] = json.loads(SUPPORT_JSON.read_text(encoding="utf-8"))
    reasons = [why for families in support.values() for why in families.values()]
    unverified = [name for name in model_names() if not find_model(name).verified]
    return _COUNTS.format(
        cells=len(reasons),
        attached=reasons.count(""),
        methods=len(support),
        families=len(next(iter(support.values()))),
        models=len(model_names()),
        unverified=", ".join(unverified),
    )


_OPENING = """
# How good the budget's numbers are

LoRA Lab tells the memory of a training step in two ways. The *formula* adds up tensors in closed form. The *trace* builds the
model and its adapter on PyTorch's meta device, runs two steps and counts every storage that is alive. They share no code for
the step, and no constant of either is fitted to a measurement. A GB is 10^9 bytes. `python -m lora_lab.budget.evidence`
writes this page; a test holds it to the code.
"""

_MEASURED = """
## Against measurements

Peaks that others measured on real cards. Formula and trace count *allocated* bytes: what PyTorch has given to tensors. The
*reserved* counter is larger, for it includes what PyTorch's allocator keeps in hand. An error is ours against the measured
figure, whichever counter that is: against a reserved one it should be below zero by as much as the allocator kept.

The runs of PEFT's comparison do not say how long their longest padded batch was. 750 tokens were chosen so that the first of
them comes out: that row tests nothing by itself, and the other three rest on its length.
"""

_GRID_TEXT = """
## Formula against trace

Families, methods and settings for which no measurement is at hand: here the two ways check each other. A difference is the
formula against the trace. r is the rank, the bottleneck width, the virtual tokens or the top layers, as the method has it.
"""

_PAPER = """
## The LoRA paper's figures

What Hu et al. 2021 ([arXiv 2106.09685](https://arxiv.org/abs/2106.09685)) print, and what the same thing comes to here. A
gap is ours against the paper's. *Same digits* means that ours differs by less than one unit of the last digit printed: the
paper rounds some counts and cuts others. No constant is bent to close a gap. Left out are PreLayer in Table 3, whose count its
formula gives for no number of tokens, and the adapters of Tables 2 and 3 whose r and places the paper does not tell.
"""

_COUNTS = """
## Counts

Each of {methods} methods, LoRA's start values and QLoRA's formats counted one by one, is attached to a tiny random model of each
of {families} families, and the closed form must equal the parameters that were attached, to the last. It does in {attached} of
{cells} pairs; the others are refused, and [the table of methods](support.md) says why. Counts are also held against
those that PEFT's comparison and the paper print.

The shapes of the {models} models in the catalogue are read from their configs on the meta device. Their totals are held against
published counts or, where there are none, against the printed shapes summed by hand. Configs that are not verified:
{unverified}.
"""

_UNCHECKED = """
## What is not checked

- The project has measured nothing on a GPU itself. Its own test on one runs where CUDA is found.
- Every measurement above is of a Llama or Mistral decoder under LoRA, QLoRA or full fine-tuning, with AdamW. Encoders, other
  decoders, mixtures of experts, vision models, other methods, int8, 8-bit optimizers, Adafactor, eager attention, soft caps
  and fused losses are checked by formula against trace alone, or not at all.
- Mixed precision by autocast, with weights in fp32, is known to neither: both take weights and activations to be of one type.
- What a CUDA context takes and what fragmentation loses is an estimate. It is shown apart from the peak, added only to say
  whether a card is large enough, and part of no figure on this page. nvidia-smi shows more than either counter.
- Buffers that CUDA libraries take for themselves (cuBLAS, cuDNN, NCCL) are not counted. Paged optimizer states are counted as
  held, although a card may give them up.
- A step is taken to have every sequence at full length. A run's peak is that of its longest padded batch.
"""


if __name__ == "__main__":
    EVIDENCE_MD.write_text(as_markdown(), encoding="utf-8")
