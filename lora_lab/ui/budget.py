"""Budget: what a configuration costs, before anything runs. No model is loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gradio as gr

from lora_lab.budget import (
    Budget,
    Card,
    Model,
    budget,
    cards,
    cheapest_change,
    equal_lines,
    find_card,
    find_model,
    grid,
    model_names,
    most_that_fits,
    ranks_for_params,
    suited_quant,
    versus,
)
from lora_lab.budget.code import peft_code, training_code
from lora_lab.budget.paper import paper_figures, table_5, table_6
from lora_lab.errors import LabError, SpecError
from lora_lab.plots.budget_map import budget_map
from lora_lab.specs import METHODS, MethodSpec, Quant, parse_layers, resolve_alpha
from lora_lab.ui import budget_html, html
from lora_lab.ui.errors import user_errors
from lora_lab.ui.place import Place
from lora_lab.ui.selection import ALPHAS, Selection
from lora_lab.units import count, gigabytes

QUANTS = (("16-bit base", "none"), ("int8", "int8"), ("NF4", "nf4"), ("NF4, double", "nf4-dq"))
OPTIMIZERS = (
    ("AdamW", "adamw"),
    ("AdamW 8-bit", "adamw8bit"),
    ("paged 8-bit", "paged-adamw8bit"),
    ("Adafactor", "adafactor"),
    ("SGD", "sgd"),
)
OPTIONS = (
    ("checkpointing", "checkpointing"),
    ("fused loss", "fused_loss"),
    ("bf16 adapters", "bf16_adapters"),
    ("dropout 0.1", "dropout"),
    ("k-bit preparation", "kbit_prepare"),
)
_RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
_CHOICES = (("q",), ("v",), ("q", "v"), ("q", "k", "v", "o"), ("gate", "up", "down"), ("all-linear",))
_MOST_R, _MOST_BATCH, _MOST_SEQ = 256, 64, 16384


class BudgetView(Place):
    """Controls on the left, answers on the right; every answer is the core's."""

    name = "Budget"

    def _build_controls(self) -> None:
        start = Selection()
        chips = {"elem_classes": "lab-chips"}
        self.model = gr.Dropdown(list(model_names()), value=start.model, label="Model", allow_custom_value=True, elem_id="model")
        methods = [(info.label, name) for name, info in METHODS.items()]
        self.method = gr.Radio(methods, value=start.method, label="Method", elem_id="method", **chips)
        self.rank = gr.Slider(1, _MOST_R, value=start.rank, step=1, label="Rank r", elem_id="rank")
        self.alpha = gr.Radio(
            list(ALPHAS), value=start.alpha, label="Scaling numerator α", elem_classes="lab-chips", elem_id="alpha"
        )
        self.block = gr.HTML(js_on_load=html.PICK_JS, elem_id="block")
        self.layers = gr.Textbox(start.layers, label="Layers", placeholder="all, or 0-5,8", elem_id="layers", max_lines=1)
        self.batch = gr.Slider(1, _MOST_BATCH, value=start.batch, step=1, label="Batch", elem_id="batch")
        self.seq = gr.Slider(64, _MOST_SEQ, value=start.seq, step=64, label="Sequence", elem_id="seq")
        self.dtype = gr.Radio(["bf16", "fp16", "fp32"], value=start.dtype, label="Type", elem_id="dtype", **chips)
        self.quant = gr.Radio(list(QUANTS), value=start.quant, label="Base", elem_id="quant", **chips)
        self.optimizer = gr.Radio(list(OPTIMIZERS), value=start.optimizer, label="Optimizer", elem_id="optimizer", **chips)
        self.attention = gr.Radio(
            ["sdpa", "flash", "eager"], value=start.attention, label="Attention", elem_id="attention", **chips
        )
        self.options = gr.CheckboxGroup(list(OPTIONS), value=[], label="Step", elem_id="options", **chips)
        self.card = gr.Dropdown(
            [card.name for card in cards()], value=start.card, label="Card", elem_id="card", allow_custom_value=True
        )

    def _build_answers(self) -> None:
        self.answers = gr.HTML(elem_id="answers")
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(
                html.question(
                    "What does each rank on each choice cost?",
                    "LoRA's kin, a cell a configuration; left of a line is within its cost",
                )
            )
            self.shade = gr.Radio(
                [("parameters", "params"), ("peak memory", "vram")],
                value="params",
                show_label=False,
                elem_classes="lab-chips",
                elem_id="shade",
            )
            self.map = gr.Plot(show_label=False, elem_classes="lab-plot", elem_id="budget-map")
        with gr.Row(elem_classes="lab-cards"):
            with gr.Column(elem_classes="lab-card"):
                self.equal = gr.HTML()
                label = "Parameters to spend; 0: as many as this one"
                self.params = gr.Number(0, precision=0, minimum=0, label=label, elem_id="params")
            with gr.Column(elem_classes="lab-card"):
                self.largest = gr.HTML()
        with gr.Row(elem_classes="lab-cards"):
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("Take it with you", "the same configuration in PEFT"))
                self.code = gr.Code(language="python", show_label=False, elem_id="code", lines=8)
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(html.question("How is the base loaded, and the step run?", "for transformers"))
                self.training = gr.Code(language="python", show_label=False, elem_id="training", lines=8)
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(
                html.question(
                    "Is the formula right?", "a trace runs two steps of the real model on the meta device: seconds, no weights"
                )
            )
            self.check = gr.Button("Trace it", elem_classes="lab-stop", elem_id="trace", min_width=100)
            self.traced = gr.HTML()
            self.terms = gr.HTML()
        with gr.Column(elem_classes="lab-card"):
            gr.HTML(budget_html.paper_table(paper_figures()))

    def _wire(self, page: gr.Blocks) -> None:
        controls = [self.model, self.method, self.rank, self.alpha, self.layers, self.batch, self.seq, self.dtype]
        controls += [self.quant, self.optimizer, self.attention, self.options, self.card, self.shade, self.params]
        numbers = [self.selection, self.block, self.answers]  # few: every output costs the browser some milliseconds
        more = [self.header, self.map, self.equal, self.largest, self.code, self.training, self.terms, self.traced]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        shown = page.load(self.restore, None, [self.selection, self.rank, *controls], **quiet)
        shown = shown.then(self.show, self.selection, numbers, **quiet)
        shown.then(self.show_more, self.selection, more, **quiet)
        moved = (self.rank, self.alpha, self.batch, self.seq, self.dtype, self.quant, self.optimizer, self.attention, self.options)
        events = [*(control.input for control in (*moved, self.model, self.card, self.shade)), self.layers.submit, self.layers.blur]
        events += [self.params.submit, self.params.blur]
        for event in events:
            told = event(self.choose, [self.selection, *controls], numbers, trigger_mode="always_last", queue=False, **quiet)
            told.then(self.show_more, self.selection, more, trigger_mode="always_last", **quiet)
        suited = [self.selection, self.rank, self.quant]
        turned = self.method.input(self.choose_method, [self.selection, *controls], suited, **quiet)
        turned.then(self.show, self.selection, numbers, **quiet).then(self.show_more, self.selection, more, **quiet)
        picked = self.block.click(self.pick_target, self.selection, numbers, queue=False, **quiet)
        picked.then(self.show_more, self.selection, more, **quiet)
        self.check.click(self.trace, self.selection, self.traced, concurrency_limit=1, show_progress="minimal", api_name="trace")

    # Handlers: each reads controls, asks the core, and returns what its outputs show.

    def restore(self, request: gr.Request) -> list[Any]:
        """The selection that the address names, into state and controls."""
        s = Selection.from_query(dict(request.query_params))
        s = replace(s, method=s.method if s.method in METHODS else "lora")
        rank = gr.Slider(label=_rank_label(s.method), interactive=bool(METHODS[s.method].r_is))
        values = [s.model, s.method, s.rank, s.alpha, s.layers, s.batch, s.seq, s.dtype]
        return [s, rank, *values, s.quant, s.optimizer, s.attention, list(s.options), s.card, s.shade, s.params]

    def choose(self, selection: Selection, *values: Any) -> list[Any]:
        """A control moved."""
        return self.show(_chosen(selection, values))

    def choose_method(self, selection: Selection, *values: Any) -> list[Any]:
        """Another method: what r means changes; QLoRA brings its base in NF4, and whoever trains the base takes it whole."""
        s = _chosen(selection, values)
        s = replace(s, quant=suited_quant(s.method, cast(Quant, s.quant), before=selection.method))
        rank = gr.Slider(label=_rank_label(s.method), interactive=bool(METHODS[s.method].r_is))
        return [s, rank, s.quant]

    def pick_target(self, selection: Selection, event: gr.EventData) -> list[Any]:
        """A matrix of the drawing was clicked: adapt it, or no longer; or a usual choice of them."""
        picked = str(event.pick)
        if picked.startswith("targets:"):
            return self.show(replace(selection, targets=self._present(selection, picked.removeprefix("targets:").split(","))))
        geometry, targets = self._model(selection).geometry, _targets(selection)
        if not targets:  # the method adapts no matrix
            return self.show(selection)
        return self.show(replace(selection, targets=geometry.toggled(targets, picked)))

    def show(self, selection: Selection) -> list[Any]:
        """The numbers, the drawing and the bill."""
        try:
            model = self._model(selection)
            selection = replace(selection, targets=self._present(selection, selection.targets))
            made, card = _made(model, selection), find_card(selection.card)
            answers = budget_html.answers(made, versus(made), card, cheapest_change(made, card))
        except LabError as err:
            return [selection, gr.skip(), html.say(str(err), kind="error")]
        return [selection, budget_html.targets(made), answers]

    def show_more(self, selection: Selection) -> list[Any]:
        """The map, the tables, the code: what may take a moment longer."""
        try:
            made, card = _made(self._model(selection), selection), find_card(selection.card)
        except LabError:
            return [self.header_of(selection), None, "", "", "", "", "", ""]
        largest = budget_html.largest_table(made, card, most_that_fits(made, card))
        code = (peft_code(made), training_code(made))
        drawn, equal = _map(made, selection.shade, card), _equal(made, selection.params)
        return [self.header_of(selection), drawn, equal, largest, *code, budget_html.terms(made), ""]

    @user_errors
    def trace(self, selection: Selection) -> str:
        """Formula and trace beside each other."""
        model = self._model(selection)
        made = _made(model, selection)
        fields = {name: getattr(made.step, name) for name in made.step.__dataclass_fields__}
        return budget_html.traced(budget(model, made.spec, trace=True, **fields), made)

    def _model(self, selection: Selection) -> Model:
        if self.lab.public and Path(selection.model).exists():
            raise SpecError(f"The model must be one of the list or a Hub id here. Got {selection.model!r}.")
        return find_model(selection.model)

    def _present(self, selection: Selection, targets: Any) -> tuple[str, ...]:
        """The targets that this model has; q and v where none is left."""
        geometry = self._model(selection).geometry
        return tuple(t for t in targets if geometry.matching(t)) or ("q", "v")


