"""Takes secrets out of texts: those that are known by their value, and all that looks like one."""

import re
from collections.abc import Iterable
from typing import Final

MARK: Final = "[redacted]"
SHORTEST: Final = 6
"""Characters of a known secret that are looked for everywhere; shorter ones are part of too many words."""
NAMES: Final = (
    r"[\w.-]*(?:token(?!iz|s\b|s_|s-|_file|-file)|secret|passw(?:or)?d|passphrase|api[-_]?key|credential|private[-_]?key"
    r"|access[-_]?key|(?<=_)key\b|(?<=_)auth\b)[\w.-]*"
)
"""How variables and keys are called whose value is secret."""
WHOLE: Final = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\b(?:sk|pk|rk|gsk|xai|nvapi|key)-[\w-]{16,}"),
    re.compile(r"\b(?:hf|ghp|gho|ghs|github_pat|glpat|AKIA|ASIA|AIza|xox[abp])[_-]?[\w-]{16,}"),
    re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]*)?"),
)
"""What is secret by its look: PEM keys, keys of providers and hubs, signed tokens."""
AFTER: Final = (
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)([^\s\"',;]{6,})"),
    re.compile(
        r"(?i)((?:authorization|x-api-key|api-key|proxy-authorization|cookie)[\"']?\s*[:=]\s*[\"']?)([^\"'\r\n]+)"
    ),
    re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/@\"']+@)"),
    re.compile(rf"(?i)((?<![\w/]){NAMES}[\"']?\s*[:=]\s*[\"']?)([^\s\"',;}}\]]+)"),
    re.compile(rf'(?i)("{NAMES}",\s*")([^"]+)'),
    re.compile(r"(?i)([?&](?:key|token|sig|signature|api[-_]?key|access_token)=)([^&\s\"']+)"),
)
"""What is secret by what stands before it, which stays."""
HARMLESS: Final = re.compile(
    r"(?:-?[0-9.]+|true|false|null|none|~|auto|/[\w./@+-]*|\[(?:redacted|not)\b\]?.*|[\[{])", re.IGNORECASE
)
"""Values that no secret is: numbers, words of YAML, paths."""


class Redactor:
    """Takes the same secrets out of many texts, and counts them."""

    def __init__(self, known: Iterable[str]) -> None:
        values = sorted({one for one in known if len(one) >= SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, values))) if values else None
        self.count = 0

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known:
            text = self._known.sub(self._gone, text)
        for pattern in WHOLE:
            text = pattern.sub(self._gone, text)
        for pattern in AFTER:
            text = pattern.sub(self._value_gone, text)
        return text

    def _gone(self, _found: re.Match[str]) -> str:
        self.count += 1
        return MARK

    def _value_gone(self, found: re.Match[str]) -> str:
        if HARMLESS.fullmatch(found[2]):
            return found[0]
        self.count += 1
        return f"{found[1]}{MARK}{'@' if found[2].endswith('@') else ''}"
