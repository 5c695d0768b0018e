"""What a training takes of its machine: memory, processor, and the GPU as its driver sees it."""

from __future__ import annotations

import time
from typing import Any

import psutil
import torch

EVERY = 1.0
"""Seconds between two looks: steps may be shorter, and a driver takes a millisecond to answer."""

MIB = 2**20


class Machine:
    """Looks at this process, and at the GPU that it trains on. What there is nothing to see of is left out."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process()
        self._process.cpu_percent()  # counts from here
        self._cores = len(self._process.cpu_affinity() or [0])
        self._looked = float("-inf")
        self._seen: dict[str, float] = {}
        self.missing = ""  # why there are no figures of the driver
        self._gpu = self._handle() if device.type == "cuda" else None

    def look(self) -> dict[str, float]:
        """In MiB, percent of all cores that may be used, percent of the time, and watts."""
        if time.monotonic() - self._looked >= EVERY:
            self._looked = time.monotonic()
            memory, cpu = self._process.memory_info().rss / MIB, self._process.cpu_percent() / self._cores
            self._seen = {"memory": round(memory, 1), "cpu_percent": round(cpu, 1), **self._of_gpu()}
        return self._seen

    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"cpu, {self._cores} cores"

    def _of_gpu(self) -> dict[str, float]:
        if self.device.type != "cuda":
            return {}
        seen = {"cuda_memory": round(torch.cuda.max_memory_allocated(self.device) / MIB, 1)}
        if self._gpu is not None:
            import pynvml

            used = pynvml.nvmlDeviceGetMemoryInfo(self._gpu).used / MIB
            watts = pynvml.nvmlDeviceGetPowerUsage(self._gpu) / 1000
            seen["gpu_percent"] = float(pynvml.nvmlDeviceGetUtilizationRates(self._gpu).gpu)
            seen |= {"gpu_memory": round(used, 1), "gpu_watts": round(watts, 1)}
        return seen

    def _handle(self) -> Any:
        """The driver's handle, by the device's own number: the order of devices differs between driver and torch."""
        from gristmill.core.extras import install_line

        try:
            import pynvml
        except ModuleNotFoundError:
            self.missing = f"GPU utilisation and power are not reported: {install_line('monitor')}"
            return None
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(self.device).uuid}")
            pynvml.nvmlDeviceGetMemoryInfo(handle)
            pynvml.nvmlDeviceGetPowerUsage(handle)
            pynvml.nvmlDeviceGetUtilizationRates(handle)  # a part of a card (MIG) has none
        except pynvml.NVMLError as error:
            self.missing = f"GPU utilisation and power are not reported: {error}"
            return None
        return handle
