"""What a layout says: which columns hold the text, and how files are written."""

import pytest

from sgm_hf.data import Layout, load_files


def write(path, content, encoding="utf-8"):
    path.write_text(content, encoding=encoding)
    return path


@pytest.mark.parametrize("columns", ["title,abstract", "title, abstract", ["title", "abstract"]])
def test_the_texts_of_several_columns_are_joined_without_the_empty_ones(tmp_path, columns):
    rows = "A title,An abstract.,x\nOnly a title, ,x\n,Only an abstract.,x\n"
    path = write(tmp_path / "t.csv", "title,abstract,labels\n" + rows)
    texts = load_files(path, text_column=columns)["train"]["text"][:]
    assert texts == ["A title\nAn abstract.", "Only a title", "Only an abstract."]
    texts = load_files(path, text_column=columns, text_separator=" -- ")["train"]["text"][:]
    assert texts[0] == "A title -- An abstract."
    assert load_files(path, text_column="abstract,title", text_separator="\\t")["train"]["text"][0] == (
        "An abstract.\tA title"
    )


def test_a_null_text_is_left_out_of_several_and_an_error_alone(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"title": null, "body": "b", "labels": "x"}\n')
    assert load_files(path, text_column="title,body")["train"]["text"][:] == ["b"]
    with pytest.raises(ValueError, match="line 1: expected a text in 'title', got NoneType"):
        load_files(path, text_column="title")
    path = write(tmp_path / "e.jsonl", '{"title": null, "body": " ", "labels": "x"}\n')
    with pytest.raises(ValueError, match="e.jsonl, line 1: the text .'title,body'. is empty"):
        load_files(path, text_column="title,body")
    path = write(tmp_path / "m.jsonl", '{"title": "a", "body": "b", "labels": "x"}\n{"title": "a", "labels": "x"}\n')
    with pytest.raises(ValueError, match="m.jsonl, line 2: expected a text in 'body', got nothing"):
        load_files(path, text_column="title,body")


def test_a_column_whose_name_has_a_comma_is_one_column(tmp_path):
    path = write(tmp_path / "t.csv", '"title, short",title,labels\na,b,x\n')
    assert load_files(path, text_column="title, short")["train"]["text"][:] == ["a"]
    assert load_files(path, text_column=["title, short", "title"])["train"]["text"][:] == ["a\nb"]


def test_a_missing_one_of_several_columns_is_named(tmp_path):
    path = write(tmp_path / "t.csv", "title,labels\na,x\n")
    with pytest.raises(ValueError, match="no column 'abstract'; its columns are 'title', 'labels'.*--text_column"):
        load_files(path, text_column="title,abstract")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-8-sig", "shift-jis", "gb18030"])
def test_files_of_other_encodings_are_read(tmp_path, name, encoding):
    text = "日本" if encoding in ("shift-jis", "gb18030") else "café"
    records = {"t.csv": f"text,labels\n{text},x\n", "t.jsonl": f'{{"text": "{text}", "labels": "x"}}\n'}
    records["t.json"] = f"[{records['t.jsonl']}]"
    path = write(tmp_path / name, records[name], encoding)
    assert load_files(path, encoding=encoding)["train"]["text"][:] == [text]
    if encoding != "utf-8-sig":
        with pytest.raises(ValueError, match="not UTF-8 .* with --encoding, e.g. cp1252"):
            load_files(path)


def test_encodings_that_cannot_be_read_say_what_to_do():
    with pytest.raises(ValueError, match="iconv -f utf-16 -t utf-8"):
        Layout(encoding="utf-16")
    for unknown in ("cp99", "base64", ""):
        with pytest.raises(ValueError, match="is no encoding"):
            Layout(encoding=unknown)


@pytest.mark.parametrize(("rival", "columns"), [(";", "title,body"), ("\t", ["title"]), ("|", "text")])
def test_another_delimiter_is_named_whatever_the_columns_are_called(tmp_path, rival, columns):
    path = write(tmp_path / "t.csv", rival.join(("title", "body", "x")) + "\n" + rival.join("ab1") + "\n")
    with pytest.raises(ValueError) as caught:
        load_files(path, text_column=columns, labels_columns="*")
    assert str(caught.value).endswith(f"Set --delimiter {rival!r}.")
    columns = ["title"] if columns == "text" else columns
    assert len(load_files(path, text_column=columns, labels_columns="x", delimiter=rival)["train"]) == 1


def test_a_file_of_one_column_is_read_though_its_name_has_a_comma(tmp_path):
    path = write(tmp_path / "t.csv", '"text; whole"\na\n')
    with pytest.warns(UserWarning, match="predicted"):
        assert load_files(test_file=path, text_column="text; whole")["test"]["text"][:] == ["a"]
