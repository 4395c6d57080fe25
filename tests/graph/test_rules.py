"""Every rewriting and lowering rule: operators between two dense layers against finite differences in float64."""

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

from gradscore import Scorer, UnsupportedOpError, prepare
from tests.support.fragments import FEATURES, Fragment, check

MAP, ROWS = (4, 3, 4), (4, 3)  # h without its batch: feature maps, or positions by channels
KERNEL = {"w": (3, 2, 2, 3)}


def ints(*values):
    return np.array(values, dtype=np.int64)


def number(value):
    return np.float32(value)


AFFINE = {"g": (4,), "b": (4,)}
RUNNING = {"m": np.arange(4.0) / 3, "v": np.arange(1, 5.0)}
BROADCAST_MEAN = "e = ReduceMean<keepdims=1>(h, ax)\n"

WINDOWS = {
    "Conv auto_pad SAME_UPPER": Fragment('o = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(h, w)', (2, 5, 6), KERNEL),
    "Conv auto_pad SAME_LOWER": Fragment('o = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(h, w)', (2, 5, 6), KERNEL),
    "Conv auto_pad VALID": Fragment('o = Conv<auto_pad="VALID", strides=[2,2]>(h, w)', (2, 5, 6), KERNEL),
    "Conv stride beyond kernel": Fragment("o = Conv<strides=[3,3]>(h, w)", (2, 7, 8), {"w": (3, 2, 2, 2)}),
    "Conv pads beyond kernel": Fragment("o = Conv<pads=[3,3,4,4]>(h, w)", (2, 3, 3), {"w": (3, 2, 2, 2)}),
    "Conv depthwise": Fragment("o = Conv<group=4>(h, w)", (4, 4, 4), {"w": (8, 1, 3, 2)}),
    "ConvTranspose SAME_UPPER": Fragment(
        'o = ConvTranspose<strides=[2,2],auto_pad="SAME_UPPER">(h, w)',
        (2, 3, 3),
        {"w": (2, 1, 3, 3)},
        instead=lambda h, w: F.conv_transpose2d(h, w, stride=2)[:, :, :6, :6],
    ),
    "ConvTranspose SAME_LOWER": Fragment(
        'o = ConvTranspose<strides=[2,2],auto_pad="SAME_LOWER">(h, w)',
        (2, 3, 3),
        {"w": (2, 1, 3, 3)},
        instead=lambda h, w: F.conv_transpose2d(h, w, stride=2)[:, :, 1:, 1:],
    ),
    "ConvTranspose VALID": Fragment(
        'o = ConvTranspose<strides=[2,2],auto_pad="VALID">(h, w)',
        (2, 3, 3),
        {"w": (2, 1, 3, 3)},
        instead=lambda h, w: F.conv_transpose2d(h, w, stride=2),
    ),
    "ConvTranspose output_shape larger": Fragment(
        "o = ConvTranspose<strides=[2,2],output_shape=[8,7]>(h, w)",
        (2, 3, 3),
        {"w": (2, 1, 3, 3)},
        instead=lambda h, w: F.conv_transpose2d(h, w, stride=2, output_padding=(1, 0)),
    ),
    "ConvTranspose output_shape smaller": Fragment(
        "o = ConvTranspose<strides=[2,2],output_shape=[5,5]>(h, w)",
        (2, 3, 3),
        {"w": (2, 1, 3, 3)},
        instead=lambda h, w: F.conv_transpose2d(h, w, stride=2)[:, :, 1:-1, 1:-1],
    ),
    "MaxPool SAME_UPPER": Fragment('o = MaxPool<kernel_shape=[3,2],strides=[2,2],auto_pad="SAME_UPPER">(h)', (2, 5, 5)),
    "MaxPool of LeakyRelu": Fragment(
        "s = LeakyRelu<alpha=0.2>(h)\no = MaxPool<kernel_shape=[3,2],strides=[2,1],pads=[1,0,0,1]>(s)", (2, 5, 5)
    ),
    "AveragePool SAME_LOWER": Fragment(
        'o = AveragePool<kernel_shape=[3,2],strides=[2,2],auto_pad="SAME_LOWER">(h)', (2, 5, 5)
    ),
    "AveragePool uneven pads": Fragment("o = AveragePool<kernel_shape=[3,2],pads=[1,0,0,1]>(h)", (2, 5, 4)),
    "AveragePool dilated": Fragment("o = AveragePool<kernel_shape=[2,2],dilations=[2,1]>(h)", (2, 5, 5), opset=19),
    "LpPool": Fragment("o = LpPool<kernel_shape=[2,3],strides=[2,1],pads=[1,0,0,1]>(h)", (2, 5, 5)),
    "LpPool 1": Fragment("o = LpPool<kernel_shape=[2,2],p=1>(h)", (2, 4, 4)),
    "LpPool 3 SAME_UPPER": Fragment(
        'o = LpPool<kernel_shape=[3,2],strides=[2,2],p=3,auto_pad="SAME_UPPER">(h)', (2, 5, 5)
    ),
    "LpPool ceil_mode": Fragment(
        "o = LpPool<kernel_shape=[2,2],strides=[2,2],ceil_mode=1>(h)",
        (2, 5, 4),
        instead=lambda h: F.lp_pool2d(F.pad(h, (0, 0, 0, 1)), 2, 2),
    ),
    "LpPool of zeros": Fragment("r = Relu(h)\n o = LpPool<kernel_shape=[2,1]>(r)", (2, 4, 4)),
    "GlobalLpPool": Fragment(
        "o = GlobalLpPool<p=3>(h)", MAP, instead=lambda h: h.abs().pow(3).sum((2, 3), True).pow(1 / 3)
    ),
    "GlobalAveragePool": Fragment("o = GlobalAveragePool(h)", MAP),
    "GlobalMaxPool": Fragment("o = GlobalMaxPool(h)", MAP),
}

