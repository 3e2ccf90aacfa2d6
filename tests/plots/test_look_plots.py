"""What Look draws is what the records say, and its sentences are computed from them."""

import math
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest

from lora_lab.analysis.base_records import Amplification, Band, Intruders, Location
from lora_lab.analysis.records import Closeness, Likeness, NoiseEdges, Overlap, Spectrum
from lora_lab.budget.paper import table_7
from lora_lab.plots import SpectrumLine, overlap, spectrum
from lora_lab.plots.amplification import direction_cosines, intruder_curve, location_bars
from lora_lab.plots.angles import angle_lines
from lora_lab.plots.figure_rows import figure_rows
from lora_lab.plots.look_captions import (
    amplification_caption,
    directions_caption,
    intruder_caption,
    likeness_caption,
    location_caption,
    noise_caption,
)
from lora_lab.plots.matrix_layout import matrix_layout
from lora_lab.plots.overlap_grid import grid_caption, overlap_grid

NOISE = NoiseEdges(0.1, 0.0, 2.0, 0.5, 3.0)
Q, V = "vit.layers.0.attention.q_proj", "vit.layers.1.attention.v_proj"


def an_overlap(name: str, phi: tuple[tuple[float, ...], ...], dimension: int = 10) -> Overlap:
    chance = tuple(tuple(max(i, j) / dimension for j in range(1, len(phi[0]) + 1)) for i in range(1, len(phi) + 1))
    return Overlap(name, "delta", "in", dimension, phi, chance)


HIGH, LOW = an_overlap(Q, ((0.9, 0.8), (0.8, 0.7))), an_overlap(V, ((0.1, 0.2), (0.2, 0.2)))
ZERO = Overlap(V, "delta", "in", 10, None, None)
INTRUDERS = Intruders(Q, 3, 0.5, 8, True, 1, (0.9, 0.4, 0.8), (1, 5, 2), (3.0, 2.0, 1.0), 0.0)
LOCATION = Location(
    Q,
    (
        Band("out", "top", 1, 2, 0.6, 0.2),
        Band("out", "tail", 3, 10, 0.4, 0.8),
        Band("in", "top", 1, 2, 0.1, 0.2),
        Band("in", "tail", 3, 10, 0.9, 0.8),
    ),
)
CLOSENESS = Closeness(2, 2, 10, 0.7, 0.9, 1.2, (0.1, math.pi / 2))


def drawn(fig: go.Figure, name: str) -> Any:
    return next(trace for trace in fig.data if trace.name == name)


def test_noise_edges_are_drawn_over_all_directions_beside_the_spectrum() -> None:
    fig = spectrum([SpectrumLine("a", 3, 0, (5.0, 2.5, 0.4))], noise=NOISE, noise_of="a")
    assert {y for trace in fig.data[1:] for y in trace.y} == {3.0, 0.5, 2.0}
    for trace in fig.data[1:]:
        assert (trace.x[0], trace.x[-1]) == (0.5, 3.5)
    square = spectrum([SpectrumLine("a", 3, 0, (5.0, 2.5, 0.4))], noise=replace(NOISE, product_lower=0.0))
    assert {y for trace in square.data[1:] for y in trace.y} == {3.0, 2.0}


def test_the_noise_sentence_counts_what_stands_above() -> None:
    one = Spectrum(Q, (8, 8), 3, 1.0, 5.6, 5.0, (5.0, 3.5, 0.4), 3, 1.1, 1.5, 1.2, 1, 1, 2)
    assert noise_caption("a", one, NOISE).startswith("a: 2 of 3 directions stand above 3,")
    assert "zero" in noise_caption("a", one, None)


def test_a_control_stands_between_what_was_measured_and_chance() -> None:
    fig = overlap(HIGH, first="a", second="b", control=LOW, control_name="random")
    assert [tuple(map(tuple, trace.z)) for trace in fig.data] == [HIGH.phi, LOW.phi, HIGH.chance]
    assert [text.text for text in fig.layout.annotations] == ["measured", "random", "chance: max(i, j) / 10"]


def test_every_matrix_has_its_map_and_its_number_and_the_control_the_same() -> None:
    records, controls = {Q: HIGH, V: LOW}, {Q: LOW, V: HIGH}
    fig = overlap_grid(records, controls, control="random")
    measured, control = fig.data
    for trace, (top, bottom) in ((measured, (HIGH, LOW)), (control, (LOW, HIGH))):
        z = [list(row) for row in trace.z]
        assert (z[0][0], z[15][15]) == (top.phi[0][0], top.phi[1][1])  # layer 0, q
        assert (z[17][17], z[32][32]) == (bottom.phi[0][0], bottom.phi[1][1])  # layer 1, v
        assert z[0][17] is None
        assert "φ(2, 1)" in trace.text[8][0]
        assert Q in trace.text[8][0]
    numbers = [text.text for text in fig.layout.annotations[2:]]
    assert numbers == ["+0.62", "0.00", "0.00", "+0.62"]
    assert numbers[0] == f"{HIGH.mean_above_chance:+.2f}"


def test_a_matrix_without_directions_has_no_map_and_all_without_say_so() -> None:
    assert len(overlap_grid({Q: HIGH, V: ZERO}, {Q: LOW, V: ZERO}, control="c").layout.annotations) == 4
    assert "No matrix" in overlap_grid({V: ZERO}, {V: ZERO}, control="c").layout.annotations[0].text


def test_the_grids_sentence_names_the_extremes_and_the_controls_range() -> None:
    said = grid_caption([HIGH, LOW], [LOW], control="random")
    assert (
        said
        == "φ lies +0.62 above chance in layer 0 · q and 0.00 in layer 1 · v; the control, random, stays between 0.00 and 0.00."
    )
    assert "No matrix" in grid_caption([ZERO], [], control="random")


