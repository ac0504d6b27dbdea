"""Settings of the server, also from a config.json of TFaaS: what is not there yet is refused, never passed over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mlaas4hep.errors import SettingError
from mlaas4hep.inference.settings import ServerSettings

SAMPLE = {
    "port": 8083,
    "modelDir": "models",
    "staticDir": "static",
    "configProto": "",
    "base": "",
    "serverKey": "",
    "serverCrt": "",
    "verbose": 1,
}


def read(tmp_path: Path, config: Any, **overrides: Any) -> ServerSettings:
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return ServerSettings.from_config(tmp_path / "config.json", **overrides)


def test_the_sample_of_tfaas_is_accepted_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = read(tmp_path, SAMPLE)
    assert (settings.port, settings.models, settings.base, settings.verbose) == (8083, Path("models"), "", 1)
    assert "'staticDir'" in caplog.text
    assert "is not used" in caplog.text


def test_every_setting_that_is_there_is_taken_and_overrides_win(tmp_path: Path) -> None:
    config = {
        **SAMPLE,
        "port": 9000,
        "base": "/tfaas/",
        "cacheLimit": 3,
        "logFile": "a.log",
        "monitRecord": False,
        "rate": "",
    }
    settings = read(tmp_path, config, port=0, host=None)
    assert (settings.port, settings.base, settings.cache_limit, settings.log_file) == (0, "/tfaas", 3, Path("a.log"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"serverKey": "key.pem"},
            "setting 'serverKey' must be left empty, since HTTPS is not served yet; got 'key.pem'",
        ),
        ({"serverCrt": "crt.pem"}, "setting 'serverCrt' must be left empty"),
        ({"rate": "100-S"}, "setting 'rate' must be left empty, since requests are not limited by rate yet"),
        ({"monitRecord": True}, "setting 'monitRecord' must be left empty"),
        ({"configProto": "x.pb"}, "setting 'configProto' must be left empty"),
        ({"modeldir": "x"}, "setting 'modeldir' must be a known one, such as 'modelDir'"),
        ({"port": "8083"}, "setting 'port' must be an integer from 0 to 65535; got '8083'"),
        ({"port": 99999}, "setting 'port' must be an integer from 0 to 65535; got 99999"),
        ({"verbose": 7}, "setting 'verbose' must be an integer from 0 to 2; got 7"),
        ({"verbose": False}, "setting 'verbose' must be an integer from 0 to 2; got False"),
        ({"cacheLimit": 0}, "setting 'cacheLimit' must be an integer ≥ 1; got 0"),
        ({"base": "a b"}, "setting 'base' must be a path of letters"),
        ({"base": 7}, "setting 'base' must be a string; got 7"),
        ({"modelDir": ""}, "setting 'modelDir' must be the folder of the models"),
        ({"modelDir": ["a"]}, "setting 'modelDir' must be a string"),
    ],
)
def test_what_is_wrong_or_not_there_yet_is_named_with_its_file(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=re.escape(message)) as caught:
        read(tmp_path, {**SAMPLE, **change})
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("config", ["", "{", "[]", "null"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, config: str) -> None:
    with pytest.raises(SettingError, match="setting 'config' must be a JSON"):
        read(tmp_path, config)
    with pytest.raises(SettingError, match="setting 'config' must be a file that can be read"):
        ServerSettings.from_config(tmp_path / "nothing.json")


def test_settings_survive_the_way_to_another_process(tmp_path: Path) -> None:
    settings = ServerSettings(tmp_path, port=0, base="a/b", log_file=tmp_path / "log", queue_rows=7)
    assert ServerSettings.from_json(settings.to_json()) == settings
    assert ServerSettings.from_json(ServerSettings(tmp_path).to_json()) == ServerSettings(tmp_path)
