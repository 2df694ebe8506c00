"""What figures were measured on: every table of a benchmark begins with it."""

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
import os
from pathlib import Path
import platform

PACKAGES = ("torch", "pytorch-optimizer", "torch-optimizer", "torch-adopt", "sophia-opt", "heavyball")


def machine_with(device: str) -> str:
    """As `machine`, with the name of the GPU in front where one is used."""
    if device != "cuda":
        return machine()
    import torch

    return f"{torch.cuda.get_device_name()} · {machine()}"


def machine() -> str:
    """Date, processor, load and the versions of torch and the peers, in one line."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {processor()}, {os.cpu_count()} CPUs, load {load} · "
        f"Python {platform.python_version()}, {', '.join(filter(None, map(_version, PACKAGES)))}"
    )


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
