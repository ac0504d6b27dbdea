"""Sessions that are opened, and what cannot be executed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from mlaas4hep.bundle.session import open_session
from mlaas4hep.errors import BundleError

from .conftest import WEIGHTS, linear_graph


def test_a_graph_is_executed_from_bytes_and_from_a_file_alike(tmp_path):
    (tmp_path / "model.onnx").write_bytes(linear_graph())
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for model in (linear_graph(), tmp_path / "model.onnx"):
        assert open_session(model).run(None, {"x": x})[0] == pytest.approx(x @ WEIGHTS, abs=1e-6)


def test_one_thread_executes_it():
    options = open_session(linear_graph()).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("damage", ["cut", "operator", "missing"])
def test_what_cannot_be_executed_is_said_in_one_line(tmp_path, damage, capfd):
    path = tmp_path / "model.onnx"
    if damage == "cut":
        path.write_bytes(linear_graph()[:50])
    elif damage == "operator":
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("a", "b")]
        graph = helper.make_graph(
            [helper.make_node("Mystery", ["a"], ["b"], domain="else.where")], "g", value[:1], value[1:]
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("else.where", 1)]
        path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    with pytest.raises(BundleError, match="ONNX Runtime cannot execute it: ") as caught:
        open_session(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
