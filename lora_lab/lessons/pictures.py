"""A picture of each lesson's main figure: `python -m lora_lab.lessons.pictures notebooks`.

A lesson is run, with the values that a reader has, as far as its cell tagged `picture`; what that shows is drawn by plotly's own
script in Chromium. For those who write lessons: it takes what `tests/requirements.txt` has.
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image
from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

from lora_lab.errors import DataError, LabError

TAG = "picture"
MOST_BYTES = 40_000
_SIZE_PX = (680, 340)
_KEEP = "import pathlib; pathlib.Path({!r}).write_text((_.figure() if hasattr(_, 'figure') else _).to_json(), encoding='utf-8')"
_PAGE = '<!doctype html><meta charset="utf-8"><body style="margin:0"><div id="plot"></div><script>{}</script></body>'
_DRAW = "([data, layout]) => Plotly.newPlot('plot', data, layout, {staticPlot: true})"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = ["--no-sandbox", "--disable-gpu"]


def figure_of(lesson: Path) -> dict[str, Any]:
    """What the tagged cell shows, a figure or a widget's, as plotly's JSON; the cells after it are not run.

    Raises:
        DataError: no cell, or more than one, has the tag.
    """
    book = nbformat.read(lesson, as_version=4)
    tagged = [i for i, cell in enumerate(book.cells) if TAG in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise DataError(f"A lesson must have one cell tagged {TAG}. Got {lesson.name}, which has {len(tagged)}.")
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "figure.json"
        book.cells = [*book.cells[: tagged[0] + 1], nbformat.v4.new_code_cell(_KEEP.format(str(kept)))]
        here = {"metadata": {"path": str(Path.cwd())}}  # where the lab is found
        NotebookClient(book, timeout=None, kernel_name="python3", resources=here).execute()
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def draw(figure: dict[str, Any]) -> bytes:
    """The figure as a PNG on white."""
    width, height = _SIZE_PX
    layout = {**figure["layout"], "width": width, "height": height, "paper_bgcolor": "white"}
    path = next((path for name in _BROWSERS if (path := shutil.which(name))), None)  # else the one that Playwright fetched
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=_FLAGS) as browser:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_content(_PAGE.format(get_plotlyjs()))
        page.evaluate(_DRAW, [figure["data"], layout])
        return page.screenshot()


def shrink(png: bytes) -> bytes:
    """The same in as many colours, at most 256, as make it no larger than 40 kB; rare ones, as those of a scale, are kept."""
    drawn = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32, 16, 8):
        small = io.BytesIO()
        drawn.quantize(colours, Image.Quantize.MAXCOVERAGE).save(small, "PNG", optimize=True)
        if small.tell() <= MOST_BYTES:
            break
    return small.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture of every lesson of a folder, or of those named, into its folder `pictures`."""
    parser = argparse.ArgumentParser(prog="python -m lora_lab.lessons.pictures", description=__doc__)
    parser.add_argument("folder", nargs="?", default="notebooks", type=Path)
    parser.add_argument("--lesson", action="append", default=[], help="the beginning of a lesson's file name; several may be given")
    asked = parser.parse_args(arguments)
    (asked.folder / "pictures").mkdir(exist_ok=True)
    try:
        for lesson in sorted(asked.folder.glob("*.ipynb")):
            if not asked.lesson or lesson.name.startswith(tuple(asked.lesson)):
                png = shrink(draw(figure_of(lesson)))
                (asked.folder / "pictures" / f"{lesson.stem}.png").write_bytes(png)
                print(f"{lesson.stem}: {len(png):,} bytes", flush=True)
    except LabError as err:
        print(err, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
