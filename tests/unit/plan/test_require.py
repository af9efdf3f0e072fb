"""NVIDIA_REQUIRE_CUDA: an image that the toolkit would not start is told of beforehand, and no other."""

import pytest

from appliance.domain.host import Driver
from appliance.plan.require import conflict
from tests.unit.samples import gpu

TEXT = "cuda>=12.9 brand=unknown,driver>=535,driver<536 brand=tesla,driver>=535,driver<536 brand=tesla,driver>=550,driver<551"
"""As NVIDIA's own images of CUDA 12.9 have it, shortened."""
SERVER, SHOP = gpu(name="NVIDIA L4"), gpu(name="NVIDIA GeForce RTX 4090")


@pytest.mark.parametrize(
    ("version", "api", "card", "starts"),
    [
        ("575.57.08", "12.9", SHOP, True),
        ("580.95.05", "13.0", SHOP, True),
        ("550.54.15", "12.4", SHOP, False),
        ("550.54.15", "12.4", SERVER, True),
        ("535.183.01", "12.2", SERVER, True),
        ("525.60.13", "12.0", SERVER, False),
        ("", "", SHOP, True),
    ],
)
def test_what_nvidias_images_ask_for(version: str, api: str, card: object, starts: bool) -> None:
    driver = Driver(vendor="nvidia", version=version, api=api)
    why = conflict({"NVIDIA_REQUIRE_CUDA": TEXT, "PATH": "/bin"}, driver, (card,))  # type: ignore[arg-type]
    assert (why == "") == starts
    if not starts:
        assert "cuda>=12.9" in why and version in why and api in why


def test_nothing_asked_or_asked_to_be_left_alone() -> None:
    driver = Driver(vendor="nvidia", version="470.1", api="11.4")
    assert conflict({}, driver, (SHOP,)) == ""
    assert conflict({"NVIDIA_REQUIRE_CUDA": " "}, driver, (SHOP,)) == ""
    assert conflict({"NVIDIA_REQUIRE_CUDA": TEXT, "NVIDIA_DISABLE_REQUIRE": "1"}, driver, (SHOP,)) == ""


@pytest.mark.parametrize(
    ("wanted", "starts"), [("arch>=8.0", True), ("arch>=9.0", False), ("driver=575", False), ("what?", True)]
)
def test_other_constraints(wanted: str, starts: bool) -> None:
    driver = Driver(vendor="nvidia", version="575.57.08", api="12.9")
    assert (conflict({"NVIDIA_REQUIRE_X": wanted}, driver, (SERVER,)) == "") == starts