PRODUCTS = {
    "Gemm alpha beta transB": Fragment("o = Gemm<alpha=0.5,beta=2.0,transB=1>(h, w, b)", (4,), {"w": (5, 4), "b": (5,)}),
    "Gemm beta 0": Fragment("o = Gemm<beta=0.0>(h, w, c)", (4,), {"w": (4, 5)}, {"c": number(1)}),
    "Gemm without C": Fragment("o = Gemm<alpha=0.5>(h, w)", (4,), {"w": (4, 5)}),
    "Gemm transA": Fragment(
        "t = Transpose<perm=[1,0]>(h)\n o = Gemm<transA=1>(t, w, b)", (4,), {"w": (4, 5), "b": (1, 5)}
    ),
    "MatMul weight left": Fragment("o = MatMul(w, h)", ROWS, {"w": (5, 4)}),
    "MatMul weight left, leading axes": Fragment("o = MatMul(w, h)", (2, 4, 3), {"w": (5, 4)}),
    "MatMul weight right, leading axes": Fragment("o = MatMul(h, w)", (2, 4, 3), {"w": (3, 5)}),
    "MatMul weight a matrix a head": Fragment("o = MatMul(h, w)", (2, 4, 3), {"w": (2, 3, 5)}),
    "MatMul vector right": Fragment("p = MatMul(h, w)\n o = Unsqueeze(p, ax)", ROWS, {"w": (3,)}, {"ax": ints(2)}),
    "MatMul vector left": Fragment("p = MatMul(w, h)\n o = Unsqueeze(p, ax)", ROWS, {"w": (4,)}, {"ax": ints(2)}),
    "MatMul of two values": Fragment("e = Transpose<perm=[0,2,1]>(h)\n o = MatMul(h, e)", ROWS),
    "MatMul repeated": Fragment(
        "u = Unsqueeze(h, ax)\n e = Transpose<perm=[0,2,1]>(h)\n v = Unsqueeze(e, ax)\n"
        "w = Concat<axis=1>(v, v)\n o = MatMul(u, w)",
        ROWS, {}, {"ax": ints(1)},
    ),
    "Einsum dense": Fragment('o = Einsum<equation="bij,jk->bik">(h, w)', ROWS, {"w": (3, 2)}),
    "Einsum weight left": Fragment('o = Einsum<equation="hed,bthe->btd">(w, h)', (4, 2, 2), {"w": (2, 2, 3)}),
    "Einsum to heads": Fragment('o = Einsum<equation="btd,dhe->bthe">(h, w)', ROWS, {"w": (3, 2, 2)}),
    "Einsum matrix a head": Fragment('o = Einsum<equation="bthd,hde->bteh">(h, w)', (3, 2, 2), {"w": (2, 2, 3)}),
    "Einsum attention": Fragment('e = Sin(h)\n o = Einsum<equation="bthd,bshd->bhts">(h, e)', (2, 3, 2)),
    "Einsum ellipsis": Fragment('o = Einsum<equation="...j,jk->...k">(h, w)', ROWS, {"w": (3, 2)}),
    "Einsum implicit": Fragment('e = Sin(h)\n o = Einsum<equation="...ij,...kj">(h, e)', ROWS),
    "Einsum outer": Fragment('e = Sin(h)\n o = Einsum<equation="bi,bj->bij">(h, e)', (4,)),
    "Einsum dot": Fragment('e = Sin(h)\n o = Einsum<equation="bij,bij->bi">(h, e)', ROWS),
    "Einsum sum": Fragment('o = Einsum<equation="bij->bi">(h)', ROWS),
    "Einsum sum of one operand": Fragment('e = Sin(h)\n o = Einsum<equation="bij,bkl->bik">(h, e)', ROWS),
    "Einsum three": Fragment('e = Sin(h)\n o = Einsum<equation="bij,bjk,kl->bil">(h, e, w)', (3, 3), {"w": (3, 2)}),
}  # fmt: skip

