"""Calls libcuda.so.1 without any framework. Only the child processes of a proof use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import (
    CDLL,
    POINTER,
    addressof,
    byref,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_uint32,
    c_uint64,
    c_void_p,
    cast,
)
from ctypes import create_string_buffer as buffer
from typing import Any

FACTOR, SUMMAND = 1664525, 1013904223
"""The step that `mix` repeats: x * FACTOR + SUMMAND, modulo 2**32."""
BLOCK = 256
OUT_OF_MEMORY = 2
MAJOR, MINOR = 75, 76
"""Attributes of a device: the two parts of its compute capability."""

_INDEX = """
    .reg .pred %q;
    .reg .b32 %r<12>;
    .reg .b64 %d<6>;
    ld.param.u64 %d0, [p];
    ld.param.u32 %r0, [n];
    ld.param.u32 %r1, [a];
    ld.param.u32 %r2, [c];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.u32 %r6, %r3, %r4, %r5;
    setp.ge.u32 %q, %r6, %r0;
    @%q bra done;
    cvta.to.global.u64 %d1, %d0;
    mul.wide.u32 %d2, %r6, 4;
    add.u64 %d3, %d1, %d2;
"""
_COMMON = ".param .u64 p, .param .u32 n, .param .u32 a, .param .u32 c"

KERNELS = f"""
.version 6.0
.target sm_50
.address_size 64

.visible .entry dlhealth_fill({_COMMON})
{{{_INDEX}
    mad.lo.u32 %r7, %r6, %r1, %r2;
    st.global.u32 [%d3], %r7;
done:
    ret;
}}

.visible .entry dlhealth_mix({_COMMON})
{{{_INDEX}
    mov.u32 %r7, %r6;
    mov.u32 %r8, 0;
again:
    setp.ge.u32 %q, %r8, %r1;
    @%q bra store;
    mad.lo.u32 %r7, %r7, {FACTOR}, {SUMMAND};
    add.u32 %r8, %r8, 1;
    bra again;
store:
    add.u32 %r7, %r7, %r2;
    st.global.u32 [%d3], %r7;
done:
    ret;
}}

.visible .entry dlhealth_check({_COMMON}, .param .u64 e)
{{{_INDEX}
    mad.lo.u32 %r7, %r6, %r1, %r2;
    ld.global.u32 %r8, [%d3];
    setp.eq.u32 %q, %r7, %r8;
    @%q bra done;
    ld.param.u64 %d4, [e];
    cvta.to.global.u64 %d5, %d4;
    atom.global.add.u32 %r9, [%d5], 1;
    atom.global.min.u32 %r10, [%d5+4], %r6;
done:
    ret;
}}
"""
"""fill: p[i] = i * a + c; mix: a steps from i, then + c; check: compares p[i] with i * a + c, counts the differences in
e[0], and keeps the lowest index in e[1]."""


class CudaError(Exception):
    """The driver answered a call with an error."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(call, code)
        self.call = call.partition("_v")[0]
        self.code = code


