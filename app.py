"""LoRA Lab's page: `python app.py`, and the entry point of its Space."""

import spaces  # noqa: F401  ZeroGPU wants it before anything that may touch CUDA


def main() -> None:
    """Serve the page."""
    from lora_lab.ui import launch  # noqa: PLC0415  training workers import this file too, and need no page

    launch()


if __name__ == "__main__":
    main()
