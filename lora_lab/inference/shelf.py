"""Several adapters on one base in memory, switched by name."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import load_peft_weights
from torch import Tensor, nn

from lora_lab.errors import AdapterError, out_of_range
from lora_lab.methods import quantized

# Initialisations that take from the base's weights what they put into A and B: the base would no longer be the base.
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class AdapterShelf:
    """A base and the adapters that were put on it, one of them or none in use.

    PEFT holds the adapters and switches them; the shelf adds what PEFT's `disable_adapter` leaves on (trained biases), and any
    number of adapters with biases. Not for training: the base is frozen and in eval mode from the first adapter on.

    Args:
        base: a plain model, quantized or not; its modules are wrapped in place.

    Raises:
        AdapterError: the base carries PEFT's adapters already.
    """

    def __init__(self, base: nn.Module) -> None:
        if isinstance(base, PeftModel) or any(isinstance(module, BaseTuner) for module in base.modules()):
            raise AdapterError(out_of_range("base", "AdapterShelf", "a model without an adapter", type(base).__name__))
        quantized.keep_exact(base)
        self._base = base
        self._parameters = dict(base.named_parameters())
        self._model: PeftModel | None = None
        self._labels: dict[str, str] = {}
        self._added = 0
        self._biases: dict[str, dict[str, Tensor]] = {}
        self._own_biases: dict[str, Tensor] = {}
        self._active: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters, in the order they came."""
        return tuple(self._labels)

    @property
    def active(self) -> str | None:
        """The adapter in use; None where it is the base alone."""
        return self._active

    def add(self, name: str, folder: Path) -> None:
        """Load a PEFT folder; what is in use stays in use.

        Raises:
            AdapterError: the name is taken, the folder has no adapter that fits the base, or it is of a kind that cannot share a
                base: another PEFT method than the first one's, a prompt or prefix, an initialisation that changes the base.
        """
        if name in self._labels:
            raise AdapterError(out_of_range("name", "AdapterShelf.add", "a new one", name))
        config = _config_of(folder)
        self._check(config, folder)
        biases = self._biases_of(config, folder)
        label = f"shelf{self._added}"  # PEFT makes a module's name of it, and a user's may have a dot
        self._load(config, folder, label)
        self._added += 1
        self._labels[name], self._biases[name] = label, biases
        for key in biases:
            self._own_biases.setdefault(key, self._parameters[key].detach().clone())
        self._complete_norms()
        self._set(self._active)

    def remove(self, name: str) -> None:
        """Take an adapter off and free what it holds; if it is in use, the base is alone after that.

        Raises:
            AdapterError: no adapter has the name.
        """
        label = self._known(name)
        if name == self._active:
            self._set(None)
        del self._labels[name], self._biases[name]
        self._detach(label)

    def use(self, name: str | None) -> None:
        """Switch to an adapter, or to the base alone: no ΔW, its own head, its own biases, its own layer norms.

        Raises:
            AdapterError: no adapter has the name.
        """
        if name is not None:
            self._known(name)
        if name != self._active:
            self._set(name)

    @contextmanager
    def using(self, name: str | None) -> Iterator[nn.Module]:
        """The model with the adapter for a while; then what was in use before.

        Raises:
            AdapterError: no adapter has the name.
        """
        before = self._active
        self.use(name)
        try:
            yield self._base
        finally:
            self.use(before)

    @torch.no_grad()
    def logits(self, batch: Mapping[str, Tensor], name: str | None) -> Tensor:
        """The logits of a batch with an adapter, or of the base alone where None, without dropout.

        Raises:
            AdapterError: no adapter has the name.
        """
        device = next(self._base.parameters()).device
        self._base.eval()
        with self.using(name) as model:
            logits: Tensor = model(**{key: column.to(device) for key, column in batch.items()}).logits
        return logits

    def bytes_of(self, name: str) -> int:
        """What an adapter takes in memory: its matrices, its heads, its biases.

        Raises:
            AdapterError: no adapter has the name.
        """
        label = self._known(name)
        tensors = [*self._base.named_parameters(), *self._base.named_buffers()]
        held = sum(tensor.nbytes for path, tensor in tensors if label in path.split("."))
        return held + sum(bias.nbytes for bias in self._biases[name].values())

    def _known(self, name: str) -> str:
        if name not in self._labels:
            raise AdapterError(out_of_range("name", "AdapterShelf", f"one of {list(self._labels)}", name))
        return self._labels[name]

    def _set(self, name: str | None) -> None:
        if self._model is not None:
            tuner: Any = self._model.base_model
            if name is not None:
                self._model.set_adapter(self._labels[name], inference_mode=True)
            tuner._enable_adapter_layers(name is not None)
        wanted = self._biases[name] if name is not None else {}
        with torch.no_grad():
            for key, own in self._own_biases.items():
                self._parameters[key].copy_(wanted.get(key, own))
        self._base.requires_grad_(False).eval()
        self._active = name

    def _check(self, config: PeftConfig, folder: Path) -> None:
        kind = config.peft_type.value
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise AdapterError(
                f"The adapter in {folder} is of method {kind}, which changes no weight and cannot be put on a shelf."
            )
        first = self._model.peft_type.value if self._model is not None else kind
        if kind != first:
            raise AdapterError(f"The adapters of a shelf must be of one PEFT method, {first} here. Got {kind} in {folder}.")
        if self._model is not None and not getattr(config, "save_projection", True):
            raise AdapterError(f"The adapter in {folder} was saved without its random matrices and cannot share others' base.")
        start = getattr(config, "init_lora_weights", None)
        if isinstance(start, str) and start.lower().startswith(_CHANGE_THE_BASE):
            raise AdapterError(f"The adapter in {folder} starts as {start}, which changes the base's weights for all adapters.")

    def _biases_of(self, config: Any, folder: Path) -> dict[str, Tensor]:
        """The base's biases that the adapter trained, by their name in the base; its config forgets them, PEFT takes one such."""
        if getattr(config, "bias", "none") == "none":
            return {}
        config.bias = "none"
        found = {}
        for key, value in load_peft_weights(str(folder), device="cpu").items():
            name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
            parameter = self._parameters.get(name)
            if parameter is not None and name.endswith("bias"):
                found[name] = value.to(parameter.device, parameter.dtype)
        return found

    def _load(self, config: PeftConfig, folder: Path, label: str) -> None:
        """Attach and fill; where it fails, take it off again. What it writes into the base's biases is taken back."""
        biases = {key: parameter.detach().clone() for key, parameter in self._parameters.items() if key.endswith("bias")}
        config.inference_mode = True
        try:
            with _one_sentence(folder):
                self._attach(config, label)
                device = str(next(self._base.parameters()).device)
                assert self._model is not None
                self._model.load_adapter(str(folder), label, torch_device=device)
        except AdapterError:
            self._detach(label)
            raise
        finally:
            with torch.no_grad():
                for key, kept in biases.items():
                    self._parameters[key].copy_(kept)

    def _attach(self, config: PeftConfig, label: str) -> None:
        if self._model is None:
            self._model = PeftModel(self._base, copy.deepcopy(config), adapter_name=label)
        else:
            self._model.add_adapter(label, copy.deepcopy(config))

    def _detach(self, label: str) -> None:
        """Take an adapter off the base, loaded or not."""
        if self._model is None:
            return
        if not self._labels:
            self._model.base_model.unload()
            self._model = None
        elif label in self._model.peft_config:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where it was PEFT's active one, PEFT says which is now
                self._model.delete_adapter(label)
            self._set(self._active)

    def _complete_norms(self) -> None:
        """A tuned layer norm knows only the adapters that tuned it; for the others it is the base's own."""
        for layer in [module for module in self._base.modules() if isinstance(module, LNTuningLayer)]:
            for label in self._labels.values():
                if label not in layer.ln_tuning_layers:
                    layer.ln_tuning_layers[label] = copy.deepcopy(layer.base_layer)


def _config_of(folder: Path) -> PeftConfig:
    with _one_sentence(folder):
        config: PeftConfig = PeftConfig.from_pretrained(str(folder), local_files_only=True)
    return config


@contextmanager
def _one_sentence(folder: Path) -> Iterator[None]:
    """What PEFT says of a folder that it cannot load, as the user's error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, RuntimeError, KeyError, TypeError, OSError, NotImplementedError) as err:
        why = " ".join(str(err).split()) or type(err).__name__
        raise AdapterError(f"The adapter in {folder} cannot be put on this base: {why[:300]}") from err
