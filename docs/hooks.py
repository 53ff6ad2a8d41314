"""What MkDocs adds to the pages of this folder: pages made from other files, and links to files outside of the folder.

A hook of mkdocs.yml. In the repository the pages link each other and other files by relative paths. The site has the
README as its first page, CHANGELOG, CONTRIBUTING and the cards of the corpora as pages, and other linked files as is.
"""

import base64
import contextlib
import importlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Pages of the site that are files elsewhere in the repository.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    **{
        f"datasets_scripts/cards/{path.name}": f"cards/{path.name}"
        for path in ROOT.glob("datasets_scripts/cards/*.md")
    },
}
SOURCES = {page: source for source, page in PAGES.items()}
# A package names what is public in __all__.
PACKAGES = ("sgm_hf", *(f"sgm_hf.{name}" for name in ("modeling", "data", "training", "metrics", "analysis")))
PACKAGES += ("sgm_hf.baselines", "sgm_hf.datasets_scripts", "sgm_hf.programs")
LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")


# ---- pages that are made ----


def read_source(path: str) -> str:
    """A Markdown file of the repository without the header that the Hub reads."""
    return re.sub(r"\A---\n.*?\n---\n", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.DOTALL)


def reference_pages() -> Iterator[tuple[str, str]]:
    """Path and text of the page of each package: its public names, each described where it comes first."""
    described: dict[int, str] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        lines, others = [f"# {package}", "", (module.__doc__ or "").strip(), ""], []
        for name in getattr(module, "__all__", []):
            first = described.setdefault(id(getattr(module, name)), f"{package}.{name}")
            if first == f"{package}.{name}":
                lines += [f"::: {first}", ""]
            else:
                others.append(f"- `{name}`: [`{first}`][{first}]\n")
        yield f"reference/{package}.md", "\n".join([*lines[:4], *others, *lines[4:]])


def notebook_pages() -> Iterator[tuple[str, str | bytes]]:
    """Path and contents of each notebook as Markdown, and of its pictures. Progress and warnings are left out."""
    for path in sorted(DOCS.glob("notebooks/*.ipynb")):
        parts, pictures = [], []
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(source)
                continue
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                if output.get("name") == "stdout":
                    parts.append(f"```text\n{''.join(output['text']).strip()}\n```")
                elif "image/png" in output.get("data", {}):
                    pictures.append(f"{path.stem}_{len(pictures) + 1}.png")
                    parts.append(f"![]({pictures[-1]})")
                    yield f"notebooks/{pictures[-1]}", base64.b64decode(output["data"]["image/png"])
        yield f"notebooks/{path.stem}.md", "\n\n".join(parts) + "\n"


def command_page() -> str:
    """What `sgm-hf` and each of its commands print with --help."""
    from sgm_hf import cli

    os.environ["COLUMNS"] = "96"
    sections = ["# Commands", "", "What `sgm-hf COMMAND --help` prints.", "", block(["--help"])]
    for name in cli.COMMANDS:
        sections += ["", f"## sgm-hf {name}", "", block([name, "--help"])]
    return "\n".join(sections) + "\n"


def block(arguments: list[str]) -> str:
    """The output of the program as a block of text."""
    from sgm_hf import cli

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main(arguments)
    return f"```text\n{printed.getvalue().strip()}\n```"


def made_pages() -> Iterator[tuple[str, str | bytes]]:
    """Path below the site and contents of everything that is no file of this folder."""
    yield from ((page, read_source(source)) for source, page in PAGES.items())
    yield from reference_pages()
    yield from notebook_pages()
    yield "reference/commands.md", command_page()


# ---- links ----


def site_path(path: Path) -> str:
    """Where a file of the repository is on the site."""
    if path.is_relative_to(DOCS):
        path = path.relative_to(DOCS)
        return path.with_suffix(".md").as_posix() if path.suffix == ".ipynb" else path.as_posix()
    name = path.relative_to(ROOT).as_posix()
    return PAGES.get(name, f"files/{name}")


def linked_files(text: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Each relative link of a page in that folder, and the file of the repository that it leads to."""
    for link in LINK.findall(text):
        path = Path(os.path.normpath(folder / link))
        if path.is_relative_to(ROOT) and path.is_file():
            yield link, path


def folder_of(page: str) -> Path:
    """The folder of the file that a page was written in, from which its links start."""
    return (ROOT / SOURCES[page]).parent if page in SOURCES else (DOCS / page).parent


# ---- what MkDocs calls ----


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made, and the files outside of this folder that pages link to."""
    from mkdocs.structure.files import File

    for path, contents in made_pages():
        files.append(File.generated(config, path, content=contents))
    for page in list(files.documentation_pages()):
        for _, path in list(linked_files(page.content_string, folder_of(page.src_uri))):
            if files.get_file_from_path(site_path(path)) is None:
                files.append(File.generated(config, site_path(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make the links of the repository those of the site."""
    here = page.file.src_uri
    paths = {
        link: os.path.relpath(site_path(path), Path(here).parent)
        for link, path in linked_files(markdown, folder_of(here))
    }
    return LINK.sub(lambda match: paths.get(match[0], match[0]), markdown)
