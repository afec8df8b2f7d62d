import pytest

from stillhouse.report import drawing


def luminance(colour):
    """Relative luminance as WCAG 2.1 defines it."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [{}, drawing.DARK], ids=["light", "dark"])
def test_text_and_marks_are_seen_on_both_backgrounds(scheme):
    paper = scheme.get(drawing.PAPER, drawing.PAPER)
    texts = (drawing.INK, drawing.MUTED)
    marks = (drawing.FRONT, drawing.STUDENT, drawing.COMPETITOR, drawing.LIMIT, drawing.FAILED)

    assert all(contrast(scheme.get(colour, colour), paper) >= 4.5 for colour in texts)
    assert all(contrast(scheme.get(colour, colour), paper) >= 3 for colour in marks)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_shades_differ_and_are_seen_on_both_backgrounds(count):
    shades = [drawing.shade(place, count) for place in range(count)]

    assert len(set(shades)) == count
    for paper in (drawing.PAPER, drawing.DARK[drawing.PAPER]):
        assert min(contrast(colour, paper) for colour in shades) >= 3


def test_shades_lead_from_one_end_over_the_middle_to_the_other():
    first, middle, last = drawing.SMALL_TO_LARGE

    assert [drawing.shade(place, 3) for place in range(3)] == [first, middle, last]
    assert drawing.shade(1, 5) == "#5f78d0"  # halfway of 2f86d6 and 8f6bc9, halves to even
