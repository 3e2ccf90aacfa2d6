"""LoRA Lab: what LoRA costs, what it learns, and what ΔW is.

Names resolve when they are first used: `import lora_lab` loads neither torch nor gradio nor transformers nor peft.
"""

import logging
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Where it is installed PEFT imports it, and it announces at every start that a kernel it can do without is missing.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_HOME = {
    "Adapter": "lora_lab.adapters",
    "AdapterShelf": "lora_lab.inference",
    "Budget": "lora_lab.budget",
    "DataSpec": "lora_lab.specs",
    "LabError": "lora_lab.errors",
    "LoraSpec": "lora_lab.specs",
    "LowRank": "lora_lab.lowrank",
    "MethodBenchSpec": "lora_lab.sweeps.method_bench",
    "MethodSpec": "lora_lab.specs",
    "Range": "lora_lab.search_spec",
    "Run": "lora_lab.sweeps",
    "RunSpec": "lora_lab.specs",
    "RunStore": "lora_lab.sweeps",
    "SearchSpec": "lora_lab.search_spec",
    "StepSpec": "lora_lab.specs",
    "Sweep": "lora_lab.sweeps",
    "SweepSpec": "lora_lab.sweep_spec",
    "amplification": "lora_lab.analysis",
    "base_gradients": "lora_lab.training",
    "bench_methods": "lora_lab.sweeps.method_bench",
    "chain_rule": "lora_lab.training",
    "evaluate": "lora_lab.training",
    "export_merged": "lora_lab.inference",
    "find_bench": "lora_lab.benches",
    "find_model": "lora_lab.budget",
    "first_gradients": "lora_lab.training",
    "gradient_advice": "lora_lab.sweeps.gradient_advice",
    "head_params": "lora_lab.budget",
    "intruders": "lora_lab.analysis",
    "load_adapter": "lora_lab.adapters",
    "lora_params": "lora_lab.budget",
    "measure_latency": "lora_lab.inference",
    "measure_switching": "lora_lab.inference",
    "merge": "lora_lab.inference",
    "merge_report": "lora_lab.inference",
    "open_run": "lora_lab.inference",
    "overlap": "lora_lab.analysis",
    "plan_run": "lora_lab.training",
    "preview_of": "lora_lab.benches.preview",
    "quantize": "lora_lab.methods",
    "rank_configurations": "lora_lab.sweeps.configurations",
    "rate_curves": "lora_lab.analysis.rate_curves",
    "reach": "lora_lab.training",
    "read_geometry": "lora_lab.live_geometry",
    "results_table": "lora_lab.sweeps.results",
    "search": "lora_lab.sweeps.search",
    "spectrum": "lora_lab.analysis",
    "sweep": "lora_lab.sweeps",
    "to_peft": "lora_lab.methods",
    "train": "lora_lab.sweeps",
    "train_events": "lora_lab.training",
    "truncated_scores": "lora_lab.inference",
}
_MODULES = ("budget", "plots", "report", "widgets")
__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"lora_lab.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'lora_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
