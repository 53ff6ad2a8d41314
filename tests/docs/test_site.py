"""The site of the documentation: it is built without a warning, fetches nothing, and has a place for each page."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the tools of the site are not installed: pip install '.[docs]'")
ROOT = Path(__file__).parents[2]
# What a browser would fetch when it shows a page. Links that a reader may click are no such thing.
FETCHED = re.compile(
    r'<(?:script|img|iframe|source)[^>]*\ssrc="(https?:)?//|<link(?![^>]*rel="(?:canonical|next|prev)")[^>]*href="(https?:)?//|'
    r"@import|url\(['\"]?(https?:)?//"
)


@pytest.fixture(scope="module")
def hooks():
    specification = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    copy = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", "build/documented"]
    subprocess.run(copy, cwd=ROOT, check=True, capture_output=True)
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    finished = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return folder


def test_the_site_fetches_nothing(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert FETCHED.search(page.read_text(encoding="utf-8")) is None, page.name


def test_every_public_name_is_described_in_the_reference(site, hooks):
    pages = "".join(path.read_text(encoding="utf-8") for path in site.glob("reference/*.html"))
    members = {}
    for package in hooks.PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", []):
            members.setdefault(id(getattr(module, name)), []).append(f"{package}.{name}")
    assert len(members) > 30
    for names in members.values():
        assert any(f'id="{name}"' in pages for name in names), names


def test_every_command_is_in_the_reference(site):
    from sgm_hf.cli import COMMANDS

    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f'id="sgm-hf-{command}"' in page
    assert "--train_file" in page


def test_notebooks_are_pages_with_their_pictures(site):
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page = (site / "notebooks" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        pictures = re.findall(rf'src="({notebook.stem}_\d+\.png)"', page)
        assert pictures and all((site / "notebooks" / name).stat().st_size > 1000 for name in pictures)


def test_links_of_the_repository_are_those_of_the_site(hooks):
    page = type("Page", (), {"file": type("File", (), {"src_uri": "corpora.md"})})
    text = "[card](../datasets_scripts/cards/aapd.md) [r](../README.md#use) [n](notebooks/generation.ipynb) [w](https://x)"
    assert hooks.on_page_markdown(text, page) == (
        "[card](cards/aapd.md) [r](index.md#use) [n](notebooks/generation.md) [w](https://x)"
    )
