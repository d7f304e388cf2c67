"""One simulated CUDA device on a torch without CUDA: numbers computed on the CPU, under CUDA's rules.

A `SimulatedTensor` reports the device cuda:0 and holds a CPU tensor; a dispatch mode runs every operator on what it
holds. Code under test takes its own CUDA branches, unpatched, and the simulation refuses or reports what goes wrong on a
GPU:

- tensors of two devices in one operator;
- while a graph is captured: anything that makes the host wait, and copies between host and device;
- two streams that use the same memory without one waiting for the other (vector clocks, as in CUDA Sanitizer);
- memory freed, or a graph destroyed, while a stream may still use it.

A captured graph is a list of operators. Capturing executes no write and fills what was allocated with NaN; a replay runs
the list into the same memory. So whatever is not on the device (a Python number, a branch) stays as it was at capture.

Not seen: what happens inside CUDA kernels, cuDNN, cuBLAS and Triton during capture, autograd's own streams, the caching
allocator, rounding on a GPU, speed, compiled code.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
DEVICE = torch.device("cuda:0")
NAME = "a simulated GPU"
QUERY_SECONDS = 0.01
# The size of the result depends on values, so the host waits for them.
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.equal,
    aten.unique_dim,
    aten.bincount,
}
# Of the operators listed at torch.use_deterministic_algorithms as refused on CUDA, those a small network could use.
NOT_DETERMINISTIC = {
    aten._adaptive_avg_pool2d_backward,
    aten.bincount,
    aten.cumsum,
    aten.histc,
    aten.kthvalue,
    aten.median,
    aten.nll_loss2d_forward,
    aten.put_,
    aten.reflection_pad2d_backward,
    aten.replication_pad2d_backward,
    aten.scatter_reduce,
    aten.upsample_bilinear2d_backward,
}


# On a processor without bfloat16 kernels these are computed as anchorloss.training.precision computes them.
ROUNDED = {aten.convolution, aten.convolution_backward, aten.addmm, aten.mm}


class CudaError(RuntimeError):
    """What CUDA, or torch on CUDA, would refuse."""


class SimulatedTensor(torch.Tensor):
    """Reports cuda:0; `inner` holds the values, on the CPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        self.inner = inner
        return self

    def __repr__(self):
        return f"SimulatedTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return SimulatedGpu.current.run(func, args, kwargs or {})


class Stream:
    """In place of torch.cuda.Stream: for each stream, the last of its operations that are over for those of this one."""

    def __init__(self, device=None, priority=0):
        gpu = SimulatedGpu.current
        self.number = next(gpu.numbers)
        self.device = DEVICE
        self.clock: Counter = Counter()
        # When the last replay ends, in the simulated seconds of `SimulatedGpu.seconds`.
        self.busy_until = 0.0
        self._queries = 0
        gpu.streams.add(self)

    def synchronize(self):
        gpu = SimulatedGpu.current
        gpu.host |= self.clock
        gpu.seconds = max(gpu.seconds, self.busy_until)

    def query(self):
        """True once the replays are over; where they take no time, at every third call, so that waiting is executed."""
        gpu = SimulatedGpu.current
        gpu.seconds += QUERY_SECONDS
        self._queries += 1
        is_over = gpu.seconds >= self.busy_until if gpu.seconds_per_replay else self._queries % 3 == 0
        if is_over:
            self.synchronize()
        return is_over

    def wait_stream(self, other):
        self.clock |= other.clock
        self.busy_until = max(self.busy_until, other.busy_until)


class Graph:
    """In place of torch.cuda.CUDAGraph: the operators captured, and the memory that they use."""

    def __init__(self):
        self.operators = []
        self.reads: set = set()
        self.writes: set = set()
        self.allocated: dict = {}  # key -> storage; kept alive as a graph's private pool is
        self._gpu = SimulatedGpu.current
        self._last_replay = None

    def replay(self):
        gpu = self._gpu
        if gpu.capturing is not None:
            raise CudaError("a graph is replayed while another is captured")
        gpu.launch(self.reads, self.writes | set(self.allocated), "a graph's replay")
        stream = gpu.stream
        stream.busy_until = max(stream.busy_until, gpu.seconds) + gpu.seconds_per_replay
        self._last_replay = (stream.number, stream.clock[stream.number])
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            for func, args, kwargs, results, mutates in self.operators:
                again = gpu._compute(func, args, kwargs)
                if mutates:
                    continue
                for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor):
                        assert old.shape == new.shape, func
                        assert old.stride() == new.stride(), func
                        old.copy_(new)
        gpu.log["replay"] += 1

    def __del__(self):
        if self._last_replay is not None and SimulatedGpu.current is self._gpu:
            stream, operation = self._last_replay
            if self._gpu.host[stream] < operation:
                self._gpu.errors.append("a graph was destroyed while its replay may still run")


