"""The Train view's handlers as plain functions."""

import re
import time
from collections import Counter
from dataclasses import replace
from html import unescape
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from lora_lab.benches import find_bench
from lora_lab.budget import method_params
from lora_lab.inference import chain_rule_of
from lora_lab.specs import METHODS, MethodSpec
from lora_lab.sweeps import RunMemory, RunStore, memory_of, sweep_events
from lora_lab.ui import job_place
from lora_lab.ui import train as view
from lora_lab.ui.grid import targets_note
from lora_lab.ui.lab import Lab
from lora_lab.ui.selection import Selection
from lora_lab.ui.train_cards import memory_text
from lora_lab.ui.zero import duration_s, zero_events
from lora_lab.units import gigabytes

SMALL = Selection(r=(2,), seeds=(0, 1), steps=6)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(RunStore(tmp_path / "runs"))


def asked(**query: str) -> Any:
    return SimpleNamespace(query_params=query)


def test_an_address_that_asks_for_what_is_not_offered_falls_back(lab: Lab) -> None:
    restored = view.TrainView(lab).restore(asked(bench="/etc", r="4,5", alpha="3", seeds="0,99"))
    assert restored[0] == Selection(r=(4,), seeds=(0,))


def test_in_public_nobody_names_a_folder_of_the_server(lab: Lab) -> None:
    lab.public = True
    assert view.TrainView(lab).restore(asked(bench="yours", base="/", data="/etc/passwd"))[0].bench == "digits"


def test_in_public_a_sweep_is_bounded(lab: Lab) -> None:
    lab.public = True
    with pytest.raises(gr.Error, match=r"at most 4000 steps in all\. Got 10000"):
        next(view.TrainView(lab).begin(Selection(r=(1,), seeds=(0,), steps=10_000)))
    assert not lab.jobs


def test_on_zerogpu_the_handler_drives_the_same_sweep_inline(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_place, "runs_inline", lambda: True)
    outputs = list(view.TrainView(lab).begin(SMALL))
    (job,) = lab.jobs.values()
    assert len(outputs) > 12  # it yields all the way, so that ZeroGPU sees a stop soon
    assert job.state == "finished"
    assert {run.metrics["status"] for run in lab.store.runs()} == {"finished"}


def test_the_table_of_runs_tells_each_ones_memory_by_formula_and_nothing_that_was_not_measured(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_place, "runs_inline", lambda: True)
    train_view = view.TrainView(lab)
    outputs = list(train_view.begin(SMALL))
    selection = outputs[0][0]
    table = train_view.watch(selection, "")[7]
    formula = memory_of(lab.store.runs()[0], lab.geometry(find_bench("digits"))).formula_bytes
    assert formula is not None
    assert "<th>peak memory</th>" in table
    assert table.count(f"<td>formula {gigabytes(formula)}</td>") == 2
    assert "measured" not in table


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        (RunMemory(400_000_000, None, 410_000_000, 500_000_000, False), "formula 400 MB, 410 MB measured"),
        (RunMemory(400_000_000, None, 310_000_000, 500_000_000, True), "formula ≤ 400 MB, 310 MB measured"),
        (RunMemory(None, None, 410_000_000, 500_000_000, False), "410 MB measured"),
        (RunMemory(400_000_000, None, None, None, False), "formula 400 MB"),
        (RunMemory(None, None, None, None, False), ""),
    ],
)
def test_memory_in_words_leaves_out_what_is_missing(memory: RunMemory, text: str) -> None:
    assert memory_text(memory) == text


def test_on_zerogpu_stop_keeps_what_was_learned(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_place, "runs_inline", lambda: True)
    train_view = view.TrainView(lab)
    stream = train_view.begin(SMALL)
    selection = next(stream)[0]
    for _ in range(6):  # Start, Eval, Spectrum, and a few steps
        next(stream)
    train_view.halt(selection)
    assert len(list(stream)) <= 2
    assert [run.metrics["status"] for run in lab.store.runs()] == ["stopped"]


def test_zerogpu_is_asked_for_a_time_that_fits_the_sweep(lab: Lab) -> None:
    geometry = lab.geometry(find_bench("digits"))
    specs = view.TrainView(lab)._specs(find_bench("digits"), geometry, SMALL)
    assert 2 * 8 <= duration_s(specs, "runs", None) <= 300
    inline = [type(event).__name__ for _, event in sweep_events(specs, lab.store, runner="inline")]
    assert inline[0] == "StartEvent"
    assert list(zero_events(specs, str(lab.store.root), None)) == []  # all in the store by now


