"""The gpu ring: runs wherever CUDA is found, and says in the summary when it is not."""

import gc
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import lora_lab as ll
from lora_lab.budget import Model
from lora_lab.budget.formula import formula
from lora_lab.budget.meta import build_model
from lora_lab.budget.trace import trace
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method
from lora_lab.specs import MethodSpec, StepSpec
from lora_lab.training.devices import autocast, precision_on

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu ring: no CUDA device on this machine, nothing measured"),
]


# 254 M parameters: large enough that rounding and cuBLAS's own buffers weigh little.
LLAMA = {
    "vocab_size": 32_000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}


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


def test_both_counters_are_recorded(pair: dict[str, ll.Run]) -> None:
    assert pair["cpu"].metrics["peak_reserved_bytes"] is None
    assert pair["cuda"].metrics["peak_reserved_bytes"] >= pair["cuda"].metrics["peak_memory_bytes"]


def two_steps(model: nn.Module, *, batch: int, seq: int, vocab: int) -> None:
    """Two optimizer steps on random tokens, the last row padded by half, as a batch of text is."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], foreach=True)
    tokens = torch.randint(vocab, (batch, seq), device=device)
    mask = torch.ones_like(tokens)
    mask[-1, seq // 2 :] = 0
    for _ in range(2):
        model(input_ids=tokens, attention_mask=mask, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def peak_of_two_steps(spec: MethodSpec, step: StepSpec) -> int:
    """What the allocator gave out at the peak of two real steps, beyond what the process held already."""
    gc.collect()
    before_bytes = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    base = LlamaForCausalLM._from_config(LlamaConfig(**LLAMA), dtype=torch.bfloat16, attn_implementation="sdpa").cuda()
    base.config.use_cache = False
    two_steps(attach_method(base, spec).train(), batch=step.batch, seq=step.seq, vocab=LLAMA["vocab_size"])
    return torch.cuda.max_memory_allocated() - before_bytes


@pytest.mark.parametrize("targets", [("q", "v"), ("gate", "up", "down")], ids=", ".join)
def test_formula_and_trace_are_within_15_percent_of_what_a_card_measures(targets: tuple[str, ...]) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **LLAMA}
    model = Model("a random Llama", read_geometry(build_model(config)), config, source="drawn here")
    spec, step = MethodSpec(r=8, target_modules=targets), StepSpec(batch=4, seq=512, dtype="bf16")
    measured_bytes = peak_of_two_steps(spec, step)
    assert formula(model.geometry, spec, step).peak == pytest.approx(measured_bytes, rel=0.15)
    assert trace(model, spec, step).peak == pytest.approx(measured_bytes, rel=0.15)


def test_autocast_is_bf16_where_the_gpu_has_it(pair: dict[str, ll.Run], tmp_path: Path) -> None:
    device = torch.device("cuda")
    assert pair["cuda"].metrics["precision"] == precision_on(device)
    with autocast(device):
        product = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert product.dtype == (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32)
    weights = pair["cuda"].adapter()["vit.layers.0.attention.q_proj"]
    assert weights.lora_a.dtype == torch.float32
