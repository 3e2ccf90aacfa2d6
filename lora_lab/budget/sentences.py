"""A budget in words."""

from collections.abc import Sequence

from lora_lab.budget.budget import Budget
from lora_lab.budget.cards import Card
from lora_lab.budget.equal_budget import EqualChoice
from lora_lab.budget.solver import Remedy
from lora_lab.specs import METHODS
from lora_lab.units import count, gigabytes, percent

_PART_NAMES = {"optimizer": "the optimizer's states", "loss": "the loss", "weights": "the base's weights"}


def budget_sentence(made: Budget) -> str:
    """What it would take, and what most of that is."""
    bill = {name: n for name, n in made.ledger.to_json().items() if name not in ("peak", "overhead")}
    largest = sorted(bill, key=lambda name: -bill[name])[:3]
    parts = ", ".join(f"{_PART_NAMES.get(name, name)} {gigabytes(bill[name])}" for name in largest)
    trained = f"{count(made.trainable_params)} parameters ({percent(made.trainable_share, 3)} of {count(made.total_params)})"
    label = made.method if made.attached else METHODS[made.spec.method].label
    return f"{label} on {made.model.name} would train {trained} and take {gigabytes(made.ledger.peak)}, of which {parts}."


def counter_sentence(made: Budget) -> str:
    """Which counter the figure is."""
    peak, on_card = gigabytes(made.ledger.peak), gigabytes(made.ledger.on_card)
    counter = f"{peak} is what PyTorch has allocated at the peak of a step, by {made.source}"
    return f"{counter}; a card must hold about {on_card}, with the CUDA context and fragmentation (an estimate)."


def remedy_sentence(remedy: Remedy, card: Card) -> str:
    """Whether it fits a card; if not, the least that would make it, or that nothing here does."""
    peak = gigabytes(remedy.made.ledger.on_card)
    if remedy.fits and not remedy.changes:
        return f"It fits {card.name}."
    changes = _listed(remedy.changes)
    if remedy.fits:
        return f"It does not fit {card.name}; with {changes} it would ({peak} with context and fragmentation)."
    return f"Nothing here makes it fit {card.name}: with everything changed that can be it still takes {peak}."


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def equal_sentence(choice: EqualChoice) -> str:
    """What r a choice has for a budget, and what it trains.

    >>> from lora_lab.specs import MethodSpec
    >>> equal_sentence(EqualChoice(MethodSpec(r=2, target_modules=("q", "v")), params=2048, budget_params=3000))
    'LoRA on q, v: r 2 trains 2,048 of 3,000 parameters.'
    """
    spec = choice.spec
    on = f" on {', '.join(spec.targets)}" if spec.targets else ""
    layers = f" in layers {', '.join(map(str, spec.layers_to_transform))}" if spec.layers_to_transform else ""
    counts = f"{choice.params:,} of {choice.budget_params:,} parameters"
    return f"{METHODS[spec.method].label}{on}{layers}: r {spec.r} trains {counts}."
