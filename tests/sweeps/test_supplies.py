"""Files handed to a machine that lacks them: whole, once, and only there."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lora_lab as ll
from lora_lab.assets import sha256_of
from lora_lab.errors import AssetError
from lora_lab.sweeps.supplies import Supply, placed, supplies_of


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def supplies(tiny_llama: SimpleNamespace) -> tuple[Supply, ...]:
    """Of a base and a data file of the user's own; a reference is what was put."""
    return supplies_of(ll.find_bench(tiny_llama.base, tiny_llama.data), lambda content: content)


def refuse(content: Any) -> Mapping[str, Any]:
    raise AssertionError("nothing is to be sent")


def test_a_machine_that_has_the_files_is_sent_none(supplies: tuple[Supply, ...]) -> None:
    assert [placed(supply, refuse) for supply in supplies] == [supply.path for supply in supplies]


def test_a_machine_without_them_writes_each_once(supplies: tuple[Supply, ...], tmp_path: Path) -> None:
    for supply in supplies:
        absent = replace(supply, path=tmp_path / "absent" / supply.path.name)
        place = placed(absent, lambda content: content)
        folder = place.parent if place.is_file() else place
        assert {file.name: sha256_of(file) for file in folder.iterdir()} == dict(supply.sha256)
        assert place.is_file() == supply.path.is_file()
        assert placed(absent, refuse) == place


def test_other_content_at_the_same_path_is_not_taken_for_it(supplies: tuple[Supply, ...], tmp_path: Path) -> None:
    (data,) = [supply for supply in supplies if supply.path.is_file()]
    other = tmp_path / data.path.name
    other.write_text("something else")
    assert placed(replace(data, path=other), lambda content: content) != other


def test_what_arrives_broken_is_refused_and_not_kept(supplies: tuple[Supply, ...], tmp_path: Path) -> None:
    absent = replace(supplies[0], path=tmp_path / "absent")
    with pytest.raises(AssetError, match="as they were sent"):
        placed(absent, lambda content: {name: array[:-1] for name, array in content.items()})
    assert not (tmp_path / "cache" / "supplied" / absent.key).exists()


def test_the_digits_need_nothing_beyond_the_package() -> None:
    assert supplies_of(ll.find_bench("digits"), None) == ()
