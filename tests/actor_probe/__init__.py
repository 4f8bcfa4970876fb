"""The plugin, in an actor that writes down at its end how torch multiplied matrices in it."""

import atexit
import os
from pathlib import Path

import torch

from bridge import plugin

plugin.register()


@atexit.register
def _write() -> None:
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    Path(os.environ["ACTOR_PROBE"]).write_text(f"{flags} {torch.get_float32_matmul_precision()}")
