"""What a cell of the support matrix claims, one function a claim."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from lora_lab.adapters import (
    Adapter,
    load_adapter,
)
from lora_lab.budget import method_params
from lora_lab.errors import ClaimError, MergeError, SpecError
from lora_lab.inference import merge, unload_merged
from lora_lab.live_geometry import read_geometry
from lora_lab.methods import attach_method, quantize, refuse_unfit, trainable_params
from lora_lab.methods.quantized import bits_of
from lora_lab.methods.tiny import tiny_model
from lora_lab.specs import IN_PLACE, RunSpec
from lora_lab.support.rows import Row
from lora_lab.support.trial import (
    STEPS,
    Trial,
    apart,
    base_logits,
    base_of,
    base_state,
    base_weights,
    batch_of,
    dequantized,
    effective,
    fresh,
    maps_of,
    own_state,
    state_of,
)
from lora_lab.training.optimizers import make_optimizer

CLOSE = 1e-5  # relative, in float32
INT8_ROUNDING = 0.03  # relative: of LLM.int8's activations in 8 bits, the largest found being half of it
_ROUNDING = 1e-6  # of a weight, relative to its norm
_LEAST_EFFECT = 1e-3  # of two steps on the outputs, relative: less would leave the other claims empty


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of a cell: why it is refused, or how far merged outputs lie from unmerged ones, None where nothing merges."""

    refusal: str = ""
    merge_error: float | None = None


def check_cell(family: str, row: Row) -> Cell:
    """Try a row on a family whole.

    Raises:
        ClaimError: a claim does not hold.
    """
    refusal = _refusal(family, row)
    if refusal:
        return Cell(refusal)
    with TemporaryDirectory() as folder:
        trial = Trial(family, row, Path(folder))
        check_count(trial)
        check_start(trial)
        check_training(trial)
        trial.save()
        adapter = trial.adapter()
        if row.quant == "none":  # int8 rounds what goes in: there the merged weight tells
            check_delta(trial, adapter)
        error = check_merge(trial, adapter)
        check_file(trial, adapter)
    return Cell(merge_error=error)


def _require(ok: bool, sentence: str) -> None:
    if not ok:
        raise ClaimError(sentence)


# A refusal.


def _refusal(family: str, row: Row) -> str:
    """Why the family cannot take the row, said before anything is attached; empty where it can."""
    try:
        base = base_of(family, row.quant)
        refuse_unfit(base, read_geometry(base), row.spec)
    except SpecError as err:
        for model in (fresh(family, "none"), tiny_model(family)):
            _check_refused(model, row, str(err))
        return str(err)
    return ""


