"""One filter for each output grammar: what goes through it comes out as one literal word of that grammar."""

import json
import re
import shlex

from appliance.errors import SpecError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BREAKS = re.compile(r"[\x85\u2028\u2029]")
"""What YAML takes for the end of a line, and JSON does not."""


def _text(value: object) -> str:
    text = str(value)
    if _CONTROL.search(text):
        raise SpecError(f"control character in {text!r}: no configuration file can hold it")
    return text


def systemd_exec(value: object) -> str:
    """One word of `ExecStart=`: `%` and `$` are doubled, the rest quoted as systemd.syntax wants it."""
    text = _text(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def systemd_env(value: object) -> str:
    """One `NAME=value` of `Environment=`: `$` is literal there, `%` is not."""
    text = _text(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def systemd_value(value: object) -> str:
    """A whole value that systemd takes unquoted (path, number, description)."""
    text = _text(value)
    if text != text.strip() or text.endswith("\\"):
        raise SpecError(f"{text!r} cannot stand in a unit file")
    return text.replace("%", "%%")


def supervisor(value: object) -> str:
    """A whole value of supervisord's ini: white space around it would be lost."""
    text = str(value)
    if text != text.strip():
        raise SpecError(f"{text!r} cannot stand in supervisord's configuration")
    return _supervisor_part(text)


def supervisor_word(value: object) -> str:
    """One word of `command=`, which supervisord splits as a shell would."""
    text = _supervisor_part(value)
    return "'" + text.replace("'", "'\"'\"'") + "'"


def supervisor_env(value: object) -> str:
    """One value of `environment=`: double quotes, no way to escape one; single ones at an end are taken off too."""
    text = _supervisor_part(value)
    if '"' in text or text.strip("'") != text:
        raise SpecError(f"{text!r}: supervisord cannot pass these quotes in the environment")
    return f'"{text}"'


def _supervisor_part(value: object) -> str:
    """`%` is doubled; supervisord cuts at ` ;` and ` #` even inside quotes, so these are refused."""
    text = _text(value)
    if cut := re.search(r"\s[;#]", text):
        raise SpecError(f"{text!r}: supervisord drops everything after {cut[0]!r}", hint="leave the space out")
    return text.replace("%", "%%")


def nginx(value: object) -> str:
    """One quoted nginx parameter; `$` would begin a variable and has no escape, so it is refused."""
    text = _text(value)
    if "$" in text:
        raise SpecError(f"{text!r}: nginx has no way to write a literal '$'")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def compose(value: object) -> str:
    """One scalar of a Compose file as a JSON literal, which YAML reads as it is meant; `$` would begin a variable."""
    if isinstance(value, bool | int):
        return json.dumps(value)
    text = json.dumps(_text(value).replace("$", "$$"), ensure_ascii=False)
    return _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shell(value: object) -> str:
    """One word of a POSIX shell."""
    return shlex.quote(_text(value))


FILTERS = {
    "compose": compose,
    "systemd_exec": systemd_exec,
    "systemd_env": systemd_env,
    "systemd_value": systemd_value,
    "supervisor": supervisor,
    "supervisor_word": supervisor_word,
    "supervisor_env": supervisor_env,
    "nginx": nginx,
    "shell": shell,
}
