"""Networks and layers that two or more papers or judges share."""

from lightning_gen.nn.maxout import Maxout

__all__ = ["Maxout"]
