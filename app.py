"""LoRA Lab's page: `python app.py`, and the entry point of its Space."""

import spaces  # noqa: F401  ZeroGPU wants it before anything that may touch CUDA

from lora_lab.ui import launch

if __name__ == "__main__":
    launch()
