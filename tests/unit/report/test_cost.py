import pytest

from stillhouse.report.cost import read_cost
from stillhouse.report.cost_lines import amounts, basis, phases

COUNTED = {
    "seconds": 7511.0,
    "tokens": 3_072_000,
    "energy_wh": 12.5,
    "co2_g": 8.55,
    "how": "counted (RAPL)",
}


def test_amounts_are_told_in_units_that_can_be_read():
    assert amounts(read_cost(COUNTED)) == [
        ("worked", "2 h 05 min"),
        ("trained on", "3.1 M tokens"),
        ("energy", "12.5 Wh"),
        ("CO₂", "8.55 g"),
    ]


@pytest.mark.parametrize(
    ("energy_wh", "told"),
    [(0.0412, "0.0412 Wh"), (999.0, "999 Wh"), (1234.0, "1.23 kWh"), (5.678e6, "5,678 kWh")],
)
def test_large_energies_are_told_in_thousands(energy_wh, told):
    assert dict(amounts(read_cost(COUNTED | {"energy_wh": energy_wh})))["energy"] == told


@pytest.mark.parametrize("absent", list(COUNTED))
def test_what_nobody_counted_is_left_out(absent):
    cost = read_cost({name: value for name, value in COUNTED.items() if name != absent})
    told = {name for name, _ in amounts(cost)}

    left_out = {
        "seconds": {"worked"},
        "tokens": {"trained on"},
        "energy_wh": {"energy"},
        "co2_g": {"CO₂"},
        "how": {"energy", "CO₂"},  # nobody knows what such a figure is worth
    }
    assert told == {"worked", "trained on", "energy", "CO₂"} - left_out[absent]


def test_an_older_run_has_no_cost():
    cost = read_cost({})

    assert amounts(cost) == []
    assert basis(cost) == ""


def test_energy_is_told_with_how_it_was_obtained_and_the_factor_of_its_emissions():
    told = basis(read_cost(COUNTED))

    assert "The energy is counted (RAPL)" in told
    assert "at 0.684 kg per kWh" in told  # 8.55 / 12.5
    assert "estimate" not in basis(read_cost(COUNTED | {"co2_g": None}))
    assert "per kWh" not in basis(read_cost(COUNTED | {"energy_wh": 0.0, "co2_g": 0.0}))


def test_a_part_of_a_cost_is_told_as_a_part():
    part = read_cost(COUNTED | {"is_partial": True, "since": "2026-05-04T03:02:01+00:00"})

    assert basis(part).startswith(
        "These amounts are only those since 2026-05-04 03:02 UTC: the run"
    )
    assert "began before costs were counted" in basis(part)
    assert "The energy is counted (RAPL)" in basis(part)
    assert "those of its later part:" in basis(read_cost({"is_partial": True, "seconds": 1.0}))
    assert (part.tokens, part.all_tokens) == (3_072_000, None)


def test_a_whole_cost_is_told_without_remark():
    """Whatever else the file knows of it, such as what each worker did."""
    whole = read_cost(COUNTED | {"workers": {"1": {"seconds": 3.0}}})

    assert whole == read_cost(COUNTED)
    assert whole.all_tokens == 3_072_000
    assert "began" not in basis(whole)


def test_phases_share_the_longest():
    told = list(phases({"teacher": 50.0, "search": 200.0}))

    assert [(phase.name, phase.share) for phase in told] == [("teacher", 0.25), ("search", 1.0)]
    assert [phase.share for phase in phases({"teacher": 0.0})] == [0.0]
