"""Settings: where they come from, and what is said about those that can't be."""

from __future__ import annotations

import os
from pathlib import Path

import dotenv
import pytest

from app.config import Settings, SettingsError, load_settings

DEFAULTS = {
    "app_name": "Portfolio Backend",
    "app_version": "0.1.0",
    "debug": False,
    "host": "0.0.0.0",
    "port": 8000,
    "cors_origins": ("http://localhost:3000", "http://localhost:8000"),
    "cors_allow_credentials": True,
    "ws_heartbeat_interval": 30.0,
    "ws_heartbeat_timeout": 60.0,
    "ws_max_connections": 1000,
    "max_message_length": 1000,
    "max_username_length": 50,
    "history_limit": 100,
    "recovery_limit": 500,
    "announce_limit": 50,
    "engine_url": "sqlite:///data/chat.db",
    "ws_send_buffer": 1_048_576,
    "block_dangerous_markup": True,
    "log_level": "INFO",
    "log_message_content": True,
}
WHOLE_NUMBERS = [
    "PORT", "WS_MAX_CONNECTIONS", "MAX_MESSAGE_LENGTH", "MAX_USERNAME_LENGTH", "HISTORY_LIMIT", "RECOVERY_LIMIT",
    "ANNOUNCE_LIMIT", "WS_SEND_BUFFER",
]  # fmt: skip
NUMBERS = ["WS_HEARTBEAT_INTERVAL", "WS_HEARTBEAT_TIMEOUT"]
SWITCHES = ["DEBUG", "CORS_ALLOW_CREDENTIALS", "BLOCK_DANGEROUS_MARKUP", "LOG_MESSAGE_CONTENT"]
LEVELS = "DEBUG, INFO, WARNING, ERROR or CRITICAL"


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def fault(env_file: Path, **variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(variables, env_file)
    return str(caught.value)


def test_without_variables_the_defaults_hold(env_file: Path) -> None:
    settings = load_settings({}, env_file).model_dump()
    assert {name: settings[name] for name in DEFAULTS} == DEFAULTS


def test_environment_is_the_default_source(monkeypatch: pytest.MonkeyPatch, env_file: Path) -> None:
    monkeypatch.setitem(os.environ, "APP_NAME", "From the environment")
    assert load_settings(env_file=env_file).app_name == "From the environment"


def test_environment_wins_over_env_file(env_file: Path) -> None:
    env_file.write_text("APP_NAME=From the file\nPORT=1234\nUNKNOWN=ignored\nexport DEBUG=true\n")
    settings = load_settings({"PORT": "4321"}, env_file)
    assert (settings.app_name, settings.port, settings.debug) == ("From the file", 4321, True)


def test_env_file_is_taken_literally_but_for_quotes_and_comments(env_file: Path) -> None:
    env_file.write_text("# a comment\nAPP_NAME='Größe ${HOME}' # another\nAPP_VERSION\n", encoding="utf-8")
    settings = load_settings({}, env_file)
    assert (settings.app_name, settings.app_version) == ("Größe ${HOME}", "0.1.0")


@pytest.mark.parametrize("name", ["PORT", "DEBUG", "ENGINE_URL", "LOG_LEVEL", "APP_NAME", "WS_HEARTBEAT_INTERVAL"])
@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_value_counts_as_not_set(env_file: Path, name: str, empty: str) -> None:
    assert load_settings({name: empty}, env_file) == Settings()


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        (" https://a.example , HTTP://B.example:81/ ,", ("https://a.example", "http://b.example:81")),
    ],
)
def test_list_of_origins_is_split_and_normalised(env_file: Path, value: str, origins: tuple[str, ...]) -> None:
    assert load_settings({"CORS_ORIGINS": value}, env_file).cors_origins == origins


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
@pytest.mark.parametrize("value", ["many", "-1", "1.5", "99999999999"])
def test_bad_whole_number_is_named_with_its_bounds(env_file: Path, name: str, value: str) -> None:
    assert fault(env_file, **{name: value}).startswith(
        f"{name}: '{value}' is not allowed. Allowed: a whole number from "
    )


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["soon", "0", "nan", "inf", "-3"])
def test_bad_number_is_named_with_its_bounds(env_file: Path, name: str, value: str) -> None:
    assert f"{name}: '{value}' is not allowed. Allowed: a number from " in fault(env_file, **{name: value})


