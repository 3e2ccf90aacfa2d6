"""The store: a run is there whole or not at all, and the folders are the truth."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import lora_lab as ll
from lora_lab.errors import StoreError
from lora_lab.events import DoneEvent, EvalEvent, Event, StartEvent, Status, StepEvent, to_record
from lora_lab.sweeps import Run, RunStore

STEPS, EVERY = 6, 3
TORN = '{"event": "StepEvent", "step": 4, "lo'


def a_spec(seed: int = 0) -> ll.RunSpec:
    return ll.RunSpec(bench="digits", base_sha256="0" * 64, seed=seed, steps=STEPS, eval_every_steps=EVERY)


def said(spec: ll.RunSpec, *, steps: int = STEPS, status: Status | None = "finished") -> list[Event]:
    """What a run of so many steps says; without its Done if it was killed."""
    events: list[Event] = [StartEvent(spec.run_id, spec.steps, 8, 0, 100, "cpu", "fp32"), EvalEvent(0, 0.1, 2.0, 0.0)]
    for step in range(1, steps + 1):
        events.append(StepEvent(step, 1 / step, 1e-3, 0.5, step * 0.1))
        if step % EVERY == 0:
            events.append(EvalEvent(step, 0.1 * step, 1 / step, step * 0.1))
    return [*events, DoneEvent(status, steps, "", steps * 0.1, None)] if status else events


def write_adapter(folder: Path, value: float = 1.0) -> None:
    """A PEFT adapter of rank 1 on a 3 × 2 matrix."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    factors = {"lora_A": torch.full((1, 2), value), "lora_B": torch.ones(3, 1)}
    save_file({f"base_model.model.m.{n}.weight": t for n, t in factors.items()}, folder / "adapter_model.safetensors")


def keep(store: RunStore, spec: ll.RunSpec, *, steps: int = STEPS, status: Status = "finished") -> Run:
    """A run that went through the store as a worker's does."""
    draft = store.begin(spec)
    for event in said(spec, steps=steps, status=status):
        draft.record(event)
    write_adapter(draft.folder / "adapter")
    draft.commit()
    return store.get(spec.run_id)


