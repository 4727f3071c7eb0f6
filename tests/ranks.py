"""Several real processes, as `torchrun` would start them."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch


def spawn_ranks(function: Callable[..., None], *args: Any, ranks: int = 2) -> None:
    """Call `function(*args)` in processes that know their ranks; a failure of one is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_run, (ranks, port, function, *args), nprocs=ranks)


def _run(rank: int, ranks: int, port: int, function: Callable[..., None], *args: Any) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks)
    )
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), TORCHELASTIC_RUN_ID="test")
    torch.set_num_threads(1)
    try:
        function(*args)
    finally:  # Lightning leaves gloo's threads running, which can abort a process that ends.
        torch.distributed.destroy_process_group()