NORMS = {
    "BatchNormalization": Fragment("o = BatchNormalization(h, g, b, m, v)", MAP, AFFINE, RUNNING),
    "BatchNormalization of rows": Fragment("o = BatchNormalization<epsilon=0.1>(h, g, b, m, v)", (4,), AFFINE, RUNNING),
    "BatchNormalization opset 9": Fragment(
        "o = BatchNormalization(h, g, b, m, v)", MAP, AFFINE, RUNNING, opset=9,
        instead=lambda h, g, b: F.batch_norm(h, torch.arange(4).double() / 3, torch.arange(1, 5).double(), g, b),
    ),
    "InstanceNormalization": Fragment("o = InstanceNormalization<epsilon=0.01>(h, g, b)", MAP, AFFINE),
    "GroupNormalization opset 18": Fragment(
        "o = GroupNormalization<num_groups=2,epsilon=0.01>(h, g, b)", MAP, {"g": (2,), "b": (2,)}, opset=18,
        instead=lambda h, g, b: F.group_norm(h, 2, g.repeat_interleave(2), b.repeat_interleave(2), 0.01),
    ),
    "GroupNormalization opset 21": Fragment(
        "o = GroupNormalization<num_groups=2,epsilon=0.01>(h, g, b)", MAP, AFFINE, opset=21,
        instead=lambda h, g, b: F.group_norm(h, 2, g, b, 0.01),
    ),
    "LayerNormalization": Fragment("o = LayerNormalization(h, g, b)", (3, 4), AFFINE),
    "LayerNormalization two axes": Fragment(
        "o = LayerNormalization<axis=-2,epsilon=0.01>(h, g, b)", (3, 4), {"g": (3, 4), "b": (3, 4)}
    ),
    "LayerNormalization without bias": Fragment("o = LayerNormalization<axis=2>(h, g)", (3, 4), {"g": (4,)}),
    "LayerNormalization that learns nothing": Fragment("o = LayerNormalization<axis=1>(h, g)", ROWS, {}, {"g": np.ones(ROWS)}),
    "RMSNormalization": Fragment("o = RMSNormalization<axis=-1>(h, g)", (3, 4), {"g": (4,)}, opset=23),
    "MeanVarianceNormalization": Fragment(
        "o = MeanVarianceNormalization<axes=[2,3]>(h)", MAP, instead=lambda h: F.instance_norm(h, eps=0)
    ),
    "LpNormalization 1": Fragment("o = LpNormalization<axis=-1,p=1>(h)", ROWS, instead=lambda h: F.normalize(h, 1, -1)),
    "LpNormalization 2": Fragment("o = LpNormalization<axis=1>(h)", MAP),
    "LRN": Fragment(
        "o = LRN<size=3,alpha=0.5,beta=0.6,bias=1.5>(h)", MAP,
        instead=lambda h: F.local_response_norm(h, 3, 0.5, 0.6, 1.5),
    ),
    "Softmax": Fragment("o = Softmax<axis=1>(h)", MAP),
    "Softmax opset 11": Fragment(
        "o = Softmax<axis=2>(h)", MAP, opset=11,
        instead=lambda h: torch.softmax(h.reshape(len(h), 4, -1), -1).reshape(h.shape),
    ),
    "LogSoftmax": Fragment("o = LogSoftmax<axis=2>(h)", MAP),
    "LogSoftmax opset 11": Fragment(
        "o = LogSoftmax(h)", MAP, opset=11, instead=lambda h: torch.log_softmax(h.flatten(1), -1).reshape(h.shape)
    ),
    "Attention": Fragment("q = Sin(h)\n o = Attention(q, h, h)", (2, 3, 4), opset=23),
    "RotaryEmbedding": Fragment(
        "b = Shape<end=1>(h)\n r = Concat<axis=0>(b, rest)\n d = Expand(c, r)\n t = Expand(s, r)\n o = RotaryEmbedding(h, d, t)",
        (2, 3, 4), {"c": (1, 3, 2), "s": (1, 3, 2)}, {"rest": ints(3, 2)}, opset=23,
        instead=lambda h, c, s: torch.cat([c * h[..., :2] - s * h[..., 2:], s * h[..., :2] + c * h[..., 2:]], -1),
    ),
}  # fmt: skip


