"""The jobs of stillhouse as functions: the command line calls these and nothing else.

Jobs take settings and a run directory; `search` and `finetune` take plain arguments. May import
every room but `cli`.
"""

from stillhouse.api.functions import finetune, search
from stillhouse.api.judging import (
    compare_runs,
    evaluate,
    export_onnx,
    measure,
    run_attack_job,
    run_profile_job,
)
from stillhouse.api.model_jobs import (
    run_cross_view_job,
    run_distill_job,
    run_finetune_job,
    run_quantise_job,
    run_train_job,
)
from stillhouse.api.results import FinetuneResult, Given, SearchResult, Student
from stillhouse.api.search_jobs import plan_job, run_search_job, run_select_job

__all__ = [
    "FinetuneResult",
    "Given",
    "SearchResult",
    "Student",
    "compare_runs",
    "evaluate",
    "export_onnx",
    "finetune",
    "measure",
    "plan_job",
    "run_attack_job",
    "run_cross_view_job",
    "run_distill_job",
    "run_finetune_job",
    "run_profile_job",
    "run_quantise_job",
    "run_search_job",
    "run_select_job",
    "run_train_job",
    "search",
]