_CHOSEN = (
    *("model", "method", "rank", "alpha", "layers", "batch", "seq", "dtype"),
    *("quant", "optimizer", "attention", "options", "card", "shade", "params"),
)


def _chosen(selection: Selection, values: tuple[Any, ...]) -> Selection:
    chosen = dict(zip(_CHOSEN, values, strict=True))
    numbers = {name: int(chosen[name] or 1) for name in ("rank", "batch", "seq")}
    numbers["params"] = int(chosen["params"] or 0)
    return replace(selection, **{**chosen, **numbers, "options": tuple(chosen["options"]), "layers": chosen["layers"] or ""})


def _targets(s: Selection) -> tuple[str, ...]:
    """What is selected; as long as nothing was, the method's own; none where it takes none."""
    info = METHODS[s.method]
    untouched = s.targets == Selection().targets
    return (info.default_targets if untouched else s.targets) if info.has_targets else ()


def _made(model: Model, s: Selection) -> Budget:
    """The budget of what is selected."""
    method = MethodSpec(
        method=s.method,
        r=s.rank,
        lora_alpha=resolve_alpha(s.alpha, s.rank),
        lora_dropout=0.1 if "dropout" in s.options else 0.0,
        target_modules=_targets(s),
        layers_to_transform=parse_layers(s.layers),
    )
    return budget(
        model,
        method,
        batch=s.batch,
        seq=s.seq,
        dtype=s.dtype,
        quant=s.quant,
        optimizer=s.optimizer,
        attention=s.attention,
        adapter_dtype="bf16" if "bf16_adapters" in s.options else "fp32",
        checkpointing="checkpointing" in s.options,
        fused_loss="fused_loss" in s.options,
        kbit_prepare="kbit_prepare" in s.options,
    )


