"""The families that claims are tried on, and a tiny random model of each."""

from typing import Any

import torch
import transformers
from torch import nn

_ENCODER = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 56,
    "max_position_embeddings": 40,
}
_DECODER = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WIDE_HEADS = {**_DECODER, "head_dim": 8}  # four heads of 8 on a width of 24
_GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "bos_token_id": 0, "eos_token_id": 0}
_DEBERTA = {
    **_ENCODER,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "max_relative_positions": -1,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}
_OPT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 56,
    "max_position_embeddings": 40,
    "word_embed_proj_dim": 16,
}
_T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 56,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
}
# Of each family, by transformers' model_type: the class, and a config whose dimensions differ wherever they may.
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", _ENCODER),
    "roberta": ("RobertaForSequenceClassification", _ENCODER),
    "deberta-v2": ("DebertaV2ForSequenceClassification", _DEBERTA),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 56},
    ),
    "gpt2": ("GPT2LMHeadModel", _GPT2),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", _GPT2),
    "gpt_neox": ("GPTNeoXForCausalLM", _ENCODER),
    "falcon": ("FalconForCausalLM", {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}),
    "bloom": ("BloomForCausalLM", {"vocab_size": 40, "hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "mpt": ("MptForCausalLM", {"vocab_size": 40, "d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 40}),
    "opt": ("OPTForCausalLM", _OPT),
    "llama": ("LlamaForCausalLM", _DECODER),
    "mistral": ("MistralForCausalLM", _DECODER),
    "mixtral": ("MixtralForCausalLM", {**_DECODER, "num_local_experts": 4}),
    "qwen2": ("Qwen2ForCausalLM", _DECODER),
    "qwen3": ("Qwen3ForCausalLM", _WIDE_HEADS),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        {**_WIDE_HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12},
    ),
    "gpt_oss": (
        "GptOssForCausalLM",
        {**_WIDE_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": {"rope_type": "default"}},
    ),
    "gemma": ("GemmaForCausalLM", _WIDE_HEADS),
    "gemma2": ("Gemma2ForCausalLM", _WIDE_HEADS),
    "gemma3_text": ("Gemma3ForCausalLM", _WIDE_HEADS),
    "phi": ("PhiForCausalLM", {**_DECODER, "hidden_size": 32}),
    "phi3": ("Phi3ForCausalLM", _DECODER),
    "t5": ("T5ForConditionalGeneration", _T5),
    "vit": ("ViTForImageClassification", _VIT),
}


def tiny_model(family: str, *, device: str = "meta", dtype: torch.dtype = torch.float32) -> nn.Module:
    """A fresh random model of a family, a few thousand parameters large."""
    name, values = TINY[family]
    model_class = getattr(transformers, name)
    with torch.device(device):
        model: nn.Module = model_class._from_config(model_class.config_class(**values), dtype=dtype)
    return model
