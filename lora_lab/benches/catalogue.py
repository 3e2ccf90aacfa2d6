"""Benches by name."""

from lora_lab.benches.bench import Bench
from lora_lab.benches.custom import custom_bench
from lora_lab.benches.digits import VARIANTS, digits_bench
from lora_lab.benches.language import RECIPES, language_bench
from lora_lab.benches.reviews import reviews_bench
from lora_lab.errors import DataError
from lora_lab.specs import DataSpec

BENCH_NAMES: tuple[str, ...] = (*VARIANTS, "reviews", *RECIPES)


def find_bench(name: str, data: DataSpec | None = None) -> Bench:
    """The bench of that name, or the user's own base in a folder or on the Hub with their data.

    Raises:
        DataError: a data file is given to a bench of the lab, which has its own.
    """
    if name not in BENCH_NAMES:
        if data is None and "/" not in name and not name.startswith((".", "~")):
            allowed = f"{', '.join(BENCH_NAMES)}, or a folder or Hub id with a data file"
            raise DataError(f"The bench must be one of {allowed}. Got {name!r}.")
        return custom_bench(name, data)
    if data is not None:
        raise DataError(f"The bench {name} has its own data; a data file goes with a base of your own. Got {data.path!r}.")
    if name in RECIPES:
        return language_bench(name)
    return reviews_bench() if name == "reviews" else digits_bench(name)
