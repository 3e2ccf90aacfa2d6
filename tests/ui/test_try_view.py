"""The Try it view's handlers as plain functions."""

import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

import lora_lab as ll
from lora_lab.benches import BENCH_NAMES, find_bench
from lora_lab.benches.examples import Completion, Table
from lora_lab.benches.writing import Writing
from lora_lab.inference import BASE, Judged, LiveModels, Question, Said, inputs_of, judge, question_of
from lora_lab.plots import PALETTE, run_colour
from lora_lab.sweeps.limits import MOST_CHARACTERS, MOST_NEW_TOKENS
from lora_lab.ui import try_html
from lora_lab.ui.lab import Lab
from lora_lab.ui.selection import Selection
from lora_lab.ui.try_it import TryView
from lora_lab.ui.try_scene import offered
from lora_lab.units import percent

SELECTION, HEADER, BENCH, ABOUT, ASKED, EMPTY, PROMPT, IMAGE, PICTURE, QUESTION, TOKENS, ANSWERS, SAID = range(13)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Three runs on the digits, the second of them the best."""
    runs = tmp_path_factory.mktemp("runs")
    for r, steps in ((1, 1), (8, 30), (2, 1), (4, 0)):
        ll.train("digits", ll.LoraSpec(r=r), steps=steps, runs=runs)
    return Lab(ll.RunStore(runs))


@pytest.fixture(scope="module")
def written(tiny_llama: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run of the tiny Llama, its lab, and the selection that names it."""
    runs = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writing, "score", lambda *_: None)
        run = ll.train(
            tiny_llama.base, ll.LoraSpec(r=2), data=tiny_llama.data, steps=3, batch_size=4, learning_rate=0.03, runs=runs
        )
    selection = Selection(bench="yours", base=run.spec.bench, data=tiny_llama.data.path)
    return SimpleNamespace(
        run=run, lab=Lab(ll.RunStore(runs)), selection=selection, bench=find_bench(run.spec.bench, run.spec.data)
    )


def view(lab: Lab) -> TryView:
    """With its controls built: some handlers read their bounds."""
    made = TryView(lab)
    with gr.Blocks():
        made._build_controls()
    return made


def offered_of(place: TryView, selection: Selection) -> Selection:
    return offered(selection, place.lab.visible_runs(""))


def by_rank(lab: Lab) -> dict[int, str]:
    return {run.spec.tuning.r: run.run_id for run in lab.store.runs()}


def test_without_a_run_the_base_is_there_and_training_is_a_link(tmp_path: Path) -> None:
    shown = view(Lab(ll.RunStore(tmp_path / "runs"))).show(Selection(bench="digits:noised"))
    assert 'href="./?bench=digits:noised"' in shown[EMPTY]
    assert re.findall('data-who="(.+?)"', shown[ANSWERS]) == [BASE]
    assert [key for _, key in shown[BENCH].choices] == list(BENCH_NAMES)


def test_the_best_and_the_newest_run_are_chosen_first_and_a_run_looked_at_before_them(lab: Lab) -> None:
    ids = by_rank(lab)
    shown = view(lab).show(Selection())
    assert shown[ASKED].value == [ids[8], ids[4]]
    assert view(lab).show(Selection(run=ids[1]))[ASKED].value == [ids[1], ids[8]]
    assert {key for _, key in shown[ASKED].choices} == set(ids.values())


def test_nobody_beside_the_base_is_a_choice_that_the_address_holds(lab: Lab) -> None:
    selection, _, answers, _ = view(lab).choose_runs([], Selection())
    assert re.findall('data-who="(.+?)"', answers) == [BASE]
    assert Selection.from_query({"asked": selection.asked[0]}).asked == (BASE,)
    assert view(lab).show(selection)[ASKED].value == []


def test_runs_that_the_page_itself_chose_leave_answers_and_address_alone(lab: Lab) -> None:
    place = view(lab)
    unchanged = place.choose_runs(place.show(Selection())[ASKED].value, Selection())
    assert unchanged == [gr.skip()] * len(unchanged)


