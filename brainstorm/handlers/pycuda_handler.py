"""The handler for Nvidia GPUs."""

# Operations are documented in PrimitiveOperations and CoarseOperations.
# ruff: noqa: D102

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from brainstorm.handlers.base_handler import Handler
from brainstorm.handlers.cuda.arrays import (
    CudaArray,
    matrix_rows,
    overlap,
)
from brainstorm.handlers.cuda.checks import checked, named
from brainstorm.handlers.cuda.convolutions import CudaConvolutions
from brainstorm.handlers.cuda.device import PyCudaDevice
from brainstorm.handlers.cuda.launcher import (
    BLOCK,
    Launcher,
    Randomness,
    row_blocks,
)
from brainstorm.handlers.cuda.normalisation import CudaNormalisation
from brainstorm.handlers.cuda.products import CudaProducts
from brainstorm.handlers.cuda.recurrent import CudaRecurrent
from brainstorm.handlers.cuda.sequences import CudaSequences
from brainstorm.handlers.cuda.updates import CudaUpdates
from brainstorm.handlers.operation_specs import OPERATIONS
from brainstorm.handlers.primitive_operations import FROM_INPUT
from brainstorm.utils import HandlerError

__all__ = ["PyCudaHandler"]

# As many arrays as the kernels' struct Pieces holds.
_PIECES = 16
# More columns of a row are worked on by several blocks, if there are few rows.
_PART = 4096


