"""One configuration and all that it costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from lora_lab.budget.activations import DTYPE_BYTES
from lora_lab.budget.cards import Card, cards
from lora_lab.budget.counts import Term, count_terms, head_params
from lora_lab.budget.files import adapter_file_bytes, disk_for_tasks_bytes
from lora_lab.budget.formula import formula, peak_moment
from lora_lab.budget.ledger import Ledger
from lora_lab.budget.models import Model, find_model
from lora_lab.budget.notes import notes
from lora_lab.errors import SpecError
from lora_lab.specs import IN_PLACE, METHODS, MethodSpec, Quant, StepSpec

if TYPE_CHECKING:
    from peft import LoraConfig

Source = Literal["formula", "trace"]


@dataclass(frozen=True, slots=True)
class Attached:
    """What PEFT attached from a config file, counted on the meta device."""

    peft_type: str
    trainable_params: int
    head_params: int


@dataclass(frozen=True)
class Budget:
    """What a method on a model costs in parameters, on disk and in a card's memory."""

    model: Model
    spec: MethodSpec
    step: StepSpec
    ledger: Ledger
    source: Source = "formula"
    attached: "Attached | None" = None

    @property
    def method(self) -> str:
        """The method's name; of a config file, PEFT's name of its type."""
        return self.attached.peft_type if self.attached else self.spec.method

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The count of the method, term by term, a task head left out."""
        return count_terms(self.model.geometry, self.spec)

    @cached_property
    def head_params(self) -> int:
        """Parameters of a task head, which every method trains in full beside its own."""
        geometry = self.model.geometry
        return self.attached.head_params if self.attached else head_params(geometry, geometry.task_heads)

    @cached_property
    def trainable_params(self) -> int:
        """All that is trained, the head included, as PEFT counts it."""
        if self.attached:
            return self.attached.trainable_params
        return sum(term.params for term in self.terms) + self.head_params

    @property
    def total_params(self) -> int:
        """Parameters of the base."""
        return self.model.geometry.total_params

    @property
    def trainable_share(self) -> float:
        """Trained parameters as a share of the base's."""
        return self.model.geometry.share_of(self.trainable_params)

    @cached_property
    def adapter_file_bytes(self) -> int:
        """The file that is kept of a run."""
        if self.attached:
            return DTYPE_BYTES[self.step.adapter_dtype] * self.trainable_params
        own_type = DTYPE_BYTES[self.step.dtype if self.spec.method in ("full", "partial") else self.step.adapter_dtype]
        return adapter_file_bytes(self.model.geometry, self.spec, self.step) + own_type * self.head_params

    @property
    def model_file_bytes(self) -> int:
        """The base's weights on disk, 16-bit unless it is kept in fp32."""
        return DTYPE_BYTES[self.step.dtype] * self.total_params

    def disk_bytes(self, tasks: int) -> tuple[int, int]:
        """(a full model for every task, one model and an adapter for every task)."""
        return disk_for_tasks_bytes(self.model_file_bytes, self.adapter_file_bytes, tasks)

    @cached_property
    def peak_moment(self) -> str:
        """When the peak is: at the loss, in the backward, or in the optimizer's step."""
        return peak_moment(self.model.geometry, self.spec, self.step).removeprefix("last ")

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know beside the numbers, a sentence each."""
        return tuple(notes(self.model, self.spec, self.step, attached=self.attached is not None))

    def fits(self, card: Card) -> bool:
        """Whether the peak with context and fragmentation is within a card."""
        return self.ledger.on_card <= card.memory_bytes

    @property
    def fitting(self) -> dict[str, bool]:
        """Every card of the catalogue, and whether this fits it."""
        needed = self.ledger.on_card
        return {card.name: needed <= card.memory_bytes for card in cards()}

    def to_json(self) -> dict[str, Any]:
        """The document of `lora-lab budget --json`."""
        return {
            "model": self.model.name,
            "method": self.method,
            "trainable_params": self.trainable_params,
            "head_params": self.head_params,
            "total_params": self.total_params,
            "adapter_file_bytes": self.adapter_file_bytes,
            "source": self.source,
            "vram_bytes": self.ledger.to_json(),
            "fits": self.fitting,
            "targets": [] if self.attached else list(self.spec.targets),
            "notes": list(self.notes),
        }


def budget(
    model: str | Model,
    spec: "MethodSpec | LoraConfig | str" = "lora",
    *,
    trace: bool = False,
    **step: Any,
) -> Budget:
    """What a configuration costs, by formula and at once, or by a trace of two steps in seconds.

    Args:
        model: a name of the catalogue, a config.json, a folder, a Hub id, or a Model.
        spec: a MethodSpec (LoraSpec writes one), a peft.LoraConfig, or a method's name with its defaults.
        trace: run two steps of the real model on the meta device instead (loads torch, transformers and PEFT).
        step: the fields of StepSpec: batch, seq, dtype, quant, adapter_dtype, optimizer, checkpointing, attention, …

    Raises:
        SpecError: a value that is not allowed, or a method that finds nothing in the base.
        DataError, AssetError: a model that cannot be had.

    >>> budget("llama-3.2-3b", MethodSpec(r=32, target_modules=("q_proj", "v_proj")), batch=4, seq=750).trainable_params
    9175040
    """
    found = model if isinstance(model, Model) else find_model(model)
    method, training = _method(spec), _training(spec, step)
    if found.geometry.image_tokens:  # an image is as long as it is
        training = replace(training, seq=found.geometry.image_tokens)
    _refuse_quantized(method, training)
    if not trace:
        return Budget(found, method, training, formula(found.geometry, method, training))
    from lora_lab.budget.trace import trace as traced  # noqa: PLC0415 (loads torch)

    return Budget(found, method, training, traced(found, method, training), source="trace")


def suited_quant(method: str, quant: Quant, *, before: str) -> Quant:
    """How the base is kept when another method is chosen: QLoRA brings its NF4, who trains the base takes it whole.

    >>> suited_quant("qlora", "none", before="lora"), suited_quant("lora", "nf4-dq", before="qlora")
    ('nf4-dq', 'none')
    """
    if method == "qlora" and quant == "none":
        return "nf4-dq"
    left_qlora = before == "qlora" and method != "qlora"
    return "none" if method in IN_PLACE or left_qlora else quant


def budget_of_config(model: str | Model, config_file: str, **step: Any) -> Budget:
    """The cost of any PeftConfig file: attached on the meta device, counted there, and traced.

    Raises:
        SpecError: no config that PEFT knows, or one that this base cannot take.
    """
    from lora_lab.budget.trace import trace_attached  # noqa: PLC0415 (loads torch)
    from lora_lab.methods import attach_config, trainable_params  # noqa: PLC0415

    found = model if isinstance(model, Model) else find_model(model)
    training = StepSpec(**step)
    ledger, live = trace_attached(found, lambda base: attach_config(base, config_file), training)
    kind = str(live.peft_config["default"].peft_type.value).lower()  # type: ignore[index,union-attr]
    return Budget(found, MethodSpec(), training, ledger, source="trace", attached=Attached(kind, *trainable_params(live)))


def _method(spec: "MethodSpec | LoraConfig | str") -> MethodSpec:
    if isinstance(spec, str):
        return MethodSpec(method=spec)
    if isinstance(spec, MethodSpec):
        return spec
    from lora_lab.methods import from_peft  # noqa: PLC0415 (loads PEFT, whose config it is)

    return from_peft(spec)


def _refuse_quantized(method: MethodSpec, step: StepSpec) -> None:
    if method.method in IN_PLACE and step.quant != "none":
        label = METHODS[method.method].label
        raise SpecError(f"The quant of a base whose own weights are trained ({label}) must be none. Got {step.quant!r}.")


def _training(spec: object, step: Mapping[str, Any]) -> StepSpec:
    """QLoRA means a base in NF4, quantized twice, where nothing else is said."""
    training = StepSpec(**step)
    is_qlora = spec == "qlora" or (isinstance(spec, MethodSpec) and spec.method == "qlora")
    return replace(training, quant="nf4-dq") if is_qlora and "quant" not in step else training
