"""The table of runs summed up: mean and spread over seeds, in the shapes of the paper's Tables 5 and 6.

Source: Hu et al. 2021 (arXiv 2106.09685), section 7.1 (which matrices, at one budget) and 7.2 (which rank).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from lora_lab.errors import SpecError, out_of_range
from lora_lab.metrics import METRICS
from lora_lab.sweeps.results import COLUMNS, FLOAT, INT, SETTINGS, VALUES, records, role_place
from lora_lab.units import plus_minus

_PARTS = {"mean": FLOAT, "sd": FLOAT, "count": INT}
_OF_THE_BENCH = tuple(SETTINGS)[: tuple(SETTINGS).index("method")]


def pivot(table: pd.DataFrame, *, rows: Sequence[str], columns: Sequence[str], value: str = "score") -> pd.DataFrame:
    """Mean and sd over seeds, and how many: a row a choice of `rows`, a column a choice of `columns` with the three under it.

    Finished runs only. The runs of a cell differ in their seed alone: what else differs between runs that share rows and columns (a
    second learning rate, say), and what the bench is on where one row would hold two of it, becomes a key of the rows too. `sd` is
    of a sample (n − 1), and missing for one run.

    Raises:
        SpecError: a key that is no column, or a value that is no number.
    """
    _require_names("key", (*rows, *columns), tuple(COLUMNS))
    _require_names("value", (value,), VALUES)
    runs = table[(table["status"] == "finished") & table[value].notna()].dropna(subset=list(columns))
    rows = (*rows, *_besides(runs, rows, columns))
    grouped = runs.groupby([*rows, *columns], dropna=False, sort=False)[value]
    return _wide(grouped.agg(["mean", "std", "count"]).rename(columns={"std": "sd"}), rows, columns)


def _require_names(parameter: str, names: Iterable[str], allowed: Sequence[str]) -> None:
    for name in names:
        if name not in allowed:
            raise SpecError(out_of_range(parameter, "pivot", f"one of {', '.join(allowed)}", name))


def _besides(runs: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The settings that tell apart what rows and columns do not."""
    cells = runs.groupby([*rows, *columns], dropna=False)
    whole = runs.groupby(list(rows), dropna=False)
    return [
        name
        for name in SETTINGS
        if name not in (*rows, *columns) and ((whole if name in _OF_THE_BENCH else cells)[name].nunique(dropna=False) > 1).any()
    ]


def _wide(cells: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """The keys of `columns` move from the index to the top, in the order in which the paper has them."""
    choices = sorted(dict.fromkeys(key[len(rows) :] for key in cells.index), key=lambda choice: [*map(_place, choice)])
    levels = [sorted(dict.fromkeys(keys), key=_place) for keys in zip(*choices, strict=True)] or [[] for _ in columns]
    head = [(*choice, part) for choice in choices for part in _PARTS]
    codes = [[level.index(column[i]) for column in head] for i, level in enumerate([*levels, list(_PARTS)])]
    top = pd.MultiIndex([*levels, list(_PARTS)], codes, names=[*columns, "of"])
    if not choices:
        return pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=rows), columns=top)
    wide = cells.unstack(list(columns))
    return pd.DataFrame({i: wide[(part, *choice)] for i, (*choice, part) in enumerate(head)}).set_axis(top, axis=1)


def _place(key: Any) -> tuple[int, Any]:
    """Numbers by size; choices of targets by how many they are, then as the roles come."""
    if not isinstance(key, str):
        return 0, key
    parts = key.split(",")
    return len(parts), [role_place(part) for part in parts]


def pivot_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """A pivot the other way about: a row a cell that has a run, with its keys, mean, sd and count."""
    keys = [*frame.index.names, *frame.columns.names[:-1]]
    found: dict[str, list[Any]] = {name: [] for name in (*keys, *_PARTS)}
    for row_key, row in frame.iterrows():
        row_keys = row_key if isinstance(row_key, tuple) else (row_key,)
        for choice in dict.fromkeys(column[:-1] for column in frame.columns):
            parts = [row[(*choice, part)] for part in _PARTS]
            if not pd.isna(parts[-1]):
                for name, value in zip(found, (*row_keys, *choice, *parts), strict=True):
                    found[name].append(None if pd.isna(value) else value)
    kinds = {**COLUMNS, **_PARTS}
    return pd.DataFrame({name: pd.array(values, dtype=kinds[name]) for name, values in found.items()})


def pivot_texts(frame: pd.DataFrame, value: str) -> tuple[list[str], list[list[str]]]:
    """A pivot as people read it: the titles, then of every row its keys and mean ± sd (over how many seeds).

    As (['bench', 'q,v r 2'], [['digits', '78.2 ± 1.1 (2)']]).
    """
    names, by = list(frame.index.names), list(frame.columns.names)[:-1]
    rows: dict[tuple[Any, ...], dict[tuple[Any, ...], str]] = {}
    for cell in records(pivot_cells(frame)):
        rows.setdefault(tuple(cell[name] for name in names), {})[tuple(cell[name] for name in by)] = _cell_text(cell, value)
    choices = list(dict.fromkeys(tuple(column[:-1]) for column in frame.columns))
    titles = [*names, *(" r ".join(map(str, ("", *choice)[-2:])).strip() for choice in choices)]
    keys = [[_key_text(name, key) for name, key in zip(names, row, strict=True)] for row in rows]
    body = [[*told, *(cells.get(c, "") for c in choices)] for told, cells in zip(keys, rows.values(), strict=True)]
    return titles, body


def _key_text(name: str, key: Any) -> str:
    """A metric with the unit of the cells beside it."""
    return "" if key is None else METRICS[key].heading if name == "metric" else f"{key}"


def _cell_text(cell: dict[str, Any], value: str) -> str:
    if value.endswith(("score", "loss")):
        text = METRICS[cell["metric"] if value.endswith("score") else "loss"].cell(cell["mean"], cell["sd"])
    else:
        text = plus_minus(cell["mean"], cell["sd"], digits=3)
    return f"{text} ({cell['count']})"


def at_one_budget(table: pd.DataFrame, adapter_params: int | None = None) -> pd.DataFrame:
    """The runs that compare choices of targets at equal cost, as the paper's Table 5 does.

    Args:
        table: of `results_table`.
        adapter_params: the cost; by default, on each base, the one that most choices of targets share, of several the largest.
    """
    runs = table.dropna(subset=["target_roles", "r", "adapter_params"])
    if adapter_params is not None:
        return runs[runs["adapter_params"] == adapter_params]
    of_one = ["bench", "base_sha256"]
    choices = runs.groupby([*of_one, "adapter_params"])["target_roles"].nunique().reset_index(name="choices")
    best = choices.sort_values(["choices", "adapter_params"]).drop_duplicates(of_one, keep="last")
    return runs.merge(best[[*of_one, "adapter_params"]], on=[*of_one, "adapter_params"])


def by_targets(table: pd.DataFrame, *, value: str = "score", adapter_params: int | None = None) -> pd.DataFrame:
    """The shape of the paper's Table 5: a row a bench, a column a choice of targets with the rank that one budget buys it."""
    runs = at_one_budget(table, adapter_params)
    return pivot(runs, rows=("bench", "metric", "adapter_params"), columns=("target_roles", "r"), value=value)


def by_rank(table: pd.DataFrame, *, value: str = "score") -> pd.DataFrame:
    """The shape of the paper's Table 6: a row a bench and choice of targets, a column an r."""
    runs = table.dropna(subset=["target_roles"])
    return pivot(runs, rows=("bench", "metric", "target_roles"), columns=("r",), value=value)
