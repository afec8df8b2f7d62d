"""Settings of the demonstration: small enough for two processor cores and a few minutes."""

DEMO: dict[str, object] = {
    "teacher.model": "scratch",
    "teacher.epochs": 6.0,
    "task.name": "embedded",
    "task.max_length": 48,
    "limit.speedup": 2.0,
    "search.candidates": 12,
    "search.proxy_examples": 2723,
    "search.epochs": 3.0,
    "final.epochs": 12.0,
    "final.students": 3,
    "distill.learning_rate": 1e-3,
}