def _choices(made: Budget) -> list[tuple[str, ...]]:
    """The usual choices of targets, as far as this model has them."""
    matching = made.model.geometry.matching
    return [present for choice in _CHOICES if (present := tuple(t for t in choice if matching(t)))]


def _map(made: Budget, shade: str, card: Card) -> Any:
    choices, of_vram = _choices(made), shade == "vram"
    spec = made.spec if METHODS[made.spec.method].has_targets else MethodSpec()
    rows = grid(replace(made, spec=spec), choices, _RANKS)
    values = [[one.ledger.peak if of_vram else one.trainable_params for one in row] for row in rows]
    most, wider = equal_lines(made, card, of_vram=of_vram)
    said = gigabytes if of_vram else count
    other = {f"{card.name}, overhead apart" if of_vram else f"ten times that: {said(wider)}": wider}
    texts = [[said(value) for value in row] for row in values]
    names = [" ".join(choice) for choice in choices]
    return budget_map(values, texts, rows=names, ranks=_RANKS, lines={f"this one: {said(most)}": most, **other})


def _equal(made: Budget, params: int) -> str:
    """For GPT-3 the paper's own choices, with what it measured there."""
    wanted = params or made.trainable_params
    is_gpt3 = made.model.name == "gpt3-175b"
    choices = [measured.targets for measured in table_5()] if is_gpt3 else _choices(made)
    accuracies = {(a.targets, a.r): a for a in (*table_6(), *table_5())} if is_gpt3 else {}
    rows = []
    for choice, r in ranks_for_params(made.model.geometry, wanted, choices).items():
        one = None if r is None else grid(replace(made, spec=MethodSpec()), [choice], [r])[0][0]
        rows.append(budget_html.EqualRow(" ".join(choice), r, one, accuracies.get((choice, r or 0))))
    return budget_html.equal_table(rows, wanted, with_accuracy=is_gpt3)


def _rank_label(method: str) -> str:
    meaning = METHODS[method].r_is
    return "Rank r" if meaning == "rank" else f"{meaning.capitalize()} r" if meaning else "r has no meaning here"
