"""The wire contract of TFaaS, with curl as its documentation has it and with the bytes of its own Python client."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.inference.conftest import (
    ServerStarter,
    curl,
    expected_probabilities,
    sum_graph,
    write_bundle,
    write_plain_model,
)

from mlaas4hep.bundle.archive import pack
from mlaas4hep.inference.client import TFaaSClient
from mlaas4hep.inference.server import ServerProcess, serve_in_process

ROW = {"keys": ["MET_phi", "MET_pt", "nJet", "Jet_pt"], "values": [1.0, 30.0, 2, [50.0, 40.0]], "model": "higgs"}
ANSWER = expected_probabilities(np.array([[1, 30, 2, np.nan, np.nan, 50, 40, np.nan]], np.float32))[0]
PARAMS_KEYS = {
    "name",
    "model",
    "labels",
    "op",
    "input_name",
    "output_name",
    "img_channels",
    "options",
    "input_node",
    "output_node",
    "description",
    "timestamp",
}


def write_models(folder: Path) -> Path:
    """A folder with a bundle and a model of somebody else, put there by hand."""
    write_bundle(folder / "higgs" / "1", name="higgs")
    write_plain_model(folder / "sum", sum_graph())
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_models(tmp_path / "models")


@pytest.fixture
def own_server(models: Path, start_server: ServerStarter) -> ServerProcess:
    """A server for a test that changes something."""
    return start_server(models=models)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests that only ask."""
    with serve_in_process(write_models(tmp_path_factory.mktemp("shared") / "models")) as running:
        yield running


def error_of(body: str) -> str:
    document = json.loads(body)
    assert list(document) == ["error"]
    return str(document["error"])