def test_a_page_that_names_no_bench_shows_the_newest_run_s(tmp_path: Path) -> None:
    run = ll.train("digits:inverted", ll.LoraSpec(r=1), steps=0, runs=tmp_path)
    place = view(Lab(ll.RunStore(tmp_path)))
    assert offered_of(place, Selection()).bench == "digits:inverted"
    assert offered_of(place, Selection(bench="digits:noised")).bench == "digits:noised"
    assert offered_of(place, Selection(bench="nonsense")).bench == run.spec.bench


def test_every_column_has_its_colour_and_the_base_comes_first(lab: Lab) -> None:
    ids = by_rank(lab)
    answers = view(lab).show(Selection(asked=(ids[2], ids[8])))[ANSWERS]
    colours = re.findall('--who:(.+?)" data-who="(.+?)"', answers)
    assert colours == [(PALETTE["W0"], BASE), (run_colour("lora", 2), ids[2]), (run_colour("lora", 8), ids[8])]


def test_a_digit_is_answered_with_the_core_s_shares_and_right_is_marked(lab: Lab) -> None:
    run = lab.store.get(by_rank(lab)[8])
    selection = Selection(asked=(run.run_id,), example=5)
    *_, (answers, said, _) = view(lab).ask(selection, "", 8)
    bench = find_bench("digits")
    question = question_of(bench, 5)
    answerers = list(LiveModels().answerers(bench, [(run.spec, run.adapter_dir)]))
    judged = judge(answerers, inputs_of(bench, question, ""), labels=True)
    for card, one in zip(answers.split('<div class="lab-card')[1:], judged, strict=True):
        assert f'data-who="{one.who}"' in card
        assert re.findall('class="value">(.+?)<', card) == [percent(share) for share in one.shares]
        assert ("✓ right" in card) == (one.label == question.label)
        assert re.search(r'lab-share( first)? right"><span class="name" title="(\d)"', card)[2] == str(question.label)  # type: ignore[index]
        assert said[one.who].shares == one.shares


def test_the_picture_is_the_image_of_that_number(lab: Lab) -> None:
    shown = view(lab).choose_image(9, Selection())
    question = question_of(find_bench("digits"), 9)
    greys = [int(grey) for grey in re.findall(r"rgb\((\d+),", shown[4])]
    assert greys == [round(255 * grey) for row in question.pixels for grey in row]
    assert len(greys) == 64
    assert f"It is <b>{question.label}</b>" in shown[5]
    assert shown[0].example == 9


def test_another_example_is_the_next_and_a_number_too_large_is_refused(lab: Lab) -> None:
    last = question_of(find_bench("digits"), 0).rows - 1
    assert view(lab).another_example(Selection(example=last))[0].example == 0
    assert view(lab).another_example(Selection(example=3))[0].example == 4
    with pytest.raises(gr.Error, match=rf"0\.\.{last}"):
        view(lab).choose_image(last + 1, Selection())
    assert view(lab).show(Selection(example=10_000))[SELECTION].example == 0


def test_a_prompt_is_answered_in_columns_that_grow(written: SimpleNamespace) -> None:
    place, selection = view(written.lab), written.selection
    shown = place.show(selection)
    question = question_of(written.bench, 0)
    assert shown[PROMPT].value == question.text
    assert question.example is not None
    assert question.example.completion.strip() in shown[QUESTION]
    steps = list(place.ask(selection, question.text, 8))
    lengths = [sum(one.tokens for one in said.values()) for _, said, _ in steps]
    assert lengths[0] == 0
    assert lengths == sorted(lengths)
    answers, said, _ = steps[-1]
    assert set(said) == {BASE, written.run.run_id}
    for one in said.values():
        assert one.is_done
        assert one.text.strip() in unescape(answers)
    assert answers.count('data-state="done"') == 2
    assert "lab-caret" not in answers


def test_an_own_bench_is_offered_where_it_has_runs(written: SimpleNamespace) -> None:
    shown = view(written.lab).show(written.selection)
    label, key = shown[BENCH].choices[-1]
    assert shown[BENCH].value == key
    assert label.endswith("on rows.jsonl")
    assert view(written.lab).choose_bench(key, Selection())[SELECTION].base == written.run.spec.bench
    assert offered_of(view(written.lab), Selection()).base == written.run.spec.bench


