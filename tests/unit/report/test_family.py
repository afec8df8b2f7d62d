import shutil

import pytest

from stillhouse.report.family import read_family


def test_every_search_is_read_in_order(family_run):
    notes = []
    first, second = read_family(family_run, notes).searches

    assert notes == []
    assert (first.limits, first.student) == ({"flops_fraction": 0.3}, 1)
    assert (second.limits, second.student) == ({"params_m": 2.5, "latency_ms": 3.0}, 2)
    assert (first.best.space, first.best.relation_loss, first.best.flops_fraction) == (
        "small",
        4.05,
        0.25,
    )
    assert [other.relation_loss for other in first.runners_up] == [4.25, 5.75]


def test_labels_come_from_the_architecture_itself(family_run):
    family = read_family(family_run, [])

    assert family.searches[0].best.architecture == "4 × 128, 2 heads of 32, FFN 512, gelu"
    assert family.supernets[0].subnets[1].architecture == "2 × 128, 2 heads of 32, FFN 512, gelu"


def test_an_architecture_of_another_version_keeps_its_given_fields(family_run, rewrite):
    best = {"architecture": {"family": "chain", "blocks": 7}}
    rewrite(family_run / "family.json", {"searches": [{"best": best}, {"best": {"space": "a"}}]})

    other, nameless = read_family(family_run, []).searches

    assert other.best.architecture == "family=chain, blocks=7"
    assert (nameless.best.architecture, nameless.student, nameless.limits) == ("", None, {})


def test_supernets_stand_smallest_first_with_their_facts(family_run):
    tiny, small = read_family(family_run, []).supernets

    assert (tiny.space, small.space) == ("tiny", "small")
    assert [subnet.flops_fraction for subnet in small.subnets] == [0.2, 0.25, 0.4]
    assert (small.steps, small.tokens, small.training_loss) == (6000, 3_072_000, 4.6591)
    assert (small.wall_s, small.lowest_loss, tiny.lowest_loss) == (8040.0, 3.95, 5.75)


def test_flops_have_a_length_and_a_teacher(family_run):
    family = read_family(family_run, [])

    assert family.flops_length == 64
    assert family.teacher_flops == pytest.approx(1.4e9)
    assert family.flops_limits == (0.3,)


def test_a_run_without_supernets_has_no_family(full_run):
    notes = []

    assert read_family(full_run, notes) is None
    assert notes == []


def test_supernets_that_were_never_searched_are_read(family_run):
    (family_run / "family.json").unlink()
    (family_run / "supernets/tiny/subnets.csv").unlink()
    notes = []

    family = read_family(family_run, notes)

    assert (family.searches, notes) == ((), [])
    assert [supernet.space for supernet in family.supernets] == ["small", "tiny"]  # unknown: last
    assert family.supernets[1].lowest_loss is None


def test_a_supernet_that_is_being_written_is_none_yet(family_run):
    shutil.copytree(family_run / "supernets/tiny", family_run / "supernets/.base.tmp")

    assert len(read_family(family_run, []).supernets) == 2


def test_searches_without_their_supernets_are_read(family_run):
    shutil.rmtree(family_run / "supernets")

    family = read_family(family_run, [])

    assert (len(family.searches), family.supernets, family.flops_length) == (2, (), None)


def test_a_table_cut_off_in_the_middle_is_read_so_far_and_noted(family_run):
    path = family_run / "supernets/small/subnets.csv"
    path.write_text(path.read_text(encoding="utf-8")[:-100], encoding="utf-8")
    notes = []

    (_, small) = read_family(family_run, notes).supernets

    assert len(small.subnets) == 2
    assert notes == [
        "1 of 3 rows of supernets/small/subnets.csv lack an architecture or a loss; "
        "they are left out"
    ]


@pytest.mark.parametrize("row", ["[1],4.0,1,1,0.1,64", "{},4.0,1,1,0.1,64", "3,4.0", ",4.0", '""'])
def test_a_row_that_describes_no_subnet_is_left_out(family_run, row):
    with (family_run / "supernets/tiny/subnets.csv").open("a", encoding="utf-8") as file:
        file.write(row + "\n")
    notes = []

    assert len(read_family(family_run, notes).supernets[0].subnets) == 2
    assert notes[0].startswith("1 of 3 rows")


def test_a_table_without_flops_still_tells_its_losses(family_run):
    path = family_run / "supernets/tiny/subnets.csv"
    lines = ["architecture,loss", '"{""family"": ""bert""}",6.25']
    path.write_text("\n".join(lines), encoding="utf-8")
    notes = []

    tiny = read_family(family_run, notes).supernets[-1]

    assert (tiny.lowest_loss, tiny.weighed) == (6.25, ())
    assert notes == [
        "1 of 1 rows of supernets/tiny/subnets.csv lack FLOPs; they are not drawn",
    ]


def test_a_table_that_is_no_text_is_noted(family_run):
    (family_run / "supernets/tiny/subnets.csv").write_bytes(b"architecture,loss\n\xff\xfe")
    notes = []

    assert read_family(family_run, notes).supernets[-1].subnets == ()
    assert notes[0].startswith("supernets/tiny/subnets.csv could not be read")


def test_a_search_without_a_student_is_noted(family_run, rewrite, describe):
    (first, second) = describe["family.json"]()["searches"]
    rewrite(family_run / "family.json", {"searches": [first | {"best": None}, 3, second]})
    notes = []

    assert [search.student for search in read_family(family_run, notes).searches] == [2]
    assert notes == ["family.json search 1 names no student; it is left out"]


@pytest.mark.parametrize("content", ['{"searches": [', "[1]", "null"])
def test_a_damaged_list_of_searches_leaves_the_supernets(family_run, content):
    (family_run / "family.json").write_text(content, encoding="utf-8")
    notes = []

    family = read_family(family_run, notes)

    assert (family.searches, len(family.supernets)) == ((), 2)
    assert notes[0].startswith("family/family.json could not be read")


def test_facts_that_are_no_numbers_are_missing(family_run, rewrite):
    rewrite(family_run / "supernets/tiny/supernet.json", {"steps": "many", "loss": float("nan")})

    tiny = read_family(family_run, []).supernets[0]

    assert (tiny.steps, tiny.training_loss, tiny.wall_s) == (None, None, None)