def send(
    url: str, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    answer = response.status, response.read(), dict(response.getheaders())
    connection.close()
    return answer


# ---- reading


def test_models_are_listed_in_name_order_with_every_key(server: ServerProcess) -> None:
    status, body = curl(f"{server.url}/models")
    listed = json.loads(body)
    assert (status, [model["name"] for model in listed]) == (200, ["higgs", "sum"])
    assert all(set(model) >= PARAMS_KEYS for model in listed)
    assert listed[1]["options"] == []
    assert listed[1]["img_channels"] == 0


def test_no_models_are_an_empty_list(start_server: ServerStarter) -> None:
    assert curl(f"{start_server().url}/models") == (200, "[]")


def test_one_model_and_its_stored_parameters_are_answered(server: ServerProcess) -> None:
    assert json.loads(curl(f"{server.url}/models/sum")[1])["name"] == "sum"
    assert curl(f"{server.url}/params/sum") == (200, (server.settings.models / "sum" / "params.json").read_text())


def test_old_spellings_are_listed_in_the_new_ones_and_kept(models: Path, start_server: ServerStarter) -> None:
    old = {"inputNode": "x", "outputNode": "y", "imgChannels": 3, "options": None, "extra": [1]}
    write_plain_model(models / "old", sum_graph(), **old)
    listed = json.loads(curl(f"{start_server(models=models).url}/models/old")[1])
    assert (listed["input_node"], listed["output_node"], listed["img_channels"]) == ("x", "y", 3)
    assert (listed["inputNode"], listed["imgChannels"], listed["options"], listed["extra"]) == ("x", 3, [], [1])


def test_the_status_has_the_shape_of_the_original(own_server: ServerProcess) -> None:
    curl(f"{own_server.url}/json", "-d", json.dumps(ROW))
    status, body = curl(f"{own_server.url}/status")
    state = json.loads(body)
    assert status == 200
    assert {"CPU", "Load", "Memory", "NGo", "Uptime", "getRequests", "postRequests"} <= set(state)
    assert set(state["Load"]) == {"load1", "load5", "load15"}
    assert set(state["Memory"]["Virtual"]) == {"total", "free", "used", "usedPercent"} == set(state["Memory"]["Swap"])
    assert (state["getRequests"], state["postRequests"]) == (1, 1)
    assert (state["models"]["higgs"]["requests"], state["models"]["higgs"]["rows"]) == (1, 1)


@pytest.mark.parametrize("path", ["/models/", "/params/sum/", "/status/", "/models/sum/"])
def test_a_slash_at_the_end_is_accepted(server: ServerProcess, path: str) -> None:
    assert curl(server.url + path)[0] == 200


def test_all_paths_move_under_the_base(models: Path, start_server: ServerStarter) -> None:
    server = start_server(models=models, base="tfaas/v1")
    assert server.url.endswith("/tfaas/v1")
    assert curl(f"{server.url}/models")[0] == 200
    assert curl(f"{server.url}/json", "-d", json.dumps(ROW))[0] == 200
    assert curl(server.url)[0] == 200
    for path in ("/models", "/tfaas/v1x/models", "/tfaas"):
        status, body = curl(server.url.removesuffix("/tfaas/v1") + path)
        assert (status, error_of(body)) == (404, "all paths begin with /tfaas/v1")


def test_an_unknown_path_says_what_there_is_and_a_wrong_method_says_which_is_right(server: ServerProcess) -> None:
    for path in ("/proto", "/image", "/netron", "/data", "/x"):
        status, body = curl(server.url + path, "-X", "POST")
        assert status == 404
        assert "/predict/json" in error_of(body)
        assert "/models/{name}" in error_of(body)
    for method, path, allowed in (("GET", "/json", "POST"), ("POST", "/models", "GET"), ("GET", "/delete", "DELETE")):
        status, answer, headers = send(server.url, method, path)
        assert (status, allowed in headers["allow"]) == (405, True)
        assert error_of(answer.decode())


def test_the_icon_is_there(server: ServerProcess) -> None:
    status, body = curl(f"{server.url}/favicon.ico")
    assert status == 200
    assert body.startswith("<svg")


# ---- predicting


@pytest.mark.parametrize("path", ["/json", "/predict/json", "/json/"])
def test_a_prediction_is_the_first_row_of_the_answer(server: ServerProcess, path: str) -> None:
    """curl's -d says that the body is a form; the original's Python client does so too."""
    status, body = curl(server.url + path, "-d", json.dumps(ROW))
    assert status == 200
    assert json.loads(body) == pytest.approx(ANSWER, abs=1e-6)


def test_the_documented_curl_line_predicts(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(json.dumps(ROW))
    status, body = curl(
        "-s",
        "-X",
        "POST",
        "-H",
        "Content-type: application/json",
        f"-d@{tmp_path / 'input.json'}",
        f"{server.url}/json",
    )
    assert (status, json.loads(body)) == (200, pytest.approx(ANSWER, abs=1e-6))


def test_rows_names_in_any_case_alias_and_compression_are_served(server: ServerProcess) -> None:
    client = TFaaSClient(server.url)
    many = client.predict(keys=ROW["keys"], rows=[ROW["values"]] * 3, model="higgs")
    assert many == [pytest.approx(ANSWER, abs=1e-6)] * 3
    assert client.predict(rows=[], model="sum") == []
    assert json.loads(curl(f"{server.url}/json", "-d", '{"VALUES": [1, 2, 3], "Name": "sum"}')[1]) == [6]
    packed = gzip.compress(json.dumps(ROW).encode())
    status, body, _ = send(server.url, "POST", "/json", packed, Content_Encoding="gzip")
    assert (status, json.loads(body)) == (200, pytest.approx(ANSWER, abs=1e-6))


def test_a_row_of_null_is_absent_everywhere(server: ServerProcess) -> None:
    absent = expected_probabilities(np.full((1, 8), np.nan, np.float32))[0]
    assert TFaaSClient(server.url).predict(values=[None] * 8, model="higgs") == pytest.approx(absent, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "higs"}, 404, "no model 'higs'; nearest: 'higgs'"),
        ({"model": "../../etc/passwd"}, 400, "is not accepted"),
        ({"model": None}, 400, "names no model, and the server has no default one"),
        (
            {"keys": ["MET_phi", "met_pt", "nJet", "Jet_pt"]},
            422,
            "missing: 'MET_pt'; not known: 'met_pt' (nearest: 'MET_pt'",
        ),
        ({"values": [1, 2]}, 422, "there are 4 keys and 2 values"),
        ({"keys": None, "values": [1, 2]}, 422, "model 'higgs' needs 8 values; got 2"),
        ({"values": [1, "2", 3, []]}, 422, "must be one number or null; got '2'"),
        ({"values": [1, 1e300, 3, []]}, 422, "'MET_pt' is beyond the range of float32"),
        ({"values": "1,2"}, 400, "'values' must be a list of numbers"),
    ],
)
def test_a_request_that_does_not_fit_is_answered_with_the_reason(
    server: ServerProcess, change: dict[str, Any], status: int, message: str
) -> None:
    answered, body = curl(f"{server.url}/json", "-d", json.dumps({**ROW, **change}))
    assert answered == status
    assert message in error_of(body)


