"""`python -m lightning_gen`: the same as `lightning-gen` and `python cli.py`."""

from lightning_gen.cli import main

if __name__ == "__main__":
    main()
