"""Adapter files and live models <-> factors."""

from lora_lab.adapters.adapter import Adapter
from lora_lab.adapters.folders import replaced, restore, saved_step
from lora_lab.adapters.live import VIRTUAL_TOKENS, from_model, moved_by, save, save_initial
from lora_lab.adapters.load import changed_ns, load_adapter
from lora_lab.adapters.own_format import load_trained, save_trained
from lora_lab.adapters.snapshots import SNAPSHOTS, Snapshot, drop_snapshots_after, read_snapshots, snapshot_files, write_snapshot

__all__ = [
    "SNAPSHOTS",
    "VIRTUAL_TOKENS",
    "Adapter",
    "Snapshot",
    "changed_ns",
    "drop_snapshots_after",
    "from_model",
    "load_adapter",
    "load_trained",
    "moved_by",
    "read_snapshots",
    "replaced",
    "restore",
    "save",
    "save_initial",
    "save_trained",
    "saved_step",
    "snapshot_files",
    "write_snapshot",
]