class PyCudaHandler(
    CudaConvolutions,
    CudaNormalisation,
    CudaProducts,
    CudaRecurrent,
    CudaSequences,
    CudaUpdates,
    Handler,
):
    """Computes on an Nvidia GPU, in float32.

    It runs its own kernels through PyCUDA and multiplies matrices with cuBLAS, in
    float32 throughout. The environment variable ``CUDA_VISIBLE_DEVICES`` chooses
    the GPU. Kernels are compiled once per machine and kind of GPU, and kept in
    ``~/.cache/brainstorm`` (or ``$XDG_CACHE_HOME/brainstorm``).

    Operations only start work on the GPU; reading values waits for it. So an error
    that depends on values (a target that is no class index, a timing below 1, an
    index beyond a matrix) is raised when the same thread reads values for the next
    time, and its updates of parameters are left out until then. All other errors are
    raised at once. All arrays that an operation is given have to be on the GPU.

    Random numbers come from a generator on the GPU (Philox) that is seeded from
    `rnd` when `rnd` is made, and again when `rnd` is set to a seed.

    Args:
        seed: Seed of `rnd`; None derives it from ``global_rnd``.

    Raises:
        ImportError: PyCUDA is not installed, or can not be loaded.
        HandlerError: There is no GPU, or no CUDA compiler, or no cuBLAS.
    """

    array_type = CudaArray

    def __init__(self, seed: int | None = None):
        super().__init__(seed)
        self.dtype = np.float32
        self._gpu = self._open()
        self.context = self._gpu.device
        self._users = self._gpu.users  # temporary arrays are those of all handlers
        self.EMPTY = self.allocate((0,))
        self._random_origin: Any = None
        self._randomness = Randomness()

    @staticmethod
    @functools.cache
    def _open() -> Launcher:
        """The GPU, which all handlers of a process share."""
        return Launcher(PyCudaDevice())

    # -- randomness ----------------------------------------------------------

    def _seeded(self) -> Randomness:
        rnd = self.rnd
        origin = (rnd, rnd.generation)
        if self._random_origin != origin:
            self._random_origin = origin
            self._randomness = Randomness(rnd.generate_seed(), 0)
        return self._randomness

    def _draw(self) -> Randomness:
        """Random numbers that no other call gets."""
        drawn = self._seeded()
        self._randomness = Randomness(drawn.seed, drawn.call + 1)
        return drawn

    def get_random_state(self) -> dict[str, Any]:
        generator = self._seeded()._asdict()
        return {**super().get_random_state(), "generator": generator}

    def _apply_random_state(self, state: dict[str, Any]) -> None:
        generator = state["generator"]
        seed, call = int(generator["seed"]), int(generator["call"])
        if not (0 <= seed < 2**32 and 0 <= call < 2**64):
            raise ValueError(f"out of range: {generator}")
        self._seeded()
        self._randomness = Randomness(seed, call)
        super()._apply_random_state(state)

    def fill_gaussian(self, mean, std, out):
        draw = self._draw()
        self._gpu.elementwise("fill_gaussian", (out,), mean, std, randomness=draw)

    def generate_probability_mask(self, mask, probability):
        name = "generate_probability_mask"
        self._gpu.elementwise(name, (mask,), probability, randomness=self._draw())

    # -- memory --------------------------------------------------------------

    def allocate(self, shape):
        return self.zeros(shape)

    def ones(self, shape):
        array = self._gpu.allocate(shape)
        self._gpu.elementwise("fill", (array,), 1.0)
        return array

    def zeros(self, shape):
        array = self._gpu.allocate(shape)
        self._gpu.elementwise("fill", (array,), 0.0)
        return array

    def scratch(self, shape, slot=0):
        return self._gpu.scratch(shape, slot)

    def release(self):
        self._gpu.release()

    def overlap(self, a, b):
        return overlap(a, b)

    def create_from_numpy(self, arr):
        values = _float32(arr)
        array = self._gpu.allocate(values.shape)
        self._gpu.write(array, values)
        return array

    def get_numpy_copy(self, mem):
        values = self._gpu.read(mem)
        self._gpu.raise_failure()
        return values

    def set_from_numpy(self, mem, arr):
        values = _float32(arr)
        if mem.shape != values.shape:
            raise HandlerError(
                f"set_from_numpy: can not copy an array of shape {values.shape} into"
                f" one of shape {mem.shape}"
            )
        self._gpu.write(mem, values)

    def copy_to(self, src, dest):
        self._gpu.elementwise("copy_to", (src, dest))

    def copy_to_if(self, src, dest, cond):
        self._gpu.elementwise("copy_to_if", (src, dest, cond))

    def fill(self, mem, val):
        self._gpu.elementwise("fill", (mem,), val)

    def clear(self, *arrays):
        if not all(array.contiguous for array in arrays):
            super().clear(*arrays)
            return
        arrays = [array for array in arrays if array.size]
        for start in range(0, len(arrays), _PIECES):
            part = arrays[start : start + _PIECES]
            unused = (0,) * (_PIECES - len(part))
            sizes = [array.size for array in part]
            self._gpu.launch(
                "clear",
                (self._gpu.over(max(sizes))[0], len(part)),
                (BLOCK, 1, 1),
                *(*[array.pointer for array in part], *unused, *sizes, *unused),
            )

    def fill_if(self, mem, val, cond):
        self._gpu.elementwise("fill_if", (mem, cond), val)

    # -- elementwise ---------------------------------------------------------

    def abs_t(self, a, out):
        self._gpu.elementwise("abs_t", (a, out))

    def add_st(self, s, t, out):
        self._gpu.elementwise("add_st", (t, out), s)

    def add_tt(self, a, b, out):
        self._gpu.elementwise("add_tt", (a, b, out))

    def add_into_if(self, a, out, cond):
        self._gpu.elementwise("add_into_if", (a, out, cond))

    def clip_t(self, a, a_min, a_max, out):
        self._gpu.elementwise("clip_t", (a, out), a_min, a_max)

    def divide_tt(self, a, b, out):
        self._gpu.elementwise("divide_tt", (a, b, out))

    def log_t(self, a, out):
        self._gpu.elementwise("log_t", (a, out))

    def modulo_tt(self, a, b, out):
        self._gpu.elementwise("modulo_tt", (a, b, out))

    def mult_add_st(self, s, t, out):
        self._gpu.elementwise("mult_add_st", (t, out), s)

    def mult_add_tt(self, a, b, out):
        self._gpu.elementwise("mult_add_tt", (a, b, out))

    def mult_st(self, s, t, out):
        self._gpu.elementwise("mult_st", (t, out), s)

    def mult_tt(self, a, b, out):
        self._gpu.elementwise("mult_tt", (a, b, out))

    def sign_t(self, a, out):
        self._gpu.elementwise("sign_t", (a, out))

    def sqrt_t(self, a, out):
        self._gpu.elementwise("sqrt_t", (a, out))

    def subtract_tt(self, a, b, out):
        self._gpu.elementwise("subtract_tt", (a, b, out))

    def add_mv(self, m, v, out):
        self._gpu.elementwise("add_tt", (m, v, out))

    def divide_mv(self, m, v, out):
        self._gpu.elementwise("divide_tt", (m, v, out))

    def mult_mv(self, m, v, out):
        self._gpu.elementwise("mult_tt", (m, v, out))

    def mult_add_mv(self, m, v, out):
        self._gpu.elementwise("mult_add_tt", (m, v, out))

    def subtract_mv(self, m, v, out):
        self._gpu.elementwise("subtract_tt", (m, v, out))

    # -- softmax, indices and rearrangements -----------------------------------

    def softmax_m(self, m, out):
        if out.size:
            rows, cols = m.shape
            self._gpu.launch(
                "softmax_m",
                *row_blocks(rows, cols),
                *matrix_rows(m),
                *matrix_rows(out),
                rows,
                cols,
            )

    def binarize_v(self, v, out):
        if v.size:
            self._gpu.launch(
                "binarize_v",
                *row_blocks(*out.shape),
                *(*matrix_rows(v), *matrix_rows(out), *out.shape),
                self._gpu.expect_failure(),
            )

    def index_m_by_v(self, m, v, out):
        if out.size:
            self._gpu.launch(
                "index_m_by_v",
                self._gpu.over(out.size),
                (BLOCK, 1, 1),
                *(*matrix_rows(m), *matrix_rows(v), *matrix_rows(out), *m.shape),
                self._gpu.expect_failure(),
            )

    def broadcast_t(self, a, axis, out):
        self._gpu.elementwise("copy_to", (a, out))

    def merge_tt(self, a, b, out):
        cut = a.shape[-1]
        self._gpu.elementwise("copy_to", (a, out[..., :cut]))
        self._gpu.elementwise("copy_to", (b, out[..., cut:]))

    def split_add_tt(self, x, out_a, out_b):
        cut = out_a.shape[-1]
        self._gpu.elementwise("add_tt", (x[..., :cut], out_a, out_a))
        self._gpu.elementwise("add_tt", (x[..., cut:], out_b, out_b))

    def is_fully_finite(self, a):
        return self._gpu.is_fully_finite(a)

    # -- activation functions ------------------------------------------------

    def rel(self, x, y):
        self._gpu.elementwise("rel_forward", (x, y))

    def rel_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("rel_deriv", (y, dy, dx))

    def tanh(self, x, y):
        self._gpu.elementwise("tanh_forward", (x, y))

    def tanh_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("tanh_deriv", (y, dy, dx))

    def sigmoid(self, x, y):
        self._gpu.elementwise("sigmoid_forward", (x, y))

    def sigmoid_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("sigmoid_deriv", (y, dy, dx))

    def el(self, x, y):
        self._gpu.elementwise("el_forward", (x, y))

    def el_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("el_deriv", (y, dy, dx))

    def softplus(self, x, y):
        self._gpu.elementwise("softplus_forward", (x, y))

    def softplus_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("softplus_deriv", (y, dy, dx))

    def leaky_rel(self, x, y):
        self._gpu.elementwise("leaky_rel_forward", (x, y))

    def leaky_rel_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("leaky_rel_deriv", (y, dy, dx))

    def gelu(self, x, y):
        self._gpu.elementwise("gelu_forward", (x, y))

    def gelu_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("gelu_deriv", (x, dy, dx))

    def swish(self, x, y):
        self._gpu.elementwise("swish_forward", (x, y))

    def swish_deriv(self, x, y, dy, dx):
        self._gpu.elementwise("swish_deriv", (x, dy, dx))

    def act_backward(self, x, y, dy, dx, activation, fresh_dx=False):
        self._deriv(activation, x, y, dy, dx, fresh_dx)

    def _deriv(
        self,
        activation: str,
        x: CudaArray | None,
        y: CudaArray,
        dy: CudaArray,
        dx: CudaArray,
        fresh: bool,
    ) -> None:
        if activation in FROM_INPUT:
            y = x
        gpu = self._gpu
        if activation == "linear":
            if not fresh:
                gpu.elementwise("add_tt", (dy, dx, dx))
            elif dy is not dx:
                gpu.elementwise("copy_to", (dy, dx))
        elif fresh:
            gpu.elementwise(activation + "_deriv", (y, dy, dx))
        else:
            gpu.elementwise(activation + "_deriv_add", (y, dy, dx))

    def _add_bias(
        self, h: CudaArray, bias: CudaArray, y: CudaArray | None, activation: str
    ) -> None:
        """``h += bias; y = act(h)``, the latter unless `y` is None."""
        if y is None or activation == "linear":
            self._gpu.elementwise("add_tt", (h, bias, h))
            if y is not None:
                self._gpu.elementwise("copy_to", (h, y))
        else:
            self._gpu.elementwise(activation + "_biased", (h, bias, y))

    # -- coarse operations ---------------------------------------------------

    def affine(self, x, W, bias, h, y, activation):
        out = y if h is None else h
        self._multiply(x, W, out, transb=True)
        if bias is not None:
            self._add_bias(out, bias, None if h is None else y, activation)
        elif h is not None:
            self.act_func[activation](h, y)

    def affine_backward(
        self,
        x,
        W,
        h,
        y,
        dy,
        dh,
        dx,
        dW,
        dbias,
        activation,
        fresh_dx=False,
        fresh_gradients=False,
    ):
        if dh is None:
            dh = dy
        else:
            self._deriv(activation, h, y, dy, dh, fresh=True)
        self._multiply(dh, x, dW, transa=True, add=not fresh_gradients)
        if dbias is not None:
            self._sum_columns(dh, None, dbias, add=not fresh_gradients)
        if dx is not None:
            self._multiply(dh, W, dx, add=not fresh_dx)

    def softmax_ce_forward(self, x, targets, predictions, loss):
        rows, cols = x.shape
        if rows:
            self._gpu.launch(
                "softmax_ce_forward",
                *row_blocks(rows, cols),
                *(
                    *matrix_rows(x),
                    *matrix_rows(targets),
                    *matrix_rows(predictions),
                    *matrix_rows(loss),
                ),
                *(rows, cols, self._gpu.expect_failure()),
            )

    def softmax_ce_backward(
        self, targets, predictions, dloss, t_bin, dx, fresh_dx=False
    ):
        if targets.size:
            self._gpu.launch(
                "softmax_ce_backward",
                *row_blocks(*t_bin.shape),
                *(
                    *matrix_rows(targets),
                    *matrix_rows(predictions),
                    *matrix_rows(dloss),
                    *matrix_rows(t_bin),
                ),
                *((0, 0) if dx is None else matrix_rows(dx)),
                *(*t_bin.shape, fresh_dx, self._gpu.expect_failure()),
            )

    def take_rows(self, m, indices, out):
        if out.size:
            self._gpu.launch(
                "take_rows",
                *row_blocks(*out.shape),
                *(
                    *matrix_rows(m),
                    m.shape[0],
                    *matrix_rows(indices),
                    *matrix_rows(out),
                    *out.shape,
                    self._gpu.expect_failure(),
                ),
            )

    def add_to_rows(self, a, indices, out, fresh_out=False):
        if fresh_out:
            self._gpu.elementwise("fill", (out,), 0.0)
        if a.shape[0]:
            rows, cols = out.shape
            (wanted, _), block = row_blocks(rows, cols)
            # Each block looks through all indices, so more of them cost time.
            blocks = max(1, min(wanted, self._gpu.device.max_blocks // 8))
            self._gpu.launch(
                "add_to_rows",
                (blocks, 1),
                block,
                *(*matrix_rows(a), *matrix_rows(indices), a.shape[0]),
                *(*matrix_rows(out), rows, cols, self._gpu.expect_failure()),
            )

    def sigmoid_ce_forward(self, x, targets, predictions, loss):
        arrays = (x, targets, predictions, loss)
        self._gpu.elementwise("sigmoid_ce_forward", arrays)

    def sigmoid_ce_backward(
        self, targets, predictions, dloss, dcee, dx, fresh_dx=False
    ):
        if dx is None:
            self._gpu.elementwise("subtract_tt", (predictions, targets, dcee))
        else:
            name = "sigmoid_ce_backward" + ("_fresh" if fresh_dx else "")
            self._gpu.elementwise(name, (targets, predictions, dloss, dcee, dx))

    def dropout_forward(self, x, mask, y, drop_prob):
        keep = 1.0 - drop_prob
        value = 1.0 / keep if keep > 0 else 0.0
        draw = self._draw()
        arrays = (x, mask, y)
        self._gpu.elementwise("dropout_forward", arrays, keep, value, randomness=draw)

    def constrain_rows(self, m, limit, norms):
        rows, cols = m.shape
        gpu = self._gpu
        if not rows:
            return
        (blocks, _), block = row_blocks(rows, cols)
        parts = min(-(-cols // _PART), gpu.device.max_blocks // blocks)
        if parts <= 1:
            arguments = (*matrix_rows(m), rows, cols, limit, *matrix_rows(norms))
            gpu.launch("constrain_rows", (blocks, 1), block, *arguments)
            return
        chunk = -(-cols // parts)
        grid = (-(-cols // chunk), rows)
        # Two elements hold one number of 64 bits.
        squares = self.scratch((2 * grid[0] * rows,), 2)
        row = (*matrix_rows(m), cols, chunk, squares.pointer)
        gpu.launch("squares_of_parts", grid, (BLOCK, 1, 1), *row)
        row = (*row, limit, *matrix_rows(norms))
        gpu.launch("constrain_parts", grid, (BLOCK, 1, 1), *row)


def _float32(arr: Any) -> np.ndarray:
    if isinstance(arr, CudaArray):
        raise HandlerError("expected a NumPy array, got one on the GPU")
    arr = np.asarray(arr)
    if arr.dtype.kind not in "biuf":
        raise HandlerError(
            "expected an array of booleans, integers or floats, got one of dtype"
            f" {arr.dtype}"
        )
    return np.asarray(arr, np.float32)


for _name in OPERATIONS:
    setattr(PyCudaHandler, _name, checked(_name, getattr(PyCudaHandler, _name)))
for _name in ("allocate", "ones", "zeros", "scratch", "create_from_numpy"):
    setattr(PyCudaHandler, _name, named(_name, getattr(PyCudaHandler, _name)))
