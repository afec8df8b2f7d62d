"""Networks: anatomy of model families, students and their first weights, and plain prediction.

May import `data`, `space` and `errors`.
"""
