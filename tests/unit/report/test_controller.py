from stillhouse.report.controller import read_controller


def test_everything_of_the_file_is_read(checked_run):
    notes = []
    record = read_controller(checked_run, notes)

    assert notes == []
    assert (record.constants, record.planned, record.per_episode) == ("default", 3, 2)
    assert (record.target_ms, record.alpha, record.quality) == (5.0, -0.06, "task")
    assert (record.correlation.value, record.correlation_count) == (0.61, 45)
    assert record.episodes[1].predictions == ((0.42, 0.85), (0.43, 0.86))
    assert record.episodes[1].trials == 2


def test_predictions_of_an_untrained_model_are_told_apart(checked_run):
    record = read_controller(checked_run, [])

    assert [episode.number for episode in record.learnt_episodes] == [1, 2]


def test_predictions_that_belong_to_no_rewards_are_left_out(checked_run, rewrite, describe):
    episodes = [
        describe["episode"](1, [0.1, 0.2], [0.5]),
        describe["episode"](2, [None, 0.2], [0.5, 0.6]),
    ]
    rewrite(checked_run / "controller.json", describe["controller.json"](episodes=episodes))

    record = read_controller(checked_run, [])

    assert [episode.predictions for episode in record.episodes] == [(), ((0.2, 0.6),)]


def test_a_correlation_without_its_interval_is_none(checked_run, rewrite, describe):
    bare = {"value": 0.9, "count": 45}
    rewrite(checked_run / "controller.json", describe["controller.json"](correlation=bare))

    assert read_controller(checked_run, []).correlation is None


def test_a_run_without_a_controller_has_none(full_run):
    notes = []

    assert read_controller(full_run, notes) is None
    assert notes == []
