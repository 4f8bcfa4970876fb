"""Dimension letters and the runtime shape check.

B  decision points (observations at which a chunk is chosen)
E  episodes in a batch         T  chunks in an episode
K  denoising steps             L  latents kept of a denoising chain
M  noised steps of a denoising chain    c  action channels that are noised and scored
H  chunk length                Hx chunk steps that are executed, at most
A  action dimension (as the model sees it)    R  action dimension (as the robot sees it)
G  gripper logits among the action's channels
P  proprioception              N  instruction tokens
S  encoder tokens              D  width of features
V  camera views                C h w  image channels, height, width
F  frames of demonstrations
"""

from typing import Any

from beartype import beartype
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8, jaxtyped

typed = jaxtyped(typechecker=beartype)

PyTree = Any
"""A nest of dicts, tuples and dataclasses with arrays at its leaves."""
Params = Any
"""A nested dict of arrays."""
Features = Any
"""A pytree of arrays with leading dimension B: what the frozen encoder makes of an observation, once."""
Metrics = dict[str, Array]
"""Scalars by name."""

__all__ = ["Array", "Bool", "Float", "Int", "PRNGKeyArray", "PyTree", "UInt8", "typed"]
