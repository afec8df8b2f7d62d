"""What this machine is called."""

from __future__ import annotations

import platform
from pathlib import Path


def processor_name() -> str:
    """Returns the processor's own name, or its instruction set where the system hides it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