@pytest.mark.parametrize("name", SWITCHES)
def test_bad_switch_is_named_with_both_its_values(env_file: Path, name: str) -> None:
    assert fault(env_file, **{name: "maybe"}) == f"{name}: 'maybe' is not allowed. Allowed: true or false."


@pytest.mark.parametrize("value", ["localhost", "http://", "://host", "https://a.example/path", "http://a b", "null"])
def test_bad_origin_is_named_with_an_example(env_file: Path, value: str) -> None:
    told = fault(env_file, CORS_ORIGINS=f"https://fine.example,{value}")
    assert told.startswith("CORS_ORIGINS: ")
    assert "Allowed: origins such as https://example.com" in told


def test_bad_log_level_is_named_with_all_levels(env_file: Path) -> None:
    assert fault(env_file, LOG_LEVEL="LOUD") == f"LOG_LEVEL: 'LOUD' is not allowed. Allowed: {LEVELS}."


def test_log_level_may_be_written_small(env_file: Path) -> None:
    assert load_settings({"LOG_LEVEL": "warning"}, env_file).level == "WARNING"


def test_debug_lowers_the_log_level(env_file: Path) -> None:
    assert load_settings({"DEBUG": "true", "LOG_LEVEL": "ERROR"}, env_file).level == "DEBUG"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ada:hunter2@db/chat",
        "sqlite://hunter2",
        "sqlite:///",
        "sqlite:///:memory:",
        "memory://hunter2",
        "redis://",
        "redis:///0",
        "redis://:hunter2@localhost:port/0",
        "redis://:hunter2@localhost:0/0",
        "redis://localhost/hunter2",
        "hunter2",
    ],
)
def test_bad_engine_url_is_never_shown(env_file: Path, url: str) -> None:
    told = fault(env_file, ENGINE_URL=url)
    assert told.startswith("ENGINE_URL: its value is not allowed. Allowed: sqlite:///relative/path, ")
    assert "hunter2" not in told
    assert "mysql" not in told


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "sqlite:///data/chat.db",
        "sqlite:////var/lib/chat.db",
        "redis://localhost",
        "redis://localhost:6379/0",
        "rediss://ada:secret@[::1]:6380/1?ssl_cert_reqs=none",
    ],
)
def test_known_engine_urls_pass(env_file: Path, url: str) -> None:
    assert load_settings({"ENGINE_URL": url}, env_file).engine_url == url


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"WS_HEARTBEAT_INTERVAL": "60", "WS_HEARTBEAT_TIMEOUT": "60"}, "WS_HEARTBEAT_TIMEOUT WS_HEARTBEAT_INTERVAL"),
        ({"WS_SEND_BUFFER": "65536", "MAX_MESSAGE_LENGTH": "10000"}, "WS_SEND_BUFFER MAX_MESSAGE_LENGTH"),
    ],
)
def test_values_that_do_not_fit_together_name_both_variables(
    env_file: Path, variables: dict[str, str], names: str
) -> None:
    told = fault(env_file, **variables)
    assert all(name in told for name in names.split())


def test_all_faults_are_listed_each_on_its_own_line(env_file: Path) -> None:
    told = fault(env_file, PORT="x", DEBUG="x", LOG_LEVEL="x", CORS_ORIGINS="x,y")
    assert sorted(line.partition(":")[0] for line in told.splitlines()) == [
        "CORS_ORIGINS",
        "DEBUG",
        "LOG_LEVEL",
        "PORT",
    ]


def test_control_characters_in_a_bad_value_are_escaped(env_file: Path) -> None:
    assert len(fault(env_file, PORT="1\n2\x1b[31m").splitlines()) == 1
    assert "\x1b" not in fault(env_file, PORT="1\n2\x1b[31m")


def test_env_file_that_is_not_utf8_is_named(env_file: Path) -> None:
    env_file.write_bytes(b"APP_NAME=Gr\xf6\xdfe\n")
    assert fault(env_file) == f"{env_file} can't be read (UnicodeDecodeError). It must be a UTF-8 text file."


def test_env_file_that_cannot_be_read_is_named(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> dict[str, str | None]:
        raise PermissionError(13, "Permission denied")

    env_file.write_text("PORT=1")
    monkeypatch.setattr(dotenv, "dotenv_values", refuse)
    assert fault(env_file).startswith(f"{env_file} can't be read (PermissionError).")


def test_settings_cannot_be_changed_or_invented() -> None:
    with pytest.raises(ValueError):
        Settings().port = 1
    with pytest.raises(ValueError):
        Settings.model_validate({"prot": 1})


def test_every_setting_has_a_sentence_of_help() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
