import shutil

import pytest
import torch

from colotride.errors import CheckpointError, ConfigurationError
from colotride.training.checkpoint import CHECKPOINTS, DIGESTS, checkpoints_in
from colotride.training.remote_copy import RemoteCopy
from colotride.training.run_directory import CheckpointPolicy
from colotride.training.trainer import Trainer
from tests.training.test_trainer import CPU, images, small, weights


def run(directory, uri, stop=None, **checkpoint_policy):
    asked = iter(range(1000))
    keep = CheckpointPolicy(storage=uri, **checkpoint_policy)
    trainer = Trainer(small(), images(), None, device=CPU, directory=directory, checkpoint_policy=keep)
    return trainer, trainer.run(should_stop=lambda: next(asked) == stop)


@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_whose_machine_is_gone_goes_on_from_its_second_copy(tmp_path, stop):
    uri = (tmp_path / "shared").as_uri()
    expected, _ = run(tmp_path / "undisturbed", (tmp_path / "other").as_uri())
    _, stopped = run(tmp_path / "machine", uri, stop)
    assert stopped.status == "interrupted"
    shutil.rmtree(tmp_path / "machine")
    resumed, outcome = run(tmp_path / "another-machine", uri)
    assert outcome.status == "finished"
    assert torch.equal(weights(resumed), weights(expected))
    assert (tmp_path / "shared" / "summary.json").read_text() == (
        tmp_path / "another-machine" / "summary.json"
    ).read_text()


def test_the_copy_keeps_as_many_checkpoints_as_the_folder(tmp_path):
    run(tmp_path / "run", (tmp_path / "shared").as_uri(), checkpoints=3, minutes=1e-9)
    names = [path.name for path in checkpoints_in(tmp_path / "run" / CHECKPOINTS)]
    assert len(names) == 3
    assert [path.name for path in checkpoints_in(tmp_path / "shared" / CHECKPOINTS)] == names


def test_a_copy_that_was_cut_off_is_not_fetched(tmp_path):
    uri = (tmp_path / "shared").as_uri()
    run(tmp_path / "run", uri)
    newest, before = checkpoints_in(tmp_path / "shared" / CHECKPOINTS)
    (newest / DIGESTS).unlink()
    RemoteCopy(uri).pull(tmp_path / "elsewhere")
    assert [path.name for path in checkpoints_in(tmp_path / "elsewhere" / CHECKPOINTS)] == [before.name]


def test_a_folder_that_is_ahead_of_its_copy_is_left_alone(tmp_path):
    uri = (tmp_path / "shared").as_uri()
    run(tmp_path / "run", uri)
    newest, _ = checkpoints_in(tmp_path / "run" / CHECKPOINTS)
    shutil.rmtree(tmp_path / "shared" / CHECKPOINTS / newest.name)
    (tmp_path / "shared" / "config.yaml").write_text("old")
    RemoteCopy(uri).pull(tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text() != "old"


def test_storage_that_is_none_or_out_of_reach_is_one_line(tmp_path):
    with pytest.raises(ConfigurationError, match="storage 'nowhere://x' cannot be opened"):
        RemoteCopy("nowhere://x")
    (tmp_path / "file").write_text("in the way")
    mirror = RemoteCopy((tmp_path / "file" / "run").as_uri())
    run(tmp_path / "run", (tmp_path / "shared").as_uri())
    with pytest.raises(CheckpointError, match=r"cannot be written .* is whole"):
        mirror.push(tmp_path / "run", ("config.yaml",))


@pytest.mark.slow
def test_a_bucket_is_a_second_copy_too(tmp_path, monkeypatch):
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    import boto3

    server = moto.ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="runs")
        uri = f"s3://runs/one?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        expected, _ = run(tmp_path / "undisturbed", (tmp_path / "other").as_uri())
        run(tmp_path / "machine", uri, 5)
        resumed, _ = run(tmp_path / "another", uri)
        assert torch.equal(weights(resumed), weights(expected))
    finally:
        server.stop()
