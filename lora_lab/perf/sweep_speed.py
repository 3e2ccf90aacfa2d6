"""The project's own speed: each figure a ratio against what somebody would do otherwise, both measured in one run."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from joblib import cpu_count

from lora_lab.benches import Bench, find_bench
from lora_lab.errors import SpecError, out_of_range
from lora_lab.specs import MethodSpec, RunSpec
from lora_lab.sweeps import warm_up
from lora_lab.sweeps.api import run_specs
from lora_lab.training import plan_run
from lora_lab.training.baseline import plain_loop

_RANKS = (1, 2, 4, 8)
Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SweepCase:
    """A sweep to time: so many runs of so many steps, r in 1, 2, 4, 8, alpha twice that, every run of a rank with its own seed."""

    bench: str
    runs: int
    batch_size: int
    steps: int | None = None

    @property
    def name(self) -> str:
        """What the case is called."""
        return f"{self.bench}, {self.runs} runs of batch {self.batch_size}"


CASES = {"digits": SweepCase("digits", 16, 16), "reviews": SweepCase("reviews", 8, 8)}


@dataclass(frozen=True, slots=True)
class SweepSpeed:
    """Whole sweep wall times, and how far the two ways end apart.

    Attributes:
        loop_s: of the plain loop by thread count, the median over the rounds.
        sweep_s: of the sweep, the median over the rounds.
        ratios: of each round, the better loop over the sweep.
        largest_loss_difference: over the runs, of the loss on the test split, relative.
    """

    name: str
    steps: int
    loop_s: dict[int, float]
    sweep_s: float
    ratios: tuple[float, ...]
    largest_loss_difference: float

    @property
    def ratio(self) -> float:
        """How many times faster the sweep is: the median over the rounds."""
        return median(self.ratios)

    @property
    def lowest(self) -> float:
        """The least of the rounds."""
        return min(self.ratios)

    @property
    def highest(self) -> float:
        """The most of the rounds."""
        return max(self.ratios)


def case_of(name: str, *, runs: int | None = None, batch_size: int | None = None, steps: int | None = None) -> SweepCase:
    """The case of a bench, or one like it of another size.

    Raises:
        SpecError: no case of that name, or a size below 1.
    """
    if name not in CASES:
        raise SpecError(out_of_range("case", "perf", f"one of {', '.join(CASES)}", name))
    for parameter, size in (("count", runs), ("batch", batch_size), ("steps", steps)):
        if size is not None and size < 1:
            raise SpecError(out_of_range(parameter, "perf", "at least 1", size))
    case = CASES[name]
    return SweepCase(case.bench, runs or case.runs, batch_size or case.batch_size, steps or case.steps)


def require_rounds(rounds: int) -> None:
    """A ratio needs a round.

    Raises:
        SpecError: fewer than one.
    """
    if rounds < 1:
        raise SpecError(out_of_range("rounds", "perf", "at least 1", rounds))


def measure_sweep(case: SweepCase, *, rounds: int = 3, notify: Notify = lambda _: None) -> SweepSpeed:
    """Time one sweep against a plain loop of PEFT and PyTorch over the same specs, in turn.

    Imports are outside of both: this process has them before the clock starts, and so has the one that workers come from.
    Base and data are on the disk. Both evaluate as often as the specs say; the sweep saves on the way, and has spectra, the base's
    scores and what was forgotten besides.

    Args:
        case: what to train.
        rounds: how often each way is timed.
        notify: told each time as it is there.

    Raises:
        SpecError: no round.
    """
    require_rounds(rounds)
    bench = find_bench(case.bench)
    bench.prepare()
    specs = planned(bench, case)
    warm_up()
    _once(bench, specs[:1])  # what is imported, read and filled the first time, on either side
    threads = sorted({1, cpu_count()})
    loops: dict[int, list[float]] = {count: [] for count in threads}
    sweeps: list[float] = []
    for _ in range(rounds):
        for count in threads:
            seconds, plain = _timed(partial(_looped, bench, specs, count))
            loops[count].append(seconds)
            notify(f"{case.name}: the loop on {count} threads took {seconds:.1f} s")
        seconds, swept = _timed(partial(_swept, specs))
        sweeps.append(seconds)
        notify(f"{case.name}: the sweep took {seconds:.1f} s")
    best = [min(times) for times in zip(*loops.values(), strict=True)]
    return SweepSpeed(
        case.name,
        specs[0].steps,
        {count: median(times) for count, times in loops.items()},
        median(sweeps),
        tuple(loop / sweep for loop, sweep in zip(best, sweeps, strict=True)),
        max(abs(swept[run_id] - loss) / loss for run_id, loss in plain.items()),
    )


def planned(bench: Bench, case: SweepCase) -> tuple[RunSpec, ...]:
    """The case's runs."""
    tunings = [(MethodSpec(r=r, lora_alpha=2.0 * r), seed) for seed in range(case.runs) for r in _RANKS][: case.runs]
    return tuple(plan_run(bench, tuning, steps=case.steps, batch_size=case.batch_size, seed=seed) for tuning, seed in tunings)


def _once(bench: Bench, specs: Sequence[RunSpec]) -> None:
    short = [plan_run(bench, spec.tuning, steps=1, batch_size=spec.batch_size) for spec in specs]
    _timed(partial(_looped, bench, short, 1))
    _timed(partial(_swept, short))


def _timed(train: Callable[[Path], dict[str, float]]) -> tuple[float, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.perf_counter()
        found = train(Path(folder))
        return time.perf_counter() - began_s, found


def _looped(bench: Bench, specs: Sequence[RunSpec], threads: int, folder: Path) -> dict[str, float]:
    scores = plain_loop(bench, specs, folder, threads=threads)
    return {spec.run_id: score.loss for spec, score in zip(specs, scores, strict=True)}


def _swept(specs: Sequence[RunSpec], folder: Path) -> dict[str, float]:
    sweep = run_specs(specs, folder, runner="process", device="cpu")
    return {run.run_id: run.metrics["test_loss"] for run in sweep}
