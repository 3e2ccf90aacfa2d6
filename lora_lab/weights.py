"""A base's matrices read one at a time from its safetensors files; the whole is never loaded."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
import transformers
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, WeightTransform, rename_source_key

from lora_lab.errors import DataError
from lora_lab.geometry import Matrix

T = TypeVar("T")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_EXPERT = re.compile(r"(?P<parameter>.+)\[(?P<expert>\d+)\]")
_TURNED_EXPERTS = {"gpt_oss"}


class BaseWeights:
    """The matrices W of a base in a folder, in one file or in shards, found by their names in the live model.

    A checkpoint may know a matrix by another name: `encoder.layer.0…` of a BertModel is `bert.encoder.layer.0…` in a
    classifier, and transformers renames what some families (ViT) once saved otherwise.

    Args:
        folder: holds model.safetensors, or its shards with their index, beside config.json.
        matrices: the geometry's matrices in the model's order, for `named`.

    Raises:
        DataError: there are no such files.
    """

    def __init__(self, folder: str | Path, matrices: Iterable[Matrix] = ()) -> None:
        self.folder = Path(folder)
        self.matrices = tuple(matrices)
        self._files = self._find_files()

    def matrix(self, matrix: Matrix, *, expert: int = 0) -> Float[Tensor, "d_out d_in"]:
        """The original W of a matrix in float32, turned round where the family stores it as (d_in, d_out).

        Args:
            matrix: which.
            expert: which of its maps, where one parameter holds the experts of a layer.

        Raises:
            DataError: the checkpoint has no such matrix, several that it may be, or one of another shape.
        """
        pair = (matrix.d_in, matrix.d_out) if self._is_turned(matrix) else (matrix.d_out, matrix.d_in)
        expected = (matrix.experts, *pair) if matrix.kind == "experts" else pair
        with self._open(key := self._key_of(matrix)) as tensors:
            stored = tensors.get_slice(key)
            if (shape := tuple(stored.get_shape())) != expected:
                raise DataError(f"The tensor {key} in {self.folder} must be {expected}. Got {shape}.")
            weight: Tensor = stored[expert] if matrix.kind == "experts" else stored[:]
        return self.oriented(matrix, weight).to(torch.float32).contiguous()

    def oriented(self, matrix: Matrix, stored: Tensor) -> Tensor:
        """A weight as the family stores it, or a stack of them, as (…, d_out, d_in)."""
        return stored.mT if self._is_turned(matrix) else stored

    def find(self, name: str) -> Matrix:
        """The one of `matrices` that a module is, whatever prefix either has.

        Raises:
            DataError: there is none.
        """
        found = _by_ending(name, {m.name: m for m in self.matrices})
        if len(found) != 1:
            raise DataError(f"The matrices of the base must include {name} once. Got {len(found)} of that name.")
        return found[0]

    def named(self, name: str) -> Float[Tensor, "d_out d_in"]:
        """The original W of the module of that name, `name[i]` being map i of a parameter that holds a layer's experts.

        Raises:
            DataError: the base has no such matrix.
        """
        if (found := _EXPERT.fullmatch(name)) is None:
            return self.matrix(self.find(name))
        matrix, expert = self.find(found["parameter"]), int(found["expert"])
        if matrix.kind != "experts" or expert >= matrix.experts:
            raise DataError(f"The matrices of the base must include {name}. Got {matrix.name} with {matrix.experts} in it.")
        return self.matrix(matrix, expert=expert)

    def _find_files(self) -> dict[str, Path]:
        """{key in the checkpoint: the file that holds it}."""
        try:
            if (self.folder / _INDEX).is_file():
                names = json.loads((self.folder / _INDEX).read_text())["weight_map"]
                return {key: self.folder / name for key, name in names.items()}
            with safe_open(self.folder / _WEIGHTS, framework="pt") as tensors:
                return dict.fromkeys(tensors.keys(), self.folder / _WEIGHTS)
        except (SafetensorError, OSError, ValueError, LookupError, AttributeError, TypeError) as err:
            what = f"{_WEIGHTS} or shards with {_INDEX}"
            raise DataError(f"The base folder {self.folder} must hold {what}. Reading it gave {type(err).__name__}.") from None

    def _open(self, key: str) -> safe_open:
        try:
            return safe_open(self._files[key], framework="pt")
        except (SafetensorError, OSError) as err:
            raise DataError(f"{self._files[key]} must be a safetensors file. It cannot be read: {err}.") from None

    def _key_of(self, matrix: Matrix) -> str:
        # The experts of a layer are a parameter themselves, all else is a module with a weight.
        wanted = matrix.name if matrix.kind == "experts" else f"{matrix.name}.weight"
        found = _by_ending(wanted, {key: key for key in self._files}) or _by_ending(wanted, self._renamed)
        if len(found) != 1:
            among = f"Got {len(self._files)} tensors and {len(found) or 'none'} of that name"
            raise DataError(f"The weights in {self.folder} must include {wanted} once. {among}.")
        return found[0]

    def _is_turned(self, matrix: Matrix) -> bool:
        """Whether the family stores it as (d_in, d_out); a square one does not tell by its shape."""
        return matrix.kind == "conv1d" or (matrix.kind == "experts" and self._model_type in _TURNED_EXPERTS)

    @cached_property
    def _model_type(self) -> str:
        try:
            return str(json.loads((self.folder / "config.json").read_text())["model_type"])
        except (OSError, ValueError, LookupError, TypeError):
            return ""

    @cached_property
    def _renamed(self) -> dict[str, str]:
        """{name in the live model: key in the checkpoint}, for what transformers renames and leaves as it is."""
        rules = self._conversions()
        renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        names = {key: rename_source_key(key, renamings, converters) for key in self._files}
        # What a converter takes is not one matrix of the model: experts saved one by one, say.
        return {name: key for key, (name, converted) in names.items() if converted is None}

    def _conversions(self) -> list[WeightTransform]:
        """What transformers does to this checkpoint's names: it asks a model of the class that was saved, so does this."""
        try:
            config = AutoConfig.from_pretrained(self.folder)
            model_class = getattr(transformers, config.architectures[0])
            with torch.device("meta"):
                return list(get_model_conversion_mapping(model_class._from_config(config)))
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            return []


def _by_ending(wanted: str, known: Mapping[str, T]) -> list[T]:
    """What is called so; else what ends so; else the one whose whole name is the longest ending of the wanted one."""
    if wanted in known:
        return [known[wanted]]
    longer = [value for name, value in known.items() if name.endswith(f".{wanted}")]
    shorter = [name for name in known if wanted.endswith(f".{name}")]
    return longer or [known[name] for name in sorted(shorter, key=len)[-1:]]
