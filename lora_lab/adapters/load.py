"""Any adapter there is, from a folder, a file or the Hub."""

from pathlib import Path

from lora_lab.adapters.adapter import Adapter
from lora_lab.adapters.folders import read_record
from lora_lab.adapters.own_format import read_own
from lora_lab.adapters.peft_format import CONFIG, read_peft
from lora_lab.adapters.tensors import WEIGHTS
from lora_lab.assets import HUB_ID, hub_snapshot, on_disk
from lora_lab.errors import AdapterError
from lora_lab.weights import BaseWeights


def load_adapter(source: str | Path, *, base: BaseWeights | None = None) -> Adapter:
    """The adapter in a folder, beside a file of it, or under a Hub id: ΔW of every matrix, against the original W.

    Args:
        source: what PEFT saved for LoRA and its kin, AdaLoRA, VeRA, IA³, LN, prefix and prompt tuning, or `save_trained` did.
        base: the base's weights with its geometry's matrices. IA³ and what was trained in place are read with it only; DoRA
            without it is its direction part, and a warning says so.

    Raises:
        AdapterError: there is nothing there, it is no adapter, it cannot be read, or it cannot be read without the base.
        DataError: the base has no such matrix.
    """
    folder = _find(source)
    return read_peft(folder, base) if (folder / CONFIG).is_file() else read_own(folder, base)


def changed_ns(source: str | Path) -> int:
    """When the files of an adapter last changed, in ns; 0 of one that is not on this disk."""
    path = on_disk(source)
    if path is None:
        return 0
    folder = path.parent if path.is_file() else path
    return max((file.stat().st_mtime_ns for file in folder.glob("*") if file.is_file()), default=0) if folder.is_dir() else 0


def _find(source: str | Path) -> Path:
    path = on_disk(source)
    if path is not None:
        folder = path.parent if path.is_file() else path
        if (folder / CONFIG).is_file() or "method" in read_record(folder):
            return folder
        raise AdapterError(f"The adapter must be a folder with {CONFIG} and {WEIGHTS}, or a file in one. Got {str(source)!r}.")
    if HUB_ID.fullmatch(str(source)):
        return hub_snapshot(str(source), (CONFIG, WEIGHTS))
    raise AdapterError(f"The adapter must be a folder, a file or a Hub id that exists. Got {str(source)!r}.")
