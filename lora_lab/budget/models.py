"""Models by name: the catalogue in `data/models.json`, or any config.json, folder or Hub id read without its weights."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lora_lab.assets import DATA_DIR, HUB_ID, hub_snapshot, on_disk
from lora_lab.errors import DataError, SpecError
from lora_lab.geometry import Architecture, Geometry, Loose, Matrix, Norm, Table
from lora_lab.roles import layer_of, role_of

CATALOGUE = DATA_DIR / "models.json"
_KINDS = {"matrix": Matrix, "table": Table, "norm": Norm, "loose": Loose}


@dataclass(frozen=True)
class Model:
    """A model that a budget can be made for: its matrices, and the config that builds it."""

    name: str
    geometry: Geometry
    config: Mapping[str, Any] = field(hash=False)
    source: str
    verified: bool = True

    def __hash__(self) -> int:
        return hash(self.name)


def model_names() -> tuple[str, ...]:
    """The catalogue, in its order."""
    return tuple(_catalogue())


@cache
def find_model(name: str) -> Model:
    """The model of that name, without regard to case; else the config at that path or Hub id, read on the meta device.

    Raises:
        SpecError: no model of the catalogue, no path and no Hub id.
        DataError: the config there is of no architecture that transformers can build.
        AssetError: the Hub does not give it.
    """
    entry = _entry_of(name) if name.strip() else None
    if entry is not None:
        return _from_entry(*entry)
    path = on_disk(name)
    if path is None:
        if not HUB_ID.fullmatch(name):
            known = ", ".join(model_names())
            raise SpecError(f"--model must be a config.json, a folder, a Hub id or one of {known}. Got {name!r}.")
        path = hub_snapshot(name, ["config.json"])
    from lora_lab.budget.meta import build_model  # noqa: PLC0415 (torch, and only here)
    from lora_lab.live_geometry import read_geometry  # noqa: PLC0415

    config = _read_config(path / "config.json" if path.is_dir() else path)
    return Model(name, read_geometry(build_model(config)), config, source=f"{name}, read on the meta device")


def _entry_of(name: str) -> tuple[str, dict[str, Any]] | None:
    """The catalogue's entry, by its name, or by a Hub id's last part where no such path is here."""
    by_key = {_key(known): (known, entry) for known, entry in _catalogue().items()}
    if _key(name) in by_key or on_disk(name):
        return by_key.get(_key(name))
    return by_key.get(_key(name.rsplit("/", 1)[-1]))


def _key(name: str) -> str:
    return name.lower().removesuffix(" (text tower)")


@cache
def _catalogue() -> dict[str, dict[str, Any]]:
    catalogue: dict[str, dict[str, Any]] = json.loads(CATALOGUE.read_text())
    return catalogue


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise DataError(f"{str(path)!r} must be a model's config.json. Got {type(err).__name__}.") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise DataError(f"{str(path)!r} must be a model's config.json with a model_type. Got none.")
    return config


def _from_entry(name: str, entry: dict[str, Any]) -> Model:
    kinds: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for kind, pattern, layers, *shape in entry["parts"]:
        for part_name in _expand(pattern, layers):
            kinds[kind].append(_part(kind, part_name, shape))
    matrices, tables, norms, loose = (_in_order(kinds[kind]) for kind in _KINDS)
    geometry = Geometry(matrices, tables, norms, loose, Architecture(**entry["architecture"]))
    return Model(name, geometry, entry["config"], entry["source"], entry["verified"])


def _in_order(parts: list[Any]) -> tuple[Any, ...]:
    """Layer by layer, as the model has them; what lies outside the layers keeps its place at either end."""
    inside = [i for i, part in enumerate(parts) if layer_of(part.name) is not None]
    if not inside:
        return tuple(parts)
    first, last = inside[0], inside[-1] + 1
    return (*parts[:first], *sorted(parts[first:last], key=lambda part: layer_of(part.name) or 0), *parts[last:])


def _part(kind: str, name: str, shape: list[Any]) -> Matrix | Table | Norm | Loose:
    if kind == "matrix":
        return Matrix(name, role_of(name), layer_of(name), *shape)
    return Table(name, *shape) if kind == "table" else _KINDS[kind](name, layer_of(name), *shape)


def _expand(pattern: str, layers: str) -> Iterator[str]:
    """`a.{}.b` over `0-3,7`; a pattern without layers is the name itself."""
    for span in filter(None, layers.split(",")):
        first, _, last = span.partition("-")
        yield from (pattern.format(i) for i in range(int(first), int(last or first) + 1))
    if not layers:
        yield pattern


def to_entry(geometry: Geometry, config: Mapping[str, Any], *, source: str, verified: bool) -> dict[str, Any]:
    """The catalogue's entry for a geometry: layers of one shape written once."""
    grouped: dict[tuple[Any, ...], list[int]] = {}
    for part in geometry.parts():
        kind = next(kind for kind, cls in _KINDS.items() if isinstance(part, cls))
        layer = layer_of(part.name)
        pattern = part.name if layer is None else part.name.replace(f".{layer}.", ".{}.", 1)
        values = astuple(part)[3 if kind == "matrix" else 1 if kind == "table" else 2 :]
        grouped.setdefault((kind, pattern, *values), []).extend([] if layer is None else [layer])
    parts = [[kind, pattern, _spans(layers), *values] for (kind, pattern, *values), layers in grouped.items()]
    architecture = asdict(geometry.architecture) if geometry.architecture else {}
    return {
        "source": source,
        "verified": verified,
        "config": dict(config),
        "total_params": geometry.total_params,
        "architecture": architecture,
        "parts": parts,
    }


def _spans(numbers: list[int]) -> str:
    """`[0, 1, 2, 5]` as `0-2,5`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in spans)
