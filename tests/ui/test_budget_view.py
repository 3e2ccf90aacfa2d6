"""The Budget place's handlers, as functions: they show what the core computes."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.budget import Budget, find_card, versus
from lora_lab.budget.paper import table_5
from lora_lab.specs import METHODS
from lora_lab.ui.budget import BudgetView
from lora_lab.ui.lab import Lab
from lora_lab.ui.selection import Selection


@pytest.fixture
def view(tmp_path: Path) -> BudgetView:
    return BudgetView(Lab.from_environment(tmp_path / "runs"))


def made(**step: Any) -> Budget:
    return ll.budget("llama-3.2-3b", ll.LoraSpec(r=8), **{"batch": 4, "seq": 1024, **step})


def shown(view: BudgetView, selection: Selection) -> str:
    text: str = view.show(selection)[2]
    return text


def test_first_look_shows_the_cores_numbers(view: BudgetView) -> None:
    text = shown(view, Selection())
    assert f"{made().trainable_params:,}" in text
    peaks = [int(n) for n in re.findall(r'data-peak="(\d+)"', text)]
    assert peaks == [one.ledger.peak for one in versus(made()).values()]


@pytest.mark.parametrize(
    ("option", "step"),
    [
        ("checkpointing", {"checkpointing": True}),
        ("fused_loss", {"fused_loss": True}),
        ("bf16_adapters", {"adapter_dtype": "bf16"}),
        ("kbit_prepare", {"kbit_prepare": True}),
    ],
)
def test_every_toggle_reaches_the_core(view: BudgetView, option: str, step: dict[str, Any]) -> None:
    peak = made(**step).ledger.peak
    assert peak != made().ledger.peak
    assert f'data-peak="{peak}"' in shown(view, Selection(options=(option,)))


def test_dropout_reaches_the_core(view: BudgetView) -> None:
    with_it = ll.budget("llama-3.2-3b", ll.LoraSpec(r=8, lora_dropout=0.1), batch=4, seq=1024)
    assert f'data-peak="{with_it.ledger.peak}"' in shown(view, Selection(options=("dropout",)))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_shown_or_refused_in_one_sentence(view: BudgetView, method: str) -> None:
    quant = "nf4-dq" if method == "qlora" else "none"
    selection, _, text = view.show(Selection(method=method, quant=quant, rank=4))
    if method == "bitfit":  # Llama has no biases
        assert 'class="lab-say error"' in text
        assert view.show_more(selection)[1] is None
    else:
        assert 'id="tile-peak"' in text
        assert view.show_more(selection)[1] is not None


@pytest.mark.parametrize(
    "model", ["gpt2", "falcon-7b", "mixtral-8x7b-v0.1", "bert-base-uncased", "deberta-v2-xxlarge", "gpt3-175b"]
)
def test_every_kind_of_model_has_its_drawing_and_its_map(view: BudgetView, model: str) -> None:
    selection, block, text = view.show(Selection(model=model))
    assert block.count("data-pick") >= len(ll.find_model(model).geometry.block())
    assert 'id="tile-peak"' in text
    assert view.show_more(selection)[1].data[0].z is not None


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (Selection(model="nonsense"), "Got &#x27;nonsense&#x27;."),
        (Selection(layers="x"), "must be numbers and spans"),
        (Selection(layers="99"), "layers_to_transform"),
        (Selection(card="toaster"), "Got &#x27;toaster&#x27;."),
        (Selection(method="full", quant="nf4"), "must be none"),
    ],
)
def test_mistakes_are_sentences(view: BudgetView, selection: Selection, sentence: str) -> None:
    assert sentence in shown(view, selection)


def pick(view: BudgetView, selection: Selection, name: str) -> Selection:
    chosen: Selection = view.pick_target(selection, SimpleNamespace(pick=name))[0]  # type: ignore[arg-type]
    return chosen


def test_click_adds_and_a_second_takes_away(view: BudgetView) -> None:
    once = pick(view, Selection(), "up")
    assert once.targets == ("q", "v", "up")
    assert pick(view, once, "up").targets == ("q", "v")


def test_click_on_a_fused_matrix_takes_all_that_it_stands_for(view: BudgetView) -> None:
    with_mlp = pick(view, Selection(model="gpt2"), "up")
    assert pick(view, with_mlp, "qkv").targets == ("up",)


def test_click_on_a_method_with_targets_of_its_own_starts_from_those(view: BudgetView) -> None:
    with_q = pick(view, Selection(method="ia3"), "q")
    assert with_q.targets == ("k", "v", "down", "q")
    wanted = ll.budget("llama-3.2-3b", ll.MethodSpec(method="ia3", target_modules=with_q.targets))
    assert f"{wanted.trainable_params:,}" in shown(view, with_q)


def test_click_does_nothing_where_the_method_adapts_no_matrix(view: BudgetView) -> None:
    assert pick(view, Selection(method="full"), "up").targets == Selection().targets


def test_click_takes_one_out_of_all(view: BudgetView) -> None:
    assert pick(view, Selection(targets=("all-linear",)), "gate").targets == ("q", "k", "v", "o", "up", "down")


def test_last_target_taken_away_leaves_the_usual_two(view: BudgetView) -> None:
    assert pick(view, Selection(targets=("q",)), "q").targets == ("q", "v")


def test_targets_that_a_model_lacks_are_dropped(view: BudgetView) -> None:
    assert view.show(Selection(model="opt-1.3b", targets=("q", "gate")))[0].targets == ("q",)


def test_qlora_and_full_set_the_base(view: BudgetView) -> None:
    s = Selection()
    values = [s.model, "qlora", s.rank, s.alpha, s.layers, s.batch, s.seq, s.dtype, s.quant]
    values += [s.optimizer, s.attention, [], s.card, s.shade, s.params]
    as_qlora, _, quant = view.choose_method(s, *values)
    assert (as_qlora.method, as_qlora.quant, quant) == ("qlora", "nf4-dq", "nf4-dq")
    values[1], values[8] = "full", "nf4-dq"
    assert view.choose_method(as_qlora, *values)[2] == "none"


def test_gpt3_shows_the_papers_choices_with_its_accuracies(view: BudgetView) -> None:
    equal = view.show_more(Selection(model="gpt3-175b", rank=4))[2]
    for row in table_5():
        assert f"<td>{' '.join(row.targets)}</td><td>{row.r}</td><td>18,874,368</td>" in equal
        assert f"<td>{100 * row.wikisql:.1f} %</td><td>{100 * row.multinli:.1f} %</td>" in equal


def test_parameters_can_be_fixed(view: BudgetView) -> None:
    equal = view.show_more(Selection(params=1_000_000))[2]
    counts = [int(n.replace(",", "")) for n in re.findall(r"<td>(\d[\d,]{4,})</td>", equal)]
    assert counts
    assert all(n <= 1_000_000 for n in counts)


def test_public_visitors_name_no_path(tmp_path: Path) -> None:
    here = tmp_path / "config.json"
    here.write_text("{}")
    lab = Lab.from_environment(tmp_path / "runs")
    lab.public = True
    for path in (str(here), "data", "README.md"):  # relative ones too
        assert "must be one of the list or a Hub id" in shown(BudgetView(lab), Selection(model=path))


def test_remedy_named_on_the_tile_is_true(view: BudgetView) -> None:
    text = shown(view, Selection(card="RTX 4090"))
    assert not made().fits(find_card("RTX 4090"))
    assert "with a fused loss it would" in text
    assert made(fused_loss=True).fits(find_card("RTX 4090"))
