"""Two of Ray's nodes: with one disk, and with a folder that the second one sees a disk of its own in place of."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from colotride.distributed.storage_probe import check_shared
from colotride.errors import ConfigurationError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root may hide a folder"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `shared`, and `hidden`, over which the second node has mounted an empty disk."""
    folder = tmp_path_factory.mktemp("disks")
    for name in ("shared", "hidden"):
        (folder / name).mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    join = f"{sys.executable} -m ray.scripts.scripts start --address {cluster.address} --num-cpus 1 --block"
    second = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c",
         f"mount -t tmpfs none {folder}/hidden && {join}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        for _ in range(600):
            if sum(node["Alive"] for node in ray.nodes()) == 2:
                break
            assert second.poll() is None
            time.sleep(0.1)
        yield folder
    finally:
        ray.shutdown()
        second.kill()
        second.wait()
        cluster.shutdown()


def left(folder):
    return [path.name for path in folder.iterdir()]


def test_a_folder_that_both_machines_see_is_accepted_and_left_as_it_was(place):
    check_shared(place / "shared", None)
    check_shared(place / "hidden", (place / "shared" / "copies").as_uri())
    assert left(place / "shared") == ["copies"]
    assert left(place / "shared" / "copies") == []


def test_a_folder_that_the_second_machine_does_not_see_is_refused_by_name(place):
    line = (
        r"machine [\d.]+ cannot read what is written into .*/hidden \(the file is not there\); give a folder that all"
    )
    with pytest.raises(ConfigurationError, match=line):
        check_shared(place / "hidden", None)
    with pytest.raises(ConfigurationError, match="see that all machines may read and write it"):
        check_shared(place / "shared", (place / "hidden").as_uri())
    assert left(place / "hidden") == []


def test_a_place_that_cannot_be_written_is_one_line(place):
    (place / "shared" / "file").write_text("")
    with pytest.raises(ConfigurationError, match="could not be probed") as caught:
        check_shared(place / "shared" / "file" / "run", None)
    assert "\n" not in str(caught.value)
    Path(place / "shared" / "file").unlink()
