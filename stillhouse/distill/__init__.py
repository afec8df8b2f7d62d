"""Distillation: losses, terms, layer maps, the teacher cache, the one training loop.

May import `device`, `model`, `data`, `space` and `errors`; knows no search and no run directory.
"""
