"""The table that ``forward.py`` looks up: what becomes of channel identities in each tensor operation.

A rule is ``rule(tracer, func, args, kwargs, result)``; it sets the identities of ``result`` and joins, freezes or costs
what the operation demands. Keys are operation names without underscores (``add`` serves ``+``, ``+=``, ``torch.add``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import nn

from gantailor.supernet.tracing import indexing, layers, products, sequences, shapes
from gantailor.supernet.tracing.elementwise import elementwise, first_only, freeze_all, same
from gantailor.supernet.tracing.tracer import Rule


def _words(text: str) -> list[str]:
    return text.split()


_ELEMENTWISE = _words(
    """
    add sub mul div true_divide floor_divide pow sqrt rsqrt exp expm1 log log1p log2 abs absolute neg negative relu
    relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh hardtanh hardswish hardsigmoid softplus softsign
    clamp clip clamp_min clamp_max minimum maximum where dropout dropout1d dropout2d dropout3d feature_dropout
    alpha_dropout float half double bfloat16 contiguous clone detach square sin cos sign round floor
    ceil erf lerp addcmul addcdiv eq ne gt ge lt le logical_and logical_or logical_not nan_to_num zeros_like
    ones_like rand_like randn_like empty_like full_like data requires_grad threshold logsigmoid tanhshrink
    reciprocal masked_fill copy rrelu hardshrink softshrink cpu cuda atan2 fmod remainder real alias positive bool
    int long normal uniform bernoulli multiply divide subtract sinh cosh tan hypot xlogy softmin polar complex imag
    angle conj byte char short bitwise_and bitwise_or bitwise_xor bitwise_not and or xor invert isnan isinf isfinite
    isclose sgn trunc frac erfc asin acos atan asinh acosh atanh logit sinc float_power rad2deg deg2rad heaviside
    fmax fmin logaddexp logaddexp2 xlog1py digamma lgamma i0 rdiv bucketize special_expit expit poisson exponential
    """
)
_SAME = _words(
    """
    interpolate upsample pad max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d
    lp_pool2d grid_sample boolean_dispatch
    fractional_max_pool2d max_pool2d_with_indices
    """
)

_CHOOSING = _words(
    "index_select gather take_along_dim topk sort argsort argmax argmin kthvalue cumsum cumprod cummax cummin "
    "logcumsumexp index_fill"
)
# What mixes everything that enters, or flattens it.
_FREEZING = _words(
    """
    take masked_select nonzero argwhere unique unique_consecutive bincount histc multinomial put index_put kron
    trace qr linalg_qr svd linalg_svd svdvals linalg_svdvals inverse linalg_inv pinverse linalg_pinv cholesky
    linalg_cholesky linalg_eigh linalg_eig det linalg_det logdet slogdet linalg_slogdet linalg_solve solve lstsq
    linalg_lstsq matrix_exp linalg_matrix_exp matrix_power linalg_matrix_power cross linalg_cross affine_grid bilinear
    embedding_bag searchsorted rot90 diag block_diag cartesian_prod
    """
)
_FOURIER = [f"fft_{kind}fft{d}" for kind in ("", "i", "r", "ir") for d in ("", "2", "n")]

RULES: dict[Any, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), layers.convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), layers.convolution),
    **dict.fromkeys(("batch_norm", "instance_norm"), layers.batch_norm),
    **dict.fromkeys(_words("view reshape flatten unflatten squeeze unsqueeze view_as reshape_as"), shapes.reshape),
    **dict.fromkeys(
        ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "t", "T", "mT", "swapdims"), shapes.permute
    ),
    **dict.fromkeys(
        (
            "sum",
            "mean",
            "var",
            "std",
            "norm",
            "vector_norm",
            "amax",
            "amin",
            "max",
            "min",
            "var_mean",
            "logsumexp",
            "prod",
            "median",
            "nanmean",
            "nansum",
            "std_mean",
            "aminmax",
            "any",
            "all",
            "count_nonzero",
        ),
        shapes.reduce,
    ),
    **dict.fromkeys(("matmul", "bmm", "mm", "mv", "dot", "rmatmul"), products.matmul),
    **dict.fromkeys(("softmax", "log_softmax", "normalize"), layers.softmax),
    **dict.fromkeys(("cat", "concat", "concatenate"), shapes.concatenate),
    **dict.fromkeys(("chunk", "split", "tensor_split"), shapes.chunk),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), shapes.expand),
    **dict.fromkeys(("to", "type", "type_as"), first_only),
    **dict.fromkeys(_CHOOSING, indexing.chosen),
    **dict.fromkeys(_words("scatter scatter_add scatter_reduce index_add index_copy"), indexing.scattered),
    **dict.fromkeys(("cosine_similarity", "pairwise_distance"), indexing.similarity),
    **dict.fromkeys(("tril", "triu"), indexing.positions),
    **dict.fromkeys(("stft", "istft"), indexing.spectrogram),
    **dict.fromkeys(("outer", "ger"), indexing.outer),
    **dict.fromkeys(("addmm", "addbmm", "baddbmm"), products.addmm),
    **dict.fromkeys(("gru", "lstm", "rnn_tanh", "rnn_relu"), sequences.recurrent),
    **dict.fromkeys(("gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell"), sequences.cell),
    **dict.fromkeys(_FREEZING, freeze_all),
    F.unfold: indexing.blocks,
    F.fold: indexing.unblocks,
    "unfold": indexing.windows,
    "select": indexing.select,
    "narrow": indexing.narrow,
    "cdist": indexing.distances,
    "masked_scatter": indexing.masked_scatter,
    "one_hot": indexing.one_hot,
    "repeat_interleave": indexing.interleave,
    "diag_embed": indexing.diag_embed,
    "diagonal": indexing.diagonal,
    "channel_shuffle": indexing.shuffled,
    "multi_head_attention_forward": sequences.multi_head,
    "rms_norm": layers.layer_norm,
    **dict.fromkeys(("zeros", "ones", "empty", "full", "rand", "randn"), shapes.made),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"), shapes.made),
    "eye": shapes.eye,
    **dict.fromkeys(_FOURIER, layers.fourier),
    "linear": layers.linear,
    "embedding": layers.embedding,
    "einsum": products.einsum,
    "tensordot": products.tensordot,
    "glu": shapes.glu,
    "tile": shapes.repeat,
    "view_as_real": shapes.trailing,
    "view_as_complex": shapes.trailing,
    "stack": shapes.stack,
    "repeat": shapes.repeat,
    "layer_norm": layers.layer_norm,
    "group_norm": layers.group_norm,
    "prelu": layers.prelu,
    "getitem": indexing.getitem,
    "setitem": indexing.setitem,
    "set_data": indexing.set_data,
    "pixel_shuffle": shapes.pixel_shuffle,
    "pixel_unshuffle": shapes.pixel_unshuffle,
    "flip": shapes.flip,
    "unbind": shapes.unbind,
    "roll": shapes.roll,
    "scaled_dot_product_attention": products.attention,
}


def leaf(kind: type[nn.Module]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that registers a rule for a module type: its forward then is one operation to the tracer.

    The rule is called as ``rule(tracer, module, inputs, {}, output)``.
    """

    def register(rule: Callable[..., None]) -> Callable[..., None]:
        RULES[kind] = rule
        return rule

    return register
