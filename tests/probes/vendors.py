"""How the cases of the GPU vendors other than NVIDIA are read: the answer of one tool, and what it tells."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from appliance import codec
from appliance.detect.gpu import Found, _kfd, amd, ascend, hygon, intel, metax, moore_threads
from appliance.domain.changes import Completed


class Recorded(Protocol):
    """The part of a case that these readers need."""

    @property
    def stdout(self) -> str: ...
    @property
    def done(self) -> Completed: ...


def told(value: Any) -> dict[str, Any]:
    """Return the fields that say something: what is at its default is left out."""
    data = codec.to_data(value)
    return {f.name: data[f.name] for f in dataclasses.fields(value) if getattr(value, f.name) != f.default}


def facts(found: Found) -> dict[str, Any]:
    """Return `gpus`, `driver`, `silent`; `count`, and `each`: the fields that all the GPUs have in common."""
    gpus = [told(gpu) for gpu in found.gpus]
    each = (
        {key: said for key, said in gpus[0].items() if all(gpu.get(key, ...) == said for gpu in gpus)} if gpus else {}
    )
    return {
        "gpus": gpus,
        "count": len(gpus),
        "each": each,
        "driver": told(found.driver) if found.driver else None,
        "silent": list(found.silent),
    }


def kfd(text: str) -> dict[str, Any]:
    said = _kfd.parse_properties(text)
    return {**said, "architecture": _kfd.architecture(said.get("gfx_target_version", 0))}


VENDOR_READERS: Mapping[str, Callable[[Recorded], object]] = {
    "amd_smi": lambda case: facts(amd.parse(case.done)),
    "rocm_smi": lambda case: facts(amd.parse(case.done)),
    "kfd": lambda case: kfd(case.stdout),
    "xpu_smi": lambda case: facts(intel.parse(case.done)),
    "sycl_ls": lambda case: facts(intel.parse(case.done)),
    "npu_smi": lambda case: facts(ascend.parse(case.done)),
    "mx_smi": lambda case: facts(metax.parse(case.done)),
    "mthreads_gmi": lambda case: facts(moore_threads.parse(case.done)),
    "hy_smi": lambda case: facts(hygon.parse(case.done)),
}
