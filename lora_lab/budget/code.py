"""A configuration as the code that sets it up in PEFT and transformers."""

from dataclasses import replace

from lora_lab.budget.budget import Budget
from lora_lab.budget.counts import targeted
from lora_lab.geometry import resolve_targets
from lora_lab.specs import ALL_LINEAR, METHODS, MethodSpec, StepSpec

_OPTIM = {
    "adamw": "adamw_torch",
    "adamw8bit": "adamw_bnb_8bit",
    "paged-adamw8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
_ATTENTION = {"sdpa": "sdpa", "flash": "flash_attention_2", "eager": "eager"}
_DTYPE = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_QUANT = {
    "int8": "BitsAndBytesConfig(load_in_8bit=True)",
    "nf4": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="{dtype}")',
    "nf4-dq": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,'
    ' bnb_4bit_compute_dtype="{dtype}")',
}


def peft_code(made: Budget) -> str:
    """The method's PEFT config, or what sets the base's own parameters to train."""
    spec = made.spec
    if spec.method in _LOOPS:
        return _LOOPS[spec.method](spec)
    if spec.method in ("adapter", "adapter_pfeiffer", "prelayer"):
        return f"# PEFT has no {METHODS[spec.method].label}."
    lora, *tokens = (_config_code(replace(made, spec=part), name) for part, name in zip(spec.parts(), _VARIABLES, strict=False))
    return "\n\n".join([lora, *tokens, *([_BOTH] if tokens else [])])


def _config_code(made: Budget, variable: str) -> str:
    name = _CONFIGS[made.spec.method]
    lines = "".join(f"    {key}={value},\n" for key, value in _arguments(made).items())
    return f"from peft import {name}\n\n{variable} = {name}(\n{lines})"


def training_code(made: Budget) -> str:
    """How the base is loaded, and transformers' training arguments."""
    step = made.step
    dtype = _DTYPE[step.dtype]
    load = {"dtype": f'"{dtype}"', "attn_implementation": f'"{_ATTENTION[step.attention]}"'}
    imports = ["TrainingArguments"]
    if step.quant != "none":
        load["quantization_config"] = _QUANT[step.quant].format(dtype=dtype)
        imports.insert(0, "BitsAndBytesConfig")
    loaded = "".join(f"    {key}={value},\n" for key, value in load.items())
    arguments = "".join(f"    {key}={value},\n" for key, value in _training_arguments(step).items())
    prepare = "\n# model = prepare_model_for_kbit_training(model)  # from peft" if step.kbit_prepare else ""
    return (
        f"from transformers import {', '.join(imports)}\n\nload = dict(  # for from_pretrained\n{loaded}){prepare}\n"
        f"arguments = TrainingArguments(\n{arguments})"
    )


def _training_arguments(step: StepSpec) -> dict[str, object]:
    arguments: dict[str, object] = {
        "per_device_train_batch_size": step.batch,
        "optim": f'"{_OPTIM[step.optimizer]}"',
        "gradient_checkpointing": step.checkpointing,
    }
    return arguments | ({"use_liger_kernel": True} if step.fused_loss else {})


_VARIABLES = ("config", "tokens")
_BOTH = """# lower = get_peft_model(model, config)
# both = get_peft_model(lower.get_base_model(), tokens)
# the second freezes the first's factors:
# set them to train again"""
_CONFIGS = {
    **dict.fromkeys(("lora", "rslora", "lora+", "dora", "qlora"), "LoraConfig"),
    "vera": "VeraConfig",
    "adalora": "AdaLoraConfig",
    "ia3": "IA3Config",
    "ln_tuning": "LNTuningConfig",
    "prefix": "PrefixTuningConfig",
    "preembed": "PromptTuningConfig",
}


def _arguments(made: Budget) -> dict[str, object]:
    spec = made.spec
    if METHODS[spec.method].r_is == "virtual tokens":
        return {"num_virtual_tokens": spec.r, "task_type": _task_type(made)}
    if spec.method == "ln_tuning":
        names = dict.fromkeys(norm.name.rsplit(".", 1)[-1] for norm in made.model.geometry.norms)
        return {"target_modules": list(names), "task_type": _task_type(made)}
    arguments: dict[str, object] = {"init_r" if spec.method == "adalora" else "r": spec.r} if spec.method != "ia3" else {}
    if spec.method not in ("ia3", "vera"):
        arguments |= {"lora_alpha": f"{spec.lora_alpha:g}", "lora_dropout": spec.lora_dropout}
    arguments |= _targets(made)
    arguments |= {flag: True for flag, method in (("use_rslora", "rslora"), ("use_dora", "dora")) if spec.method == method}
    if spec.method == "adalora":
        arguments["total_step"] = 1000
    if spec.layers_to_transform is not None:
        arguments["layers_to_transform"] = list(spec.layers_to_transform)
    if spec.bias != "none":
        arguments["bias"] = repr(spec.bias)
    return {**arguments, "task_type": _task_type(made)}


def _targets(made: Budget) -> dict[str, object]:
    """Module names as PEFT matches them; experts are parameters, not modules."""
    geometry, spec = made.model.geometry, made.spec
    matrices = targeted(geometry, spec)
    if ALL_LINEAR in spec.targets and not any(m.kind == "experts" for m in geometry.matrices):
        return {"target_modules": f'"{ALL_LINEAR}"'}
    if ALL_LINEAR in spec.targets:  # on a mixture PEFT would reach for the experts as well
        return {"target_modules": list(dict.fromkeys(m.name.rsplit(".", 1)[-1] for m in matrices))}
    names = resolve_targets(geometry, spec.targets, r=1)
    experts = {m.name for m in matrices if m.kind == "experts"}
    parameters = [name for name in names if {m.name for m in geometry.matching(name)} <= experts]
    modules = [name for name in names if name not in parameters]
    found: dict[str, object] = {"target_modules": modules}
    if parameters:
        found["target_parameters"] = [f"mlp.experts.{name}" if "." not in name else name for name in parameters]
    if spec.method == "ia3":
        down = {m.name for m in matrices if m.role == "down"}
        found["feedforward_modules"] = [name for name in modules if {m.name for m in geometry.matching(name)} <= down]
    return found


def _task_type(made: Budget) -> str:
    if made.model.geometry.task_heads:
        return '"SEQ_CLS"'
    writes = any(m.role == "head" for m in made.model.geometry.matrices)
    return '"CAUSAL_LM"' if writes else '"FEATURE_EXTRACTION"'


def _full(_: MethodSpec) -> str:
    return "model.requires_grad_(True)"


def _bitfit(_: MethodSpec) -> str:
    return 'for name, parameter in model.named_parameters():\n    parameter.requires_grad_(name.endswith("bias"))'


def _partial(spec: MethodSpec) -> str:
    if spec.layers_to_transform is not None:
        chosen = f"[layers[i] for i in {list(spec.layers_to_transform)}]"
    else:
        chosen = f"layers[-{spec.r}:]"
    loop = f"for layer in {chosen}:  # layers: the model's own list of them\n    layer.requires_grad_(True)"
    return f"model.requires_grad_(False)\n{loop}"


_LOOPS = {"full": _full, "bitfit": _bitfit, "partial": _partial}
