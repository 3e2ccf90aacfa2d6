"""Look, Subspaces: whether two ΔW found the same directions."""

from typing import Any

import gradio as gr

from lora_lab.analysis.distances import control_closeness
from lora_lab.analysis.records import Closeness
from lora_lab.errors import AdapterError
from lora_lab.plots import overlap, overlap_caption, questions
from lora_lab.plots.angles import angle_lines
from lora_lab.plots.look_captions import likeness_caption
from lora_lab.plots.look_tables import likeness_table
from lora_lab.plots.overlap_grid import grid_caption, overlap_grid
from lora_lab.roles import label_of
from lora_lab.ui.look import LookRoom
from lora_lab.ui.look_cards import Answer, Card
from lora_lab.ui.look_gradients import GradientCard
from lora_lab.ui.look_subject import Sight

_OF = (("of ΔW", "delta"), ("of A", "a"))
_SIDES = (("input side", "in"), ("output side", "out"))


def _checked(sight: Sight) -> None:
    """Raises where there is nothing to compare."""
    if sight.matrix in sight.shared:
        return
    if not sight.second.adapter and sight.second.adapter.warnings:
        raise AdapterError(" ".join(["Run 2:", *sight.second.adapter.warnings]))
    raise AdapterError(f"Run 2 does not adapt {label_of(sight.matrix)}, or its base has other shapes: nothing to compare.")


def _overlap(sight: Sight) -> Answer:
    _checked(sight)
    record, (control, controls), (first, second) = sight.overlaps()[sight.matrix], sight.controls(), sight.names
    plot = overlap(record, first=first, second=second, control=controls[sight.matrix], control_name=control)
    return Answer(overlap_caption(record, first=first, second=second), plot)


def _grid(sight: Sight) -> Answer:
    records, (control, controls) = sight.overlaps(), sight.controls()
    rows = [
        {
            "matrix": name,
            "mean φ above chance": record.mean_above_chance,
            f"of {control}": controls[name].mean_above_chance,
            **({"leading φ": leading.phi, "leading chance": leading.chance} if (leading := record.leading()) else {}),
        }
        for name, record in records.items()
    ]
    says = grid_caption(list(records.values()), list(controls.values()), control=control)
    return Answer(says, overlap_grid(records, controls, control=control), rows=rows)


def _angles(sight: Sight) -> Answer:
    _checked(sight)
    one = sight.likeness()
    sides = {"in": one.input_side, "out": one.output_side}
    random = {side: _random(sight, found, side) for side, found in sides.items()}
    plot = angle_lines([(side, found, random[side]) for side, found in sides.items()])
    first, second = sight.names
    return Answer(likeness_caption(one, first=first, second=second), plot, table=likeness_table(one, random))


def _random(sight: Sight, found: Closeness | None, side: str) -> Closeness | None:
    return control_closeness(found.i, found.j, found.dimension, sight.matrix, side) if found else None


class SubspacesView(LookRoom):
    """Two ΔW: φ of their leading directions, in one matrix and in all, and how far apart they are."""

    room = "Subspaces"
    measures = ("phi", "frobenius", "stable_rank", "effective_rank", "rank_for_95")
    rows = (
        (Card("overlap", *questions.OVERLAP, _overlap),),
        (
            Card(
                "overlap-grid",
                "In every layer and matrix?",
                "φ(i, j) of at most 16 directions each; the number is the mean of φ − chance",
                _grid,
            ),
        ),
        (
            Card(
                "angles",
                "How far apart are they?",
                "principal angles between the whole subspaces of ΔW; 0° is a direction in common, 90° is none",
                _angles,
            ),
        ),
    )

    def _build_own(self) -> dict[str, Any]:
        chips = {"elem_classes": "lab-chips"}
        return {
            "of": gr.Radio(list(_OF), value="delta", label="Singular vectors", elem_id="of", **chips),
            "side": gr.Radio(list(_SIDES), value="in", label="Directions on the", elem_id="side", **chips),
        }

    def _own_updates(self, sight: Sight) -> list[Any]:
        """A's directions live on the input side only, and only where A is what was trained."""
        has_a = sight.first.has_own_a and sight.second.has_own_a
        of, side = sight.selection.of, sight.selection.side
        return [gr.Radio(value=of, interactive=has_a), gr.Radio(value=side, interactive=of == "delta")]

    def _build_more(self) -> None:
        self.gradients = GradientCard(self.lab)

    def _wire(self, page: gr.Blocks) -> None:
        super()._wire(page)
        self.gradients.wire(self.selection, self.run)
