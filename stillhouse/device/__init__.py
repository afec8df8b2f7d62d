"""Devices: what tells the latency of an architecture under a workload, and how it knows.

May import `model`, `data`, `space` and `errors`.
"""
