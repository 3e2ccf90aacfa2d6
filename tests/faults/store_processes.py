"""What the processes of test_claims.py do: `python store_processes.py WORK ROOT [ARGUMENTS]`, a line of JSON a result.

They train nothing: a run here is a log and a tiny adapter, so that hundreds come and go in seconds.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import lora_lab as ll
from lora_lab.adapters.folders import replaced, write_record
from lora_lab.events import DoneEvent, EvalEvent, StartEvent, Status, StepEvent
from lora_lab.sweeps import RunStore, worker
from lora_lab.sweeps.draft import Draft
from lora_lab.sweeps.groups import Group
from lora_lab.sweeps.recorder import Recorder
from lora_lab.sweeps.worker import Tagged

STEPS, SNAPSHOT = 4, 2
_forked = multiprocessing.get_context("fork")  # what this process has imported its children need not import again


def specs(n: int) -> list[ll.RunSpec]:
    """So many runs."""
    return [
        ll.RunSpec(bench="digits", base_sha256="0" * 64, seed=seed, steps=STEPS, eval_every_steps=SNAPSHOT) for seed in range(n)
    ]


def learn(draft: Draft, steps: int) -> None:
    """What a run of so many steps writes, its snapshots as training makes them."""
    draft.record(StartEvent(draft.spec.run_id, STEPS, 8, 0, 100, "cpu", "fp32"))
    draft.record(EvalEvent(0, 0.1, 2.0, 0.0))
    for step in range(1, steps + 1):
        draft.record(StepEvent(step, 1 / step, 1e-3, 0.5, float(step)))
        if step % SNAPSHOT == 0:
            save(draft.folder / "adapter", step)
            draft.record(EvalEvent(step, 0.5, 1.0, float(step)))


def save(folder: Path, step: int) -> None:
    """A PEFT adapter of rank 1, whose weights say at which step it was saved."""
    with replaced(folder) as fresh:
        fresh.mkdir()
        (fresh / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
        factors = {"lora_A": torch.full((1, 2), float(step)), "lora_B": torch.ones(3, 1)}
        save_file({f"base_model.model.m.{n}.weight": t for n, t in factors.items()}, fresh / "adapter_model.safetensors")
        write_record(fresh, {"step": step})


def end(draft: Draft, status: Status, step: int) -> None:
    """The run's last word."""
    draft.record(DoneEvent(status, step, "", float(step), None))
    draft.commit()


def say(**record: object) -> None:
    """One result, to whoever started this process; in one piece, as children say theirs on the same pipe."""
    os.write(1, json.dumps(record).encode() + b"\n")


def begin_all(root: Path, number: int, runs: int, rounds: int, meeting: Barrier) -> None:
    """Begin every run in every round, in an order of its own; hold what it got until the round is over, and leave it unfinished."""
    store, order = RunStore(root), random.Random(number)
    for turn in range(rounds):
        wanted = specs(runs)
        order.shuffle(wanted)
        meeting.wait(60)
        held = [draft for spec in wanted if (draft := store.begin(spec)) is not None]
        say(round=turn, racer=number, got=[draft.spec.run_id for draft in held])
        meeting.wait(60)
        for draft in held:
            draft.discard()


def train_all(root: Path, number: int, runs: int, meeting: Barrier) -> None:
    """Train what is missing, and look for each run in the store."""
    store, order, todo = RunStore(root), random.Random(number), specs(runs)
    order.shuffle(todo)
    meeting.wait(60)
    for spec in todo:
        draft = store.begin(spec)
        if draft is not None:
            learn(draft, STEPS)
            end(draft, "finished", STEPS)
            say(trained=spec.run_id, racer=number)
            assert store.is_complete(spec.run_id), "a run is lost"
            assert store.find([spec.run_id])[0].spec == spec


def look(root: Path, seconds: float) -> None:
    """Read the store."""
    deadline_s, seen, looks = time.monotonic() + seconds, set(), 0
    while time.monotonic() < deadline_s:
        store = RunStore(root)
        now = store.complete_ids()
        assert seen <= now, "a complete run was not seen again"
        assert {run.run_id for run in store.runs()} >= now
        seen, looks = now, looks + 1
    say(looks=looks)


def claim(root: Path, runs: int, seed: int) -> None:
    """Train for ever, group after group of three at once, until killed."""
    store, choice = RunStore(root), random.Random(seed)
    while True:
        drafts = [draft for spec in choice.sample(specs(runs), 3) if (draft := store.begin(spec)) is not None]
        for draft in drafts:
            say(begun=draft.spec.run_id)
            learn(draft, STEPS - 1)
            say(learned=draft.spec.run_id)
        for draft in drafts:
            say(ending=draft.spec.run_id)
            if choice.random() < 0.5:
                end(draft, "stopped", STEPS - 1)
            else:
                draft.discard()


def at_once(*works: Callable[[], None]) -> None:
    """Each in a child of its own, to its end."""
    children = [_forked.Process(target=work) for work in works]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
        if child.exitcode != 0:
            raise SystemExit("a child failed")


def race(root: Path, runs: str, rounds: str) -> None:
    """Two processes want the same runs, round after round."""
    meeting = _forked.Barrier(2)
    at_once(*(partial(begin_all, root, number, int(runs), int(rounds), meeting) for number in range(2)))


def sweep(root: Path, runs: str) -> None:
    """Two processes train the same runs, a third reads."""
    meeting = _forked.Barrier(2)
    at_once(partial(look, root, 3.0), *(partial(train_all, root, number, int(runs), meeting) for number in range(2)))


