"""Numbers of 16 bits, and where they are not enough."""

from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """Numbers of 16 bits as float32; others as they are.

    What networks put out in mixed precision goes through it into a loss: sums of many terms, exponentials, logarithms
    and differences of like numbers need more than the 8 bits of a bfloat16's significand. Autocast does that for some
    functions, and on a CPU for fewer than on a GPU.

    >>> import torch
    >>> widen(torch.ones(2, dtype=torch.bfloat16)).dtype, widen(torch.ones(2, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.is_floating_point() and x.element_size() == 2 else x