def test_the_default_model_answers_requests_without_one(
    own_server: ServerProcess, models: Path, start_server: ServerStarter
) -> None:
    assert curl(f"{own_server.url}/params")[0] == 400
    assert curl(f"{own_server.url}/params", "-d", '{"name": "sum", "model": "model.onnx"}') == (200, "")
    assert json.loads(curl(f"{own_server.url}/json", "-d", '{"values": [1, 2, 3]}')[1]) == [6]
    assert json.loads(curl(f"{own_server.url}/params")[1])["name"] == "sum"
    other = start_server(models=models)
    assert json.loads(curl(f"{other.url}/json", "-d", '{"values": [1, 2, 3]}')[1]) == [6]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ('{"name": "nothing"}', 404, "no model 'nothing'"),
        ('{"model": "model.onnx"}', 400, "no 'name'"),
        ('{"name": "sum", "model": "/etc/passwd"}', 422, "without a folder"),
        ('{"name": "sum", "labels": "../higgs/1/labels.txt"}', 422, "without a folder"),
        ('{"name": "sum", "labels": "labels.txt"}', 422, "has no file 'labels.txt'"),
        ('{"name": 7}', 422, "'name' must be a string"),
        ("[]", 400, "must be a JSON object"),
    ],
)
def test_a_default_that_cannot_be_is_refused(server: ServerProcess, body: str, status: int, message: str) -> None:
    answered, answer = curl(f"{server.url}/params", "-d", body)
    assert (answered, message in error_of(answer)) == (status, True)


# ---- uploading


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The files of a model 'tau' for an upload by form."""
    folder = write_bundle(tmp_path / "parts", name="tau", input_name="")
    (folder / "encoding.json").unlink()
    return folder


def test_the_documented_curl_form_uploads_a_model_and_makes_it_the_default(
    start_server: ServerStarter, parts: Path
) -> None:
    url = start_server().url
    form = [
        f"-F{field}=@{parts / name}"
        for field, name in (("params", "params.json"), ("model", "model.onnx"), ("labels", "labels.txt"))
    ]
    assert curl("-X", "POST", f"{url}/upload", "-F", "name=tau", *form) == (200, "")
    (listed,) = json.loads(curl(f"{url}/models")[1])
    assert (listed["name"], listed["labels"], listed["timestamp"] != "") == ("tau", "labels.txt", True)
    assert json.loads(curl(f"{url}/json", "-d", '{"values": [1,2,3,4,5,6,7,8]}')[1]) == pytest.approx(
        expected_probabilities(np.arange(1, 9, dtype=np.float32)[None])[0], abs=1e-6
    )


def original_form(
    fields: dict[str, str], files: list[tuple[str, str, str, bytes]], boundary: str = "127.0.0.1.0.1.1.1"
) -> bytes:
    """The body that the original's Python client makes: octet streams are base64 with a newline, other files are plain."""
    lines: list[bytes] = []
    for name, value in fields.items():
        lines += [
            f"--{boundary}".encode(),
            f'Content-Disposition: form-data; name="{name}"'.encode(),
            b"",
            value.encode(),
        ]
    for name, file, kind, content in files:
        body = base64.b64encode(content) + b"\n" if kind == "application/octet-stream" else content
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{file}"'
        lines += [f"--{boundary}".encode(), disposition.encode(), f"Content-Type: {kind}".encode(), b"", body]
    return b"\r\n".join([*lines, f"--{boundary}--".encode(), b""])


