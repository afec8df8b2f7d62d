"""Benchmarks: each prints its figure beside its baseline; RESULTS.md keeps the output."""
