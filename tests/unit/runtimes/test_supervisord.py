"""supervisord: what its own reader makes of our file, what is run for which change, and how its answers are read."""

import shlex
import xmlrpc.client
from dataclasses import replace

import pytest
from supervisor.options import ServerOptions, UnhosedConfigParser

from appliance.domain.changes import Command, Completed, ServiceState
from appliance.domain.deployment import Deployment
from appliance.errors import UsageError
from appliance.render.pages import launches, render
from appliance.runtimes import supervisord
from tests.unit.samples import CONTAINER, deployment, item, layout

WHERE = layout("/home/ann/llm")
TEMPLATE = "a b $HOME %h %% it's"
PLAN = deployment(item("a", options=(("chat-template", TEMPLATE),)), item("b", replicas=2), host=CONTAINER, where=WHERE)
CONF = f"{WHERE.current}/supervisord.conf"


def words(commands: tuple[Command, ...]) -> list[str]:
    return [" ".join(command.argv) for command in commands]


def control(text: str) -> str:
    return f"/opt/llm-appliance/bin/supervisorctl -c {CONF} {text}"


def parsed(plan: Deployment) -> UnhosedConfigParser:
    content = next(file.content for file in render(plan).files if file.path == "supervisord.conf")
    parser = UnhosedConfigParser()
    parser.read_string(content.decode())
    return parser


def programs(plan: Deployment) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Read every program as supervisord does: name -> words, environment."""
    parser, options = parsed(plan), ServerOptions()
    found = {}
    for section in (name for name in parser.sections() if name.startswith("program:")):
        parser.remove_option(section, "stdout_logfile")  # it would have to lie in a directory that is there
        (one,) = options.processes_from_section(parser, section, section)
        found[one.name] = (shlex.split(one.command), one.environment)
    return found


def test_it_works_anywhere() -> None:
    assert supervisord.refuse(CONTAINER, "/home/ann/llm") is None
    assert supervisord.refuse(replace(CONTAINER, root=True), "/") is None


def test_supervisord_reads_the_words_of_the_plan() -> None:
    read = programs(PLAN)
    assert set(read) == {"gateway", "model-a", "model-b_1", "model-b_2"}
    for unit in launches(PLAN):
        argv, environment = read[f"model-{unit.service.name}"]
        assert argv[-len(unit.launch.argv) :] == list(unit.launch.argv)
        assert environment == {"HOME": f"{WHERE.cache}/{unit.service.name}", **dict(unit.launch.env)}
    assert TEMPLATE in read["model-a"][0]
    assert PLAN.gateway.program in read["gateway"][0]
    assert "daemon off;" in read["gateway"][0]


def test_supervisord_reads_the_environment_of_the_plan() -> None:
    plan = deployment(
        item("a", engine="llama-cpp-python", options=(("chat-format", "100% a,b=c;d"),)), host=CONTAINER, where=WHERE
    )
    assert programs(plan)["model-a"][1].items() >= dict(launches(plan)[0].launch.env).items()


def test_everything_lies_below_the_prefix() -> None:
    parser = parsed(PLAN)
    for section, key in (
        ("supervisord", "pidfile"), ("supervisord", "logfile"), ("supervisord", "childlogdir"),
        ("unix_http_server", "file"), ("program:gateway", "stdout_logfile"), ("program:model-a", "stdout_logfile"),
    ):  # fmt: skip
        assert parser.saneget(section, key).startswith("/home/ann/llm/")
    assert parser.saneget("supervisorctl", "serverurl") == f"unix://{WHERE.run}/supervisor.sock"


def test_without_root_no_user_is_named() -> None:
    assert not any(parsed(PLAN).has_option(section, "user") for section in parsed(PLAN).sections())


def test_a_running_supervisord_takes_over_what_differs() -> None:
    ensure, *rest = supervisord.activate(PLAN, frozenset({"supervisord.conf", "deployment.json"}))
    assert ensure.argv[0] == PLAN.python
    assert CONF in ensure.argv
    assert words(tuple(rest)) == [control("update"), control("start all")]


def test_nothing_changed_restarts_nothing_and_starts_what_was_stopped_by_hand() -> None:
    for changed in ((), ("deployment.json",), ("nginx/gateway.json",)):
        assert words(supervisord.activate(PLAN, frozenset(changed)))[1:] == [control("start all")]


@pytest.mark.parametrize("path", ["nginx/nginx.conf", "nginx/gateway.lua", "nginx/scan.lua"])
def test_the_gateway_rereads_its_configuration_without_a_restart(path: str) -> None:
    _, *rest = supervisord.activate(PLAN, frozenset({path}))
    assert words(tuple(rest)) == [control("signal HUP gateway"), control("start all")]


def test_start_stop_and_restart_reach_one_model_with_all_replicas_or_everything() -> None:
    assert words(supervisord.start(PLAN, "b"))[1:] == [control("start model-b_1 model-b_2")]
    assert words(supervisord.start(PLAN, ""))[1:] == [control("start all")]
    assert words(supervisord.restart(PLAN, "b"))[1:] == [control("restart model-b_1 model-b_2")]
    assert words(supervisord.stop(PLAN, "a")) == [control("stop model-a")]
    assert words(supervisord.stop(PLAN, "")) == [control("stop all"), control("shutdown")]


def test_what_is_not_wanted_any_more_is_stopped_and_supervisord_with_the_last() -> None:
    assert words(supervisord.retire(PLAN, ("b_2",))) == [control("stop model-b_2")]
    assert words(supervisord.retire(PLAN, ("gateway", "a", "b_1", "b_2")))[-1] == control("shutdown")
    assert supervisord.settle(PLAN) == ()


def test_the_configuration_is_checked_where_it_was_written() -> None:
    (command,) = supervisord.check(PLAN, "/g/7")
    assert command.argv[-1] == "/g/7/supervisord.conf"


def test_logs_of_one_service_or_of_all() -> None:
    assert supervisord.logs(PLAN, ("b_1",), follow=False, lines=7).argv == (
        "tail", "--lines=7", f"{WHERE.log}/model-b_1.log",
    )  # fmt: skip
    assert supervisord.logs(PLAN, (), follow=True, lines=7).argv[-4:] == (
        f"{WHERE.log}/gateway.log", f"{WHERE.log}/model-a.log", f"{WHERE.log}/model-b_1.log", f"{WHERE.log}/model-b_2.log",
    )  # fmt: skip


def test_one_question_for_all_programs() -> None:
    question = supervisord.status(PLAN)
    assert question.socket == f"{WHERE.run}/supervisor.sock"
    assert xmlrpc.client.loads(question.body.decode()) == ((), "supervisor.getAllProcessInfo")


def test_logs_without_times_are_not_cut_at_one() -> None:
    with pytest.raises(UsageError, match="no times") as caught:
        supervisord.logs(PLAN, (), follow=False, lines=0, since=1700000000)
    assert "-n LINES" in caught.value.hint


def row(name: str, state: str, *, pid: int = 0, start: int = 0, error: str = "", description: str = "") -> str:
    """Return one program as supervisord 4.3 sends it."""
    return f"""<value><struct>
