"""The completed graph against plain numpy, on frameworks' graphs written by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from mlaas4hep.bundle.graph import Output, complete_graph
from mlaas4hep.errors import BundleError
from mlaas4hep.streaming.encoding.block import KernelPlan, pack
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.encoding.objects import Collection
from mlaas4hep.streaming.formats.base import Column

FLOAT32 = st.floats(width=32, allow_nan=True, allow_infinity=True)


def framework_graph(nodes, width, columns, weights=None, inputs=("x",), opset=18, shape=None, kind=TensorProto.FLOAT):
    types = {"x": TensorProto.FLOAT, "mask": TensorProto.BOOL}
    graph = helper.make_graph(
        nodes,
        "framework",
        [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), ["n", width]) for name in inputs],
        [helper.make_tensor_value_info("output", kind, shape or ["n", columns])],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString()


def run(graph, raw):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["features"]
    return session.run(None, {"features": raw})[0]


def same_scaling(width):
    return Encoding(tuple(Feature(f"b{place}", False, 1, shift=0.5, scale=2.0) for place in range(width)))


def columns_as_they_are(width, mask=False):
    """A framework's graph whose output is what reaches it."""
    if mask:
        return framework_graph(
            [helper.make_node("Cast", ["mask"], ["output"], to=1)], width, width, inputs=("x", "mask")
        )
    return framework_graph([helper.make_node("Identity", ["x"], ["output"])], width, width)


@st.composite
def encodings(draw):
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    count = draw(st.integers(2, 5))
    return Encoding(
        tuple(
            Feature(f"b{i}", True, draw(st.integers(1, 3)), shift=draw(finite), scale=draw(finite))
            for i in range(count)
        )
    )


@given(data=st.data(), encoding=encodings(), rows=st.integers(0, 5))
def test_the_graph_scales_as_the_encoding_does_to_the_bit(data, encoding, rows):
    raw = data.draw(arrays.arrays(np.float32, (rows, encoding.width), elements=FLOAT32))
    with np.errstate(all="ignore"):
        expected, absent = encoding.scale_raw(raw)
    values = run(
        complete_graph(columns_as_they_are(encoding.width), encoding, Output.PROBABILITIES, encoding.width), raw
    )
    finite = ~np.isnan(expected)  # 0 × overflow is NaN, whose bits mean nothing
    plain = np.float32(0)  # added to both: ONNX Runtime's Where makes 0 of -0
    assert np.array_equal((values + plain).view(np.uint32)[finite], (expected + plain).view(np.uint32)[finite])
    assert np.isnan(values[~finite]).all()
    masks = run(
        complete_graph(columns_as_they_are(encoding.width, mask=True), encoding, Output.PROBABILITIES, encoding.width),
        raw,
    )
    assert np.array_equal(masks, absent.astype(np.float32))


@st.composite
def whole_encodings(draw):
    """Logarithms, clips and objects, with the scales that statistics give."""
    width = draw(st.integers(1, 3))
    together = draw(st.integers(1, 3))
    bounds = st.none() | st.sampled_from([(-2.0, 2.5), (-np.inf, 1.0), (0.0, np.inf)])
    features = tuple(
        Feature(
            f"b{i}",
            True,
            width,
            draw(st.floats(-50, 50, width=32)),
            draw(st.floats(2**-7, 8, width=32)),
            draw(st.sampled_from(["linear", "log"])),
            draw(st.floats(0, 2)),
            draw(st.floats(0.5, 4)),
            draw(bounds),
        )
        for i in range(together + draw(st.integers(1, 2)))
    )
    members = tuple(feature.branch for feature in features[-together:])
    return Encoding(features, draw(st.sampled_from(["flat", "objects"])), (Collection("b", members),))


