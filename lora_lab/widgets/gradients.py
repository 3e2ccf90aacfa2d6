"""Gradients: how they reach A and B in the first steps, and what the chain rule says of them."""

from dataclasses import replace
from typing import TYPE_CHECKING

import ipywidgets
import plotly.graph_objects as go

from lora_lab.analysis.records import ChainRule, FirstGradient
from lora_lab.benches import find_bench
from lora_lab.budget.counts import targeted
from lora_lab.errors import SpecError, out_of_range
from lora_lab.inference import chain_rule_of, first_gradients_of
from lora_lab.plots import GradientLine, gradient_caption, gradient_flow, labels_of, questions, rule_caption
from lora_lab.plots.choices import ALPHAS
from lora_lab.plots.html_parts import question, say
from lora_lab.plots.rule_table import chain_rule_table
from lora_lab.roles import matrix_label
from lora_lab.specs import METHODS, MethodSpec, RunSpec, resolve_alpha
from lora_lab.training import plan_run
from lora_lab.widgets.controls import NUMBER, Field, Targets, menu, offer, slider
from lora_lab.widgets.panel import Answer, Panel, card

if TYPE_CHECKING:
    from peft import LoraConfig

_METHODS, _STARTS = ("lora", "rslora", "dora"), ("default", "gaussian", "orthogonal", "pissa", "olora")
_MOST_R, _MOST_STEPS = 64, 60


class Gradients(Panel):
    """‖∂L/∂A‖ and ‖∂L/∂B‖ of the first steps, and the chain rule of one matrix before the first.

    Controls: method, r, alpha, targets, init (the start values of A and B), lr, steps, seed, matrix.

    Args:
        bench: as for `ll.train`.
        spec: what is attached.
        steps: how many first steps.
        seed: of the start values and the batches.
        lr: the learning rate; the bench's and the method's own where None.

    Raises:
        LabError: no such bench, or a value out of range.
    """

    def __init__(
        self,
        bench: str = "digits",
        spec: "MethodSpec | LoraConfig" = MethodSpec(),  # noqa: B008 (frozen)
        *,
        steps: int = 8,
        seed: int = 0,
        lr: float | None = None,
    ) -> None:
        self._bench = find_bench(bench)
        self._geometry = self._bench.geometry()
        plan = plan_run(self._bench, spec, geometry=self._geometry, steps=steps, seed=seed, learning_rate=lr)
        self._spec, adapted = plan.tuning, self._adapted(plan)
        self._build_method(plan.tuning)
        self.lr = Field("learning rate", lr, NUMBER, hint=f"{plan.learning_rate:g}")
        self.steps = slider("steps", steps, least=1, most=_MOST_STEPS, live=False)
        self.seed = slider("seed", seed, least=0, most=9, live=False)
        self.matrix = menu("matrix", adapted, adapted[-1][1])
        self._flow = Answer(*questions.FLOW)
        self._table, self._rule_says = ipywidgets.HTML(), ipywidgets.HTML()
        title = ipywidgets.HTML(question(*questions.RULE))
        rule = card(title, self.matrix, self._table, self._rule_says)
        self.records: tuple[FirstGradient, ...] = ()
        controls = [self.method, self.r, self.alpha, self.targets, self.init, self.lr, self.steps, self.seed]
        super().__init__(controls, [self._flow, rule], moves=[*controls, self.matrix])

    def _build_method(self, tuning: MethodSpec) -> None:
        self.method = menu("method", [(METHODS[name].label, name) for name in _METHODS], tuning.method)
        self.r = slider("r", tuning.r, least=1, most=_MOST_R, live=False)
        self.alpha = menu("alpha", ALPHAS, tuning.lora_alpha)
        self.targets = Targets(self._geometry, tuning.targets, r=tuning.r)
        self.init = menu("start values", _STARTS, tuning.init_lora_weights)

    def _adapted(self, plan: RunSpec) -> list[tuple[str, str]]:
        """The matrices that have A and B, at least one.

        Raises:
            SpecError: the method names none.
        """
        adapted = targeted(self._geometry, plan.tuning)
        if not adapted:
            raise SpecError(out_of_range("method", "Gradients", "one that adapts matrices, such as lora", plan.tuning.method))
        return [(matrix_label(m.name), m.name) for m in adapted]

    @property
    def spec(self) -> MethodSpec:
        """The method that the controls give.

        Raises:
            SpecError: no matrix is targeted.
        """
        return replace(
            self._spec,
            method=self.method.value,
            r=self.r.value,
            lora_alpha=resolve_alpha(self.alpha.value, self.r.value),
            target_modules=self.targets.chosen(),
            init_lora_weights=self.init.value,
        )

    @property
    def plan(self) -> RunSpec:
        """The run whose first steps these are.

        Raises:
            LabError: a field cannot be read, or the core refuses the controls.
        """
        settings = {"steps": self.steps.value, "seed": self.seed.value, "learning_rate": self.lr.chosen()}
        return plan_run(self._bench, self.spec, geometry=self._geometry, **settings)

    @property
    def rule(self) -> ChainRule:
        """The chain rule of the chosen matrix before the first step.

        Raises:
            LabError: the base's weights have no gradient, or the core refuses the controls.
        """
        return chain_rule_of(self.plan, self.matrix.value)

    def figure(self) -> go.Figure:
        """The two gradients by optimizer step."""
        return gradient_flow([_line(self.plan)])

    def _draw(self) -> None:
        plan = self.plan
        adapted = self._adapted(plan)
        offer(self.matrix, adapted, otherwise=adapted[-1][1])
        self.targets.show(self._geometry, r=self.r.value)
        line = _line(plan)
        self.records = first_gradients_of(plan)
        self._flow.show(gradient_flow([line]), gradient_caption([line]))
        rule = self.rule
        self._table.value = chain_rule_table([("before the first step", rule)])
        self._rule_says.value = say(rule_caption([rule]))


def _line(plan: RunSpec) -> GradientLine:
    return GradientLine(labels_of([plan])[0], first_gradients_of(plan), plan.seed)