def _reductions():
    for op_type in ("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum",
                    "ReduceMean", "ReduceSum"):  # fmt: skip
        before = f"p = {'Exp' if op_type == 'ReduceLogSum' else 'Sin'}(h)\n"
        yield op_type, Fragment(f"{before} o = {op_type}<keepdims=0>(p, ax)", MAP, {}, {"ax": ints(-1, 1)})
        if op_type != "ReduceSum":
            yield f"{op_type} opset 13", Fragment(f"{before} o = {op_type}<axes=[2]>(p)", MAP, opset=13)


ARITHMETIC = {
    **dict(_reductions()),
    "Sum": Fragment("a = Neg(h)\n b = Exp(h)\n o = Sum(h, a, b, b)", ROWS),
    "Sum of one": Fragment("o = Sum(h)", ROWS),
    "Mean": Fragment("a = Neg(h)\n b = Exp(h)\n o = Mean(h, a, b)", ROWS),
    "Max of three": Fragment("a = Neg(h)\n b = Sin(h)\n o = Max(h, a, b)", ROWS),
    "Max with a weight": Fragment("o = Max(h, w)", ROWS, {"w": ROWS}),
    "Max with a number": Fragment("o = Max(h, w)", ROWS, {}, {"w": number(0.1)}),
    "Min repeated": Fragment(BROADCAST_MEAN + "o = Min(e, h)", ROWS, {}, {"ax": ints(1)}),
    "Add repeated": Fragment(BROADCAST_MEAN + "o = Add(e, h)", ROWS, {}, {"ax": ints(1)}),
    "Sub repeated": Fragment(BROADCAST_MEAN + "o = Sub(e, h)", ROWS, {}, {"ax": ints(1, 2)}),
    "Mul repeated": Fragment(BROADCAST_MEAN + "o = Mul(h, e)", ROWS, {}, {"ax": ints(1, 2)}),
    "Div repeated": Fragment(BROADCAST_MEAN + "f = Exp(e)\n o = Div(h, f)", ROWS, {}, {"ax": ints(1)}),
    "Div of a repeated": Fragment(BROADCAST_MEAN + "f = Exp(h)\n o = Div(e, f)", ROWS, {}, {"ax": ints(1)}),
    "Mul by a weight": Fragment("o = Mul(h, w)", ROWS, {"w": (3,)}),
    "Div by a weight": Fragment("e = Exp(h)\n o = Div(e, w)", ROWS, {"w": (4, 1)}),
    "Div of a weight": Fragment("e = Exp(h)\n o = Div(w, e)", ROWS, {"w": (4, 1)}),
    "Sub from a weight": Fragment("o = Sub(w, h)", ROWS, {"w": (1, 4, 3)}),
    "PRelu a slope a channel": Fragment("o = PRelu(h, s)", MAP, {"s": (4, 1, 1)}),
    "PRelu a slope a value": Fragment("o = PRelu(h, s)", MAP, {"s": MAP}),
    "Pow of a whole number": Fragment("o = Pow(h, e)", ROWS, {}, {"e": np.int64(3)}),
    "Pow of a fraction": Fragment("a = Exp(h)\n o = Pow(a, e)", ROWS, {}, {"e": number(0.5)}),
    "Pow learned": Fragment("a = Exp(h)\n o = Pow(a, w)", ROWS, {"w": (3,)}),
    "Pow computed": Fragment("a = Exp(h)\n b = Sin(h)\n o = Pow(a, b)", ROWS),
    "Reciprocal, Sqrt, Log, Neg": Fragment(
        "a = Exp(h)\n b = Sqrt(a)\n c = Log(b)\n d = Neg(c)\n e = Reciprocal(a)\n o = Add(d, e)", ROWS
    ),
    "ReduceProd": Fragment("o = ReduceProd(h, a)", (5, 3), {}, {"a": ints(1)}),
    "ReduceProd of two axes": Fragment("o = ReduceProd<keepdims=0>(h, a)", MAP, {}, {"a": ints(2, -1)}),
    "ReduceProd with zeros": Fragment("r = Relu(h)\n o = ReduceProd(r, a)", (3, 5), {}, {"a": ints(1)}),
    "ReduceProd opset 13": Fragment("o = ReduceProd<axes=[1],keepdims=0>(h)", (3, 4), opset=13),
    "Mod": Fragment("a = Exp(h)\n o = Mod<fmod=1>(a, m)", ROWS, {}, {"m": number(0.7)}),
    "CumSum": Fragment("o = CumSum(h, ax)", ROWS, {}, {"ax": np.int64(1)}),
    "CumSum exclusive, reverse": Fragment("o = CumSum<exclusive=1,reverse=1>(h, ax)", ROWS, {}, {"ax": np.int64(-1)}),
}  # fmt: skip

