import logging

from stillhouse.run.progress import LoggingNarrator


def test_facts_go_to_the_log_and_progress_stays_quiet(caplog):
    narrator = LoggingNarrator()
    with caplog.at_level(logging.INFO):
        narrator.say("100 % done")
        narrator.begin("Training", 1.0)
        narrator.advance(0.5, "loss 1.0")
        narrator.end()
    assert [record.getMessage() for record in caplog.records] == ["100 % done"]
