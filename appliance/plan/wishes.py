"""Options that no release of the asked engine knows are the spec's fault, and are told with the way out."""

from appliance.catalog import providers
from appliance.domain.deployment import Reason
from appliance.domain.spec import ModelSpec
from appliance.engines import engine, engines, unable
from appliance.errors import SpecError
from appliance.options import asked, spelling

HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - nothing is put there
"""What a unit of systemd does not see: ProtectHome and PrivateTmp."""


def check(item: ModelSpec, runtime: str) -> None:
    """Raise SpecError when the engine that is asked for cannot do all of it, or see a file that it is given."""
    where = f"models.d/{item.name}.yaml"
    if item.engine != "auto" and (why := unable(item, engine(item.engine), item.version)):
        raise SpecError(f"{where}: {item.engine} {why}", hint=_way_out(item, why))
    files = (("chat_template", item.tuning.chat_template), *((f"lora.{name}", path) for name, path in item.adapters))
    for key, path in files:
        if runtime == "systemd" and path.startswith(HIDDEN):
            raise SpecError(
                f"{where}: {key}: {path}: services see nothing below {path[: path.index('/', 1)]}",
                hint="copy it to /etc/llm-appliance or /srv, readable for everyone",
            )


def warnings(item: ModelSpec) -> tuple[Reason, ...]:
    """Return what the operator must have read before it is so."""
    if providers.is_remote(item.source) and providers.in_the_clear(providers.place(item.source, item.key_file)):
        why = "asked for: the key and all that is said leave this machine unencrypted, over http"
        return (Reason(subject=f"trust in {item.name}", chosen="the network up to the provider is trusted", why=why),)
    if not item.tuning.trust_remote_code:
        return ()
    why = "asked for: Python files that come with the model RUN as the engine's user, whoever wrote them"
    return (Reason(subject=f"trust in {item.name}", chosen="the model's own code is run", why=why),)


def _way_out(item: ModelSpec, why: str) -> str:
    """Name the engines that can do all that is asked for, where only uniform options are."""
    wishes = [spelling(option) for option in (*asked(item.tuning), *(["adapters"] if item.adapters else []))]
    if item.options or not wishes or "knows no" in why:
        return "--set takes the flags of the engine's own program, without dashes" if item.options else ""
    able = [name for name, module in sorted(engines().items()) if not unable(item, module)]
    said = " and ".join(wishes)
    return f"engines that have {said}: {', '.join(able)}" if able else f"no engine has {said}"
