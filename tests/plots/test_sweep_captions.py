"""The sentence over a sweep that has not begun."""

from dataclasses import replace

from lora_lab.plots.sweep_captions import sweep_plan_caption
from lora_lab.sweeps.estimate import SweepPlan

PLAN = SweepPlan(
    runs=24, kept=3, steps=4200, adapter_bytes=1_230_000, snapshot_bytes=0, log_bytes=3_400_000, time_s=150.0, passes=4, workers=2
)


def test_what_a_sweep_would_take_is_one_sentence() -> None:
    said = "24 runs, 3 of them in the store already: 4,200 optimizer steps, 1.23 MB of adapters and 3.4 MB of logs"
    assert sweep_plan_caption(PLAN) == f"{said}, about 2 min 30 s here in 4 passes, 2 at once, by a few timed steps of each kind."
    assert sweep_plan_caption(replace(PLAN, time_s=None)) == f"{said}."
    assert "about 2 min 30 s here in 1 pass, by" in sweep_plan_caption(replace(PLAN, passes=1, workers=1))


def test_snapshots_are_named_where_any_are_kept() -> None:
    said = sweep_plan_caption(replace(PLAN, snapshot_bytes=2_500_000))
    assert "1.23 MB of adapters, 2.5 MB of snapshots and 3.4 MB of logs" in said


def test_a_sweep_that_is_there_already_takes_nothing() -> None:
    done = SweepPlan(runs=1, kept=1, steps=0, adapter_bytes=0, snapshot_bytes=0, log_bytes=0, time_s=0.0, passes=0, workers=0)
    assert sweep_plan_caption(done) == "1 run, and the store has all of them: nothing is left to do."
