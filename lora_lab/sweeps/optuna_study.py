"""Optuna, an extra: what a seeded sampler proposes of a space, and a study that holds what became of it.

No other module knows Optuna. A study is made from the runs that the store keeps and is never the only record of anything.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lora_lab.analysis.search_records import SearchRecord
from lora_lab.errors import SpecError
from lora_lab.search_spec import Range, Space, value_text
from lora_lab.sweep_spec import AXES

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

_DIGITS = 4  # of a number that is drawn: nobody wants a learning rate of sixteen


def propose(space: Space, *, seed: int) -> Iterator[dict[str, Any]]:
    """Points of the space, a value for each of its axes, without end; the same seed gives the same ones.

    Raises:
        SpecError: Optuna is not installed.
    """
    library = _optuna()
    distributions = {name: _distribution(library, name, space) for name in space}
    with _quiet(library):
        study = library.create_study(sampler=library.samplers.RandomSampler(seed=seed))
    while True:
        drawn = study.ask(fixed_distributions=distributions).params
        yield {name: _value(name, space, value) for name, value in drawn.items()}


def study_of(record: SearchRecord, space: Space) -> "optuna.Study":
    """The search as Optuna knows searches: a trial a point, its score on the validation split after each rung.

    A trial that a rung dropped is pruned, one that diverged or did not come about has failed.

    Raises:
        SpecError: Optuna is not installed.
    """
    library = _optuna()
    distributions = {name: _distribution(library, name, space) for name in space}
    with _quiet(library):
        study: optuna.Study = library.create_study(direction="maximize" if record.sign > 0 else "minimize")
    for number, point in enumerate(record.points):
        params = {name: _label(name, value) for name, value in point.items()}
        scores = {rung.steps: placed.score for rung in record.rungs if (placed := rung.of(number)) and placed.score is not None}
        final = scores.get(record.rungs[-1].steps) if record.is_settled else None
        reached = [rung for rung in record.rungs if rung.of(number)]
        state = "COMPLETE" if final is not None else "PRUNED" if reached[-1].steps in scores else "FAIL"
        trial = library.trial.create_trial(
            state=library.trial.TrialState[state],
            value=final,
            params=params,
            distributions=distributions,
            intermediate_values=scores,
        )
        study.add_trial(trial)
    return study


def _optuna() -> ModuleType:
    try:
        import optuna as library  # noqa: PLC0415 (an extra)
    except ImportError as err:
        raise SpecError("A search needs Optuna, which is not installed: pip install optuna.") from err
    found: ModuleType = library
    return found


@contextmanager
def _quiet(library: ModuleType) -> Iterator[None]:
    """It announces every study that is made."""
    before = library.logging.get_verbosity()
    library.logging.set_verbosity(library.logging.WARNING)
    try:
        yield
    finally:
        library.logging.set_verbosity(before)


def _distribution(library: ModuleType, name: str, space: Space) -> "BaseDistribution":
    dimension = space[name]
    if isinstance(dimension, Range):
        is_int = all(isinstance(end, int) for end in dimension.ends) and AXES[name].spans is int
        kind = library.distributions.IntDistribution if is_int else library.distributions.FloatDistribution
        made: BaseDistribution = kind(*dimension.ends, log=dimension.log)
        return made
    labels: BaseDistribution = library.distributions.CategoricalDistribution(list(_labelled(name, dimension)))
    return labels


def _value(name: str, space: Space, drawn: Any) -> Any:
    """What was drawn, a number in few digits and a label as the choice that it stands for."""
    dimension = space[name]
    if not isinstance(dimension, Range):
        return _labelled(name, dimension)[drawn]
    low, high = dimension.ends
    return drawn if isinstance(drawn, int) else min(max(float(f"{drawn:.{_DIGITS}g}"), low), high)


def _labelled(name: str, choices: tuple[Any, ...]) -> Mapping[Any, Any]:
    return {_label(name, choice): choice for choice in choices}


def _label(name: str, value: Any) -> Any:
    """Optuna takes numbers and text as choices, and no tuples."""
    return value if isinstance(value, int | float | str) else value_text(name, value)