<member><name>name</name><value><string>{name}</string></value></member>
<member><name>group</name><value><string>{name}</string></value></member>
<member><name>start</name><value><int>{start}</int></value></member>
<member><name>stop</name><value><int>0</int></value></member>
<member><name>now</name><value><int>1700000100</int></value></member>
<member><name>state</name><value><int>20</int></value></member>
<member><name>statename</name><value><string>{state}</string></value></member>
<member><name>spawnerr</name><value><string>{error}</string></value></member>
<member><name>exitstatus</name><value><int>0</int></value></member>
<member><name>logfile</name><value><string>/log</string></value></member>
<member><name>stdout_logfile</name><value><string>/log</string></value></member>
<member><name>stderr_logfile</name><value><string></string></value></member>
<member><name>pid</name><value><int>{pid}</int></value></member>
<member><name>description</name><value><string>{description}</string></value></member>
</struct></value>
"""


def answer(*rows: str) -> str:
    return (
        "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\n"
        f"{''.join(rows)}</data></array></value>\n</param>\n</params>\n</methodResponse>\n"
    )


FAULT = """<?xml version='1.0'?>
<methodResponse>
<fault>
<value><struct>
<member><name>faultCode</name><value><int>6</int></value></member>
<member><name>faultString</name><value><string>SHUTDOWN_STATE</string></value></member>
</struct></value>
</fault>
</methodResponse>
"""


def read(text: str, code: int = 0) -> dict[str, ServiceState]:
    done = Completed(argv=(), code=code, stdout=text, stderr="", seconds=0)
    return {state.name: state for state in supervisord.read_status(PLAN, done)}


def test_the_states_of_programs() -> None:
    states = read(
        answer(
            row("model-b_1", "BACKOFF", error="Exited too quickly (process log may have details)"),
            row("gateway", "RUNNING", pid=4242, start=1700000000, description="pid 4242, uptime 0:01:40"),
            row("model-a", "STARTING", pid=4243, start=1700000099),
            row("model-b_2", "FATAL", description="Exited too quickly"),
            row("model-gone", "RUNNING", pid=1),
        )
    )
    assert {name: (state.state, state.pid, state.detail) for name, state in states.items()} == {
        "gateway": ("running", 4242, ""),
        "a": ("starting", 4243, ""),
        "b_1": ("failed", 0, "Exited too quickly (process log may have details)"),
        "b_2": ("failed", 0, "Exited too quickly"),
    }
    assert states["gateway"].since == -100, "negative: that many seconds ago"
    assert states["b_1"].since == 0


@pytest.mark.parametrize(
    ("name", "state"),
    [("EXITED", "failed"), ("STOPPED", "stopped"), ("STOPPING", "stopped"), ("UNKNOWN", "failed"), ("NEW", "failed")],
)
def test_every_state_has_a_word(name: str, state: str) -> None:
    assert read(answer(row("gateway", name)))["gateway"].state == state


def test_a_program_that_supervisord_does_not_know_is_stopped() -> None:
    assert {state.state for state in read(answer()).values()} == {"stopped"}


def test_no_answer_means_that_supervisord_is_not_running() -> None:
    states = read("", code=1)
    assert set(states) == {"gateway", "a", "b_1", "b_2"}
    assert {(state.state, state.detail) for state in states.values()} == {("stopped", "supervisord is not running")}


@pytest.mark.parametrize("text", [FAULT, "", "<html>502</html>", "<?xml version='1.0'?><methodResponse>"])
def test_an_answer_that_is_no_list_is_no_crash(text: str) -> None:
    assert {state.state for state in read(text).values()} == {"stopped"}
    assert read(FAULT)["a"].detail == "supervisord says SHUTDOWN_STATE"
