"""The documentation site builds without a warning, and asks nobody for anything when it is read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser

REPOSITORY = Path(__file__).resolve().parents[2]
# What a browser fetches of itself: scripts, styles, pictures and fonts, but not links.
FETCHED = re.compile(r"""(?:<(?:script|img|iframe|source)\b[^>]*\bsrc=|<link\b[^>]*\bhref=)["']?(https?:)?//[^"'> ]+""")
IN_STYLES = re.compile(r"""(?:url\(|@import\s+)["']?(https?:)?//[^"') ]+""")


# As in .ci/run. With --quiet, mkdocs hides warnings from itself, so that --strict stops at none.
BUILD = ("mkdocs", "build", "--strict", "--site-dir")


def built(folder: Path, config: Path = REPOSITORY / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    """Build a site into a folder."""
    return subprocess.run(
        [sys.executable, "-m", *BUILD, str(folder), "--config-file", str(config)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src")])},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = built(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("link, fails", [("other.md", False), ("gone.md", True), ("other.md#gone", True)])
def test_a_broken_link_fails_the_build(tmp_path: Path, link: str, fails: bool) -> None:
    assert f"\n{' '.join(BUILD)} " in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Home\n\n[A link]({link}), [another](other.md).\n")
    (docs / "other.md").write_text("# Other\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {REPOSITORY / 'mkdocs.yml'}\ndocs_dir: {docs}\nextra_css: []\nhooks: []\nplugins: []\n"
        "nav: [index.md, other.md]\n"
    )
    done = built(tmp_path / "site", config)
    assert (done.returncode != 0) == fails, done.stderr
    assert ("gone" in done.stderr) == fails


def test_every_page_is_built_and_in_the_menu(site: Path) -> None:
    menu = (site / "index.html").read_text(encoding="utf-8")
    pages = sorted((REPOSITORY / "docs").rglob("*.md"))
    assert len(pages) > 20
    for page in pages:
        target = page.relative_to(REPOSITORY / "docs").with_suffix(".html").as_posix()
        assert (site / target).is_file()
        assert f'href="{target}"' in menu or target == "index.html", target


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not FETCHED.search(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not IN_STYLES.search(style.read_text(encoding="utf-8")), style


def test_options_and_signatures_are_filled_in(site: Path) -> None:
    pretrain = (site / "commands" / "pretrain.html").read_text(encoding="utf-8")
    assert "--checkpoint-every" in pretrain
    assert "as many steps as fit in M minutes" in pretrain
    reference = (site / "api.html").read_text(encoding="utf-8")
    assert "max_minutes" in reference
    assert "Returns" in reference or "returns the run directory" in reference


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
def test_pages_fit_a_phone_and_ask_nobody_for_anything(site: Path, tmp_path: Path) -> None:
    papers = {}
    with Browser(tmp_path) as browser:
        for page in sorted(set(site.rglob("*.html")) - {site / "404.html"}):
            browser.open(page, 390)
            assert browser.evaluate("document.documentElement.scrollWidth") == 390, page
            assert browser.messages == [], page
            assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}, page
        for dark in (False, True):
            browser.open(site / "index.html", 1200, dark=dark)
            papers[dark] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert papers[False] != papers[True]
