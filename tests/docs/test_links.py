"""Every relative link of the repository's Markdown pages leads to a file, and its anchor to a heading there."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "datasets_scripts" / "cards").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def text_of(path: Path) -> str:
    """A page without its blocks of code, or the Markdown cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return CODE.sub("", text)


def anchors(path: Path) -> set[str]:
    """The anchors that a git host and MkDocs both give to the headings of a page."""
    titles = re.findall(r"^#+ +(.*?) *$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES + NOTEBOOKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for link in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), f"{link}: no such file"
        assert target.is_relative_to(ROOT), f"{link}: outside of the repository"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_a_broken_link_and_a_broken_anchor_are_found(tmp_path):
    (tmp_path / "page.md").write_text(
        "# A `title`, here\n\n```\n# no title\n```\n[x](#a-title-here)\n", encoding="utf-8"
    )
    assert anchors(tmp_path / "page.md") == {"a-title-here"}
    assert LINK.findall(text_of(tmp_path / "page.md")) == ["#a-title-here"]


def test_the_readme_links_every_page_for_readers_of_a_git_host():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(text_of(ROOT / "README.md"))}
    pages = {*(ROOT / "docs").glob("*.md"), *NOTEBOOKS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"}
    assert {str(path.relative_to(ROOT)) for path in pages - linked} == set()