@given(encoding=whole_encodings(), seed=st.integers(0, 2**32 - 1))
def test_graph_kernel_and_numpy_agree_on_logarithms_clips_and_objects(encoding, seed):
    generator = np.random.default_rng(seed)
    events = 20
    counts = {f.branch: generator.integers(0, f.width + 2, events) for f in encoding.features}
    shared = counts[encoding.collections[0].members[0]]
    counts.update(dict.fromkeys(encoding.collections[0].members, shared))
    columns = {}
    for name, sizes in counts.items():
        content = generator.standard_cauchy(sizes.sum()).astype(np.float32) * 30
        content[generator.random(len(content)) < 0.1] = generator.choice([np.nan, np.inf, -np.inf, 0])
        columns[name] = Column(content, np.concatenate([[0], np.cumsum(sizes)]))
    block = pack(columns, encoding, events)
    everything = np.arange(events)
    x, raw = np.empty((2, events, encoding.width), np.float32)
    mask, raw_mask = np.empty((2, events, encoding.width), np.bool_)
    block.encode(KernelPlan(encoding), everything, everything, x, mask)
    block.encode(KernelPlan(encoding, scaled=False), everything, everything, raw, raw_mask)
    plain, absent = encoding.scale_raw(raw)
    graph = run(
        complete_graph(columns_as_they_are(encoding.width), encoding, Output.PROBABILITIES, encoding.width), raw
    )
    for other in (plain, graph):
        np.testing.assert_allclose(other, x, rtol=3e-7, atol=1e-7)
    np.testing.assert_array_equal(mask, absent)
    np.testing.assert_array_equal(mask, raw_mask)


def test_a_graph_without_logarithms_and_clips_has_no_node_for_them():
    def operators(feature):
        graph = complete_graph(
            columns_as_they_are(2), Encoding((feature, Feature("b", False, 1))), Output.PROBABILITIES, 2
        )
        return [node.op_type for node in onnx.load_model_from_string(graph).graph.node]

    linear = ["Abs", "LessOrEqual", "Sub", "Mul", "Where", "Identity", "Identity"]
    assert operators(Feature("a", False, 1)) == linear
    assert operators(Feature("a", False, 1, clip=(0.0, 1.0))) == [*linear[:4], "Max", "Min", *linear[4:]]
    logarithm = ["Max", "Cast", "Add", "Log", "Sub", "Mul", "Cast", "Where"]
    assert operators(Feature("a", False, 1, transform="log")) == [*linear[:4], *logarithm, *linear[4:]]


def one_column(shape=None):
    """A framework's graph whose only output is the sum of the scaled values."""
    keep = 0 if shape and len(shape) == 1 else 1
    node = helper.make_node("ReduceSum", ["x"], ["total"], keepdims=1)
    axes = {"axes": np.array([1], np.int64)}
    node = helper.make_node("ReduceSum", ["x", "axes"], ["output"], keepdims=keep)
    return framework_graph([node], 3, 1, axes, shape=shape)


RAW = np.array([[0.1, 0.7, np.nan], [2.0, -1.0, 0.5], [np.inf, np.nan, -np.inf]], np.float32)
SCALED = np.where(np.isfinite(RAW), (RAW - np.float32(0.5)) * 2, 0).astype(np.float32)


@pytest.mark.parametrize("shape", [["n", 1], ["n"]])
def test_a_single_logit_becomes_two_probabilities(shape):
    got = run(complete_graph(one_column(shape), same_scaling(3), Output.LOGITS, 2), RAW)
    second = 1 / (1 + np.exp(-SCALED.sum(axis=1)))
    assert got.dtype == np.float32
    assert got == pytest.approx(np.stack([1 - second, second], axis=1), abs=1e-6)


def test_a_single_probability_becomes_two():
    got = run(complete_graph(one_column(), same_scaling(3), Output.PROBABILITIES, 2), RAW)
    assert got == pytest.approx(np.stack([1 - SCALED.sum(axis=1), SCALED.sum(axis=1)], axis=1), abs=1e-6)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Output.LOGITS, np.exp(SCALED) / np.exp(SCALED).sum(axis=1, keepdims=True)),
        (Output.PROBABILITIES, SCALED),
        (Output.LOG_PROBABILITIES, np.exp(SCALED)),
    ],
)
def test_one_output_a_class_becomes_one_probability_a_class(output, expected):
    got = run(complete_graph(columns_as_they_are(3), same_scaling(3), output, 3), RAW)
    assert got == pytest.approx(expected, abs=1e-6)


