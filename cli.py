"""The door to the command line: the same as `lightning-gen` and `python -m lightning_gen`."""

from lightning_gen.cli import main

if __name__ == "__main__":
    main()
