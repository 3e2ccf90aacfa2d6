"""The widget Sweep: the runs of `ll.sweep`, trained in the background, drawn as they go, and ended with the widget."""

import threading
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import psutil
import pytest

import lora_lab as ll
from lora_lab.errors import LabError
from lora_lab.plots import curve_lines, score_curves
from lora_lab.widgets.sweep import Sweep

GRID = ll.SweepSpec(r=(1, 2), seeds=(0, 1), steps=20)
LONG = ll.SweepSpec(r=(1, 2), seeds=(0, 1), steps=50_000)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Sweeps of one store, closed at the end."""
    made: list[Sweep] = []

    def make(grid: ll.SweepSpec = GRID, **how: Any) -> Sweep:
        made.append(Sweep("digits", grid, **{"runs": tmp_path / "runs", "runner": "inline", **how}))
        return made[-1]

    yield make
    for sweep in made:
        sweep.close()


def at_step(sweep: Sweep, step: int, *, within_s: float = 60) -> None:
    deadline_s = time.monotonic() + within_s
    while sweep._job is None or sweep._job.steps_done < step:
        assert time.monotonic() < deadline_s, f"{sweep.state}: {sweep._status.value}"
        time.sleep(0.02)


def training() -> set[str]:
    """The threads that train or draw."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("lora-lab")}


