"""What lies on disk: adapter files, and models kept for many tasks."""

import json
from dataclasses import replace

from lora_lab.budget.activations import DTYPE_BYTES
from lora_lab.budget.counts import method_params, rank_of, targeted
from lora_lab.geometry import Geometry, Matrix
from lora_lab.specs import COMBINED, LORA_KIN, MethodSpec, StepSpec

_PREFIX = "base_model.model."
_HEADER_BYTES_A_TENSOR = 134  # where the names are not worked out: PEFT's Llama adapters have as much


def adapter_file_bytes(geometry: Geometry, spec: MethodSpec, step: StepSpec) -> int:
    """Bytes of the safetensors file: exact for LoRA and its kin of the same tensors (but the header of biases).

    Elsewhere the tensors and a usual header.

    A method that trains the base's own parameters keeps those, in the base's type.
    """
    if spec.method in ("full", "partial", "bitfit", "ln_tuning"):
        return DTYPE_BYTES[step.dtype] * method_params(geometry, spec)
    if spec.method in COMBINED:  # a folder for LoRA with one for the virtual tokens in it
        return sum(adapter_file_bytes(geometry, part, step) for part in spec.parts())
    size_bytes = DTYPE_BYTES[step.adapter_dtype]
    if spec.method in LORA_KIN and spec.method not in ("vera", "adalora"):
        biases = method_params(geometry, spec) - method_params(geometry, replace(spec, bias="none"))
        own = _safetensors_bytes(_lora_tensors(geometry, spec), "F32" if size_bytes == 4 else "BF16", size_bytes)
        return own + DTYPE_BYTES[step.dtype] * biases
    each = {"ia3": 1, "adalora": 3}.get(spec.method, 2)
    virtual_tokens = spec.method in ("prefix", "preembed")  # PEFT writes them as one tensor
    tensors = 1 if virtual_tokens else each * (len(targeted(geometry, spec)) or 2 * len(geometry.stacks))
    return size_bytes * (method_params(geometry, spec) + _projections(geometry, spec)) + _HEADER_BYTES_A_TENSOR * tensors


def _projections(geometry: Geometry, spec: MethodSpec) -> int:
    """PEFT writes VeRA's shared A and B too."""
    if spec.method != "vera":
        return 0
    matrices = targeted(geometry, spec)
    return spec.r * (max(m.d_in for m in matrices) + max(m.d_out for m in matrices))


def _lora_tensors(geometry: Geometry, spec: MethodSpec) -> list[tuple[str, list[int]]]:
    tensors: list[tuple[str, list[int]]] = []
    for m in targeted(geometry, spec):
        name, r = _PREFIX + _saved_name(m), m.experts * rank_of(spec, m.name)
        tensors += [(f"{name}.lora_A.weight", [r, m.d_in]), (f"{name}.lora_B.weight", [m.d_out, r])]
        if spec.method == "dora":
            tensors.append((f"{name}.lora_magnitude_vector", [m.d_out]))
    return tensors


def _saved_name(m: Matrix) -> str:
    """PEFT hangs the factors of 3-D experts on the module that owns them."""
    return m.name if m.kind != "experts" else m.name.rpartition(".")[0]


def _safetensors_bytes(tensors: list[tuple[str, list[int]]], dtype: str, size_bytes: int) -> int:
    """Eight bytes of length, a JSON header padded to eight, the data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in sorted(tensors):
        end = offset + size_bytes * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    length = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + -(-length // 8) * 8 + offset


def disk_for_tasks_bytes(model_bytes: int, file_bytes: int, tasks: int) -> tuple[int, int]:
    """(a model for every task, one model and an adapter for every task), bytes.

    Source: Hu et al. 2021, footnote of section 4.2.
    """
    return tasks * model_bytes, model_bytes + tasks * file_bytes
