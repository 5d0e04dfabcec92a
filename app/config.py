"""Settings: every variable declared once, with its type, bounds, default and one sentence of help.

Reads the environment and `.env` (the environment wins). Knows nothing of what the settings are used for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import dotenv
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from app import validators

SECRET = ("engine_url", "secret_key", "owner_token", "notify_url")  # these URLs may hold a password
LISTS = ("cors_origins", "forwarded_allow_ips", "reserved_usernames", "blocked_words")  # these may be empty


class SettingsError(Exception):
    """A variable holds what it can't hold; the text names each one, its fault and what is allowed."""


def _setting(default: Any, description: str, allowed: str | None = None, **bounds: Any) -> Any:
    """A field with its help; `allowed` says in words what it takes, where type and bounds don't."""
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **bounds)


class Settings(BaseModel):
    """Everything that can be set. Field `ws_max_connections` is the variable `WS_MAX_CONNECTIONS`, and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    app_name: str = _setting("Portfolio Backend", "The service's name, in `/health`, the documents and the log.")
    app_version: str = _setting("0.1.0", "The service's version, in `/health` and the documents.")
    debug: bool = _setting(False, "Log at level DEBUG and put tracebacks into the answers of failed requests.")
    host: str = _setting("0.0.0.0", "The address that `python -m app` listens on.")
    port: int = _setting(8000, "The port that `python -m app` listens on; 0 for any that is free.", ge=0, le=65535)
    workers: int = _setting(
        1, "How many processes `python -m app` serves with; more than one needs Redis.", ge=1, le=256
    )
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(validators.origin)], ...], BeforeValidator(validators.split)
    ] = _setting(
        ("http://localhost:3000", "http://localhost:8000"),
        "Origins whose pages may call the HTTP endpoints, separated by commas; `*` for all, empty for none.",
        allowed="origins such as https://example.com, separated by commas, or *",
    )
    cors_allow_credentials: bool = _setting(True, "Let those pages send cookies; `CORS_ORIGINS=*` switches it off.")
    ws_heartbeat_interval: float = _setting(30.0, "Seconds between two pings to every client.", ge=0.05, le=3600)
    ws_heartbeat_timeout: float = _setting(
        60.0, "Seconds of silence after which a client counts as disconnected.", ge=0.1, le=7200
    )
    ws_max_connections: int = _setting(
        1000, "How many connections there may be at once, in each worker.", ge=1, le=1_000_000
    )
    ws_max_connections_per_ip: int = _setting(
        50, "How many of them from one address (of IPv6, from one /64); 0 for no limit.", ge=0, le=1_000_000
    )
    ws_send_buffer: int = _setting(
        1048576, "Bytes that may wait for one client before it is too slow.", ge=65536, le=268_435_456
    )
    max_message_length: int = _setting(1000, "The longest message, in characters as typed.", ge=1, le=10_000)
    max_username_length: int = _setting(50, "The longest username, in characters.", ge=1, le=200)
    rate_limit_messages: int = _setting(10, "Messages of one user in a window; 0 for no limit.", ge=0, le=10_000)
    rate_limit_address: int = _setting(100, "Messages from one address in a window; 0 for no limit.", ge=0, le=100_000)
    rate_limit_joins: int = _setting(120, "Connections from one address in a window; 0 for no limit.", ge=0, le=100_000)
    rate_limit_window: float = _setting(10.0, "The window, in seconds.", ge=0.1, le=3600)
    history_limit: int = _setting(100, "How many messages a newcomer sees.", ge=0, le=10_000)
    recovery_limit: int = _setting(500, "How many missed messages a returning client gets.", ge=0, le=10_000)
    announce_limit: int = _setting(50, "Up to how many users joins and leaves are announced.", ge=0, le=10_000)
    engine_url: Annotated[str, AfterValidator(validators.engine_url)] = _setting(
        "sqlite:///data/chat.db",
        "Where messages are kept: `sqlite:///relative/path`, `sqlite:////absolute/path`, `memory://` (nowhere), or, "
        "for several workers, `redis://[user:password@]host:6379/0` (`rediss://` with TLS).",
        allowed="sqlite:///relative/path, sqlite:////absolute/path, memory://, redis://host:6379/0 or rediss://…",
    )
    public_url: Annotated[str, AfterValidator(validators.public_url)] = _setting(
        "",
        "The address that visitors see, where a proxy hides it, such as `https://chat.example.com`.",
        allowed="an address such as https://chat.example.com",
    )
    secret_key: Annotated[str, AfterValidator(validators.secret_key)] = _setting(
        "",
        "Signs session tokens. When empty, one is made and kept with the messages.",
        allowed="at least 16 characters, best made by: openssl rand -hex 32",
        repr=False,
    )
    owner_token: Annotated[str, AfterValidator(validators.owner_token)] = _setting(
        "",
        "Whoever shows it is the owner; 32 to 256 of A-Z a-z 0-9 - . _ ~. When empty, nobody is.",
        allowed="32 to 256 of A-Z a-z 0-9 - . _ ~, not beginning with s1., best made by: openssl rand -hex 32",
        repr=False,
    )
    owner_username: Annotated[str, AfterValidator(validators.username)] = _setting(
        "owner", "The owner's name in the room.", allowed="A-Z a-z 0-9 - _"
    )
    reserved_usernames: Annotated[
        tuple[Annotated[str, AfterValidator(validators.username)], ...], BeforeValidator(validators.split)
    ] = _setting(
        ("system", "admin", "administrator", "owner", "moderator", "mod", "bot", "server", "support"),
        "Names that no visitor gets, nor names that look like them.",
        allowed="names of A-Z a-z 0-9 - _, separated by commas",
    )
    block_dangerous_markup: bool = _setting(
        True, "Refuse messages with markup that would run; otherwise they are let through, escaped."
    )
    blocked_words: Annotated[tuple[str, ...], BeforeValidator(validators.split)] = _setting(
        (),
        "Words that no message may hold, separated by commas, in any case; whole words alone.",
        allowed="words, separated by commas",
    )
    retention_days: float = _setting(90.0, "Days after which messages are deleted; 0 for never.", ge=0, le=36_500)
    max_stored_messages: int = _setting(100_000, "How many messages are kept; 0 for no limit.", ge=0, le=1_000_000_000)
    notify_url: Annotated[str, AfterValidator(validators.public_url)] = _setting(
        "",
        "Where to tell the owner that a visitor wrote: a webhook of Discord or Slack, a topic of ntfy, or your own.",
        allowed="an address such as https://ntfy.sh/a-name-that-nobody-guesses",
        repr=False,
    )
    notify_format: Annotated[Literal["", "discord", "slack", "ntfy", "json"], BeforeValidator(str.lower)] = _setting(
        "",
        "What is sent there: `discord`, `slack`, `ntfy` or `json`; guessed from the address when empty.",
        allowed="discord, slack, ntfy or json",
    )
    notify_quiet: float = _setting(
        300.0, "Seconds after a notification in which what comes is collected for the next one.", ge=0.1, le=86_400
    )
    metrics_public: bool = _setting(False, "Show `/metrics` to everybody, not to the owner alone.")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(str.upper)] = (
        _setting(
            "INFO",
            "The least severe log lines to write: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
            allowed="DEBUG, INFO, WARNING, ERROR or CRITICAL",
        )
    )
    log_message_content: bool = _setting(True, "Log the first 80 characters of each message, not its length alone.")
    shutdown_timeout: float = _setting(
        10.0, "Seconds in which a stopped server must be gone, and a new one gets its database.", ge=1, le=3600
    )
    shutdown_spread: float = _setting(
        2.0, "Seconds over which a stopping server spreads the goodbyes, so that not all return at once.", ge=0, le=600
    )
    forwarded_allow_ips: Annotated[
        tuple[Annotated[str, AfterValidator(validators.network)], ...], BeforeValidator(validators.split)
    ] = _setting(
        ("127.0.0.1",),
        "Addresses or networks of the proxies whose `X-Forwarded-For` is believed, separated by commas.",
        allowed="addresses such as 10.0.0.5 or networks such as 10.0.0.0/8, separated by commas",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.ws_heartbeat_timeout <= self.ws_heartbeat_interval:
            raise ValueError("WS_HEARTBEAT_TIMEOUT must be longer than WS_HEARTBEAT_INTERVAL")
        if self.shutdown_spread >= self.shutdown_timeout:
            raise ValueError("SHUTDOWN_SPREAD must be shorter than SHUTDOWN_TIMEOUT")
        if self.ws_send_buffer < 32 * self.max_message_length:
            raise ValueError("WS_SEND_BUFFER must be at least 32 times MAX_MESSAGE_LENGTH")
        return self

    @property
    def level(self) -> str:
        """The effective log level."""
        return "DEBUG" if self.debug else self.log_level


def load_settings(environ: Mapping[str, str] = os.environ, env_file: Path = Path(".env")) -> Settings:
    """Settings from `env_file`, if there is one, and `environ`, which wins. Raises SettingsError.

    An empty value counts as not set, except where a list may be empty.
    """
    given = {}
    for source in (_read(env_file), environ):
        for name in Settings.model_fields:
            value = source.get(name.upper())
            if value is not None and (value.strip() or name in LISTS):
                given[name] = value
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        faults = [_explain(fault, given) for fault in error.errors(include_url=False)]
        raise SettingsError("\n".join(dict.fromkeys(faults))) from None


def _read(env_file: Path) -> dict[str, str]:
    try:
        found = dotenv.dotenv_values(env_file, interpolate=False) if env_file.exists() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{env_file} can't be read ({type(error).__name__}). It must be a UTF-8 text file."
        ) from None
    return {name: value for name, value in found.items() if value is not None}


def _explain(fault: Any, given: Mapping[str, str]) -> str:
    if not fault["loc"]:
        return f"{fault['ctx']['error']}."
    name = str(fault["loc"][0])
    shown = "its value" if name in SECRET else repr(given[name])
    return f"{name.upper()}: {shown} is not allowed. Allowed: {_allowed(name)}."


def _allowed(name: str) -> str:
    field = Settings.model_fields[name]
    bounds = {key: getattr(rule, key) for rule in field.metadata for key in ("ge", "le") if hasattr(rule, key)}
    if bounds:
        kind = "a whole number" if field.annotation is int else "a number"
        return f"{kind} from {bounds['ge']} to {bounds['le']}"
    extra = field.json_schema_extra
    return str(extra["allowed"]) if isinstance(extra, dict) and extra["allowed"] else "true or false"
