"""Look: numbers read out of the plots and tables and held against dense linear algebra on the adapter files."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load_file

from lora_lab import LoraSpec, find_bench, train

pytestmark = pytest.mark.slow
MATRIX = "vit.layers.1.attention.q_proj"


@pytest.fixture(scope="module")
def runs(app: Any) -> list[Any]:
    """Two seeds of r = 4 and one of r = 16, in the app's store."""
    return [train("digits", LoraSpec(r=r), steps=30, seed=seed, runs=app.runs) for r, seed in ((4, 0), (4, 1), (16, 0))]


def dense(run: Any, matrix: str = MATRIX) -> torch.Tensor:
    tensors = load_file(run.adapter_dir / "adapter_model.safetensors")
    b, a = (tensors[f"base_model.model.{matrix}.lora_{side}.weight"].double() for side in "BA")
    return run.spec.tuning.scaling * b @ a


def base(matrix: str = MATRIX) -> torch.Tensor:
    """W of the live model."""
    return dict(find_bench("digits").build().named_modules())[matrix].weight.detach().double()


def drawn(page: Page, plot: str, key: str) -> list[Any]:
    script = """([id, key]) => document.querySelector(`#${id} .js-plotly-plot`)._fullData.filter(t => t[key]).map(
      t => key == 'z' ? [...t.z].map(row => [...row]) : [...t[key]])"""
    page.wait_for_function("id => document.querySelector(`#${id} .js-plotly-plot`)?._fullData?.length > 0", arg=plot)
    return page.evaluate(script, [plot, key])


def open_look(open_page: Callable[..., Page], first: Any, second: Any, more: str = "", room: str = "look") -> Page:
    page = open_page(f"/{room}?run={first.run_id}&against={second.run_id}&matrix={MATRIX}{more}")
    page.locator("#map table").wait_for()
    expect(page.locator("#title")).to_contain_text(MATRIX)
    return page


def table(page: Page, name: str) -> list[list[str]]:
    rows = page.locator(f"#{name} tr", has=page.locator("td"))
    rows.first.wait_for()
    return [row.locator("td").all_inner_texts() for row in rows.all()]


def test_spectra_drawn_are_dense_spectra(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[2])
    for values, run in zip(drawn(page, "look-spectrum", "y"), (runs[0], runs[2]), strict=False):
        wanted = torch.linalg.svdvals(dense(run))[: run.spec.tuning.r]
        assert values == pytest.approx(wanted.tolist(), rel=1e-5)


def test_measures_in_the_table_are_those_of_the_dense_matrix(open_page: Callable[..., Page], runs: list[Any]) -> None:
    found = {row[0]: row[1] for row in table(open_look(open_page, runs[0], runs[2]), "measures-table")}
    change, w = dense(runs[0]), base()
    s = torch.linalg.svdvals(change)
    assert float(found["‖ΔW‖_F"]) == pytest.approx(float(change.norm()), rel=1e-3)
    assert float(found["stable rank"]) == pytest.approx(float((s / s[0]).square().sum()), rel=1e-3)
    assert float(found["‖ΔW‖_F / ‖W‖_F"].removesuffix(" %")) == pytest.approx(100 * float(change.norm() / w.norm()), rel=0.05)


def test_phi_drawn_is_phi_by_definition_with_chance_beside_it(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[2], room="subspaces")
    phi, control, chance = drawn(page, "overlap", "z")
    v1, v2 = (torch.linalg.svd(dense(run)).Vh for run in (runs[0], runs[2]))
    starts = [torch.linalg.svd(run.start()[MATRIX].lora_a.double()).Vh for run in (runs[0], runs[2])]
    for i in range(1, 5):
        for j in range(1, 17):
            by_definition = float((v1[:i] @ v2[:j].T).square().sum()) / min(i, j)
            at_start = float((starts[0][:i] @ starts[1][:j].T).square().sum()) / min(i, j)
            assert phi[i - 1][j - 1] == pytest.approx(by_definition, abs=1e-6)
            assert control[i - 1][j - 1] == pytest.approx(at_start, abs=1e-6)
            assert chance[i - 1][j - 1] == pytest.approx(max(i, j) / 64)


def test_the_number_of_a_matrix_is_the_mean_of_its_map_above_chance(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1], room="subspaces")
    phi, _, chance = drawn(page, "overlap", "z")
    above = [p - c for rows in zip(phi, chance, strict=True) for p, c in zip(*rows, strict=True)]
    told = page.locator(f'#map [data-pick="{MATRIX}"]').inner_text().replace("−", "-")
    assert float(told) == pytest.approx(sum(above) / len(above), abs=0.0051)


def test_phi_of_a_run_with_itself_is_one_on_the_diagonal(open_page: Callable[..., Page], runs: list[Any]) -> None:
    phi, *_ = drawn(open_look(open_page, runs[0], runs[0], room="subspaces"), "overlap", "z")
    assert [phi[i][i] for i in range(4)] == pytest.approx([1] * 4)


def test_output_side_is_another_picture(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1], room="subspaces")
    inputs = drawn(page, "overlap", "z")[0]
    page.locator("#side label", has_text="output side").click()
    page.wait_for_url("**side=out**")
    page.wait_for_timeout(800)
    u1, u2 = (torch.linalg.svd(dense(run)).U for run in runs[:2])
    outputs = drawn(page, "overlap", "z")[0]
    assert outputs[0][0] == pytest.approx(float(u1[:, 0] @ u2[:, 0]) ** 2, abs=1e-6)
    assert outputs != inputs


