"""`python -m lora_lab.support` writes `data/support.json`, {row: {family: "" or why not}}, and `docs/support.md`."""

import logging

from lora_lab.support.table import SUPPORT_JSON, SUPPORT_MD, as_json, as_markdown, support_table

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells each layer that int8 rounds
found = support_table()
SUPPORT_JSON.write_text(as_json(found))
SUPPORT_MD.write_text(as_markdown(found))
