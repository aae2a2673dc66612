"""The driver answers.

What it proves: libcuda.so.1 loads, cuInit succeeds, and each GPU tells its name and its compute capability. It says which
GPUs NVML, which nvidia-smi asks, does not know.
What it needs: nothing but the driver.
Limits: no kernel runs. It is not known yet whether a GPU computes.
"""

from dlhealth.prove.cuda import MAJOR, MINOR, Driver
from dlhealth.prove.nvml import Sensors
from dlhealth.prove.stages import Figure, Task, Work


def prove(task: Task) -> Work:
    driver = Driver()
    version = driver.number("cuDriverGetVersion")
    described = []
    for index in task.cards(driver.count):
        device = driver.number("cuDeviceGet", index)
        capability = ".".join(str(driver.number("cuDeviceGetAttribute", part, device)) for part in (MAJOR, MINOR))
        known = "" if Sensors(driver.bus(index)).answer else " (NVML does not answer for it)"
        described.append(f"GPU {index}: {driver.name(device)}, compute capability {capability}{known}")
    yield Figure("GPUs", len(described))
    return f"CUDA {version // 1000}.{version % 1000 // 10}; {'; '.join(described)}"
