"""The PCI bus: the class tells what a device is, the vendor only whose."""

import pytest

from appliance.detect import pci
from tests.unit.recorded import RecordedMachine

NAMES = {"10de": "nvidia", "1002": "amd", "1d94": "hygon", "8086": "intel"}


def bus(*devices: tuple[str, str]) -> RecordedMachine:
    files = {}
    for number, (kind, vendor) in enumerate(devices):
        files[f"{pci.DEVICES}/0000:{number:02x}:00.0/class"] = f"{kind}\n".encode()
        files[f"{pci.DEVICES}/0000:{number:02x}:00.0/vendor"] = f"{vendor}\n".encode()
    return RecordedMachine(files=files)


@pytest.mark.parametrize(
    ("kind", "vendor", "found"),
    [
        ("0x030000", "0x10de", ("nvidia",)),  # VGA controller
        ("0x030200", "0x10de", ("nvidia",)),  # 3D controller: a card without outputs
        ("0x038000", "0x1002", ("amd",)),
        ("0x0b4000", "0x1d94", ("hygon",)),  # co-processor
        ("0x120000", "0x1002", ("amd",)),  # processing accelerator
        ("0x040300", "0x10de", ()),  # the card's sound device
        ("0x0c0330", "0x10de", ()),  # its USB controller
        ("0x060400", "0x1d94", ()),  # a bridge of Hygon's processor
        ("0x030000", "0x1a03", ()),  # ASPEED: a server's BMC
        ("0x030000", "", ()),
        ("", "0x10de", ()),
        ("junk", "0x10de", ()),
    ],
)
def test_whose_accelerator(kind: str, vendor: str, found: tuple[str, ...]) -> None:
    assert pci.accelerators(bus((kind, vendor)), NAMES) == found


def test_each_vendor_once() -> None:
    devices = [("0x030200", "0x10de")] * 8 + [("0x030000", "0x8086"), ("0x030000", "0x1a03")]
    assert pci.accelerators(bus(*devices), NAMES) == ("intel", "nvidia")
    assert pci.accelerators(RecordedMachine(), NAMES) == ()
