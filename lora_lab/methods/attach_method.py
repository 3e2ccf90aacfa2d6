"""Any method on a model, on whatever device it lies: PEFT's through PEFT, the others by hand."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from lora_lab.errors import SpecError
from lora_lab.geometry import Geometry
from lora_lab.live_geometry import read_geometry
from lora_lab.methods.bottleneck import add_bottlenecks
from lora_lab.methods.eva import Batch, read_eva_start
from lora_lab.methods.method_config import PEFT_METHODS, method_config
from lora_lab.methods.refusals import refuse_unfit
from lora_lab.methods.start import attaching, draw_start
from lora_lab.random_key import key_of
from lora_lab.roles import Role, layer_of, stack_of
from lora_lab.specs import COMBINED, METHODS, MethodSpec

# What PEFT raises where a base or a config does not suit it.
PEFT_ERRORS = (AttributeError, ImportError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
_BENEATH = "lora_lab_beneath"
_PLACES: dict[str, tuple[Role, ...]] = {"adapter": ("o", "down"), "adapter_pfeiffer": ("down",)}


def attach_method(
    model: nn.Module,
    spec: MethodSpec,
    *,
    seed: int | None = None,
    adapter_dtype: torch.dtype | None = None,
    head_modules: Iterable[str] = (),
    task_type: str | None = None,
    batches: Sequence[Batch] = (),
    total_steps: int | None = None,
) -> nn.Module:
    """The model with the method on it; what the method and the head train, and nothing else, requires gradients.

    `model` is changed in place: give a fresh one. QLoRA and LoRA+ attach as LoRA does, the one's base being quantized
    before and the other's learning rates being the optimizer's.

    Args:
        model: a base on any device, `meta` included.
        spec: the method.
        seed: keys every start value, of a head too; drawn from the global stream where it is left out.
        adapter_dtype: of the parameters that the method adds; float32 where it is left out, as PEFT does.
        head_modules: modules trained in full beside the method.
        task_type: PEFT's name of the task; told by the model where it is left out and the method needs one.
        batches: what EVA reads its start values from.
        total_steps: optimizer steps of the run, over which AdaLoRA plans its cuts.

    Raises:
        SpecError: the base cannot take the method.
    """
    geometry, heads = read_geometry(model), tuple(head_modules)
    refuse_unfit(model, geometry, spec)
    with attaching(spec, seed):
        live = _attach(model, geometry, spec, _Wish(adapter_dtype, heads, task_type, total_steps, seed))
    if seed is not None:
        draw_start(live, spec, seed=seed, heads=heads)
    if spec.init_lora_weights == "eva" and not _on_meta(model):
        read_eva_start(live, spec, batches)
    return live


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is wanted beside the method."""

    adapter_dtype: torch.dtype | None
    heads: tuple[str, ...]
    task_type: str | None
    total_steps: int | None
    seed: int | None


def _attach(model: nn.Module, geometry: Geometry, spec: MethodSpec, wish: _Wish) -> nn.Module:
    if spec.method in COMBINED:
        combined: nn.Module = _attach_combined(model, geometry, spec, wish)
        return combined
    if spec.method in PEFT_METHODS:
        peft_model: nn.Module = _attach_with_peft(model, geometry, spec, wish)
        return peft_model
    if spec.method in _PLACES:
        roles, dtype = _PLACES[spec.method], wish.adapter_dtype or torch.float32
        add_bottlenecks(model, geometry, roles, r=spec.r, layers=spec.layers_to_transform, dtype=dtype)
    else:
        trained = _trained_in_place(model, geometry, spec)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
    for head in wish.heads:
        model.get_submodule(head).requires_grad_(True)
    return model


def _attach_combined(model: nn.Module, geometry: Geometry, spec: MethodSpec, wish: _Wish) -> PeftModel:
    """LoRA in the layers first, then virtual tokens before the text; `beneath` tells the former from the latter."""
    lora, tokens = spec.parts()
    lower = _attach_with_peft(model, geometry, lora, wish)
    trained = [p for p in lower.parameters() if p.requires_grad]
    inner = lower.get_base_model()
    upper = _attach_with_peft(inner, geometry, tokens, replace(wish, heads=()))
    for parameter in trained:  # a method of virtual tokens freezes all that it finds
        parameter.requires_grad_(True)
    upper.__dict__[_BENEATH] = lower  # not as a submodule: its parameters are upper's already
    return upper


def beneath(model: nn.Module) -> PeftModel | None:
    """The LoRA model under one of virtual tokens, where the method is both."""
    lower: PeftModel | None = model.__dict__.get(_BENEATH)
    return lower