def _check_refused(model: nn.Module, row: Row, sentence: str) -> None:
    """The model is refused in the same words when it is really tried, and is left as it was."""
    before = {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
    try:
        attach_method(quantize(model, row.quant), row.spec)
    except SpecError as err:
        _require(str(err) == sentence, f"It is refused with {str(err)!r} when it is attached.")
    else:
        raise ClaimError("It is refused, and attaches nevertheless.")
    _require({name: (id(p), p.requires_grad) for name, p in model.named_parameters()} == before, "A refusal has changed the base.")


# The claims, one a function.


def check_count(trial: Trial) -> None:
    """It attaches on the meta device as on the CPU, and trains as many parameters as the closed form counts."""
    on_meta = tiny_model(trial.family)
    expected = method_params(read_geometry(on_meta), trial.row.spec)
    on_meta = attach_method(on_meta, trial.row.spec)
    for model in (on_meta, trial.live):
        found = trainable_params(model)[0]
        _require(found == expected, f"It trains {found} parameters, and the formula counts {expected}.")
    alike = trial.row.quant != "none" or _shapes(on_meta) == _shapes(trial.live)
    _require(alike, "The meta device attaches other parameters than the CPU.")


def _shapes(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype, bool]]:
    return {name: (p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()}


def check_start(trial: Trial) -> None:
    """ΔW is 0 at step 0 and the outputs are the base's: bit for bit, or to rounding where the start values meet W0 by rounding."""
    promise = trial.row.start
    for name, delta in trial.adapter().items():
        bound = 0.0 if promise == "exact" else _ROUNDING * float(trial.original_maps[name].norm())
        _require(delta.frobenius() <= bound, f"ΔW of {name} is not 0 at step 0.")
    for name, first in (trial.start or {}).items():
        back = effective(trial.own[name], trial.matrices[name]) + first.dense().double()
        _require(apart(back, trial.original_maps[name]) <= _ROUNDING, f"The moved {name} and its start do not make up W0.")
    if promise != "none":
        error = apart(trial.logits(trial.carrier), base_logits(trial.family, trial.row.quant))
        _require(error <= (0.0 if promise == "exact" else CLOSE), f"The outputs at step 0 are {error:.1e} from the base's.")


def check_training(trial: Trial) -> None:
    """Two steps reach and change all that is trained, and leave everything else as it is to the bit, the base as it came."""
    before, first = state_of(trial.live), trial.logits()
    reached = _two_steps(trial)
    after, trained = state_of(trial.live), trial.trained
    unreached = {name for name, p in trial.live.named_parameters() if p.requires_grad} - reached
    _require(not unreached, f"No gradient reaches {min(unreached, default='')}.")
    changed = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    _require(
        after.keys() == before.keys() and changed <= trained, f"Training has changed {min(changed - trained, default='keys')}."
    )
    # AdaLoRA's last cut sets a singular value back to 0, where all of them began
    idle = {name for name in trained - changed if ".lora_E." not in name}
    _require(not idle, f"Training has not changed {min(idle, default='')}.")
    _check_base(trial)
    effect = apart(trial.logits(), first)
    _require(effect != float("inf") and effect >= _LEAST_EFFECT, f"Training has moved the outputs by {effect:.1e}.")


def _two_steps(trial: Trial) -> set[str]:
    """Two steps of AdamW on one batch; what a gradient other than 0 has reached."""
    row, reached = trial.row, set()
    spec = RunSpec(bench="", base_sha256="", tuning=row.spec, learning_rate=row.learning_rate)
    optimizer = make_optimizer(trial.live, spec)
    trial.live.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for step in range(STEPS):
            optimizer.zero_grad()
            trial.live(**batch_of(trial.family)).loss.backward()
            reached |= {name for name, p in trial.live.named_parameters() if p.grad is not None and bool(p.grad.any())}
            optimizer.step()
            if row.spec.method == "adalora":
                trial.carrier.base_model.update_and_allocate(step)
    trial.live.eval()
    return reached


def _check_base(trial: Trial) -> None:
    """The base's own modules hold what a fresh base does, but for what is trained in place or was moved by the start values."""
    in_place = trial.trained if trial.row.spec.method in IN_PLACE else set()
    moved = {f"{name}.weight" for name in trial.start or ()}
    for owner, held in base_state(trial.family, trial.row.quant).items():
        now = own_state(trial.own[owner])
        for key, original in held.items():
            name = f"{owner}.{key}" if owner else key
            same = name in in_place | moved or torch.equal(now[key], original)
            _require(same, f"The base's {name} is not what it was.")


def check_delta(trial: Trial, adapter: Adapter) -> None:
    """ΔW is (d_out, d_in), and what the layers now do to the unit vectors less what they did; no other matrix changes."""
    if not (trial.is_mergeable or trial.row.spec.method in IN_PLACE):
        return _require(not adapter, "It changes no matrix, and has a ΔW.")
    now = maps_of(trial.inner, trial.matrices.values())
    strays = adapter.keys() - now.keys()
    _require(not strays, f"There is a ΔW of {min(strays, default='')}, which is no matrix.")
    for name, original in trial.original_maps.items():
        change = now[name] - original
        if name in adapter and adapter[name].frobenius():
            error = apart(adapter[name].dense(), change)
            _require(error <= CLOSE, f"ΔW of {name} is {error:.1e} from the change of its weight.")
        else:
            _require(float(change.norm()) <= _ROUNDING * float(original.norm()), f"{name} has changed, and has no ΔW.")


def check_merge(trial: Trial, adapter: Adapter) -> float | None:
    """Merged outputs are the unmerged ones, the weights have changed by ΔW, and undoing it brings back every bit.

    An int8 base rounds what goes into its layers to 8 bits, a merged one no longer does: its merged weights are held
    against unmerged layers of the same values that do not round either, in `check_file`.

    Returns:
        How far they lie apart, relative; None where the method has nothing to merge, and is refused.
    """
    if not trial.is_mergeable:
        _require_unmergeable(trial)
        return None
    before, unmerged = state_of(trial.live), trial.logits()
    with merge(trial.carrier, dtype=torch.float32):
        error = apart(trial.logits(), unmerged)
        bound = INT8_ROUNDING if trial.row.quant == "int8" else CLOSE
        _require(error <= bound, f"Merged outputs are {error:.1e} from unmerged ones.")
        check_delta(trial, adapter)
    after = state_of(trial.live)
    same = after.keys() == before.keys() and all(torch.equal(after[name], tensor) for name, tensor in before.items())
    _require(same and torch.equal(trial.logits(), unmerged), "Undoing the merge does not bring back what was there.")
    return error


def _require_unmergeable(trial: Trial) -> None:
    try:
        merge(trial.carrier)
    except MergeError as err:
        _require("must be a PEFT model whose adapter changes weights" in str(err), f"Merging is refused with {str(err)!r}.")
    else:
        raise ClaimError("It has nothing to merge, and merges.")


def check_file(trial: Trial, adapter: Adapter) -> None:
    """What was saved, on a fresh base in plain PEFT, gives the same logits; its file holds the same ΔW; unloaded, it is merged."""
    expected = trial.logits()
    loaded = trial.load(fresh(trial.family, trial.row.quant))
    error = apart(trial.logits(loaded), expected)
    _require(error <= (0.0 if trial.start is None else CLOSE), f"Loaded, its outputs are {error:.1e} from those saved.")
    _check_same(load_adapter(trial.folder / "adapter", base=base_weights(trial.family)), adapter)
    if trial.is_mergeable and trial.carrier is trial.live:
        if trial.row.quant == "int8":
            expected = trial.logits(trial.load(dequantized(fresh(trial.family, trial.row.quant))))
        merged = unload_merged(loaded)
        left = [name for name, module in merged.named_modules() if isinstance(module, BaseTunerLayer) or bits_of(module)]
        _require(not left, f"Unloaded, it still has PEFT's or a quantized layer: {min(left, default='')}.")
        error = apart(trial.logits(merged), expected)
        _require(error <= CLOSE, f"Unloaded, its outputs are {error:.1e} from unmerged ones.")


def _check_same(found: Adapter, expected: Adapter) -> None:
    _require(found.keys() == expected.keys(), "The file holds the ΔW of other matrices than the live model.")
    for name, delta in expected.items():
        error = apart(found[name].dense(), delta.dense())
        _require(error <= CLOSE, f"ΔW of {name} in the file is {error:.1e} from the live one.")
