"""What is looked at: a run of a store, an adapter from a file, or matrices made by hand; and two of them beside each other."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lora_lab.adapters import Adapter, changed_ns, load_adapter
from lora_lab.analysis.base_matrix import NamedWeights
from lora_lab.analysis.records import Overlap, Side
from lora_lab.analysis.subspaces import control_overlap, overlap_of
from lora_lab.assets import on_disk
from lora_lab.benches.base_weights import open_base
from lora_lab.errors import AdapterError, DataError, LabError, out_of_range
from lora_lab.lowrank import LowRank
from lora_lab.specs import MOVING_INITS, PLAIN_LORA
from lora_lab.sweeps.run import Run, read_run
from lora_lab.sweeps.store import RunStore
from lora_lab.weights import BaseWeights

Source = Run | Mapping[str, LowRank] | str | Path
Base = NamedWeights | Mapping[str, Tensor] | str | Path
MOST_DIRECTIONS = 64  # of an overlap: what was trained without factors has as many as its matrix is wide
AT_START, AT_RANDOM = "A of both at the start", "random matrices"
_BY_HAND = "by hand"


@dataclass(frozen=True)
class Subject:
    """One adapter.

    Attributes:
        name: the run's id, or where the adapter was opened.
        key: tells it from every other, and from itself with other files.
        run: None where it was opened from a file or made by hand.
    """

    name: str
    key: Hashable
    adapter: Adapter
    run: Run | None = None

    @property
    def place(self) -> str:
        """The name as short as one still knows it."""
        return "/".join(Path(self.name).parts[-2:])

    @property
    def has_own_a(self) -> bool:
        """Whether its A is the one that was trained, from a start of its own."""
        if self.run is not None:
            tuning = self.run.spec.tuning
            return tuning.method in PLAIN_LORA and tuning.init_lora_weights not in MOVING_INITS
        config = self.adapter.config
        is_lora = self.adapter.format == _BY_HAND or config.get("peft_type") == "LORA"
        return is_lora and not config.get("use_dora") and not self.adapter.warnings

    @property
    def base_name(self) -> str:
        """What an opened adapter's config calls its base; empty where it says nothing."""
        return str(self.adapter.config.get("base_model_name_or_path") or "")

    @property
    def base_here(self) -> str:
        """The same where it is a folder on this disk, else empty: nothing is fetched that nobody asked for."""
        place = on_disk(self.base_name)
        return str(place) if place is not None and (place / "config.json").is_file() else ""

    def base(self, base: Base | None = None) -> NamedWeights:
        """The W that it changes: the one given, else the run's own, else the one that its config names on this disk.

        Args:
            base: a bench, a folder, a Hub id, or W by module name.

        Raises:
            LabError: it cannot be had or read, or nobody says which it is.
        """
        if base is None and self.run is not None:
            return self.run.base()
        if base is None and not self.base_here:
            raise DataError(f"The base under {self.place} must be given: a bench, a folder, a Hub id, or W by name. Got none.")
        return weights_of(self.base_here if base is None else base)


@dataclass(frozen=True)
class GivenWeights:
    """W of modules by name, as tensors that are there."""

    matrices: Mapping[str, Tensor]

    def named(self, name: str) -> Tensor:
        """The W of that name.

        Raises:
            DataError: none is called so.
        """
        if name not in self.matrices:
            raise DataError(f"The base must have every matrix that the adapter changes. Got none called {name}.")
        return self.matrices[name]


def weights_of(base: Base) -> NamedWeights:
    """The matrices of a base by their names.

    Raises:
        LabError: it cannot be had or read.
    """
    if isinstance(base, str | Path):
        return open_base(str(base))
    return GivenWeights(base) if isinstance(base, Mapping) else base


def of_run(run: Run, adapter: Adapter | None = None) -> Subject:
    """A run as it is now; its adapter is read where it was not before.

    Raises:
        LabError: the files cannot be read, or the base cannot be had.
    """
    key = (run.run_id, run.metrics["status"], run.metrics["step"])
    return Subject(run.run_id, key, run.adapter() if adapter is None else adapter, run)


def of_place(source: str, adapter: Adapter, under: str = "") -> Subject:
    """An adapter that was opened from a folder, a file or the Hub, read beside that base."""
    return Subject(source, (source, under, changed_ns(source)), adapter)


def subject_of(source: Source | Subject, *, base: Base | None = None, runs: str | Path = "runs") -> Subject:
    """Whatever can be looked at.

    Args:
        source: a run, its id or its folder; an adapter's folder, a file in it, or its Hub id; or ΔW by module name.
        base: for methods that are read beside it, where the source is no run.
        runs: the store that ids are of.

    Raises:
        AdapterError: it is none of these.
        LabError: it cannot be had or read.
    """
    if isinstance(source, Subject):
        return source
    if isinstance(source, Run):
        return of_run(source)
    if isinstance(source, Adapter):
        return Subject("adapter", id(source), source)
    if isinstance(source, Mapping):
        return Subject("ΔW", id(source), _by_hand(source))
    if not isinstance(source, str | Path):
        raise AdapterError(out_of_range("source", "subject_of", "a run, a folder, a file, a Hub id, or LowRank by name", source))
    return _opened(str(source), base, Path(runs))


def _by_hand(modules: Mapping[str, LowRank]) -> Adapter:
    strange = next((name for name, delta in modules.items() if not isinstance(delta, LowRank)), None)
    if strange is not None:
        raise AdapterError(f"ΔW by name must be LowRank, every one. Got {type(modules[strange]).__name__} for {strange!r}.")
    return Adapter(_BY_HAND, dict(modules), "as given")


def _opened(source: str, base: Base | None, runs: Path) -> Subject:
    run = _run_at(source, runs)
    if run is not None:
        return of_run(run)
    weights = None if base is None else weights_of(base)
    place = on_disk(source)
    inner = place / "adapter" if place else None  # of a run that cannot be read, its adapter still can
    found = inner if inner and (inner / "adapter_config.json").is_file() else source
    return of_place(source, load_adapter(found, base=weights if isinstance(weights, BaseWeights) else None))


def _run_at(source: str, runs: Path) -> Run | None:
    """The run in that folder, or of that id."""
    place = on_disk(source)
    if place is not None:
        return read_run(place)
    looks_like_id = len(source) <= 12 and all(c in "0123456789abcdef" for c in source)
    return RunStore(runs).get(source) if looks_like_id and runs.is_dir() else None


def shared_names(first: Subject, second: Subject) -> list[str]:
    """Matrices of one shape that both adapt, in the first one's order."""
    one, other = first.adapter, second.adapter
    return [name for name in one if name in other and one[name].shape == other[name].shape]


def control_of(
    first: Subject,
    second: Subject,
    records: Mapping[str, Overlap],
    *,
    side: Side,
    start: Callable[[Run], Adapter] = Run.start,
) -> tuple[str, dict[str, Overlap]]:
    """What φ is where nothing was learned, and its name: of A as it was drawn where both have one, else of random matrices.

    Args:
        first: of the pair.
        second: of the pair.
        records: the pair's overlaps by matrix.
        side: that they are of.
        start: how a run's adapter before its first step is had.
    """
    if side == "in" and first.run and second.run and first.has_own_a and second.has_own_a:
        try:
            one, other = start(first.run), start(second.run)
            return AT_START, {name: overlap_of(name, one[name], other[name], of="a") for name in records}
        except LabError:
            pass
    return AT_RANDOM, {name: control_overlap(record) for name, record in records.items()}
