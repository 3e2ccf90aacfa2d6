"""LabError -> a message on the page, in one place."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr

from lora_lab.errors import LabError


def user_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show a LabError's sentence and nothing else; anything else stays an error of the page."""

    @functools.wraps(handler)
    def returning(*arguments: Any) -> Any:
        with _translated():
            return handler(*arguments)

    return returning


def user_errors_streaming(handler: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """`user_errors` for a handler that yields."""

    @functools.wraps(handler)
    def streaming(*arguments: Any) -> Iterator[Any]:
        with _translated():
            yield from handler(*arguments)

    return streaming


@contextmanager
def _translated() -> Iterator[None]:
    """The page shows an error's text as HTML, and the sentence may quote a name that a stranger chose."""
    try:
        yield
    except LabError as err:
        raise gr.Error(escape(str(err), quote=False), print_exception=False, duration=None) from err
