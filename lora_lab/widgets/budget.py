"""Budget: what a configuration costs, before anything runs."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_args

import ipywidgets
import plotly.graph_objects as go

from lora_lab.budget import Budget as Made
from lora_lab.budget import Card, Model, budget, cards, cheapest_change, find_card, find_model, model_names, suited_quant, versus
from lora_lab.budget.sentences import budget_sentence, counter_sentence
from lora_lab.plots.budget_bill import budget_bill
from lora_lab.plots.budget_tiles import tiles
from lora_lab.plots.choices import ALPHAS
from lora_lab.plots.html_parts import say
from lora_lab.specs import METHODS, AdapterDtype, Attention, Dtype, MethodSpec, Optimizer, Quant, StepSpec, resolve_alpha
from lora_lab.widgets.controls import Targets, menu, more, slider
from lora_lab.widgets.panel import Answer, Panel

if TYPE_CHECKING:
    from peft import LoraConfig

_MOST_R, _MOST_BATCH, _MOST_SEQ = 256, 64, 16384


class Budget(Panel):
    """The ledger of a step as bars against a card, the matrices of a block with A and B on them, and whether it fits.

    Controls: model, method, r, alpha, targets, batch, seq, dtype, quant, gpu, and optimizer, attention, adapter_dtype,
    checkpointing, fused_loss, kbit_prepare under "More".

    Args:
        model: as for `ll.budget`.
        spec: as for `ll.budget`; what no control has, such as dropout and layers, stays as it is here.
        gpu: a card by name, or a size such as 24GB.
        step: batch, seq, dtype and the other fields of StepSpec.

    Raises:
        LabError: no such model or card, or a value out of range.

    >>> from lora_lab.specs import LoraSpec
    >>> costs = Budget("llama-3.2-3b", LoraSpec(r=8), batch=4)
    >>> costs.r.value = 32
    >>> f"{costs.budget.trainable_params:,}"
    '9,175,040'
    """

    def __init__(
        self,
        model: str | Model = "llama-3.2-3b",
        spec: "MethodSpec | LoraConfig | str" = "lora",
        *,
        gpu: str = "rtx-4090",
        **step: Any,
    ) -> None:
        made = budget(model, spec, **step)
        self._models = {made.model.name: made.model}
        self._spec, self._method_before = made.spec, made.spec.method
        self._build_method(made)
        self._build_step(made.step)
        self.gpu = menu("card", [card.name for card in cards()], find_card(gpu).name)
        self._tiles = ipywidgets.HTML()
        about = "at the peak of one step; the hatched end is the CUDA context and fragmentation, an estimate"
        self._answer = Answer("Where does the memory go?", about)
        rare = [self.optimizer, self.attention, self.adapter_dtype, self.checkpointing, self.fused_loss, self.kbit_prepare]
        common = [self.model, self.method, self.r, self.alpha, self.targets, self.batch, self.seq, self.dtype, self.quant, self.gpu]
        self._sentence = ipywidgets.HTML()
        answers = [self._tiles, self._sentence, self._answer]
        super().__init__([*common, more("More", rare)], answers, moves=[*common, *rare])

    def _build_method(self, made: Made) -> None:
        spec = made.spec
        self.model = menu("model", model_names(), made.model.name)
        self.method = menu("method", [(info.label, name) for name, info in METHODS.items()], spec.method)
        self.r = slider("r", spec.r, least=1, most=_MOST_R)
        self.alpha = menu("alpha", ALPHAS, spec.lora_alpha)
        self.targets = Targets(made.model.geometry, spec.targets, r=spec.r)

    def _build_step(self, step: StepSpec) -> None:
        self.batch = slider("batch", step.batch, least=1, most=_MOST_BATCH)
        self.seq = slider("sequence", step.seq, least=16, most=_MOST_SEQ, step=16)
        choices = {"dtype": Dtype, "quant": Quant, "optimizer": Optimizer, "attention": Attention, "adapter_dtype": AdapterDtype}
        for name, allowed in choices.items():
            setattr(self, name, menu(name.replace("_", " "), get_args(allowed), getattr(step, name)))
        for name in ("checkpointing", "fused_loss", "kbit_prepare"):
            setattr(self, name, ipywidgets.Checkbox(getattr(step, name), description=name.replace("_", " "), indent=False))

    @property
    def spec(self) -> MethodSpec:
        """The method that the controls give.

        Raises:
            SpecError: no matrix is targeted.
        """
        takes_targets = METHODS[self.method.value].has_targets
        return replace(
            self._spec,
            method=self.method.value,
            r=self.r.value,
            lora_alpha=resolve_alpha(self.alpha.value, self.r.value),
            target_modules=self.targets.chosen() if takes_targets else (),
        )

    @property
    def budget(self) -> Made:
        """What `ll.budget` gives for the controls.

        Raises:
            LabError: it refuses them.
        """
        return budget(self._model(), self.spec, **{f.name: getattr(self, f.name).value for f in fields(StepSpec)})

    def figure(self) -> go.Figure:
        """The ledger as bars against the card, beside other ways to train."""
        return _figure(self.budget, find_card(self.gpu.value))

    def _model(self) -> Model:
        name = self.model.value
        if name not in self._models:
            self._models[name] = find_model(name)
        return self._models[name]

    def _draw(self) -> None:
        self._suit_method()
        model = self._model()
        self.targets.show(model.geometry, r=self.r.value)
        made, card = self.budget, find_card(self.gpu.value)
        self._tiles.value = tiles(made, card, cheapest_change(made, card))
        self._sentence.value = say(" ".join([budget_sentence(made), *made.notes]))
        self._answer.show(_figure(made, card), counter_sentence(made))

    def _suit_method(self) -> None:
        """What r means, and whether there are targets; with another method how the base is kept, and which matrices are its own."""
        method, before = self.method.value, self._method_before
        self._method_before, info = method, METHODS[method]
        self.r.description, self.r.disabled = _r_title(info.r_is), not info.r_is
        self.targets.layout.display = None if info.has_targets else "none"
        if method == before:
            return
        self.quant.value = suited_quant(method, self.quant.value, before=before)
        if info.has_targets and self.targets.value in ((), METHODS[before].default_targets):
            self.targets.value = info.default_targets


def _r_title(r_is: str) -> str:
    return "r" if r_is == "rank" else r_is or "no rank"


def _figure(made: Made, card: Card) -> go.Figure:
    return budget_bill({name: one.ledger for name, one in versus(made).items()}, card)
