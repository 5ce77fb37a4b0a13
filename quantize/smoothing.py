"""SmoothQuant (arXiv:2211.10438): outlier channels are made smaller before 8 bits, and their weights larger.

A MatMul's input x is divided channel by channel by s, its weight's rows are multiplied by s: the product is the same.
The division costs nothing where it can be folded into the node that computes x: into the gain and bias of a
LayerNormalization, or into the columns of the value projection, whose channels the attention only averages. Else it is an
explicit Mul, and only where it pays. s_j = max|x_j|^alpha / max|W_j|^(1 - alpha), alpha chosen for each site on real,
warm-cache activations by the error of the quantized product. MatMuls that read one x (q, k, v) get one s.

s is rounded to powers of two. So no float is rounded anywhere and the smoothed fp32 graph computes the same bits as its
parent; the accuracy lost against the exact s is in bench/accuracy.md.

neural-compressor 3 does this for torch only; what its predecessor for ONNX does differently is in bench/peers/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nemoport.quantize.graph import Weights, layer_matmuls

PASSES_CHANNELS = ("Reshape", "Transpose", "Identity")  # of the attention: heads are split off and joined again


@dataclass(frozen=True)
class Site:
    """A tensor that can be smoothed.

    tensor: its name; the last axis is the channels. matmuls: names of the nodes that read it, itself or behind the cache
    that it is joined to. folds_into: name of the LayerNormalization or MatMul node that takes the division; None: a Mul.
    """

    tensor: str
    matmuls: tuple[str, ...]
    folds_into: str | None


@dataclass(frozen=True)
class Choice:
    """What was decided for a site. error, plain_error: of the quantized products with and without smoothing, relative to the
    exact ones, power over power."""

    alpha: float | None  # None: left as it is
    error: float
    plain_error: float


def sites(model) -> list[Site]:
    """Every input of the layers' MatMuls, in graph order. model: onnx.ModelProto."""
    makers = {output: node for node in model.graph.node for output in node.output}
    weights = {i.name for i in model.graph.initializer}
    inputs = {i.name for i in model.graph.input}
    found: dict[str, list] = {}
    for matmul in layer_matmuls(model):
        found.setdefault(_joined(matmul.input[0], makers, inputs), []).append(matmul)
    return [
        Site(tensor, tuple(n.name for n in nodes), _absorber(tensor, nodes, model, makers, weights))
        for tensor, nodes in found.items()
    ]


def _joined(tensor: str, makers, inputs: set[str]) -> str:
    """The tensor of the new frames if `tensor` is a cache with new frames behind it, else `tensor`: the cached frames were
    new frames before, so that the same channels are smoothed in both."""
    node = makers.get(tensor)
    if node is not None and node.op_type == "Concat" and len(node.input) == 2 and _from_input(node.input[0], makers, inputs):
        return node.input[1]
    return tensor


def _from_input(tensor: str, makers, inputs: set[str]) -> bool:
    """Whether `tensor` is an input of the graph, or a part of one."""
    while tensor not in inputs:
        if tensor not in makers or makers[tensor].op_type not in ("Gather", "Slice", "Identity", "Squeeze"):
            return False
        tensor = makers[tensor].input[0]
    return True


def _absorber(tensor: str, matmuls: list, model, makers, weights: set[str]) -> str | None:
    """The node that can take the division of `tensor`, see `Site.folds_into`; `matmuls`: the nodes that read the tensor."""
    node = makers.get(tensor)
    if node is None:
        return None
    if node.op_type == "LayerNormalization":
        # Every other reader of the norm's output would get it scaled: only shapes and the cache may.
        smoothed = {n.name for n in matmuls}
        readers = [n for n in model.graph.node if tensor in n.input]
        return node.name if all(n.name in smoothed or n.op_type in ("Shape", "Concat") for n in readers) else None
    context = _behind(tensor, makers)
    if context is None:
        return None
    # softmax(...) times value; in the kv cache layout, the sum of such products over cached and over new values
    products = [makers.get(name) for name in context.input] if context.op_type == "Add" else [context]
    if any(n is None or n.op_type != "MatMul" or n.input[1] in weights for n in products):
        return None
    values = [_behind(product.input[1], makers) for product in products]
    projections = [n for n in values if n is not None and n.op_type == "MatMul" and n.input[1] in weights]
    return projections[0].name if len(projections) == 1 else None


