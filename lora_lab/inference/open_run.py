"""A run's model as it stood at the end, live again."""

from pathlib import Path

from peft import PeftModel
from torch import nn

from lora_lab.adapters import VIRTUAL_TOKENS, load_trained
from lora_lab.benches import find_bench
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, quantize, quiet_peft
from lora_lab.specs import Quant, RunSpec


def open_run(spec: RunSpec, adapter_dir: Path, *, quant: Quant | None = None) -> nn.Module:
    """The bench's base with what was trained on it, in eval mode on the CPU.

    Args:
        spec: the run's.
        adapter_dir: what it saved.
        quant: how the base is kept; as in training where None.

    Raises:
        LabError: the base cannot be had, or what was saved does not fit it.
    """
    bench = find_bench(spec.bench, spec.data)
    base = bench.build()
    heads = bench.head_modules(read_geometry(base))
    base = quantize(base, spec.quant if quant is None else quant)
    if not (adapter_dir / "adapter_config.json").is_file():
        model = attach_method(base, spec.tuning, seed=spec.seed, head_modules=heads, task_type=bench.task_type)
        load_trained(model, adapter_dir)
        return model.eval()
    with quiet_peft():
        live = PeftModel.from_pretrained(base, str(adapter_dir))
        if (adapter_dir / VIRTUAL_TOKENS).is_dir():
            live = PeftModel.from_pretrained(live.get_base_model(), str(adapter_dir / VIRTUAL_TOKENS))
    opened: nn.Module = live.eval()
    return opened
