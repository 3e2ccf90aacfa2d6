"""The tensors of an adapter's folder; pickles are not opened."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lora_lab.errors import AdapterError

WEIGHTS = "adapter_model.safetensors"


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """What `adapter_model.safetensors` holds.

    Raises:
        AdapterError: it is not there, or no such file.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise AdapterError(f"{folder} must hold {WEIGHTS}; pickles (.bin) are not opened. It is not there.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as err:
        raise AdapterError(f"{path} must be a safetensors file. It cannot be read: {err}.") from None
