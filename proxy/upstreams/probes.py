"""Whether each target can be reached and takes the gateway's credentials, asked without an exchange."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from proxy.catalog import Catalog
from proxy.errors import UpstreamError
from proxy.gateway import Gateway
from proxy.guardian import Guardian
from proxy.routing import Target
from proxy.settings import Settings, Timeouts

#: How long an upstream may take, in seconds; only whether it answers is of interest.
TIMEOUTS = Timeouts(connect=5.0, first_byte=10.0, idle=10.0, total=15.0)
AT_ONCE = 8
#: Of an answer no more is read.
ANSWER_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a target; `said` holds no credential, `milliseconds` is `None` if nobody was asked."""

    target: str
    ok: bool
    said: str
    milliseconds: int | None = None


def findings(settings: Settings, catalog: Catalog) -> list[Finding]:
    """Ask the upstream of each target once, through its own way out; credentials that expire are renewed first."""
    gateway = Gateway(settings, catalog)
    targets = {target.label: target for model in gateway.models.values() for target in model.targets}
    # One question to an upstream says it for all of its models.
    asked = {id(target.provider): target for target in targets.values()}
    guardian = Guardian()
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(asked, pool.map(lambda target: _ask(guardian, target), asked.values()), strict=True))
    finally:
        for target in asked.values():
            target.upstream.close()
        guardian.stop()
    return [Finding(label, *found[id(targets[label].provider)]) for label in sorted(targets)]


def _ask(guardian: Guardian, target: Target) -> tuple[bool, str, int | None]:
    provider = target.provider
    try:
        if hasattr(provider, "renew"):
            provider.renew()
        outgoing = provider.probe() if hasattr(provider, "probe") else None
    except UpstreamError as failure:
        return False, failure.message, None
    except Exception as failure:
        # As where it is renewed in the background: these texts never hold the credential.
        return False, f"no credential: {type(failure).__name__}: {failure}", None
    if outgoing is None:
        return True, "nobody to ask", None
    call, began = guardian.watch(None), time.monotonic()
    try:
        answer = target.upstream.send(call, outgoing, TIMEOUTS)
        answer.read_all(ANSWER_BYTES)
        answer.close()
        ok, said = _verdict(answer.status, outgoing.method)
    except UpstreamError as failure:
        ok, said = False, f"{failure.message} ({failure.code})"
    finally:
        call.close()
    return ok, said, round((time.monotonic() - began) * 1000)


def _verdict(status: int, method: str) -> tuple[bool, str]:
    if status in (401, 403):
        return False, f"the credential is refused (HTTP {status})"
    # What was posted is incomplete on purpose: who finds that out has accepted the credential.
    if status < 300 or (status in (400, 422) and method == "POST"):
        return True, "ok"
    if status == 429:
        return True, "ok, but its rate limit is reached (HTTP 429)"
    if status == 404:
        return False, "nothing is there (HTTP 404): is its address right?"
    return False, f"it answers with HTTP {status}"
