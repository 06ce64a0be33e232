import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    # Two cores are shared with Ray's workers in some tests, and sums must not depend on how many threads were free.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
