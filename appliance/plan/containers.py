"""What a service needs of a runtime that runs images: which image, which devices, how much memory."""

import hashlib
from dataclasses import replace
from typing import Final

from appliance.catalog import recipe_digest
from appliance.domain.host import Docker, Driver, Gpu, Host
from appliance.domain.release import Artifact, Release
from appliance.domain.service import Container, Service
from appliance.domain.spec import Images, ModelSpec
from appliance.domain.version import version
from appliance.memory import GIB
from appliance.plan.fitness import VENDORS

OURS: Final = "llm-appliance"
"""Beginning of the names of images that are built from images/."""
PUBLIC: Final = ("docker.io", "ghcr.io", "quay.io")
"""Registries whose names a mirror leaves out."""
CDI_KIND: Final = "nvidia.com/gpu"
CDI_DOCKER: Final = "28.2"
"""First Docker that looks for CDI specs by itself."""
CDI_COMPOSE: Final = "2.30"
"""First Compose that passes the names of CDI devices on."""
NODES: Final = {
    "amd": ("/dev/kfd", "/dev/dri"),
    "intel": ("/dev/dri",),
    "ascend": ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"),
    "metax": ("/dev/mxcd", "/dev/dri"),
    "moore-threads": ("/dev/dri",),
    "hygon": ("/dev/kfd", "/dev/mkfd", "/dev/dri"),
    "iluvatar": (),
}
"""Vendor -> its devices; which of its GPUs a replica uses, the visibility variable says."""
NUMBERED: Final = {"ascend": "/dev/davinci{}", "moore-threads": "/dev/mtgpu.{}", "iluvatar": "/dev/iluvatar{}"}
"""Vendors that have a device for each GPU beside those."""
PARTS: Final = {
    "ascend": ("/usr/local/Ascend/driver", "/usr/local/dcmi", "/usr/local/bin/npu-smi", "/etc/ascend_install.info"),
    "hygon": ("/opt/hyhal",),
}
"""Vendor -> parts of its driver that its images leave to the machine."""
GROUPS: Final = ("render", "video")
BESIDE: Final = GIB
"""Bytes of RAM that a container may take beside what the plan counts, and a quarter of that."""


def gives_gpus(host: Host) -> bool:
    """Tell whether Docker hands NVIDIA's GPUs to containers here."""
    docker = host.docker
    ways = _by_cdi(docker) or docker.toolkit or "nvidia" in docker.runtimes
    return bool(docker.server and not docker.snap and not docker.podman and ways)


def located(release: Release, item: ModelSpec, images: Images, host: Host) -> Release:
    """Return the release with the image that is really run: the model's own, a mirror's, or one that is built here."""
    return replace(release, artifacts=tuple(_located(one, item.image, images, host) for one in release.artifacts))


def gateway(images: Images, host: Host) -> Artifact:
    """Return the gateway's image, which is built from images/gateway."""
    artifact = Artifact(
        name="gateway", kind="image", ref=f"{OURS}/gateway", digest="", program="nginx", recipe="gateway"
    )
    return _located(artifact, "", images, host)


def container(
    service: Service, release: Release, gpus: tuple[Gpu, ...], host: Host, *, torch: bool, own: bool
) -> Container:
    """Return what it takes to run a service in the release's image, or in the operator's own one."""
    shared = _shared_memory(gpus, host) if torch else 0
    counted = sum(load.total for load in service.loads if load.device == "ram")
    home = service.weights.rpartition("/")[0] if service.weights.endswith(".gguf") else service.weights
    files = (home, service.tuning.chat_template, *(path for _, path in service.adapters))
    vendor = VENDORS.get(release.api, "")
    found = Container(
        image=release.artifacts[0].ref,
        files=tuple(dict.fromkeys(path for path in files if path)),
        shared_memory=shared,
        memory=BESIDE + counted + counted // 4 + shared,
    )
    if not gpus:
        return found
    return _nvidia(found, release, gpus, host, own=own) if vendor == "nvidia" else _other(found, vendor, host)


