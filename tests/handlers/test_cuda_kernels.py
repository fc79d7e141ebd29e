"""Every CUDA kernel, on the CPU under sanitizers, on a GPU, and compiled for GPUs.

The first is an emulation, not a GPU: see cuda_on_cpu.
"""

import contextlib
import inspect
import shutil

import numpy as np
import pytest
from cuda_on_cpu.sanitized import (
    EmulationError,
    SanitizedDevice,
    compile_program,
    has_compiler,
    sanitized_handler,
)
from cuda_on_cpu.translate import expand, kernel_names

from brainstorm.handlers import NumpyHandler
from brainstorm.handlers.base_handler import OPERATIONS, Handler
from brainstorm.handlers.cuda import compiler
from brainstorm.handlers.cuda.libraries import load_library
from brainstorm.handlers.operations.activations import ACTIVATIONS, FROM_INPUT
from brainstorm.handlers.programs import Program
from brainstorm.utils import HandlerError
from tests.handlers import argument_cases
from tests.handlers.handler_cases import Arrays, in_records, pycuda_handler

needs_gpp = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

# -- all operations, against NumpyHandler in float64 ---------------------------

SIZES = {"M": 7, "N": 5, "I": 6, "C": 4, "*S": (3, 4, 5), "*L": (3, 4)}
SIZES |= {"A": 2, "B": 3, "A+B": 5, "V": 4, "T": 3, "U": 4, "G": 20, "F": 2}
IMAGES = {"N": 2, "H": 6, "W": 5, "C": 3, "D": 3, "K": 3, "L": 2, "P": 3, "Q": 3}
OTHER_SIZES = {
    **{
        name: {"M": 7, "P": 7, "Q": 6, "R": 6, "S": 5}
        for name in ("dot_mm", "dot_add_mm", "batch_dot_mm", "batch_dot_add_mm")
    },
    "sum_t": {"*S": (70, 7), "*R": (1, 7)},
    "broadcast_t": {"*S": (1, 7), "*R": (5, 7)},
    "sgd_update": {"N": 700},
    "lstm_outputs": {"S": 2},
    **{f"attention_{k}": {"N": 6} for k in ("forward", "backward", "weights")},
    **{f"nvar_{k}": {"L": 3, "Q": 1 + 3 + 6 + 15} for k in ("forward", "backward")},
    **{f"conv2d_{k}_batch": IMAGES for k in ("forward", "backward")},
    **{f"conv2d_transpose_{k}_batch": IMAGES for k in ("forward", "backward")},
    **{f"maxpool2d_{k}_batch": IMAGES for k in ("forward", "backward")},
    **{f"avgpool2d_{k}_batch": IMAGES for k in ("forward", "backward")},
}
SCALARS = {
    **{"s": 0.3, "val": 0.4, "a_min": 0.2, "a_max": 0.4, "axis": 0, "mean": 0.1},
    **{"std": 0.2, "probability": 0.7, "drop_prob": 0.3, "learning_rate": 0.1},
    **{"momentum": 0.9, "limit": 0.5, "decay": 0.9, "epsilon": 1e-2, "beta1": 0.9},
    **{"beta2": 0.99, "weight_decay": 0.1, "update_nr": 3},
    **{"padding": 1, "stride": (2, 2), "window": (3, 2)},
    **{"orders": (2, 4), "constant": True, "heads": 2, "causal": True},
    **{name: argument_cases.SCALARS[name] for name in ("threshold", "neuron")},
    **{"surrogate": "erf", "parameters": (1.5,)},
}
INDICES = {"targets", "argmax", "indices"}
RANDOM = {"fill_gaussian", "generate_probability_mask", "dropout_forward"}
LISTED = {"clear"}
MOVE_DATA = {"get_numpy_copy", "set_from_numpy", "is_fully_finite"}
COMPARED = sorted(set(OPERATIONS) - RANDOM - MOVE_DATA - LISTED)