def test_angles_are_drawn_in_degrees_by_side() -> None:
    fig = angle_lines([("in", CLOSENESS, CLOSENESS), ("out", None, None)])
    assert [trace.name for trace in fig.data] == ["input side", "random, input side"]
    assert tuple(fig.data[0].y) == pytest.approx((math.degrees(0.1), 90))
    assert "zero" in angle_lines([("in", None, None)]).layout.annotations[0].text


def test_the_likeness_sentence_says_cosine_and_distances() -> None:
    said = likeness_caption(Likeness(Q, 0.27, 0.48, CLOSENESS, CLOSENESS), first="a", second="b")
    assert "cosine of a and b is 0.27, and 0.48" in said
    assert said.count("0.70 apart where chance gives 1.20") == 2
    assert "zero" in likeness_caption(Likeness(Q, None, None, None, None), first="a", second="b")


def test_intruders_are_marked_at_their_rows_and_counted_at_every_threshold() -> None:
    cosines = ((0.9, 0.1), (0.3, 0.4), (0.2, 0.8))
    fig = direction_cosines(cosines, INTRUDERS)
    assert tuple(map(tuple, fig.data[0].z)) == cosines
    assert tuple(fig.data[1].y) == (2,)
    assert directions_caption(cosines).startswith("2 of the first 3 directions")
    curve = intruder_curve(INTRUDERS)
    assert list(zip(curve.data[0].x, curve.data[0].y, strict=True)) == [(0, 0), (0.4, 1), (0.8, 2), (0.9, 3), (1, 3)]
    assert curve.layout.shapes[0].x0 == 0.5


def test_the_intruder_sentence_is_an_upper_bound_where_not_all_were_compared() -> None:
    assert intruder_caption(INTRUDERS).startswith(
        "1 of the 3 leading directions of W + ΔW is an intruder at |cos| below 0.5; direction 2"
    )
    assert "upper bound" in intruder_caption(replace(INTRUDERS, is_complete=False))
    assert "upper bound" not in intruder_caption(INTRUDERS)


def test_location_is_drawn_beside_chance_and_said() -> None:
    fig = location_bars(LOCATION)
    assert tuple(drawn(fig, "ΔW").y) == (0.6, 0.4, 0.1, 0.9)
    assert tuple(drawn(fig, "chance").y) == (0.2, 0.8, 0.2, 0.8)
    said = location_caption(LOCATION)
    assert "on the output side 60 % lies in W's 2 strongest directions, 3.0 times chance" in said
    assert "on the input side 90 % lies in W's 8 weakest directions, 1.1 times chance" in said
    rest = Location(Q, tuple(replace(band, name="rest") if band.name == "tail" else band for band in LOCATION.bands))
    assert "90 % lies beyond W's 2 strongest directions" in location_caption(rest)
    nowhere = Location(Q, tuple(replace(band, share=None) for band in LOCATION.bands))
    assert "zero" in location_caption(nowhere)
    assert "zero" in location_bars(nowhere).layout.annotations[0].text


def test_the_amplification_sentence_sets_the_papers_factor_beside_ours() -> None:
    one = Amplification(Q, 2, 6.0, 3.0, 0.5, 2.0, 0.0, 0.2, 0.01, 0.2, 8, 12.0)
    said = amplification_caption(one, table_7()[0])
    assert "ΔW is 12 times as large as W is in its 2 directions, which hold 2.5 times" in said
    assert "21.6 at r = 4" in said
    assert "no factor" in amplification_caption(replace(one, factor=None), table_7()[0])
    assert "zero" in amplification_caption(replace(one, on_delta=None), table_7()[0])


def test_rows_of_a_figure_are_its_points_by_the_titles_of_its_axes() -> None:
    rows = figure_rows(spectrum([SpectrumLine("a", 2, 0, (4.0, 0.0)), SpectrumLine("b", 1, 1, (2.0,))]))
    i, sigma = "direction i, strongest first", "singular value σᵢ of ΔW"
    assert rows == [{"of": "a", i: 1, sigma: 4.0}, {"of": "b", i: 1, sigma: 2.0}]


def test_rows_of_maps_are_their_cells_and_those_of_bars_their_places() -> None:
    rows = figure_rows(overlap(HIGH, first="a", second="b"))
    cells = {(row["of"], row["i: directions of a"], row["j: directions of b"]): row["φ"] for row in rows}
    assert cells["measured", 2, 1] == HIGH.phi[1][0]
    assert len(cells) == 8
    bars = figure_rows(location_bars(LOCATION))
    assert bars[0] == {"of": "ΔW", "directions of W": "output side · top 1–2", "share of ‖ΔW‖²": 0.6}


def test_layers_stand_by_their_numbers_whatever_the_order_of_the_file() -> None:
    names = [f"model.layers.{layer}.self_attn.{role}_proj" for layer in (0, 1, 10, 11, 2) for role in ("v", "q")]
    layout = matrix_layout(names)
    assert layout.rows == ("layer 0", "layer 1", "layer 2", "layer 10", "layer 11")
    assert layout.names[-2:] == ["model.layers.11.self_attn.q_proj", "model.layers.11.self_attn.v_proj"]


def test_two_matrices_of_one_role_in_a_layer_have_columns_of_their_own() -> None:
    layer = "decoder.block.0.layer"
    names = [f"{layer}.{part}.q" for part in ("0.SelfAttention", "1.EncDecAttention")]
    layout = matrix_layout(names)
    assert len(set(layout.places.values())) == len(layout.columns) == 2
