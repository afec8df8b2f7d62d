"""Architectures and search spaces: plain, validated data and closed-form counts.

May import `errors`; knows no torch.
"""