def signature(name):
    """The names of an operation's arguments."""
    return list(inspect.signature(getattr(Handler, name)).parameters)


def activations_for(name):
    """The activation functions that an operation can have, [None] without any."""
    if "activation" not in signature(name):
        return [None]
    if name in ("conv2d_backward_batch", "conv2d_transpose_backward_batch"):
        return [a for a in ACTIVATIONS if a not in FROM_INPUT]
    return ACTIVATIONS


def values_for(name, activation, **sizes):
    """Values for all arrays of an operation by name, random but valid."""
    spec = OPERATIONS[name]
    rnd = np.random.RandomState(3)
    sizes = SIZES | sizes | OTHER_SIZES.get(name, {})
    if name.startswith("gru"):
        sizes = sizes | {"G": 15}
    if name.startswith("recurrent"):
        sizes = sizes | {"B": 2}
    values = {}
    for argument, shape in {**spec.read, **spec.write, **spec.add}.items():
        dims = ()
        for part in shape.split("|")[0].split(","):
            size = int(part) if part.isdigit() else sizes[part]
            dims += size if isinstance(size, tuple) else (size,)
        value = rnd.uniform(0.1, 1.0, dims)
        if argument in INDICES or name in ("binarize_v", "index_m_by_v"):
            value = rnd.randint(0, 4, dims)
        if name == "ctc_forward" and argument in ("targets", "lengths"):
            value = np.full(dims, 3.0)
            if argument == "targets":
                value = np.array([1.0, 2.0, 0.0])[:, None, None] + np.zeros(dims)
        elif argument == "lengths":
            value = rnd.randint(0, 4, dims)
        if argument == "clock.timing":
            value = rnd.randint(1, 4, dims)
        if argument == "clock.step":
            value = np.arange(5, 5 + dims[0]).reshape(-1, 1, 1) + np.zeros(dims)
            value[-1] = 4
        values[argument] = np.asarray(value, np.float32)
    for argument in signature(name):
        if argument in SCALARS and argument not in values:
            values[argument] = SCALARS[argument]
        elif argument == "activation":
            values[argument] = activation
        elif argument in ("x", "y") and argument not in values:
            values[argument] = values["x" if argument == "y" else "y"]
    return values


def run(handler, name, values, strided, replayed=False, **flags):
    """Run an operation; returns all its arrays afterwards, by name.

    If it is to be replayed, it is recorded with the same values in reverse order.
    """
    arguments = {}
    for argument, value in values.items():
        if isinstance(value, np.ndarray):
            # Flat buffers, weights and vectors of parameters are never strided.
            arrays = Arrays(handler, strided=strided and value.ndim > 1)
            value = arrays.put(value)
        arguments[argument] = value
    for argument in {"weights.peepholes", "gradients.peepholes"} & set(values):
        arguments[argument] = handler.create_from_numpy(values[argument])
    if replayed:
        replay(handler, name, arguments, values, flags)
    else:
        getattr(handler, name)(**in_records(name, arguments), **flags)
    return {
        argument: handler.get_numpy_copy(arguments[argument])
        for argument, value in values.items()
        if isinstance(value, np.ndarray) and argument != "norms"  # those are scratch
    }


def replay(handler, name, arguments, values, flags):
    arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
    for argument, value in arrays.items():
        reverse = np.ascontiguousarray(value.ravel()[::-1]).reshape(value.shape)
        handler.set_from_numpy(arguments[argument], reverse)
    program, packed = Program(), in_records(name, arguments)
    handler.record(lambda h: getattr(h, name)(**packed, **flags), program)
    with contextlib.suppress(HandlerError):  # as of labels in an impossible order
        handler.get_numpy_copy(handler.ones((1,)))
    for argument, value in arrays.items():
        handler.set_from_numpy(arguments[argument], value)
    program()


@pytest.fixture(scope="module")
def emulated():
    return sanitized_handler(seed=1)


