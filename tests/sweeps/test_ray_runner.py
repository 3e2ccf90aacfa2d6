"""The Ray runner on a cluster of two nodes: the runs of the inline runner, whatever node or worker is lost meanwhile."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

import lora_lab as ll
from lora_lab.cli import main
from lora_lab.errors import SpecError
from lora_lab.events import DoneEvent, EvalEvent, Event, StartEvent, StepEvent
from lora_lab.sweeps import Run, RunStore, expand, ray_cluster, ray_runner, sweep_events, tries
from lora_lab.sweeps.ray_cluster import connected, import_ray, on_loopback
from lora_lab.sweeps.runners import Tagged

pytestmark = pytest.mark.slow

LONG = ll.SweepSpec(r=(1, 2), steps=5000, batch_size=4)  # minutes: never trained to the end here


def specs_of(grid: ll.SweepSpec) -> tuple[ll.RunSpec, ...]:
    return expand(ll.find_bench("digits"), grid)


def by_run(said: list[Tagged]) -> dict[str, list[Event]]:
    """Each run's own events, in their order."""
    return {run_id: [event for i, event in said if i == run_id] for run_id in dict.fromkeys(i for i, _ in said)}


def until(events: Iterator[Tagged], there: Callable[[dict[str, int]], bool]) -> list[Tagged]:
    """What is said until the runs' steps are such."""
    said: list[Tagged] = []
    steps: dict[str, int] = {}
    for run_id, event in events:
        said.append((run_id, event))
        steps[run_id] = event.step if isinstance(event, StepEvent) else steps.get(run_id, 0)
        if there(steps):
            return said
    raise AssertionError(f"the runs came to {steps}")


def assert_same(runs: list[Run], others: list[Run]) -> None:
    """To rounding: adapters and what was measured of them."""
    assert [run.run_id for run in runs] == [run.run_id for run in others]
    for one, other in zip(runs, others, strict=True):
        assert one.metrics["status"] == other.metrics["status"] == "finished"
        for name in ("loss", "test_loss", "base_loss", "accuracy"):
            assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-3, abs=1e-3)
        ours, theirs = (load_file(run.adapter_dir / "adapter_model.safetensors") for run in (one, other))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        assert [step for step, _ in one.snapshots()] == [step for step, _ in other.snapshots()]


def losses_of(run: Run) -> list[tuple[int, str, float]]:
    """Of every step, whose split is empty, and of every evaluation."""
    return [(e.step, getattr(e, "split", ""), e.loss) for e in run.events() if isinstance(e, StepEvent | EvalEvent)]


def file_of(run: Run) -> bytes:
    return (run.adapter_dir / "adapter_model.safetensors").read_bytes()


def raylet_of(node: Any) -> int:
    """The process of a node that the node's workers are children of."""
    ((raylet,),) = [processes for kind, processes in node.all_processes.items() if kind == "raylet"]
    return raylet.process.pid