def original_upload(
    url: str, parts: Path, labels: bytes, labels_kind: str = "text/plain"
) -> tuple[int, bytes, dict[str, str]]:
    files = [
        ("model", "/home/anna/model.onnx", "application/octet-stream", (parts / "model.onnx").read_bytes()),
        ("params", "/home/anna/params.json", "application/json", (parts / "params.json").read_bytes()),
        ("labels", "/home/anna/labels.txt", labels_kind, labels),
    ]
    body = original_form({"name": "tau"}, files)
    kind = "multipart/form-data; boundary=127.0.0.1.0.1.1.1"
    return send(
        url,
        "POST",
        "/upload",
        body,
        Content_Type=kind,
        Content_Encoding="base64",
        User_Agent="tfaas-client/1.1::python/2.7 (anna)",
    )


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream"])
def test_the_original_python_client_uploads_a_form(
    start_server: ServerStarter, parts: Path, tmp_path: Path, kind: str
) -> None:
    """'muon' is valid base64: a plain labels file must stay as it is."""
    url = start_server().url
    assert original_upload(url, parts, b"muon\ntaus", kind)[0] == 200
    assert (tmp_path / "models" / "tau" / "1" / "labels.txt").read_bytes() == b"muon\ntaus"
    assert (tmp_path / "models" / "tau" / "1" / "model.onnx").read_bytes() == (parts / "model.onnx").read_bytes()


def test_a_form_that_says_base64_and_is_not_is_refused(start_server: ServerStarter, parts: Path) -> None:
    body = original_form(
        {"name": "tau"}, [("params", "params.json", "application/json", (parts / "params.json").read_bytes())]
    )
    kind = "multipart/form-data; boundary=127.0.0.1.0.1.1.1"
    for content in (b"not base64!", b"YWJj\nYWJj", b"YWI=YWJj", b"YWJ"):
        disposition = b'Content-Disposition: form-data; name="model"; filename="m.onnx"'
        part = b"--127.0.0.1.0.1.1.1\r\n" + disposition + b"\r\nContent-Type: application/octet-stream\r\n\r\n"
        whole = part + content + b"\r\n" + body
        status, answer, _ = send(
            start_server().url, "POST", "/upload", whole, Content_Type=kind, Content_Encoding="base64"
        )
        assert (status, "not base64" in error_of(answer.decode())) == (400, True)


def test_the_original_python_client_uploads_a_bundle(start_server: ServerStarter, bundle: Path) -> None:
    url = start_server().url
    headers = {"Content_Encoding": "gzip", "Content_Type": "application/octet-stream"}
    assert send(url, "POST", "/upload", bundle.read_bytes(), **headers)[:2] == (200, b"")
    assert json.loads(curl(f"{url}/json", "-d", json.dumps(ROW))[1]) == pytest.approx(ANSWER, abs=1e-6)


@pytest.mark.parametrize("path", ["/bundle", "/upload"])
def test_the_documented_curl_line_uploads_a_bundle(start_server: ServerStarter, bundle: Path, path: str) -> None:
    url = start_server().url
    line = [
        "-H",
        "Content-Encoding: gzip",
        "-H",
        "content-type: application/octet-stream",
        "--data-binary",
        f"@{bundle}",
    ]
    assert curl("-X", "POST", *line, url + path) == (200, "")
    assert [model["name"] for model in json.loads(curl(f"{url}/models")[1])] == ["higgs"]


def test_a_plain_tar_said_to_be_gzip_is_read_for_what_it_is(start_server: ServerStarter, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "made" / "higgs")
    with tarfile.open(tmp_path / "plain.tar", "w") as tar:
        tar.add(folder, "./higgs")
    url = start_server().url
    assert curl("-H", "Content-Encoding: gzip", "--data-binary", f"@{tmp_path / 'plain.tar'}", f"{url}/upload") == (
        200,
        "",
    )
    assert len(json.loads(curl(f"{url}/models")[1])) == 1