def test_what_was_said_stays_when_it_is_stopped(written: SimpleNamespace) -> None:
    said = {BASE: Said(BASE, "word1 word2", 2, 0.5)}
    answers, kept, _ = view(written.lab).halt(written.selection, "name", said)
    assert kept == said
    assert "word1 word2" in answers
    assert "4.0 a second · Stopped." in answers
    assert answers.count('data-state="stopped"') == 1
    assert "lab-caret" not in answers


def test_in_public_only_one_s_own_runs_are_asked_and_answers_are_short(lab: Lab, written: SimpleNamespace) -> None:
    ids = by_rank(lab)
    public = Lab(lab.store, public=True)
    shown = view(public).show(Selection(asked=(ids[8],)))
    assert re.findall('data-who="(.+?)"', shown[ANSWERS]) == [BASE]
    *_, (_, said, _) = view(public).ask(Selection(asked=(ids[8],)), "", 1)
    assert set(said) == {BASE}
    assert view(public).tokens.maximum == MOST_NEW_TOKENS
    for prompt, tokens in (("x" * (MOST_CHARACTERS + 1), 1), ("x", MOST_NEW_TOKENS + 1)):
        with pytest.raises(gr.Error, match="on this public page"):
            list(view(public).ask(Selection(), prompt, tokens))
    assert offered_of(view(Lab(written.lab.store, public=True)), written.selection).bench == "digits"


# The cards by themselves.

OWLS = Table("owls", ("name", "age"), ("TEXT", "INTEGER"), (("Ada", 3), ("Bo", 5)))
ASK = Completion("Who is 5?", " SELECT name FROM owls WHERE age = 5", table=OWLS)
COLUMN = try_html.Column("x", "LoRA <r 8>", "", "#123456")


def card(text: str, question: Question | None) -> str:
    return unescape(try_html.columns([COLUMN], {"x": Said("x", text, 4, 1.0, is_done=True)}, question, ()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            " SELECT name FROM owls WHERE age > 4; and so on",
            ("✓", "age > 4</code> finds <code>Bo</code>"),
        ),
        ("SELECT name FROM owls", ("✗", "<code>Ada</code>; <code>Bo</code>")),
        ("SELECT name FROM owls WHERE age > 90", ("✗", "no row")),
        ("DROP TABLE owls", ("✗", "It is no query that can be run.")),
    ],
)
def test_a_query_is_run_and_its_rows_are_shown(text: str, says: tuple[str, str]) -> None:
    shown = card(text, Question(0, 1, ASK.prompt, example=ASK))
    assert all(part in shown for part in says)
    assert "✓" not in card(text, None)


def test_the_table_and_the_right_query_are_shown() -> None:
    shown = unescape(try_html.asked(Question(0, 1, ASK.prompt, example=ASK), ()))
    assert "SELECT name FROM owls WHERE age = 5" in shown
    assert "<td>Ada</td><td>3</td>" in shown
    assert "It finds <code>Bo</code>" in shown


def test_what_a_model_writes_is_text_and_no_markup() -> None:
    shown = try_html.columns([COLUMN], {"x": Said("x", "<script>alert(1)</script>", 1, 1.0)}, None, ())
    assert "<script>" not in shown
    assert "<r 8>" not in shown
    assert "lab-caret" in shown


def test_of_many_labels_the_likeliest_are_shown_and_the_right_one_always() -> None:
    shares = tuple(k / 210 for k in range(1, 21))
    names = [f"n{k}" for k in range(20)]
    shown = try_html.columns([COLUMN], {"x": Judged("x", shares, None, 1.0)}, Question(0, 1, "text", label=2), names)
    assert re.findall('title="(n.+?)"', shown) == ["n2", *(f"n{k}" for k in range(10, 20))]
    assert "✗ wrong" in shown


def test_a_number_stands_beside_the_right_one() -> None:
    shown: Any = try_html.columns([COLUMN], {"x": Judged("x", (), 3.14159, 1.0)}, Question(0, 1, "text", label=3.5), ())
    assert ">3.14<" in shown
    assert "right is 3.5" in shown
