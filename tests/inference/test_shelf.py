"""Several adapters on one base: each answers as if it were alone, and the base as if there were none."""

import random
import shutil
import warnings

import pytest
import torch

from lora_lab.errors import AdapterError
from lora_lab.inference import AdapterShelf

BERT = {
    "two": {"r": 2, "target_modules": ["query", "value"]},
    "five.rslora": {"r": 5, "use_rslora": True, "target_modules": ["query", "intermediate.dense"]},
    "dora": {"r": 3, "use_dora": True, "target_modules": ["value", "output.dense"]},
    "head": {"r": 4, "target_modules": ["key"], "modules_to_save": ["classifier"]},
    "patterned": {"r": 3, "target_modules": ["query", "key"], "rank_pattern": {"query": 7}},
}
LLAMA = {
    "two": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
    "five.rslora": {"r": 5, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    "dora": {"r": 3, "use_dora": True, "target_modules": ["v_proj", "up_proj"]},
    "head": {"r": 4, "target_modules": ["k_proj"], "modules_to_save": ["lm_head"]},
    "patterned": {"r": 3, "target_modules": ["q_proj", "k_proj"], "rank_pattern": {"q_proj": 7}},
}


def lora(**values):
    from peft import LoraConfig

    return LoraConfig(**values)


def saved(tiny, family, configs, folder):
    """Each config's adapter as a folder, every parameter of it random."""
    folders = {}
    for seed, (name, config) in enumerate(configs.items()):
        model = tiny.adapted(tiny.base(family), config, seed=seed)
        model.save_pretrained(folder / name)
        folders[name] = folder / name
    return folders


def alone(tiny, base, folder, inputs):
    """What a freshly loaded adapter answers on a base of its own."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of layer norms that it does support
        model = PeftModel.from_pretrained(base, folder)
    return tiny.logits(model, inputs)


def assert_each_is_alone(tiny, fresh, folders, inputs):
    """Twenty switches in a random order, None among them; every answer is that of a model of its own, to the bit."""
    expected = {name: alone(tiny, fresh(), folder, inputs) for name, folder in folders.items()}
    expected[None] = tiny.logits(fresh(), inputs)
    assert len({tuple(logits.flatten().tolist()) for logits in expected.values()}) == len(expected)
    base = fresh()
    weights, parameters = tiny.snapshot(base), dict(base.named_parameters())
    shelf = AdapterShelf(base)
    for name, folder in folders.items():
        shelf.add(name, folder)
    order = random.Random(0)
    for _ in range(20):
        name = order.choice([*folders, None])
        shelf.use(name)
        assert shelf.active == name
        assert torch.equal(tiny.logits(base, inputs), expected[name]), name
        other = order.choice([*folders, None])
        assert torch.equal(shelf.logits(inputs, other), expected[other]), (name, other)
        assert shelf.active == name
    shelf.use(None)
    assert [name for name, parameter in parameters.items() if not torch.equal(parameter, weights[name])] == []
    return shelf


def test_five_adapters_on_bert(tiny, tmp_path):
    folders = saved(tiny, "bert", {name: lora(**values) for name, values in BERT.items()}, tmp_path)
    assert assert_each_is_alone(tiny, lambda: tiny.base("bert"), folders, tiny.batch("bert")).names == tuple(BERT)


@pytest.mark.parametrize("how", ["nf4", "nf4-dq", "int8"])
def test_five_adapters_on_a_quantized_base(how, tiny, few_bits, tmp_path):
    folders = saved(tiny, "llama", {name: lora(**values) for name, values in LLAMA.items()}, tmp_path)
    assert_each_is_alone(tiny, lambda: few_bits(how), folders, tiny.batch("llama"))


def test_an_untied_head_beside_adapters_of_a_tied_model(tiny, tmp_path):
    values = {"fan_in_fan_out": True, "r": 3}
    configs = {
        "attention": lora(target_modules=["c_attn"], **values),
        "mlp": lora(target_modules=["c_fc"], use_dora=True, **values),
    }
    assert_each_is_alone(tiny, lambda: tiny.base("gpt2"), saved(tiny, "gpt2", configs, tmp_path), tiny.batch("gpt2"))


@pytest.mark.parametrize("order", [1, -1])
def test_trained_biases_come_and_go_with_their_adapters(order, tiny, tmp_path):
    configs = {
        "plain": lora(r=2, target_modules=["query", "intermediate.dense"]),
        "all": lora(r=3, target_modules=["query"], bias="all"),
        "lora only": lora(r=4, target_modules=["value"], bias="lora_only"),
        "all and head": lora(r=2, target_modules=["value"], bias="all", modules_to_save=["classifier"]),
    }
    folders = saved(tiny, "bert", configs, tmp_path)
    folders = dict(list(folders.items())[::order])
    assert_each_is_alone(tiny, lambda: tiny.base("bert"), folders, tiny.batch("bert"))


def test_layer_norms_come_and_go_with_their_adapters(tiny, tmp_path):
    from peft import LNTuningConfig

    configs = {
        "all": LNTuningConfig(target_modules=["LayerNorm"]),
        "attention": LNTuningConfig(target_modules=["attention.output.LayerNorm"]),
        "embeddings": LNTuningConfig(target_modules=["embeddings.LayerNorm"], modules_to_save=["classifier"]),
    }
    folders = saved(tiny, "bert", configs, tmp_path)
    assert_each_is_alone(tiny, lambda: tiny.base("bert"), folders, tiny.batch("bert"))


def test_ia3_and_vera_and_adalora_share_a_base_with_their_own_kind(tiny, tmp_path):
    from peft import AdaLoraConfig, IA3Config, VeraConfig

    kinds = {
        "ia3": [
            IA3Config(target_modules=["key", "value"], feedforward_modules=[]),
            IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]),
        ],
        "vera": [VeraConfig(r=4, target_modules=["query", "value"]), VeraConfig(r=4, target_modules=["query"])],
        "adalora": [
            AdaLoraConfig(init_r=4, target_modules=["query"], total_step=5),
            AdaLoraConfig(init_r=3, target_modules=["query", "key"], total_step=5),
        ],
    }
    for kind, configs in kinds.items():
        folders = saved(tiny, "bert", dict(zip("ab", configs, strict=True)), tmp_path / kind)
        assert_each_is_alone(tiny, lambda: tiny.base("bert"), folders, tiny.batch("bert"))


def test_vera_without_its_projections_is_alone_on_its_base(tiny, tmp_path):
    from peft import VeraConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT advises against what is tried here
        configs = {r: VeraConfig(r=r, target_modules=["query"], save_projection=False) for r in (6, 4)}
        folders = saved(tiny, "bert", {str(r): config for r, config in configs.items()}, tmp_path)
    shelf = AdapterShelf(tiny.base("bert"))
    shelf.add("6", folders["6"])
    with pytest.raises(AdapterError, match="was saved without its random matrices"):
        shelf.add("4", folders["4"])


def test_experts_share_a_base(tiny, tmp_path):
    values = {"target_modules": [], "target_parameters": ["experts.down_proj"]}
    configs = {"two": lora(r=2, **values), "three": lora(r=3, **values)}
    assert_each_is_alone(tiny, lambda: tiny.base("mixtral"), saved(tiny, "mixtral", configs, tmp_path), tiny.batch("mixtral"))


def test_using_is_for_a_while_even_when_the_body_fails(tiny, tmp_path):
    folders = saved(tiny, "bert", {name: lora(**BERT[name]) for name in ("two", "head")}, tmp_path)
    shelf = AdapterShelf(tiny.base("bert"))
    for name, folder in folders.items():
        shelf.add(name, folder)
    assert shelf.active is None
    with shelf.using("two") as model:
        assert shelf.active == "two"
        with pytest.raises(KeyError), shelf.using("head"):
            raise KeyError
        assert torch.equal(tiny.logits(model, tiny.batch("bert")), shelf.logits(tiny.batch("bert"), "two"))
    assert shelf.active is None


def test_adding_leaves_in_use_what_is(tiny, tmp_path):
    folders = saved(tiny, "bert", {name: lora(**BERT[name]) for name in ("two", "head")}, tmp_path)
    shelf, inputs = AdapterShelf(tiny.base("bert")), tiny.batch("bert")
    shelf.add("two", folders["two"])
    shelf.use("two")
    before = tiny.logits(shelf._base, inputs)
    shelf.add("head", folders["head"])
    assert shelf.active == "two"
    assert torch.equal(tiny.logits(shelf._base, inputs), before)


def test_bytes_are_those_of_the_file(tiny, tmp_path):
    from safetensors.torch import load_file

    configs = {
        "dora": lora(**BERT["dora"]),
        "head": lora(**BERT["head"]),
        "bias": lora(r=2, target_modules=["key"], bias="lora_only"),
    }
    folders = saved(tiny, "bert", configs, tmp_path)
    shelf = AdapterShelf(tiny.base("bert"))
    for name, folder in folders.items():
        shelf.add(name, folder)
        assert shelf.bytes_of(name) == sum(t.nbytes for t in load_file(folder / "adapter_model.safetensors").values())


def test_an_8_bit_base_takes_an_adapter_after_it_has_run(tiny, few_bits, tmp_path):
    folders = saved(tiny, "llama", {name: lora(**LLAMA[name]) for name in ("two", "dora")}, tmp_path)
    shelf, inputs = AdapterShelf(few_bits("int8")), tiny.batch("llama")
    for name, folder in folders.items():
        shelf.logits(inputs, None)
        shelf.add(name, folder)
        assert torch.equal(shelf.logits(inputs, name), alone(tiny, few_bits("int8"), folder, inputs))


def test_an_empty_shelf_is_its_base(tiny):
    shelf, inputs = AdapterShelf(tiny.base("bert")), tiny.batch("bert")
    assert shelf.names == ()
    assert torch.equal(shelf.logits(inputs, None), tiny.logits(tiny.base("bert"), inputs))


def test_names_are_checked(tiny, tmp_path):
    folders = saved(tiny, "bert", {"two": lora(**BERT["two"])}, tmp_path)
    shelf = AdapterShelf(tiny.base("bert"))
    shelf.add("two", folders["two"])
    with pytest.raises(AdapterError, match=r"The name parameter of AdapterShelf.add must be a new one. Got 'two'"):
        shelf.add("two", folders["two"])
    with pytest.raises(AdapterError, match=r"The name parameter of AdapterShelf must be one of \['two'\]. Got 'three'"):
        shelf.use("three")


def test_a_base_that_carries_an_adapter_is_refused(tiny):
    model = tiny.adapted(tiny.base("bert"), lora(**BERT["two"]))
    with pytest.raises(AdapterError, match="The base parameter of AdapterShelf must be a model without an adapter"):
        AdapterShelf(model)


def test_what_cannot_share_a_base_is_refused_and_leaves_the_shelf_as_it_was(tiny, tmp_path):
    from peft import IA3Config, PrefixTuningConfig

    configs = {"lora": lora(**BERT["two"]), "ia3": IA3Config(target_modules=["key"], feedforward_modules=[])}
    folders = saved(tiny, "bert", configs, tmp_path)
    folders |= saved(tiny, "gpt2", {"wide": lora(r=2, target_modules=["c_attn"])}, tmp_path)
    prefix = PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    folders |= saved(tiny, "llama", {"prefix": prefix}, tmp_path)
    pissa = shutil.copytree(folders["lora"], tmp_path / "pissa")
    text = (pissa / "adapter_config.json").read_text()
    (pissa / "adapter_config.json").write_text(text.replace('"init_lora_weights": true', '"init_lora_weights": "pissa_niter_4"'))
    truncated = shutil.copytree(folders["lora"], tmp_path / "resized")
    text = (truncated / "adapter_config.json").read_text()
    (truncated / "adapter_config.json").write_text(text.replace('"r": 2', '"r": 3'))
    refused = {
        folders["ia3"]: "The adapters of a shelf must be of one PEFT method, LORA here. Got IA3",
        folders["prefix"]: "is of method PREFIX_TUNING, which changes no weight",
        folders["wide"]: "cannot be put on this base: Target modules",
        pissa: "starts as pissa_niter_4, which changes the base's weights",
        truncated: "cannot be put on this base: Error.* in loading.*size mismatch",
        tmp_path / "nowhere": "cannot be put on this base: Can't find",
    }
    shelf, inputs = AdapterShelf(tiny.base("bert")), tiny.batch("bert")
    shelf.add("lora", folders["lora"])
    shelf.use("lora")
    before, state = tiny.logits(shelf._base, inputs), tiny.snapshot(shelf._base)
    for folder, sentence in refused.items():
        with pytest.raises(AdapterError, match=sentence):
            shelf.add("new", folder)
        assert shelf.names == ("lora",)
        assert torch.equal(tiny.logits(shelf._base, inputs), before)
        tiny.assert_same(tiny.snapshot(shelf._base), state)


def test_a_first_adapter_that_fails_leaves_a_plain_base(tiny, tmp_path):
    folders = saved(tiny, "bert", {"lora": lora(**BERT["two"])}, tmp_path)
    (folders["lora"] / "adapter_model.safetensors").unlink()
    base = tiny.base("bert")
    shelf = AdapterShelf(base)
    with pytest.raises(AdapterError, match="cannot be put on this base"):
        shelf.add("lora", folders["lora"])
    tiny.assert_same(tiny.snapshot(base), tiny.snapshot(tiny.base("bert")))
    good = saved(tiny, "bert", {"good": lora(**BERT["dora"])}, tmp_path)["good"]
    shelf.add("good", good)
    expected = alone(tiny, tiny.base("bert"), good, tiny.batch("bert"))
    assert torch.equal(shelf.logits(tiny.batch("bert"), "good"), expected)


@pytest.mark.parametrize("in_use", ["two", "head", None])
def test_a_removed_adapter_leaves_the_others_as_they_were(in_use, tiny, tmp_path):
    folders = saved(tiny, "bert", {name: lora(**BERT[name]) for name in ("two", "head")}, tmp_path)
    shelf, inputs = AdapterShelf(tiny.base("bert")), tiny.batch("bert")
    for name, folder in folders.items():
        shelf.add(name, folder)
    shelf.use(in_use)
    shelf.remove("two")
    assert (shelf.names, shelf.active) == (("head",), in_use if in_use != "two" else None)
    for name, fresh in (
        ("head", alone(tiny, tiny.base("bert"), folders["head"], inputs)),
        (None, tiny.logits(tiny.base("bert"), inputs)),
    ):
        assert torch.equal(shelf.logits(inputs, name), fresh)
    shelf.add("two", folders["two"])
    assert torch.equal(shelf.logits(inputs, "two"), alone(tiny, tiny.base("bert"), folders["two"], inputs))


def test_a_shelf_whose_adapters_are_all_removed_is_a_plain_base(tiny, tmp_path):
    folders = saved(tiny, "bert", {"biases": lora(r=2, target_modules=["query"], bias="all")}, tmp_path)
    base = tiny.base("bert")
    shelf = AdapterShelf(base)
    shelf.add("biases", folders["biases"])
    shelf.use("biases")
    shelf.remove("biases")
    tiny.assert_same(tiny.snapshot(base), tiny.snapshot(tiny.base("bert")))
    shelf.add("again", folders["biases"])
    assert shelf.names == ("again",)
