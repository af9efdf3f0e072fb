"""Does a release run on this machine: processor, runtime, C library, Python, driver, GPUs; or why not, in one line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.domain.host import Driver, Gpu, Host
from appliance.domain.release import Artifact, Release
from appliance.domain.version import version

Wanted = tuple[int, ...] | int | None
"""What the operator said of GPUs: which, how many, 0 = none, None = nothing."""
VENDORS: Final = {
    "cuda": "nvidia", "rocm": "amd", "xpu": "intel", "cann": "ascend", "maca": "metax", "musa": "moore-threads",
    "dtk": "hygon", "corex": "iluvatar",
}  # fmt: skip
"""API of a release -> vendor of the GPUs that it computes on."""
NAMES: Final = {
    "nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel", "ascend": "Ascend", "metax": "MetaX",
    "moore-threads": "Moore Threads", "hygon": "Hygon", "iluvatar": "Iluvatar",
}  # fmt: skip
CONTAINERS: Final = ("compose", "swarm")
"""Runtimes that run container images; the others run programs of this machine."""
ELSEWHERE: Final = ("remote",)
"""Engines of which nothing runs here."""
FIRST_TOOLKIT: Final = {"8.9": "11.8", "9.0": "11.8", "10.0": "12.8", "10.3": "12.9", "11.0": "13.0", "12.0": "12.8",
                        "12.1": "12.9"}  # fmt: skip
"""Compute capability -> first CUDA whose libraries know it (release notes of the toolkits, llama.cpp's build files)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a release could use here, or why it runs nowhere on this machine."""

    groups: tuple[tuple[Gpu, ...], ...] = ()
    """GPUs of one kind each, the most memory first; one empty group for a release that computes on the CPU."""
    why: str = ""
    absent: str = ""
    """The vendor, where the only reason is that none of its GPUs is here."""


def fit(row: Release, host: Host, wanted: Wanted = None, runtime: str = "systemd") -> Fit:
    """Ask everything that can be told without the model and without counting memory."""
    why = next(filter(None, _refusals(row, host, wanted, runtime)), "")
    if why:
        vendor = NAMES.get(VENDORS.get(row.api, ""), "")
        return Fit(why=why, absent=vendor if why == needs(vendor) else "")
    if row.api == "cpu":
        return Fit(groups=((),))
    groups, why = kinds(host, VENDORS[row.api], wanted)
    whys = {group: _code(row, group, host) for group in groups}
    usable = tuple(group for group in groups if not whys[group])
    return Fit(groups=usable, why="" if usable else why or "; ".join(dict.fromkeys(whys.values())))


def needs(vendors: str) -> str:
    """Return the words for GPUs that are not here."""
    return f"needs {vendors} GPUs, there is none"


def ways(row: Release, runtime: str) -> tuple[Artifact, ...]:
    """Return the artifacts that this runtime can run; an image only where it is known what starts the engine in it."""
    if runtime in CONTAINERS:
        return tuple(one for one in row.artifacts if one.kind == "image" and one.program)
    return tuple(one for one in row.artifacts if one.kind != "image")


def kinds(host: Host, vendor: str, wanted: Wanted = None) -> tuple[tuple[tuple[Gpu, ...], ...], str]:
    """Return the working GPUs in groups of equal ones, the most memory first, or why there are none."""
    devices = [gpu for gpu in host.devices if gpu.vendor == vendor]
    if not devices:
        return (), f"the {NAMES[vendor]} GPUs are split (MIG is on), and there are no slices"
    if isinstance(wanted, tuple) and wanted:
        return _asked(devices, wanted)
    working = [gpu for gpu in devices if not gpu.failure]
    if not working:
        return (), "; ".join(_failure(gpu) for gpu in devices)
    groups: dict[tuple[str | int, ...], list[Gpu]] = {}
    for gpu in working:
        groups.setdefault(_kind(gpu), []).append(gpu)
    count = wanted if isinstance(wanted, int) else 1
    large = [tuple(group) for group in groups.values() if len(group) >= count]
    found = ", ".join(f"{len(group)} × {group[0].name}" for group in groups.values())
    large.sort(key=lambda group: -sum(gpu.memory or 0 for gpu in group))
    return tuple(large), "" if large else f"needs {count} equal GPUs, found {found}"


def runs(capability: str, row: Release) -> bool:
    """Tell whether compiled code is there: code for X.Y runs on X.Z, Z >= Y; code for X.Ya on X.Y alone."""
    major, minor = version(capability)
    exact = f"{capability}a" in row.capabilities
    codes = [version(code) for code in row.capabilities if not code.endswith("a")]
    return exact or any(code[0] == major and code[1] <= minor for code in codes)


def _refusals(row: Release, host: Host, wanted: Wanted, runtime: str) -> Iterator[str]:
    """Ask what holds for the whole machine, what tells the most first; "" where a question has a good answer."""
    yield "" if host.arch in row.arch else f"is for {', '.join(row.arch)}, this machine is {host.arch}"
    yield _processor(wanted) if row.api == "cpu" else _vendor(row, host, wanted)
    yield _way(row, runtime)
    yield _handed(row, host, runtime)
    row = replace(row, artifacts=ways(row, runtime))
    if runtime not in CONTAINERS:  # an image brings its own C library and Python
        old = row.glibc and version(host.glibc) < version(row.glibc)
        yield f"needs glibc >= {row.glibc}, found {host.glibc or 'none'}" if old else ""
        yield _python(row, host)
    if row.api != "cpu":
        driver = host.driver(VENDORS[row.api]) or Driver(vendor=VENDORS[row.api])
        yield _too_old(row, driver)
        yield _compiler(row, host)
        yield _libraries(row, driver)


def _processor(wanted: Wanted) -> str:
    return "computes on the CPU, GPUs were asked for" if wanted else ""


def _vendor(row: Release, host: Host, wanted: Wanted) -> str:
    """Why nothing can be computed on this vendor's GPUs at all."""
    vendor = VENDORS.get(row.api)
    if vendor is None:
        return f"computes with {row.api}, which is not known"
    if wanted == 0:
        return "computes on GPUs, the CPU was asked for"
    driver = host.driver(vendor)
    if driver and driver.failure:
        return f"the {NAMES[vendor]} driver does not work: {driver.failure}"
    there = any(gpu.vendor == vendor for gpu in host.gpus)
    return "" if there else needs(NAMES[vendor])


def _way(row: Release, runtime: str) -> str:
    if ways(row, runtime) or (not row.artifacts and (runtime not in CONTAINERS or row.engine in ELSEWHERE)):
        return ""
    if runtime in CONTAINERS and any(one.kind == "image" for one in row.artifacts):
        return f"{runtime} cannot start its image by one command"
    here = "runs container images, there is none of it" if runtime in CONTAINERS else "runs no container images"
    return f"{runtime} {here}"


def _handed(row: Release, host: Host, runtime: str) -> str:
    """Why Docker gives containers none of NVIDIA's GPUs; other vendors' are devices like all others."""
    docker = host.docker
    if runtime not in CONTAINERS or row.api != "cuda":
        return ""
    if docker.snap:
        return "Docker from snap hands no GPU to containers"
    if docker.podman:
        return f"Podman {docker.server} passes no CDI device on that Compose asks for: NVIDIA GPUs need Docker"
    there = docker.toolkit or "nvidia" in docker.runtimes or "nvidia.com/gpu" in docker.cdi
    return "" if there else "Docker hands out no NVIDIA GPUs: neither their container toolkit nor a CDI spec is there"


def _python(row: Release, host: Host) -> str:
    low, high = row.python
    found = version(host.python)
    if (low and found < version(low)) or (high and found >= version(high)):
        bounds = [f">= {low}"] * bool(low) + [f"< {high}"] * bool(high)
        return f"needs Python {', '.join(bounds)}; found {host.python}"
    return ""


def _too_old(row: Release, driver: Driver) -> str:
    # A driver that tells the newest CUDA it supports is as new as the lowest one for that CUDA.
    known = driver.version or driver.api
    if not row.driver or (not driver.version and driver.api and version(driver.api) >= version(row.api_version)[:1]):
        return ""
    if not driver.version or version(driver.version) < version(row.driver):
        found = driver.version or (f"one for {row.api.upper()} {driver.api}" if known else "one that tells no version")
        return f"needs driver >= {row.driver}, found {found}"
    return ""


def _compiler(row: Release, host: Host) -> str:
    """Why what is built here for GPUs cannot be."""
    if not any(one.kind == "build" for one in row.artifacts):
        return ""
    major, found = version(row.api_version)[:1], host.cuda_toolkit
    if version(found)[:1] != major:
        return f"needs the CUDA {major[0]} compiler (nvcc), {f'found {found}' if found else 'there is none'}"
    return ""


def _libraries(row: Release, driver: Driver) -> str:
    """Why ROCm's own libraries are missing: a torch brings them, other wheels use the machine's."""
    if row.api != "rocm" or row.torch or not any(one.kind == "wheels" for one in row.artifacts):
        return ""
    if version(driver.api)[:2] != version(row.api_version):
        return (
            f"needs ROCm {row.api_version} on the machine, {f'found {driver.api}' if driver.api else 'there is none'}"
        )
    return ""


def _code(row: Release, group: Sequence[Gpu], host: Host) -> str:
    """Why it has no code for one of these GPUs."""
    return next((why for gpu in group if (why := _code_for(row, gpu, host))), "")


def _code_for(row: Release, gpu: Gpu, host: Host) -> str:
    if row.api != "cuda":
        known = not gpu.architecture or not row.capabilities or gpu.architecture in row.capabilities
        return "" if known else f"has no code for {gpu.architecture} ({gpu.name}), only {' '.join(row.capabilities)}"
    capability = gpu.compute_capability
    if "nvgpu" in gpu.name and not any(one.kind == "build" for one in row.artifacts):
        return f"is made for servers, {gpu.name} needs what is built for Jetson"
    if not capability:
        return f"the compute capability of {gpu.name} is not known"
    built = any(one.kind == "build" for one in row.artifacts)
    made_with = host.cuda_toolkit if built else row.api_version
    first = FIRST_TOOLKIT.get(capability, "")
    if version(made_with) < version(first):
        return f"compute capability {capability} ({gpu.name}) needs CUDA >= {first}, this is made with {made_with}"
    if runs(capability, row):
        return ""
    return _portable(row, gpu, host)


def _portable(row: Release, gpu: Gpu, host: Host) -> str:
    """PTX is compiled when it is loaded, by a driver that must be as new as what made it."""
    capability, driver = gpu.compute_capability, host.driver(gpu.vendor)
    if not any(version(code) <= version(capability) for code in row.portable):
        return f"has no code for compute capability {capability} ({gpu.name}), only {' '.join(row.capabilities)}"
    api = driver.api if driver else ""
    if version(api) >= version(row.api_version):
        return ""
    return (
        f"has only PTX for compute capability {capability} ({gpu.name}), which needs a driver for "
        f"CUDA >= {row.api_version}, found one for {api or 'an unknown one'}"
    )


def _asked(devices: Sequence[Gpu], wanted: tuple[int, ...]) -> tuple[tuple[tuple[Gpu, ...], ...], str]:
    """Take the GPUs with these indexes, whatever they are: the operator knows why."""
    there = {gpu.index for gpu in devices}
    unknown = [str(index) for index in wanted if index not in there]
    if unknown:
        return (), f"there is no GPU {' '.join(unknown)}, only {' '.join(str(index) for index in sorted(there))}"
    chosen = tuple(gpu for index in wanted for gpu in devices if gpu.index == index)
    broken = [_failure(gpu) for gpu in chosen if gpu.failure]
    return (() if broken else (chosen,)), "; ".join(broken)


def _kind(gpu: Gpu) -> tuple[str | int, ...]:
    gib = (gpu.memory or 0) >> 30
    return gpu.name, gpu.compute_capability, gpu.architecture, gib


def _failure(gpu: Gpu) -> str:
    return f"GPU {gpu.index} ({gpu.name}) cannot be used: {gpu.failure}"