POSITIONS = {
    "Slice by steps": Fragment(
        "o = Slice(h, s, e, a, t)", MAP, {}, {"s": ints(1, 0), "e": ints(4, 3), "a": ints(1, 3), "t": ints(2, 1)}
    ),
    "Slice backwards": Fragment(
        "o = Slice(h, s, e, a, t)", MAP, {}, {"s": ints(-1), "e": ints(-100), "a": ints(1), "t": ints(-2)}
    ),
    "Slice plain": Fragment("o = Slice(h, s, e, a)", MAP, {}, {"s": ints(1, -3), "e": ints(99, -1), "a": ints(1, 3)}),
    "Slice opset 9": Fragment("o = Slice<axes=[1],starts=[1],ends=[3]>(h)", MAP, opset=9),
    "Gather one": Fragment("o = Gather<axis=1>(h, k)", MAP, {}, {"k": np.int64(2)}),
    "Gather the last": Fragment("o = Gather<axis=2>(h, k)", MAP, {}, {"k": np.int64(-1)}),
    "Gather repeated": Fragment("o = Gather<axis=1>(h, k)", MAP, {}, {"k": ints(2, 0, 0, -1)}),
    "Gather by a matrix": Fragment("o = Gather<axis=3>(h, k)", MAP, {}, {"k": np.array([[2, 0], [1, 1]])}),
    "GatherElements": Fragment(
        "s = Shape(h)\n e = Expand(k, s)\n o = GatherElements<axis=1>(h, e)", ROWS, {},
        {"k": np.array([[[2], [0], [3], [0]]])},
    ),
    "GatherND": Fragment(
        "s = Shape(h)\n c = Slice(s, z, one)\n r = Concat<axis=0>(c, rest)\n e = Expand(k, r)\n o = GatherND<batch_dims=1>(h, e)",
        (4, 5), {}, {"k": np.array([[[2, 0], [1, 1]]]), "z": ints(0), "one": ints(1), "rest": ints(2, 2)},
    ),
    "Compress": Fragment("o = Compress<axis=1>(h, c)", ROWS, {}, {"c": np.array([True, False, True])}),
    "Concat": Fragment("a = Exp(h)\n o = Concat<axis=2>(h, a, h)", MAP),
    "Concat with a learned token": Fragment(
        "s = Shape(h)\n c = Slice(s, z, one)\n r = Concat<axis=0>(c, rest)\n e = Expand(w, r)\n o = Concat<axis=1>(e, h)",
        (4, 5), {"w": (1, 1, 5)}, {"z": ints(0), "one": ints(1), "rest": ints(1, 5)},
    ),
    "Split": Fragment("a, b = Split<axis=1,num_outputs=2>(h)\n o = Mul(a, b)", MAP),
    "Split by sizes opset 11": Fragment("a, b = Split<axis=1,split=[1,3]>(h)\n o = Mul(a, b)", MAP, opset=11),
    "Split of which one part is used": Fragment("a, b = Split<axis=1,num_outputs=2>(h)\n o = Exp(b)", MAP),
    "Pad": Fragment("o = Pad(h, p, v)", (3, 4), {}, {"p": ints(0, 1, 2, 0, 0, 1), "v": number(0.5)}),
    "Pad cropping": Fragment(
        "o = Pad(h, p)", (3, 4), {}, {"p": ints(0, 1, -1, 0, 0, 1)}, instead=lambda h: F.pad(h, (-1, 1, 1, 0))
    ),
    "Pad some axes": Fragment('o = Pad(h, p, "", a)', (3, 4), {}, {"p": ints(1, 2), "a": ints(-1)}),
    "Pad by reflection": Fragment('o = Pad<mode="reflect">(h, p)', (3, 4), {}, {"p": ints(0, 1, 2, 0, 0, 1)}),
    "Pad by the edge": Fragment('o = Pad<mode="edge">(h, p)', (3, 4), {}, {"p": ints(0, 1, 2, 0, 0, 1)}),
    "Pad around": Fragment('o = Pad<mode="wrap">(h, p)', (3, 4), {}, {"p": ints(0, 1, 2, 0, 0, 1)}, opset=19),
    "Pad opset 9": Fragment("o = Pad<pads=[0,1,2,0,0,1]>(h)", (3, 4), opset=9),
    "Expand": Fragment("o = Expand(h, s)", (1, 4), {}, {"s": ints(1, 3, 1)}),
    "Expand to a further axis": Fragment(
        "u = Unsqueeze(h, ax)\n o = Expand(u, s)", (2, 4), {}, {"s": ints(1, 3, 1, 4), "ax": ints(1)}
    ),
    "Tile": Fragment("o = Tile(h, s)", (2, 3), {}, {"s": ints(1, 2, 3)}),
    "Squeeze, Unsqueeze": Fragment("s = Squeeze(h, a)\n o = Unsqueeze(s, b)", (1, 3), {}, {"a": ints(1), "b": ints(1, -1)}),
    "Transpose of the batch": Fragment("a = Transpose<perm=[1,0,2]>(h)\n b = Exp(a)\n o = Transpose<perm=[1,0,2]>(b)", ROWS),
    "Reshape to a computed shape": Fragment(
        "s = Shape(h)\n n = Gather(s, z)\n u = Unsqueeze(n, first)\n t = Concat<axis=0>(u, m)\n o = Reshape(h, t)",
        ROWS, {}, {"z": np.int64(0), "first": ints(0), "m": ints(-1)},
    ),
    "Flatten over the batch": Fragment(
        "a = Flatten<axis=2>(h)\n b = Exp(a)\n o = Reshape(b, s)", ROWS, {}, {"s": ints(-1, 12)}
    ),
    "Where": Fragment("c = Greater(h, z)\n e = Exp(h)\n o = Where(c, h, e)", MAP, {}, {"z": number(0.1)}),
    "Where a number": Fragment("c = Greater(h, z)\n o = Where(c, h, z)", MAP, {}, {"z": number(0.1)}),
    "Where repeated": Fragment(
        "e = ReduceSum(h, ax)\n o = Where(c, h, e)", (2, 3), {}, {"c": np.array([True, False, True]), "ax": ints(1)}
    ),
    "TopK": Fragment("o, k = TopK<axis=1>(h, n)", (5, 2), {}, {"n": ints(3)}),
    "OneHot": Fragment(
        "a = ArgMax<axis=1,keepdims=0>(h)\n b = OneHot<axis=1>(a, d, v)\n o = Mul(b, h)", (4, 2), {},
        {"d": np.int64(4), "v": np.array([0.5, 1])},
    ),
    "Hardmax": Fragment("a = Hardmax<axis=1>(h)\n o = Mul(a, h)", ROWS),
    "Trilu": Fragment("o = Trilu<upper=0>(h)", (4, 4)),
    "Trilu above": Fragment("o = Trilu(h, k)", (4, 4), {}, {"k": np.int64(1)}),
    "DepthToSpace DCR": Fragment("o = DepthToSpace<blocksize=2>(h)", (8, 2, 3)),
    "DepthToSpace CRD": Fragment('o = DepthToSpace<blocksize=2,mode="CRD">(h)', (8, 2, 3)),
    "SpaceToDepth": Fragment("o = SpaceToDepth<blocksize=2>(h)", (2, 4, 6)),
    "Resize nearest": Fragment('o = Resize<mode="nearest">(h, "", s)', (2, 3, 4), {}, {"s": np.array([1, 1, 1.5, 2])}),
    "Resize linear": Fragment('o = Resize<mode="linear">(h, "", s)', (2, 3, 4), {}, {"s": np.array([1, 1, 2, 1.5])}),
    "Resize linear to a size": Fragment(
        'o = Resize<mode="linear",coordinate_transformation_mode="align_corners",axes=[2,3]>(h, "", "", s)',
        (2, 3, 4), {}, {"s": ints(5, 7)},
    ),
    "Resize cubic": Fragment('o = Resize<mode="cubic">(h, "", s)', (2, 3, 4), {}, {"s": np.array([1, 1, 2, 2.0])}),
    "Resize 1-D": Fragment('o = Resize<mode="linear">(h, "", s)', (2, 8), {}, {"s": np.array([1, 1, 0.5])}),
    "Upsample opset 9": Fragment(
        'o = Upsample<mode="nearest">(h, s)', (2, 3, 4), {}, {"s": np.array([1, 1, 2, 2.0])}, opset=9,
        instead=lambda h: F.interpolate(h, scale_factor=2),
    ),
    "Cast to half": Fragment(
        "a = Cast<to=10>(h)\n b = Cast<to=1>(a)\n o = Mul(b, h)", ROWS, instead=lambda h: h * h
    ),
    "Cast to whole numbers": Fragment("a = Cast<to=7>(h)\n b = Cast<to=1>(a)\n o = Add(b, h)", ROWS),
    "CastLike": Fragment("a = CastLike(h, k)\n b = CastLike(a, h)\n o = Add(b, h)", ROWS, {}, {"k": np.int64(1)}),
    "Dropout opset 7": Fragment("o = Dropout<ratio=0.5>(h)", ROWS, opset=7),
    "Identity": Fragment("o = Identity(h)", ROWS),
}  # fmt: skip

