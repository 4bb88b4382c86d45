"""What several test modules share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Small tensors: threads that wait for each other cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
