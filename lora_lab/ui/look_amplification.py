"""Look, Amplification: what ΔW does to the W that it changes."""

from dataclasses import asdict, replace
from typing import Any

import gradio as gr

from lora_lab.budget.paper import table_7
from lora_lab.plots import questions
from lora_lab.plots.amplification import direction_cosines, intruder_curve, location_bars
from lora_lab.plots.look_captions import amplification_caption, directions_caption, intruder_caption, location_caption
from lora_lab.plots.look_tables import amplification_table, intruder_table
from lora_lab.ui.errors import user_errors
from lora_lab.ui.look import LookRoom
from lora_lab.ui.look_cards import Answer, Card, CardView
from lora_lab.ui.look_subject import Sight
from lora_lab.ui.selection import Selection


def _amplification(sight: Sight) -> Answer:
    one = sight.effect().amplification
    return Answer(amplification_caption(one, table_7()[0]), table=amplification_table(one, table_7()), rows=[asdict(one)])


def _directions(sight: Sight) -> Answer:
    effect = sight.effect()
    found = effect.intruders.at(sight.selection.threshold)
    return Answer(directions_caption(effect.cosines), direction_cosines(effect.cosines, found))


def _intruders(sight: Sight) -> Answer:
    found = sight.effect().intruders.at(sight.selection.threshold)
    return Answer(intruder_caption(found), intruder_curve(found), table=intruder_table(found))


def _location(sight: Sight) -> Answer:
    one = sight.effect().location
    return Answer(location_caption(one), location_bars(one))


_INTRUDERS = "intruders"


class AmplificationView(LookRoom):
    """One ΔW beside its W: Table 7, intruder dimensions, and where in W it lies."""

    room = "Amplification"
    measures = ("factor", "share", "frobenius", "stable_rank", "effective_rank", "rank_for_95")
    rows = (
        (Card("amplification", *questions.AMPLIFICATION, _amplification, has_plot=False),),
        (
            Card("directions", *questions.DIRECTIONS, _directions),
            Card(_INTRUDERS, *questions.INTRUDERS, _intruders),
        ),
        (Card("location", *questions.LOCATION, _location),),
    )

    def _build_card(self, card: Card) -> None:
        self.views.append(CardView(card, control=self._build_threshold) if card.name == _INTRUDERS else CardView(card))

    def _build_threshold(self) -> None:
        self.threshold = gr.Slider(0.05, 1.0, value=0.5, step=0.05, label="Threshold of |cos|", elem_id="threshold")

    def _wire(self, page: gr.Blocks) -> None:
        super()._wire(page)
        judged = [view for view in self.views if view.card.answer in (_directions, _intruders)]
        outputs = [self.selection, self.header, *(output for view in judged for output in view.outputs)]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "always_last"}
        self.threshold.input(self.judge, [self.selection, self.threshold], outputs, **quiet)
        page.load(self.restore_threshold, None, self.threshold, show_progress="hidden", api_visibility="private")

    def restore_threshold(self, request: gr.Request) -> float:
        """What the address names."""
        return Selection.from_query(dict(request.query_params)).threshold

    @user_errors
    def judge(self, selection: Selection, threshold: float) -> list[Any]:
        """Another threshold: the same directions judged again."""
        selection = replace(selection, threshold=threshold)
        sight, _ = self._sight(selection)
        views = [view for view in self.views if view.card.answer in (_directions, _intruders)]
        shown = [output for view in views for output in (view.updates(sight) if sight else [gr.skip()] * len(view.outputs))]
        return [selection, self.header_of(selection), *shown]
