"""The templates: every interpolation is quoted for its grammar, nothing is decided, nothing tells the time."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jinja2
import pytest
from jinja2 import nodes

from appliance import resources
from appliance.render import quoting

ROOT = resources.data("templates")
TEMPLATES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.j2"))
GRAMMARS = {
    "certbot": {"shell"},
    "compose": {"compose"},
    "nginx": {"nginx"},
    "supervisord": {"supervisor", "supervisor_word", "supervisor_env"},
    "systemd": {"systemd_exec", "systemd_env", "systemd_value"},
}
"""Directory of a template -> the filters that know what it is read by."""


@cache
def tree(name: str) -> nodes.Template:
    return jinja2.Environment(autoescape=False).parse((ROOT / name).read_text())


def interpolations(root: nodes.Node) -> Iterator[nodes.Expr]:
    for output in root.find_all(nodes.Output):
        yield from (node for node in output.nodes if not isinstance(node, nodes.TemplateData))


def unquoted(root: nodes.Node, filters: set[str]) -> list[int]:
    """Return the lines where the outermost node of an interpolation is none of these filters."""
    return [
        node.lineno for node in interpolations(root) if not (isinstance(node, nodes.Filter) and node.name in filters)
    ]


def test_there_are_templates() -> None:
    assert {name.split("/")[0] for name in TEMPLATES} == set(GRAMMARS)
    assert set().union(*GRAMMARS.values()) == set(quoting.FILTERS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_interpolation_is_quoted_for_its_grammar(name: str) -> None:
    assert list(interpolations(tree(name)))
    assert unquoted(tree(name), GRAMMARS[name.split("/", maxsplit=1)[0]]) == []


@pytest.mark.parametrize(
    "source",
    [
        "{{ x }}",
        "{{ x | upper }}",
        "{{ x | nginx | upper }}",
        "{{ (x | nginx) ~ y }}",
        "{{ x | systemd_exec }}",
        "a{% for y in x %}{{ y }}{% endfor %}",
        "{% if x %}{{ y.z }}{% endif %}",
    ],
)
def test_an_interpolation_without_its_filter_is_found(source: str) -> None:
    environment = jinja2.Environment(autoescape=False)
    environment.filters |= quoting.FILTERS
    assert unquoted(environment.parse(source), {"nginx"})


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_decides_nothing(name: str) -> None:
    """Loops and presence tests only."""
    wrong = (
        nodes.Compare,
        nodes.Call,
        nodes.Assign,
        nodes.AssignBlock,
        nodes.Include,
        nodes.Import,
        nodes.Macro,
        nodes.CondExpr,
    )
    assert [type(node).__name__ for kind in wrong for node in tree(name).find_all(kind)] == []
    for test in (node.test for node in tree(name).find_all(nodes.If)):
        assert isinstance(test, nodes.Name | nodes.Getattr), f"{name}:{test.lineno}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_file_says_who_made_it_and_from_which_plan(name: str) -> None:
    first = (ROOT / name).read_text().removeprefix("#!/bin/sh\n").splitlines()[0]
    assert re.match(r"[#;] Made by llm-appliance \(\{\{ digest \| \w+ \}\}\)\. Do not edit", first)


@pytest.mark.parametrize("path", sorted(path for path in ROOT.rglob("*") if path.is_file()), ids=lambda path: path.name)
def test_no_file_tells_the_time(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text)
    assert not re.search(r"\{\{[^}]*\b(now|time|date|today)\b[^}]*\}\}", text)
