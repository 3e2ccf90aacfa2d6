"""The questions turned round: what is the most that fits, and what would make it fit."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lora_lab.budget.budget import Budget, budget
from lora_lab.budget.cards import Card
from lora_lab.budget.counts import targeted
from lora_lab.geometry import Geometry
from lora_lab.specs import METHODS, MethodSpec, StepSpec

_MOST_BATCH, _MOST_SEQ = 4096, 2**20


def with_step(made: Budget, spec: MethodSpec | None = None, **changes: object) -> Budget:
    """The same budget with another method, or with some of its step changed."""
    step = replace(made.step, **changes)  # type: ignore[arg-type]
    fields = {name: getattr(step, name) for name in step.__dataclass_fields__}
    return budget(made.model, spec or made.spec, **fields)


def max_r(made: Budget, card: Card) -> int | None:
    """The largest r that fits a card, no larger than the update's full rank; None where none fits, or where r means nothing."""
    most = most_r(made.model.geometry, made.spec, tokens=made.step.seq)
    return most and largest(most, lambda r: with_step(made, replace(made.spec, r=r, rank_pattern=())).fits(card))


def max_batch(made: Budget, card: Card) -> int | None:
    """The largest batch that fits, other things equal."""
    return largest(_MOST_BATCH, lambda batch: with_step(made, batch=batch).fits(card))


def max_seq(made: Budget, card: Card) -> int | None:
    """The longest sequence that fits, other things equal; no longer than 2^20."""
    return largest(_MOST_SEQ, lambda seq: with_step(made, seq=seq).fits(card))


def most_that_fits(made: Budget, card: Card) -> dict[str, int | None]:
    """`max_r`, `max_batch` and `max_seq`, each alone; nothing is known of a config file that was only attached."""
    if made.attached:
        return dict.fromkeys(("max_r", "max_batch", "max_seq"))
    return {"max_r": max_r(made, card), "max_batch": max_batch(made, card), "max_seq": max_seq(made, card)}


def most_r(geometry: Geometry, spec: MethodSpec, *, tokens: int) -> int | None:
    """The largest r there is any sense in: a matrix' full rank, the hidden width, `tokens` or the layers; None without an r."""
    meaning = METHODS[spec.method].r_is
    if not meaning:
        return None
    if METHODS[spec.method].has_targets:
        return min(m.max_r for m in targeted(geometry, spec))
    hidden = geometry.architecture.hidden if geometry.architecture else 0
    return {"bottleneck width": hidden, "virtual tokens": tokens, "top layers": len(geometry.stacks)}[meaning]


def largest(most: int, fits: Callable[[int], bool]) -> int | None:
    """The largest n in 1..most that fits, where fewer always fit too; None where 1 does not.

    >>> largest(100, lambda n: n * n <= 50), largest(100, lambda n: n < 1)
    (7, None)
    """
    if not fits(1):
        return None
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to change: how people say it, and what it does to method and step."""

    text: str
    apply: Callable[[MethodSpec, StepSpec], tuple[MethodSpec, StepSpec]]


def _on_step(**values: object) -> Callable[[MethodSpec, StepSpec], tuple[MethodSpec, StepSpec]]:
    return lambda spec, step: (spec, replace(step, **values))  # type: ignore[arg-type]


# The least costly first: what leaves the result as it is and only takes time, then what rounds, then what trains otherwise.
_CHANGES: tuple[Change, ...] = (
    Change("flash attention", _on_step(attention="flash")),
    Change("a fused loss", _on_step(fused_loss=True)),
    Change("checkpointing", _on_step(checkpointing=True)),
    Change("an 8-bit optimizer", _on_step(optimizer="adamw8bit")),
    Change("adapters in bf16", _on_step(adapter_dtype="bf16")),
    Change("the base in int8", _on_step(quant="int8")),
    Change("the base in NF4, quantized twice", _on_step(quant="nf4-dq")),
    Change("half the batch", lambda spec, step: (spec, replace(step, batch=max(step.batch // 2, 1)))),
    Change("a batch of 1", _on_step(batch=1)),
    Change("half the sequence", lambda spec, step: (spec, replace(step, seq=max(step.seq // 2, 1)))),
    Change("LoRA on q and v instead", lambda spec, step: (MethodSpec(r=8, target_modules=("q", "v")), step)),
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to change, and what it costs then; `fits` is False where nothing here is enough and this is the least there is."""

    changes: tuple[str, ...]
    made: Budget
    fits: bool