def _behind(tensor: str, makers):
    """The node that computes `tensor`, past those that only arrange it in heads."""
    node = makers.get(tensor)
    while node is not None and node.op_type in PASSES_CHANNELS:
        node = makers.get(node.input[0])
    return node


def scales(activations: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """The scales s of a site: f32 [channels], powers of two; 1 for a channel whose activations or weights are all zero.

    activations: max|x_j|, weights: max|W_j| over all MatMuls of the site, f32 [channels].
    """
    alive = (activations > 0) & (weights > 0)
    x, w = np.where(alive, activations, 1.0).astype(np.float64), np.where(alive, weights, 1.0).astype(np.float64)
    return np.where(alive, 2.0 ** np.round(alpha * np.log2(x) - (1 - alpha) * np.log2(w)), 1.0).astype(np.float32)


def smooth(
    model,
    found: list[Site],
    max_abs: Mapping[str, np.ndarray],
    rows: Callable[[str], np.ndarray],
    alphas: tuple[float, ...],
    mul_gain_db: float,
) -> Iterator[tuple[Site, Choice]]:
    """Smooths an onnx.ModelProto with its weights in place, site by site, and yields each site with its choice.

    max_abs: f32 [channels] and rows: f32 [n, channels], of each site's tensor. A Mul is inserted only where it lowers the
    error by `mul_gain_db` or more.
    """
    weights = Weights(model)
    for site in found:
        matrices = [weights.of(name) for name in site.matmuls]
        largest = np.max([np.abs(w).max(1) for w in matrices], axis=0)
        sample = rows(site.tensor)
        plain = product_error(sample, matrices)
        best, best_scale = Choice(None, plain, plain), None
        for alpha in alphas:
            s = scales(max_abs[site.tensor], largest, alpha)
            error = product_error(sample / s, [w * s[:, None] for w in matrices])
            if error < best.error:
                best, best_scale = Choice(alpha, error, plain), s
        if site.folds_into is None and best.error > plain * 10 ** (-mul_gain_db / 10):
            best, best_scale = Choice(None, plain, plain), None
        if best_scale is not None:
            divide(model, weights, site, best_scale)
        yield site, best


def product_error(x: np.ndarray, weights: list[np.ndarray]) -> float:
    """Error power of the products in u8 x s8, relative to the power of the exact ones: activations rounded per tensor,
    weights per output channel.

    x: f32 [n, channels]; weights: f32 [channels, outputs] each.
    """
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = max((high - low) / 255.0, 1e-30)
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(x / step) + zero, 0, 255) - zero) * np.float32(step)
    error = power = 0.0
    for weight in weights:
        steps = np.maximum(np.abs(weight).max(0) / 127.0, 1e-30).astype(np.float32)
        exact = x @ weight
        error += float(np.square(rounded @ (np.round(weight / steps) * steps) - exact).sum(dtype=np.float64))
        power += float(np.square(exact).sum(dtype=np.float64))
    return error / max(power, 1e-300)


def divide(model, weights: Weights, site: Site, s: np.ndarray) -> None:
    """Divides the site's tensor by s f32 [channels], and multiplies the rows of the weights that read it."""
    for name in site.matmuls:
        weights.replace(name, 1, lambda w: w * s[:, None])
    if site.folds_into is None:
        _insert_mul(model, weights, site, 1.0 / s)
        return
    for index in range(1, len(weights.node(site.folds_into).input)):  # gain and bias, or the weight's columns
        weights.replace(site.folds_into, index, lambda values: values / s)


def _insert_mul(model, weights: Weights, site: Site, factor: np.ndarray) -> None:
    """Multiplies the site's tensor by `factor` f32 [channels] in a node of its own, before the MatMuls that read it."""
    from onnx import helper, numpy_helper

    name = f"{site.tensor}.smooth"
    model.graph.initializer.append(numpy_helper.from_array(factor.astype(np.float32), name))
    node = helper.make_node("Mul", [site.tensor, name], [f"{name}ed"], f"{site.matmuls[0]}/smooth")
    position = next(i for i, n in enumerate(model.graph.node) if n.name in site.matmuls)
    model.graph.node.insert(position, node)
    for matmul in site.matmuls:
        weights.node(matmul).input[0] = f"{name}ed"