def assert_soon(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not is_so() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert is_so()


def assert_no_task_is_left() -> None:
    """A worker that is idle has another name."""
    assert_soon(lambda: ray_processes("ray::lora-lab") == [])


@contextmanager
def paused(processes: list[psutil.Process]) -> Iterator[list[psutil.Process]]:
    """A block in which they do nothing; those that are left go on after it."""
    for process in processes:
        process.suspend()
    yield processes
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def ray_processes(called: str = "ray") -> list[psutil.Process]:
    """The processes of Ray that descend from this one and still run."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if called in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A cluster of two nodes with a core each, on 127.0.0.1 and with an empty cache."""
    ray = import_ray()
    from ray.cluster_utils import Cluster

    cache, handler = tmp_path_factory.mktemp("cache"), signal.getsignal(signal.SIGTERM)
    of_each = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    of_each["env_vars"] = {"LORA_LAB_CACHE": str(cache)}
    with on_loopback(ray):
        keep = {"idle_worker_killing_time_threshold_ms": 10 * 60 * 1000}  # they have imported torch, and the next test wants them
        nodes = Cluster(initialize_head=True, head_node_args={**of_each, "_system_config": keep})
        second = nodes.add_node(**of_each)
        yield SimpleNamespace(address=nodes.address, second=second, remove=nodes.remove_node, cache=cache)
        nodes.shutdown()
    signal.signal(signal.SIGTERM, handler)  # Ray has its own while it has nodes here


@pytest.fixture(scope="module")
def connection(cluster: SimpleNamespace) -> Iterator[None]:
    """Of this process, for all tests that want one: workers which the next test finds idle have imported torch already."""
    with connected(cluster.address):
        yield


@pytest.fixture
def sweep(cluster: SimpleNamespace, connection: None) -> Callable[..., Iterator[Tagged]]:
    def run(specs: tuple[ll.RunSpec, ...], store: RunStore, **how: object) -> Iterator[Tagged]:
        return sweep_events(specs, store, **{"runner": "ray", "address": cluster.address, **how})

    return run


@pytest.fixture
def unconnected() -> None:
    """As a process is that has just begun."""
    import_ray().shutdown()


def test_two_nodes_give_the_runs_of_this_process(sweep: Callable[..., Iterator[Tagged]], tmp_path: Path) -> None:
    shape = {"r": (1, 2, 4), "steps": 12, "batch_size": 8}
    specs = (*specs_of(ll.SweepSpec(**shape, snapshots=3)), *specs_of(ll.SweepSpec(**shape, methods=("dora",))))
    ids = [spec.run_id for spec in specs]
    far, here = RunStore(tmp_path / "ray"), RunStore(tmp_path / "inline")
    said = by_run(list(sweep(specs, far)))
    list(sweep_events(specs, here, runner="inline"))
    assert_same(far.find(ids), here.find(ids))
    for run_id, events in said.items():
        assert far.get(run_id).events() == events
        assert [type(e) for e in events] == [type(e) for e in here.get(run_id).events()]
    assert list(sweep(specs, far)) == []
    assert not [path for path in far.root.glob(".*") if path.name != ".claims"]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task has all the time that it may need on a busy machine to stop by itself."""
    monkeypatch.setattr(ray_runner, "GRACE_S", 120.0)


def test_a_stop_keeps_what_was_learned(sweep: Callable[..., Iterator[Tagged]], patient: None, tmp_path: Path) -> None:
    store, stop = RunStore(tmp_path), threading.Event()
    events = sweep(specs_of(LONG), store, stop=stop)
    until(events, lambda steps: len(steps) == 2 and min(steps.values()) >= 5)
    stop.set()
    rest = by_run(list(events))
    for run in store.runs():
        (done,) = [event for event in rest[run.run_id] if isinstance(event, DoneEvent)]
        assert done.status == run.metrics["status"] == "stopped"
        assert done.step == run.metrics["step"] >= 5
        assert all(delta.numerical_rank > 0 for delta in run.adapter().values())
    assert len(store.runs()) == 2


def test_closing_the_generator_ends_the_tasks_and_keeps_what_was_learned(
    sweep: Callable[..., Iterator[Tagged]], patient: None, tmp_path: Path
) -> None:
    store = RunStore(tmp_path)
    events = sweep(specs_of(LONG), store)
    until(events, lambda steps: len(steps) == 2 and min(steps.values()) >= 5)
    events.close()
    assert {run.metrics["status"] for run in store.runs()} == {"stopped"}
    assert len(store.runs()) == 2
    for run in store.runs():
        steps = [event.step for event in run.events() if isinstance(event, StepEvent)]
        assert steps == list(range(1, run.metrics["step"] + 1))
    assert_no_task_is_left()


@pytest.mark.parametrize("how", [{}, {"address": None}], ids=["by its address", "connected already"])
def test_a_node_gets_base_and_data_from_the_object_store(
    how: dict[str, None],
    cluster: SimpleNamespace,
    sweep: Callable[..., Iterator[Tagged]],
    make_writer: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Both are moved away when they have been put: no task can read them where they were."""
    made = make_writer(layers=1)
    base, away = Path(made.base), tmp_path / "away"
    bench = ll.find_bench(made.base, made.data)
    specs = expand(bench, ll.SweepSpec(r=(1, 2), steps=3, batch_size=2))
    here = RunStore(tmp_path / "inline")
    list(sweep_events(specs, here, runner="inline"))
    put = ray_runner.supplies_of

    def put_and_move_away(*given: object) -> object:
        supplies = put(*given)
        base.rename(away)
        return supplies

    monkeypatch.setattr(ray_runner, "supplies_of", put_and_move_away)
    store = RunStore(tmp_path / "ray")
    said = list(sweep(specs, store, grouped=1, **how))
    assert {event.status for _, event in said if isinstance(event, DoneEvent)} == {"finished"}
    assert not base.exists()
    away.rename(base)
    ids = [spec.run_id for spec in specs]
    for one, other in zip(store.find(ids), here.find(ids), strict=True):
        torch.testing.assert_close(*(load_file(run.adapter_dir / "adapter_model.safetensors") for run in (one, other)))
        configs = [json.loads((run.adapter_dir / "adapter_config.json").read_text()) for run in (one, other)]
        assert [config["base_model_name_or_path"] for config in configs] == [made.base] * 2
    assert (cluster.cache / "supplied").is_dir()


@pytest.mark.usefixtures("connection")
def test_the_command_of_the_docs_trains_on_the_cluster(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (repository / "docs" / "clusters.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("python -m lora_lab sweep ")]
    words = shlex.split(line)[3:]
    assert words[-4:] == ["--runner", "ray", "--address", "auto"]
    assert main([*words, "--steps", "2", "--batch", "2", "--runs", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["runs"]) == len(RunStore(tmp_path).complete_ids()) == 8
    assert {run["metrics"]["status"] for run in document["runs"]} == {"finished"}
    assert main([*words, "--runs", str(tmp_path), "--plan"]) == 2
    assert "whose pace can be timed here" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_refused_in_a_sentence(
    sweep: Callable[..., Iterator[Tagged]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ray_cluster, "_ANSWER_S", 0.0)
    with pytest.raises(SpecError, match=r"must answer this process.* Got GetTimeoutError"):
        list(sweep(specs_of(LONG), RunStore(tmp_path)))
    assert [path.name for path in tmp_path.glob(".*")] == [".claims"]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"runner": "ray", "device": "mps"}, "device"),
        ({"runner": "ray", "address": "ray://head:10001"}, "HOST:PORT"),
        ({"runner": "inline", "address": "auto"}, "address"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_at_the_call(tmp_path: Path, how: dict[str, str], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        sweep_events([], RunStore(tmp_path), **how)


def test_an_accelerator_that_the_cluster_has_not_is_refused(sweep: Callable[..., Iterator[Tagged]], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no GPU"):
        list(sweep(specs_of(LONG), RunStore(tmp_path), device="cuda"))


def test_where_ray_is_missing_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpecError, match=r"pip install ray"):
        sweep_events([], RunStore(tmp_path), runner="ray")
    list(sweep_events([], RunStore(tmp_path), runner="inline"))


def test_a_run_that_fails_on_a_node_is_one_sentence_and_the_others_go_on(
    sweep: Callable[..., Iterator[Tagged]], tmp_path: Path
) -> None:
    good = specs_of(ll.SweepSpec(r=(1,), steps=2, batch_size=2))[0]
    store = RunStore(tmp_path)
    said = by_run(list(sweep((replace(good, base_sha256="0" * 64), good), store)))
    (bad,) = said.keys() - {good.run_id}
    (done,) = said[bad]
    assert isinstance(done, DoneEvent)
    assert (done.status, "must have SHA-256" in done.message) == ("failed", True)
    assert [run.run_id for run in store.runs()] == [good.run_id]
    assert not list(tmp_path.glob(".draft-*"))


# Losses: from here on the cluster has one node


def test_a_node_lost_in_mid_sweep_costs_no_run(
    cluster: SimpleNamespace, sweep: Callable[..., Iterator[Tagged]], tmp_path: Path
) -> None:
    """And no step, bit for bit: each run goes alone, so that nothing depends on its company."""
    specs = specs_of(ll.SweepSpec(r=(1, 2), steps=120, batch_size=4))
    store, undisturbed = RunStore(tmp_path / "ray"), RunStore(tmp_path / "undisturbed")
    events = sweep(specs, store, grouped="never")
    said = until(events, lambda steps: len(steps) == 2 and min(steps.values()) >= 10)
    with paused(ray_processes("ray::lora-lab")) as workers:  # none comes to its end before the node is gone
        lost = [worker for worker in workers if worker.ppid() == raylet_of(cluster.second)]
        cluster.remove(cluster.second, allow_graceful=False)
        for worker in lost:
            worker.kill()
    said += list(events)
    assert (len(workers), len(lost)) == (2, 1)
    told = by_run(said)
    assert sorted(sum(isinstance(event, StartEvent) for event in events) for events in told.values()) == [1, 2]
    assert all(sum(isinstance(event, DoneEvent) for event in events) == 1 for events in told.values())
    list(sweep_events(specs, undisturbed, runner="inline", grouped="never"))
    assert len(store.runs()) == 2
    for run in store.runs():
        other = undisturbed.get(run.run_id)
        assert losses_of(run) == losses_of(other)
        assert [step for step, split, _ in losses_of(run) if not split] == list(range(1, 121))
        assert file_of(run) == file_of(other)


def test_a_task_that_does_not_stop_in_time_is_ended_and_what_it_saved_is_kept(
    sweep: Callable[..., Iterator[Tagged]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ray_runner, "GRACE_S", 0.5)
    store, stop = RunStore(tmp_path), threading.Event()
    spec = replace(specs_of(LONG)[0], eval_every_steps=50)  # scored, and saved
    events = sweep((spec,), store, stop=stop)
    until(events, lambda steps: steps.get(spec.run_id, 0) > 50)
    with paused(ray_processes("ray::lora-lab")):
        stop.set()
        rest = list(events)
    (done,) = [event for _, event in rest if isinstance(event, DoneEvent)]
    (run,) = store.runs()
    assert done.status == run.metrics["status"] == "stopped"
    assert run.metrics["step"] in range(50, spec.steps, 50)
    assert_no_task_is_left()


def test_a_run_whose_worker_dies_in_its_last_try_has_failed_in_one_sentence(
    sweep: Callable[..., Iterator[Tagged]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """How many there are is in test_tries.py."""
    for module in (tries, ray_runner):
        monkeypatch.setattr(module, "MOST_TRIES", 1)
    store, (spec, _) = RunStore(tmp_path), specs_of(LONG)
    said = []
    for tagged in sweep((spec,), store):
        said.append(tagged)
        if isinstance(tagged[1], StartEvent):
            (worker,) = ray_processes("ray::lora-lab")
            worker.kill()
    (done,) = [event for _, event in said if isinstance(event, DoneEvent)]
    assert said[-1] == (spec.run_id, done)
    assert done.status == "failed"
    assert done.message.startswith("The training process was lost 1 times (")
    assert store.runs() == []
    assert not store.is_claimed(spec.run_id)


def test_a_stop_between_two_tries_ends_the_run_that_had_begun(
    sweep: Callable[..., Iterator[Tagged]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Though it waits for another worker, as its own was lost."""
    store, stop, again = RunStore(tmp_path), threading.Event(), tries.Tries.again
    monkeypatch.setattr(tries.Tries, "again", lambda *of: (stop.set(), again(*of))[1])
    (spec, _) = specs_of(LONG)
    events = sweep((spec,), store, stop=stop)
    until(events, lambda steps: steps.get(spec.run_id, 0) >= 5)
    (worker,) = ray_processes("ray::lora-lab")
    worker.kill()
    (done,) = [event for _, event in events if isinstance(event, DoneEvent)]
    assert done.status == "stopped"
    assert done.step >= 5
    assert store.runs() == [], "it had saved nothing"
    assert not store.is_claimed(spec.run_id)
    assert_no_task_is_left()


def test_without_an_address_a_cluster_of_this_machine_comes_and_goes(unconnected: None, tmp_path: Path) -> None:
    before, handler = {process.pid for process in ray_processes()}, signal.getsignal(signal.SIGTERM)
    specs = specs_of(ll.SweepSpec(r=(1,), steps=1, batch_size=2))
    listened: set[str] = set()
    for _, event in sweep_events(specs, RunStore(tmp_path), runner="ray"):
        if isinstance(event, StartEvent):
            fresh = [process for process in ray_processes() if process.pid not in before]
            sockets = [c for p in fresh for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            listened = {connection.laddr.ip.removeprefix("::ffff:") for connection in sockets}
    assert RunStore(tmp_path).is_complete(specs[0].run_id)
    assert listened == {"127.0.0.1"}
    assert_soon(lambda: {process.pid for process in ray_processes()} <= before)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert "RAY_AUTH_MODE" not in os.environ, "a cluster without a token would not hear this process"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
