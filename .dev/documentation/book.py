"""Builds the book: `docs/` -> `api/book`, which the node serves at `/docs/book` and the wheel carries.

Zensical makes the pages; its strict mode fails for a link or an anchor that leads nowhere. What it writes is then made
fit for the node's content security policy: a script or a style that stands in a page becomes a file of its own, since
the policy lets nothing inline run. No page may load anything from elsewhere: that is looked at, not hoped for.

    python -Im documentation.book          what `make docs` runs
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from documentation import llms

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "api" / "book"
CONTENTS = "zensical.toml"

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_ALIGNED = re.compile(r' style="text-align: (left|right|center);"')
_STYLE = re.compile(r'<[^>]+ style="|<style')
_LOADED = re.compile(r'<(?:script|img|iframe|source)\b[^>]*?\bsrc="([^"]+)"|<link\b[^>]*?\bhref="([^"]+)"')
_UNUSED = ("sitemap.xml", "404.html", "assets/stylesheets/modern")


class BookError(Exception):
    """The book cannot be built; the message says which page and why."""


def build(out: Path = OUT, root: Path = ROOT) -> int:
    """Build the book of the checkout `root` into `out`, in place of what is there. Returns the number of its pages.

    It is built from a copy, so that two builds at once do not meet. Raises BookError; `out` is then as it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(root / "docs", work / "docs", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(root / CONTENTS, work)
        built = work / "site"
        _run_zensical(work)
        for name in _UNUSED:
            path = built / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        pages = sorted(built.rglob("*.html"))
        for page in pages:
            page.write_text(fit_for_policy(page.read_text(), page.relative_to(built), built))
        for page in (work / "docs").rglob("*.md"):  # beside its HTML, for whoever reads text
            shutil.copy(page, built / page.relative_to(work / "docs"))
        (built / "llms.txt").write_text(llms.text(prefix=""))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(built, out)
    return len(pages)


def _run_zensical(work: Path) -> None:
    command = [sys.executable, "-Im", "zensical", "build", "--strict", "-f", str(work / CONTENTS)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        output = _COLOURS.sub("", done.stdout + done.stderr).partition("Traceback")[0]
        raise BookError(f"docs: a page is wrong\n{output}")


def fit_for_policy(html: str, page: Path, folder: Path) -> str:
    """`html` of `page` (relative to `folder`) without anything inline; inline scripts become files in `folder`.

    Raises BookError for what would be loaded from elsewhere, and for a style that no class replaces.
    """
    up = "../" * (len(page.parts) - 1)

    def as_file(match: re.Match[str]) -> str:
        name = f"assets/javascripts/page.{hashlib.sha256(match[1].encode()).hexdigest()[:10]}.js"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(match[1])
        return f'<script src="{up}{name}"></script>'

    html = _ALIGNED.sub(r' class="aligned-\1"', _INLINE.sub(as_file, html))
    if style := _STYLE.search(html):
        raise BookError(f"{page}: a style that stands in the page: {style[0][:200]}")
    for loaded in _LOADED.finditer(html):
        address = loaded[1] or loaded[2]
        if "//" in address:
            raise BookError(f"{page}: loads {address} from elsewhere")
    return html


def main() -> None:
    """Build, and say how much came of it."""
    try:
        pages = build()
    except BookError as error:
        sys.exit(str(error))
    size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    sys.stdout.write(f"docs: {pages} pages, {size // 1000} kB in {OUT.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
