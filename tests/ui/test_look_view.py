"""The rooms of Look as plain functions: what is selected, what is shown of it, and what is refused."""

import csv
import re
import shutil
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import plotly.io
import pytest
import torch

from lora_lab import LoraSpec, MethodSpec, RunStore, train
from lora_lab.analysis import amplification_of, control_overlap, intruders_of, likeness_of, overlap_of, spectrum_of
from lora_lab.inference import merge_report
from lora_lab.plots import merge_caption, overlap_caption
from lora_lab.plots.base_gradients import base_gradient_caption, base_gradient_map, base_gradient_spectra, learned_beside_caption
from lora_lab.plots.drifts import drift_caption
from lora_lab.plots.measures import MATRIX_MEASURES
from lora_lab.specs import METHODS
from lora_lab.sweeps import Run
from lora_lab.sweeps.gradient_advice import gradient_advice
from lora_lab.ui.lab import Lab
from lora_lab.ui.look import LookRoom
from lora_lab.ui.look_amplification import AmplificationView
from lora_lab.ui.look_spectra import SpectraView
from lora_lab.ui.look_subspaces import SubspacesView
from lora_lab.ui.selection import Selection

ROOMS: list[type[LookRoom]] = [SpectraView, SubspacesView, AmplificationView]
rooms = pytest.mark.parametrize("room", ROOMS)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A q,v run, another seed of it, and a run on other matrices."""
    runs = tmp_path_factory.mktemp("runs")
    for seed, targets in ((0, ("q", "v")), (1, ("q", "v")), (0, ("up",))):
        train("digits", LoraSpec(r=2, target_modules=targets), steps=5, snapshots=2, seed=seed, runs=runs)
    return Lab(RunStore(runs))


@pytest.fixture(scope="module")
def pair(lab: Lab) -> tuple[Run, Run]:
    """The two seeds."""
    first, second = (
        r for seed in (0, 1) for r in lab.store.runs() if r.spec.seed == seed and len(r.spec.tuning.target_modules) == 2
    )
    return first, second


def built(room: type[LookRoom], lab: Lab) -> LookRoom:
    view = room(lab)
    with gr.Blocks() as page:
        view.build(page)
    return view


def shown(view: LookRoom, outputs: list[Any]) -> dict[str, Any]:
    """What a handler returned, by the names of the components; the selection and the header by their own."""
    assert len(outputs) == len(view.answers)
    names = ["selection", "header", *(component.elem_id for component in view.answers[2:])]
    return dict(zip(names, outputs, strict=True))


def show(room: type[LookRoom], lab: Lab, **chosen: Any) -> dict[str, Any]:
    view = built(room, lab)
    return shown(view, view.show(Selection(**chosen)))


def figure(plot: Any) -> Any:
    """The figure that a plot was given, read back from what goes to the browser."""
    return plotly.io.from_json(plot.value["plot"])


def cells(map_html: str) -> dict[str, str]:
    return {name: text for name, text in re.findall(r'data-pick="([^"]+)".*?>([^<]*)</button>', map_html)}


@rooms
def test_an_empty_store_says_what_to_do(room: type[LookRoom], tmp_path: Path) -> None:
    found = show(room, Lab(RunStore(tmp_path / "runs")))
    assert "Train one first" in found["facts"]
    assert not found["cards"].visible


def test_the_first_comparison_is_another_seed_of_the_same_rank(lab: Lab, pair: tuple[Run, Run]) -> None:
    chosen = show(SpectraView, lab, run=pair[1].run_id)["selection"]
    assert chosen.against == pair[0].run_id


def test_a_matrix_that_run_2_does_not_adapt_is_said(lab: Lab, pair: tuple[Run, Run]) -> None:
    up = next(r for r in lab.store.runs() if r.spec.tuning.target_modules[0] == "fc1")
    found = show(SubspacesView, lab, run=pair[0].run_id, against=up.run_id)
    assert "does not adapt layer 3 · v" in found["overlap-says"]
    assert not found["overlap"].visible


def test_of_two_runs_a_matrix_that_both_adapt_is_shown_first(tmp_path: Path) -> None:
    wide = train("digits", LoraSpec(r=2, target_modules=("q", "up")), steps=2, runs=tmp_path)
    narrow = train("digits", LoraSpec(r=2, target_modules=("q",)), steps=2, runs=tmp_path)
    found = show(SpectraView, Lab(RunStore(tmp_path)), run=wide.run_id, against=narrow.run_id)
    assert found["selection"].matrix == "vit.layers.3.attention.q_proj"


def test_singular_vectors_of_a_live_on_the_input_side(lab: Lab) -> None:
    view = built(SubspacesView, lab)
    found = shown(view, view.choose(Selection(), "", "", "", "a", "out"))
    assert (found["selection"].of, found["selection"].side) == ("a", "in")


@rooms
def test_every_method_is_read_or_said_to_change_no_matrix(room: type[LookRoom], tmp_path: Path) -> None:
    methods = ("dora", "vera", "adalora", "ia3", "partial", "full", "bitfit", "adapter", "ln_tuning")
    runs = {method: train("digits", MethodSpec(method=method, r=2), steps=2, runs=tmp_path) for method in methods}
    view = built(room, Lab(RunStore(tmp_path)))
    for method, run in runs.items():
        found = shown(view, view.show(Selection(run=run.run_id)))
        assert METHODS[method].label in found["facts"]
        changes = method not in ("bitfit", "adapter", "ln_tuning")
        assert found["cards"].visible == changes
        assert ("lab-q" if changes else "no matrix.") in found["title"]


def test_a_of_a_method_that_trains_no_a_of_its_own_is_not_offered(tmp_path: Path) -> None:
    run = train("digits", MethodSpec(method="full"), steps=1, runs=tmp_path)
    found = show(SubspacesView, Lab(RunStore(tmp_path)), run=run.run_id, of="a")
    assert found["selection"].of == "delta"
    assert not found["of"].interactive


@rooms
def test_the_map_shows_the_measure_that_is_chosen_of_every_matrix(room: type[LookRoom], lab: Lab, pair: tuple[Run, Run]) -> None:
    run, against = pair
    one, other, base = run.adapter(), against.adapter(), run.base()
    values = {
        "frobenius": lambda name: one[name].frobenius(),
        "share": lambda name: one[name].frobenius() / float(base.named(name).norm()),
        "stable_rank": lambda name: spectrum_of(name, one[name]).stable_rank,
        "effective_rank": lambda name: spectrum_of(name, one[name]).effective_rank,
        "rank_for_95": lambda name: spectrum_of(name, one[name]).rank_for_95,
        "phi": lambda name: overlap_of(name, one[name], other[name]).mean_above_chance,
        "factor": lambda name: amplification_of(name, one[name], base.named(name)).factor,
    }
    view = built(room, lab)
    assert shown(view, view.show(Selection(measure="nonsense")))["measure"].value == room.measures[0]
    for measure in room.measures:
        found = shown(view, view.show(Selection(run=run.run_id, against=against.run_id, measure=measure)))
        assert cells(found["map"]) == {name: MATRIX_MEASURES[measure].text(values[measure](name)) for name in one}


def test_the_control_is_a_at_the_start_on_the_input_side_and_random_on_the_other(lab: Lab, pair: tuple[Run, Run]) -> None:
    starts, matrix = [run.start() for run in pair], "vit.layers.3.attention.v_proj"
    expected = overlap_of(matrix, starts[0][matrix], starts[1][matrix], of="a").phi
    chosen = {"run": pair[0].run_id, "against": pair[1].run_id, "matrix": matrix}
    found = figure(show(SubspacesView, lab, **chosen)["overlap"])
    assert tuple(map(tuple, found.data[1].z)) == expected
    out = figure(show(SubspacesView, lab, **chosen, side="out")["overlap"])
    record = overlap_of(matrix, pair[0].adapter()[matrix], pair[1].adapter()[matrix], side="out")
    assert tuple(map(tuple, out.data[1].z)) == control_overlap(record).phi


def test_sentences_and_tables_are_those_of_the_records(lab: Lab, pair: tuple[Run, Run]) -> None:
    run, against = pair
    matrix = "vit.layers.1.attention.q_proj"
    one, other, w = run.adapter()[matrix], against.adapter()[matrix], run.base().named(matrix)
    chosen = {"run": run.run_id, "against": against.run_id, "matrix": matrix}
    found = show(SubspacesView, lab, **chosen)
    names = {"first": "r 2 · seed 0", "second": "r 2 · seed 1"}
    assert overlap_caption(overlap_of(matrix, one, other), **names) in unescape(found["overlap-says"])
    assert f"{likeness_of(matrix, one, other).procrustes:.4g}" in found["angles-table"]
    table = show(AmplificationView, lab, **chosen)["amplification-table"]
    record = amplification_of(matrix, one, w)
    for value in (f"{record.on_delta:.3g}", f"{record.factor:.4g}", "21.67", "0.33"):
        assert f"<td>{value}" in table


def test_when_a_run_found_its_directions_is_drawn_where_it_kept_snapshots(lab: Lab, pair: tuple[Run, Run], tmp_path: Path) -> None:
    told = show(SpectraView, lab, run=pair[0].run_id)
    drifts = pair[0].drift()
    assert [list(trace.y) for trace in figure(told["drift"]).data] == [[point.phi for point in one.points] for one in drifts]
    assert drift_caption(drifts) in unescape(told["drift-says"])
    bare = train("digits", LoraSpec(r=2), steps=2, runs=tmp_path)
    assert "kept snapshots of ΔW" in unescape(show(SpectraView, Lab(RunStore(tmp_path)), run=bare.run_id)["drift-says"])


def test_what_the_first_gradient_knew_is_measured_when_asked(lab: Lab, pair: tuple[Run, Run]) -> None:
    run, other = pair
    view = built(SubspacesView, lab)
    mapped, spectra, said = view.gradients.measure(Selection(run=run.run_id, against=other.run_id))
    advice = gradient_advice("digits", seed=run.spec.seed, r=run.spec.tuning.r, against=pair, runs=lab.store.runs())
    assert figure(mapped) == base_gradient_map(advice)
    assert figure(spectra) == base_gradient_spectra(advice.matrices)
    for sentence in (base_gradient_caption(advice), learned_beside_caption(advice.against[1], run="run 2")):
        assert sentence in unescape(said)
    assert said.count("<tr>") == len(advice.matrices) + 1
    assert "names no data" in view.gradients.measure(Selection(run="no/run"))[2]


def test_another_threshold_judges_the_same_directions(lab: Lab, pair: tuple[Run, Run]) -> None:
    run, matrix = pair[0], "vit.layers.3.attention.v_proj"
    view = built(AmplificationView, lab)
    for threshold in (0.3, 0.95):
        selection, _, directions, *_, curve, says, _ = view.judge(Selection(run=run.run_id, matrix=matrix), threshold)
        wanted = intruders_of(matrix, run.adapter()[matrix], run.base().named(matrix), threshold=threshold)
        assert selection.threshold == threshold
        assert len(figure(directions).data[1].y) == wanted.count
        assert f"{wanted.count} of the 10" in says
        assert figure(curve).layout.shapes[0].x0 == threshold


def test_an_adapter_from_a_file_stands_in_the_place_of_either_run(lab: Lab, pair: tuple[Run, Run], tmp_path: Path) -> None:
    view = built(SubspacesView, Lab(RunStore(tmp_path)))
    first = shown(view, view.open_first(Selection(), f" {pair[0].adapter_dir} ", ""))
    assert first["selection"].run == str(pair[0].adapter_dir)
    assert "opened from" in first["facts"]
    both = shown(view, view.open_second(first["selection"], str(pair[1].adapter_dir / "adapter_model.safetensors"), ""))
    of_runs = show(SubspacesView, lab, run=pair[0].run_id, against=pair[1].run_id)
    assert figure(both["overlap"]).data[0].z == figure(of_runs["overlap"]).data[0].z
    again = Selection.from_query({"run": both["selection"].run, "against": both["selection"].against})
    assert figure(shown(view, view.show(again))["overlap"]).data[0].z == figure(of_runs["overlap"]).data[0].z


def test_an_opened_adapter_is_beside_the_base_that_is_given(lab: Lab, pair: tuple[Run, Run], tmp_path: Path) -> None:
    view = built(AmplificationView, Lab(RunStore(tmp_path)))
    source = str(pair[0].adapter_dir)
    bare = shown(view, view.show(Selection(run=source)))
    assert "base must be" in bare["amplification-says"]
    assert "base must be" in bare["map"]
    given = shown(view, view.put_under(Selection(run=source), "digits"))
    of_run = show(AmplificationView, lab, run=pair[0].run_id)
    assert given["amplification-table"] == of_run["amplification-table"]
    assert shown(view, view.open_first(Selection(), source, ""))["amplification-table"] == of_run["amplification-table"]


def test_an_adapter_whose_file_changed_is_read_again(pair: tuple[Run, Run], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "opened" / "adapter"
    folder.mkdir(parents=True)
    for file in pair[0].adapter_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    view = built(SpectraView, Lab(RunStore(tmp_path / "runs")))
    before = cells(shown(view, view.show(Selection(run=str(folder))))["map"])
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({key: torch.zeros_like(tensor) for key, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    after = cells(shown(view, view.show(Selection(run=str(folder))))["map"])
    assert set(after.values()) == {"0"} != set(before.values())


def test_a_run_that_cannot_be_read_leaves_the_room_to_the_others(lab: Lab, tmp_path: Path) -> None:
    shutil.copytree(lab.store.root, tmp_path / "runs")
    newest, *others = Lab(RunStore(tmp_path / "runs")).visible_runs("")
    (newest.adapter_dir / "adapter_model.safetensors").unlink()
    for chosen in ({}, {"run": newest.run_id}, {"against": newest.run_id}, {"run": others[0].run_id}):
        found = show(SpectraView, Lab(RunStore(tmp_path / "runs")), **chosen)
        assert {found["selection"].run, found["selection"].against} <= {run.run_id for run in others}
        assert chosen == {"run": others[0].run_id} or "adapter_model.safetensors" in found["title"]


def test_where_no_run_can_be_read_the_reason_is_said(lab: Lab, tmp_path: Path) -> None:
    shutil.copytree(lab.store.root, tmp_path / "runs")
    for weights in tmp_path.glob("runs/*/adapter/adapter_model.safetensors"):
        weights.unlink()
    found = show(SpectraView, Lab(RunStore(tmp_path / "runs")))
    assert "adapter_model.safetensors" in found["facts"]
    assert found["facts"].count("It is not there.") == 1


@rooms
def test_no_name_in_an_adapter_of_a_stranger_is_read_as_html(room: type[LookRoom], pair: tuple[Run, Run], tmp_path: Path) -> None:
    evil = "vit.layers.3.<img src=x onerror=alert(1)>"
    strangers = renamed(pair[0].adapter_dir, tmp_path / "<b>strange" / "adapter", evil)
    found = show(room, Lab(RunStore(tmp_path / "runs")), run=str(strangers))
    assert found["selection"].matrix == evil
    texts = [value for name, value in found.items() if isinstance(value, str) and name != "selection"]
    assert any("&lt;img" in text for text in texts)
    assert not any("<img" in text or "<b>strange" in text for text in texts)


def renamed(adapter: Path, folder: Path, name: str) -> Path:
    """A copy of an adapter that calls its last matrix so."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    tensors = load_file(adapter / "adapter_model.safetensors")
    last = "vit.layers.3.attention.v_proj"
    save_file({key.replace(last, name): tensor for key, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


def test_an_error_quotes_a_name_as_text(lab: Lab) -> None:
    with pytest.raises(gr.Error, match="&lt;img src=x&gt;"):
        built(SpectraView, lab).open_first(Selection(), "<img src=x>", "")


@pytest.mark.parametrize("source", ["", "/nowhere/at/all", "nobody", "a" * 300, "~nosuchuser/x", "/a\0b"])
def test_what_is_no_adapter_is_refused_in_a_sentence(lab: Lab, source: str) -> None:
    with pytest.raises(gr.Error, match=r"adapter must be .*\. Got "):
        built(SpectraView, lab).open_first(Selection(), source, "")


def test_an_address_that_names_what_is_gone_shows_the_rest_and_says_so(lab: Lab) -> None:
    found = show(SpectraView, lab, run="/gone/adapter")
    assert found["selection"].run == lab.store.runs()[-1].run_id
    assert "/gone/adapter" in found["title"]


def test_in_public_an_adapter_is_a_hub_id_and_no_path(lab: Lab, pair: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    public = Lab(lab.store, public=True)
    monkeypatch.chdir(pair[0].folder.parent.parent)
    relative = f"{pair[0].folder.parent.name}/{pair[0].run_id}"
    assert Path(relative).exists()
    for source in (str(pair[0].adapter_dir), relative, "../adapter"):
        with pytest.raises(gr.Error, match="must be a Hub id"):
            built(SpectraView, public).open_first(Selection(), source, "")
        assert "must be a Hub id" in unescape(show(SpectraView, public, run=source)["facts"])
    with pytest.raises(gr.Error, match="base on this public page must be that of digits"):
        built(SpectraView, public).open_first(Selection(), "owner/name", "/some/where")


@rooms
def test_every_card_is_kept_as_a_file_with_the_numbers_that_it_shows(room: type[LookRoom], lab: Lab, pair: tuple[Run, Run]) -> None:
    view = built(room, lab)
    selection = Selection(run=pair[0].run_id, against=pair[1].run_id)
    for card in view.views:
        kept = Path(view.save(card, "csv", selection))
        rows = list(csv.DictReader(kept.read_text(encoding="utf-8").splitlines()))
        assert kept.name == f"{card.card.name}.csv"
        assert kept.parent in lab.exports._folders
        assert rows
        if card.plot:
            page = Path(view.save(card, "html", selection)).read_text(encoding="utf-8")
            assert "Plotly.newPlot" in page


def test_the_numbers_of_a_file_are_those_of_the_adapter(lab: Lab, pair: tuple[Run, Run]) -> None:
    view = built(SpectraView, lab)
    selection = Selection(run=pair[0].run_id, against=pair[0].run_id)
    card = next(card for card in view.views if card.card.name == "measures")
    rows = list(csv.DictReader(Path(view.save(card, "csv", selection)).read_text(encoding="utf-8").splitlines()))
    assert {row["name"]: float(row["frobenius"]) for row in rows} == {n: d.frobenius() for n, d in pair[0].adapter().items()}


def test_a_name_in_a_file_is_no_formula(pair: tuple[Run, Run], tmp_path: Path) -> None:
    strangers = renamed(pair[0].adapter_dir, tmp_path / "adapter", "=HYPERLINK(1)")
    view = built(SpectraView, Lab(RunStore(tmp_path / "runs")))
    card = next(card for card in view.views if card.card.name == "measures")
    kept = Path(view.save(card, "csv", Selection(run=str(strangers)))).read_text(encoding="utf-8")
    assert "'=HYPERLINK(1)" in {row["name"] for row in csv.DictReader(kept.splitlines())}


def test_nothing_is_kept_where_there_is_nothing(tmp_path: Path) -> None:
    view = built(SpectraView, Lab(RunStore(tmp_path)))
    with pytest.raises(gr.Error, match="no run to look at"):
        view.save(view.views[0], "csv", Selection())


def test_merging_is_measured_or_refused_in_one_sentence(lab: Lab, tmp_path: Path) -> None:
    run = lab.store.runs()[0]
    found = SpectraView(lab).measure_merge(Selection(run=run.run_id))
    assert merge_caption(merge_report(run.spec, run.adapter_dir)) in unescape(found)
    bitfit = train("digits", MethodSpec(method="bitfit"), steps=1, runs=tmp_path)
    refused = SpectraView(Lab(RunStore(tmp_path))).measure_merge(Selection(run=bitfit.run_id))
    assert "there is nothing to merge" in refused
    assert "<table" not in refused


def test_in_public_nobody_merges_the_run_of_another(lab: Lab) -> None:
    public = Lab(lab.store, public=True)
    assert "There is no run to merge." in SpectraView(public).measure_merge(Selection(run=lab.store.runs()[0].run_id))


def test_a_cell_of_the_map_is_the_matrix_looked_at(lab: Lab, pair: tuple[Run, Run]) -> None:
    view = built(SpectraView, lab)
    found = shown(view, view.pick_matrix(Selection(run=pair[0].run_id), SimpleNamespace(pick="vit.layers.0.attention.q_proj")))
    assert "layer 0 · q" in found["title"]
