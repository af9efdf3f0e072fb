"""Sources of models that providers serve."""

import pytest

from appliance.catalog import providers
from appliance.domain.service import Remote
from appliance.errors import SpecError

NAMED = (
    "openai", "azure", "moonshot", "dashscope", "deepseek", "zhipu", "siliconflow", "volcengine", "minimax", "baichuan",
    "yi", "anthropic", "gemini", "openrouter",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_everybody_whom_people_ask_is_known(name: str) -> None:
    row = providers.provider(name)
    text = providers.source(name, "" if row.url else "https://corp.example/openai/v1", "some-model")
    remote = providers.place(text)
    assert remote.url.startswith("https://")
    assert remote.model == "some-model"
    assert providers.host(remote).endswith(":443")


@pytest.mark.parametrize("name", providers.names())
def test_every_row_is_an_address(name: str) -> None:
    row = providers.provider(name)
    assert row.url == "" or providers.URL.fullmatch(row.url)
    assert row.url or row.example


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("remote:moonshot/kimi-k2", Remote(url="https://api.moonshot.cn/v1", model="kimi-k2")),
        ("remote:kimi/kimi-k2", Remote(url="https://api.moonshot.cn/v1", model="kimi-k2")),
        ("remote:moonshot-intl/kimi-k2", Remote(url="https://api.moonshot.ai/v1", model="kimi-k2")),
        (
            "remote:siliconflow/deepseek-ai/DeepSeek-V3",
            Remote(url="https://api.siliconflow.cn/v1", model="deepseek-ai/DeepSeek-V3"),
        ),
        (
            "remote:azure@https://corp.openai.azure.com/openai/v1#gpt-4.1",
            Remote(url="https://corp.openai.azure.com/openai/v1", header="api-key", model="gpt-4.1"),
        ),
        ("remote:http://10.0.0.7:8000/v1/#qwen", Remote(url="http://10.0.0.7:8000/v1", model="qwen")),
        ("remote:https://[fd00::1]:8443/v1#m", Remote(url="https://[fd00::1]:8443/v1", model="m")),
        (
            "remote:https://LLM.corp.example/v1?api-version=2024-10-21#m",
            Remote(url="https://llm.corp.example/v1", query="api-version=2024-10-21", model="m"),
        ),
    ],
)
def test_where_a_source_points(text: str, remote: Remote) -> None:
    assert providers.place(text) == remote


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("remote:moonshoot/kimi", "no provider is called 'moonshoot'", "did you mean moonshot"),
        ("remote:moonshot", "names no model of a provider", "remote:PROVIDER/MODEL"),
        ("remote:moonshot/", "names no model of a provider", "remote:PROVIDER/MODEL"),
        ("remote:https://corp.example/v1", "names no model of a provider", "#MODEL"),
        ("remote:https://name:password@corp.example/v1#m", "is no address of a provider", "--base-url"),
        ("remote:ftp://corp.example/v1#m", "is no address of a provider", "--base-url"),
        ("remote:https://corp.example/v1;evil#m", "is no address of a provider", "--base-url"),
        ("remote:azure/gpt-4.1", "an address of their own", "openai.azure.com"),
        ('remote:moonshot/a"b', "names no model of a provider", "remote:PROVIDER/MODEL"),
    ],
)
def test_what_is_no_source(text: str, why: str, hint: str) -> None:
    with pytest.raises(SpecError, match=".*") as caught:
        providers.place(text)
    assert why in caught.value.message
    assert hint in caught.value.hint


def test_a_key_in_the_clear_is_told_from_one_on_this_machine() -> None:
    def clear(url: str) -> bool:
        return providers.in_the_clear(Remote(url=url, key_file="/key"))

    assert clear("http://10.0.0.7:8000/v1")
    assert not clear("http://127.0.0.1:8000/v1")
    assert not clear("https://corp.example/v1")
    assert not providers.in_the_clear(Remote(url="http://10.0.0.7:8000/v1"))