def curves(figure: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {trace.meta: (list(trace.x), list(trace.y)) for trace in figure.data}


def test_its_spec_is_what_it_was_given_until_a_control_moves(make: Callable[..., Sweep]) -> None:
    grid = ll.SweepSpec(r=(1, 4), targets=(("q",), ("q", "v")), lora_dropout=0.1, learning_rate=(1e-3, 5e-3), lora_alpha="2r")
    sweep = make(grid)
    assert sweep.spec == grid
    moves = {"r": (2,), "alpha": (8.0,), "seeds": (3,), "steps": 7, "lr": 1e-2, "method": ("dora",), "targets": ("up",)}
    for name, value in moves.items():
        getattr(sweep, name).value = value
    assert sweep.spec == ll.SweepSpec(
        r=2, lora_alpha=8.0, seeds=3, steps=7, learning_rate=1e-2, methods="dora", targets=(("up",),), lora_dropout=0.1
    )
    assert not sweep.refused


@pytest.mark.parametrize(
    ("control", "typed", "said"),
    [
        ("steps", "3oo", "The steps must be an int. Got '3oo'."),
        ("steps", "12.5", "The steps must be an int. Got '12.5'."),
        ("lr", "abc", "The learning rate must be a number, or several with commas between them. Got 'abc'."),
        ("lr", "0,001", "learning_rate parameter of RunSpec must be a number above 0. Got 0.0."),
    ],
)
def test_a_number_mistyped_is_said_and_nothing_starts(make: Callable[..., Sweep], control: str, typed: str, said: str) -> None:
    sweep = make()
    getattr(sweep, control).set_state({"value": typed})
    assert said in unescape(sweep.refused)
    sweep.start_button.click()
    assert (sweep.state, said in unescape(sweep.refused)) == ("", True)
    getattr(sweep, control).set_state({"value": "7"})
    assert sweep.refused == ""
    assert getattr(sweep, control).chosen() == 7


@pytest.mark.slow
def test_its_runs_are_those_of_the_function_to_the_last_number(make: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = make(runner="process")
    sweep.start()
    assert sweep.wait(120)
    by_function = ll.sweep("digits", GRID, runs=tmp_path / "other")
    assert [run.run_id for run in sweep.runs] == [run.run_id for run in by_function]
    for ours, theirs in zip(sweep.runs, by_function, strict=True):
        assert (ours.score(), ours.score(base=True)) == (theirs.score(), theirs.score(base=True))
        assert [e.loss for e in ours.progress().steps] == [e.loss for e in theirs.progress().steps]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    sweep = Sweep("digits", GRID, runs=tmp_path_factory.mktemp("swept"), runner="inline")
    sweep.start()
    assert sweep.wait(120)
    yield sweep
    sweep.close()


def test_the_curves_are_the_events_that_the_store_keeps(swept: Sweep) -> None:
    by_label = {line.label: run for line, run in zip(curve_lines([run.progress() for run in swept.runs]), swept.runs, strict=True)}
    drawn = {kind: curves(swept._plots[kind].plot) for kind in ("loss", "score")}
    assert set(drawn["loss"]) == set(drawn["score"]) == set(by_label)
    for label, run in by_label.items():
        told = run.progress()
        assert drawn["loss"][label][1][-1] == told.steps[-1].loss
        assert drawn["score"][label] == ([e.step for e in told.evals], [e.score for e in told.evals])


def test_the_spectra_are_those_of_the_adapters(swept: Sweep) -> None:
    name = swept.matrix.options[0][1]
    swept.matrix.value = name
    for run, (_, values) in zip(swept.runs, curves(swept.figure("spectrum")).values(), strict=True):
        assert values == pytest.approx(run.adapter()[name].singular_values.tolist(), rel=1e-4)


def test_each_figure_is_the_one_that_is_shown(swept: Sweep) -> None:
    for kind in ("score", "loss", "spectrum"):
        assert curves(swept.figure(kind)) == curves(swept._plots[kind].plot)  # type: ignore[arg-type]


def test_what_was_learned_and_the_table_are_those_of_the_page(swept: Sweep) -> None:
    assert "The best run reached" in swept._learned.value
    assert swept._ranking.value.count("(2)") == 2, "two seeds in each of two cells"


def test_a_trained_grid_is_there_for_the_next_widget_and_starting_it_trains_nothing(swept: Sweep) -> None:
    again = Sweep("digits", GRID, runs=swept._store.root, runner="inline")
    assert [run.run_id for run in again.runs] == [run.run_id for run in swept.runs]
    assert curves(again.figure()) == curves(score_curves(curve_lines([run.progress() for run in swept.runs])))
    assert "4 of them in the store already" in again._plan.value
    began_s = time.monotonic()
    again.start()
    assert again.wait(10)
    assert (again.state, time.monotonic() - began_s < 5) == ("finished", True)
    again.close()


def test_the_notebook_stays_usable_while_it_trains(make: Callable[..., Sweep]) -> None:
    sweep = make(LONG, runner="inline")
    began_s = time.monotonic()
    sweep.start()
    assert time.monotonic() - began_s < 2
    at_step(sweep, 5)
    sweep.seeds.value = ()
    assert "seeds" in sweep.refused, "what cannot be planned is said while the last grid goes on"
    before = sweep._job.steps_done if sweep._job else 0
    at_step(sweep, before + 5)
    assert sweep.state == "running"


def test_the_curves_grow_as_it_trains(make: Callable[..., Sweep]) -> None:
    sweep = make(LONG)
    sweep.start()
    at_step(sweep, 20)
    time.sleep(1)
    first = max(x[-1] for x, _ in curves(sweep._plots["loss"].plot).values())
    at_step(sweep, 4 * (first + 20))
    time.sleep(1)
    assert max(x[-1] for x, _ in curves(sweep._plots["loss"].plot).values()) > first


def test_stop_keeps_what_was_learned_and_another_grid_may_start(
    make: Callable[..., Sweep], left_behind: Callable[..., Any]
) -> None:
    sweep = make(LONG)
    sweep.start()
    at_step(sweep, 30)
    sweep.stop_button.click()
    assert sweep.wait(30)
    assert sweep.state == "stopped"
    assert sweep.runs == ()
    assert left_behind(sweep._store.root) == []
    assert {run.metrics["status"] for run in sweep._store.runs()} == {"stopped"}
    sweep.steps.value = 20
    sweep.start_button.click()
    assert sweep.wait(60)
    assert len(sweep.runs) == 4


def test_the_buttons_are_to_be_pressed_when_they_do_something(make: Callable[..., Sweep]) -> None:
    sweep = make(LONG)
    assert (sweep.start_button.disabled, sweep.stop_button.disabled) == (False, True)
    sweep.start()
    assert (sweep.start_button.disabled, sweep.stop_button.disabled) == (True, False)
    sweep.stop()
    assert sweep.wait(30)
    assert (sweep.start_button.disabled, sweep.stop_button.disabled) == (False, True)


def test_starting_twice_is_starting_once(make: Callable[..., Sweep]) -> None:
    sweep = make(LONG)
    sweep.start()
    job = sweep._job
    sweep.start()
    assert sweep._job is job


@pytest.mark.slow
def test_closing_leaves_no_thread_no_worker_and_no_half_run(make: Callable[..., Sweep], left_behind: Callable[..., Any]) -> None:
    sweep = make(LONG, runner="process")
    sweep.start()
    at_step(sweep, 30)
    workers = [child for server in psutil.Process().children() for child in server.children()]
    assert workers
    sweep.close()
    assert training() == set()
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert left_behind(sweep._store.root) == []
    assert {run.metrics["status"] for run in sweep._store.runs()} == {"stopped"}


def test_closing_twice_and_starting_what_is_closed_do_nothing(make: Callable[..., Sweep]) -> None:
    sweep = make()
    sweep.close()
    sweep.close()
    sweep.start()
    assert (sweep.state, training()) == ("", set())


def test_of_two_sweeps_one_waits_for_the_other(make: Callable[..., Sweep]) -> None:
    first, second = make(LONG), make(ll.SweepSpec(r=4, steps=4))
    first.start()
    second.start()
    at_step(first, 5)
    assert second.state == "waiting"
    first.close()
    assert second.wait(60)
    assert (second.state, len(second.runs)) == ("finished", 1)


def test_a_grid_that_cannot_be_planned_is_refused(make: Callable[..., Sweep]) -> None:
    with pytest.raises(LabError, match="target_modules"):
        make(ll.SweepSpec(targets=(("no such matrix",),)))
    sweep = make()
    sweep.r.value = ()
    assert "The r parameter of SweepSpec" in sweep.refused
    sweep.start_button.click()
    assert sweep.state == ""
    with pytest.raises(LabError, match="The r parameter"):
        sweep.start()


def test_equal_budgets_have_their_ranks_from_the_budget(make: Callable[..., Sweep]) -> None:
    grid = ll.SweepSpec(equal_budget=3000, targets=(("q",), ("q", "v")), steps=5)
    sweep = make(grid)
    assert sweep.spec == grid
    assert sweep.r.layout.display == "none"
    assert "2 runs of 5 steps" in sweep._plan.value


def test_how_far_it_is_counts_the_steps_of_all_runs(make: Callable[..., Sweep], swept: Sweep) -> None:
    assert make().share_done == 0
    assert swept.share_done == 1
    sweep = make(LONG)
    sweep.start()
    at_step(sweep, 4)
    assert 0 < sweep.share_done < 0.5
