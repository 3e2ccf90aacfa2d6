"""The geometry of a live model, read from its modules' attributes; loads no framework."""

from typing import TYPE_CHECKING, Any

from lora_lab.geometry import Architecture, Geometry, Kind, Loose, Matrix, Norm, Table
from lora_lab.roles import layer_of, role_of

if TYPE_CHECKING:
    from torch import nn


_LINEAR_KINDS: dict[str, Kind] = {
    "Conv1D": "conv1d",
    **dict.fromkeys(("Linear", "Linear4bit", "Linear8bitLt", "QuantizedLinear"), "linear"),
}


def read_geometry(model: "nn.Module") -> Geometry:
    """The geometry of a live model, on any device, `meta` included, quantized or not."""
    matrices: list[Matrix] = []
    tables: list[Table] = []
    norms: list[Norm] = []
    loose: list[Loose] = []
    seen: set[int] = set()
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        weight = own.get("weight")
        shape = _linear_shape(module)
        if shape is not None:
            kind = _LINEAR_KINDS.get(type(module).__name__, "own_linear")
            kind = "kept_linear" if kind == "linear" and kept & set(name.split(".")) else kind
            tied = weight is not None and id(weight) in seen
            bias = "bias" in own and id(own["bias"]) not in seen  # a masked language model's head keeps its bias elsewhere too
            matrices.append(Matrix(name, role_of(name), layer_of(name), *shape, bias, kind, tied=tied))
        elif hasattr(module, "num_embeddings") and weight is not None:
            tables += [Table(name, *weight.shape)] if id(weight) not in seen else []
        elif "Norm" in type(module).__name__ and weight is not None:
            norms.append(Norm(name, layer_of(name), weight.numel(), "bias" in own, is_rms="bias" not in own))
        else:
            fresh = {f"{name}.{key}" if name else key: p for key, p in own.items() if id(p) not in seen}
            flipped = bool(getattr(module, "is_transposed", False))
            matrices += [_experts(key, p, flipped) for key, p in fresh.items() if _is_experts(key, p)]
            loose += [Loose(key, layer_of(key), p.numel()) for key, p in fresh.items() if not _is_experts(key, p)]
        seen.update(id(p) for p in own.values())
    return Geometry(tuple(matrices), tuple(tables), tuple(norms), tuple(loose), _read_architecture(model))


def _linear_shape(module: "nn.Module") -> tuple[int, int] | None:
    """(d_out, d_in) of a linear map; transformers' Conv1D stores its weight the other way round."""
    kind = type(module).__name__
    if kind == "Conv1D":
        return int(module.nf), int(module.nx)  # type: ignore[arg-type]
    if "Linear" in kind and hasattr(module, "in_features"):
        return int(module.out_features), int(module.in_features)  # type: ignore[arg-type]
    return None


def _is_experts(name: str, parameter: Any) -> bool:
    return ".experts." in name and parameter.ndim == 3


def _experts(name: str, parameter: Any, flipped: bool) -> Matrix:
    """transformers 5 keeps the experts of a layer as one (experts, d_out, d_in) parameter, GPT-OSS with d_in first."""
    experts, d_out, d_in = parameter.shape
    d_out, d_in = (d_in, d_out) if flipped else (d_out, d_in)
    return Matrix(name, role_of(name), layer_of(name), d_out, d_in, kind="experts", experts=experts)


def _read_architecture(model: "nn.Module") -> Architecture | None:
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        return None
    text = config.get_text_config()
    hidden, heads = (_first(text, name, default=0) for name in ("hidden_size", "num_attention_heads"))
    kv_heads = 1 if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False) else heads
    capped = _first(text, "attn_logit_softcapping", "final_logit_softcapping", default=None)
    return Architecture(
        model_type=text.model_type,
        hidden=hidden,
        layers=_first(text, "num_hidden_layers", default=0),
        heads=heads,
        kv_heads=_first(text, "num_key_value_heads", default=kv_heads),
        head_dim=_first(text, "head_dim", "d_kv", default=hidden // max(heads, 1)),
        vocab=_first(text, "vocab_size", default=0),
        activation=_first(text, "hidden_act", "hidden_activation", "activation_function", "feed_forward_proj", default="gelu"),
        hidden_dropout=_first(text, "hidden_dropout_prob", "resid_pdrop", "hidden_dropout", "dropout_rate", "dropout", default=0.0),
        attention_dropout=_first(text, "attention_probs_dropout_prob", "attn_pdrop", "attention_dropout", default=0.0),
        experts_per_token=_first(text, "num_experts_per_tok", default=0),
        soft_cap=capped is not None,
        relative_positions=2 * _first(text, "position_buckets", default=0),
    )


def _first(config: Any, *names: str, default: Any) -> Any:
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if value is not None), default)
