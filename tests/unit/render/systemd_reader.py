"""Reads words as systemd does: config_parse_exec() and config_parse_environ() of its load-fragment.c, no more of it.

Both take words with extract_first_word(), quotes and C escapes undone, and then expand `%` (systemd.unit(5),
"Specifiers"). ExecStart= is expanded once more when it is run: replace_env_argv() knows `$NAME`, `${NAME}`, `$$`.
"""

import re

ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}


def words(line: str) -> list[str]:
    """Split a line into words: extract_first_word() with EXTRACT_UNQUOTE and EXTRACT_CUNESCAPE."""
    found: list[str] = []
    word: str | None = None
    quote = ""
    rest = iter(line)
    for char in rest:
        if char == "\\":
            word = (word or "") + ESCAPES[next(rest)]
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "\"'":
            quote, word = char, word or ""
        elif char in " \t\n\r":
            if word is not None:
                found.append(word)
            word = None
        else:
            word = (word or "") + char
    assert not quote, f"unbalanced quotes: {line}"
    return [*found, word] if word is not None else found


def specifiers(word: str) -> str:
    """Expand `%%`; any other specifier would put something else in the word's place."""
    return re.sub("%(.?)", lambda match: {"%": "%"}[match[1]], word)


def variables(word: str) -> str:
    """Expand `$$`; any variable would put something else in the word's place."""
    return re.sub(r"\$(.?)", lambda match: {"$": "$"}[match[1]], word)


def exec_start(line: str) -> list[str]:
    """Return the argv of an `ExecStart=`, as the program gets it."""
    return [variables(specifiers(word)) for word in words(line)]


def environment(line: str) -> list[str]:
    """Return the `NAME=value` words of an `Environment=`."""
    return [specifiers(word) for word in words(line)]


def value(line: str) -> str:
    """Return a value that is taken whole: white space around it goes, `%` is expanded."""
    assert not line.endswith("\\"), "a line that is continued"
    return specifiers(line.strip(" \t\n\r"))
