"""Each op that the network uses, as ONNX in onnxruntime: the numbers of PyTorch, for sizes that were not traced."""

import pytest
import torch

from rpcnn import ops

pytest.importorskip("onnx", reason="needs onnx, onnxscript and onnxruntime: pip install 'rpcnn[export]'")
pytest.importorskip("onnxscript", reason="needs onnx, onnxscript and onnxruntime: pip install 'rpcnn[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'rpcnn[export]'")

from rpcnn.export.onnx import translate  # noqa: E402

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64]


def boxes(count, spread=100.0):
    corner, size = torch.rand(count, 2) * spread, 1 + torch.rand(count, 2) * spread
    return torch.cat([corner, corner + size], 1)


def rois(count, images=2):
    return torch.cat([torch.arange(count)[:, None] % images, boxes(count)], 1).float()


def levels(n, channels=4):
    return [torch.randn(2, channels, 32 + 4 * n >> level, 48 + 4 * n >> level) for level in range(5)]


OPS = {
    "roi_align": (lambda x, b: ops.roi_align(x, b, 5, 0.25, 2, True), lambda n: (levels(n)[0], rois(20 + n))),
    "roi_align_legacy": (lambda x, b: ops.roi_align(x, b, (3, 4), 0.25), lambda n: (levels(n)[0], rois(20 + n))),
    "multilevel_roi_align": (
        lambda *args: ops.multilevel_roi_align(list(args[:5]), args[5], 7, SCALES, 2, True, canonical_size=56),
        lambda n: (*levels(n), rois(20 + n)),
    ),
    "nms_padded": (
        lambda b, s: ops.nms_padded(b, s, None, 0.5, 12),
        lambda n: (boxes(40 + n, 30), torch.rand(40 + n).mul(8).round()),  # with equal scores
    ),
    "nms_padded_in_groups": (
        lambda b, s, i: ops.nms_padded(b, s, i, 0.3, b.shape[0]),
        lambda n: (boxes(40 + n, 30), torch.rand(40 + n), torch.arange(40 + n) % 3),
    ),
    "group_norm": (
        lambda x, w, b: ops.group_norm(x, 2, w, b, relu=True, residual=x.flip(3)),
        lambda n: (levels(n)[0], torch.rand(4), torch.rand(4)),
    ),
    "gse_fuse": (
        lambda *args: ops.gse_fuse(list(args[:5]), [args[5]] * 5, [args[6]] * 5, 2),
        lambda n: (*levels(n), torch.rand(4), torch.rand(4)),
    ),
    "downsample_add": (lambda *args: tuple(ops.downsample_add(args[0], list(args))), lambda n: (*levels(n),)),
    "grid_anchors": (
        lambda cells, x: ops.grid_anchors(cells, [4, 8], [x.shape[2:], (3, 5)]),
        lambda n: (torch.rand(2, 3, 4), levels(n)[0]),
    ),
}


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


@pytest.mark.parametrize("op", OPS)
def test_an_op_as_onnx_gives_the_same_numbers(op, tmp_path):
    function, make = OPS[op]
    arguments = make(0)
    fixed = [a.dim() for a in arguments]
    auto = torch.export.Dim.DYNAMIC
    shapes = tuple(
        {2: auto, 3: auto} if dims == 4 else {0: auto} if a.shape[0] >= 20 else None
        for a, dims in zip(arguments, fixed, strict=True)
    )
    program = torch.export.export(Call(function), arguments, dynamic_shapes=(shapes,), strict=False)
    translate(program).save(tmp_path / "op.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "op.onnx"), providers=["CPUExecutionProvider"])
    for n in (0, 1, 4):
        arguments = make(n)
        feed = {i.name: a.numpy() for i, a in zip(session.get_inputs(), arguments, strict=True)}
        want = function(*arguments)
        got = [torch.from_numpy(array) for array in session.run(None, feed)]
        for one, other in zip(got, want if isinstance(want, tuple | list) else [want], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
