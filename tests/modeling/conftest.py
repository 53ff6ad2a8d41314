import pytest
import torch


@pytest.fixture
def texts() -> dict[str, torch.Tensor]:
    """Four texts of different lengths, padded on the right."""
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.randint(2, 40, (4, 9), generator=generator)
    mask = torch.arange(9) < torch.tensor([[9], [4], [1], [6]])
    return {"input_ids": input_ids * mask, "attention_mask": mask.long()}
