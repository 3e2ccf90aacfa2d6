"""Pictures show the numbers as they are, on one scale."""

from lora_lab.plots import pictures

ONE, TWO = [[0.0, 1.0], [2.0, 3.0]], [[-1.0, 0.5]]


def test_each_matrix_is_a_picture_under_its_name() -> None:
    fig = pictures({"one": ONE, "two": TWO})
    assert [(trace.name, [list(row) for row in trace.z]) for trace in fig.data] == [("one", ONE), ("two", TWO)]
    assert [note.text for note in fig.layout.annotations] == ["one", "two"]


def test_one_scale_of_grey_from_the_least_value_to_the_largest() -> None:
    assert {(trace.zmin, trace.zmax) for trace in pictures({"one": ONE, "two": TWO}).data} == {(-1.0, 3.0)}


def test_row_0_is_above_and_a_pixel_is_square() -> None:
    fig = pictures({str(i): ONE for i in range(8)})
    for trace in fig.data:
        axis = fig.layout[trace.yaxis.replace("y", "yaxis")]
        assert (axis.autorange, axis.scaleanchor) == ("reversed", trace.xaxis)


def test_where_there_is_none_it_says_so() -> None:
    assert "no picture" in pictures({}).layout.annotations[0].text
