from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("title", "study"),
    [
        ("Reuters-21578", "ge_reuters21578"),
        ("GoEmotions", "ge_goemotions"),
        ("AAPD", "ge_aapd"),
        ("generated", "ge_generated"),
    ],
)
def test_the_table_of_the_global_embedding_has_the_rows_of_its_studies(title, study):
    page = (DOCS / "studies.md").read_text(encoding="utf-8").splitlines()
    report = (DOCS / "studies" / study / "differences.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in report if "SGM+GE - SGM" in line]
    assert rows and [line for line in page if line.startswith(f"| {title} |")] == [f"| {title} {row}" for row in rows]
