"""What exists only because of CPUs: the same results as PyTorch's own operations, in less time."""

import torch
from torch import nn

# Elements of attention that are worked on at a time: what a core's cache holds.
PIECE_SIZE = 2**18


class SGMDropout(nn.Dropout):
    """`nn.Dropout` that draws sixteen random bits per element on a CPU, a quarter of the time of PyTorch's own draw.

    The probability is rounded to a multiple of 2⁻¹⁶, and what is kept is scaled by the rounded one.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Drops elements of a tensor of any shape in training; returns it as it is otherwise."""
        dropped = round(self.p * 2**16)
        if not self.training or input.device.type != "cpu" or not 0 < dropped < 2**16:
            return super().forward(input)
        bits = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - 2**15
        # As numbers of eight bits: PyTorch multiplies by these several times faster than by truth values.
        return (input * kept.view(torch.int8)).mul_(2**16 / (2**16 - dropped))


def energy_in_pieces(query: torch.Tensor, keys: torch.Tensor, energy: nn.Linear) -> torch.Tensor:
    """`energy(sigmoid(query + keys))` without a gradient, a few documents at a time.

    A piece then stays in the cache from the sum to the product with the energy's weights.

    Args:
        query: (B, K, 1, A), K rows of each document.
        keys: (B, T, A).
        energy: From A to 1.

    Returns:
        (B, K, T).
    """
    num_documents = max(1, PIECE_SIZE // max(1, query.shape[1] * keys.shape[1] * keys.shape[2]))
    pieces = zip(query.split(num_documents), keys.split(num_documents), strict=True)
    return torch.cat([energy((q + k[:, None]).sigmoid_()).squeeze(-1) for q, k in pieces])  # (B, K, T)
