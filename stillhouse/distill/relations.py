"""Losses on self-attention relations: how queries, keys and values relate to their own kind.

A relation is A Aᵀ/√K of one projection A of a layer, re-split into relation heads, so student and
teacher need neither the same width nor the same number of attention heads.

The matrices of a batch are too large to keep for a backward pass (12 heads, 512 tokens and 32
examples: 400 MB for each of six). So the gradient is computed beside the loss, chunk by chunk, and
only it is kept, which has the size of the student's projection.

Letters in names: B batch, T tokens, S tokens that they relate to, W width of a projection,
R relation heads, K width of a relation head, N relation matrices of a chunk (its examples times its
heads).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, assert_never

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.errors import SettingsError

RelationTarget: TypeAlias = Literal["scores", "probabilities", "kl"]

CHUNK_FLOATS_CPU = 2**19
CHUNK_FLOATS_ELSEWHERE = 2**24
"""Floats of a relation matrix set that is worked on, of which there are at most three at a time.

2 MiB stay in a processor's cache, and 2**24 take up to twice as long there; a graphics processor
wants few large calls, for 64 MiB.
"""

LENGTH_FOR_GRAMS = 5
"""From so many tokens per dimension of a relation head on, Gram matrices are cheaper on a CPU."""

_Found: TypeAlias = tuple[Tensor, Tensor | None]
"""Sums of each pair of matrices, `[N]`, and their gradient by the student, `[N, T, K]`."""


class QueryKeyValue(NamedTuple):
    """What one attention layer projects its input to, each `[B, T, W]`, heads side by side."""

    query: Tensor
    key: Tensor
    value: Tensor


def check_relation_heads(heads: int, width: int, *, whose: Literal["student", "teacher"]) -> None:
    """Refuses a number of relation heads into which a projection cannot be split.

    Args:
        heads: Relation heads.
        width: Width of the projection.
        whose: A student's last dimensions may be left over; a teacher's may not, so that the whole
            of it is learnt.

    Raises:
        SettingsError: A head would have no dimension, or would leave some of the teacher out.
    """
    if heads < 1:
        raise SettingsError(
            f"there must be at least 1 relation head, but relation heads is {heads}"
        )
    if heads > width:
        raise SettingsError(
            f"each relation head needs a dimension, but the {whose} has {width} for {heads} heads: "
            f"set relation heads to {width} at most"
        )
    if whose == "teacher" and width % heads:
        below = next(n for n in range(heads, 0, -1) if width % n == 0)
        above = next(n for n in range(heads, width + 1) if width % n == 0)
        raise SettingsError(
            f"relation heads must divide the teacher's width {width}, but {heads} does not: "
            f"set relation heads to {below} or {above}"
        )


def relations_loss(
    student: QueryKeyValue,
    teacher: QueryKeyValue,
    mask_BT: Tensor | None,
    *,
    heads: int,
    target: RelationTarget,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Sums the relation losses of queries, keys and values.

    Args:
        student: Projections of a student layer.
        teacher: Projections of a teacher layer, of any width that `heads` divides.
        mask_BT: 1 at real tokens, 0 at padding; None where every token is real.
        heads: Relation heads.
        target: What is compared, see `relation_loss`.
        weights: β of queries, keys and values, >= 0; what has 0 is not computed.

    Source: Xu et al. 2022 (AutoDistil), equation 4, with β = 1.
    """
    if not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
        raise SettingsError(
            f"relation weights must be finite, at least 0 and not all 0, got {weights}"
        )
    parts = [
        weight * relation_loss(ours_BTW, theirs_BTW, mask_BT, heads=heads, target=target)
        for weight, ours_BTW, theirs_BTW in zip(weights, student, teacher, strict=True)
        if weight
    ]
    return torch.stack(parts).sum()


