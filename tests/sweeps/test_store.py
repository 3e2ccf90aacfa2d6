"""The store: a run is there whole or not at all, and the folders are the truth."""

import json
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import lora_lab as ll
from lora_lab.adapters import write_snapshot
from lora_lab.errors import StoreError
from lora_lab.events import DoneEvent, EvalEvent, Event, StartEvent, Status, StepEvent, to_record
from lora_lab.lowrank import LowRank
from lora_lab.sweeps import Run, RunStore
from lora_lab.sweeps import claims as claims_module

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
    assert draft is not None
    for event in said(spec, steps=steps, status=status):
        draft.record(event)
    write_adapter(draft.folder / "adapter")
    draft.commit()
    return store.get(spec.run_id)


def abandon(
    store: RunStore, spec: ll.RunSpec, *, steps: int, snapshot: bool = True, tail: str = "", status: Status | None = None
) -> Path:
    """The folder that a process leaves when it is killed after so many steps, or once its log says how it ended."""
    folder = store.root / f".draft-{spec.run_id}"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec.to_json()))
    lines = [json.dumps(to_record(event)) + "\n" for event in said(spec, steps=steps, status=status)]
    (folder / "events.jsonl").write_text("".join(lines) + tail)
    if snapshot:
        write_adapter(folder / "adapter")
        (folder / "adapter" / "lora_lab.json").write_text(json.dumps({"step": steps // EVERY * EVERY}))
    return folder


def folders(store: RunStore) -> set[str]:
    return {path.name for path in store.root.iterdir() if path.is_dir()}


def claims(store: RunStore) -> set[str]:
    return {path.name for path in store.root.glob(".claim-*")}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


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
    assert folders(store) == claims(store) == set()
    assert store.runs() == []


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


def test_a_whole_id_means_that_run_whatever_else_begins_so(store: RunStore) -> None:
    run = keep(store, a_spec())
    shutil.copytree(run.folder, store.root / f"{run.run_id}-copy")
    assert store.get(run.run_id) == run


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


# Claims: one process trains a run


def test_a_run_that_is_being_trained_cannot_be_begun(store: RunStore) -> None:
    draft = store.begin(a_spec())
    assert store.begin(a_spec()) is None
    assert RunStore(store.root).begin(a_spec()) is None
    assert draft.folder.is_dir()
    assert store.begin(a_spec(seed=1)) is not None


def test_of_threads_that_begin_a_run_at_once_one_gets_it(store: RunStore) -> None:
    start, got = threading.Barrier(8), []

    def begin() -> None:
        start.wait()
        got.append(store.begin(a_spec()))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([draft for draft in got if draft is not None]) == 1


@pytest.mark.parametrize("end", ["discarded", "stopped", "dropped"])
def test_a_run_that_was_let_go_unfinished_can_be_begun_again(store: RunStore, end: str) -> None:
    draft = store.begin(a_spec())
    if end == "discarded":
        draft.discard()
    elif end == "stopped":
        for event in said(a_spec(), steps=2, status="stopped"):
            draft.record(event)
        write_adapter(draft.folder / "adapter")
        draft.commit()
    del draft  # an error that nobody caught
    assert not store.is_claimed(a_spec().run_id)
    assert store.begin(a_spec()) is not None


def test_a_complete_run_cannot_be_begun(store: RunStore) -> None:
    keep(store, a_spec())
    assert store.begin(a_spec()) is None
    assert not store.is_claimed(a_spec().run_id)
    assert folders(store) == {a_spec().run_id}
    assert claims(store) == set()


def test_a_run_is_claimed_while_its_draft_lives(store: RunStore) -> None:
    one, two = a_spec(), a_spec(seed=1)
    assert not store.is_claimed(one.run_id)
    draft, other = store.begin(one), store.begin(two)
    for look in (store, RunStore(store.root)):
        assert [look.is_claimed(spec.run_id) for spec in (one, two, a_spec(seed=2))] == [True, True, False]
    draft.discard()
    assert [store.is_claimed(spec.run_id) for spec in (one, two)] == [False, True]
    other.discard()
    assert claims(store) == set()


def test_looking_takes_nothing_from_who_trains(store: RunStore) -> None:
    """A look at a claim, or a recovery, is never mistaken for somebody who has the run."""
    stop, refused = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            store.is_claimed(a_spec().run_id)
            store.recover()

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    for _ in range(200):
        (store.root / f".gone-{a_spec().run_id}").mkdir(exist_ok=True)  # so that there is something to recover
        draft = store.begin(a_spec())
        refused += [draft] if draft is None else []
        if draft is not None:
            draft.discard()
    stop.set()
    for looker in lookers:
        looker.join()
    assert refused == []


def test_a_draft_that_cannot_be_made_claims_nothing(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*args: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", no_space)
        with pytest.raises(StoreError, match="No space left"):
            store.begin(a_spec())
    assert not store.is_claimed(a_spec().run_id)
    assert store.begin(a_spec()) is not None


def test_what_a_dead_process_learned_is_kept_before_its_run_is_begun_again(store: RunStore) -> None:
    abandon(store, a_spec(), steps=EVERY + 1)
    draft = store.begin(a_spec())
    assert draft is not None
    assert store.get(a_spec().run_id).metrics["step"] == EVERY
    assert {path.name for path in draft.folder.iterdir()} == {"spec.json"}


def test_a_run_that_a_dead_process_had_ended_is_not_begun_again(store: RunStore) -> None:
    abandon(store, a_spec(), steps=STEPS, status="finished")
    assert store.begin(a_spec()) is None
    assert store.is_complete(a_spec().run_id)
    assert folders(store) == {a_spec().run_id}


# Recovery


@pytest.mark.parametrize("tail", ["", TORN], ids=["whole log", "torn log"])
def test_the_last_snapshot_of_a_dead_process_becomes_a_stopped_run(store: RunStore, tail: str) -> None:
    spec = a_spec()
    abandon(store, spec, steps=EVERY + 1, tail=tail)
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
def test_a_dead_process_without_a_snapshot_leaves_nothing(store: RunStore, steps: int, snapshot: bool) -> None:
    abandon(store, a_spec(), steps=steps, snapshot=snapshot)
    assert store.recover() == []
    assert store.runs() == []
    assert folders(store) == set()


def test_what_a_dead_process_had_half_written_is_no_part_of_the_run(store: RunStore) -> None:
    """It was killed while it replaced its snapshot."""
    draft = abandon(store, a_spec(), steps=EVERY + 1)
    (draft / "adapter.new").mkdir()
    (draft / "adapter.new" / "adapter_model.safetensors").write_bytes(b"\0" * 10)
    (run,) = store.recover()
    assert {path.name for path in run.folder.iterdir()} == {"spec.json", "events.jsonl", "metrics.json", "adapter"}


@pytest.mark.parametrize("status", [None, "finished"], ids=["killed", "killed at the end"])
def test_snapshots_later_than_the_adapter_that_is_kept_are_dropped(store: RunStore, status: Status | None) -> None:
    steps = STEPS if status else EVERY + 1
    draft = abandon(store, a_spec(), steps=steps, status=status)
    for step in range(1, steps + 1):
        write_snapshot(draft / "snapshots", {"m": LowRank(torch.ones(3, 1), torch.ones(1, 2), float(step))}, step=step)
    (draft / "snapshots" / "step-000005.safetensors.new").write_bytes(b"\0" * 10)
    (run,) = store.recover()
    assert [(step, modules["m"].scaling) for step, modules in run.snapshots()] == [
        *((step, step) for step in range(1, steps // EVERY * EVERY)),
        (steps // EVERY * EVERY, 1),  # the adapter
    ]
    assert len(list((run.folder / "snapshots").iterdir())) == steps // EVERY * EVERY


def test_a_draft_of_a_living_process_is_left_alone(store: RunStore) -> None:
    draft = store.begin(a_spec())
    write_adapter(draft.folder / "adapter")
    (draft.folder / "adapter" / "lora_lab.json").write_text('{"step": 3}')
    for event in said(a_spec(), status=None):
        draft.record(event)
    assert RunStore(store.root).recover() == []
    assert draft.folder.is_dir()
    assert store.runs() == []
    draft.record(said(a_spec())[-1])
    draft.commit()
    assert store.is_complete(a_spec().run_id)


def test_a_complete_run_is_never_replaced_by_a_draft(store: RunStore) -> None:
    run = keep(store, a_spec())
    abandon(store, a_spec(), steps=EVERY + 1)
    assert store.recover() == []
    assert store.get(run.run_id) == run
    assert folders(store) == {run.run_id}


@pytest.mark.parametrize("tail", ["", TORN, TORN + "\n"])
def test_a_log_is_read_up_to_its_torn_last_line(store: RunStore, tail: str) -> None:
    run = keep(store, a_spec())
    with (run.folder / "events.jsonl").open("a") as file:
        file.write(tail)
    assert run.events() == said(a_spec())


# The index


def fake(store: RunStore, spec: ll.RunSpec, **metrics: object) -> None:
    """A run's folder without anything in it that an index does not read."""
    folder = store.root / spec.run_id
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec.to_json()))
    (folder / "metrics.json").write_text(json.dumps({"status": "finished", "step": STEPS, **metrics}))


def test_only_the_runs_asked_for_are_read(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may have thousands: to tell which are complete none is opened, and to find one only that."""
    specs = [a_spec(seed) for seed in range(20)]
    for i, spec in enumerate(specs):
        fake(store, spec, status="stopped" if i % 4 == 0 else "finished")
    store.runs()
    parsed: list[str] = []
    from_json = ll.RunSpec.from_json.__func__

    def counted(cls: type[ll.RunSpec], record: dict[str, object]) -> ll.RunSpec:
        parsed.append(record["seed"])
        return from_json(cls, record)

    monkeypatch.setattr(ll.RunSpec, "from_json", classmethod(counted))
    assert store.complete_ids() == {spec.run_id for i, spec in enumerate(specs) if i % 4}
    assert store.is_complete(specs[1].run_id)
    assert parsed == []
    assert [run.spec for run in store.find([specs[7].run_id, specs[3].run_id])] == [specs[7], specs[3]]
    assert store.get(specs[5].run_id).spec == specs[5]
    assert sorted(parsed) == [3, 5, 7]


def test_the_index_is_in_wal_mode(store: RunStore) -> None:
    keep(store, a_spec())
    index = sqlite3.connect(store.root / "index.sqlite")
    assert index.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    index.close()


def test_an_index_of_another_make_is_made_anew(store: RunStore) -> None:
    run = keep(store, a_spec())
    (store.root / "index.sqlite").unlink()
    index = sqlite3.connect(store.root / "index.sqlite")
    index.execute("CREATE TABLE runs (run_id TEXT PRIMARY KEY, finished_at REAL, spec TEXT, metrics TEXT)")
    index.close()
    assert store.runs() == [run]
    assert store.is_complete(run.run_id)


def test_a_look_waits_for_no_writer(store: RunStore) -> None:
    run = keep(store, a_spec())
    writer = sqlite3.connect(store.root / "index.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM runs")
    assert store.runs() == [run]
    assert store.complete_ids() == {run.run_id}
    writer.execute("ROLLBACK")
    writer.close()


def test_a_store_on_a_file_system_without_locks_is_refused_in_one_sentence(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*arguments: object, **named: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(claims_module, "lock_descriptor", no_locks)
    with pytest.raises(StoreError, match=r"must be on a file system with locks\. Got .*: Function not implemented\."):
        store.begin(a_spec())


def test_an_index_that_was_written_behind_the_folders_is_put_right_by_the_next_look(store: RunStore) -> None:
    run = keep(store, a_spec())
    with sqlite3.connect(store.root / "index.sqlite") as writer:
        writer.execute("UPDATE runs SET finished_ns = 1, status = 'stopped'")
        writer.execute("INSERT INTO runs VALUES ('nothing', 1, 'finished', '{}', '{}')")
    writer.close()
    assert store.complete_ids() == {run.run_id}
    assert store.runs() == [run]


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


def test_a_snapshot_put_aside_when_its_process_died_is_kept(store: RunStore) -> None:
    """It was killed between the two renames that replace a snapshot."""
    draft = abandon(store, a_spec(), steps=EVERY + 1)
    (draft / "adapter").rename(draft / "adapter.old")
    (run,) = store.recover()
    assert run.adapter()


def test_what_a_dead_process_put_aside_is_cleared(store: RunStore) -> None:
    """It was killed after the run had taken the place of a lesser one, or while it removed a draft."""
    run = keep(store, a_spec())
    for name in (".old", ".gone"):
        (store.root / f"{name}-{run.run_id}").mkdir()
    (store.root / f".claim-{run.run_id}").touch()
    assert store.recover() == []
    assert folders(store) == {run.run_id}
    assert claims(store) == set()


def test_a_run_put_aside_for_a_draft_that_is_lost_comes_back(store: RunStore) -> None:
    run = keep(store, a_spec(), steps=2, status="stopped")
    run.folder.rename(store.root / f".old-{run.run_id}")
    store.recover()
    assert store.runs() == [run]
    assert folders(store) == {run.run_id}


def test_a_draft_cut_off_between_two_renames_becomes_the_run(store: RunStore) -> None:
    lesser = keep(store, a_spec(), steps=2, status="stopped")
    abandon(store, a_spec(), steps=STEPS, status="finished")
    lesser.folder.rename(store.root / f".old-{lesser.run_id}")
    (run,) = store.recover()
    assert (run.metrics["status"], run.metrics["step"]) == ("finished", STEPS)
    assert folders(store) == {run.run_id}


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


def test_a_deleted_run_is_gone_from_folder_and_index_and_can_be_trained_again(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    kept, gone = keep(store, a_spec(0)), keep(store, a_spec(1))
    assert store.delete([gone.run_id, gone.run_id[:8]]) == (gone.run_id,)
    assert [run.run_id for run in store.runs()] == [kept.run_id]
    assert not any(gone.run_id in path.name for path in tmp_path.iterdir())
    assert keep(store, a_spec(1)).is_complete


def test_runs_are_deleted_all_or_none(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    stopped = keep(store, a_spec(0), steps=3, status="stopped")
    other = keep(store, a_spec(1))
    with pytest.raises(StoreError, match="no run begins so"):
        store.delete([other.run_id, "ffffffffffff"])
    draft = RunStore(tmp_path).begin(stopped.spec)  # it is resumed by somebody at this moment
    assert draft is not None
    with pytest.raises(StoreError, match=rf"must not be in training\. Got '{stopped.run_id}'"):
        store.delete([other.run_id, stopped.run_id])
    assert len(store.runs()) == 2
    draft.discard()
    assert set(store.delete([other.run_id, stopped.run_id])) == {other.run_id, stopped.run_id}
    assert store.runs() == []


def test_what_a_kill_leaves_of_a_deletion_is_cleared(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    run = keep(store, a_spec())
    run.folder.rename(tmp_path / f".gone-{run.run_id}")  # killed right after the rename
    assert store.runs() == []
    assert store.recover() == []
    assert not any(run.run_id in path.name for path in tmp_path.iterdir())
