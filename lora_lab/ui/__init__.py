"""The Gradio page: one module a view. Views read controls, call the core and show what it says."""

from lora_lab.ui.page import build, launch

__all__ = ["build", "launch"]
