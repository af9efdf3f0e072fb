"""Machines with GPUs, by their names: what each is for the choice of a release."""

from dataclasses import replace
from typing import Any

from appliance.domain.host import Docker, Driver, Gpu, Host
from appliance.plan.drivers import api_of
from tests.unit.samples import GIB, HOST

CARDS = {
    "Tesla M40": ("5.2", 24),
    "Tesla P100": ("6.0", 16),
    "Tesla P40": ("6.1", 24),
    "Tesla V100": ("7.0", 32),
    "Tesla T4": ("7.5", 16),
    "A100": ("8.0", 80),
    "RTX 3090": ("8.6", 24),
    "RTX 4090": ("8.9", 24),
    "H100": ("9.0", 80),
    "B200": ("10.0", 180),
    "B300": ("10.3", 270),
    "RTX 5090": ("12.0", 32),
    "GB10": ("12.1", 0),
}
"""Name -> compute capability, GiB of memory; 0 = it shares the machine's."""


def cards(*names: str) -> tuple[Gpu, ...]:
    """Return GPUs counted from 0."""
    return tuple(
        Gpu(
            vendor="nvidia",
            index=number,
            uuid=f"GPU-{number}",
            name=name,
            memory=CARDS[name][1] * GIB or None,
            unified=not CARDS[name][1],
            compute_capability=CARDS[name][0],
        )
        for number, name in enumerate(names)
    )


DOCKER = Docker(client="28.3.0", server="28.3.0", compose="2.38.2", toolkit="1.17.8", runtimes=("nvidia", "runc"))


def boxed(host: Host) -> Host:
    """Return the machine with a Docker that hands its GPUs to containers."""
    return replace(host, docker=DOCKER)


def machine(*names: str, driver: str = "580.95.05", api: str = "", **more: Any) -> Host:
    """Return a machine with these NVIDIA GPUs; the driver supports the CUDA that its version stands for."""
    known = Driver(vendor="nvidia", version=driver, api=api or api_of(driver))
    return replace(HOST, gpus=cards(*names), drivers=(known,), **more)