class Driver:
    """The loaded and initialised library. Raises OSError if the loader does not find it, CudaError if it refuses."""

    def __init__(self) -> None:
        self._library = CDLL("libcuda.so.1")
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises CudaError for each result but success."""
        code = getattr(self._library, name)(*arguments)
        if code:
            raise CudaError(name, code)

    def number(self, name: str, *arguments: Any) -> int:
        """The number that a function writes to its first argument."""
        value = c_int()
        self.call(name, byref(value), *arguments)
        return value.value

    @property
    def count(self) -> int:
        return self.number("cuDeviceGetCount")

    def name(self, device: int) -> str:
        """The name of a device."""
        text = buffer(256)
        self.call("cuDeviceGetName", text, len(text), device)
        return text.value.decode(errors="replace")

    def bus(self, index: int) -> str:
        """Where a device is on the bus, as NVML names it."""
        text = buffer(32)
        self.call("cuDeviceGetPCIBusId", text, len(text), self.number("cuDeviceGet", index))
        return text.value.decode(errors="replace")

    @contextmanager
    def card(self, index: int) -> Iterator["Card"]:
        """One device with the loaded kernels."""
        device = self.number("cuDeviceGet", index)
        context = c_void_p()
        self.call("cuDevicePrimaryCtxRetain", byref(context), device)
        try:
            self.call("cuCtxSetCurrent", context)
            yield Card(self)
        finally:
            self.call("cuDevicePrimaryCtxRelease_v2", device)


class Card:
    """Memory and kernels of the current device."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._functions: dict[str, c_void_p] = {}
        self._module = c_void_p()
        driver.call("cuModuleLoadData", byref(self._module), c_char_p(KERNELS.encode()))

    def free_bytes(self) -> int:
        free, total = c_size_t(), c_size_t()
        self._driver.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value

    @contextmanager
    def memory(self, size: int) -> Iterator[int]:
        """The address of new memory of the device."""
        address = c_uint64()
        self._driver.call("cuMemAlloc_v2", byref(address), c_size_t(size))
        try:
            yield address.value
        finally:
            self._driver.call("cuMemFree_v2", address)

    @contextmanager
    def host_memory(self, size: int) -> Iterator[int]:
        """The address of new memory of the host that the device reads directly."""
        address = c_void_p()
        self._driver.call("cuMemAllocHost_v2", byref(address), c_size_t(size))
        try:
            yield address.value or 0
        finally:
            self._driver.call("cuMemFreeHost", address)

    def fill(self, address: int, words: int, a: int, c: int) -> None:
        self._launch("fill", words, c_uint64(address), c_uint(words), c_uint(a), c_uint(c))

    def mix(self, address: int, words: int, rounds: int) -> None:
        self._launch("mix", words, c_uint64(address), c_uint(words), c_uint(rounds), c_uint(0))

    def differences(self, address: int, words: int, a: int, c: int) -> tuple[int, int]:
        """How many words differ from i * a + c, and the index of the first one."""
        with self.memory(8) as found:
            self.write(found, (c_uint32 * 2)(0, 0xFFFFFFFF))
            self._launch("check", words, c_uint64(address), c_uint(words), c_uint(a), c_uint(c), c_uint64(found))
            count, first = self.read(found, 2)
        return count, first

    def write(self, address: int, values: Any) -> None:
        self.copy_in(address, addressof(values), len(values) * 4)

    def read(self, address: int, words: int) -> list[int]:
        values = (c_uint32 * words)()
        self.copy_out(addressof(values), address, words * 4)
        return list(values)

    def copy_in(self, address: int, source: int, size: int) -> None:
        self._driver.call("cuMemcpyHtoD_v2", c_uint64(address), c_void_p(source), c_size_t(size))

    def copy_out(self, target: int, address: int, size: int) -> None:
        self._driver.call("cuMemcpyDtoH_v2", c_void_p(target), c_uint64(address), c_size_t(size))

    def copy_within(self, target: int, source: int, size: int) -> None:
        self._driver.call("cuMemcpyDtoD_v2", c_uint64(target), c_uint64(source), c_size_t(size))
        self.wait()

    def wait(self) -> None:
        """Wait until the device is done."""
        self._driver.call("cuCtxSynchronize")

    def _launch(self, kernel: str, words: int, *arguments: Any) -> None:
        function = self._functions.get(kernel)
        if function is None:
            function = self._functions[kernel] = c_void_p()
            self._driver.call(
                "cuModuleGetFunction", byref(function), self._module, c_char_p(f"dlhealth_{kernel}".encode())
            )
        pointers = (c_void_p * len(arguments))(*(cast(POINTER(type(x))(x), c_void_p) for x in arguments))
        blocks = (words + BLOCK - 1) // BLOCK
        self._driver.call("cuLaunchKernel", function, blocks, 1, 1, BLOCK, 1, 1, 0, None, pointers, None)
        self.wait()


def mixed(rounds: int) -> tuple[int, int]:
    """The a and c for which `rounds` steps of mix from i give i * a + c, modulo 2**32."""
    a, c = 1, 0
    for _ in range(rounds):
        a, c = a * FACTOR % 2**32, (c * FACTOR + SUMMAND) % 2**32
    return a, c
