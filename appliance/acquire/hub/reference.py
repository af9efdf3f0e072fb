"""What a model's source says about a hub: which one, which repository, which revision, which file."""

import re
from dataclasses import dataclass, replace

from appliance.errors import SpecError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REVISION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}|refs/[A-Za-z0-9._/-]{1,120}"
FILE = r"[^\x00-\x20\x7f@:\\]{1,250}\.gguf"
FORM = re.compile(
    rf"(?:(?P<hub>[a-z][a-z0-9]{{0,15}}):)?(?P<repository>{NAME}/{NAME})(?:@(?P<revision>{REVISION}?))?"
    rf"(?:/(?P<file>{FILE})|:(?P<pick>[A-Za-z0-9_.-]{{1,32}}))?"
)
COMMIT = re.compile(r"[0-9a-f]{40}")
TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}"
OLLAMA = re.compile(
    rf"ollama:(?P<repository>(?:{TAG}/)?{TAG})(?::(?P<tag>{TAG}))?(?:@sha256:(?P<digest>[0-9a-f]{{64}}))?"
)
LATEST = "latest"
"""Tag that a name of Ollama's registry without one stands for."""
DIGEST = re.compile(r"sha256=([0-9a-fA-F]{64})")
WEB = ("https:", "http:")
ELSEWHERE = ("builtin:", "remote:")
"""What looks like a hub's name and is none."""
FORMS = "hf:OWNER/REPO, hf:OWNER/REPO:Q4_K_M, hf:OWNER/REPO@REVISION/FILE.gguf, the same with ms:, or ollama:NAME:TAG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A source, taken apart."""

    hub: str
    """Prefix of the hub's module, `hf`, `ms`, `ollama`, `https`; "" = whichever hub has it."""
    repository: str
    """`OWNER/REPO`, at Ollama's also `NAME`; the whole address for a file on the web."""
    revision: str = ""
    """Branch, tag or commit; "" = the hub's default branch. Ollama's tag."""
    file: str = ""
    """Path of a GGUF file in the repository, maybe with * in it."""
    pick: str = ""
    """Quantisation of the GGUF file that is wanted, `Q4_K_M`."""
    sha256: str = ""
    """Digest that the source itself promises, of Ollama's manifest."""

    @property
    def pinned(self) -> bool:
        """It names a commit, or a digest, so that what it stands for never changes."""
        return bool(self.sha256) or (bool(COMMIT.fullmatch(self.revision)) and not self.pick and "*" not in self.file)

    @property
    def base(self) -> "Reference":
        """What it asks for, whatever the revision."""
        return replace(self, sha256="") if self.hub == "ollama" else replace(self, revision="")

    def __str__(self) -> str:
        """Return it as people write it."""
        if self.hub == "https":
            return f"{self.repository}#sha256={self.sha256}"
        if self.hub == "ollama":
            return f"ollama:{self.repository}:{self.revision}" + (f"@sha256:{self.sha256}" if self.sha256 else "")
        revision = f"@{self.revision}" if self.revision else ""
        file = f"/{self.file}" if self.file else ""
        pick = f":{self.pick}" if self.pick else ""
        return (f"{self.hub}:" if self.hub else "") + self.repository + revision + file + pick


def is_reference(text: str) -> bool:
    """Tell whether a source is for a hub, as opposed to a path; a plain OWNER/REPO is."""
    if text.startswith(WEB):
        return True
    if text.startswith(ELSEWHERE):
        return False
    found = FORM.fullmatch(text)
    if found and not found["hub"]:
        return not (found["repository"].endswith(".gguf") or found["file"])  # DIR/FILE.gguf is a path
    return found is not None or text.startswith(("hf:", "ms:", "ollama:"))


def parse(text: str) -> Reference:
    """Take a source apart. Raises SpecError with the forms that there are."""
    if text.startswith(WEB):
        return _web(text)
    if text.startswith("ollama:"):
        return _ollama(text)
    found = FORM.fullmatch(text)
    if not found or ".." in (found["file"] or "").split("/") or (found["file"] or "").startswith("/"):
        raise SpecError(f"{text!r} is no model on a hub", hint=FORMS)
    return Reference(
        hub=found["hub"] or "",
        repository=found["repository"],
        revision=found["revision"] or "",
        file=found["file"] or "",
        pick=found["pick"] or "",
    )


def _ollama(text: str) -> Reference:
    found = OLLAMA.fullmatch(text)
    if not found:
        hint = "ollama:qwen3, ollama:qwen3:8b, ollama:USER/NAME:TAG, ollama:NAME:TAG@sha256:HEX"
        raise SpecError(f"{text!r} is no model of Ollama's registry", hint=hint)
    return Reference(
        hub="ollama", repository=found["repository"], revision=found["tag"] or LATEST, sha256=found["digest"] or ""
    )


def _web(text: str) -> Reference:
    address, _, fragment = text.partition("#")
    name = address.partition("?")[0].rpartition("/")[2]
    if not name.endswith(".gguf"):
        raise SpecError(f"{address} is no GGUF file: its name does not end in .gguf", hint=FORMS)
    digest = DIGEST.fullmatch(fragment)
    if not digest:
        raise SpecError(
            f"{address} comes without a digest, so nobody could tell whether the right bytes arrived",
            hint=f"put #sha256=HEX behind it; where its maker names none: curl -L {address} | sha256sum",
        )
    return Reference(hub="https", repository=address, sha256=digest[1].lower())
