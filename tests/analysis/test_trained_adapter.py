"""A real adapter beside the real base that it was trained on, by name, against numpy on the live model's weights."""

import numpy as np
import pytest
import torch
from torch import nn

import lora_lab as ll
from lora_lab.adapters import Adapter
from lora_lab.analysis import base_spectrum, location_of
from lora_lab.assets import DATA_DIR
from lora_lab.live_geometry import read_geometry
from lora_lab.weights import BaseWeights


@pytest.fixture
def adapter(digits_run: ll.Run) -> Adapter:
    return ll.load_adapter(digits_run.adapter_dir)


@pytest.fixture
def base(digits_base: nn.Module) -> BaseWeights:
    return BaseWeights(DATA_DIR / "digits-base", read_geometry(digits_base).matrices)


def test_amplification_is_that_of_the_live_matrices(adapter: Adapter, base: BaseWeights, digits_base: nn.Module) -> None:
    found = ll.amplification(adapter, base)
    assert [one.name for one in found] == list(adapter)
    for one in found:
        w = digits_base.get_submodule(one.name).weight.detach().double().numpy()
        change = adapter[one.name].dense().numpy()
        u, _, vh = np.linalg.svd(change)
        k = one.directions
        assert k == 4
        on_delta = np.linalg.norm(u[:, :k].T @ w @ vh[:k].T)
        assert (one.on_delta, one.factor) == pytest.approx((on_delta, np.linalg.norm(change) / on_delta), rel=1e-6)
        assert one.on_delta < one.on_base  # no k directions hold more of W than its own


def test_intruders_are_those_of_the_live_matrices(adapter: Adapter, base: BaseWeights, digits_base: nn.Module) -> None:
    for one in ll.intruders(adapter, base, threshold=0.9):
        w = digits_base.get_submodule(one.name).weight.detach().double().numpy()
        before, after = (np.linalg.svd(matrix)[0] for matrix in (w, w + adapter[one.name].dense().numpy()))
        cosines = np.abs(after[:, :10].T @ before).max(axis=1)
        np.testing.assert_allclose(one.cosines, cosines, rtol=1e-6)
        assert one.count == (cosines < 0.9).sum()


def test_the_update_is_somewhere_in_its_base(adapter: Adapter, base: BaseWeights) -> None:
    for name, delta in adapter.items():
        bands = location_of(name, delta, base_spectrum(base.named(name)), k=8).of("out")
        change = delta.dense()
        top = torch.linalg.svd(base.named(name).double())[0][:, :8].mT @ change
        assert bands[0].share == pytest.approx(float(top.square().sum() / change.square().sum()), rel=1e-6)
        assert sum(band.share for band in bands) == pytest.approx(1)
