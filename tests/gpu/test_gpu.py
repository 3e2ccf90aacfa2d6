"""The gpu ring: runs wherever CUDA is found, and says in the summary when it is not."""

from pathlib import Path

import pytest
import torch

import lora_lab as ll
from lora_lab.training.devices import autocast, precision_on

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu ring: no CUDA device on this machine, nothing measured"),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ll.Run]:
    """The same run on both devices."""
    return {
        device: ll.train("digits", ll.LoraSpec(r=4), steps=100, runs=tmp_path_factory.mktemp(device), device=device)
        for device in ("cpu", "cuda")
    }


def test_gpu_gives_what_the_cpu_gives(pair: dict[str, ll.Run]) -> None:
    assert pair["cuda"].metrics["base_accuracy"] == pytest.approx(pair["cpu"].metrics["base_accuracy"], abs=0.01)
    assert pair["cuda"].metrics["accuracy"] == pytest.approx(pair["cpu"].metrics["accuracy"], abs=0.06)


def test_one_fp32_forward_is_the_same_to_rounding() -> None:
    bench = ll.find_bench("digits")
    batch = bench.splits()[1].batch(torch.arange(64))
    model = bench.build().eval()
    with torch.no_grad():
        there = model.cuda()(**{k: v.cuda() for k, v in batch.items()}).logits.cpu()
        here = model.cpu()(**batch).logits
    torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-4)


def test_memory_is_recorded(pair: dict[str, ll.Run]) -> None:
    assert pair["cpu"].metrics["peak_memory_bytes"] is None
    assert pair["cuda"].metrics["peak_memory_bytes"] > 152_650 * 4


def test_autocast_is_bf16_where_the_gpu_has_it(pair: dict[str, ll.Run], tmp_path: Path) -> None:
    device = torch.device("cuda")
    assert pair["cuda"].metrics["precision"] == precision_on(device)
    with autocast(device):
        product = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert product.dtype == (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32)
    weights = pair["cuda"].adapter()["vit.layers.0.attention.q_proj"]
    assert weights.lora_a.dtype == torch.float32
