"""The project's own speed: each figure a ratio against what somebody would do otherwise, both measured in one run."""
