"""ONNX models: what is executed, and what is not even loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.inference.conftest import serialised, sum_graph, write_plain_model

from mlaas4hep.errors import BundleError
from mlaas4hep.inference import runtimes
from mlaas4hep.inference.model import Model
from mlaas4hep.inference.runtimes import RuntimeFailure


def load(tmp_path: Path, graph: bytes) -> Any:
    file = tmp_path / "model.onnx"
    file.write_bytes(graph)
    return runtimes.load(file)


def test_a_model_says_what_it_takes_and_answers(tmp_path: Path) -> None:
    runtime = load(tmp_path, sum_graph())
    assert [(t.name, t.dtype, t.shape) for t in (*runtime.inputs, *runtime.outputs)] == [
        ("x", np.float32, (None, 3)),
        ("y", np.float32, (None, 1)),
    ]
    assert runtime.run({"x": np.array([[1, 2, 3]], np.float32)}, ["y"])[0].tolist() == [[6]]
    with pytest.raises(RuntimeFailure):
        runtime.run({"x": np.zeros((1, 4), np.float32)}, ["y"])


def test_a_model_of_a_kind_that_is_not_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'model.pb' is of a kind that is not served; served are: \.onnx"):
        runtimes.load(tmp_path / "model.pb")


def custom(node: Any, *functions: Any) -> bytes:
    model = onnx.load_from_string(serialised([node], 3, {}))
    model.functions.extend(functions)
    if functions or node.domain:
        model.opset_import.append(helper.make_opsetid("evil.domain", 1))
    return bytes(model.SerializeToString())


def test_operators_of_other_domains_are_refused_also_inside_functions_and_branches(tmp_path: Path) -> None:
    evil = helper.make_node("Run", ["x"], ["y"], domain="evil.domain")
    with pytest.raises(ValueError, match=r"operator 'Run' of domain 'evil\.domain'"):
        load(tmp_path, custom(evil))
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Run", ["x"], ["b"], domain="evil.domain")], "branch", [], [out])
    conditional = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(ValueError, match=r"operator 'Run' of domain 'evil\.domain'"):
        load(tmp_path, custom(conditional))
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("evil.domain", 1)]
    inner = helper.make_node("Steal", ["a"], ["b"], domain="evil.domain")
    function = helper.make_function("evil.domain", "Run", ["a"], ["b"], [inner], opset)
    with pytest.raises(ValueError, match=r"operator 'Steal' of domain 'evil\.domain'"):
        load(tmp_path, custom(evil, function))


def test_functions_that_the_model_defines_are_fine(tmp_path: Path) -> None:
    opset = [helper.make_opsetid("", 18)]
    body = helper.make_node("ReduceSum", ["a"], ["b"], keepdims=1)
    function = helper.make_function("evil.domain", "Run", ["a"], ["b"], [body], opset)
    runtime = load(tmp_path, custom(helper.make_node("Run", ["x"], ["y"], domain="evil.domain"), function))
    assert runtime.run({"x": np.array([[1, 2, 3]], np.float32)}, ["y"])[0].tolist() == [[6]]


def outside_data(location: str, where: str = "initializer") -> bytes:
    tensor = numpy_helper.from_array(np.zeros((3, 1), np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = onnx.load_from_string(serialised(nodes, 3, {}))
    if where == "initializer":
        model.graph.initializer.append(tensor)
    else:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("where", ["initializer", "attribute"])
@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret.bin", "sub/data.bin", "missing.bin", "link.bin", ".hidden", ""]
)
def test_data_outside_the_folder_of_the_model_is_refused(tmp_path: Path, location: str, where: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ValueError, match="keeps data in"):
        load(folder, outside_data(location, where))


def test_data_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(np.array([1, 10, 100], np.float32).tobytes())
    runtime = load(tmp_path, outside_data("data.bin"))
    assert runtime.run({"x": np.array([[1, 2, 3]], np.float32)}, ["y"])[0].tolist() == [[321]]


@pytest.mark.parametrize("width", [1 << 40, 1 << 62])
def test_absurd_shapes_are_refused(tmp_path: Path, width: int) -> None:
    with pytest.raises(ValueError, match=r"absurd shape|cannot be loaded"):
        load(tmp_path, serialised([helper.make_node("Identity", ["x"], ["y"])], width, {}, outputs=width))


@pytest.mark.parametrize("seed", range(20))
def test_damaged_models_are_refused_or_run(tmp_path: Path, seed: int) -> None:
    graph = bytearray(sum_graph())
    generator = np.random.default_rng(seed)
    for place in generator.integers(0, len(graph), 5):
        graph[place] = generator.integers(0, 256)
    folder = write_plain_model(tmp_path / "m", bytes(graph))
    try:
        outcome = Model(folder).predict(np.ones((1, 3), np.float32)).shape[0]
    except BundleError as error:
        outcome = error.bundle
    assert outcome in (1, "m")


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (1, 5), (4, 3), (4, 4), (4, 9)])
def test_a_model_with_a_fixed_number_of_rows_answers_any_number(tmp_path: Path, batch: int, rows: int) -> None:
    model = Model(write_plain_model(tmp_path / "m", sum_graph(batch=batch)))
    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    assert model.predict(values).tolist() == values.sum(axis=1, keepdims=True).tolist()


def test_many_rows_are_run_in_slices(tmp_path: Path) -> None:
    model = Model(write_plain_model(tmp_path / "m", sum_graph()))
    values = np.ones((10_001, 3), np.float32)
    assert model.predict(values).tolist() == [[3.0]] * 10_001


def test_inputs_of_other_types_and_shapes_are_served(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f", "axes"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    model = Model(write_plain_model(tmp_path / "m", made))
    assert (model.width, model.predict(np.array([[1, 2, 3, 4]], np.float32)).tolist()) == (4, [[10.0]])


def test_a_model_with_two_inputs_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(serialised([helper.make_node("Add", ["x", "z"], ["y"])], 3, {}, outputs=3))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3]))
    with pytest.raises(BundleError, match="one input of rows of numbers is needed; its inputs: 'x', 'z'"):
        Model(write_plain_model(tmp_path / "m", model.SerializeToString()))


def test_params_choose_the_output_and_names_of_tensorflow_are_passed_over(tmp_path: Path) -> None:
    model = onnx.load_from_string(sum_graph())
    model.graph.node.append(helper.make_node("Neg", ["y"], ["minus"]))
    model.graph.output.append(helper.make_tensor_value_info("minus", TensorProto.FLOAT, ["n", 1]))
    graph = model.SerializeToString()
    row = np.array([[1, 2, 3]], np.float32)
    for number, (parameters, answer) in enumerate(
        [
            ({"output_name": "minus"}, -6),
            ({"outputNode": "minus"}, -6),
            ({"output_name": "StatefulPartitionedCall"}, 6),
            ({}, 6),
        ]
    ):
        chosen = Model(write_plain_model(tmp_path / f"m{number}", graph, **parameters))
        assert chosen.predict(row).tolist() == [[answer]]