def test_a_reconstruction_becomes_the_mean_squared_error_over_present_places():
    half = framework_graph([helper.make_node("Mul", ["x", "w"], ["output"])], 3, 3, {"w": np.array([0.5], np.float32)})
    graph = complete_graph(half, same_scaling(3), Output.RECONSTRUCTION, 1)
    assert [value.name for value in onnx.load_model_from_string(graph).graph.output] == ["values"]
    # rows with two, three and no present places; the error of each place is half its scaled value
    expected = [((SCALED[0, :2] / 2) ** 2).mean(), ((SCALED[1] / 2) ** 2).mean(), 0.0]
    assert run(graph, RAW)[:, 0] == pytest.approx(expected, rel=1e-6)


def test_an_output_in_double_precision_comes_out_in_single():
    double = framework_graph([helper.make_node("Cast", ["x"], ["output"], to=11)], 3, 3, kind=TensorProto.DOUBLE)
    got = run(complete_graph(double, same_scaling(3), Output.PROBABILITIES, 3), RAW)
    assert got.dtype == np.float32
    assert np.array_equal(got, SCALED)


def test_names_of_the_framework_may_be_those_that_we_use():
    nodes = [
        helper.make_node("Add", ["features", "shift"], ["present"]),
        helper.make_node("Mul", ["present", "zero"], ["output"]),
    ]
    weights = {"shift": np.ones(1, np.float32), "zero": np.full(1, 3, np.float32)}
    graph = complete_graph(
        framework_graph(nodes, 3, 3, weights, inputs=("features",)), same_scaling(3), Output.PROBABILITIES, 3
    )
    assert run(graph, RAW) == pytest.approx((SCALED + 1) * 3, rel=1e-6)


def test_functions_are_inlined_and_notes_of_the_exporter_removed():
    model = onnx.load_model_from_string(columns_as_they_are(3))
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[0].CopyFrom(helper.make_node("Twice", ["x"], ["output"], domain="own"))
    model.graph.node[0].doc_string = "File '/somebody/private.py', line 3"
    model.graph.node[0].metadata_props.add(key="trace", value="/somebody/private.py")
    graph = complete_graph(model.SerializeToString(), same_scaling(3), Output.PROBABILITIES, 3)
    assert not onnx.load_model_from_string(graph).functions
    assert b"private.py" not in graph
    assert run(graph, RAW) == pytest.approx(SCALED * 2)


def test_the_oldest_ir_version_of_its_operator_set_is_written():
    model = onnx.load_model_from_string(
        complete_graph(columns_as_they_are(3), same_scaling(3), Output.PROBABILITIES, 3)
    )
    assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (8, [("", 18)])


@pytest.mark.parametrize(
    ("graph", "output", "classes", "said"),
    [
        (b"not a graph", Output.LOGITS, 2, "not ONNX"),
        (columns_as_they_are(3), Output.LOGITS, 4, "3 wide; for 4 classes it must be 4 wide"),
        (columns_as_they_are(3), Output.LOGITS, 2, "3 wide; for 2 classes it must be 1 or 2 wide"),
        (one_column(), Output.RECONSTRUCTION, 1, "as wide as the 3 features"),
        (
            framework_graph([helper.make_node("Identity", ["x"], ["output"])], 3, 3, opset=12),
            Output.LOGITS,
            3,
            "set is 12",
        ),
        (framework_graph([helper.make_node("Identity", ["x"], ["output"])], 4, 4), Output.LOGITS, 4, "not valid"),
    ],
)
def test_a_graph_of_another_form_is_refused_with_what_would_be_right(graph, output, classes, said):
    with pytest.raises(BundleError, match=said):
        complete_graph(graph, same_scaling(3), output, classes)
