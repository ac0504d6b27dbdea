"""Checkpoints on disk: whole, damaged, of another run, and on a full disk."""

from __future__ import annotations

import contextlib
import resource
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import TrainingError
from mlaas4hep.training.checkpoint import Checkpoints, refuse_another_run

STATE = {"weights": {"a": torch.arange(600, dtype=torch.float64)}, "epoch": 3, "place": {"loss": 0.5}, "none": None}


@contextlib.contextmanager
def files_of_at_most(size):
    """What a disk that is full does to a write, done to every file of this process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def same(state, other):
    return torch.equal(state["weights"]["a"], other["weights"]["a"]) and state["epoch"] == other["epoch"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back_and_the_one_before_is_kept(tmp_path):
    kept = Checkpoints(tmp_path / "run")
    assert kept.read() is None
    kept.write(STATE, "epoch 4")
    assert same(kept.read(), STATE)
    for epoch in (4, 5):
        kept.write({**STATE, "epoch": epoch}, "later")
    assert kept.read()["epoch"] == 5
    assert names(tmp_path / "run") == ["last.ckpt", "previous.ckpt"]
    (tmp_path / "run" / "last.ckpt").unlink()
    assert kept.read()["epoch"] == 4
    assert kept.warnings == []
    kept.forget_previous()
    assert kept.read() is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    Checkpoints(folder).write(STATE, "epoch 4")
    return folder, (folder / "last.ckpt").read_bytes()


@given(data=st.data())
def test_a_flipped_bit_is_noticed_or_changes_nothing(whole, data):
    folder, content = whole
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "last.ckpt").write_bytes(damaged)
    read = said = None
    try:
        read = Checkpoints(folder).read()
    except TrainingError as error:
        said = str(error)
    if read is None:
        assert "last.ckpt is damaged" in said
        assert "\n" not in said
    else:
        assert same(read, STATE)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_checkpoint_is_refused_in_one_line(whole, share):
    folder, content = whole
    (folder / "last.ckpt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(TrainingError, match=r"last\.ckpt is damaged: .*; without --resume the training begins anew"):
        Checkpoints(folder).read()


def test_instead_of_a_damaged_checkpoint_the_one_before_is_used_with_a_warning(tmp_path):
    kept = Checkpoints(tmp_path)
    for epoch in (1, 2):
        kept.write({**STATE, "epoch": epoch}, f"epoch {epoch}")
    content = bytearray((tmp_path / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "last.ckpt").write_bytes(content)
    assert kept.read()["epoch"] == 1
    (warning,) = kept.warnings
    assert warning.startswith(f"{tmp_path / 'last.ckpt'} is damaged: ")
    assert warning.endswith("; previous.ckpt is used instead")


def test_nothing_but_plain_values_and_tensors_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"format": "mlaas4hep-training/1", "state": {"a": Evil()}}, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError, match="it cannot be read"):
        Checkpoints(tmp_path).read()


@pytest.mark.parametrize("content", [{"state": {}}, {"format": "mlaas4hep-training/1", "state": 3}, [1, 2]])
def test_a_file_of_another_program_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError, match="it is not of format mlaas4hep-training/1"):
        Checkpoints(tmp_path).read()
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as archive:
        archive.writestr("thesis.txt", "text")
    with pytest.raises(TrainingError, match=r"last\.ckpt is damaged: it cannot be read"):
        Checkpoints(tmp_path).read()


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint_and_gives_one_line(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.write({**STATE, "epoch": 1}, "epoch 1")
    with files_of_at_most(3000), pytest.raises(TrainingError) as caught:
        kept.write({**STATE, "epoch": 2}, "epoch 2, batch 7")
    said = str(caught.value)
    assert said == (
        f"the checkpoint of epoch 2, batch 7 cannot be written to {tmp_path / 'last.ckpt'}: File too large;"
        " the one before is whole, --resume goes on from it"
    )
    assert kept.read()["epoch"] == 1
    assert names(tmp_path) == ["last.ckpt", "previous.ckpt"]
    with files_of_at_most(3000), pytest.raises(TrainingError, match=r"best\.ckpt: File too large"):
        kept.write_best(STATE["weights"], 2)
    kept.write({**STATE, "epoch": 2}, "epoch 2")
    assert kept.read()["epoch"] == 2


def test_the_first_difference_of_another_run_is_named():
    with pytest.raises(TrainingError, match=r"last\.ckpt is of another run: batch_size was 64 and is 128 now"):
        refuse_another_run("last.ckpt", {"seed": 1, "batch_size": 64}, {"seed": 1, "batch_size": 128})
    with pytest.raises(TrainingError, match=r"model was Linear.* and is None now"):
        refuse_another_run("last.ckpt", {"model": "Linear(5)" * 40}, {})
    with pytest.raises(TrainingError, match="files was b and is None now"):
        refuse_another_run("last.ckpt", {"files": ["a", "b"]}, {"files": ["a"]})
    refuse_another_run("last.ckpt", {"seed": 1}, {"seed": 1})
