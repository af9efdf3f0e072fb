"""What goes through a filter comes out of the format's own reader as one word, the same; what could not is refused."""

import configparser
import shlex

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from supervisor.datatypes import dict_of_key_value_pairs
from supervisor.options import ServerOptions, UnhosedConfigParser

from appliance.errors import SpecError
from appliance.render import quoting
from tests.unit.render import nginx_reader, systemd_reader

NASTY = "\"'\\$%;#{}()[]=,:` \t*?~!&|<>@+-^abn7ö\u00a0\u2028🦙"
text = st.text(st.sampled_from(NASTY), max_size=12) | st.text(max_size=12)
printable = text.filter(lambda one: not quoting._CONTROL.search(one))


class Options(ServerOptions):  # type: ignore[misc]
    """supervisord's own reader, as it reads one section, without its files and its command line."""

    def read(self, section: str) -> tuple[list[str], dict[str, str]]:
        parser = UnhosedConfigParser()
        parser.read_string(f"[program:x]\n{section}\n")
        (program,) = self.processes_from_section(parser, "program:x", "x")
        return shlex.split(program.command), program.environment


@given(printable, printable)
@example("a ;b", "")
@example("$HOME", "${HOME}")
@example("%h", "$$")
@example("\\", 'a"b\\"')
def test_systemd_starts_a_program_with_these_words(first: str, second: str) -> None:
    line = f"{quoting.systemd_exec('/x')} {quoting.systemd_exec(first)} {quoting.systemd_exec(second)} "
    assert systemd_reader.exec_start(line) == ["/x", first, second]


@given(printable)
@example("a$b $$ ${c}")
@example("100%h")
def test_systemd_sets_a_variable_to_this(value: str) -> None:
    assert systemd_reader.environment(quoting.systemd_env(f"NAME={value}")) == [f"NAME={value}"]


@given(printable)
@example("/a%b")
def test_systemd_takes_this_value_or_it_is_refused(value: str) -> None:
    try:
        line = quoting.systemd_value(value)
    except SpecError:
        assert value != value.strip() or value.endswith("\\")
        return
    assert systemd_reader.value(line) == value


@given(printable, printable)
@example("it's", "a;b")
@example("%(ENV_HOME)s", "%%")
@example("", " x ")
@example("a#b", "#")
@example(";", "#")
def test_supervisord_starts_a_program_with_these_words(first: str, second: str) -> None:
    try:
        line = f"command=/x {quoting.supervisor_word(first)} {quoting.supervisor_word(second)} "
    except SpecError:
        return
    assert Options().read(line) == (["/x", first, second], {})


@given(printable)
@example("a,B=c")
@example("'quoted'")
@example("a'")
@example("100%s")
@example(" x ")
@example("a#b")
def test_supervisord_sets_a_variable_to_this(value: str) -> None:
    try:
        line = f"command=/x\nenvironment=A={quoting.supervisor_env(value)},B={quoting.supervisor_env('b')}"
    except SpecError:
        return
    assert Options().read(line)[1] == {"A": value, "B": "b"}


@given(printable)
@example("/a%b")
@example("a # b")
def test_supervisord_takes_this_value_or_it_is_refused(value: str) -> None:
    parser = UnhosedConfigParser()
    try:
        parser.read_string(f"[supervisord]\npidfile={quoting.supervisor(value)}\n")
    except SpecError:
        return
    assert parser.saneget("supervisord", "pidfile") == value


@pytest.mark.parametrize("value", ["a ;b", "a\u00a0;b", "a #b", "x # y"])
def test_supervisord_would_cut_a_comment_off_even_in_quotes(value: str) -> None:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(f"[x]\nkey='{value}'")
    assert parser["x"]["key"] != f"'{value}'"
    for quote in (quoting.supervisor, quoting.supervisor_word, quoting.supervisor_env):
        with pytest.raises(SpecError, match="drops everything after"):
            quote(value)


@pytest.mark.parametrize("value", ["'a", "a'", "'"])
def test_supervisord_would_take_these_quotes_off(value: str) -> None:
    assert dict_of_key_value_pairs(f'A="{value}"')["A"] != value
    with pytest.raises(SpecError):
        quoting.supervisor_env(value)


@given(printable, printable)
@example("it's", "$(id) `id` $HOME \\")
@example("", "-n")
def test_a_shell_reads_these_words(first: str, second: str) -> None:
    assert shlex.split(f"x {quoting.shell(first)} {quoting.shell(second)}") == ["x", first, second]


def test_what_is_ordinary_is_never_refused() -> None:
    for value in ("/var/lib/llm-appliance/store/models/ab12/Qwen3 (Q4_K_M).gguf", "0.5", "", "a=b,c", "it's", "ünï"):
        for quote in (
            quoting.systemd_exec,
            quoting.systemd_env,
            quoting.supervisor_word,
            quoting.supervisor_env,
            quoting.nginx,
        ):
            assert value.replace("'", "") in quote(value).replace("'", "").replace('""', "")


@given(printable)
@example('a"b')
@example("a\\")
@example("a;b{c}")
@example("\\n")
def test_nginx_takes_this_parameter_or_it_is_refused(value: str) -> None:
    if "$" in value:
        with pytest.raises(SpecError, match="no way to write a literal"):
            quoting.nginx(value)
    else:
        assert nginx_reader.parameter(quoting.nginx(value)) == value


@pytest.mark.parametrize("name", sorted(quoting.FILTERS))
@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\t", "\x1b", "\x7f"])
def test_no_filter_lets_a_control_character_through(name: str, char: str) -> None:
    with pytest.raises(SpecError, match="control character"):
        quoting.FILTERS[name](f"a{char}b")


@pytest.mark.parametrize("name", sorted(quoting.FILTERS))
def test_a_filter_takes_numbers_too(name: str) -> None:
    assert quoting.FILTERS[name](8080).strip("\"'") == "8080"


@given(printable)
@example("$HOME $$ ${x}")
@example("no")
@example("0x10")
@example("&anchor *alias !!tag # comment: x")
@example("\U0001f999")
@example("\x85 \u2028 \u2029")
def test_compose_takes_this_value(value: str) -> None:
    """What YAML reads is the value with `$` doubled, which Compose takes apart again."""
    try:
        read = yaml.safe_load(f"key: {quoting.compose(value)}")["key"]
    except yaml.reader.ReaderError:
        return  # a character that YAML's own reader refuses in any form
    assert read == value.replace("$", "$$")
    assert yaml.safe_load(f"[{quoting.compose(7)}, {quoting.compose(True)}]") == [7, True]
