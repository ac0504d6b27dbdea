"""Scores for files: one row an entry, whatever was selected, interrupted or resumed."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import uproot
from onnx import TensorProto, helper, numpy_helper
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.bundle.graph import Output, complete_graph
from mlaas4hep.bundle.k_fold import KFold
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.bundle.writer import BundleContent, write_bundle
from mlaas4hep.errors import BranchTypeError, BundleError, SettingError, SourceError
from mlaas4hep.inference.predictor import predict_files
from mlaas4hep.streaming.splitting import Split, entry_identity, event_identity

MLAAS4HEP = Path(sys.executable).parent / "mlaas4hep"


def linear(width, seed):
    """A framework's graph of one linear layer, and what it gives in numpy."""
    weights = np.random.default_rng(seed).normal(0, 1, (width, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logit"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weights, "weights")],
    )

    def predict(x, mask):
        assert x.shape == mask.shape
        second = 1 / (1 + np.exp(-(x @ weights)))
        return np.concatenate([1 - second, second], axis=1).astype(np.float32)

    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString(), predict


def bundle_of(dataset, out, *, seed=1, files=None, k_fold=None):
    """A bundle for the features of a dataset."""
    graph, predict = linear(dataset.encoding.width, seed)
    content = BundleContent(
        graph=graph,
        output=Output.LOGITS,
        encoding=dataset.encoding,
        labels=("background", "signal"),
        specs=dataset.specs.to_dict(),
        framework="numpy",
        data={
            **dataset.describe(),
            "files": [{"name": Path(f.path).name, "uuid": f.uuid, "entries": f.entries} for f in dataset.catalog.files],
        },
        files=files or {},
        k_fold=k_fold,
    )
    raw = next(dataset.raw_blocks(dataset.encoding))[0]
    write_bundle(out, content, raw[:100], predict)
    return out


def rows_of(path):
    """Columns of a file of scores, as numpy arrays."""
    if path.suffix == ".root":
        with uproot.open(path) as file:
            return file["Events"].arrays(library="np")
    table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predictor")


@pytest.fixture(scope="module")
def inputs(folder):
    """Three files, one of them without any event."""
    names = []
    for number, events in enumerate((1500, 0, 700)):
        path = folder / f"in_{number}.root"
        write_tree_file(path, make_events(events, seed=number + 1), clusters=range(200, events, 200))
        names.append(str(path))
    return names


@pytest.fixture(scope="module")
def bundle(folder, inputs):
    return bundle_of(mlaas4hep.open(inputs, labels=[1, 0, 0]), folder / "plain.tar.gz")


@pytest.fixture(scope="module")
def cutting(folder, inputs):
    """A bundle whose training had new columns, cuts on events and on objects, and a label that data lack."""
    dataset = mlaas4hep.open(
        inputs,
        labels="isHard",
        branches=["MET_pt", "Jet_pt", "HT"],
        selection="nGood >= 2 and MET_pt > 10",
        new_columns={"HT": "sum(Jet_pt)", "nGood": "count(Jet_pt)", "isHard": "trigger"},
        object_cuts={"Jet": "pt > 20"},
    )
    return bundle_of(dataset, folder / "cutting.tar.gz")


def reference(inputs, number):
    """Events of a file, read without the package."""
    return uproot.open(inputs[number])["Events"].arrays()


@pytest.mark.parametrize("extension", [".root", ".parquet", ".csv"])
def test_every_entry_has_a_row_in_its_order_and_rejected_ones_have_no_score(inputs, cutting, tmp_path, extension):
    summary = predict_files(cutting, inputs, tmp_path / f"s{extension}")
    rows = rows_of(tmp_path / f"s{extension}")
    events = ak.concatenate([reference(inputs, number) for number in (0, 2)])
    jets = events.Jet_pt[events.Jet_pt > 20]
    expected = (ak.num(jets) >= 2) & (events.MET_pt > 10)
    assert rows["entry"].tolist() == [*range(1500), *range(700)]
    assert rows["file"].tolist() == [0] * 1500 + [2] * 700
    assert rows["event"].tolist() == events.event.tolist()
    assert rows["selected"].tolist() == expected.tolist()
    assert 0 < expected.to_numpy().sum() < 2200
    assert (~np.isnan(rows["probability_signal"].astype(float))).tolist() == expected.tolist()
    assert (summary.events, summary.selected) == (2200, expected.to_numpy().sum())
    with Bundle.open(cutting) as opened:
        encoding = opened.encoding
        raw = np.full((2200, encoding.width), np.nan, np.float32)
        for row, (met, pts) in enumerate(zip(events.MET_pt, jets.to_list(), strict=True)):
            values = {"MET_pt": [met], "HT": [sum(np.float32(pt) for pt in pts)], "Jet_pt": pts}
            for name, wanted in values.items():
                places = encoding.places(name)
                raw[row, list(places)[: len(wanted)]] = wanted[: len(places)]
        scores = opened.predict(raw)[:, 1]
    np.testing.assert_allclose(rows["probability_signal"][expected], scores[expected], atol=1e-5)


def test_a_file_of_scores_is_a_friend_of_its_input(inputs, bundle, tmp_path):
    summary = predict_files(bundle, inputs, out_dir=tmp_path / "friends")
    assert [path.name for path in summary.outputs] == [f"in_{number}.scores.root" for number in range(3)]
    for number, path in enumerate(summary.outputs):
        with uproot.open(inputs[number]) as file, uproot.open(path) as friend:
            assert friend["Events"].num_entries == file["Events"].num_entries
            assert friend["Events"].keys() == [
                "entry", "run", "luminosityBlock", "event", "selected", "probability_background", "probability_signal",
            ]  # fmt: skip
            for name in ("run", "luminosityBlock", "event"):
                one, other = file["Events"][name], friend["Events"][name]
                assert one.array().to_list() == other.array().to_list()
                assert one.interpretation == other.interpretation


def test_the_scores_do_not_depend_on_threads_or_format(inputs, bundle, tmp_path):
    expected = None
    for threads, extension in ((1, ".root"), (3, ".parquet"), (2, ".csv")):
        predict_files(bundle, inputs, tmp_path / f"s{extension}", threads=threads)
        rows = rows_of(tmp_path / f"s{extension}")
        scores = rows["probability_signal"].astype(np.float32)
        expected = scores if expected is None else expected
        assert np.array_equal(scores, expected)
        assert not np.isnan(scores).any()


def test_columns_of_the_input_and_of_the_training_can_be_copied(inputs, cutting, tmp_path):
    predict_files(cutting, inputs[2], tmp_path / "s.root", branches=["trigger", "nGood", "MET_pt"])
    rows, events = rows_of(tmp_path / "s.root"), reference(inputs, 2)
    assert rows["trigger"].tolist() == events.trigger.tolist()
    assert rows["MET_pt"].tolist() == events.MET_pt.tolist()
    assert rows["nGood"].tolist() == ak.num(events.Jet_pt[events.Jet_pt > 20]).tolist()
    with pytest.raises(SettingError, match="columns with one value an event"):
        predict_files(cutting, inputs[2], tmp_path / "t.root", branches=["Jet_pt"])
    assert [path.name for path in tmp_path.iterdir()] == ["s.root"]


def test_without_the_selection_every_event_has_a_score(inputs, cutting, tmp_path):
    predict_files(cutting, inputs, tmp_path / "all.root", selection=False)
    predict_files(cutting, inputs, tmp_path / "cut.root")
    everything, cut = rows_of(tmp_path / "all.root"), rows_of(tmp_path / "cut.root")
    assert everything["selected"].all()
    chosen = cut["selected"]
    assert np.array_equal(everything["probability_signal"][chosen], cut["probability_signal"][chosen])


def test_a_label_of_the_training_may_be_missing_where_scores_are_made(cutting, tmp_path):
    events = make_events(50, seed=5)
    del events["trigger"]
    write_tree_file(tmp_path / "data.root", events)
    assert predict_files(cutting, tmp_path / "data.root", tmp_path / "s.root").events == 50


def test_events_outside_a_luminosity_mask_are_not_selected(inputs, bundle, tmp_path):
    (tmp_path / "mask.json").write_text('{"1": [[3, 6]]}')
    predict_files(bundle, inputs[0], tmp_path / "s.parquet", lumi_mask=tmp_path / "mask.json")
    rows = rows_of(tmp_path / "s.parquet")
    expected = (rows["luminosityBlock"] >= 3) & (rows["luminosityBlock"] <= 6)
    assert rows["selected"].tolist() == expected.tolist() == (~np.isnan(rows["probability_signal"])).tolist()


def test_files_without_identifiers_are_scored_and_the_summary_says_so(bundle, tmp_path):
    events = make_events(40, seed=3)
    del events["luminosityBlock"]
    write_tree_file(tmp_path / "skim.root", events)
    summary = predict_files(bundle, tmp_path / "skim.root", tmp_path / "s.root")
    assert any("no branch 'luminosityBlock'" in note for note in summary.notes)
    assert list(rows_of(tmp_path / "s.root"))[:3] == ["file", "entry", "selected"]


PREPROCESSING = "def preprocessing(rec):\n    rec['MET_pt'] = 2 * rec['MET_pt']\n    return rec\n"


def test_preprocessing_is_executed_only_when_it_is_named_or_allowed(inputs, tmp_path):
    program = tmp_path / "double.py"
    program.write_text(PREPROCESSING)
    dataset = mlaas4hep.open(inputs, labels=[1, 0, 0], preproc=program)
    for name, files in (("with", {"preprocessing.py": PREPROCESSING.encode()}), ("without", {})):
        bundle_of(dataset, tmp_path / name, files=files)
    with pytest.raises(SettingError, match=r"'double.py' .* executed; got None"):
        predict_files(tmp_path / "with", inputs, tmp_path / "s.root")
    with pytest.raises(BundleError, match=r"no copy of its preprocessing 'double\.py'"):
        predict_files(tmp_path / "without", inputs, tmp_path / "s.root", allow_preprocessing=True)
    (tmp_path / "other.py").write_text(PREPROCESSING + "# another\n")
    with pytest.raises(SettingError, match=r"trained with, sha256 \w{64}; got '.*other.py, sha256"):
        predict_files(tmp_path / "with", inputs, tmp_path / "s.root", preproc=tmp_path / "other.py")
    predict_files(tmp_path / "without", inputs, tmp_path / "a.root", preproc=program)
    predict_files(tmp_path / "with", inputs, tmp_path / "b.root", allow_preprocessing=True)
    one, other = rows_of(tmp_path / "a.root"), rows_of(tmp_path / "b.root")
    assert np.array_equal(one["probability_signal"], other["probability_signal"])
    with Bundle.open(tmp_path / "with") as opened:
        plain = opened.predict(next(mlaas4hep.open(inputs[0]).raw_blocks(opened.encoding))[0])[:, 1]
    assert np.abs(plain - one["probability_signal"][: len(plain)]).max() > 1e-3


def test_preprocessing_for_a_bundle_without_any_is_refused(inputs, bundle, tmp_path):
    (tmp_path / "p.py").write_text(PREPROCESSING)
    with pytest.raises(SettingError, match="trained without preprocessing"):
        predict_files(bundle, inputs, tmp_path / "s.root", preproc=tmp_path / "p.py")


@pytest.fixture(scope="module")
def folded(folder, inputs):
    """Bundles of three models, by identifiers and by entry."""
    dataset = mlaas4hep.open(inputs, labels=[1, 0, 0])
    encoding = dataset.encoding
    models = {}
    for fold in range(3):
        graph = complete_graph(linear(encoding.width, seed=10 + fold)[0], encoding, Output.LOGITS, 2)
        models[f"folds/{fold}/model.onnx"] = graph
        models[f"folds/{fold}/encoding.json"] = json.dumps(encoding.to_dict()).encode()
    by_identifiers = KFold(3, 4, 1, ("run", "luminosityBlock", "event"), "identifiers")
    return {
        "identifiers": bundle_of(dataset, folder / "by_id.tar.gz", files=models, k_fold=by_identifiers),
        "entry": bundle_of(dataset, folder / "by_entry.tar.gz", files=models, k_fold=KFold(3, 4)),
        "unknown": bundle_of(
            dataset, folder / "unknown", files=models, k_fold=dataclasses.replace(by_identifiers, hash_version=99)
        ),
    }


@pytest.mark.parametrize("kind", ["identifiers", "entry", "unknown"])
def test_each_event_gets_the_model_of_its_fold_or_the_mean_where_that_cannot_be_proven(inputs, folded, tmp_path, kind):
    summary = predict_files(folded[kind], inputs, tmp_path / "s.parquet")
    rows = rows_of(tmp_path / "s.parquet")
    split = Split.k_fold(3, 0, salt=4)
    if kind == "identifiers":
        folds = split.fold_of(event_identity([rows[name] for name in ("run", "luminosityBlock", "event")], 4))
    elif kind == "entry":
        uuids = [uproot.open(inputs[number]).file.uuid for number in (0, 2)]
        folds = np.concatenate(
            [split.fold_of(entry_identity(str(u), np.arange(n), 4)) for u, n in zip(uuids, (1500, 700), strict=True)]
        )
    else:
        folds = np.full(2200, -1)
    assert rows["fold"].tolist() == folds.tolist()
    assert summary.unproven == (2200 if kind == "unknown" else 0)
    with Bundle.open(folded[kind]) as opened:
        raw = np.concatenate([block[0] for block in mlaas4hep.open(inputs).raw_blocks(opened.encoding)])
        x, mask = opened.encoding.scale_raw(raw)
    seeds = {-1: 1, 0: 10, 1: 11, 2: 12}
    for fold in set(folds.tolist()):
        chosen = folds == fold
        expected = linear(x.shape[1], seeds[fold])[1](x[chosen], mask[chosen])[:, 1]
        np.testing.assert_allclose(rows["probability_signal"][chosen], expected, atol=1e-5)


def test_a_skimmed_copy_of_a_file_whose_events_are_known_by_entry_gets_the_mean(inputs, folded, tmp_path):
    events = reference(inputs, 0)
    skim = {name: events[name][::2] for name in events.fields if not name.startswith("n")}
    write_tree_file(tmp_path / "skim.root", {n: v if v.ndim > 1 else v.to_numpy() for n, v in skim.items()})
    summary = predict_files(folded["entry"], tmp_path / "skim.root", tmp_path / "s.root")
    assert summary.unproven == 750
    assert set(rows_of(tmp_path / "s.root")["fold"]) == {-1}
    predict_files(folded["identifiers"], tmp_path / "skim.root", tmp_path / "t.root")
    predict_files(folded["identifiers"], inputs[0], tmp_path / "whole.root")
    assert np.array_equal(
        rows_of(tmp_path / "t.root")["probability_signal"], rows_of(tmp_path / "whole.root")["probability_signal"][::2]
    )


def test_a_file_of_a_cut_off_input_keeps_a_row_for_every_entry_where_bad_files_are_skipped(inputs, bundle, tmp_path):
    whole = Path(inputs[0]).read_bytes()
    damaged = tmp_path / "damaged.root"
    tree = uproot.open(inputs[0])["Events"]
    position = int(tree["MET_pt"].member("fBasketSeek")[3])
    content = bytearray(whole)
    content[position + 4 : position + 60] = bytes(56)
    damaged.write_bytes(content)
    with pytest.raises(SourceError):
        predict_files(bundle, damaged, out_dir=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    summary = predict_files(bundle, [damaged, inputs[2]], out_dir=tmp_path / "out", on_bad_file="skip")
    rows = rows_of(tmp_path / "out" / "damaged.scores.root")
    lost = summary.losses.events
    assert 0 < lost <= 1500
    assert rows["entry"].tolist() == list(range(1500))
    assert np.isnan(rows["probability_signal"]).sum() == (~rows["selected"]).sum() == lost
    again = predict_files(bundle, [damaged, inputs[2]], out_dir=tmp_path / "out", on_bad_file="skip", resume=True)
    assert [path.name for path in again.done_before] == ["in_2.scores.root"]


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({}, "out"),
        ({"out": "s.root", "out_dir": "d"}, "out"),
        ({"out": "s.txt"}, "out"),
        ({"out_dir": "d", "format": "xlsx"}, "format"),
        ({"out_dir": "d", "suffix": "/../x"}, "suffix"),
        ({"out": "s.root", "threads": 0}, "threads"),
    ],
)
def test_wrong_settings_are_named(inputs, bundle, tmp_path, monkeypatch, arguments, setting):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError) as raised:
        predict_files(bundle, inputs, **arguments)
    assert raised.value.setting == setting
    assert list(tmp_path.iterdir()) == []


