"""What a cluster costs beside training: measured on runs that are really said, streamed and kept."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_lab.sweeps import Run, RunStore, cluster_costs
from lora_lab.sweeps.cluster_costs import ClusterCosts, Handled, IndexTimes, RunBytes, handle, index_times, run_bytes
from lora_lab.sweeps.ray_cluster import connected

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One for all that is measured here."""
    with connected(None):
        yield


@pytest.mark.usefixtures("cluster")
def test_a_run_that_is_said_is_kept_whole(digits_run: Run, tmp_path: Path) -> None:
    handled = handle(digits_run, digits_run.events(), tmp_path, groups=3)
    assert (handled.runs, handled.events) == (3, len(digits_run.events()))
    assert handled.cpu_s > 0
    assert handled.wall_s > 0
    runs = RunStore(tmp_path).runs()
    assert len(runs) == 4, "the first, after which the clock begins, and those that are timed"
    for run in runs:
        assert run.events() == digits_run.events()
        assert run.adapter().keys() == digits_run.adapter().keys()
    assert len({run.spec.seed for run in runs}) == 4


@pytest.mark.usefixtures("cluster")
def test_the_command_prints_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    cluster_costs.main(["2", "5"])
    document = json.loads(capsys.readouterr().out)
    assert document["short"]["runs"] == document["long"]["runs"] == 2
    assert document["short"]["events"] < document["long"]["events"]
    assert document["index"]["runs"] == 5
    assert document["cpu_run_s"] == pytest.approx(
        document["short"]["cpu_s"] - document["short"]["events"] * document["cpu_event_s"]
    )


def test_the_bytes_of_a_run_are_those_of_its_folder(digits_run: Run) -> None:
    found = run_bytes(digits_run)
    assert found.log + found.adapter + found.rest == sum(p.stat().st_size for p in digits_run.folder.rglob("*") if p.is_file())
    assert found.adapter > digits_run.metrics["adapter_file_bytes"]
    assert 0 < found.sent_event < found.log / len(digits_run.events()), "a pickle is shorter than a line of JSON"


def test_an_index_is_timed_over_runs_that_are_there(digits_run: Run, tmp_path: Path) -> None:
    index_times(digits_run, tmp_path, runs=6)
    assert len(RunStore(tmp_path).complete_ids()) == 7


def test_what_an_event_costs_is_what_more_of_them_do() -> None:
    short, long = Handled(10, 5, 0.010, 1.0), Handled(10, 105, 0.030, 1.0)
    costs = ClusterCosts(short, long, RunBytes(1, 1, 1, 1.0), IndexTimes(1, 1.0, 1.0, 1.0, 1.0))
    assert costs.cpu_event_s == pytest.approx(0.0002)
    assert costs.cpu_run_s + 5 * costs.cpu_event_s == pytest.approx(short.cpu_s)
    assert costs.cpu_run_s + 105 * costs.cpu_event_s == pytest.approx(long.cpu_s)
