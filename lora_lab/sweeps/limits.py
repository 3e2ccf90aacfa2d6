"""What one visitor of a public Space may spend."""

from collections.abc import Sequence

from lora_lab.errors import SpecError
from lora_lab.specs import RunSpec

MOST_RUNS, MOST_STEPS = 16, 4000
MOST_NEW_TOKENS, MOST_CHARACTERS = 64, 4000


def check_public(specs: Sequence[RunSpec]) -> None:
    """Refuse a sweep that is too large for a shared machine.

    Raises:
        SpecError: more than 16 runs, or more than 4,000 optimizer steps in all.
    """
    if len(specs) > MOST_RUNS:
        raise SpecError(f"A sweep on this public page must have at most {MOST_RUNS} runs. Got {len(specs)}.")
    steps = sum(spec.steps for spec in specs)
    if steps > MOST_STEPS:
        raise SpecError(f"A sweep on this public page must have at most {MOST_STEPS} steps in all. Got {steps}.")


def check_public_question(prompt: str, max_new_tokens: int) -> None:
    """Refuse a prompt, or an answer, that is too long for a shared machine.

    Raises:
        SpecError: more than 4,000 characters, or more than 64 tokens to be written.
    """
    if len(prompt) > MOST_CHARACTERS:
        raise SpecError(f"A prompt on this public page must have at most {MOST_CHARACTERS} characters. Got {len(prompt)}.")
    if max_new_tokens > MOST_NEW_TOKENS:
        raise SpecError(f"An answer on this public page may have at most {MOST_NEW_TOKENS} tokens. Got {max_new_tokens}.")
