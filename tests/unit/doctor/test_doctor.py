"""All checks together: found by discovery, named for good, and never in the way themselves."""

import re
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import doctor
from appliance.doctor.facts import Facts
from appliance.domain.finding import SEVERITIES
from appliance.domain.host import Host
from tests.unit.doctor.sound import CUDA, SOUND, facts, record

WORDS = st.sampled_from([
    "", "nvidia", "amd", "intel", "8.9", "7.0", "580.95.05", "470.1", "x86_64", "debian", "fedora", "wsl", "NV18", "X",
    "nouveau", "nvidia_uvm", "http_proxy", "NO_PROXY", "localhost", "nfs4", "noexec", "ro", "absent", "unseen", "/home",
    "/", "big", "auto", "compose", "systemd", "9", "cuda12.9", "selinux enforcing", "llm-engine", "slot-save-path",
]) | st.text(max_size=6)  # fmt: skip
"""What checks compare with, and what they do not expect."""
COUNTS = st.integers(-1, 4) | st.integers(0, 1 << 62)


@cache
def shaped(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a type of ours, short in every direction."""
    plain = {str: WORDS, int: COUNTS, bool: st.booleans(), float: st.floats(0, 1e11), type(None): st.none()}
    if kind in plain:
        return plain[kind]
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return st.builds(kind, **{field.name: shaped(hints[field.name]) for field in fields(kind)})
    parts = get_args(kind)
    if get_origin(kind) is not tuple:
        return st.one_of([shaped(part) for part in parts])
    if parts[-1] is Ellipsis:
        return st.lists(shaped(parts[0]), max_size=3).map(tuple)
    return st.tuples(*(shaped(part) for part in parts))


def known_facts() -> st.SearchStrategy[Facts]:
    hints = {name: kind for name, kind in get_type_hints(Facts).items() if name not in {"layout", "record", "ours"}}
    return st.builds(
        Facts,
        layout=st.just(facts().layout),
        record=st.sampled_from([None, record(), record(confirmed=False)]),
        ours=st.frozensets(COUNTS, max_size=3),
        **{name: shaped(kind) for name, kind in hints.items()},
    )


@settings(max_examples=60)
@given(shaped(Host), known_facts())
def test_no_machine_whatever_makes_a_check_raise(host: Host, known: Facts) -> None:
    for item in doctor.check(host, known):
        assert item.id in doctor.checks()
        assert item.severity in SEVERITIES
        assert item.message
        assert all(item.remedy)
        assert item.severity == "error" or not item.prevents


def test_every_id_is_a_word_that_can_be_typed() -> None:
    for name, item in doctor.checks().items():
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)
        assert len(name) < 24
        assert item.about
        assert "\n" not in item.about


def test_ids_stay() -> None:
    """A script may ignore any of them: one that goes away breaks it."""
    assert set(doctor.checks()) >= {
        "gpu-driver-broken", "gpu-driver-missing", "gpu-nouveau", "gpu-uvm-missing", "gpu-driver-old", "gpu-broken",
        "gpu-memory-held", "gpu-mig-empty", "gpu-mixed", "gpu-fabric", "gpu-persistence", "gpu-device-denied",
        "docker-gpu-runtime", "docker-snap", "docker-rootless-cgroups", "docker-toolkit-missing", "libc-old",
        "python-old", "architecture", "systemd-old", "disk-full", "inodes-low", "state-noexec", "memory-low",
        "port-taken", "proxy-case", "proxy-local", "clock-behind", "model-source-missing", "model-source-denied",
        "weights-gone", "store-denied", "python-denied", "run-unfinished", "generation-link", "file-edited",
        "service-down", "gateway-silent",
    }  # fmt: skip


def test_the_worst_comes_first() -> None:
    found = doctor.check(CUDA, facts(persistence=False, port_taken=True, wsl_node=True, uvm_node=False))
    assert [item.severity for item in found] == ["error", "error", "info"]


def test_nothing_is_found_where_all_is_well() -> None:
    assert doctor.check(SOUND, facts()) == ()