class SimulatedGpu(TorchDispatchMode):
    """The device: its streams, its memory's users, and what was found wrong (`errors`)."""

    current: SimulatedGpu | None = None

    def __init__(self):
        super().__init__()
        SimulatedGpu.current = self
        self.numbers = itertools.count()
        self.streams: weakref.WeakSet = weakref.WeakSet()
        self.host: Counter = Counter()  # what the host has waited for, by stream
        self.errors: list[str] = []
        self.log: Counter = Counter()
        self.not_deterministic: Counter = Counter()
        # Time passes by replays, each on its own stream, and by asking whether they are over.
        self.seconds = 0.0
        self.seconds_per_replay = 0.0
        self.capturing: Graph | None = None
        # storage key -> [last write, {stream: last read}, stream that allocated it]
        self._users: dict = {}
        self.default = self.stream = Stream()

    @contextlib.contextmanager
    def use_stream(self, stream):
        before, self.stream = self.stream, stream or self.stream
        try:
            yield
        finally:
            self.stream = before

    @contextlib.contextmanager
    def capture(self, graph, stream):
        """In place of torch.cuda.graph."""
        self.synchronize()
        with self.use_stream(stream):
            if stream is self.default:
                raise CudaError("CUDA graphs must be captured on a non-default stream")
            if self.capturing is not None:
                raise CudaError("two graphs are captured at once")
            self.capturing = graph
            self.log["capture"] += 1
            try:
                yield
            finally:
                self.capturing = None
        with torch._C._DisableTorchDispatch():
            for *_, results, mutates in graph.operators:
                for leaf in () if mutates else tree_leaves(results):
                    if isinstance(leaf, torch.Tensor):
                        leaf.fill_(
                            float("nan") if leaf.is_floating_point() else leaf.dtype == torch.bool or 111
                        )

    def synchronize(self, device=None):
        for stream in list(self.streams):
            stream.synchronize()

    def launch(self, reads, writes, name):
        """Note one operation of the current stream; an error for each storage whose other users it does not wait for."""
        stream = self.stream
        stream.clock |= self.host  # what the host has waited for is over
        stream.clock[stream.number] += 1
        now = stream.clock[stream.number]
        here = f"stream {stream.number}: {name}"
        for key in reads - writes:
            write, readers, _ = self._users[key]
            if write and stream.clock[write[0]] < write[1]:
                self.errors.append(f"{here} reads what stream {write[0]} may not have written ({write[2]})")
            readers[stream.number] = (now, name)
        for key in writes:
            user = self._users[key]
            write, readers, _ = user
            if write and stream.clock[write[0]] < write[1]:
                self.errors.append(f"{here} overwrites what stream {write[0]} may still write ({write[2]})")
            for number, (operation, reader) in readers.items():
                if stream.clock[number] < operation:
                    self.errors.append(f"{here} overwrites what stream {number} may still read ({reader})")
            user[0], user[1] = (stream.number, now, name), {}

    def run(self, func, args, kwargs):
        """Run one operator on what the simulated tensors hold."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, SimulatedTensor)]
        target = kwargs.get("device")
        target = None if target is None else torch.device(target).type
        if not ours and target != "cuda":
            return func(*args, **kwargs)
        name, packet = func._schema.name, func.overloadpacket
        if packet in NOT_DETERMINISTIC:
            self.not_deterministic[name] += 1
        capturing = self.capturing is not None
        waits = packet in WAITING or _is_indexed_by_mask(func, args)
        crosses = packet in (aten.copy_, aten._to_copy) and (len(ours) < len(tensors) or target == "cpu")
        if capturing and (crosses or waits):
            raise CudaError(f"{name}: operation not permitted when stream is capturing")
        if not crosses and packet is not aten.lift_fresh:
            strangers = [tensor for tensor in tensors if not isinstance(tensor, SimulatedTensor)]
            if any(tensor.dim() for tensor in strangers) or (strangers and capturing):
                raise CudaError(
                    f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu"
                )

        inner_args, inner_kwargs = tree_map(_unwrapped, (args, kwargs))
        if target == "cuda":
            inner_kwargs["device"] = torch.device("cpu")
        mutates, is_view = func._schema.is_mutable, func.is_view
        with torch.no_grad():
            if mutates and capturing:
                results = _written(func, inner_args, inner_kwargs)
            else:
                results = self._compute(func, inner_args, inner_kwargs)
        to_host = packet is aten._local_scalar_dense or (packet is aten._to_copy and target == "cpu")
        if not is_view:
            on_device = {id(tensor.inner) for tensor in ours}
            self._note(func, inner_args, inner_kwargs, None if to_host else results, on_device)
        if crosses or waits:
            self.stream.synchronize()
        if crosses:
            self.log["copies between host and device"] += 1
        elif waits and packet is not aten._local_scalar_dense:
            self.log[f"the host waits for {name}"] += 1
        if to_host:
            return results
        if capturing and not is_view:
            self.capturing.operators.append((func, inner_args, inner_kwargs, results, mutates))
        wrapped = tree_map(
            lambda leaf: SimulatedTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, results
        )
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if mutates or is_view else wrapped

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def _compute(self, func, args, kwargs):
        if (
            func.overloadpacket not in ROUNDED
            or args[0].dtype != torch.bfloat16
            or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        ):
            return func(*args, **kwargs)
        widened = tree_map(lambda leaf: leaf.float() if isinstance(leaf, torch.Tensor) else leaf, args)
        return tree_map(
            lambda leaf: leaf.to(torch.bfloat16) if isinstance(leaf, torch.Tensor) else leaf,
            func(*widened, **kwargs),
        )

    def _note(self, func, args, kwargs, results, on_device):
        """What an operator reads and writes: launched, or noted in the graph that is being captured."""
        schema = func._schema
        reads, writes = set(), set()
        named = [
            *zip(schema.arguments, args, strict=False),
            *((argument, kwargs[argument.name]) for argument in schema.arguments if argument.name in kwargs),
        ]
        metadata_only = schema.name.endswith("_like") or "::new_" in schema.name
        for argument, value in named:
            written = argument.alias_info is not None and argument.alias_info.is_write
            for leaf in tree_leaves(value):
                if id(leaf) in on_device and (written or not metadata_only):
                    (writes if written else reads).add(self._key(leaf))
        made = {
            self._key(leaf): leaf.untyped_storage()
            for leaf in tree_leaves(results)
            if isinstance(leaf, torch.Tensor)
        }
        writes |= set(made)
        graph = self.capturing
        if graph is None:
            if reads or writes:
                self.launch(reads, writes, schema.name)
            return
        if not schema.is_mutable:
            graph.allocated.update(made)
        graph.reads |= reads - set(graph.allocated)
        graph.writes |= writes - set(graph.allocated)

    def _key(self, inner):
        storage = inner.untyped_storage()
        key = storage._cdata
        if key not in self._users:
            self._users[key] = [None, {}, self.stream]
            weakref.finalize(storage, self._free, key)
        return key

    def _free(self, key):
        if SimulatedGpu.current is not self:
            return
        write, readers, home = self._users.pop(key)
        over = home.clock | self.host
        uses = [*([write] if write else []), *((number, *read) for number, read in readers.items())]
        for number, operation, name in uses:
            if number != home.number and over[number] < operation:
                self.errors.append(f"memory was freed while stream {number} may still use it ({name})")


def _unwrapped(leaf):
    return leaf.inner if isinstance(leaf, SimulatedTensor) else leaf


def _is_indexed_by_mask(func, args):
    return func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
        index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
    )


def _written(func, args, kwargs):
    """What an operator that writes returns, without executing it."""
    named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    written = [
        named[argument.name]
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write and argument.name in named
    ]
    returned = [result for result in func._schema.returns if result.alias_info is not None]
    if not returned:
        return None
    return written[0] if len(returned) == 1 else tuple(written)


@contextlib.contextmanager
def simulated_cuda():
    """One simulated device in place of torch.cuda; `guard.cpp` must be loaded already."""
    import pytest

    gpu = SimulatedGpu()
    replaced = {
        "_lazy_init": lambda: None,
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": gpu.capture,
        "stream": gpu.use_stream,
        "current_stream": lambda device=None: gpu.stream,
        "synchronize": gpu.synchronize,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: (9, 0),
        "empty_cache": lambda: None,
        "memory_reserved": lambda device=None: 1 << 30,
    }
    lifts = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch:
        for name, replacement in replaced.items():
            patch.setattr(torch.cuda, name, replacement)
        # torch.cuda.set_device keeps its own checks and ends in this.
        patch.setattr(torch._C, "_cuda_setDevice", lambda index: None, raising=False)
        patch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with gpu:
                yield gpu
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
            torch.__future__.set_overwrite_module_params_on_conversion(False)
            SimulatedGpu.current = None