@pytest.mark.timed
def test_stop_says_so_at_once(lab: Lab) -> None:
    train_view = view.TrainView(lab)
    name, job = lab.new_job(train_view._specs(find_bench("digits"), lab.geometry(find_bench("digits")), SMALL))
    began_s = time.perf_counter()
    status, _ = train_view.halt(Selection(job=name))
    assert time.perf_counter() - began_s < 0.1
    assert 'data-state="stopping"' in status
    assert job.state == "stopping"


def test_nothing_is_sent_while_nothing_changes(lab: Lab) -> None:
    train_view = view.TrainView(lab)
    first = train_view.watch(Selection(), "")
    again = train_view.watch(Selection(), first[-1])
    assert len(first) == len(again)
    assert all(value == gr.skip() for value in again)


def test_another_bench_keeps_the_sweep_under_way_in_sight(lab: Lab) -> None:
    train_view = view.TrainView(lab)
    bench = find_bench("digits")
    name, job = lab.new_job(train_view._specs(bench, lab.geometry(bench), SMALL))
    assert train_view.choose_bench("reviews", Selection(job=name))[0].job == name
    assert train_view.restore(asked())[0].job == name  # and in a tab opened anew
    job.stop()
    job.start()
    while not job.ended:
        time.sleep(0.05)
    assert train_view.choose_bench("reviews", Selection(job=name))[0].job == ""


def test_targets_that_a_base_does_not_have_are_dropped(lab: Lab) -> None:
    shown = view.TrainView(lab).show_costs(Selection(targets=("gate", "q")))
    assert shown[0].targets == ("q",)


def test_sweeps_of_one_app_go_one_after_the_other(lab: Lab) -> None:
    train_view, bench = view.TrainView(lab), find_bench("digits")
    specs = train_view._specs(bench, lab.geometry(bench), SMALL)
    lab._turn.acquire()  # somebody else is training
    _, job = lab.new_job(specs)
    job.start()
    time.sleep(0.6)
    assert (job.state, job.events_seen) == ("waiting", 0)
    job.stop()
    while not job.ended:
        time.sleep(0.05)
    assert job.state == "stopped"


def grid(lab: Lab, selection: Selection) -> Any:
    bench = find_bench("digits")
    return view.TrainView(lab)._specs(bench, lab.geometry(bench), selection)


def test_methods_stand_beside_each_other_on_the_same_seeds_and_a_method_without_rank_once(lab: Lab) -> None:
    specs = grid(lab, Selection(methods=("lora", "dora", "bitfit"), r=(2, 4), seeds=(0, 1)))
    assert Counter(spec.tuning.method for spec in specs) == {"lora": 4, "dora": 4, "bitfit": 2}
    assert {spec.base_sha256 for spec in specs} == {specs[0].base_sha256}


def test_an_empty_rate_is_each_methods_own_and_a_typed_one_is_for_all(lab: Lab) -> None:
    methods, own = ("lora", "ia3"), find_bench("digits").defaults.learning_rate
    rates = {spec.tuning.method: spec.learning_rate for spec in grid(lab, Selection(methods=methods))}
    assert rates == {m: own * METHODS[m].lr_factor for m in methods}
    assert {spec.learning_rate for spec in grid(lab, Selection(methods=methods, lr=0.003))} == {0.003}
    shown = view.TrainView(lab).show_costs(Selection(methods=methods))
    assert f"each method's own learning rate (0.005 for LoRA, {0.005 * METHODS['ia3'].lr_factor:g} for IA³)" in unescape(shown[7])
    assert shown[11].placeholder == "each method's own"
    assert view.TrainView(lab).show_costs(Selection())[11].placeholder == "0.005"


def test_targets_not_chosen_are_each_methods_own_and_said(lab: Lab) -> None:
    both = Selection(methods=("lora", "ia3", "bitfit"))
    assert {s.tuning.method: len(s.tuning.target_modules) for s in grid(lab, both)} == {"lora": 2, "ia3": 3, "bitfit": 0}
    assert targets_note(both) == "IA³ takes its own k, v, down. BitFit takes no targets."
    chosen = replace(both, targets=("up",))
    assert {s.tuning.target_modules for s in grid(lab, chosen) if s.tuning.method != "bitfit"} == {("fc1",)}
    assert targets_note(chosen) == "BitFit takes no targets."