def test_an_input_is_never_written_over(inputs, bundle, tmp_path):
    copy = tmp_path / "a.root"
    copy.write_bytes(Path(inputs[2]).read_bytes())
    (tmp_path / "link.root").symlink_to(copy)
    for out in ({"out": tmp_path / "link.root"}, {"out_dir": tmp_path, "suffix": ""}):
        with pytest.raises(SettingError, match="none of the inputs lies"):
            predict_files(bundle, copy, **out)
    assert copy.read_bytes() == Path(inputs[2]).read_bytes()


def test_a_feature_of_another_kind_is_named(bundle, tmp_path):
    events = make_events(20, seed=2)
    events |= {"Jet_pt": events["MET_pt"], "nJet_pt": np.ones(20, np.int32)}
    write_tree_file(tmp_path / "flat.root", events)
    with pytest.raises(BranchTypeError, match="takes a list an event, the file holds one value"):
        predict_files(bundle, tmp_path / "flat.root", tmp_path / "s.root")


def test_the_command_resumes_and_says_what_it_did(inputs, cutting, tmp_path):
    command = [
        MLAAS4HEP, "predict", "--model", str(cutting), "--files", *inputs, "--out-dir", str(tmp_path), "--json", "--resume",
    ]  # fmt: skip
    first = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert (first["events"], len(first["outputs"]), first["done_before"]) == (2200, 3, [])
    second = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert (second["events"], second["outputs"], len(second["done_before"])) == (0, [], 3)


