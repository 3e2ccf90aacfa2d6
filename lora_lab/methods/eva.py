"""EVA: start values read off the activations of the data."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from peft.tuners.lora.eva import initialize_lora_eva_weights
from torch import Tensor, nn

from lora_lab.errors import SpecError
from lora_lab.specs import MethodSpec

Batch = Mapping[str, Tensor]


def read_eva_start(peft_model: nn.Module, spec: MethodSpec, batches: Sequence[Batch]) -> None:
    """Set every A to the leading right singular vectors of what goes into its matrix; B stays 0.

    Args:
        peft_model: with LoRA on it, attached with the start values `eva`.
        spec: the method.
        batches: of the training split, gone through until the vectors stand still.

    Raises:
        SpecError: there is no data, or a batch has fewer positions than r.

    Source: Paischer et al. 2024 (EVA, arXiv 2410.07170).
    """
    if not batches:
        raise SpecError("The start values eva are read off data: init_lora_weights must be others where there is none. Got 'eva'.")
    positions = min(_positions(batch) for batch in batches)
    if positions < spec.r:  # PEFT would wait for ever
        raise SpecError(f"The r of EVA must be at most the {positions} positions of a batch. Got {spec.r}.")
    with torch.no_grad():
        initialize_lora_eva_weights(
            peft_model,
            [dict(batch) for batch in batches],
            prepare_model_inputs_fn=lambda batch, _: batch.get("attention_mask"),
            prepare_layer_inputs_fn=_rows,
            show_progress_bar=False,
        )


def _positions(batch: Batch) -> int:
    mask = batch.get("attention_mask")
    return int(mask.sum()) if mask is not None else len(next(iter(batch.values())))


def _rows(layer_input: Tensor | tuple[Tensor, ...], mask: Tensor | None, _: str) -> Float[Tensor, "n d_in"]:
    """One row a position, padding left out."""
    x = layer_input[0] if isinstance(layer_input, tuple) else layer_input
    rows = x.flatten(0, -2)
    return rows[mask.flatten().bool()] if mask is not None and mask.numel() == len(rows) else rows
