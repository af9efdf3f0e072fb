"""Engine releases as the catalog lists them, and what they are made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Something that must be present, by digest, before anything starts."""

    name: str
    kind: str
    """`build` (compiled here from a source package), `wheels` (Python environment), `debs` (unpacked packages),
    `image` (for a runtime that runs containers), `program` (somebody else's, which is there already)."""
    ref: str
    """What to ask the registry for: `llama-cpp-python==0.3.36`, an image's name and tag, or package names; a
    program's name."""
    digest: str
    """SHA-256 (hex) of the source, or of the lock text, plus the recipe: names the directory it is built in."""
    source_sha256: str = ""
    """SHA-256 (hex) of the file that is downloaded; empty where apt's or pip's own hashes hold."""
    indexes: tuple[str, ...] = ()
    """Package indexes beside the configured one, first match wins: a CUDA build's torch is not in the general one."""
    pins: tuple[str, ...] = ()
    """Requirements that hold beside `ref`: the torch of the right CUDA, `torch==2.13.0+cu129`. For a build: CMake
    definitions, `GGML_CUDA=ON`."""
    extras: tuple[str, ...] = ()
    """Requirements that it starts sooner with: kernels compiled beforehand; without them it works, too."""
    extras_indexes: tuple[str, ...] = ()
    """Package indexes of those."""
    overrides: tuple[str, ...] = ()
    """Requirements that hold whatever the packages themselves ask for; one that never applies leaves a package out."""
    provides: tuple[str, ...] = ()
    """Names that a program looks itself up by where its package is called otherwise: `vllm==0.32.0+cpu`."""
    libraries: tuple[str, ...] = ()
    """Distribution packages with libraries that wheels leave to the system: `libnuma1`."""
    program: str = ""
    """What starts the engine in an image: an absolute path, or a name on the image's PATH."""
    recipe: str = ""
    """Directory below images/ that an image is built from where no registry has it; `pins` are its build arguments."""
    portable: bool = False
    """Compiled for every processor of the architecture, not only for this machine's."""
    twin: str = ""
    """Digest of the same program as it is built on this machine without an image: where it is there, it is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One engine release for one accelerator, as the catalog lists it."""

    engine: str
    version: str
    accelerator: str
    """`cpu`, `cuda12.9`, `cuda13.0`, `rocm7.2`, `cann9.0`, `maca3.7`, `musa4.3`, `dtk26.04`, `xpu`: API and version."""
    arch: tuple[str, ...]
    """Machine names as `uname -m` prints them."""
    artifacts: tuple[Artifact, ...] = ()
    """What it is made of; more than one kind = so many ways, and the runtime decides which."""
    driver: str = ""
    """Lowest driver version that runs its compiled code; "" = no driver is needed."""
    capabilities: tuple[str, ...] = ()
    """Compute capabilities (`8.9`), or compiler names of other vendors' GPUs (`gfx942`), that it has code for."""
    portable: tuple[str, ...] = ()
    """Compute capabilities of its PTX: a newer GPU runs it when the driver's CUDA is as new as the release's."""
    glibc: str = ""
    """Lowest C library that its binaries load with."""
    python: tuple[str, str] = ("", "")
    """Lowest Python, and the first that is too new; "" = no bound."""
    torch: str = ""
    """The torch that it was built against, `2.13.0+cu129`."""
    source: str = ""
    """Where the row's facts come from."""
    asked: bool = False
    """Taken only where the operator names the engine."""

    @property
    def api(self) -> str:
        """Return `cuda` of `cuda12.9`."""
        return self.accelerator.rstrip("0123456789.")

    @property
    def api_version(self) -> str:
        """Return `12.9` of `cuda12.9`, "" of `cpu`."""
        return self.accelerator[len(self.api) :]
