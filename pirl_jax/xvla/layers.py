"""Layers whose parameters keep torch's names and layouts, so that weights cross over without a transpose.

Each computes in the dtype of its input, whatever dtype its parameters are stored in. They declare shapes:
X-VLA's initial values are ``init.py``'s. Linen puts every module's operations in a name scope of its own, so
profiles show the same tree as the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import zeros

from pirl_jax.typing import Array, Float, Int

LAYER_NORM_EPS = 1e-5
"""torch's default, which every norm of X-VLA uses."""


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, with torch's two-pass variance in at least float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise each vector on the last axis; shape and dtype stay."""
        weight = self.param("weight", zeros, (x.shape[-1],))
        bias = self.param("bias", zeros, (x.shape[-1],))
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        centred = x.astype(dtype) - x.astype(dtype).mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPS)
        return (y * weight.astype(dtype) + bias.astype(dtype)).astype(x.dtype)


class Embedding(nn.Module):
    """A table ``weight [rows, D]``. An index out of range reads NaN: loud, where clamping would be silent."""

    rows: int
    features: int

    def setup(self) -> None:
        self.weight = self.param("weight", zeros, (self.rows, self.features))

    def __call__(self, index: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Look rows up, in the table's dtype."""
        return jnp.take(self.weight, index, axis=0, mode="fill")

    def first(self, count: int, *, offset: int = 0) -> Float[Array, "count D"]:
        """Rows ``offset … offset + count``.

        Raises:
            ValueError: If the table is too short.
        """
        if offset + count > self.rows:
            raise ValueError(
                f"{'/'.join(self.path)} has {self.rows - offset} positions; this input needs {count}. "
                "Shorten the input or use a checkpoint with more positions."
            )
        return self.weight[offset : offset + count]


class DomainLinear(nn.Module):
    """A linear layer with weights of each embodiment's own (LeRobot's ``DomainAwareLinear``).

    ``fc.weight [domains, in·out]`` holds each domain's ``[in, out]`` matrix row-major.
    """

    features: int
    num_domains: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T in"], domain_id: Int[Array, " B"]) -> Float[Array, "B T out"]:
        """Map each row by the weights of its embodiment, in the dtype of ``x``.

        Args:
            x: Of each row T tokens.
            domain_id: The row's embodiment, below ``num_domains``; others give NaN.
        """
        inputs = x.shape[-1]
        fc = Embedding(self.num_domains, inputs * self.features, name="fc")
        bias = Embedding(self.num_domains, self.features, name="bias")
        weight = fc(domain_id).reshape(-1, inputs, self.features).astype(x.dtype)
        return jnp.einsum("BTi,Bio->BTo", x, weight) + bias(domain_id)[:, None].astype(x.dtype)


class Conv(nn.Module):
    """A strided convolution on NHWC with ``weight [out, in, k, k]``."""

    features: int
    kernel: int
    stride: int
    padding: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w in"]) -> Float[Array, "B h2 w2 out"]:
        """Convolve; h2 = ⌊(h + 2·padding - kernel)/stride⌋ + 1, and w2 alike."""
        weight = self.param("weight", zeros, (self.features, x.shape[-1], self.kernel, self.kernel))
        bias = self.param("bias", zeros, (self.features,))
        y = jax.lax.conv_general_dilated(
            x,
            weight.astype(x.dtype),
            window_strides=(self.stride, self.stride),
            padding=[(self.padding, self.padding)] * 2,
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
        )
        return y + bias.astype(x.dtype)


class DepthwiseConv(nn.Module):
    """A 3x3 depthwise convolution with padding 1 on NHWC, ``weight [C, 1, 3, 3]``.

    Nine shifted multiply-adds: XLA's grouped convolution is 10–70 times slower on a CPU.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Convolve each channel by itself; shapes stay."""
        _, h, w, channels = x.shape
        weight = self.param("weight", zeros, (channels, 1, 3, 3)).astype(x.dtype)
        bias = self.param("bias", zeros, (channels,)).astype(x.dtype)
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        taps = (padded[:, i : i + h, j : j + w] * weight[:, 0, i, j] for i in range(3) for j in range(3))
        return sum(taps, start=bias)


@jax.custom_vjp
def softmax(logits: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
    """Softmax over the last axis.

    With a gradient of its own, w·(g - Σ w·g): what JAX derives for its own softmax sums twice, in an order
    that XLA's CPU compiler turns into loops across memory.
    """
    return jax.nn.softmax(logits, axis=-1)


def _softmax_forward(logits: Array) -> tuple[Array, Array]:
    weights = jax.nn.softmax(logits, axis=-1)
    return weights, weights


def _softmax_backward(weights: Array, gradient: Array) -> tuple[Array]:
    return (weights * (gradient - (weights * gradient).sum(-1, keepdims=True)),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def attention(
    q: Float[Array, "*B T heads d"],
    k: Float[Array, "*B S heads d"],
    v: Float[Array, "*B S heads d"],
    key_bias: np.ndarray | None = None,
) -> Float[Array, "*B T heads*d"]:
    """Attend to all keys, with scale ``d^-1/2`` and the softmax in at least float32.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        key_bias: Added to the logits of each key, ``[S]``.

    Returns:
        The attended values, heads merged.
    """
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("...Tnd,...Snd->...nTS", q, k, preferred_element_type=dtype) * q.shape[-1] ** -0.5
    if key_bias is not None:
        logits = logits + jnp.asarray(key_bias, dtype)
    weights = softmax(logits).astype(v.dtype)
    y = jnp.einsum("...nTS,...Snd->...Tnd", weights, v)
    return y.reshape(*y.shape[:-2], -1)


def _gelu_tanh(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=True)


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def _laplace(x: Array) -> Array:
    return 0.5 * (1.0 + jax.lax.erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_10": lambda x: jnp.clip(_gelu(x), -10, 10),
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "hardswish": jax.nn.hard_swish,
    "laplace": _laplace,
    "leaky_relu": jax.nn.leaky_relu,
    "linear": lambda x: x,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""transformers' ``ACT2FN``, without the two activations that own parameters (``Activation`` has those)."""


class Activation(nn.Module):
    """A transformers activation by name, with the parameters of ``prelu`` and ``xielu``."""

    kind: str

    @nn.compact
    def __call__(self, x: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """Apply the function to each number.

        Raises:
            ValueError: If ``kind`` is no name of transformers'.
        """
        if self.kind == "prelu":
            weight = self.param("weight", zeros, (1,)).astype(x.dtype)
            return jnp.where(x >= 0, x, weight * x)
        if self.kind == "xielu":
            return self._xielu(x)
        if self.kind not in ACTIVATIONS:
            known = ", ".join(sorted([*ACTIVATIONS, "prelu", "xielu"]))
            raise ValueError(f"activation_function {self.kind!r} is unknown; use one of {known}.")
        return ACTIVATIONS[self.kind](x)

    def _xielu(self, x: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """xIELU (arXiv 2411.13010). ``beta`` and ``eps`` are buffers in torch: read, never trained."""
        positive = self.param("alpha_p", zeros, (1,))
        negative = self.param("alpha_n", zeros, (1,))
        beta = jax.lax.stop_gradient(self.param("beta", zeros, ()))
        eps = jax.lax.stop_gradient(self.param("eps", zeros, ()))
        alpha_p = jax.nn.softplus(positive).astype(x.dtype)
        alpha_n = (beta + jax.nn.softplus(negative)).astype(x.dtype)
        beta, eps = beta.astype(x.dtype), eps.astype(x.dtype)
        upper = alpha_p * x * x + beta * x
        lower = (jnp.expm1(jnp.minimum(x, eps)) - x) * alpha_n + beta * x
        return jnp.where(x > 0, upper, lower)