def _trained_in_place(model: nn.Module, geometry: Geometry, spec: MethodSpec) -> set[str]:
    """The base's own parameters that full fine-tuning, `partial` or `bitfit` trains, a task head left out."""
    names = {name for name, _ in model.named_parameters() if not _lies_in(name, geometry.task_heads)}
    if spec.method == "full":
        return names
    if spec.method == "partial":
        stacks = geometry.top_layers(spec.r, spec.layers_to_transform)
        return {name for name in names if stack_of(name) in stacks}
    layers = spec.layers_to_transform
    return {name for name in names if "bias" in name.rsplit(".", 1)[-1] and (layers is None or layer_of(name) in layers)}


def _lies_in(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _attach_with_peft(model: nn.Module, geometry: Geometry, spec: MethodSpec, wish: _Wish) -> PeftModel:
    own = {id(parameter) for parameter in model.parameters()}
    needs_task = spec.method in ("prefix", "preembed")
    task = wish.task_type or (_task_of(model, geometry) if needs_task else None)
    config = method_config(
        geometry,
        spec,
        task_type=task,
        head_modules=wish.heads,
        total_steps=wish.total_steps,
        projection_prng_key=None if wish.seed is None else key_of("projections", wish.seed, spec.r),
    )
    if _on_meta(model) and isinstance(config, LoraConfig):
        config.init_lora_weights = True  # no start value changes a shape, and some read the weights
    peft_model = attach_peft(model, config)
    _refuse_other_targets(peft_model, geometry, spec)
    _freeze_unasked(peft_model, own, task_heads=geometry.task_heads, heads=wish.heads)
    if wish.adapter_dtype is not None:
        _cast_added(peft_model, wish.adapter_dtype, own)
    return peft_model


def _on_meta(model: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in model.parameters())


@contextmanager
def quiet_peft() -> Iterator[None]:
    """A block in which PEFT attaches or loads without warnings that say nothing here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # LN tuning asks a norm for its in_features
        # it looks for patterns of rank among modules alone, where experts are parameters
        warnings.filterwarnings("ignore", message=r"The following (rank|alpha)_pattern keys did not match")
        # the base lies in memory already
        warnings.filterwarnings("ignore", message="lora with eva initialization used with low_cpu_mem_usage=False")
        warnings.filterwarnings("ignore", message="You are trying to modify a model with PEFT for a second time")
        yield


def attach_peft(model: nn.Module, config: PeftConfig) -> PeftModel:
    """The model with what a PEFT config says on it; PEFT's own reason where it cannot, as one sentence.

    Raises:
        SpecError: PEFT refuses.
    """
    on_meta = _on_meta(model)
    try:
        with quiet_peft():
            peft_model: PeftModel = get_peft_model(model, config, low_cpu_mem_usage=on_meta)
    except PEFT_ERRORS as err:
        reason = str(err).strip().split("\n", 1)[0].rstrip(".")
        if on_meta and "meta" in reason:
            reason = "it reads the weights of the base, and on the meta device there are none"
        raise SpecError(f"PEFT attaches no {config.peft_type.value} to {type(model).__name__}: {reason}.") from err
    for name, parameter in peft_model.named_parameters():
        if ".ranknum." in name:  # AdaLoRA's count of its ranks, which PEFT forgets to freeze on the meta device
            parameter.requires_grad_(False)
    return peft_model


def _task_of(model: nn.Module, geometry: Geometry) -> str:
    if geometry.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    return "CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else "FEATURE_EXTRACTION"


def _refuse_other_targets(peft_model: PeftModel, geometry: Geometry, spec: MethodSpec) -> None:
    """PEFT renames targets of a mixture of experts from before transformers 5, and may then adapt others than were named."""
    tuner = peft_model.base_model
    if not (METHODS[spec.method].has_targets and isinstance(tuner, BaseTuner)):
        return
    wanted = {m.name for m in geometry.targeted(spec.targets, spec.layers_to_transform)}
    strays = wanted ^ {*tuner.targeted_module_names, *tuner.targeted_parameter_names}
    if strays:
        raise SpecError(f"PEFT adapts other modules of {type(peft_model.get_base_model()).__name__} than named: {min(strays)}.")


def _freeze_unasked(peft_model: PeftModel, own: set[int], *, task_heads: tuple[str, ...], heads: tuple[str, ...]) -> None:
    """PEFT trains a task head by its task_type, asked or not, and with bias="all" the biases of a head's frozen original."""
    for name, parameter in peft_model.get_base_model().named_parameters():
        is_original = id(parameter) in own and _lies_in(name, task_heads)
        is_unasked_copy = ".modules_to_save." in name and not _lies_in(name, heads)
        if is_original or is_unasked_copy:
            parameter.requires_grad_(False)


def _cast_added(model: nn.Module, dtype: torch.dtype, own: set[int]) -> None:
    """What the method adds, in another precision; copies of the base's own modules stay as the base is."""
    for name, parameter in model.named_parameters():
        is_copy = "modules_to_save" in name or "ln_tuning_layers" in name
        if parameter.requires_grad and id(parameter) not in own and not is_copy:
            parameter.data = parameter.data.to(dtype)
