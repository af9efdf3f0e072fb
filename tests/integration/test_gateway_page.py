"""The status page at /: what it tells to whom, and how it works in a real Chromium, by keyboard and on a phone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.integration import chromium, gateway_rig
from tests.integration.chromium import Page
from tests.integration.gateway_rig import Gateway, gateway, until
from tests.integration.test_gateway_keys import Ring, bearer

GIB = 1 << 30
LONG = "a" * 63
GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
FILES = {
    "/": "text/html; charset=utf-8",
    "/gateway/page.css": "text/css; charset=utf-8",
    "/gateway/page.js": "text/javascript; charset=utf-8",
    "/gateway/page.svg": "image/svg+xml",
}
PLAN: dict[str, Any] = {
    "models": {
        "fox": {"engine": "llama-cpp 0.3.36", "task": "chat", "context": 4096, "loads": {"fox": {"ram": GIB}}},
        "vectors": {"engine": "llama-cpp 0.3.36", "task": "embed", "context": 512, "loads": {}},
    },
    "devices": [{"device": "ram", "name": "RAM", "memory": 4 * GIB}],
}


@pytest.fixture(scope="module", autouse=True)
def _parts() -> None:
    reason = gateway_rig.missing_ability() or chromium.missing_ability()
    if reason is None:
        chromium.require()
    elif os.environ.get("CI"):
        pytest.fail(reason)
    else:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium.chromium() as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    """A page that has seen nothing yet: as after a tab was closed and another one opened."""
    browser.call("Page.navigate", url="about:blank")
    browser.call("Network.clearBrowserCache")
    browser.size(1280, 900)
    browser.scheme("light")
    browser.told.clear()
    return browser


@contextmanager
def shown() -> Iterator[Gateway]:
    with gateway() as made:
        made.route("fox", made.engine("fox", "--token-delay", "0.15"))
        made.route("vectors", made.engine("vectors"))
        made.show(**PLAN)
        made.start()
        made.wait_for("fox")
        made.wait_for("vectors")
        yield made


@pytest.fixture
def one() -> Iterator[Gateway]:
    with shown() as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Gateway]:
    """One for all tests that change nothing; with the longest name that a model can have."""
    with shown() as made:
        made.route(LONG, made.engine("long", model=LONG))
        made.wait_for(LONG)
        yield made


def told(one: Gateway, **headers: str) -> dict[str, Any]:
    answer = httpx.get(f"{one.url}/gateway/page", headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ready(page: Page, one: Gateway, models: int) -> None:
    page.open(one.url)
    page.until(f"document.querySelectorAll('.model').length === {models}")


# ---------------------------------------------------------------------------------------------------- as files


@pytest.mark.parametrize("path", FILES)
def test_its_files_are_guarded_and_kept_by_browsers(shared: Gateway, path: str) -> None:
    answer = httpx.get(shared.url + path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, FILES[path])
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = httpx.get(shared.url + path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = httpx.head(shared.url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))
    refused = httpx.post(shared.url + path)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_it_can_be_turned_off_and_on_while_the_gateway_runs(one: Gateway) -> None:
    one.show(on=False)
    until(lambda: httpx.get(one.url).status_code == 404, what="no page")
    for path in (*FILES, "/gateway/page"):
        assert {httpx.request(method, one.url + path).status_code for method in ("GET", "POST")} == {404}
    assert one.chat("fox").status_code == 200
    one.show()
    until(lambda: httpx.get(one.url).status_code == 200, what="the page")
    (one.prefix / "page.json").unlink()
    until(lambda: httpx.get(one.url).status_code == 404, what="no page where no plan says that there is one")


# ---------------------------------------------------------------------------------------------------- who sees what


def test_this_machine_sees_everything_where_there_are_no_keys(one: Gateway) -> None:
    one.document["aliases"] = {"gpt-4o": "fox"}
    one.write_routes()
    one.chat("fox")
    until(lambda: len(told(one)["models"]) == 3, what="the alias")
    until(lambda: told(one)["models"][0]["counters"]["replicas"][0]["requests"] == 1, what="the request counted")
    shown = told(one)
    fox, alias, vectors = shown["models"]
    assert (fox["name"], fox["state"], fox["engine"], fox["context"]) == ("fox", "up", "llama-cpp 0.3.36", 4096)
    assert fox["counters"]["replicas"][0]["output_tokens"] == 9
    assert fox["loads"] == {"fox": {"ram": GIB}}
    assert (alias["name"], alias["of"]) == ("gpt-4o", "fox")
    assert "counters" not in alias
    assert (vectors["name"], vectors["task"]) == ("vectors", "embed")
    assert shown["devices"] == PLAN["devices"]


def test_who_comes_from_elsewhere_sees_no_counters(one: Gateway) -> None:
    shown = told(one, **{"X-Forwarded-For": "192.0.2.7"})
    assert shown["counters"] is False
    assert {key for model in shown["models"] for key in model} == {"name", "state", "task", "context", "seconds"} - (
        set() if any("seconds" in model for model in shown["models"]) else {"seconds"}
    )
    assert "devices" not in shown


def test_with_keys_nobody_sees_anything_without_one(one: Gateway) -> None:
    ring = Ring(one)
    ring.write(user=("sk-user", {"models": ["fox"]}), ops=("sk-ops", {"metrics": True}))
    until(lambda: httpx.get(f"{one.url}/gateway/page").status_code == 401, what="the keys known")
    assert httpx.get(f"{one.url}/gateway/page", headers=bearer("sk-wrong")).status_code == 401
    for path in FILES:
        assert httpx.get(one.url + path).status_code == 200
        assert "fox" not in httpx.get(one.url + path).text
    user = told(one, **bearer("sk-user"))
    assert [model["name"] for model in user["models"]] == ["fox"]
    assert (user["counters"], "devices" in user, "engine" in user["models"][0]) == (False, False, False)
    ops = told(one, **bearer("sk-ops"))
    assert (ops["counters"], len(ops["models"]), len(ops["devices"])) == (True, 2, 1)


# ---------------------------------------------------------------------------------------------------- in a browser


def test_it_shows_the_models_and_how_they_are(page: Page, one: Gateway) -> None:
    one.route("slow", one.engine("slow", "--start-delay", "600"))
    dead = one.engine("dead")
    one.route("dead", dead)
    one.wait_for("dead")
    dead.kill()
    one.wait_for("dead", "down")
    one.wait_for("slow", "starting")
    ready(page, one, 4)
    states = page.ask(
        "Object.fromEntries([...document.querySelectorAll('.model')].map("
        "(one) => [one.querySelector('h3').textContent, one.querySelector('.state').textContent.split(',')[0]]))"
    )
    assert states == {"fox": "ready", "vectors": "ready", "slow": "starting", "dead": "not answering"}
    assert page.text("#summary") == "2 of 4 models ready"
    assert page.text("#base") == f"{one.url}/v1"
    assert page.ask("[...document.querySelectorAll('#model option')].map((one) => one.value)") == [
        "dead",
        "fox",
        "slow",
    ]
    assert page.ask("document.getElementById('model').value") == "fox"
    command = page.ask("document.querySelectorAll('.use pre')[1].textContent")
    assert f"curl {one.url}/v1/chat/completions" in command
    assert '"model": "fox"' in command
    assert "1 of 4 GiB" in page.text("#devices")
    assert "as planned" in page.text("#memory")
    assert page.complaints() == []
    assert {request["url"].removeprefix(one.url) for request in page.asked()} == {*FILES, "/gateway/page"}


def test_it_follows_what_changes_and_leaves_the_rest_alone(page: Page, one: Gateway) -> None:
    ready(page, one, 2)
    page.ask("window.kept = document.querySelector('.model'); kept.querySelector('summary').focus()")
    page.press("Enter")
    page.until("kept.querySelector('details').open")
    one.route("new", one.engine("new"))
    one.chat("fox")
    page.until("document.querySelectorAll('.model').length === 3")
    page.until("kept.querySelector('.figures').textContent.includes('served1')")
    assert (
        page.ask("kept.isConnected && kept.querySelector('details').open && document.activeElement.tagName")
        == "SUMMARY"
    )
    del one.models["new"]
    one.write_routes()
    page.until("document.querySelectorAll('.model').length === 2")


def test_a_chat_by_keyboard_only(page: Page, one: Gateway) -> None:
    ready(page, one, 2)
    page.press("Tab")
    assert page.focus() == "a"
    page.press("Enter")  # "Skip to the chat"
    page.until("document.activeElement.id === 'prompt'")
    page.write("one")
    page.press("Enter", shift=True)
    page.write("two")
    page.press("Enter")
    page.until("document.querySelector('.assistant .text').textContent.startsWith('The quick')")
    # It comes piece by piece, and nobody hears each of them read out.
    assert page.text(".assistant .text") != "The quick brown fox jumps over the lazy dog."
    assert page.ask("document.getElementById('answers').getAttribute('aria-busy')") == "true"
    page.until(
        "document.querySelector('.assistant .text').textContent === 'The quick brown fox jumps over the lazy dog.'"
    )
    page.until("document.querySelector('.assistant .note').textContent.startsWith('9 tokens')")
    assert page.text(".user .text") == "one\ntwo"
    assert page.focus() == "prompt"
    page.write("more")
    page.press("Enter")
    page.until("document.querySelectorAll('.assistant .text')[1].textContent.startsWith('The')")
    page.press("Escape")
    page.until("document.querySelectorAll('.assistant .note')[1].textContent === 'stopped'")
    until(lambda: one.engines[0].metric("aborted_total") == 1, what="the engine told")  # type: ignore[union-attr]
    sent = [json.loads(request["postData"]) for request in page.asked() if request["method"] == "POST"]
    assert [message["content"] for message in sent[1]["messages"]] == [
        "one\ntwo", "The quick brown fox jumps over the lazy dog.", "more",
    ]  # fmt: skip
    assert page.complaints() == []


def test_every_control_can_be_reached_in_order(page: Page, shared: Gateway) -> None:
    ready(page, shared, 3)
    seen = []
    for _ in range(14):
        page.press("Tab")
        seen.append(page.focus())
    wanted = [
        *("a", "key-button", "copy-base", "summary", "summary", "summary"),
        *("model", "clear", "answers", "prompt", "send"),
    ]
    assert [name for name in seen if name in wanted][: len(wanted)] == wanted
    unnamed = page.ask(
        "[...document.querySelectorAll('input, select, textarea, button')].filter("
        "(one) => !(one.labels && one.labels.length) && !one.textContent.trim()).map((one) => one.outerHTML)"
    )
    assert unnamed == []


def test_a_key_stays_in_its_tab_and_goes_to_the_gateway_only(page: Page, one: Gateway) -> None:
    ring = Ring(one)
    ring.write(user=("sk-user", {"models": ["fox"]}), ops=("sk-ops", {"metrics": True}))
    until(lambda: httpx.get(f"{one.url}/gateway/page").status_code == 401, what="the keys known")
    page.open(one.url)
    page.until("!document.getElementById('key-form').hidden")
    assert page.ask("document.querySelectorAll('.model').length") == 0
    page.ask("document.getElementById('key').focus()")
    page.write("sk-user")
    page.press("Enter")
    page.until("document.querySelectorAll('.model').length === 1")
    assert page.ask("document.getElementById('rates').hidden && document.getElementById('memory').hidden")
    page.ask("document.getElementById('prompt').focus()")
    page.write("hello")
    page.press("Enter")
    page.until("document.querySelector('.assistant .text').textContent.endsWith('dog.')")
    assert page.ask("[localStorage.length, document.cookie, location.href]") == [0, "", f"{one.url}/"]
    assert page.ask("Object.values(sessionStorage)") == ["sk-user"]
    assert "sk-user" not in page.ask("document.documentElement.outerHTML")
    carried = [request for request in page.asked() if "sk-user" in json.dumps(request)]
    assert {request["url"].removeprefix(one.url) for request in carried} == {"/gateway/page", "/v1/chat/completions"}
    assert {request["headers"]["Authorization"] for request in carried} == {"Bearer sk-user"}
    page.ask("document.getElementById('key-button').click()")
    page.write("sk-ops")
    page.press("Enter")
    page.until("document.querySelectorAll('.model').length === 2 && !document.getElementById('rates').hidden")
    page.ask("document.getElementById('key-button').click()")
    page.ask("document.getElementById('forget').click()")
    page.until("document.readyState === 'complete' && !document.getElementById('key-form').hidden")
    assert page.ask("sessionStorage.length") == 0
    assert page.ask("document.querySelectorAll('.model').length") == 0


def test_a_wrong_key_and_a_failure_are_told(page: Page, one: Gateway) -> None:
    one.route("breaks", one.engine("breaks", "--fail-every", "1"))
    one.route("cut", one.engine("cut", "--truncate-stream", "1"))
    one.wait_for("breaks")
    one.wait_for("cut")
    ready(page, one, 4)
    for place, (model, words) in enumerate((("breaks", "fails on purpose"), ("cut", "broke off"))):
        page.ask(f"document.getElementById('model').value = '{model}'; document.getElementById('prompt').focus()")
        page.write("hello")
        page.press("Enter")
        page.until(
            f"(document.querySelectorAll('.assistant .failed')[{place}] || {{}}).textContent?.includes('{words}')"
        )
    Ring(one).write(user="sk-user")
    page.until("!document.getElementById('key-form').hidden")
    page.ask("document.getElementById('key').focus()")
    page.write("sk-wrong")
    page.press("Enter")
    page.until("document.getElementById('problem').textContent.includes('this key is not valid')")


def test_what_models_say_is_never_markup(page: Page, one: Gateway) -> None:
    one.route("echo", one.engine("echo", "--echo"))
    one.wait_for("echo")
    ready(page, one, 3)
    evil = "<img src=x onerror=alert(1)><script>document.title='gone'</script><b>x</b>"
    page.ask("document.getElementById('model').value = 'echo'; document.getElementById('prompt').focus()")
    page.write(evil)
    page.press("Enter")
    page.until("document.querySelector('.assistant .note').textContent")
    assert page.text(".assistant .text") == page.text(".user .text") == evil
    assert page.ask("document.querySelectorAll('#answers img, #answers script, #answers b').length") == 0


@pytest.mark.parametrize(
    "attack",
    [
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.gone = 1'}))",
        "new Function('window.gone = 1')()",
        "fetch('http://192.0.2.1/').then(() => { window.gone = 1 })",
        "new Promise((_, no) => { const i = new Image(); i.onload = () => { window.gone = 1 }; i.onerror = no; i.src = GIF })",
    ],
)
def test_the_policy_holds_where_a_script_would_break_out(page: Page, shared: Gateway, attack: str) -> None:
    ready(page, shared, 3)
    page.ask(f"window.GIF = '{GIF}'")
    refused = page.ask(f"(async () => {{ try {{ await ({attack}) }} catch {{ return 'refused' }} }})()")
    assert page.ask("window.gone") is None
    assert refused == "refused" or "Content Security Policy" in " ".join(page.complaints())


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_stands_out_of_a_narrow_screen(page: Page, shared: Gateway, width: int) -> None:
    page.size(width, 844, phone=True)
    ready(page, shared, 3)
    page.ask("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    page.ask("document.getElementById('prompt').focus()")
    page.write("x" * 200)
    page.press("Enter")
    page.until("document.querySelector('.note') && document.querySelector('.note').textContent")
    assert page.ask("document.documentElement.scrollWidth") <= width
    small = page.ask(
        "[...document.querySelectorAll('button')].filter((one) => one.offsetParent && "
        "one.getBoundingClientRect().height < 24).map((one) => one.id)"
    )
    assert small == []


def test_it_asks_nothing_while_nobody_looks(page: Page, shared: Gateway) -> None:
    ready(page, shared, 3)

    def looks() -> int:
        return len([request for request in page.asked() if request["url"].endswith("/gateway/page")])

    until(lambda: looks() > 1, what="a second look")
    page.ask("Object.defineProperty(document, 'hidden', {value: true, configurable: true}); 0")
    page.ask("document.dispatchEvent(new Event('visibilitychange'))")
    before = looks()
    time.sleep(3)  # longer than from one look to the next
    assert looks() == before
    page.ask("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    until(lambda: looks() > before, what="a look as soon as somebody is there")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(page: Page, shared: Gateway, scheme: str) -> None:
    page.scheme(scheme)
    ready(page, shared, 3)
    page.ask("document.getElementById('prompt').focus()")
    page.write("hello")
    page.press("Enter")
    page.until("document.querySelector('.note').textContent")
    # Contrast as WCAG 2 reckons it: 4.5 is what small words need.
    faint = page.ask("""(() => {
        const parts = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
        const behind = (one) => { for (; one; one = one.parentElement) {
            const back = parts(getComputedStyle(one).backgroundColor);
            if (back.length < 4 || back[3] === 1) return back; } return [255, 255, 255]; };
        return [...document.querySelectorAll('h1,h2,h3,p,dt,dd,code,pre,button,summary,.state,.text,.note,.quiet')]
            .filter((one) => one.offsetParent && one.textContent.trim()).map((one) => {
                const pair = [light(parts(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => b - a);
                return [one.className || one.tagName, one.textContent, (pair[0] + 0.05) / (pair[1] + 0.05)];
            }).filter((row) => row[2] < 4.5);
    })()""")
    assert faint == []
