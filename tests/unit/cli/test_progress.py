import io

from rich.console import Console

from stillhouse.cli.progress import RichNarrator


def told(is_terminal):
    """What a whole stretch of work writes."""
    written = io.StringIO()
    narrator = RichNarrator(Console(file=written, force_terminal=is_terminal, width=200))
    narrator.say("one [fact] of 50 %")
    narrator.begin("Training [x]", 1.0)
    narrator.advance(0.25, "loss 1.0")
    narrator.advance(0.5)
    narrator.begin("Next", 1.0)
    narrator.end()
    narrator.end()
    narrator.advance(1.0)
    return written.getvalue()


def test_away_from_a_terminal_only_facts_are_written():
    assert told(is_terminal=False) == "one [fact] of 50 %\n"


def test_a_terminal_shows_a_bar_with_its_title():
    written = told(is_terminal=True)
    assert "one [fact] of 50 %" in written
    assert "Training [x]" in written
    assert "Next" in written