@pytest.fixture(
    scope="module", params=["emulated", pytest.param("pycuda", marks=pytest.mark.gpu)]
)
def handler(request):
    """The emulation, and the real one: that is what tools watch on a GPU."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated")
    return pycuda_handler()


# What is cut into parts, or takes more than one block for a row.
LARGE = {
    "layer_norm_forward": {"M": 3, "C": 300},
    "layer_norm_backward": {"M": 70, "C": 300},
    "lstm_backward": {"T": 9, "B": 20, "U": 10},
    "gru_forward": {"T": 9, "B": 70, "U": 10},
    "gru_backward": {"T": 9, "B": 70, "U": 10},
    "constrain_rows": {"N": 2, "I": 9001},
    "add_to_rows": {"M": 2500, "V": 40},
}
CASES = [(name, {}) for name in COMPARED] + list(LARGE.items())


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_operations_compute_what_numpy_computes(handler, name, sizes, strided):
    flags = [p for p in signature(name) if p.startswith("fresh")]
    reference = NumpyHandler(np.float64)
    for activation in activations_for(name):
        for fresh in (False, True) if flags else (False,):
            values = values_for(name, activation, **sizes)
            chosen = dict.fromkeys(flags, fresh)
            expected = run(reference, name, values, False, **chosen)
            got = run(handler, name, values, strided, **chosen)
            for argument, array in expected.items():
                np.testing.assert_allclose(
                    got[argument], array, 2e-5, 2e-5, err_msg=(argument, activation)
                )


@pytest.mark.parametrize("name", COMPARED)
def test_replays_compute_what_numpy_computes(handler, name):
    values = values_for(name, activations_for(name)[-1])
    flags = {p: True for p in signature(name) if p.startswith("fresh")}
    expected = run(NumpyHandler(np.float64), name, values, False, **flags)
    got = run(handler, name, values, False, replayed=True, **flags)
    for argument, array in expected.items():
        np.testing.assert_allclose(got[argument], array, 2e-5, 2e-5, err_msg=argument)


RESET_BEFORE = {
    "gru_forward": {"reset_after": False, "weights.recurrent_bias": None},
    "gru_backward": {"reset_after": False, "gradients.recurrent_bias": None},
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru_forward", {"weights.recurrent_bias": None}),
        *RESET_BEFORE.items(),
        ("recurrent_forward", {"leak": 0.3}),
        ("recurrent_backward", {"leak": 0.3}),
        ("recurrent_forward", {"leak": 0.3, "leak_inside": True}),
        ("recurrent_backward", {"leak": 0.3, "leak_inside": True}),
    ],
)
def test_options_of_recurrent_operations(handler, name, options):
    values = {**values_for(name, "swish", T=3, B=70, U=4), **options}
    without_clock = {k: v for k, v in values.items() if not k.startswith("clock")}
    expected, got = (
        run(chosen, name, without_clock, False)
        for chosen in (NumpyHandler(np.float64), handler)
    )
    for argument, array in expected.items():
        np.testing.assert_allclose(got[argument], array, 2e-5, 2e-5, err_msg=argument)


def cut_out(handler, value, axis):
    """An array cut out of a larger one along an axis, and that one.

    A further axis makes a view whose last axis is not dense.
    """
    shape, index = [*value.shape, 3][: value.ndim + 1], [slice(None)] * value.ndim
    if axis < value.ndim:
        shape = shape[:-1]
        shape[axis] += 3
        index[axis] = slice(1, -2)
    else:
        index.append(1)
    whole = handler.allocate(tuple(shape))
    handler.fill(whole, float("nan"))
    handler.set_from_numpy(whole[tuple(index)], value)
    return whole[tuple(index)], whole


@pytest.mark.parametrize("first_axis", range(5))
@pytest.mark.parametrize("name", COMPARED)
def test_operations_on_what_is_cut_along_any_axis(handler, name, first_axis):
    values = values_for(name, activations_for(name)[-1])
    fresh = {p: first_axis % 2 for p in signature(name) if p.startswith("fresh")}
    expected = run(NumpyHandler(np.float64), name, values, False, **fresh)
    arguments, wholes = dict(values), {}
    for k, (argument, value) in enumerate(values.items()):
        if isinstance(value, np.ndarray):
            axis = (first_axis + k) % (value.ndim + 1)
            arguments[argument], wholes[argument] = cut_out(handler, value, axis)
    getattr(handler, name)(**in_records(name, arguments), **fresh)
    for argument, array in expected.items():
        got = handler.get_numpy_copy(arguments[argument])
        np.testing.assert_allclose(got, array, 2e-5, 2e-5, err_msg=argument)
        around = handler.get_numpy_copy(wholes[argument]).size - array.size
        assert np.isnan(handler.get_numpy_copy(wholes[argument])).sum() == around


@pytest.mark.slow
def test_every_kernel_is_run(emulated, monkeypatch):
    launched = set()
    monkeypatch.setattr(emulated.context, "launched", launched)
    other_arguments = {"sum_t": {"axis": 1, "out": np.ones((70, 1), np.float32)}}
    for name in COMPARED:
        for strided in (False, True):
            for activation in activations_for(name):
                values = values_for(name, activation)
                run(emulated, name, values, strided)
                others = other_arguments.get(name, {})
                run(emulated, name, {**values, **others}, strided)
                fresh = {p: True for p in signature(name) if p.startswith("fresh")}
                run(emulated, name, values, strided, **fresh)
                # The vectors that belong to a single row are not repeated.
                row = values_for(name, activation, M=1)
                run(emulated, name, row, False)
                run(emulated, name, row, False, **fresh)
    for strided in (False, True):
        for name in RANDOM:
            run(emulated, name, values_for(name, None), strided)
        for name, options in RESET_BEFORE.items():
            before = {**values_for(name, "tanh"), **options}
            run(emulated, name, before, strided)
        array = Arrays(emulated, strided=strided).put(np.ones((2, 3)))
        assert emulated.is_fully_finite(array)
    emulated.clear(emulated.ones((2, 3)), emulated.ones((300,)))
    emulated.constrain_rows(emulated.ones((1, 9001)), 0.5, emulated.ones((1, 1)))
    source = compiler.kernel_source()
    kernels = set(kernel_names(expand(source)))
    assert len(kernels) > 90
    assert {k for k in compiler.kernel_parameters(source) if k != "NAME"} <= kernels
    # Vectors of parameters are never strided.
    never = {f"{name}_strided" for name in kernels if name.endswith("_update")}
    never |= {"nesterov_ahead_strided", "nesterov_correct_strided"}
    never |= {"batch_norm_mean_strided", "batch_norm_deviation_strided"}
    assert kernels - launched == never


# -- the emulation itself ------------------------------------------------------

FAULTS = """
__device__ float sum(float x) {
  __shared__ float values[8];
  values[threadIdx.x] = x;
  __syncthreads();
  float total = 0;
  for (unsigned i = 0; i < blockDim.x; ++i) total += values[i];
  return total;
}
extern "C" __global__ void good(int n, float *a) {
  const float total = sum(threadIdx.x < n ? a[threadIdx.x] : 0);
  if (threadIdx.x < n) a[threadIdx.x] = total;
}
extern "C" __global__ void beyond(int n, float *a) { a[n] = 1; }
extern "C" __global__ void beyond_shared(int n, float *a) { a[0] = sum(a[0]); }
extern "C" __global__ void overflow(int n, float *a) { a[0] = n + 2147483647; }
extern "C" __global__ void race(int n, float *a) { a[0] = threadIdx.x; }
extern "C" __global__ void block_race(int n, float *a) { a[0] = blockIdx.x; }
extern "C" __global__ void divergent(int n, float *a) {
  if (threadIdx.x < n) a[threadIdx.x] = sum(1);
}
extern "C" __global__ void unset_shared(int n, float *a) {
  __shared__ float values[8];
  if (n > 8) values[0] = 1;
  a[threadIdx.x] = values[threadIdx.x];
}
"""


@pytest.fixture(scope="module")
def faulty_program():
    if not has_compiler():
        pytest.skip("needs g++ with its sanitizers")
    return compile_program(FAULTS)


@pytest.mark.parametrize(
    ("kernel", "grid", "threads", "text"),
    [
        ("beyond", 1, 1, "heap-buffer-overflow"),
        ("beyond_shared", 1, 9, "out of bounds"),
        ("overflow", 1, 1, "signed integer overflow"),
        ("race", 1, 2, "depends on the order"),
        ("block_race", 2, 1, "depends on the order"),
        ("divergent", 1, 8, "others never reach"),
        ("missing", 1, 1, "no such kernel"),
        ("good", 0, 1, "too large, or empty"),
        ("good", 1, 1025, "too large, or empty"),
    ],
)
def test_the_emulation_notices_faults(faulty_program, kernel, grid, threads, text):
    device = SanitizedDevice(faulty_program)
    memory = device.allocate(4 * 4)
    device.write(int(memory), np.ones(4, np.float32))
    arguments = np.array([4, 0, *np.frombuffer(np.uint64(int(memory)), "u4")], "u4")
    with pytest.raises(EmulationError, match=text):
        device.launch(kernel, (grid, 1), (threads, 1, 1), arguments.tobytes())
    device.close()


def test_the_emulation_runs_what_is_good(faulty_program):
    device = SanitizedDevice(faulty_program)
    memory, values = device.allocate(4 * 4), np.zeros(4, np.float32)
    device.read(values, int(memory))
    assert np.isnan(values).all()
    device.write(int(memory), np.arange(4, dtype=np.float32))
    arguments = np.array([4, 0, *np.frombuffer(np.uint64(int(memory)), "u4")], "u4")
    device.launch("good", (1, 1), (8, 1, 1), arguments.tobytes())
    device.read(values, int(memory))
    assert values.tolist() == [6] * 4
    device.launch("unset_shared", (1, 1), (4, 1, 1), arguments.tobytes())
    device.read(values, int(memory))
    assert np.isnan(values).all()
    with pytest.raises(EmulationError, match="not those of the kernel"):
        device.launch("good", (1, 1), (8, 1, 1), arguments.tobytes()[:-4])
    device.close()


# -- compiling for GPUs --------------------------------------------------------


def compile_with(kind, source, arch):
    """Machine code; skips the test where the compiler is missing."""
    if kind == "nvcc":
        nvcc = compiler.find_nvcc()
        if nvcc is None:
            pytest.skip("nvcc was not found")
        return compiler.compile_with_nvcc(source, arch, nvcc)
    if load_library("nvrtc") is None:
        pytest.skip("NVRTC was not found")
    return compiler.compile_with_nvrtc(source, arch)


@needs_gpp
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_90"])
@pytest.mark.parametrize("kind", ["nvcc", "NVRTC"])
def test_kernels_compile_for_gpus(kind, arch):
    source = compiler.kernel_source()
    cubin = compile_with(kind, source, arch)
    assert cubin.startswith(b"\x7fELF")
    for name in kernel_names(expand(source)):
        assert b".text." + name.encode() + b"\0" in cubin
    ptx = compile_with(kind, source, arch.replace("sm", "compute"))
    for name in kernel_names(expand(source)):
        assert b".entry " + name.encode() + b"(" in ptx


@pytest.mark.parametrize("kind", ["nvcc", "NVRTC"])
def test_compilers_tell_what_is_wrong(kind):
    source = "__global__ void f() { nonsense; }"
    with pytest.raises(HandlerError, match=f"(?s){kind} could not .* sm_90.*nonsense"):
        compile_with(kind, source, "sm_90")