def test_table_7_is_dense_algebra(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1], room="amplification")
    ours, four, _ = table(page, "amplification-table")
    change, w = dense(runs[0]), base()
    u, _, vh = torch.linalg.svd(change)
    on_delta, on_base = float((u[:, :4].T @ w @ vh[:4].T).norm()), float(torch.linalg.svdvals(w)[:4].norm())
    assert float(ours[1]) == pytest.approx(on_delta, rel=0.01)
    assert float(ours[2]) == pytest.approx(on_base, rel=0.01)
    assert float(ours[6]) == pytest.approx(float(change.norm()) / on_delta, rel=0.01)
    assert four[1:4] == ["0.32", "21.67", "0.02"]


def test_intruders_are_counted_anew_as_the_threshold_moves(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1], room="amplification")
    cosines = (torch.linalg.svd(base() + dense(runs[0])).U.T @ torch.linalg.svd(base()).U).abs()
    (found, *_) = drawn(page, "directions", "z")
    assert found[2][5] == pytest.approx(float(cosines[2, 5]), abs=1e-6)
    largest = cosines[:10].max(dim=1).values
    for threshold in ("0.9", "0.3"):
        page.locator("#threshold input[type=number]").fill(threshold)
        page.locator("#threshold input[type=number]").press("Enter")
        expect(page.locator("#intruders-says")).to_contain_text(f"{int((largest < float(threshold)).sum())} of the 10")
    page.wait_for_url("**threshold=0.3**")
    page.reload()
    expect(page.locator("#threshold input[type=number]")).to_have_value("0.3")


def test_map_shows_every_norm_and_picks_a_matrix(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1])
    cells = page.locator("#map [data-pick]")
    expect(cells).to_have_count(8)
    for cell in cells.all():
        norm = torch.linalg.matrix_norm(dense(runs[0], str(cell.get_attribute("data-pick"))))
        assert float(cell.inner_text()) == pytest.approx(float(norm), rel=0.01)
    page.locator("#measure label", has_text="stable rank").click()
    page.wait_for_url("**measure=stable_rank**")
    s = torch.linalg.svdvals(dense(runs[0]))
    told = f"{float((s / s[0]).square().sum()):.1f}"
    expect(page.locator(f'#map [data-pick="{MATRIX}"]')).to_have_text(told)
    page.locator('#map [data-pick="vit.layers.2.attention.v_proj"]').click()
    expect(page.locator("#title")).to_contain_text("layer 2 · v")
    page.reload()
    expect(page.locator("#title")).to_contain_text("layer 2 · v")


def test_an_adapter_is_opened_from_its_folder(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1])
    page.locator("#open button").first.click()
    page.locator("#source textarea, #source input").fill(str(runs[2].adapter_dir))
    page.locator("#open-first").click()
    expect(page.locator("#facts")).to_contain_text("opened from")
    page.wait_for_url(f"**{runs[2].run_id}/adapter**")
    values = drawn(page, "look-spectrum", "y")[0]
    assert values == pytest.approx(torch.linalg.svdvals(dense(runs[2]))[:16].tolist(), rel=1e-5)


@pytest.mark.parametrize("kind", ["csv", "png", "html"])
def test_a_card_is_taken_along(open_page: Callable[..., Page], runs: list[Any], kind: str, tmp_path: Path) -> None:
    page = open_look(open_page, runs[0], runs[1])
    values = drawn(page, "energy", "y")[0]
    with page.expect_download(timeout=60_000) as download:
        page.locator(f"#energy-{kind}").click()
    kept = tmp_path / download.value.suggested_filename
    download.value.save_as(kept)
    assert kept.name == f"energy.{kind}"
    if kind == "csv":
        rows = list(csv.DictReader(kept.read_text(encoding="utf-8").splitlines()))
        assert [float(row["share of ‖ΔW‖²"]) for row in rows[:4]] == pytest.approx(values)
    elif kind == "png":
        assert kept.read_bytes().startswith(b"\x89PNG")
    else:
        assert "Plotly.newPlot" in kept.read_text(encoding="utf-8")


def test_selection_travels_to_train_and_back(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1])
    page.locator(".lab-header nav a", has_text="Train").click()
    page.locator("#block svg").wait_for()
    page.locator(".lab-header nav a", has_text="Look").click()
    expect(page.locator("#title")).to_contain_text(MATRIX)
    page.locator(".lab-rooms a", has_text="Amplification").click()
    expect(page.locator("#amplification-says")).to_contain_text("times as large")
    expect(page.locator("#title")).to_contain_text(MATRIX)


def test_caption_says_the_numbers_of_the_plot(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1], room="subspaces")
    phi, _, chance = drawn(page, "overlap", "z")
    expect(page.locator("#overlap-says")).to_contain_text(f"φ(4, 4) = {phi[3][3]:.2f} where chance gives {chance[3][3]:.3f}")


def test_light_and_dark_switch_and_stay(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1])
    was = page.evaluate("document.body.classList.contains('dark')")
    page.locator('[data-act="theme"]').click()
    assert page.evaluate("document.body.classList.contains('dark')") != was
    page.reload()
    page.locator("#map table").wait_for()
    page.wait_for_timeout(800)
    assert page.evaluate("document.body.classList.contains('dark')") != was
