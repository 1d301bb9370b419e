"""What the site needs beyond docs/: pages from other folders, notebooks, links that work in both places.

Every page is written for a code host: its links are relative to its file. In the site a page of docs/
stands at the top, and all others keep their path. So links are rewritten here, and files that they lead
to are brought in. A link to a file that is not there is left as it is, and the strict build refuses it.
"""

import posixpath
import re
from pathlib import Path

import nbconvert
import nbformat
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# Pages that the menu names, and that lie outside docs/. Others are found by following links.
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")
# What the theme loads from another host, to search in pages opened from disk.
WORKER = re.compile(r'<script src="https://[^"]*/iframe-worker/shim"></script>')
FENCED = re.compile(r"(^```.*?^```$)", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
# `ds.name` and `ds.name(…)`, as HTML, where it is no link yet and no part of a code block.
PUBLIC_NAME = re.compile(
    r"<code>ds\.((?:addons\.)?\w\w+)((?:\([^<]*\))?)</code>(?!\s*</(?:a|autoref)>)"
)


def in_repository(uri: str, outside: bool) -> str:
    """The path of a page's file in the repository."""
    return uri if outside else f"docs/{uri}"


def in_site(path: str) -> str:
    """Where the site has a file of the repository."""
    if path.startswith("examples/") and path.endswith(".ipynb"):
        path = path.removesuffix(".ipynb") + ".md"
    return path.removeprefix("docs/")


def links(text: str):
    """The files that a page links to, as it writes them."""
    for part in FENCED.split(text)[::2]:
        for match in LINK.finditer(part):
            if "://" not in match[2] and not match[2].startswith("mailto:"):
                yield match[2]


def target(path: str, link: str) -> str:
    """The file in the repository that a link on the page `path` leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def notebook_page(path: Path, config) -> list[File]:
    """A notebook as Markdown, with the outputs that it was committed with; and its pictures."""
    uri = in_site(path.relative_to(ROOT).as_posix())
    name = path.stem
    text, resources = nbconvert.MarkdownExporter().from_notebook_node(
        nbformat.read(path, as_version=4),
        {"output_files_dir": name, "unique_key": name},
    )
    text = re.sub(r"<style scoped>.*?</style>\n?", "", text, flags=re.DOTALL)
    text = text.replace(' border="1" class="dataframe"', "")  # the theme draws tables of its own
    folder = posixpath.dirname(uri)
    pages = [File.generated(config, uri, content=text)]
    for picture, data in resources["outputs"].items():
        pages.append(File.generated(config, posixpath.join(folder, picture), content=data))
    pages.append(File(f"examples/{path.name}", str(ROOT), config.site_dir, False))
    return pages


def on_files(files, config):
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        for file in notebook_page(path, config):
            files.append(file)
    waiting = [in_repository(file.src_uri, False) for file in files.documentation_pages()]
    waiting = [path for path in waiting if (ROOT / path).exists()] + list(OUTSIDE)
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
        if path.endswith(".md"):
            for link in links((ROOT / path).read_text(encoding="utf-8")):
                found = target(path, link)
                if found not in seen and (ROOT / found).is_file() and not found.endswith(".ipynb"):
                    seen.add(found)
                    waiting.append(found)
    return files


def on_page_markdown(markdown, page, config, files):
    outside = page.file.src_dir is None or Path(page.file.src_dir) == ROOT
    path = in_repository(page.file.src_uri, outside)
    here = posixpath.dirname(page.file.src_uri) or "."

    def rewritten(match):
        link = match[2]
        if "://" in link or not (ROOT / target(path, link)).is_file():
            return match[0]
        there = posixpath.relpath(in_site(target(path, link)), here)
        return f"{match[1]}{there}{match[3]}"

    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(rewritten, part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html, page, config, files):
    """Names of the package lead to what the API says of them; autorefs refuses one that is not there."""

    def linked(match):
        name = f"deformstab.{match[1]}"
        return f'<autoref identifier="{name}"><code>ds.{match[1]}{match[2]}</code></autoref>'

    return PUBLIC_NAME.sub(linked, html)


def on_post_page(output, page, config):
    own = posixpath.relpath(
        "_site/worker_from_disk.js", posixpath.dirname(page.file.dest_uri) or "."
    )
    return WORKER.sub(f'<script src="{own}"></script>', output)
