"""The command line: parse, call, print. May import every room."""

from stillhouse.cli.app import main

__all__ = ["main"]
