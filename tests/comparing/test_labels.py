"""True classes from folders and CSV files. Unknown concepts are never ignored silently."""

import numpy as np
import pytest

from gradscore.comparing.labels import UNKNOWN, agreement, from_csv, from_folders
from gradscore.errors import InputError

CLASSES = ["cat", "dog", "7"]


def csv_file(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_folders_name_the_class():
    ids = ["dog/1.png", "test/cat/2.png", "7/deep/er/3.png", "cat\\4.png", "cat/dog/5.png"]
    assert from_folders(ids, CLASSES).tolist() == [1, 0, 2, 0, 1]


def test_a_folder_that_is_no_class_is_an_error_that_counts_and_shows():
    ids = ["dog/1.png", "noise/2.png", "noise/3.png", "dgo/4.png"]
    with pytest.raises(InputError, match=r"3 of 4 inputs .*'dgo', 'noise' \(such as 'noise/2.png'\).*'cat', 'dog'"):
        from_folders(ids, CLASSES)
    assert from_folders(ids, CLASSES, unknown="incorrect").tolist() == [1, UNKNOWN, UNKNOWN, UNKNOWN]


def test_an_index_is_not_a_folder_name():
    with pytest.raises(InputError, match="'0'"):
        from_folders(["0/1.png"], CLASSES)


def test_an_input_in_no_folder_asks_for_a_csv():
    with pytest.raises(InputError, match=r"1 of 2 inputs lie in no folder.*'2.png'.*--labels"):
        from_folders(["dog/1.png", "2.png"], CLASSES)


def test_csv_of_class_names_in_any_order_with_rows_to_spare(tmp_path):
    path = csv_file(tmp_path, 'note,label,id\r\nx,dog,b\r\ny,"7",a\r\nz,cat,unused\r\n', "utf-8-sig")
    assert from_csv(path, ["a", "b"], CLASSES).tolist() == [2, 1]


def test_csv_of_class_indices(tmp_path):
    path = csv_file(tmp_path, "id,label\na,2\nb,0\n")
    assert from_csv(path, ["a", "b"], CLASSES).tolist() == [2, 0]


def test_a_class_name_that_looks_like_an_index_wins(tmp_path):
    path = csv_file(tmp_path, "id,label\na,1\nb,0\n")
    assert from_csv(path, ["a", "b"], ["1", "0"]).tolist() == [0, 1]


def test_csv_labels_beyond_the_classes(tmp_path):
    path = csv_file(tmp_path, "id,label\na,cat\nb,horse\nc,1\n")
    with pytest.raises(InputError, match=r"2 of 3 inputs have a label .*'1', 'horse'.*--unknown-labels incorrect"):
        from_csv(path, ["a", "b", "c"], CLASSES)
    assert from_csv(path, ["a", "b", "c"], CLASSES, unknown="incorrect").tolist() == [0, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,class\na,cat\n", r"columns id and label; it has \['id', 'class'\]"),
        ("", "columns id and label"),
        ("id,label\nb,cat\n", r"no label for 1 of 1 inputs \(such as 'a'; its first id is 'b'\)"),
        ("id,label\na,\n", "line 2: id or label is empty"),
        ("id,label\na\n", "line 2: id or label is empty"),
        ("id,label\na,cat\na,dog\n", "line 3: 'a' is 'cat' above and 'dog' here"),
        ('id,label\na,"cat\n', "cannot be read as a CSV"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        from_csv(csv_file(tmp_path, text), ["a"], CLASSES)


def test_csv_that_is_absent_or_no_text(tmp_path):
    with pytest.raises(InputError, match="no such labels file"):
        from_csv(tmp_path / "none.csv", ["a"], CLASSES)
    path = tmp_path / "binary.csv"
    path.write_bytes(b"id,label\n\xff\xfe,cat\n")
    with pytest.raises(InputError, match="cannot be read as a CSV file in UTF-8"):
        from_csv(path, ["a"], CLASSES)


def test_a_repeated_row_that_agrees_is_fine(tmp_path):
    path = csv_file(tmp_path, "id,label\na,cat\na,cat\n")
    assert from_csv(path, ["a"], CLASSES).tolist() == [0]


def test_repeated_class_names_and_a_wrong_choice():
    with pytest.raises(InputError, match="class names repeat"):
        from_folders(["a/1.png"], ["a", "a"])
    with pytest.raises(InputError, match="'error' or 'incorrect'"):
        from_folders(["a/1.png"], ["a"], unknown="drop")


def test_agreement_is_never_true_for_unknown_concepts_and_error_rows():
    predicted, true = np.array([0, 1, 2, -1, -1]), np.array([0, 2, UNKNOWN, UNKNOWN, 0])
    assert agreement(predicted, true).tolist() == [True, False, False, False, False]
