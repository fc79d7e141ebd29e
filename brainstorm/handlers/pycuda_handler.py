"""The handler for Nvidia GPUs."""

# Methods are documented in Handler.
# ruff: noqa: D102

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from brainstorm.handlers.base_handler import OPERATIONS, Handler
from brainstorm.handlers.cuda.activations import CudaActivations
from brainstorm.handlers.cuda.arrays import CudaArray
from brainstorm.handlers.cuda.checks import checked, named
from brainstorm.handlers.cuda.ctc import CudaCtc
from brainstorm.handlers.cuda.device import PyCudaDevice
from brainstorm.handlers.cuda.elementwise import KERNELS, by_kernel
from brainstorm.handlers.cuda.embedding import CudaEmbedding
from brainstorm.handlers.cuda.graphs import with_graphs
from brainstorm.handlers.cuda.gru import CudaGru
from brainstorm.handlers.cuda.images import CudaImages
from brainstorm.handlers.cuda.launcher import Launcher
from brainstorm.handlers.cuda.leaves import CudaLeaves
from brainstorm.handlers.cuda.losses import CudaLosses
from brainstorm.handlers.cuda.lstm import CudaLstm
from brainstorm.handlers.cuda.memory import CudaMemory
from brainstorm.handlers.cuda.normalisation import CudaNormalisation
from brainstorm.handlers.cuda.products import CudaProducts
from brainstorm.handlers.cuda.recurrent import CudaRecurrent
from brainstorm.handlers.cuda.sequences import CudaSequences
from brainstorm.handlers.cuda.spiking import CudaSpiking
from brainstorm.handlers.cuda.updates import CudaUpdates
from brainstorm.handlers.draws import CountedDraws
from brainstorm.handlers.operations.affine import AffineOperations
from brainstorm.handlers.operations.attention import AttentionOperations
from brainstorm.handlers.operations.gru import GruOperations
from brainstorm.handlers.operations.images import ImageOperations
from brainstorm.handlers.operations.lstm import LstmOperations
from brainstorm.handlers.operations.recurrent import RecurrentOperations
from brainstorm.handlers.programs import Program, whole

__all__ = ["PyCudaHandler"]


class PyCudaHandler(
    CudaUpdates,
    CudaSpiking,
    CudaGru,
    CudaLstm,
    CudaRecurrent,
    CudaCtc,
    CudaSequences,
    CudaEmbedding,
    CudaNormalisation,
    CudaLosses,
    CudaImages,
    CudaProducts,
    CudaActivations,
    CudaMemory,
    CudaLeaves,
    CountedDraws,
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
        graphs: Start the launches of a pass that come again together, as CUDA graphs,
            from its fourth run on. What draws random numbers or has numbers that
            change remains alone. It has never been run on a GPU.

    Raises:
        ImportError: PyCUDA is not installed, or can not be loaded.
        HandlerError: There is no GPU, or no CUDA compiler, or no cuBLAS.
    """

    array_type: type = CudaArray
    records_leaves = True
    updates_by_threads = False
    _attention_size = 2**26  # there is more memory, and starting work takes time

    __default_values__ = {"graphs": False}

    def __init__(self, seed: int | None = None, graphs: bool = False):
        super().__init__(seed)
        self.graphs = graphs
        self.dtype: Any = np.float32
        self._gpu: Launcher = self._open()
        self.context: Any = self._gpu.device
        self._users = self._gpu.users  # temporary arrays are those of all handlers
        self.EMPTY = self.allocate((0,))

    @staticmethod
    @functools.cache
    def _open() -> Launcher:
        """The GPU, which all handlers of a process share."""
        return Launcher(PyCudaDevice())

    def record(self, run: Callable[[Handler], None], program: Program) -> None:
        super().record(run, program)
        if self.graphs:
            gpu = self._gpu
            program.join(functools.partial(with_graphs, gpu.device, gpu.expect_failure))

    # -- memory --------------------------------------------------------------

    def message_of(self, array: Any, on_device: bool = False) -> Any:
        if on_device and array.contiguous:
            self._gpu.device.wait()
            message = array
        else:
            message = self._gpu.staged(array)
        self._gpu.raise_failure()
        return message

    def release(self) -> None:
        self._gpu.release()


# These make all their leaf calls by `do`, and kernels, unless their numbers matter.
_RECORDED = {
    *("broadcast_t", "merge_tt", "split_add_tt", "clear", "dropout_backward"),
    *("act_backward", "batch_norm_backward", "log_softmax_backward"),
    *("soft_targets_ce_forward", "soft_targets_ce_backward"),
}.union(
    *map(vars, (CudaActivations, CudaProducts, CudaLosses, CudaNormalisation)),
    *map(vars, (CudaEmbedding, CudaSequences, CudaCtc)),
    *map(vars, (AffineOperations, AttentionOperations, ImageOperations)),
    *map(vars, (RecurrentOperations, LstmOperations, GruOperations)),
)
for _name, _contract in OPERATIONS.items():
    _operation, _kernel = getattr(PyCudaHandler, _name), KERNELS.get(_name)
    if _kernel is not None:
        _operation = by_kernel(_operation, _kernel)
    _operation = checked(_name, _operation, _contract)
    _is_launch = _kernel is not None and _contract.check is None and _kernel.is_launch
    if not (_name in _RECORDED or _is_launch):
        _operation = whole(_operation)
    setattr(PyCudaHandler, _name, _operation)
for _name in ("allocate", "ones", "zeros", "scratch", "create_from_numpy"):
    setattr(PyCudaHandler, _name, named(_name, getattr(PyCudaHandler, _name)))
