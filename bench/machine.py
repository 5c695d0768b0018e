"""What a figure was measured on, in words."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path


def machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    size = f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown memory"
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({cpu[1] if cpu else 'unknown'}), {size}, load {load:.1f}, {when} UTC"
