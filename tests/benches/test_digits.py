"""The digits bench: a committed base, three changes of the same images, one split."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import ViTForImageClassification

from lora_lab.benches import digits_base as recipe
from lora_lab.benches import find_bench
from lora_lab.benches.bench import halved
from lora_lab.benches.digits import VARIANTS, inverted, noised, split, turned, upright
from lora_lab.live_geometry import read_geometry
from lora_lab.training import evaluate

ONE_DIGIT = 1 / 497  # of accuracy: a processor that rounds differently may turn a digit on the edge


@pytest.fixture(scope="module")
def base() -> ViTForImageClassification:
    """The committed base; tests leave it as it is."""
    return find_bench("digits").build()


def test_the_committed_base_has_the_accuracy_that_its_facts_state(base: ViTForImageClassification, repository: Path) -> None:
    stated = json.loads((repository / "data" / "digits-base" / "training.json").read_text())["accuracy_upright"]
    assert evaluate(base, split()[1]).value == pytest.approx(stated, abs=1.5 * ONE_DIGIT)


def test_the_base_cannot_read_turned_digits(base: ViTForImageClassification) -> None:
    assert evaluate(base, find_bench("digits").splits()[1]).value <= 0.30


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_leaves_the_base_something_to_learn(base: ViTForImageClassification, variant: str) -> None:
    upright_accuracy = evaluate(base, split()[1]).value
    assert evaluate(base, find_bench(variant).splits()[1]).value < upright_accuracy - 0.05


def test_the_base_has_as_many_parameters_as_a_count_on_paper(base: ViTForImageClassification) -> None:
    width, mlp, patches, labels = 64, 160, 16, 10
    embeddings = 2 * 2 * width + width + width + (patches + 1) * width  # patch projection, class token, positions
    attention = 4 * (width * width + width)
    block = attention + (width * mlp + mlp) + (mlp * width + width) + 2 * 2 * width  # two LayerNorms
    on_paper = embeddings + 4 * block + 2 * width + (width * labels + labels)
    assert sum(p.numel() for p in base.parameters()) == on_paper == 152_650


def test_the_geometry_needs_no_weights(base: ViTForImageClassification) -> None:
    bench = find_bench("digits")
    assert {p.device.type for p in bench.build(meta=True).parameters()} == {"meta"}
    assert bench.geometry() == read_geometry(base)


def test_a_loaded_base_is_fresh_and_trainable() -> None:
    bench = find_bench("digits")
    first, second = bench.build(), bench.build()
    assert all(p.requires_grad for p in second.parameters())
    with torch.no_grad():
        first.classifier.weight.zero_()
    assert second.classifier.weight.any()


def test_the_split_is_every_digit_once() -> None:
    training, held_out = split()
    assert (len(training), len(held_out)) == (1300, 497)
    columns = [torch.cat([training.columns[name], held_out.columns[name]]) for name in ("pixel_values", "labels")]
    grey = ((columns[0] + 1) * 8).round().to(torch.uint8).flatten(1)
    bunch = load_digits()
    ours = sorted(zip(grey.tolist(), columns[1].tolist(), strict=True))
    assert ours == sorted(zip(bunch.data.astype(int).tolist(), bunch.target.tolist(), strict=True))
    assert len({tuple(row) for row in grey.tolist()}) == len(bunch.target)  # so the two parts share no image


def test_the_split_is_the_same_each_time() -> None:
    upright.cache_clear()
    first = split()
    upright.cache_clear()
    for one, other in zip(first, split(), strict=True):
        assert all(torch.equal(one.columns[name], other.columns[name]) for name in one.columns)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_shows_the_same_digits_in_the_same_order(variant: str) -> None:
    change = VARIANTS[variant][0]
    training, held_out = split()
    for plain, changed in zip((training, *halved(held_out)), find_bench(variant).splits(), strict=True):
        assert torch.equal(plain.columns["labels"], changed.columns["labels"])
        assert changed.columns["pixel_values"].shape == plain.columns["pixel_values"].shape
    images = torch.cat([part.columns["pixel_values"] for part in find_bench(variant).splits()])
    torch.testing.assert_close(images, change(upright()[0]) * 2 - 1)


def test_a_quarter_turn_is_counterclockwise() -> None:
    top_right = torch.zeros(1, 1, 8, 8)
    top_right[0, 0, 0, 7] = 1
    top_left = torch.zeros(1, 1, 8, 8)
    top_left[0, 0, 0, 0] = 1
    assert torch.equal(turned(top_right), top_left)


@pytest.mark.parametrize(("change", "times"), [(turned, 4), (inverted, 2)])
def test_changes_come_back_to_where_they_began(change: Callable[[Tensor], Tensor], times: int) -> None:
    images = upright()[0]
    seen = [images]
    for _ in range(times):
        seen.append(change(seen[-1]))
    assert torch.equal(seen[-1], images)
    assert not any(torch.equal(between, images) for between in seen[1:-1])


def test_inverted_white_is_black() -> None:
    black, grey, white = (torch.full((1, 1, 8, 8), value) for value in (0.0, 0.25, 1.0))
    assert torch.equal(inverted(black), white)
    assert torch.equal(inverted(grey), white - grey)


def test_noise_is_the_same_for_every_run_and_stays_on_the_grey_scale() -> None:
    grey = torch.full((400, 1, 8, 8), 0.5)
    state = torch.get_rng_state()
    noisy = noised(grey)
    assert torch.equal(noised(grey), noisy)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 <= noisy.min() < 0.5 < noisy.max() <= 1
    within = noisy[(noisy > 0) & (noisy < 1)]
    # a normal of sd 0.35 lies within 0.5 of its mean with probability erf(0.5 / (0.35 √2)) = 0.847
    assert len(within) / noisy.numel() == pytest.approx(0.847, abs=0.01)


@pytest.mark.parametrize("column", range(8))
def test_training_images_move_by_at_most_a_pixel(column: int) -> None:
    images = torch.full((300, 1, 8, 8), -1.0)
    images[:, 0, 4, column] = 1
    moved = recipe.shifted(images, torch.Generator().manual_seed(0))
    _, _, rows, columns = torch.nonzero(moved == 1, as_tuple=True)
    expected = {(4 + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1) if 0 <= column + right < 8}
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    assert (moved == 1).flatten(1).sum(1).max() == 1


def test_the_recipe_gives_the_same_base_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "STEPS", 20)
    with torch.random.fork_rng(devices=[]):
        first = recipe.train().state_dict()
        torch.rand(1)
        second = recipe.train().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_recipe_writes_a_base_and_what_it_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "STEPS", 30)
    with torch.random.fork_rng(devices=[]):
        recipe.main(tmp_path)
    facts = json.loads((tmp_path / "training.json").read_text())
    assert json.loads(capsys.readouterr().out) == facts
    model = ViTForImageClassification.from_pretrained(tmp_path)
    assert facts["accuracy_upright"] == pytest.approx(evaluate(model, split()[1]).value)
    assert (facts["steps"], facts["seed"]) == (30, 0)
