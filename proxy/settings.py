"""What the configuration says once it has been checked: plain values, as the rest of Lockgate reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.secrets import Secret


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may take, in seconds: to connect, to the first byte, between bytes, altogether."""

    connect: float = 5.0
    first_byte: float = 120.0
    idle: float = 60.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a target is left alone: after `failures` in a row (0: never), for `open` seconds."""

    failures: int = 5
    open: float = 10.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a model's targets are tried in one exchange; waits are in seconds.

    The wait before a target is tried again is drawn from 0 to `backoff`, doubled with each; an upstream that asks for
    more than `longest_wait` is not tried again.
    """

    attempts: int = 3
    backoff: float = 0.25
    longest_wait: float = 2.0


@dataclass(frozen=True, slots=True)
class Connection:
    """How one provider's upstream is reached; what `[providers.NAME]` leaves out comes from `[egress]`.

    `proxy` is a URL and may hold a password, so it is not shown.
    """

    proxy: str | None = field(default=None, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    timeouts: Timeouts = Timeouts()
    breaker: BreakerSettings = BreakerSettings()
    pool_size: int = 100
    max_answer_bytes: int = 32 << 20
    replay_stale: bool = False


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """`[plugins.NAME]`: `use` names the class, `options` is what its `Config` made of the rest (`None` without one)."""

    name: str
    use: str
    options: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """`[providers.NAME]`, as for a plugin, and how its upstream is reached."""

    name: str
    use: str
    options: dict[str, Any] | None = None
    connection: Connection = Connection()


@dataclass(frozen=True, slots=True)
class Target:
    """`"openai"` or `"openai/gpt-5.2"`; without a model the upstream is asked for the one that the client named.

    With a `weight` it takes part in the draw of the target that is tried first.
    """

    provider: str
    model: str | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """`[models.PATTERN]`: where exchanges for the model go, and through which chain (`None`: the top-level one).

    Only `*` is special in `pattern`. `parameters` may be set by callers beyond OpenAI's own, `"*"` allows all.
    `timeouts` overrides the provider's by name, in seconds.
    """

    pattern: str
    targets: tuple[Target, ...]
    chain: tuple[str, ...] | None = None
    public: bool = False
    web_search: bool = False
    parameters: tuple[str, ...] = ()
    timeouts: dict[str, float] = field(default_factory=dict)
    retry: Retry = Retry()


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`[server]`. `bind` is `HOST:PORT` or `unix:/PATH`; `state` is absolute; sizes are in bytes, `heartbeat` in s."""

    bind: str
    state: Path
    insecure: bool = False
    worker: str = "threads"
    workers: int = 2
    threads: int = 100
    plugins_dir: Path | None = None
    max_body_bytes: int = 32 << 20
    max_bodies_bytes: int = 256 << 20
    heartbeat: float = 15.0
    proxied: bool = False
    target_headers: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. `path` is the file that it was read from, `None` where there is none."""

    path: Path | None
    chain: tuple[str, ...]
    server: ServerSettings
    plugins: dict[str, PluginSettings]
    providers: dict[str, ProviderSettings]
    models: dict[str, ModelSettings]
    egress: Connection = Connection()
    pepper: Secret | None = None