def sweep_digits(root: Path, number: int, meeting: Barrier) -> None:
    """A real sweep that says what it trained, and what it had in the end."""
    torch.set_num_threads(1)
    events = worker._events

    def said(group: Group, recorder: Recorder, device: str | None) -> Generator[Tagged, None, None]:
        for spec in recorder.specs:
            say(trained=spec.run_id, sweep=number)
        return events(group, recorder, device)

    worker._events = said
    meeting.wait(60)
    done = ll.sweep("digits", ll.SweepSpec(r=(1, 2, 4), seeds=(0, 1), steps=40, batch_size=4), runs=root, runner="inline")
    say(has=[run.run_id for run in done], statuses=[run.metrics["status"] for run in done], failed=done.failed)


def real(root: Path) -> None:
    """Two sweeps of the same grid."""
    meeting = _forked.Barrier(2)
    at_once(*(partial(sweep_digits, root, number, meeting) for number in range(2)))


def index(root: Path, runs: str, rounds: str) -> None:
    """Four processes look at a store without an index."""
    train_all(root, 0, int(runs), _forked.Barrier(1))
    for _ in range(int(rounds)):
        for path in root.glob("index.sqlite*"):
            path.unlink()
        at_once(*(partial(look, root, 0.2) for _ in range(4)))


def kill(root: Path, runs: str, lives: str) -> None:
    """One process after the other trains in the store, and is killed at some moment."""
    moments = random.Random(4)
    for life in range(int(lives)):
        child = _forked.Process(target=claim, args=(root, int(runs), life))
        child.start()
        time.sleep(moments.uniform(0.02, 0.4))
        child.kill()
        child.join()
        say(killed=child.exitcode, draft=[path.name for path in root.glob(".draft-*")])


# Killed at each of its file operations in turn


def begin_and_stop(store: RunStore, spec: ll.RunSpec) -> None:
    draft = store.begin(spec)
    assert draft is not None
    learn(draft, STEPS)
    end(draft, "stopped", STEPS)


def begin_and_finish(store: RunStore, spec: ll.RunSpec) -> None:
    draft = store.begin(spec)
    assert draft is not None
    learn(draft, STEPS)
    end(draft, "finished", STEPS)


def begin_and_discard(store: RunStore, spec: ll.RunSpec) -> None:
    draft = store.begin(spec)
    assert draft is not None
    learn(draft, STEPS)
    draft.discard()


def recover(store: RunStore, spec: ll.RunSpec) -> None:
    store.recover()


def leave_a_stopped_run(store: RunStore, spec: ll.RunSpec) -> None:
    draft = store.begin(spec)
    assert draft is not None
    learn(draft, 1)
    save(draft.folder / "adapter", 1)
    end(draft, "stopped", 1)


def leave_a_draft(store: RunStore, spec: ll.RunSpec) -> None:
    draft = store.begin(spec)
    assert draft is not None
    learn(draft, STEPS - 1)


BEFORE: dict[str, list[Callable[[RunStore, ll.RunSpec], None]]] = {
    "nothing": [],
    "a stopped run": [leave_a_stopped_run],
    "a draft": [leave_a_draft],
    "a stopped run and a draft": [leave_a_stopped_run, leave_a_draft],
}
WORKS = {work.__name__: work for work in (begin_and_stop, begin_and_finish, begin_and_discard, recover)}


def killed_everywhere(root: Path, work: str, before: str) -> None:
    """Do the work again and again in a child, killed at its first file operation, at its second, ... until it comes through.

    After each: what the next process finds, recovers and can begin.
    """
    (spec,) = specs(1)
    came_through, at = False, 0
    while not came_through:
        at += 1
        folder = root / f"{at}"
        for step in BEFORE[before]:
            in_a_child(partial(step, RunStore(folder), spec))
        came_through = in_a_child(partial(WORKS[work], RunStore(folder), spec), killed_at=at)
        say(at=at, came_through=came_through, **aftermath(folder, spec))


def in_a_child(work: Callable[[], None], *, killed_at: int = 0) -> bool:
    """Whether the child ended by itself."""
    child = os.fork()
    if child == 0:
        if killed_at:
            kill_at(killed_at)
        try:
            work()
        except BaseException as err:
            print(f"{type(err).__name__}: {err}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status not in (0, signal.SIGKILL):
        raise SystemExit("the child failed")
    return status == 0


def kill_at(count: int) -> None:
    """SIGKILL in place of this process's so-many-th operation that changes a file or a lock."""
    left = [count]
    kinds = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.", "sqlite3.connect")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event.startswith(kinds):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def aftermath(folder: Path, spec: ll.RunSpec) -> dict[str, object]:
    """What a process finds that comes after."""
    store = RunStore(folder)
    claimed = store.is_claimed(spec.run_id)
    store.recover()
    again = store.recover()
    runs = [
        {"step": run.metrics["step"], "status": run.metrics["status"], "weight": float(run.adapter()["m"].dense()[0, 0])}
        for run in store.runs()
    ]
    draft = store.begin(spec)
    begun = draft is not None
    if draft is not None:
        draft.discard()
    left = sorted(path.name for path in folder.iterdir() if path.name[0] == "." and path.name != ".claims")
    return {"claimed": claimed, "runs": runs, "begun": begun, "left": left, "again": len(again)}


if __name__ == "__main__":
    kind, place, *rest = sys.argv[1:]
    kinds = {"race": race, "sweep": sweep, "real": real, "index": index, "kill": kill, "killed_everywhere": killed_everywhere}
    kinds[kind](Path(place), *rest)