def test_an_error_about_a_name_with_a_line_break_is_one_line(bundle, tmp_path):
    command = [MLAAS4HEP, "predict", "--model", str(bundle), "--files", "no\nsuch\nfile.root", "--out", "s.root"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 2
    assert "no such file.root" in result.stderr
    assert result.stderr.count("\n") == 1


PREDICT_SLOWLY = """
import sys, time
from mlaas4hep.inference import predictor, score_files
plain = score_files.ScoreFile.complete
def slow(self, about):
    time.sleep(0.15)
    plain(self, about)
score_files.ScoreFile.complete = slow
print("ready", flush=True)
predictor.predict_files(sys.argv[1], sys.argv[3:], out_dir=sys.argv[2])
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_prediction_that_was_ended_goes_on_with_the_file_that_it_was_at(bundle, tmp_path, how):
    names = []
    for number in range(12):
        path = write_tree_file(tmp_path / f"f{number:02}.root", make_events(100, seed=number))
        names.append(str(path))
    out = tmp_path / "out"
    command = [sys.executable, "-c", PREDICT_SLOWLY, str(bundle), str(out), *names]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(list(out.glob("f*.root"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(getattr(signal, how))
    process.communicate()
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("f*.root")}
    assert 3 <= len(done) < 12
    leftovers = [path for path in out.iterdir() if path.name not in done]
    assert len(leftovers) == (1 if how == "SIGKILL" else 0)
    summary = predict_files(bundle, names, out_dir=out, resume=True)
    assert {path.name for path in summary.done_before} == done.keys()
    assert {path.name: path.stat().st_mtime_ns for path in summary.done_before} == done
    predict_files(bundle, names, out_dir=tmp_path / "unbroken")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        path.name for path in (tmp_path / "unbroken").iterdir()
    )
    for path in out.iterdir():
        one, other = rows_of(path), rows_of(tmp_path / "unbroken" / path.name)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_resuming_makes_again_what_is_of_another_bundle_or_other_settings_or_input(inputs, bundle, cutting, tmp_path):
    source = tmp_path / "source.root"
    source.write_bytes(Path(inputs[2]).read_bytes())

    def again(model, **settings):
        return len(predict_files(model, source, out_dir=tmp_path / "out", resume=True, **settings).outputs)

    assert again(bundle) == 1
    assert again(bundle) == 0
    assert again(cutting) == 1
    assert again(cutting, selection=False) == 1
    assert again(cutting, selection=False, branches=["trigger"]) == 1
    assert again(cutting, selection=False, branches=["trigger"]) == 0
    write_tree_file(source, make_events(700, seed=77))
    assert again(cutting, selection=False, branches=["trigger"]) == 1
    written = tmp_path / "out" / "source.scores.root"
    written.write_bytes(written.read_bytes()[:-100])
    assert again(cutting, selection=False, branches=["trigger"]) == 1


def test_memory_does_not_grow_with_the_number_of_events(bundle, tmp_path):
    """Twenty times as many events in as many more files: the peak of a process stays where it is."""
    columns = make_events(20_000, seed=1)
    names = [
        str(write_tree_file(tmp_path / f"m{number:02}.root", columns, clusters=range(2000, 20_000, 2000)))
        for number in range(20)
    ]
    program = (
        "import sys, resource\n"
        "from mlaas4hep.inference.predictor import predict_files\n"
        "predict_files(sys.argv[1], sys.argv[3:], sys.argv[2])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for files in (names[:1], names):
        command = [sys.executable, "-c", program, str(bundle), str(tmp_path / "s.root"), *files]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        peaks.append(int(result.stdout) / 1024)
    # All columns of all files would be 25 MB, vectors and scores of all events 20 MB more.
    assert peaks[1] - peaks[0] < 30, peaks