def _nvidia(found: Container, release: Release, gpus: tuple[Gpu, ...], host: Host, *, own: bool) -> Container:
    """Hand over exactly its GPUs.

    The toolkit refuses a driver whose own CUDA is older than the image's, also where the plan knows that the image's
    code runs there: CUDA's minor versions are compatible with each other. Of an operator's own image it knows nothing.
    """
    driver = host.driver("nvidia") or Driver(vendor="nvidia")
    older = not own and driver.api and version(driver.api) < version(release.api_version)
    env = (("NVIDIA_DISABLE_REQUIRE", "1"),) if older else ()
    if _by_cdi(host.docker):
        return replace(found, devices=tuple(f"{CDI_KIND}={_cdi_name(gpu)}" for gpu in gpus), env=env)
    return replace(found, requests=tuple(gpu.visible for gpu in gpus), env=env)


def _other(found: Container, vendor: str, host: Host) -> Container:
    """Hand over the vendor's devices; the visibility variable tells which of them are the replica's."""
    indexes = sorted({gpu.index for gpu in host.gpus if gpu.vendor == vendor})
    nodes = (*NODES[vendor], *(NUMBERED[vendor].format(index) for index in indexes if vendor in NUMBERED))
    named = dict(host.groups)
    return replace(
        found,
        devices=nodes,
        groups=tuple(named[name] for name in GROUPS if name in named),
        drivers=PARTS.get(vendor, ()),
        runtime="mthreads" if vendor == "moore-threads" and "mthreads" in host.docker.runtimes else "",
    )


def _by_cdi(docker: Docker) -> bool:
    known = version(docker.server) >= version(CDI_DOCKER) and version(docker.compose) >= version(CDI_COMPOSE)
    return known and CDI_KIND in docker.cdi


def _cdi_name(gpu: Gpu) -> str:
    """Return `0`, or `0:1` for a MIG slice, as `nvidia-ctk cdi generate` names them."""
    return str(gpu.index) if gpu.slice is None else f"{gpu.index}:{gpu.slice}"


def _shared_memory(gpus: tuple[Gpu, ...], host: Host) -> int:
    """Return what processes of one engine may exchange: NCCL between GPUs, tensors between workers."""
    return min(host.memory // 4, 16 * GIB) if len(gpus) > 1 else min(host.memory // 8, 4 * GIB)


def _located(artifact: Artifact, instead: str, images: Images, host: Host) -> Artifact:
    if instead:
        artifact = replace(artifact, ref=instead, recipe="", pins=())
    elif artifact.recipe:
        artifact = _built(artifact, images, host)
    ref = artifact.ref if instead else mirrored(artifact.ref, images.registry)
    return replace(artifact, ref=ref, digest=_digest("image", ref))


def mirrored(ref: str, registry: str) -> str:
    """Return the name of an image in a registry that has them all under their own names."""
    host, slash, rest = ref.partition("/")
    name = rest if slash and host in PUBLIC else ref
    return f"{registry.rstrip('/')}/{name}" if registry else ref


def _built(artifact: Artifact, images: Images, host: Host) -> Artifact:
    """Name an image of ours by everything that decides what is in it."""
    base = images.base or (mirrored("debian:12-slim", images.registry) if images.registry else "")
    wanted = tuple("NATIVE=OFF" if pin == "NATIVE=ON" and images.portable else pin for pin in artifact.pins)
    pins = (*wanted, *((f"BASE_IMAGE={base}",) if base else ()))
    flags = host.cpu_flags if "NATIVE=ON" in pins else ()
    digest = _digest(recipe_digest(artifact.recipe), host.arch, *pins, *flags)[:12]
    name, _, tag = artifact.ref.partition(":")
    twin = artifact.twin if "NATIVE=ON" in pins else ""
    return replace(artifact, ref=f"{name}:{f'{tag}-' if tag else ''}{digest}", pins=pins, twin=twin)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