def cheapest_change(made: Budget, card: Card) -> Remedy:
    """The least costly single change that fits a card; else the fewest that do, taken in order; else all of them, which do not."""
    if made.fits(card):
        return Remedy((), made, True)
    singles = [(change, _changed(made, [change])) for change in _CHANGES if _applies(made, change)]
    for change, one in singles:
        if one.fits(card):
            return Remedy((change.text,), one, True)
    taken: list[Change] = []
    for change, one in singles:
        with_it = _changed(made, [*taken, change])
        if one.ledger.peak < made.ledger.peak and with_it.ledger.peak < _changed(made, taken).ledger.peak:
            taken.append(change)
        if with_it.fits(card):
            return _without_idle(made, taken, card)
    return Remedy(tuple(change.text for change in taken), _changed(made, taken), False)


def _without_idle(made: Budget, taken: Sequence[Change], card: Card) -> Remedy:
    """Drop whatever is not needed for the rest to fit, the most costly first."""
    needed = list(taken)
    for change in reversed(taken):
        rest = [one for one in needed if one is not change]
        if _changed(made, rest).fits(card):
            needed = rest
    return Remedy(tuple(change.text for change in needed), _changed(made, needed), True)


def _applies(made: Budget, change: Change) -> bool:
    """A change that changes something; whoever trains the base's own weights cannot quantize them."""
    quantizes = change.text.startswith("the base in")
    if quantizes and (made.spec.method in ("full", "partial", "bitfit") or made.step.quant.startswith("nf4")):
        return False
    if change.text == "adapters in bf16" and made.spec.method in ("full", "partial", "bitfit", "ln_tuning"):
        return False
    return change.apply(made.spec, made.step) != (made.spec, made.step)


def _changed(made: Budget, changes: Iterable[Change]) -> Budget:
    spec, step = made.spec, made.step
    for change in changes:
        spec, step = change.apply(spec, step)
    return with_step(made, spec, **{name: getattr(step, name) for name in step.__dataclass_fields__})


def versus(made: Budget) -> dict[str, Budget]:
    """The same step three ways: every weight, this method, and the same adapters on a base in NF4."""
    own = METHODS[made.spec.method].label
    rows = {"Full fine-tuning": with_step(made, MethodSpec(method="full"), quant="none", kbit_prepare=False), own: made}
    adapters = made.spec if METHODS[made.spec.method].has_targets else MethodSpec(r=made.spec.r)
    if made.spec.method != "qlora" and made.step.quant == "none":
        rows["QLoRA"] = with_step(made, replace(adapters, method="qlora"), quant="nf4-dq")
    elif made.spec.method != "lora":
        rows["LoRA"] = with_step(made, replace(adapters, method="lora"), quant="none", kbit_prepare=False)
    return rows


def equal_lines(made: Budget, card: Card, *, of_vram: bool) -> tuple[int, int]:
    """Two costs to draw a map's lines at: this budget's own, and a card's bytes or ten times the parameters."""
    return (made.ledger.peak, card.memory_bytes) if of_vram else (made.trainable_params, 10 * made.trainable_params)


def grid(made: Budget, choices: Iterable[tuple[str, ...]], ranks: Iterable[int]) -> list[list[Budget]]:
    """A row a choice of targets, a column a rank."""
    ranks = tuple(ranks)
    return [[with_step(made, replace(made.spec, target_modules=targets, r=r)) for r in ranks] for targets in choices]