def test_uploading_again_replaces_the_model_at_once(start_server: ServerStarter, tmp_path: Path) -> None:
    client = TFaaSClient(start_server().url)
    for seed in (1, 2, 3):
        client.upload_bundle(pack(write_bundle(tmp_path / str(seed) / "higgs", seed=seed), tmp_path / f"{seed}.tar.gz"))
        raw = np.array([[1, 30, 2, np.nan, np.nan, 50, 40, np.nan]], np.float32)
        assert client.predict(ROW) == pytest.approx(expected_probabilities(raw, seed=seed)[0], abs=1e-6)
    assert len(client.models()) == 1


@pytest.mark.parametrize(
    ("leave_out", "change", "status", "message"),
    [
        ("name", {}, 400, "request does not provide name"),
        ("params", {}, 400, "request does not provide params"),
        ("model", {}, 400, "request does not provide model"),
        ("labels", {}, 422, "'labels' is 'labels.txt', but there is no such file"),
        ("", {"name": "higgs"}, 422, "the form's name is 'higgs', but params.json says 'tau'"),
        ("", {"name": "../x"}, 400, "model name '../x' is not accepted"),
        (
            "",
            {"model": "{parts}/model.onnx;filename=other.onnx"},
            422,
            "'model' is 'model.onnx', but the file is 'other.onnx'",
        ),
        ("", {"model": "{parts}/model.onnx;filename=params.json"}, 400, "two files have the name 'params.json'"),
        ("", {"labels": "{parts}/labels.txt;filename=.."}, 400, "file name of labels is not accepted"),
        ("", {"model": "{parts}/labels.txt;filename=model.onnx"}, 422, "not an ONNX model"),
        ("", {"more": "{parts}/labels.txt"}, 400, "files 'more' are not known"),
    ],
)
def test_a_form_that_is_not_whole_is_refused_and_nothing_stays(
    start_server: ServerStarter, parts: Path, leave_out: str, change: dict[str, str], status: int, message: str
) -> None:
    url = start_server().url
    fields = {
        "name": "tau",
        "params": "{parts}/params.json",
        "model": "{parts}/model.onnx",
        "labels": "{parts}/labels.txt",
        **change,
    }
    form = [
        f"-F{field}={value if field == 'name' else '@' + value.format(parts=parts)}"
        for field, value in fields.items()
        if field != leave_out
    ]
    answered, body = curl(f"{url}/upload", *form)
    assert (answered, message in error_of(body)) == (status, True), body
    assert curl(f"{url}/models") == (200, "[]")


def test_a_file_name_with_folders_keeps_its_last_part(start_server: ServerStarter, parts: Path, tmp_path: Path) -> None:
    url = start_server().url
    files = [f"-Fparams=@{parts / 'params.json'}", f"-Flabels=@{parts / 'labels.txt'}"]
    model = f"-Fmodel=@{parts / 'model.onnx'};filename=../../../evil/model.onnx"
    assert curl(f"{url}/upload", "-Fname=tau", *files, model) == (200, "")
    assert (tmp_path / "models" / "tau" / "1" / "model.onnx").is_file()


def test_a_model_of_a_kind_that_is_not_served_is_refused(start_server: ServerStarter, tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text('{"name": "tau", "model": "m.pb"}')
    (tmp_path / "m.pb").write_bytes(b"graph")
    url = start_server().url
    status, body = curl(
        f"{url}/upload", "-Fname=tau", f"-Fparams=@{tmp_path / 'params.json'}", f"-Fmodel=@{tmp_path / 'm.pb'}"
    )
    assert (status, "'m.pb' is of a kind that is not served" in error_of(body)) == (422, True)


def test_a_bundle_that_is_not_accepted_leaves_nothing(start_server: ServerStarter, tmp_path: Path) -> None:
    url = start_server().url
    (tmp_path / "made" / "higgs").mkdir(parents=True)
    pack(tmp_path / "made" / "higgs", tmp_path / "empty.tar.gz")
    (tmp_path / "text").write_text("no archive" * 100)
    pack(write_bundle(tmp_path / "made" / "-name"), tmp_path / "name.tar.gz")
    for file, status, message in (
        ("empty.tar.gz", 422, "has no 'higgs/params.json'"),
        ("text", 422, "not a tar"),
        ("name.tar.gz", 400, "model name '-name' is not accepted"),
    ):
        answered, body = curl("--data-binary", f"@{tmp_path / file}", f"{url}/upload")
        assert (answered, message in error_of(body)) == (status, True)
        assert str(tmp_path) not in body
    assert curl("-F", "a=b", f"{url}/bundle")[0] == 415
    assert curl(f"{url}/models") == (200, "[]")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".mlaas4hep"]
    assert list((tmp_path / "models" / ".mlaas4hep" / "staging").iterdir()) == []


