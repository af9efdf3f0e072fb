"""Who signed a bundle: Ed25519 in minisign's format, so that `minisign -V` says the same."""

from dataclasses import dataclass

import minisign

from appliance.errors import ArtifactError, UsageError

TITLE = "signature of an LLM bundle"
COMMENT = "llm-appliance bundle"
"""The trusted comment of every signature: no time in it, so that the same inputs give the same bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A public key."""

    text: str
    """As minisign writes it on one line: base64."""

    @property
    def id(self) -> str:
        """Sixteen digits that tell keys apart, as minisign shows them."""
        import base64

        return base64.b64decode(self.text)[2:10][::-1].hex().upper()


def read_public(content: bytes, *, source: str) -> Key:
    """Read a public key: minisign's file, or its one line of base64. Raises UsageError."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    try:
        key = minisign.PublicKey.from_base64(lines[-1].strip())
    except (minisign.Error, ValueError, IndexError) as error:
        raise UsageError(f"{source}: no public key of minisign: {error}", hint="llm-appliance bundle keygen") from None
    return Key(text=key.to_base64().decode())


def generate() -> tuple[bytes, bytes, Key]:
    """Return (secret file, public file, public key)."""
    pair = minisign.KeyPair.generate()
    public = pair.public_key
    key = Key(text=public.to_base64().decode())
    public.untrusted_comment = f"minisign public key {key.id}"
    return bytes(pair.secret_key) + b"\n", bytes(public) + b"\n", key


def sign(content: bytes, secret: bytes, password: str, *, source: str) -> tuple[bytes, Key]:
    """Return the signature of `content` and whose it is; `secret` is a secret key's file. Raises UsageError."""
    try:
        with minisign.SecretKey.from_bytes(secret) as key:
            if key.is_encrypted():
                if not password:
                    raise UsageError(
                        f"{source}: the key is locked with a password",
                        hint="put it into a file of mode 0600 and say --password-file FILE",
                    )
                key.decrypt(password)
            signature = key.sign(content, trusted_comment=COMMENT, untrusted_comment=TITLE)
            public = Key(text=key.get_public_key().to_base64().decode())
    except minisign.Error as error:
        raise UsageError(f"{source}: {error}", hint="llm-appliance bundle keygen") from None
    return bytes(signature) + b"\n", public


def signer(content: bytes, signature: bytes, trusted: tuple[Key, ...], *, source: str) -> Key | None:
    """Return the trusted key that signed `content`, None when nobody did. Raises ArtifactError when it is not so."""
    if not signature.strip(b"\n"):
        return None
    try:
        read = minisign.Signature.from_bytes(signature.rstrip(b"\n"))
    except (minisign.Error, ValueError) as error:
        raise ArtifactError(f"{source}: the signature is damaged: {error}") from None
    # One way to write it: whatever is in there and not signed would be no secret, but no part of a bundle either.
    written = (bytes(read) + b"\n").ljust(len(signature), b"\n")
    if (read.untrusted_comment, read.trusted_comment) != (TITLE, COMMENT) or written != signature:
        raise ArtifactError(f"{source}: the signature is damaged, or one of something else")
    known = [key for key in trusted if key.id == _id(read)]
    if not known:
        ids = ", ".join(key.id for key in trusted) or "none yet"
        raise ArtifactError(
            f"{source}: signed by the unknown key {_id(read)}; trusted: {ids}",
            hint="if you know whose it is: --trust FILE.pub",
        )
    for key in known:
        try:
            minisign.PublicKey.from_base64(key.text).verify(content, read)
        except (minisign.Error, ValueError):
            continue
        return key
    raise ArtifactError(f"{source}: the signature is not that of its index: one of them was changed")


def claimed(signature: bytes) -> str:
    """Return the id of the key that a signature says to be of, "" for none."""
    try:
        return _id(minisign.Signature.from_bytes(signature.rstrip(b"\n")))
    except (minisign.Error, ValueError):
        return ""


def _id(signature: minisign.Signature) -> str:
    return bytes(signature._key_id)[::-1].hex().upper()  # noqa: SLF001 - the library tells it nowhere else
