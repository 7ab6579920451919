"""What is derived from the chosen rows of the task table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deepem import tasks
from deepem.tasks import NEAREST_EDGES, TASKS, Task, by_output, choose, from_plain, labels, out_spec, table, to_plain
from deepem.utils.errors import InputError

EDGES = [(0, 0, 5), (-2, 0, 0)]
SPINE = Task("spn", "spine", "spn", "binary", 1, "dendritic spine")


def flags(rows) -> list[str]:
    return [row.flag for row in rows]


def test_rows_come_in_table_order():
    assert flags(choose(["glia", "mit", "aff"])) == ["aff", "mit", "glia"]
    every = [row.flag for row in TASKS if row.flag != "psd"]
    assert flags(choose(reversed(every), edges=EDGES, channels={"sem": 4})) == every


def test_long_range_has_a_channel_per_edge():
    (row,) = choose(["long"], edges=EDGES)
    assert (row.channels, row.edges, row.name, row.source) == (2, tuple(EDGES), "long_range", "seg")
    assert choose(["aff"], edges=EDGES)[0].edges == NEAREST_EDGES


def test_channel_counts_can_be_set_where_they_may():
    assert [row.channels for row in choose(["syn", "blv"])] == [1, 2]
    assert [row.channels for row in choose(["syn", "mit", "blv"], channels={"syn": 2, "blv": 1, "mit": 7})] == [2, 1, 1]


def test_classes_are_counted_and_weighted():
    (row,) = choose(["sem"], channels={"sem": 3}, class_weights={"sem": [1, 0.5, 0]})
    assert (row.channels, row.class_weights) == (3, (1, 0.5, 0))
    assert choose(["sem"], channels={"sem": 256})[0].class_weights == ()


def test_the_names_of_the_flags_that_say_more():
    rows = {row.flag: row for row in TASKS}
    assert rows["syn"].channels_flag == "syn_num_channels"
    assert (rows["sem"].channels_flag, rows["sem"].weights_flag) == ("sem_classes", "sem_class_weights")
    assert rows["syn"].weights_flag is None
    assert [flag for flag, row in rows.items() if row.along_edges] == ["long"]


def test_choosing_leaves_the_rows_as_they_are():
    rows = (replace(TASKS[1]), replace(TASKS[3]))
    chosen = choose(["long", "syn"], edges=EDGES, channels={"syn": 2}, rows=rows)
    assert [row.channels for row in chosen] == [2, 2]
    assert [row.channels for row in rows] == [0, 1]


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"flags": []}, "task: got none, wants a weight for at least one of --aff"),
        ({"flags": ["axon"]}, "task: got axon, wants one of --aff"),
        ({"flags": ["syn", "psd"]}, "--syn: got together with --psd, wants one task for the output synapse"),
        ({"flags": ["long"]}, "--edges: got none, wants an edge z,y,x for each channel of --long"),
        ({"flags": ["syn"], "channels": {"syn": 0}}, "--syn_num_channels: got 0, wants 1 or more"),
        ({"flags": ["sem"]}, "--sem_classes: got none, wants"),
        ({"flags": ["sem"], "channels": {"sem": 1}}, "--sem_classes: got 1, wants 2 or more"),
        ({"flags": ["sem"], "channels": {"sem": 257}}, "--sem_classes: got 257, wants at most 256"),
        (
            {"flags": ["sem"], "channels": {"sem": 3}, "class_weights": {"sem": [1, 2]}},
            "--sem_class_weights: got 1 2, wants 3 weights of 0 or more",
        ),
        (
            {"flags": ["sem"], "channels": {"sem": 2}, "class_weights": {"sem": [1, -1]}},
            "--sem_class_weights: got 1 -1, wants 2 weights",
        ),
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


def test_a_table_may_have_further_rows():
    """What a dataset module brings is chosen, and found by its output, as the rows of the package are."""
    rows = table([SPINE])
    assert rows == (*TASKS, SPINE)
    chosen = choose(["spn", "aff"], rows=rows)
    assert flags(chosen) == ["aff", "spn"]
    assert out_spec(chosen, (1, 2, 3))["spine"] == (1, 1, 2, 3)
    assert labels(chosen) == ("seg", "spn")
    assert by_output(["spine"], rows=rows) == {"spine": SPINE}
    assert by_output(["spine"]) == {}
    with pytest.raises(InputError, match="task: got spn"):
        choose(["spn"])


def test_a_row_that_is_there_already_is_not_repeated():
    assert table([TASKS[0], SPINE, to_plain(SPINE)]) == (*TASKS, SPINE)
    assert table([]) == TASKS


@pytest.mark.parametrize("row", [*TASKS, SPINE, *choose(["sem"], (), {"sem": 3}, {"sem": [1, 2.5, 0]})])
def test_a_row_travels_as_plain_values(row):
    plain = to_plain(row)
    assert from_plain(json.loads(json.dumps(plain))) == row
    assert from_plain(plain) == row


@pytest.mark.parametrize(
    "values", [{}, {"flag": "x"}, {**to_plain(SPINE), "edges": [1]}, {**to_plain(SPINE), "channels": "a"}]
)
def test_plain_values_that_are_no_row_are_bad_input(values):
    with pytest.raises(InputError, match=r"^task: got .*, wants the fields of a row"):
        from_plain(values)


def test_plain_values_of_a_later_version_are_read():
    assert from_plain({**to_plain(SPINE), "invented": 1}) == SPINE


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (replace(SPINE, kind="voxel"), "the kind voxel, wants one of affinity, binary"),
        (replace(SPINE, name="dendritic spine"), "'dendritic spine', wants names"),
        (replace(SPINE, flag="../x"), r"'\.\./x', wants names"),
        (replace(SPINE, channels=0), "0 channels, wants 1"),
        (replace(SPINE, edges=((0, 0, 1),)), "edges for the kind binary"),
        (replace(SPINE, kind="affinity"), "1 channels for 0 edges"),
        (replace(SPINE, help=""), "no help"),
        (replace(SPINE, fallback="spn"), "the fallback spn"),
        (replace(SPINE, class_weights=(1.0,)), "1 class weights"),
        (replace(SPINE, kind="semantic", channels=2, class_weights=(1.0, -1.0)), "the class weight -1"),
        (replace(SPINE, kind="semantic", channels=300), "300 channels, wants 2 to 256"),
        (replace(TASKS[0], help="another"), "two different rows"),
    ],
)
def test_a_row_that_is_not_whole_is_refused(row, says):
    with pytest.raises(InputError, match=f"^task .*: got {says}"):
        table([row])


def test_every_row_of_the_package_is_whole():
    assert [tasks.flaw_of(row) for row in TASKS if tasks.flaw_of(row)] == []
