"""Models on the meta device: shapes without weights."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from lora_lab.errors import DataError

# Encoders have a class with a causal head too, which nobody means by their name.
_ENCODERS = {"bert", "roberta", "electra", "xlm-roberta", "camembert", "deberta", "deberta-v2", "distilbert", "albert"}


def build_model(config: Mapping[str, Any], *, dtype: torch.dtype = torch.float32, attention: str | None = None) -> nn.Module:
    """The model that a config describes, on the meta device, in training mode.

    The class is the one that `architectures` names; else the language model of the family; else its bare encoder.

    Raises:
        DataError: transformers builds no model from it.
    """
    values = {key: value for key, value in config.items() if key not in ("model_type", "dtype", "torch_dtype")}
    try:
        named = next((name for name in config.get("architectures") or () if hasattr(transformers, name)), None)
        parsed = AutoConfig.for_model(config["model_type"], **values)
        options = {} if attention is None else {"attn_implementation": attention}
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module
            if named is not None:
                model = getattr(transformers, named)._from_config(parsed, dtype=dtype, **options)
            else:
                model = _auto_class(parsed.model_type).from_config(parsed, dtype=dtype, **options)
    except Exception as err:  # transformers has many ways to refuse a config
        reason = str(err.__cause__ or err).split("\n", 1)[0]
        raise DataError(
            f"A config must be one that transformers can build. Got model_type {config['model_type']!r}: {reason}"
        ) from err
    return model.train()


def _auto_class(model_type: str) -> Any:
    if model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForSeq2SeqLM
    return AutoModelForCausalLM if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in _ENCODERS else AutoModel
