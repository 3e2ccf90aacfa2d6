"""Look: numbers read out of the plots and held against dense linear algebra on the adapter files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load_file

from lora_lab import LoraSpec, train

pytestmark = pytest.mark.slow
MATRIX = "vit.layers.1.attention.q_proj"


@pytest.fixture(scope="module")
def runs(app: Any) -> list[Any]:
    """Two seeds of r = 4 and one of r = 16, in the app's store."""
    return [train("digits", LoraSpec(r=r), steps=30, seed=seed, runs=app.runs) for r, seed in ((4, 0), (4, 1), (16, 0))]


def dense(folder: Path, matrix: str, scaling: float) -> torch.Tensor:
    tensors = load_file(folder / "adapter_model.safetensors")
    b, a = (tensors[f"base_model.model.{matrix}.lora_{side}.weight"].double() for side in "BA")
    return scaling * b @ a


def drawn(page: Page, plot: str, key: str) -> list[Any]:
    script = """([id, key]) => document.querySelector(`#${id} .js-plotly-plot`)._fullData.map(
      t => key == 'z' ? [...t.z].map(row => [...row]) : [...t[key]])"""
    page.wait_for_function("id => document.querySelector(`#${id} .js-plotly-plot`)?._fullData?.length > 0", arg=plot)
    return page.evaluate(script, [plot, key])


def open_look(open_page: Callable[..., Page], first: Any, second: Any, more: str = "") -> Page:
    page = open_page(f"/look?run={first.run_id}&against={second.run_id}&matrix={MATRIX}{more}")
    page.locator("#map table").wait_for()
    expect(page.locator("#title")).to_contain_text(MATRIX)
    return page


def test_spectra_drawn_are_dense_spectra(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[2])
    for values, run in zip(drawn(page, "look-spectrum", "y"), (runs[0], runs[2]), strict=True):
        wanted = torch.linalg.svdvals(dense(run.adapter_dir, MATRIX, run.spec.tuning.scaling))[: run.spec.tuning.r]
        assert values == pytest.approx(wanted.tolist(), rel=1e-5)


def test_phi_drawn_is_phi_by_definition_with_chance_beside_it(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[2])
    phi, chance = drawn(page, "overlap", "z")
    v1, v2 = (torch.linalg.svd(dense(r.adapter_dir, MATRIX, r.spec.tuning.scaling)).Vh for r in (runs[0], runs[2]))
    for i in range(1, 5):
        for j in range(1, 17):
            by_definition = float((v1[:i] @ v2[:j].T).square().sum()) / min(i, j)
            assert phi[i - 1][j - 1] == pytest.approx(by_definition, abs=1e-6)
            assert chance[i - 1][j - 1] == pytest.approx(max(i, j) / 64)


def test_phi_of_a_run_with_itself_is_one_on_the_diagonal(open_page: Callable[..., Page], runs: list[Any]) -> None:
    phi, _ = drawn(open_look(open_page, runs[0], runs[0]), "overlap", "z")
    assert [phi[i][i] for i in range(4)] == pytest.approx([1] * 4)


def test_output_side_is_another_picture(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1])
    inputs = drawn(page, "overlap", "z")[0]
    page.locator("#side label", has_text="output side").click()
    page.wait_for_url("**side=out**")
    page.wait_for_timeout(800)
    u1, u2 = (torch.linalg.svd(dense(r.adapter_dir, MATRIX, r.spec.tuning.scaling)).U for r in runs[:2])
    outputs = drawn(page, "overlap", "z")[0]
    assert outputs[0][0] == pytest.approx(float(u1[:, 0] @ u2[:, 0]) ** 2, abs=1e-6)
    assert outputs != inputs


def test_map_shows_every_norm_and_picks_a_matrix(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1])
    cells = page.locator("#map [data-pick]")
    expect(cells).to_have_count(8)
    for cell in cells.all():
        norm = torch.linalg.matrix_norm(
            dense(runs[0].adapter_dir, str(cell.get_attribute("data-pick")), runs[0].spec.tuning.scaling)
        )
        assert float(cell.inner_text()) == pytest.approx(float(norm), rel=0.01)
    page.locator('#map [data-pick="vit.layers.2.attention.v_proj"]').click()
    expect(page.locator("#title")).to_contain_text("layer 2 · v")
    page.reload()
    expect(page.locator("#title")).to_contain_text("layer 2 · v")


def test_selection_travels_to_train_and_back(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1])
    page.locator(".lab-header nav a", has_text="Train").click()
    page.locator("#block svg").wait_for()
    page.locator(".lab-header nav a", has_text="Look").click()
    expect(page.locator("#title")).to_contain_text(MATRIX)


def test_caption_says_the_numbers_of_the_plot(open_page: Callable[..., Page], runs: list[Any]) -> None:
    page = open_look(open_page, runs[0], runs[1])
    phi, chance = drawn(page, "overlap", "z")
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
