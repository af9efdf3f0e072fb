"""The bytes between the payloads: POSIX tar headers with fixed owner and time, so placed that data begins at 4 KiB."""

from typing import Final

BLOCK: Final = 512
ALIGN: Final = 4096
"""Data of payloads begins at multiples of this, so that file systems can share its blocks."""
INDEX: Final = "bundle.json"
SIGNATURE: Final = "bundle.json.minisig"
SIGNATURE_SIZE: Final = 1024
"""Bytes of the signature's place, filled up with line ends."""
LAYOUT: Final = "oci-layout"
LAYOUT_CONTENT: Final = b'{"imageLayoutVersion":"1.0.0"}'
OCI: Final = "index.json"
OCI_SIZE: Final = 512
"""Bytes of the OCI index's place, filled up with spaces."""
OCTAL: Final = 8 << 30
"""Bytes from which a size does not fit into a ustar header."""


def header(name: str, size: int, *, kind: bytes = b"0") -> bytes:
    """Return one ustar header: mode 0644, owner root, time 0."""
    fields = (
        name.encode().ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0",
        b"%011o\0" % (0 if size >= OCTAL else size), b"%011o\0" % 0, b" " * 8, kind, b"\0" * 100,
        b"ustar\0", b"00", b"\0" * 32, b"\0" * 32, b"0000000\0", b"0000000\0", b"\0" * 155, b"\0" * 12,
    )  # fmt: skip
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(size: int) -> int:
    """Return the bytes that a member's content takes."""
    return -(-size // BLOCK) * BLOCK


def head(slot: int) -> tuple[tuple[str, int, int], ...]:
    """Return (name, offset of its header, bytes) of the members before the payloads."""
    members, place = [], 0
    for name, size in ((INDEX, slot), (SIGNATURE, SIGNATURE_SIZE), (LAYOUT, len(LAYOUT_CONTENT)), (OCI, OCI_SIZE)):
        members.append((name, place, size))
        place += BLOCK + padded(size)
    return tuple(members)


def first(slot: int) -> int:
    """Return where the first payload's headers begin."""
    _, place, size = head(slot)[-1]
    return place + BLOCK + padded(size)


def data(place: int) -> int:
    """Return where the data of a payload begins whose headers begin at `place`."""
    return -(-(place + 3 * BLOCK) // ALIGN) * ALIGN


def after(offset: int, size: int) -> int:
    """Return where the headers begin that follow a payload."""
    return offset + padded(size)


def end(place: int) -> int:
    """Return the length of an archive whose last payload ends at `place`."""
    return place + 2 * BLOCK


def name(digest: str) -> str:
    """Return what a payload is called."""
    return f"blobs/sha256/{digest}"


def lead(digest: str, size: int, place: int) -> bytes:
    """Return a payload's headers: a pax header that fills the place up to the boundary, and the member's own."""
    room = data(place) - place - 2 * BLOCK
    records = _record("size", str(size)) if size >= OCTAL else b""
    comment = b"%d comment=" % (room - len(records))
    filler = comment.ljust(room - len(records) - 1, b" ") + b"\n"
    return header("pax", room, kind=b"x") + records + filler + header(name(digest), size)


def _record(key: str, value: str) -> bytes:
    """Return a pax record, whose length counts its own digits."""
    rest = f" {key}={value}\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return f"{length}{rest}".encode()
