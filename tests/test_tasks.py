"""What is derived from the chosen rows of the task table."""

from __future__ import annotations

import pytest

from deepem import tasks
from deepem.tasks import NEAREST_EDGES, TASKS, by_output, choose, labels, out_spec
from deepem.utils.errors import InputError

EDGES = [(0, 0, 5), (-2, 0, 0)]


def flags(rows) -> list[str]:
    return [row.flag for row in rows]


def test_rows_come_in_table_order():
    assert flags(choose(["glia", "mit", "aff"])) == ["aff", "mit", "glia"]
    every = [row.flag for row in TASKS if row.flag != "psd"]
    assert flags(choose(reversed(every), edges=EDGES)) == every


def test_long_range_has_a_channel_per_edge():
    (row,) = choose(["long"], edges=EDGES)
    assert (row.channels, row.edges, row.name, row.source) == (2, tuple(EDGES), "long_range", "seg")
    assert choose(["aff"], edges=EDGES)[0].edges == NEAREST_EDGES


def test_channel_counts_can_be_set_where_they_may():
    assert [row.channels for row in choose(["syn", "blv"])] == [1, 2]
    assert [row.channels for row in choose(["syn", "mit", "blv"], channels={"syn": 2, "blv": 1, "mit": 7})] == [2, 1, 1]


def test_choosing_leaves_the_table_as_it_is():
    before = TASKS
    choose(["long", "syn"], edges=EDGES, channels={"syn": 2})
    assert tasks.TASKS is before
    assert {row.flag: row.channels for row in TASKS}["syn"] == 1


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"flags": []}, "task: got none, wants a weight for at least one of --aff"),
        ({"flags": ["axon"]}, "task: got axon, wants one of --aff"),
        ({"flags": ["syn", "psd"]}, "--syn: got together with --psd, wants one task for the output synapse"),
        ({"flags": ["long"]}, "--edges: got none, wants an edge z,y,x for each channel of --long"),
        ({"flags": ["syn"], "channels": {"syn": 0}}, "--syn_num_channels: got 0, wants 1 or more"),
    ],
)
def test_bad_choices_are_named(kw, message):
    with pytest.raises(InputError) as error:
        choose(**kw)
    assert str(error.value).startswith(message)


def test_outputs_and_labels_follow_from_the_rows():
    rows = choose(["aff", "long", "bdr", "mit"], edges=EDGES)
    assert list(out_spec(rows, (8, 64, 32)).items()) == [
        ("affinity", (3, 8, 64, 32)),
        ("long_range", (2, 8, 64, 32)),
        ("boundary", (1, 8, 64, 32)),
        ("mitochondria", (1, 8, 64, 32)),
    ]
    assert labels(rows) == ("seg", "bdr", "mit")


def test_rows_are_found_by_output_and_the_labels_that_are_there():
    assert flags(by_output(["mitochondria", "input", "affinity"]).values()) == ["aff", "mit"]
    assert by_output(["synapse"])["synapse"].flag == "syn"
    assert by_output(["synapse"], ["img", "psd"])["synapse"].flag == "psd"
    assert by_output(["synapse"], ["psd", "syn"])["synapse"].flag == "syn"
    assert by_output(["synapse"], [])["synapse"].flag == "syn"


def test_a_new_task_of_a_known_kind_is_one_row(monkeypatch):
    """The flag, output, label and criterion of a spine task follow from its row alone."""
    from deepem.loss import BCELoss, criterion

    row = tasks.Task("spn", "spine", "spn", "binary", 1, "dendritic spine")
    monkeypatch.setattr(tasks, "TASKS", (*TASKS, row))
    chosen = choose(["spn", "aff"])
    assert flags(chosen) == ["aff", "spn"]
    assert out_spec(chosen, (1, 2, 3))["spine"] == (1, 1, 2, 3)
    assert labels(chosen) == ("seg", "spn")
    assert by_output(["spine"])["spine"] is row
    assert isinstance(criterion(chosen[1]), BCELoss)
