"""The support matrix as a file and as a page."""

import json

from lora_lab.assets import DATA_DIR
from lora_lab.errors import ClaimError
from lora_lab.methods.tiny import TINY
from lora_lab.specs import unique
from lora_lab.support.claims import INT8_ROUNDING, Cell, check_cell
from lora_lab.support.rows import ROWS, Row

SUPPORT_JSON = DATA_DIR / "support.json"
SUPPORT_MD = DATA_DIR.parent / "docs" / "support.md"


def support_table() -> dict[str, dict[str, str]]:
    """{row: {family: why not, or empty}}, every cell tried.

    Raises:
        ClaimError: a claim does not hold.
    """
    return {title: {family: _cell_or_place(family, row).refusal for family in TINY} for title, row in ROWS.items()}


def _cell_or_place(family: str, row: Row) -> Cell:
    try:
        return check_cell(family, row)
    except ClaimError as err:
        raise ClaimError(f"{row.title} on {family}: {err}") from err


def as_json(table: dict[str, dict[str, str]]) -> str:
    """The text of `data/support.json`."""
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def as_markdown(table: dict[str, dict[str, str]]) -> str:
    """The text of `docs/support.md`: families by rows, the reasons numbered beneath."""
    reasons = unique(why for cells in table.values() for why in cells.values() if why)
    rows = [
        [family, *("✓" if not table[title][family] else f"– {reasons.index(table[title][family]) + 1}" for title in table)]
        for family in TINY
    ]
    header = ["family", *table]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    notes = [f"{number}. {why}" for number, why in enumerate(reasons, start=1)]
    taken = sum(not why for cells in table.values() for why in cells.values())
    counts = {"cells": len(table) * len(TINY), "taken": taken, "refused": len(table) * len(TINY) - taken}
    return "\n".join([_PREAMBLE.format(**counts), *lines, "", *notes, "", _CLAIMS])


_PREAMBLE = """\
# Which model takes which method

Each method is tried whole on a tiny random model of each family, with the method's own targets: LoRA on the MLP too
(the experts, where there are some) and with each of its start values, QLoRA in each of its formats. ✓ means that every claim
below the table holds; a number is the reason why it is refused, in the sentence that says so before anything is attached. Of
{cells} cells {taken} pass and {refused} are refused; none is left out.
`python -m lora_lab.support` writes this page and `data/support.json`, on the CPU; the tests try every cell anew.
"""

_CLAIMS = f"""\
What ✓ says, in float32:

- **Attached.** It attaches on the meta device as on the CPU, the same parameters, and the closed form counts them to the last.
- **Step 0.** ΔW = 0 and the outputs are the base's, bit for bit; with orthogonal, PiSSA and OLoRA start values, which meet W0 by
  rounding, to 1e-5 relative, and the base that PiSSA and OLoRA moved makes up W0 together with their start. A prefix and a prompt
  change the outputs from the start and promise nothing.
- **Trained.** Two steps of AdamW reach every trained parameter with a gradient and change it, without NaN (AdaLoRA's cut may set a
  singular value back to 0). All else is as it was to the bit: the base's weights, its buffers, a quantized base's packed bytes
  and scales.
- **ΔW.** It is (d_out, d_in) and, to 1e-5 relative, what the layer does to the unit vectors less what the base's layer does to
  them; no other matrix changes.
- **Merged.** Outputs are the unmerged ones to 1e-5 relative in every cell that merges, DoRA's among them, and undoing the merge
  brings back every bit. A quantized base is dequantized to merge. LLM.int8 rounds what goes into its layers to 8 bits and merged
  layers do not: the two differ by up to {100 * INT8_ROUNDING:.0f} %, and the 1e-5 holds against unmerged layers of the same
  values that do not round. What changes no weight through PEFT (prefix, prompt, bottlenecks, methods in place) has nothing to
  merge and says so.
- **Saved.** On a fresh original base `peft.PeftModel.from_pretrained` gives the same logits, bit for bit (PiSSA and OLoRA, saved as
  plain LoRA of twice the rank, to 1e-5). BitFit, bottlenecks, top layers and full fine-tuning, which PEFT lacks, are loaded by
  `load_trained`. The file holds the ΔW that the live model has.
"""
