import pytest
from torch.utils.tensorboard import SummaryWriter

from stillhouse.report import write_report
from stillhouse.report.gather import gather
from stillhouse.report.supernet_losses import MOST_POINTS, draw_losses, read_losses


@pytest.fixture
def curves_run(family_run):
    def write(space, steps, terms=3, suffix=""):
        log = SummaryWriter(
            str(family_run / "tensorboard" / f"supernet-{space}"), filename_suffix=suffix
        )
        for step in steps:
            for term in range(terms):
                log.add_scalar(f"loss/term_{term}", 10.0 * term + step, step)
        log.close()

    write("small", [20, 40, 60])
    write("tiny", range(1, MOST_POINTS * 3), terms=2)
    return family_run


def test_each_subnet_of_a_step_has_a_curve(curves_run):
    small, tiny = read_losses(curves_run)

    assert (small.space, len(small.curves), len(tiny.curves)) == ("small", 3, 2)
    assert list(small.curves[1]) == [(20, 30.0), (40, 50.0), (60, 70.0)]


def test_long_curves_are_thinned(curves_run):
    _, tiny = read_losses(curves_run)

    assert len(tiny.curves[0]) <= MOST_POINTS
    assert tiny.curves[0][0] == (1, 1.0)


def test_the_ends_of_the_space_are_named_and_lie_before_the_random_ones(curves_run):
    figures = draw_losses(read_losses(curves_run))

    assert [trace["name"] for trace in figures["losses-1"]["data"]] == [
        "random 1",
        "largest",
        "smallest",
    ]
    dashes = {trace["line"]["dash"] for trace in figures["losses-1"]["data"]}
    assert len(dashes) == 3  # told apart by more than their colour


def test_a_run_without_curves_draws_none(family_run):
    assert read_losses(family_run) == ()
    assert "by subnet" not in write_report(family_run).read_text(encoding="utf-8")


def test_files_that_hold_no_curves_are_passed_over(family_run):
    folder = family_run / "tensorboard" / "supernet-small"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1.vm.1.0").write_bytes(b"half a file")

    assert read_losses(family_run) == ()


def test_the_page_shows_a_picture_for_each_supernet(curves_run):
    page = write_report(curves_run).read_text(encoding="utf-8")

    assert [f'id="losses-{number}"' in page for number in (1, 2, 3)] == [True, True, False]
    assert len(gather(curves_run).loss_curves) == 2