# ---- deleting


@pytest.mark.parametrize("how", ["form", "path", "query", "original"])
def test_a_model_is_deleted_in_each_way_and_again_without_complaint(own_server: ServerProcess, how: str) -> None:
    for _ in range(2):
        if how == "form":
            answer = curl("-X", "DELETE", "-F", "model=sum", f"{own_server.url}/delete")
        elif how == "path":
            answer = curl("-X", "DELETE", f"{own_server.url}/delete/sum")
        elif how == "query":
            answer = curl("-X", "DELETE", f"{own_server.url}/delete?model=sum")
        else:
            kind = "multipart/form-data; boundary=127.0.0.1.0.1.1.1"
            status, body, _ = send(
                own_server.url, "DELETE", "/delete", original_form({"model": "sum"}, []), Content_Type=kind
            )
            answer = status, body.decode()
        assert answer == (200, "")
        assert [model["name"] for model in json.loads(curl(f"{own_server.url}/models")[1])] == ["higgs"]


def test_deleting_without_a_name_or_with_a_hostile_one_is_refused(own_server: ServerProcess, models: Path) -> None:
    status, body = curl("-X", "DELETE", f"{own_server.url}/delete")
    assert (status, error_of(body)) == (400, "no model name is provided")
    for path in (
        "/delete/..%2f..",
        "/delete?model=../../x",
        "/delete/%2e%2e",
        "/delete/.mlaas4hep",
        "/delete?model=.",
        "/delete/a%0a",
    ):
        status, body = curl("--path-as-is", "-X", "DELETE", own_server.url + path)
        assert status in (400, 404), path
        assert error_of(body)
    assert (models / "higgs").is_dir()
    assert (models / ".mlaas4hep").is_dir()


@pytest.mark.parametrize("path", ["/models/{}", "/params/{}"])
@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc", "%2e%2e", "a%0a", "higgs%0a", "%00", "a%5cb", "%C3%A9", "a" * 129, "sum%2f1", "higgs%20"]
)
def test_hostile_names_are_refused_in_every_route(server: ServerProcess, path: str, name: str) -> None:
    status, body = curl("--path-as-is", server.url + path.format(name))
    assert status in (400, 404)
    assert error_of(body)


# ---- the page


def test_the_page_lists_the_models_with_inputs_and_links(server: ServerProcess) -> None:
    status, page, headers = send(server.url, "GET", "/")
    text = page.decode()
    assert status == 200
    for part in (
        "<h2>higgs",
        "<code>MET_pt</code>",
        "<code>Jet_pt[3]</code>",
        "<code>VBF</code>",
        'href="/params/sum"',
        "n × 3",
    ):
        assert part in text
    assert "script-src" not in headers["content-security-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert headers["x-content-type-options"] == "nosniff"


def test_nothing_of_a_model_becomes_markup(models: Path, start_server: ServerStarter) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    folder = write_bundle(models / "evil" / "1", name=evil, description=evil)
    (folder / "labels.txt").write_text(f"{evil}\nb\n")
    text = send(start_server(models=models).url, "GET", "/")[1].decode()
    assert "&lt;script&gt;" in text
    for part in ("<script", "<img"):
        assert part not in text


def test_the_page_of_no_models_says_how_to_upload_one(start_server: ServerStarter) -> None:
    server = start_server()
    assert f"tfaas_client.py --url={server.url} --bundle=model.tar.gz" in curl(server.url)[1]
