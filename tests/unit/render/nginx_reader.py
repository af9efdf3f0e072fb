"""Reads one quoted parameter as ngx_conf_read_token() does, then as ngx_http_script_compile() would look for variables."""

UNESCAPED = {'"': '"', "'": "'", "\\": "\\", "t": "\t", "r": "\r", "n": "\n"}


def parameter(text: str) -> str:
    """Return the one parameter that `text;` holds."""
    assert text[0] == '"'
    result, position = "", 1
    while text[position] != '"':
        if text[position] == "\\":
            position += 1
            result += UNESCAPED.get(text[position], "\\" + text[position])
        else:
            result += text[position]
        position += 1
    assert position == len(text) - 1, f"something follows the parameter: {text}"
    assert "$" not in result, "a variable"
    return result