WEIGHTS = {
    "weight turned": Fragment("v = Transpose<perm=[1,0]>(w)\n o = MatMul(h, v)", ROWS, {"w": (5, 3)}),
    "weight turned twice over": Fragment(
        "v = Transpose<perm=[1,0]>(w)\n a = MatMul(h, v)\n u = Transpose<perm=[1,0]>(w)\n b = MatMul(a, u)\n o = Tanh(b)",
        ROWS, {"w": (3, 3)},
    ),
    "weight reshaped": Fragment("v = Reshape(w, s)\n o = MatMul(h, v)", ROWS, {"w": (3, 5, 1)}, {"s": ints(3, 5)}),
    "weight cast": Fragment("v = Cast<to=1>(w)\n o = MatMul(h, v)", ROWS, {"w": (3, 5)}),
}  # fmt: skip

FRAGMENTS = WINDOWS | PRODUCTS | NORMS | ARITHMETIC | POSITIONS | WEIGHTS


def scored(model, x, folder):
    onnx.save(model, folder / "c.onnx")
    prepare(folder / "c.onnx", folder / "s.onnx", overwrite=True)
    with Scorer.load(folder / "s.onnx", threads=1) as scorer:
        return scorer, scorer.score(x)


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((2, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_rule_equals_finite_differences(name, x, tmp_path):
    fragment = FRAGMENTS[name]
    onnx.save(fragment.model(), tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    with Scorer.load(tmp_path / "s.onnx", threads=1) as scorer:
        check(fragment, scorer, x)


EFFECTIVE = {
    "scaled": ("v = Mul(w, c)", {"w": (3, 5)}, lambda w: 2 * w),
    "normalised": (
        "n = ReduceL2<axes=[1],keepdims=1>(w)\n u = Div(w, n)\n t = Mul(u, g)\n v = Transpose(t)",
        {"w": (5, 3), "g": (5, 1)}, lambda w, g: (g * w / np.linalg.norm(w, axis=1, keepdims=True)).T,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EFFECTIVE)
def test_a_weight_that_is_computed_is_scored_as_the_layer_uses_it(name, x, tmp_path):
    text, weights, effective = EFFECTIVE[name]
    computed = Fragment(f"{text}\n o = MatMul(h, v)", ROWS, weights, {"c": number(2)}, opset=13)
    plain = Fragment("o = MatMul(h, v)", ROWS, {"v": (3, 5)})
    plain.values["v"] = effective(*computed.values.values()).astype(np.float32)
    object.__setattr__(plain, "last", computed.last)
    object.__setattr__(plain, "first", computed.first)
    scorer, scores = scored(computed.model(), x, tmp_path)
    assert [item.name for layer in scorer.metadata.layers for item in layer.parameters] == [
        "first.weight",
        "w",
        "last.weight",
    ]
    np.testing.assert_allclose(scores.features, scored(plain.model(), x, tmp_path)[1].features, rtol=1e-4, atol=1e-6)


def test_quantised_weights_are_scored_in_floating_point(x, tmp_path):
    integers, scale = np.arange(-12, 12, dtype=np.int8).reshape(3, 2, 2, 2), np.linspace(0.1, 0.2, 3, dtype=np.float32)
    plain = Fragment("o = Conv(h, w)", (2, 4, 4), {"w": (3, 2, 2, 2)})
    plain.values["w"] = integers * scale[:, None, None, None]
    text = "w = DequantizeLinear<axis=0>(k, s)\n o = Conv(h, w)"
    quantised = Fragment(text, (2, 4, 4), {}, {"k": integers, "s": scale}, opset=19)
    object.__setattr__(quantised, "last", plain.last)
    object.__setattr__(quantised, "first", plain.first)
    scorer, scores = scored(quantised.model(), x, tmp_path)
    assert [item.name for layer in scorer.metadata.layers for item in layer.parameters] == [
        "first.weight",
        "k",
        "last.weight",
    ]
    np.testing.assert_allclose(scores.features, scored(plain.model(), x, tmp_path)[1].features, rtol=1e-4, atol=1e-6)


def test_quantised_activations_pass_their_gradient_straight_through(x, tmp_path):
    """Within its range a fine quantiser changes next to nothing; what it clips has no gradient."""
    text = "q = QuantizeLinear(h, s, z)\n d = DequantizeLinear(q, s, z)\n o = Mul(d, h)"
    clipped = 0.8
    fine = Fragment(
        text, ROWS, {}, {"s": number(clipped / 32767), "z": np.int16(0)}, opset=21,
        instead=lambda h: h * torch.clamp(h, -clipped, clipped),
    )  # fmt: skip
    onnx.save(fine.model(), tmp_path / "c.onnx")
    prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    with Scorer.load(tmp_path / "s.onnx") as scorer:
        check(fine, scorer, x, rtol=5e-3)


REFUSED = {
    "Det": (Fragment("d = Det(h)\n o = Unsqueeze(d, a)", (3, 3), {}, {"a": ints(1)}), "Det.*has no gradient"),
    "Compress of the batch": (
        Fragment("o = Compress<axis=0>(h, c)", ROWS, {}, {"c": np.array([True])}), r"'o' \(Compress\) picks.*axis of its own"
    ),
    "computed Compress": (
        Fragment("s = Shape(h)\n c = Cast<to=9>(s)\n o = Compress<axis=2>(h, c)", ROWS), r"'o' \(Compress\) computes what"
    ),
    "computed Mod": (
        Fragment("e = Exp(h)\n o = Mod<fmod=1>(h, e)", ROWS), r"'o' \(Mod\) divides by more than one constant.*without it"
    ),
    "GridSample": (
        Fragment("s = Shape(h)\n c = Slice(s, z, one)\n r = Concat<axis=0>(c, rest)\n g = Expand(k, r)\n"
                 "o = GridSample(h, g)", MAP, {}, {"k": number(0.3), "z": ints(0), "one": ints(1), "rest": ints(2, 2, 2)}),
        r"'o' \(GridSample\) has no gradient in the builder: try --engine onnx-ad",
    ),
    "random": (Fragment("r = RandomNormalLike(h)\n o = Add(r, h)", ROWS), r"'r' \(RandomNormalLike\) is random.*eval mode"),
    "diagonal": (Fragment('o = Einsum<equation="bii->bi">(h)', (3, 3)), r"'o' \(Einsum\) repeats a label.*Gather"),
    "scattering that adds": (
        Fragment('s = Shape(h)\n k = Expand(i, s)\n o = ScatterElements<axis=1,reduction="add">(h, k, h)', ROWS, {},
                 {"i": np.array([[[0], [2], [0], [1]]])}),
        r"'o' \(ScatterElements\) has reduction=add.*without it",
    ),
    "cropping Resize": (
        Fragment('o = Resize<mode="linear",coordinate_transformation_mode="tf_crop_and_resize">(h, r, s)', (2, 2, 3), {},
                 {"s": np.array([1, 1, 2, 2.0]), "r": np.array([0, 0, 0, 0, 1, 1, 0.5, 0.5])}),
        r"'o' \(Resize\) crops.*Slice",
    ),
    "whole-number product": (
        Fragment("q = QuantizeLinear(h, s, z)\n m = MatMulInteger(q, k)\n o = Cast<to=1>(m)", ROWS, {},
                 {"s": number(0.02), "z": np.uint8(128), "k": np.ones((3, 2), np.int8)}),
        r"'m' \(MatMulInteger\) computes in integers.*before quantisation",
    ),
    "mask of a Dropout": (
        Fragment("d, m = Dropout(h)\n c = Cast<to=1>(m)\n o = Mul(c, d)", ROWS), "mask of a Dropout is used.*eval mode"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_with_its_node(name, tmp_path):
    fragment, message = REFUSED[name]
    object.__setattr__(fragment, "last", np.zeros((1, 4), dtype=np.float32))
    model = fragment.model()
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    del model.graph.node[-2:]  # the refused fragment's own output stands in for the logits
    model.graph.node.extend([
        onnx.helper.make_node("Flatten", ["o"], ["flat"], "flatten"),
        onnx.helper.make_node("ReduceSum", ["flat", "ax"], ["sum"], "sum"),
        onnx.helper.make_node("Concat", ["sum", "sum"], ["logits"], "two", axis=1),
    ])  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(ints(1), "ax"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(model, tmp_path / "c.onnx")
    with pytest.raises(UnsupportedOpError, match=message) as caught:
        prepare(tmp_path / "c.onnx", tmp_path / "s.onnx")
    assert "\n" not in str(caught.value)
