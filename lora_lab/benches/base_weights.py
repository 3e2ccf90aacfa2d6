"""The W of a base, one matrix at a time, by what the base is called."""

from functools import cache, lru_cache

from lora_lab.benches.bench import Bench
from lora_lab.benches.catalogue import BENCH_NAMES, find_bench
from lora_lab.benches.custom import custom_bench
from lora_lab.budget import find_model
from lora_lab.errors import DataError
from lora_lab.geometry import Matrix
from lora_lab.weights import BaseWeights


@lru_cache(maxsize=4)
def base_of(bench: Bench) -> BaseWeights:
    """The matrices of a bench's base, fetched if need be.

    Raises:
        LabError: the base cannot be had or read.
    """
    return BaseWeights(bench.base_folder(), bench.geometry().matrices)


def open_base(source: str) -> BaseWeights:
    """The matrices of a base.

    Args:
        source: a bench of the lab, whose base it is; a folder with a config and safetensors; or a Hub id.

    Raises:
        DataError: it is none of these, or the folder holds no base.
        AssetError: the Hub does not give it.
    """
    if source in BENCH_NAMES:
        return base_of(find_bench(source))
    if not source.strip():
        raise DataError("The base must be a bench of the lab, a folder or a Hub id. Got none.")
    folder = custom_bench(source, None).base_folder()
    return BaseWeights(folder, _matrices(str(folder)))


@cache
def _matrices(folder: str) -> tuple[Matrix, ...]:
    return find_model(folder).geometry.matrices
