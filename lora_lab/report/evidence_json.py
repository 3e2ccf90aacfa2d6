"""Evidence as JSON, and back: what a recorded reproduction keeps of its scores, overlaps and amplifications."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lora_lab.analysis.base_records import Amplification
from lora_lab.analysis.chance import chance_level
from lora_lab.analysis.comparison import all_pairs
from lora_lab.analysis.records import Overlap
from lora_lab.report.records import Evidence, PairMaps, ScoreCell, ScoreTable

_MAPS = ("two_ranks", "two_seeds", "two_ranks_at_start", "two_seeds_at_start", "two_random")
_DIGITS = 5  # of φ, which is read at two


def evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    """Everything that cannot be reckoned again: chance levels and comparisons can."""
    names = ("bench", "metric_name", "small", "large", "seeds")
    plain = {name: getattr(evidence, name) for name in names}
    tables = {name: _table(getattr(evidence, name)) for name in ("ranks", "targets")}
    amplified = {str(r): [asdict(one) for one in by_name.values()] for r, by_name in evidence.amplifications.items()}
    return {**plain, **tables, **{name: _maps(getattr(evidence, name)) for name in _MAPS}, "amplifications": amplified}


def evidence_of_json(record: Mapping[str, Any]) -> Evidence:
    """The evidence that `evidence_to_json` wrote."""
    amplified = {int(r): {one["name"]: Amplification(**one) for one in ones} for r, ones in record["amplifications"].items()}
    ranks = _table_of(record["ranks"])
    assert ranks is not None
    return Evidence(
        bench=record["bench"],
        metric_name=record["metric_name"],
        small=record["small"],
        large=record["large"],
        seeds=tuple(record["seeds"]),
        ranks=ranks,
        targets=_table_of(record["targets"]),
        **{name: _maps_of(record[name]) for name in _MAPS},
        amplifications=amplified,
    )


def _table(table: ScoreTable | None) -> dict[str, Any] | None:
    if table is None:
        return None
    return {"metric_name": table.metric_name, "cells": [asdict(cell) for cell in table.cells], "base": table.base}


def _table_of(record: Mapping[str, Any] | None) -> ScoreTable | None:
    if record is None:
        return None
    cells = tuple(ScoreCell(cell["targets"], cell["r"], tuple(cell["scores"])) for cell in record["cells"])
    return ScoreTable(record["metric_name"], cells, all_pairs([cell for cell in cells if cell.mean is not None]), record["base"])


def _maps(maps: PairMaps) -> dict[str, Any]:
    return {"title": maps.title, "maps": [[_overlap(one) for one in by_name.values()] for by_name in maps.maps]}


def _overlap(one: Overlap) -> dict[str, Any]:
    phi = None if one.phi is None else [[round(value, _DIGITS) for value in row] for row in one.phi]
    return {"name": one.name, "of": one.of, "side": one.side, "dimension": one.dimension, "phi": phi}


def _maps_of(record: Mapping[str, Any]) -> PairMaps:
    return PairMaps(record["title"], tuple({one["name"]: _overlap_of(one) for one in ones} for ones in record["maps"]))


def _overlap_of(record: Mapping[str, Any]) -> Overlap:
    phi, d = record["phi"], record["dimension"]
    if phi is None:
        return Overlap(**{**record, "chance": None})
    chance = tuple(tuple(chance_level(i, j, d) for j in range(1, len(phi[0]) + 1)) for i in range(1, len(phi) + 1))
    return Overlap(**{**record, "phi": tuple(map(tuple, phi)), "chance": chance})
