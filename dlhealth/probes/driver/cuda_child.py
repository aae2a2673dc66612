"""Starts CUDA once, in a process of its own: a call into a wedged driver never returns.

Prints one line: the number that cuInit returned, or why it was not called. cuInit creates no context on a GPU.
"""

import os
from ctypes import CDLL

UVM = "/dev/nvidia-uvm"


def answer() -> str:
    """The line."""
    with open("/proc/self/status") as status:
        # What the sandbox of a service or a container forbids looks like a broken driver.
        if "\nSeccomp:\t2" in status.read():
            return "not called: a seccomp filter applies, which may forbid it"
    try:
        os.close(os.open(UVM, os.O_RDWR | os.O_CLOEXEC))
        return str(CDLL("libcuda.so.1").cuInit(0))
    except OSError as error:
        return f"not called: {error.strerror or error}"


if __name__ == "__main__":
    print(answer())
