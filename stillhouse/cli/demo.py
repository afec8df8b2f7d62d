"""Settings of the demonstration: small enough for two processor cores and a few minutes."""

DEMO: dict[str, object] = {
    "teacher.model": "scratch",
    "task.name": "embedded",
    "limit.speedup": 2.0,
    "search.candidates": 12,
    "search.epochs": 4,
    "final.epochs": 12,
    "final.students": 3,
    "distill.learning_rate": 1e-3,
}
