"""LabError -> a message on the page, in one place."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from lora_lab.errors import LabError


def user_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show a LabError's sentence and nothing else; anything else stays an error of the page."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def streaming(*arguments: Any) -> Iterator[Any]:
            with _translated():
                yield from handler(*arguments)

        return streaming

    @functools.wraps(handler)
    def returning(*arguments: Any) -> Any:
        with _translated():
            return handler(*arguments)

    return returning


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except LabError as err:
        raise gr.Error(str(err), print_exception=False, duration=None) from err