def abandon(store: RunStore, spec: ll.RunSpec, pid: int, *, steps: int, snapshot: bool = True, tail: str = "") -> Path:
    """The folder that process `pid` leaves when it is killed after so many steps."""
    folder = store.root / f".draft-{spec.run_id}-{pid}"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec.to_json()))
    lines = [json.dumps(to_record(event)) + "\n" for event in said(spec, steps=steps, status=None)]
    (folder / "events.jsonl").write_text("".join(lines) + tail)
    if snapshot:
        write_adapter(folder / "adapter")
        (folder / "adapter" / "lora_lab.json").write_text(json.dumps({"step": steps // EVERY * EVERY}))
    return folder


def folders(store: RunStore) -> set[str]:
    return {path.name for path in store.root.iterdir() if path.is_dir()}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# A run comes whole


def test_a_draft_is_seen_by_no_reader_until_it_is_committed(store: RunStore) -> None:
    spec = a_spec()
    draft = store.begin(spec)
    for event in said(spec):
        draft.record(event)
    write_adapter(draft.folder / "adapter")
    assert store.runs() == []
    draft.commit()
    (run,) = store.runs()
    assert run.run_id == spec.run_id
    assert {path.name for path in run.folder.iterdir()} == {"spec.json", "events.jsonl", "metrics.json", "adapter"}
    assert folders(store) == {spec.run_id}


def test_a_discarded_draft_leaves_nothing(store: RunStore) -> None:
    draft = store.begin(a_spec())
    draft.record(said(a_spec())[0])
    draft.discard()
    assert list(store.root.iterdir()) == []


def test_a_commit_that_fails_leaves_no_run(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*args: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", no_space)
        with pytest.raises(OSError, match="no space"):
            keep(store, a_spec())
    assert store.runs() == []


def test_a_run_comes_back_as_it_was_recorded(store: RunStore) -> None:
    spec = a_spec()
    run = keep(store, spec)
    assert run.spec == spec
    assert run.events() == said(spec)
    assert run.adapter()["m"].dense().tolist() == [[1.0, 1.0]] * 3
    assert run.is_complete


def test_metrics_are_the_last_measured_numbers(store: RunStore) -> None:
    metrics = keep(store, a_spec()).metrics
    assert (metrics["status"], metrics["step"]) == ("finished", STEPS)
    assert metrics["accuracy"] == pytest.approx(0.1 * STEPS)
    assert (metrics["base_accuracy"], metrics["base_loss"]) == (0.1, 2.0)
    assert metrics["wall_s"] == pytest.approx(STEPS * 0.1)
    assert metrics["peak_memory_bytes"] is None
    assert metrics["peak_reserved_bytes"] is None


def test_a_number_that_was_not_measured_is_missing(store: RunStore) -> None:
    metrics = keep(store, a_spec(), steps=EVERY + 1, status="stopped").metrics
    assert (metrics["step"], metrics["accuracy"], metrics["loss"]) == (EVERY + 1, None, None)


# Finding runs


def test_a_run_is_found_by_the_beginning_of_its_id(store: RunStore) -> None:
    runs = [keep(store, a_spec(seed)) for seed in range(3)]
    for run in runs:
        assert store.get(run.run_id) == run
        ids = [other.run_id for other in runs]
        length = next(n for n in range(1, 13) if sum(other.startswith(run.run_id[:n]) for other in ids) == 1)
        assert store.get(run.run_id[:length]) == run


@pytest.mark.parametrize("run_id", ["", "nothing", "zzzzzzzzzzzz"])
def test_an_id_that_is_not_there_is_refused(store: RunStore, run_id: str) -> None:
    keep(store, a_spec())
    with pytest.raises(StoreError, match=f"Got {run_id!r}: no run begins so"):
        store.get(run_id)


def test_an_id_that_means_two_runs_is_refused(store: RunStore) -> None:
    ids = [keep(store, a_spec(seed)).run_id for seed in range(17)]  # 16 hex digits: two of them begin alike
    shared = next(first for first in "0123456789abcdef" if sum(run_id.startswith(first) for run_id in ids) > 1)
    with pytest.raises(StoreError, match=r"Got '.': \d+ runs begin so"):
        store.get(shared)


def test_runs_are_found_in_the_order_asked_for(store: RunStore) -> None:
    one, two = (keep(store, a_spec(seed)) for seed in range(2))
    assert store.find([two.run_id, "nothing", one.run_id]) == [two, one]


def test_runs_are_listed_oldest_first(store: RunStore) -> None:
    made = [keep(store, a_spec(seed)) for seed in range(3)]
    for age, run in enumerate(made):
        os.utime(run.folder / "metrics.json", (1e9 - age, 1e9 - age))
    assert [run.run_id for run in store.runs()] == [run.run_id for run in reversed(made)]


# The folders are the truth


def test_a_deleted_index_is_rebuilt_from_the_folders(store: RunStore) -> None:
    for seed in range(3):
        keep(store, a_spec(seed))
    before = store.runs()
    (store.root / "index.sqlite").unlink()
    assert RunStore(store.root).runs() == before


def test_a_deleted_folder_is_dropped_from_the_index(store: RunStore) -> None:
    gone, stays = (keep(store, a_spec(seed)) for seed in range(2))
    shutil.rmtree(gone.folder)
    assert store.runs() == [stays]
    assert not store.is_complete(gone.run_id)


def test_a_copied_folder_is_a_run(store: RunStore, tmp_path: Path) -> None:
    elsewhere = RunStore(tmp_path / "elsewhere")
    run = keep(elsewhere, a_spec())
    assert store.runs() == []
    shutil.copytree(run.folder, store.root / run.run_id)
    (copied,) = store.runs()
    assert (copied.spec, copied.metrics, copied.events()) == (run.spec, run.metrics, run.events())


def test_a_run_that_was_trained_again_is_read_again(store: RunStore) -> None:
    assert keep(store, a_spec(), steps=2, status="stopped").metrics["step"] == 2
    assert keep(store, a_spec()).metrics["step"] == STEPS
    assert len(store.runs()) == 1
    assert folders(store) == {a_spec().run_id}


@pytest.mark.parametrize(("status", "complete"), [("finished", True), ("diverged", True), ("stopped", False), ("failed", False)])
def test_a_run_is_complete_when_it_was_trained_to_its_end(store: RunStore, status: Status, complete: bool) -> None:
    run = keep(store, a_spec(), status=status)
    assert store.is_complete(run.run_id) == run.is_complete == complete


@pytest.mark.parametrize("status", ["stopped", "finished"])
def test_a_complete_run_is_never_replaced_by_a_lesser_one(store: RunStore, tmp_path: Path, status: Status) -> None:
    """Another process finished the run while this one was still at it."""
    spec = a_spec()
    draft = store.begin(spec)
    for event in said(spec, steps=2 if status == "stopped" else STEPS, status=status):
        draft.record(event)
    write_adapter(draft.folder / "adapter")
    shutil.copytree(keep(RunStore(tmp_path / "elsewhere"), spec).folder, store.root / spec.run_id)
    draft.commit()
    assert store.get(spec.run_id).metrics["status"] == "finished"
    assert folders(store) == {spec.run_id}


# Recovery


@pytest.mark.parametrize("tail", ["", TORN], ids=["whole log", "torn log"])
def test_the_last_snapshot_of_a_dead_process_becomes_a_stopped_run(store: RunStore, dead_pid: int, tail: str) -> None:
    spec = a_spec()
    abandon(store, spec, dead_pid, steps=EVERY + 1, tail=tail)
    (run,) = store.recover()
    assert run == store.get(spec.run_id)
    assert (run.metrics["status"], run.metrics["step"]) == ("stopped", EVERY)
    assert run.metrics["accuracy"] == pytest.approx(0.1 * EVERY)
    assert run.metrics["message"].endswith(".")
    assert run.adapter()["m"].frobenius() > 0
    *told, last = run.events()  # the log ends where the snapshot is
    assert told == [e for e in said(spec, steps=EVERY + 1, status=None) if getattr(e, "step", 0) <= EVERY]
    assert (last.status, last.step) == ("stopped", EVERY)
    assert not run.is_complete
    assert folders(store) == {spec.run_id}
    assert store.recover() == []


@pytest.mark.parametrize(("steps", "snapshot"), [(EVERY + 1, False), (EVERY - 1, True), (0, False)])
def test_a_dead_process_without_a_snapshot_leaves_nothing(store: RunStore, dead_pid: int, steps: int, snapshot: bool) -> None:
    abandon(store, a_spec(), dead_pid, steps=steps, snapshot=snapshot)
    assert store.recover() == []
    assert store.runs() == []
    assert folders(store) == set()


def test_what_a_dead_process_had_half_written_is_no_part_of_the_run(store: RunStore, dead_pid: int) -> None:
    """It was killed while it replaced its snapshot."""
    draft = abandon(store, a_spec(), dead_pid, steps=EVERY + 1)
    (draft / "adapter.new").mkdir()
    (draft / "adapter.new" / "adapter_model.safetensors").write_bytes(b"\0" * 10)
    (run,) = store.recover()
    assert {path.name for path in run.folder.iterdir()} == {"spec.json", "events.jsonl", "metrics.json", "adapter"}


def test_a_draft_of_a_living_process_is_left_alone(store: RunStore) -> None:
    draft = abandon(store, a_spec(), os.getpid(), steps=EVERY + 1)
    assert store.recover() == []
    assert draft.is_dir()
    assert store.runs() == []


def test_a_complete_run_is_never_replaced_by_a_draft(store: RunStore, dead_pid: int) -> None:
    run = keep(store, a_spec())
    abandon(store, a_spec(), dead_pid, steps=EVERY + 1)
    assert store.recover() == []
    assert store.get(run.run_id) == run
    assert folders(store) == {run.run_id}


@pytest.mark.parametrize("tail", ["", TORN, TORN + "\n"])
def test_a_log_is_read_up_to_its_torn_last_line(store: RunStore, tail: str) -> None:
    run = keep(store, a_spec())
    with (run.folder / "events.jsonl").open("a") as file:
        file.write(tail)
    assert run.events() == said(a_spec())


# Places that are no store


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def inside_a_file(folder: Path) -> Path:
    return a_file(folder) / "runs"


def read_only(folder: Path) -> Path:
    folder.chmod(0o555)
    if not os.access(folder, os.W_OK):
        return folder
    if not Path("/proc").is_dir():
        pytest.skip("this user may write everywhere")
    return Path("/proc")  # even to root


@pytest.mark.parametrize("make", [a_file, inside_a_file, read_only])
def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path, make: object) -> None:
    place = make(tmp_path)

    def use() -> None:
        store = RunStore(place)
        store.runs()
        store.begin(a_spec())

    with pytest.raises(StoreError) as caught:
        use()
    assert str(place) in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_snapshot_put_aside_when_its_process_died_is_kept(store: RunStore, dead_pid: int) -> None:
    """It was killed between the two renames that replace a snapshot."""
    draft = abandon(store, a_spec(), dead_pid, steps=EVERY + 1)
    (draft / "adapter").rename(draft / "adapter.old")
    (run,) = store.recover()
    assert run.adapter()


def test_what_a_dead_process_put_aside_is_cleared(store: RunStore, dead_pid: int) -> None:
    aside = store.root / f".old-{a_spec().run_id}-{dead_pid}"
    aside.mkdir()
    store.recover()
    assert not aside.exists()


def test_a_reader_beside_a_replacement_raises_nothing(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder goes between the listing and the reading; the next look finds the run again."""
    run = keep(store, a_spec())
    (store.root / "index.sqlite").unlink()
    read_text = Path.read_text

    def gone(path: Path, *args: object, **named: object) -> str:
        if path.name == "spec.json":
            raise FileNotFoundError(path)
        return read_text(path, *args, **named)

    with monkeypatch.context() as replaced:
        replaced.setattr(Path, "read_text", gone)
        assert store.runs() == []
    assert store.runs() == [run]


def test_a_stopped_run_is_not_replaced_by_a_shorter_one(store: RunStore) -> None:
    longer = keep(store, a_spec(), steps=EVERY + 2, status="stopped")
    keep(store, a_spec(), steps=1, status="stopped")
    assert store.get(longer.run_id).metrics["step"] == EVERY + 2


def test_an_index_that_is_no_database_is_made_anew(store: RunStore) -> None:
    run = keep(store, a_spec())
    (store.root / "index.sqlite").write_bytes(b"no database, whatever the name says" * 100)
    assert store.runs() == [run]


@pytest.mark.parametrize(
    "content", [{}, {"spec.json": "{"}, {"spec.json": '{"lora": {}, "new": 1}'}], ids=["no spec", "torn", "newer"]
)
def test_a_folder_that_is_no_run_hides_no_run(store: RunStore, content: dict[str, str]) -> None:
    run = keep(store, a_spec())
    (store.root / "stranger").mkdir()
    for name, text in {"metrics.json": "{}", **content}.items():
        (store.root / "stranger" / name).write_text(text)
    assert store.runs() == [run]
