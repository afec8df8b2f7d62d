"""How the proxy and the controller are checked, in words: no correlation without its basis."""

from __future__ import annotations

from stillhouse.evaluate.agreement import FEWEST_PAIRS, Agreement, Estimate
from stillhouse.report import wording
from stillhouse.report.controller import ControllerRecord, Episode
from stillhouse.report.proxy_final import ProxyCheck


def estimate(value: Estimate) -> str:
    """A rank correlation; never shown without `estimate_basis`."""
    return wording.signed(value.value)


def estimate_basis(value: Estimate, number: int) -> str:
    """What a rank correlation rests on: its 95 % interval and number of pairs."""
    return f"{wording.signed(value.low)} to {wording.signed(value.high)}, n = {number:,}"


def silence(agreement: Agreement) -> str:
    """Why there is no rank correlation."""
    return agreement.reason or f"too few to say (n = {agreement.count:,})"


def regret(check: ProxyCheck) -> str:
    """What trusting the proxy cost among the students trained to the end, in points."""
    if check.regret is None:
        return ""
    if not check.regret:
        return "Regret: none. The short training put first what is the best of these in the end."
    lost = wording.HUNDRED * check.regret
    told = "less than 0.1" if lost < wording.SMALLEST_POINT else f"{lost:.1f}"
    return (
        f"Regret: {told} points of {check.metric}. By so much the best of these in the end beats "
        "the student that the short training put first."
    )


def noise_ceiling(check: ProxyCheck) -> str:
    """How to read the agreement beside the proxy's agreement with itself."""
    if check.noise is None:
        return (
            "No trial was judged twice, so it is not known how well any ranking could agree with "
            "a short training."
        )
    if check.noise.agreement.spearman is None:
        return (
            "Too few trials were judged twice to know how well any ranking could agree with a "
            "short training."
        )
    return (
        "The noise ceiling is how well the short training agrees with itself under another seed. "
        "An agreement near it means that the proxy cannot be better without more training; one "
        "far below it, that short and full training disagree on the students themselves. Where the "
        "intervals overlap, this run cannot tell which."
    )


def checked_students(check: ProxyCheck) -> str:
    """How many students were trained briefly and to the end."""
    winners, controls = len(check.of_role("winner")), len(check.of_role("control"))
    told = wording.plural("winner", winners), wording.plural("control", controls)
    return f"{winners} {told[0]} and {controls} {told[1]}"


def controller_constants(record: ControllerRecord) -> str:
    """The controller's constants in words, as far as known."""
    parts = [record.constants] if record.constants else []
    if record.planned is not None and record.per_episode is not None:
        parts.append(f"{record.planned} episodes of {record.per_episode} trained candidates")
    if record.passes is not None and record.learning_rate is not None:
        parts.append(f"{record.passes} passes after each at rate {record.learning_rate:g}")
    return ", ".join(parts)


def reward(record: ControllerRecord, metric: str) -> str:
    """The reward's formula; empty where its constants are unknown."""
    if record.target_ms is None or record.alpha is None:
        return ""
    judged = "(1 less hidden-state loss)" if record.quality == "hidden" else metric
    power = wording.signed(record.alpha, "g")
    return f"{judged} × (latency ÷ {wording.milliseconds(record.target_ms)}) to the power {power}"


def learnt_correlation(record: ControllerRecord) -> str:
    """The rank correlation of predicted and true rewards, or why there is none."""
    count, told = record.correlation_count, record.correlation
    if count is None or count < FEWEST_PAIRS:
        return "too few to say" + ("" if count is None else f" (n = {count})")
    if told is None:
        return f"none, for one side is all the same (n = {count:,})"
    return f"{estimate(told)} (95 % interval {estimate_basis(told, count)})"


def episode_basis(episode: Episode) -> str:
    """How many pairs an episode's rank correlation rests on; empty without one."""
    return "" if episode.correlation is None else f"n = {len(episode.predictions)}"