def test_what_is_behind_more_reaches_every_run(lab: Lab) -> None:
    more = {"base_quant": "nf4", "optim": "sgd", "dropout": 0.1, "snapshots": 4}
    selection = Selection(init=("default", "pissa"), r=(2,), seeds=(0,), **more)
    specs = grid(lab, selection)
    assert [spec.tuning.init_lora_weights for spec in specs] == ["default", "pissa"]
    assert {(spec.quant, spec.optimizer, spec.tuning.lora_dropout, spec.snapshots) for spec in specs} == {("nf4", "SGD", 0.1, 4)}


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (Selection(methods=()), "The methods of a sweep must be at least one choice"),
        (Selection(methods=("lora", "prefix")), "Prefix tuning gives attention past keys and values"),
        (Selection(methods=("dora",), init=("pissa",)), "default or gaussian for DoRA"),
        (Selection(methods=("full",), base_quant="nf4"), "none for Full fine-tuning"),
        (Selection(optim="nonsense"), "a class of torch.optim"),
    ],
)
def test_what_cannot_be_is_a_sentence_before_anything_runs(lab: Lab, selection: Selection, sentence: str) -> None:
    assert sentence in unescape(view.TrainView(lab).show_costs(selection)[7])
    with pytest.raises(gr.Error, match=re.escape(sentence)):
        next(view.TrainView(lab).begin(selection))
    assert not lab.jobs


def test_only_methods_that_the_base_can_take_are_offered(lab: Lab) -> None:
    offered = {value for _, value in view.TrainView(lab).show_costs(Selection())[8].choices}
    assert {"lora", "dora", "bitfit", "full"} <= offered
    assert not {"prefix", "preembed", "prelayer", "lora+prefix"} & offered


def test_a_method_without_rank_needs_no_ranks_and_no_targets(lab: Lab) -> None:
    assert len(grid(lab, Selection(methods=("bitfit",), r=(), targets=(), seeds=(0,)))) == 1


def test_counts_are_the_cores_for_every_method_and_rank(lab: Lab) -> None:
    shown = view.TrainView(lab).show_costs(Selection(methods=("dora", "vera", "bitfit"), r=(1, 4)))[6]
    geometry = lab.geometry(find_bench("digits"))
    for method, r in product(("dora", "vera", "bitfit"), (1, 4)):
        assert f">{method_params(geometry, MethodSpec(method=method, r=r)):,}<" in shown
    assert shown.count("colspan") == 1


def test_the_address_offers_no_method_that_there_is_not(lab: Lab) -> None:
    restored = view.TrainView(lab).restore(asked(methods="lora,magic", init="pissa,none", base_quant="int3"))[0]
    assert (restored.methods, restored.init, restored.base_quant) == (("lora",), ("pissa",), "")


def test_runs_without_factors_have_no_gradient_plot_and_one_sentence(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_place, "runs_inline", lambda: True)
    train_view = view.TrainView(lab)
    outputs = list(train_view.begin(Selection(methods=("bitfit",), seeds=(0,), steps=3)))
    flowing, plot, says, card, rule = train_view.watch(outputs[0][0], "")[8:13]
    assert not any(component.visible for component in (flowing, plot, card))
    assert "None of these runs trains factors A and B." in says
    assert rule == ""


def test_the_run_in_front_tells_its_gradients_and_its_chain_rule(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_place, "runs_inline", lambda: True)
    train_view = view.TrainView(lab)
    outputs = list(train_view.begin(Selection(methods=("dora", "lora"), r=(2,), seeds=(0,), steps=4)))
    flowing, plot, says, card, rule = train_view.watch(outputs[0][0], "")[8:13]
    front = lab.store.get(flowing.value)
    assert front.spec.tuning.method == "lora"
    assert len(flowing.choices) == 2
    assert plot.visible
    assert card.visible
    assert f"{front.progress().steps[0].grad_norm_b:.3g}" in says
    start = chain_rule_of(front.spec, "vit.layers.3.attention.v_proj")
    assert f"<td>{start.grad_norm_b:.3g}</td>" in rule
    assert "as trained" in rule


def test_in_public_reach_is_allowed_on_matrices_of_the_digits_alone(lab: Lab) -> None:
    lab.public = True
    with pytest.raises(gr.Error, match="The matrix parameter of reach"):
        view.TrainView(lab).measure_reach(Selection(bench="reviews"), "vit.embeddings")