def relation_loss(
    student_BTW: Tensor,
    teacher_BTW: Tensor,
    mask_BT: Tensor | None,
    *,
    heads: int,
    target: RelationTarget,
    chunk_floats: int | None = None,
) -> Tensor:
    """Compares the relations of one kind: of queries, of keys, or of values.

    Args:
        student_BTW: Student projection; where `heads` does not divide its width, its last
            dimensions are dropped.
        teacher_BTW: Teacher projection, of any width that `heads` divides.
        mask_BT: 1 at real tokens, 0 at padding, which counts neither as row nor as column; None
            where every token is real.
        heads: Relation heads.
        target: `scores`, the mean squared difference of the relations over heads and pairs of real
            tokens; `probabilities`, the same of their softmaxes; `kl`, KL(teacher ‖ student) of the
            softmaxes in nats, averaged over heads and real rows of an example, then over examples
            that have any.
        chunk_floats: Bounds the floats of a set of relation matrices that is worked on at a time,
            where a single matrix has no more; by default what suits the device.

    Returns:
        The loss, which can be differentiated once, and only by the student.

    Raises:
        SettingsError: `heads` does not fit the widths.

    Source: `probabilities` is AutoDistil's equation 4 as printed (Xu et al. 2022); `scores` is what
    its released code computes, which made the published students. That code adds the mask to both
    sides, where it cancels, so its padding counts; ours leaves padding out. `kl` is MiniLMv2's
    (Wang et al. 2020), averaged as bloomberg/minilmv2.bb does: all examples weigh the same.
    """
    check_relation_heads(heads, student_BTW.shape[-1], whose="student")
    check_relation_heads(heads, teacher_BTW.shape[-1], whose="teacher")
    assert student_BTW.shape[:2] == teacher_BTW.shape[:2]
    mask_BT = None if mask_BT is None else mask_BT > 0
    if chunk_floats is None:
        on_cpu = student_BTW.device.type == "cpu"
        chunk_floats = CHUNK_FLOATS_CPU if on_cpu else CHUNK_FLOATS_ELSEWHERE
    job = _Job(heads=heads, target=target, chunk_floats=chunk_floats)
    if torch.is_grad_enabled() and student_BTW.requires_grad:
        loss: Tensor = _RelationLoss.apply(  # type: ignore[no-untyped-call]
            student_BTW, teacher_BTW, mask_BT, job
        )
        return loss
    return _evaluate(student_BTW, teacher_BTW, mask_BT, job, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What to compute, and in what portions."""

    heads: int
    target: RelationTarget
    chunk_floats: int


class _RelationLoss(torch.autograd.Function):
    """Computes loss and gradient at once, and keeps the gradient."""

    @staticmethod
    def forward(
        ctx: Any, student_BTW: Tensor, teacher_BTW: Tensor, mask_BT: Tensor | None, job: _Job
    ) -> Tensor:
        gradient_BTW = torch.zeros_like(student_BTW, dtype=torch.float32)
        loss = _evaluate(student_BTW, teacher_BTW, mask_BT, job, gradient_BTW)
        ctx.save_for_backward(gradient_BTW)
        ctx.student_dtype = student_BTW.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient_BTW,) = ctx.saved_tensors
        return (gradient_BTW * loss_gradient).to(ctx.student_dtype), None, None, None


@torch.no_grad()
def _evaluate(
    student_BTW: Tensor,
    teacher_BTW: Tensor,
    mask_BT: Tensor | None,
    job: _Job,
    gradient_BTW: Tensor | None,
) -> Tensor:
    """Computes the loss, and writes its gradient by the student to `gradient_BTW`, which is 0."""
    weight_B = _example_weights(student_BTW, mask_BT, job)
    loss = student_BTW.new_zeros((), dtype=torch.float32)
    with torch.autocast(student_BTW.device.type, enabled=False):
        for chunk in _chunks(student_BTW, job):
            student_NTK = chunk.split(student_BTW, mask_BT)
            teacher_NTK = chunk.split(teacher_BTW, mask_BT)
            padded_N1S = None if mask_BT is None else chunk.repeat(~mask_BT)[:, None]
            loss_N, gradient_NTK = _compare(
                student_NTK, teacher_NTK, padded_N1S, job.target, slope=gradient_BTW is not None
            )
            weight_N = chunk.repeat(weight_B)
            loss += loss_N @ weight_N
            if gradient_BTW is not None and gradient_NTK is not None:
                chunk.join(gradient_NTK.mul_(weight_N[:, None, None]), gradient_BTW)
    return loss


def _example_weights(student_BTW: Tensor, mask_BT: Tensor | None, job: _Job) -> Tensor:
    """Gives what a sum over the matrices of an example counts in the loss; finite for no tokens."""
    batch, tokens, _ = student_BTW.shape
    if mask_BT is None:
        real_B = student_BTW.new_full((batch,), tokens, dtype=torch.float32)
    else:
        real_B = mask_BT.sum(dim=1, dtype=torch.float32)
    if job.target == "kl":
        examples = (real_B > 0).sum().clamp(min=1)
        return 1 / (job.heads * examples * real_B.clamp(min=1))
    return torch.ones_like(real_B) / (job.heads * real_B.square().sum().clamp(min=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """Some examples and some of the relation heads, whose matrices are worked on together."""

    examples: slice
    first_head: int
    heads: int
    all_heads: int

    def split(self, projection_BTW: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Takes out the chunk in float32, padding 0, as A/⁴√K, whose relations are A Aᵀ/√K."""
        part_BTW = projection_BTW[self.examples, :, self._dimensions(projection_BTW)].float()
        if mask_BT is not None:
            # Chosen, not multiplied: padding may hold anything, NaN included.
            part_BTW = torch.where(mask_BT[self.examples, :, None], part_BTW, 0.0)
        part_BRTK: Tensor = part_BTW.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return (part_BRTK / _fourth_root(part_BRTK.shape[-1])).flatten(0, 1)

    def join(self, gradient_NTK: Tensor, gradient_BTW: Tensor) -> None:
        """Writes the gradient by what `split` gave to its place in the gradient by its input."""
        gradient_BRTK = gradient_NTK.unflatten(0, (-1, self.heads))
        part_BTW = gradient_BRTK.transpose(1, 2).flatten(2) / _fourth_root(gradient_NTK.shape[-1])
        gradient_BTW[self.examples, :, self._dimensions(gradient_BTW)] = part_BTW

    def repeat(self, values_B: Tensor) -> Tensor:
        """Gives every matrix the value of its example."""
        return values_B[self.examples].repeat_interleave(self.heads, dim=0)

    def _dimensions(self, projection_BTW: Tensor) -> slice:
        width = projection_BTW.shape[-1] // self.all_heads
        return slice(self.first_head * width, (self.first_head + self.heads) * width)


def _fourth_root(number: int) -> float:
    return math.pow(number, 0.25)


def _chunks(student_BTW: Tensor, job: _Job) -> Iterator[_Chunk]:
    """Cuts a batch by examples, and by heads where a single example is too large."""
    batch, tokens, _ = student_BTW.shape
    matrices = max(1, job.chunk_floats // max(1, tokens * tokens))
    heads = min(job.heads, matrices)
    examples = max(1, matrices // job.heads)
    for example in range(0, batch, examples):
        for head in range(0, job.heads, heads):
            yield _Chunk(
                examples=slice(example, example + examples),
                first_head=head,
                heads=min(heads, job.heads - head),
                all_heads=job.heads,
            )


def _compare(
    student_NTK: Tensor,
    teacher_NTK: Tensor,
    padded_N1S: Tensor | None,
    target: RelationTarget,
    *,
    slope: bool,
) -> _Found:
    """Sums a comparison over each pair of matrices; with its gradient by the student, if wanted.

    Tokens of padding are 0 on both sides, so their rows are equal on both sides and add nothing;
    only softmaxes must be told which columns to leave out.
    """
    match target:
        case "scores" if _grams_are_cheaper(student_NTK, teacher_NTK):
            return _score_gap_from_grams(student_NTK, teacher_NTK, slope=slope)
        case "scores":
            return _score_gap(student_NTK, teacher_NTK, slope=slope)
        case "probabilities":
            return _probability_gap(student_NTK, teacher_NTK, padded_N1S, slope=slope)
        case "kl":
            return _divergence(student_NTK, teacher_NTK, padded_N1S, slope=slope)
        case _:
            assert_never(target)


def _score_gap(student_NTK: Tensor, teacher_NTK: Tensor, *, slope: bool) -> _Found:
    """Sums (S Sᵀ − T Tᵀ)²."""
    gap_NTS = student_NTK @ student_NTK.mT
    gap_NTS.baddbmm_(teacher_NTK, teacher_NTK.mT, alpha=-1)
    gradient_NTK = (gap_NTS @ student_NTK).mul_(4) if slope else None
    return gap_NTS.square_().sum(dim=(1, 2)), gradient_NTK


def _score_gap_from_grams(student_NTK: Tensor, teacher_NTK: Tensor, *, slope: bool) -> _Found:
    """Sums (S Sᵀ − T Tᵀ)² without such a matrix: ‖SᵀS‖² − 2‖TᵀS‖² + ‖TᵀT‖².

    The three are large and their difference is small where the student is near. In float32 the loss
    of a student at 1 % distance would be off by 1 %. From float64, in which products of float32 are
    exact, it is off by 1e-7, less than from the matrices themselves. The gradient is no difference
    of squares: float32 products leave it off by 7e-5 there, at 512 tokens and 12 heads of 32.
    """
    student64_NTK, teacher64_NTK = student_NTK.double(), teacher_NTK.double()
    own_NKK = student64_NTK.mT @ student64_NTK
    cross_NKK = teacher64_NTK.mT @ student64_NTK
    theirs_NKK = teacher64_NTK.mT @ teacher64_NTK
    own_N, cross_N, theirs_N = (
        gram_NKK.square().sum(dim=(1, 2)) for gram_NKK in (own_NKK, cross_NKK, theirs_NKK)
    )
    gradient_NTK = None
    if slope:
        gradient_NTK = student_NTK @ own_NKK.float()
        gradient_NTK.baddbmm_(teacher_NTK, cross_NKK.float(), alpha=-1).mul_(4)
    return (own_N - 2 * cross_N + theirs_N).clamp(min=0).float(), gradient_NTK


def _grams_are_cheaper(student_NTK: Tensor, teacher_NTK: Tensor) -> bool:
    # Graphics processors may compute float64 at 1/64 of the rate, and hide the matrices' traffic.
    tokens, width = student_NTK.shape[1], max(student_NTK.shape[2], teacher_NTK.shape[2])
    return student_NTK.device.type == "cpu" and tokens >= LENGTH_FOR_GRAMS * width


def _probability_gap(
    student_NTK: Tensor, teacher_NTK: Tensor, padded_N1S: Tensor | None, *, slope: bool
) -> _Found:
    """Sums the squared difference of softmaxes."""
    teacher_NTS = _relations(teacher_NTK, padded_N1S).softmax(dim=-1)
    student_NTS = _relations(student_NTK, padded_N1S).softmax(dim=-1)
    gap_NTS = torch.sub(student_NTS, teacher_NTS, out=teacher_NTS)
    gradient_NTK = None
    if slope:
        slope_NTS = student_NTS * gap_NTS
        mean_NT1 = slope_NTS.sum(dim=-1, keepdim=True)
        slope_NTS.sub_(student_NTS.mul_(mean_NT1))
        gradient_NTK = _through_relations(slope_NTS, student_NTK).mul_(2)
    return gap_NTS.square_().sum(dim=(1, 2)), gradient_NTK


def _divergence(
    student_NTK: Tensor, teacher_NTK: Tensor, padded_N1S: Tensor | None, *, slope: bool
) -> _Found:
    """Sums KL(teacher ‖ student) of the rows."""
    teacher_log_NTS = _relations(teacher_NTK, padded_N1S).log_softmax(dim=-1)
    student_log_NTS = _relations(student_NTK, padded_N1S).log_softmax(dim=-1)
    teacher_NTS = teacher_log_NTS.exp()
    loss_N = teacher_log_NTS.sub_(student_log_NTS).mul_(teacher_NTS).sum(dim=(1, 2))
    slope_NTS = student_log_NTS.exp_().sub_(teacher_NTS)
    # Would add 0, were the rows exactly normalised; so it takes out what their rounding brought in.
    loss_N += slope_NTS.sum(dim=(1, 2))
    return loss_N, _through_relations(slope_NTS, student_NTK) if slope else None


def _relations(projection_NTK: Tensor, padded_N1S: Tensor | None) -> Tensor:
    relation_NTS = projection_NTK @ projection_NTK.mT
    if padded_N1S is not None:
        # Not minus infinity: an example without any token must have no NaN.
        relation_NTS.masked_fill_(padded_N1S, torch.finfo(torch.float32).min)
    return relation_NTS


def _through_relations(slope_NTS: Tensor, student_NTK: Tensor) -> Tensor:
    """Gives the gradient by A of what has the gradient `slope_NTS` by A Aᵀ."""
    return torch.baddbmm(slope_NTS @ student_NTK, slope_NTS.mT, student_NTK)
