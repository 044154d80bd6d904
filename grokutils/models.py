"""Networks as functions f(θ, X) of one flat parameter vector, so that J = ∇F(θ) is a matrix.

:func:`two_layer`, :func:`mlp` and :func:`transformer` are written out here; :func:`from_module` takes any
``torch.nn.Module``.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import _checks, activations
from .activations import Activation

SCHEMES = ("pytorch", "normal")
Parameters = dict[str, Tensor]


class Model:
    """A function ``f(theta, X) -> (n, m)`` that torch can differentiate.

    Attributes
    ----------
    name : str
    shapes : dict of str to tuple of int
        Shape of each parameter, in the order in which θ holds them, row by row.
    smooth : bool
        Whether F is continuously differentiable in θ.
    kinks : (float, float) or None
        Slopes of the activation below and above 0, where it consists of these two lines and slow flows can hold
        pre-activations at 0 (two-layer networks only).
    """

    smooth: bool = True
    kinks: tuple[float, float] | None = None

    def __init__(self, name: str, shapes: dict[str, tuple[int, ...]]):
        self.name, self.shapes = name, shapes
        self._sizes = [math.prod(shape) for shape in shapes.values()]
        self.d = sum(self._sizes)  # number of parameters

    def __repr__(self) -> str:
        return f"{self.name} with {self.d} parameters"

    def forward(self, parameters: Parameters, X: Tensor) -> Tensor:
        """Outputs (n, m) for named parameters and inputs ``X`` (n, …)."""
        raise NotImplementedError

    def __call__(self, theta: Tensor, X: Tensor) -> Tensor:
        """Outputs (..., n, m) at ``theta`` (..., d) and inputs ``X`` (n, …)."""
        if theta.ndim > 1:
            results = torch.func.vmap(self, (0, None))(theta.flatten(0, -2), X)
            return results.unflatten(0, theta.shape[:-1])
        return self.forward(self.matrices(theta), X)

    def matrices(self, theta: Tensor) -> Parameters:
        """``theta`` (..., d) as its named parameters, views wherever strides allow.

        Raises
        ------
        ValueError
            A ``theta`` of another length.
        """
        if theta.ndim == 0 or theta.shape[-1] != self.d:
            raise ValueError(f"theta has shape {tuple(theta.shape)}: its last dimension must be d = {self.d}")
        parts = theta.split(self._sizes, dim=-1)
        return {
            name: part.reshape(*theta.shape[:-1], *shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def flat(self, **matrices: Tensor) -> Tensor:
        """θ (..., d) from all of its named parameters: the inverse of :meth:`matrices`.

        Raises
        ------
        ValueError
            Missing or unknown names, or a parameter of another shape.
        """
        if matrices.keys() != self.shapes.keys():
            raise ValueError(f"matrices = {sorted(matrices)}: must be {', '.join(self.shapes)}")
        parts = []
        for name, shape in self.shapes.items():
            M = matrices[name]
            lead = M.ndim - len(shape)
            if lead < 0 or M.shape[lead:] != shape:
                raise ValueError(f"{name} has shape {tuple(M.shape)}: must end in {shape}")
            parts.append(M.reshape(*M.shape[:lead], math.prod(shape)))
        return torch.cat(parts, dim=-1)

    def init(
        self, seed: int, scale: float = 1.0, scheme: str = "pytorch", dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """A random θ (d,), ``scale`` times the draw of ``scheme``.

        "pytorch" draws linear maps from U(−1/√fan_in, 1/√fan_in), number for number what ``torch.nn.Linear`` layers
        of this dtype hold when made in order after ``torch.manual_seed(seed)``. "normal" draws them from
        N(0, 1/fan_in), the scale at which unit inputs stay units; three times the variance of the first.

        Raises
        ------
        ValueError
            A seed below 0, a scale that is not positive, or an unknown scheme.
        """
        scale = _checks.real("scale", scale, 0, open_low=True)
        _checks.one_of("scheme", scheme, SCHEMES)
        generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
        drawn = {
            name: self._draw(name, shape, scheme, dtype, generator) for name, shape in self.shapes.items()
        }
        return scale * self.flat(**drawn)

    def _draw(self, name: str, shape: tuple[int, ...], scheme: str, dtype, generator) -> Tensor:
        fan_in, *rest = shape
        draw = torch.empty(*rest, fan_in, dtype=dtype)  # the transpose: nn.Linear keeps (out, in)
        if scheme == "pytorch":
            bound = math.sqrt(3.0) * (math.sqrt(1 / 3) / math.sqrt(fan_in))  # rounds as nn.Linear's does
            draw.uniform_(-bound, bound, generator=generator)
        else:
            draw.normal_(0, 1 / math.sqrt(fan_in), generator=generator)
        return draw.T

    def check(self, X: Tensor) -> None:
        """Refuse inputs that do not fit, by ``ValueError``."""
        _checks.tensor("X", X)

    def _check_features(self, X: Tensor, d_in: int) -> None:
        if _checks.tensor("X", X, ndim=2).shape[1] != d_in or not len(X):
            raise ValueError(f"X has shape {tuple(X.shape)}: must be (n, {d_in}) for {self.name}, with n ≥ 1")


class MLP(Model):
    """ŷ = σ(…σ(XW₁)…)W_L, each layer x ↦ xW (+ b), with σ between layers."""

    def __init__(self, widths: Sequence[int], sigma: Activation, bias: bool, name: str):
        self.widths, self.activation, self.bias = tuple(widths), sigma, bias
        self.smooth = sigma.smooth
        super().__init__(name, dict(self._named()))

    def _named(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for layer, shape in enumerate(zip(self.widths, self.widths[1:], strict=False), 1):
            yield f"W{layer}", shape
            if self.bias:
                yield f"b{layer}", shape[1:]

    def forward(self, parameters: Parameters, X: Tensor) -> Tensor:
        last = len(self.widths) - 1
        for layer in range(1, last + 1):
            X = X @ parameters[f"W{layer}"]
            if self.bias:
                X = X + parameters[f"b{layer}"]
            if layer < last:
                X = self.activation.value(X)
        return X

    def _draw(self, name, shape, scheme, dtype, generator):
        if name[0] == "W":
            return super()._draw(name, shape, scheme, dtype, generator)
        if scheme == "normal":
            return torch.zeros(shape, dtype=dtype)
        bound = 1 / math.sqrt(self.widths[int(name[1:]) - 1])
        return torch.empty(shape, dtype=dtype).uniform_(-bound, bound, generator=generator)

    def check(self, X: Tensor) -> None:
        self._check_features(X, self.widths[0])


class TwoLayer(Model):
    """ŷ = σ(XE)W without biases; θ holds E (d_in, width) row by row, then W (width, d_out) row by row."""

    def __init__(self, d_in: int, width: int, d_out: int, activation: Activation):
        self.d_in, self.width, self.d_out, self.activation = d_in, width, d_out, activation
        self.smooth, self.kinks = activation.smooth, activation.kink
        super().__init__(
            f"two_layer({d_in}, {width}, {d_out}, '{activation.name}')",
            {"E": (d_in, width), "W": (width, d_out)},
        )

    def forward(self, parameters: Parameters, X: Tensor) -> Tensor:
        return self.activation.value(X @ parameters["E"]) @ parameters["W"]

    def __call__(self, theta: Tensor, X: Tensor) -> Tensor:
        """Outputs ŷ (..., n, d_out) at ``theta`` (..., d) and inputs ``X`` (n, d_in)."""
        return self.forward(self.matrices(theta), X)  # matrix products broadcast over the leading dimensions

    def check(self, X: Tensor) -> None:
        self._check_features(X, self.d_in)


def two_layer(
    d_in: int, width: int, d_out: int, activation: str | Callable[[Tensor], Tensor] = "relu"
) -> TwoLayer:
    """The study's network ŷ = σ(XE)W (eqs. 12 to 20; E and W are its W₁ and W₂), without biases.

    Parameters
    ----------
    d_in : number of inputs of a sample; ``X`` is (n, d_in), and E (d_in, width).
    width : of the hidden layer, the study's d_h.
    d_out : number of outputs of a sample; W is (width, d_out).
    activation : σ, a name of :data:`grokutils.activations.NAMED`, or any elementwise callable of torch operations.

    Returns
    -------
    Model with d = width·(d_in + d_out); kinks of ReLU and leaky ReLU are held by its flows.

    Raises
    ------
    ValueError
        A size below 1, an unknown activation, or a callable that does not act elementwise.
    """
    sizes = {"d_in": d_in, "width": width, "d_out": d_out}
    checked = {name: _checks.integer(name, size, 1) for name, size in sizes.items()}
    return TwoLayer(**checked, activation=activations.activation(activation))


def mlp(
    widths: Sequence[int], activation: str | Callable[[Tensor], Tensor] = "gelu", bias: bool = False
) -> MLP:
    """A fully connected network of any depth, ŷ = σ(…σ(XW₁)…)W_L.

    Parameters
    ----------
    widths : d_in, the hidden widths, d_out; W_l is (widths[l − 1], widths[l]) and ``X`` (n, d_in).
    activation : between layers, as for :func:`two_layer`.
    bias : whether each layer adds a vector.

    Returns
    -------
    Model.

    Raises
    ------
    ValueError
        Fewer than two widths, a width below 1, an unknown activation, or a ``bias`` that is not True or False.
    """
    if isinstance(widths, (str, int)) or len(widths) < 2:
        raise ValueError(f"widths = {widths!r}: must list d_in, any hidden widths, and d_out")
    checked = [_checks.integer(f"widths[{i}]", width, 1) for i, width in enumerate(widths)]
    sigma = activations.activation(activation)
    return MLP(checked, sigma, _checks.flag("bias", bias), f"mlp({checked}, '{sigma.name}')")


class Transformer(Model):
    """Token and position embeddings, layers of attention without a mask and MLP, the last position read out."""

    def __init__(
        self, tokens: int, length: int, d_out: int, width: int, heads: int, mlp_width: int, layers: int,
        layer_norm: bool, sigma: Activation,
    ):  # fmt: skip
        self.tokens, self.length, self.d_out = tokens, length, d_out
        self.width, self.heads, self.mlp_width, self.layers = width, heads, mlp_width, layers
        self.layer_norm, self.activation, self.smooth = layer_norm, sigma, sigma.smooth
        shapes: dict[str, tuple[int, ...]] = {"tokens": (tokens, width), "positions": (length, width)}
        for k in range(1, layers + 1):
            for name in ("query", "key", "value", "attended"):
                shapes[f"{name}{k}"] = (width, width)
            shapes[f"up{k}"], shapes[f"down{k}"] = (width, mlp_width), (mlp_width, width)
            if layer_norm:
                shapes[f"gain{k}a"] = shapes[f"gain{k}b"] = (width,)
        shapes["readout"] = (width, d_out)
        super().__init__(f"transformer({tokens}, {length}, {d_out}, width={width}, layers={layers})", shapes)

    def forward(self, parameters: Parameters, X: Tensor) -> Tensor:
        P = parameters
        S = torch.nn.functional.embedding(X, P["tokens"]) + P["positions"]  # (n, length, width)
        for k in range(1, self.layers + 1):
            S = S + self._attention(self._normed(S, P, f"gain{k}a"), P, k)
            S = S + self.activation.value(self._normed(S, P, f"gain{k}b") @ P[f"up{k}"]) @ P[f"down{k}"]
        return S[:, -1] @ P["readout"]

    def _attention(self, S: Tensor, P: Parameters, k: int) -> Tensor:
        query, key, value = (
            (S @ P[f"{name}{k}"]).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for name in ("query", "key", "value")
        )  # (n, heads, length, width/heads)
        scores = query @ key.mT / math.sqrt(self.width / self.heads)
        mixed = torch.softmax(scores, -1) @ value
        return mixed.transpose(-2, -3).flatten(-2) @ P[f"attended{k}"]

    def _normed(self, S: Tensor, P: Parameters, gain: str) -> Tensor:
        return torch.nn.functional.layer_norm(S, (self.width,)) * P[gain] if self.layer_norm else S

    def _draw(self, name, shape, scheme, dtype, generator):
        if name.startswith("gain"):
            return torch.ones(shape, dtype=dtype)
        if name in ("tokens", "positions"):
            return torch.empty(shape, dtype=dtype).normal_(0, 1 / math.sqrt(self.width), generator=generator)
        return super()._draw(name, shape, scheme, dtype, generator)

    def check(self, X: Tensor) -> None:
        if not isinstance(X, Tensor) or X.dtype not in (torch.int64, torch.int32):
            got = X.dtype if isinstance(X, Tensor) else type(X).__name__
            raise ValueError(f"X is {got}: {self.name} reads integer tokens, a torch.int64 tensor")
        if X.ndim != 2 or X.shape[1] != self.length or not len(X):
            raise ValueError(f"X has shape {tuple(X.shape)}: must be (n, {self.length}), with n ≥ 1")
        if X.min() < 0 or X.max() >= self.tokens:
            raise ValueError(
                f"X holds tokens {int(X.min())} to {int(X.max())}: must be 0 to {self.tokens - 1}"
            )


def transformer(
    tokens: int,
    length: int,
    d_out: int,
    *,
    width: int = 32,
    heads: int = 4,
    mlp_width: int | None = None,
    layers: int = 1,
    layer_norm: bool = False,
    activation: str | Callable[[Tensor], Tensor] = "gelu",
) -> Transformer:
    """A transformer for sequences of ``length`` integer tokens, ``X`` (n, length), read out at the last position.

    Parameters
    ----------
    tokens : size of the vocabulary.
    length : of a sequence.
    d_out : number of outputs.
    width : of the residual stream; a multiple of ``heads``.
    heads : of attention, each of width ``width / heads``. All positions see each other.
    mlp_width : of the hidden layer after attention; 4 · ``width`` where None.
    layers : attention and MLP, each added to the stream.
    layer_norm : normalize, with a trained gain, what attention and MLP read.
    activation : of the MLPs.

    Returns
    -------
    Model with outputs (n, d_out).

    Raises
    ------
    ValueError
        A size below 1, ``heads`` that do not divide ``width``, an unknown activation, or a ``layer_norm`` that is not True or
        False.
    """
    sizes = {
        "tokens": tokens, "length": length, "d_out": d_out, "width": width, "heads": heads,
        "mlp_width": 4 * width if mlp_width is None else mlp_width, "layers": layers,
    }  # fmt: skip
    checked = {name: _checks.integer(name, size, 1) for name, size in sizes.items()}
    if width % heads:
        raise ValueError(f"heads = {heads}: must divide width = {width}")
    layer_norm, sigma = _checks.flag("layer_norm", layer_norm), activations.activation(activation)
    return Transformer(**checked, layer_norm=layer_norm, sigma=sigma)


# Functions whose derivative jumps, as PyTorch names them; comparisons, because `where` makes a kink of them.
BENT = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "rrelu", "prelu", "hardtanh", "hardtanh_",
    "hardswish", "hardsigmoid", "hardshrink", "softshrink", "threshold", "threshold_", "selu", "clamp",
    "clamp_", "clamp_min", "clamp_max", "clip", "abs", "absolute", "max", "min", "amax", "amin", "maximum",
    "minimum", "fmax", "fmin", "sign", "heaviside", "round", "floor", "ceil", "sort", "topk", "median",
    "max_pool1d", "max_pool2d", "max_pool3d", "gt", "lt", "ge", "le", "__gt__", "__lt__", "__ge__", "__le__",
}  # fmt: skip
APART = 1e-5  # relative displacement over which differences of F are taken
RANDOM = threading.Lock()  # PyTorch's global generator, which nn.Module's reset_parameters draws from


class ModuleModel(Model):
    """A ``torch.nn.Module`` as a function of its trainable parameters, in float64; see :func:`from_module`."""

    def __init__(self, module: nn.Module, name: str):
        self.module = module
        named = {key: each for key, each in module.named_parameters() if each.requires_grad}
        super().__init__(name, {key: tuple(each.shape) for key, each in named.items()})
        self._slots = _slots(module, named)
        self.theta = self.flat(**{key: each.detach() for key, each in named.items()})  # (d,), as given
        self._seen: dict[tuple, _Seen] = {}  # by kind of inputs: what was found when they were tried

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Whether nothing that bends was met on the inputs seen so far."""
        return not any(seen.bends for seen in self._seen.values())

    def forward(self, parameters: Parameters, X: Tensor) -> Tensor:
        with _plain_attention():
            whole = {slot: parameters[key] for key, slots in self._slots.items() for slot in slots}
            return torch.func.functional_call(self.module, whole, (X,), tie_weights=False)

    def init(
        self,
        seed: int | None = None,
        scale: float = 1.0,
        scheme: str = "pytorch",
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """``scale`` times the module's own weights, or new ones from its ``reset_parameters`` with ``seed``; (d,).

        Raises
        ------
        ValueError
            A seed below 0, a scale that is not positive, a scheme other than the module's own, or parameters that no
            ``reset_parameters`` draws.
        """
        scale = _checks.real("scale", scale, 0, open_low=True)
        _checks.one_of("scheme", scheme, ("pytorch",))
        theta = self.theta if seed is None else self._redrawn(_checks.integer("seed", seed, 0))
        return scale * theta.to(dtype)

    def _redrawn(self, seed: int) -> Tensor:
        module = copy.deepcopy(self.module)
        drawn: set[int] = set()
        with RANDOM, torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for each in module.modules():
                reset = getattr(each, "reset_parameters", None) or getattr(each, "_reset_parameters", None)
                if reset is not None:
                    reset()
                    drawn |= {id(own) for own in each.parameters(recurse=False)}
        named = dict(module.named_parameters())
        left = [key for key in self.shapes if id(named[key]) not in drawn]
        if left:
            raise ValueError(
                f"seed = {seed}: {self.name} has no reset_parameters that draws {', '.join(left)}; give theta0 = "
                "model.theta (the module's own weights), or write reset_parameters for the module that holds them"
            )
        return self.flat(**{key: named[key].detach() for key in self.shapes})

    def check(self, X: Tensor) -> None:
        """Try the module on ``X`` once: refuse outputs that are not (n, m), finite, and a function of θ and each x alone."""
        if not isinstance(X, Tensor):
            raise ValueError(f"X is a {type(X).__name__}: must be a torch.Tensor with samples first")
        if X.ndim == 0 or not len(X):
            raise ValueError(f"X has shape {tuple(X.shape)}: must hold at least one sample, samples first")
        if X.is_floating_point():
            _checks.tensor("X", X)
        kind = _kind(X)
        if kind in self._seen and self._seen[kind].covers(X):
            return
        theta, watch = self.theta.to(_float_of(X), copy=True).requires_grad_(), _Watch()
        try:
            with RANDOM, torch.random.fork_rng(devices=[]):
                with watch:
                    F = self(theta, X)
                check_outputs(F, X, self.name, theta.dtype)
                again = self(theta, X)
                half = self._of_half(theta, X)
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            hint = (
                "; constant tensors of the module must be buffers, to become float64"
                if "dtype" in str(error)
                else ""
            )
            raise ValueError(
                f"X of shape {tuple(X.shape)} and {X.dtype} does not fit {self.name}: {error}{hint}"
            ) from error
        if not torch.isfinite(F).all():
            raise ValueError(f"{self.name} returned NaN or infinite outputs for X")
        if not torch.equal(F, again):
            raise ValueError(
                f"{self.name} gives other outputs when asked twice: dropout and noise must be off (module.eval())"
            )
        rounding = torch.finfo(F.dtype).eps ** 0.5 * float(F.detach().abs().max())
        if half is not None and not float((half - F[: len(X) // 2]).detach().abs().max()) <= rounding:
            raise ValueError(
                f"{self.name} gives a sample other outputs without the others: statistics of the batch must be off, as "
                "F must be a function of θ and each x alone"
            )
        self._seen[kind] = _Seen(watch.bends, _range(X)) | self._seen.get(kind)

    def _of_half(self, theta: Tensor, X: Tensor) -> Tensor | None:
        """Outputs for the first half of ``X``; None for what is written for a whole batch."""
        few = X[: len(X) // 2]
        try:
            half = self(theta, few) if len(few) else None
        except (RuntimeError, TypeError, IndexError, ValueError):
            return None
        return half if half is not None and half.ndim == 2 and len(half) == len(few) else None

    def check_derivative(self, theta: Tensor, X: Tensor) -> None:
        """Refuse a module whose backward pass is not its derivative, or has none itself: J would be a wrong one.

        Differences of F beside Jv, and Jv beside Jᵀu, for random u and v near ``theta`` (d,); once for each kind of ``X``.
        """
        if self._seen[_kind(X)].derivative:
            return
        generator = torch.Generator().manual_seed(0)
        v, w = torch.randn(2, self.d, generator=generator, dtype=torch.float64) * max(
            float(theta.norm()) / self.d**0.5, 1e-3
        )
        theta = theta + 0.01 * w  # away from kinks, on which weights of 0 sit
        at = theta.clone().requires_grad_()
        try:
            with torch.enable_grad():
                F = self(at, X)
                u = torch.randn(F.shape, generator=generator, dtype=torch.float64)
                zero = torch.zeros_like(u).requires_grad_()
                (pulled,) = torch.autograd.grad(F, at, zero, create_graph=True)
                (Jv,) = torch.autograd.grad(pulled, zero, v, retain_graph=True)
                (pull,) = torch.autograd.grad(F, at, u)
        except RuntimeError as error:
            raise ValueError(
                f"{self.name} has a backward pass that cannot be differentiated itself, so that J cannot be multiplied "
                f"with; train can be used, not linearize: {error}"
            ) from error
        with torch.no_grad():
            difference = (self(theta + APART * v, X) - self(theta - APART * v, X)) / (2 * APART)
        if not torch.isfinite(difference).all():
            return
        size = float(Jv.norm() * u.norm())
        apart = float((difference - Jv).norm()) > 0.05 * max(float(difference.norm()), float(Jv.norm()))
        if apart or abs(float((u * Jv).sum() - pull @ v)) > 1e-3 * size:
            raise ValueError(
                f"{self.name} has a backward pass that is not the derivative of its outputs (a detach, a straight-through "
                "estimator, or a torch.autograd.Function of its own): J would be wrong; train can be used, not linearize"
            )
        self._seen[_kind(X)].derivative = True


@dataclass
class _Seen:
    """What was found when a module was tried on inputs of one kind."""

    bends: bool
    tokens: tuple[Tensor, Tensor] | None  # least and greatest at each place; None for numbers
    derivative: bool = False  # whether J was compared with differences of F

    def __or__(self, other: _Seen | None) -> _Seen:
        """What both have found."""
        if other is None:
            return self
        tokens = self.tokens
        if tokens is not None and other.tokens is not None:
            tokens = torch.minimum(tokens[0], other.tokens[0]), torch.maximum(tokens[1], other.tokens[1])
        return _Seen(self.bends or other.bends, tokens, self.derivative or other.derivative)

    def covers(self, X: Tensor) -> bool:
        """Whether ``X`` holds no tokens beyond those that were tried."""
        if self.tokens is None:
            return True
        low, high = X.amin(0), X.amax(0)
        return bool((low >= self.tokens[0]).all() and (high <= self.tokens[1]).all())


def _kind(X: Tensor) -> tuple:
    return X.dtype, X.shape[1:]


def _range(X: Tensor) -> tuple[Tensor, Tensor] | None:
    return (
        None if X.is_floating_point() or X.is_complex() or X.dtype == torch.bool else (X.amin(0), X.amax(0))
    )


def _slots(module: nn.Module, named: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Every place that holds a parameter, by the parameter's name.

    A layer that is used under two names is one place: PyTorch's own ``tie_weights`` would fill it twice, and not give it
    its parameter back.
    """
    keys = {id(each): key for key, each in named.items()}
    slots: dict[str, list[str]] = {key: [] for key in named}
    seen = set()
    for path, each in module.named_parameters(remove_duplicate=False):
        owner, _, attribute = path.rpartition(".")
        place = id(module.get_submodule(owner)), attribute
        if id(each) in keys and place not in seen:
            seen.add(place)
            slots[keys[id(each)]].append(path)
    return slots


def _float_of(X: Tensor) -> torch.dtype:
    return X.dtype if X.is_floating_point() else torch.float64


def check_outputs(F, X: Tensor, name: str, dtype: torch.dtype | None = None) -> None:
    """Refuse what is not a tensor (n, m) of outputs, of θ's ``dtype`` where that is given, for ``X`` (n, …)."""
    if not isinstance(F, Tensor):
        raise ValueError(f"{name} returned a {type(F).__name__}: must return a tensor (n, m)")
    if F.ndim != 2 or len(F) != len(X):
        hint = "; for one output, (n, 1)" if F.ndim == 1 else ""
        raise ValueError(
            f"{name} returned shape {tuple(F.shape)}: must return (n, m) outputs, with n = {len(X)} for this X{hint}"
        )
    if dtype is not None and F.dtype != dtype:
        raise ValueError(
            f"{name} returned {F.dtype} for θ of {dtype}: must return the outputs as computed, not cast"
        )
    if not F.shape[1]:
        raise ValueError(f"{name} returned shape {tuple(F.shape)}: must return at least one output")


class _Watch(TorchFunctionMode):
    """Notices functions that bend, where they act on what depends on θ."""

    bends = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in BENT:
            self.bends |= any(isinstance(a, Tensor) and a.requires_grad for a in args)
        return func(*args, **(kwargs or {}))


def _plain_attention():
    """Attention in operations that have derivatives of every order; fused kernels have first ones only."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def from_module(module: nn.Module, name: str | None = None) -> ModuleModel:
    """A model made of any ``torch.nn.Module``: nothing to subclass, nothing to flatten.

    The module is copied to the CPU and to float64; the original is left alone. θ are its trainable parameters, those
    that several layers share once; frozen parameters and buffers are constants.

    Parameters
    ----------
    module : called with ``X`` (n, …) alone, samples first, of numbers or integer tokens; must return (n, m).
    name : for messages and records; the class's name where None.

    Returns
    -------
    Model with the module's own weights as ``theta`` (d,), float64; ``init(seed)`` draws others by its ``reset_parameters``.

    Raises
    ------
    ValueError
        Something that is no module, or cannot be copied; no trainable parameters; parameters that are not real numbers,
        not finite, not yet made or views of each other; dropout or batch normalization in training mode. What can only be
        seen on inputs is refused where the model first meets them: outputs that are not (n, m), not of θ's dtype, not finite,
        or that depend on chance or on other samples; and, by ``linearize``, a backward pass that is not F's derivative.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module is a {type(module).__name__}: must be a torch.nn.Module")
    name = type(module).__name__ if name is None else name
    for key, each in module.named_parameters():
        if isinstance(each, nn.parameter.UninitializedParameter):
            raise ValueError(f"{key} of {name} has no shape yet: call the module once before")
        if each.is_meta:
            raise ValueError(f"{key} of {name} has no values yet (device 'meta'): fill it first")
        if not each.is_floating_point():
            raise ValueError(
                f"{key} of {name} has dtype {each.dtype}: weights must be real floating-point numbers"
            )
        if not torch.isfinite(each).all():
            raise ValueError(f"{key} of {name} holds NaN or infinite values: every entry must be finite")
    if not any(each.requires_grad for each in module.parameters()):
        raise ValueError(f"{name} has no trainable parameters: there is nothing to linearize or to train")
    for key, part in module.named_modules():
        random = isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
        random |= isinstance(part, nn.MultiheadAttention) and part.dropout > 0
        batch = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if (part.training and (random or batch)) or (batch and part.running_mean is None):
            kind = "batch normalization by the batch" if batch else "dropout"
            raise ValueError(
                f"{key or name} ({type(part).__name__}) is {kind}, so that F is no function of θ and x alone: call "
                "module.eval() first"
            )
    _check_memory(module, name)
    try:
        return ModuleModel(copy.deepcopy(module).to("cpu", torch.float64), name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name} cannot be copied by copy.deepcopy: {error}") from error


def _check_memory(module: nn.Module, name: str) -> None:
    """Refuse parameters that are views of each other: training moves them as one, but as entries of θ they would be several."""
    held: dict[int, list[tuple[str, Tensor]]] = {}
    for key, each in module.named_parameters():
        held.setdefault(each.untyped_storage().data_ptr(), []).append((key, each))
    for sharing in held.values():
        places = torch.cat([_places(each.detach()) for _, each in sharing])
        if any(each.requires_grad for _, each in sharing) and len(places.unique()) < len(places):
            raise ValueError(
                f"{', '.join(key for key, _ in sharing)} of {name}: several entries share memory without being one "
                "nn.Parameter; assign the same nn.Parameter, or compute the other in forward"
            )


def _places(each: Tensor) -> Tensor:
    """Where in its memory each entry lies."""
    size = each.untyped_storage().nbytes() // each.element_size()
    return torch.arange(size).as_strided(each.shape, each.stride(), each.storage_offset()).flatten()
