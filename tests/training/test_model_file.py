"""Users' Python files, right and wrong; what is wrong is said with the line."""

from __future__ import annotations

import sys

import pytest

from mlaas4hep.errors import ModelFileError
from mlaas4hep.training.frameworks.base import Task
from mlaas4hep.training.model_file import call_model, load_model_function


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="my_model.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


def test_the_function_gets_the_number_of_features_and_of_classes_if_it_asks(write):
    plain = load_model_function(write("def model(idim):\n    return ('plain', idim)\n"))
    assert call_model(plain, Task(125, 3), "f") == ("plain", 125)
    more = load_model_function(write("def model(idim, classes):\n    return ('more', idim, classes)\n"))
    assert call_model(more, Task(125, 3), "f") == ("more", 125, 3)


def test_a_file_imports_what_lies_beside_it_and_leaves_the_path_as_it_was(write):
    write("SIZE = 7\n", "layers_beside_it.py")
    before = list(sys.path)
    function = load_model_function(
        write("import layers_beside_it\n\ndef model(idim):\n    return layers_beside_it.SIZE\n")
    )
    assert call_model(function, Task(1, 2), "f") == 7
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def model(idim:\n    return 1\n", "line 1: '\\(' was never closed"),
        ("\n\nimport no_such_package_anywhere\n", "line 3: ModuleNotFoundError: No module named"),
        ("x = 1\ny = x / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(1)\n", "line 1: SystemExit: 1"),
        ("def modell(idim):\n    return 1\n", "defines no function 'model'.*nearest: 'modell'"),
        ("model = 7\n", "defines no function 'model'"),
        ("", "defines no function 'model'"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(write, text, said):
    path = write(text)
    with pytest.raises(ModelFileError, match=said) as caught:
        load_model_function(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def model():\n    return 1\n", r"model\(\) must be model\(idim\): too many positional"),
        ("def model(idim, depth):\n    return 1\n", r"model\(idim, depth\) must be model\(idim\): missing"),
        ("def model(idim):\n    scale = 1\n    return idim / (scale - 1)\n", "line 3: ZeroDivisionError"),
        ("import torch\n\ndef model(idim):\n    return torch.nn.Linear(idim, -1)\n", "line 4: RuntimeError"),
        ("def model(idim):\n    raise ValueError\n", "line 2: ValueError$"),
    ],
)
def test_a_function_that_fails_is_said_with_the_line_that_failed(write, text, said):
    path = write(text)
    with pytest.raises(ModelFileError, match=said):
        call_model(load_model_function(path), Task(5, 2), str(path))


def test_a_syntax_error_in_a_file_beside_it_names_that_file(write):
    write("def broken(:\n", "broken_beside_it.py")
    with pytest.raises(ModelFileError, match=r"broken_beside_it\.py, line 1"):
        load_model_function(write("import broken_beside_it\n"))


@pytest.mark.parametrize("name", ["no_such_file.py", "model.txt"])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "model.txt").write_text("def model(idim): return 1")
    with pytest.raises(ModelFileError, match=r"there is no such file|must end in \.py"):
        load_model_function(tmp_path / name)
