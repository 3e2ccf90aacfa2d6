"""What a module does, told by how its name ends: `q_proj`, `query` and `SelfAttention.q` are one role."""

from typing import Literal, get_args

Role = Literal["embedding", "q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down", "router", "pooler", "head", "other"]
ROLES: tuple[Role, ...] = get_args(Role)
# Where a family stores several matrices as one, a role stands for the matrix that holds it.
FUSED: dict[Role, Role] = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}

# Endings of module names, most telling first: BERT calls three different matrices "dense".
_ENDINGS: tuple[tuple[Role, tuple[str, ...]], ...] = (
    ("o", ("attention.output.dense", "attn.c_proj", "attention.dense", "self_attention.dense", "self_attn.dense", "attn.Wo")),
    ("up", ("intermediate.dense",)),
    ("pooler", ("pooler.dense",)),
    ("down", ("output.dense", "mlp.c_proj", "mlp.Wo", "dense_4h_to_h", "DenseReluDense.wo")),
    ("embedding", ("embed_tokens", "wte", "word_embeddings", "embed_in", "shared")),
    ("router", ("mlp.gate", "block_sparse_moe.gate", "mlp.router", "router")),
    ("qkv", ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "qkv")),
    ("gate_up", ("gate_up_proj", "mlp.Wi")),
    ("q", ("q_proj", "query", "query_proj", "q_lin", "SelfAttention.q", "EncDecAttention.q")),
    ("k", ("k_proj", "key", "key_proj", "k_lin", "SelfAttention.k", "EncDecAttention.k")),
    ("v", ("v_proj", "value", "value_proj", "v_lin", "SelfAttention.v", "EncDecAttention.v")),
    ("o", ("o_proj", "out_proj", "out_lin", "SelfAttention.o", "EncDecAttention.o")),
    ("gate", ("gate_proj", "wi_0")),
    ("up", ("up_proj", "fc1", "lin1", "c_fc", "fc_in", "dense_h_to_4h", "wi", "wi_1")),
    ("down", ("down_proj", "fc2", "lin2", "fc_out")),
)
_ROLE_OF = {ending: role for role, endings in reversed(_ENDINGS) for ending in endings}
# A head is such a module, or lies in one.
_TASK_HEADS = {"classifier", "classification_head", "logits_proj", "score", "pre_classifier"}
_HEADS = {*_TASK_HEADS, "lm_head", "embed_out", "cls", "generator_predictions"}


def role_of(name: str) -> Role:
    """What a module does, from how its name ends.

    >>> role_of("bert.encoder.layer.0.attention.output.dense"), role_of("model.layers.3.self_attn.q_proj"), role_of("gpt.wte")
    ('o', 'q', 'embedding')
    """
    parts = name.split(".")
    if _HEADS & set(parts):
        return "head"
    endings = (".".join(parts[-length:]) for length in (3, 2, 1))
    return next((_ROLE_OF[ending] for ending in endings if ending in _ROLE_OF), "other")


def is_task_head(name: str) -> bool:
    """Whether a module belongs to a head that fine-tuning trains in full; a language model's output is none."""
    return bool(_TASK_HEADS & set(name.split(".")))


def head_module(name: str) -> str:
    """The outermost module that makes a head of the named one."""
    parts = name.split(".")
    return ".".join(parts[: next(i for i, part in enumerate(parts) if part in _HEADS) + 1])


def layer_of(name: str) -> int | None:
    """The first number in a module's path is its layer.

    >>> layer_of("vit.layers.2.attention.v_proj"), layer_of("classifier")
    (2, None)
    """
    numbers = [part for part in name.split(".") if part.isdigit()]
    return int(numbers[0]) if numbers else None


def stack_of(name: str) -> str:
    """The path down to the layer: encoder and decoder have a layer 0 each.

    >>> stack_of("encoder.block.0.layer.0.SelfAttention.q")
    'encoder.block.0'
    """
    parts = name.split(".")
    depth = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return "" if depth is None else ".".join(parts[: depth + 1])


def label_of(name: str) -> str:
    """How people call a matrix.

    >>> label_of("vit.layers.2.attention.v_proj")
    'layer 2 · v'
    """
    role, layer = role_of(name), layer_of(name)
    short = role if role != "other" else name.rsplit(".", 1)[-1]
    return short if layer is None else f"layer {layer} · {short}"


def matrix_label(name: str) -> str:
    """How a menu calls a matrix: as people do, with its own name behind.

    >>> matrix_label("vit.layers.3.attention.v_proj")
    'layer 3 · v  (vit.layers.3.attention.v_proj)'
    """
    return f"{label_of(name)}  ({name})"
