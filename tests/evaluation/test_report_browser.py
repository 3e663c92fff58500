"""A report in a real browser: it renders, offline, and a phone never scrolls sideways."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from auricle.evaluation import figures
from auricle.evaluation.report import Report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")

# The report in frames as wide as the screens, as a window cannot be as narrow as a phone; what they measure is printed
# into the outer page.
FRAME = '<iframe style="border:0;width:{width}px;height:2000px" srcdoc="{page}"></iframe>'
SCRIPT = """<pre id="found"></pre><script>
const measure = (frame) => {
  const inner = frame.contentDocument, body = frame.contentWindow.getComputedStyle(inner.body);
  const right = (e) => e.getBoundingClientRect().right;
  const leaves = (e) => !e.parentElement.closest(".scroll") && right(e) > frame.clientWidth + 0.5;
  return {
    title: inner.title, text: inner.querySelector("h1").innerText, paper: body.backgroundColor, ink: body.color,
    width: inner.documentElement.scrollWidth, height: inner.documentElement.scrollHeight,
    wide: [...inner.querySelectorAll("body *")].filter(leaves).map((e) => e.outerHTML.slice(0, 80)),
    pictures: [...inner.images].map((i) => [i.complete, i.naturalWidth, i.width]),
  };
};
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(measure);
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


def long_report(folder: Path) -> Report:
    """Everything a report can hold, with words and tables wider than a phone."""
    rng = np.random.default_rng(0)
    tone = folder / "tone.wav"
    soundfile.write(tone, 0.1 * np.sin(np.arange(4000) / 4), 16000)
    page = Report("A title with one " + "unbreakable" * 8 + " word", "Subtitle <not a tag>")
    page.facts({"path": "folder/" * 30, "clips": 12345, "fact" * 20: 0.5})
    for heading in ("Curves", "Classes", "Words" * 20, "Sound"):
        page.heading(heading)
    page.text("word" * 100)
    page.table([f"column {k}" for k in range(12)], rng.normal(size=(3, 12)).tolist(), "note" * 60)
    page.figure(figures.confusion(np.eye(40), [f"class {k}" for k in range(40)]), "caption" * 30, "alternative")
    mel = rng.normal(size=(200, 64))
    page.figure(figures.reconstruction([mel], [mel > 1], [mel], ["clip"]), "Pixels", "Spectrograms")
    page.audio(tone, "sound" * 30)
    page.code("auricle pretrain " + "x" * 400)
    return page


def look(page: Report, folder: Path, widths: Sequence[int], *flags: str) -> list[dict[str, Any]]:
    """What the browser measured of the page at each of `widths` CSS pixels."""
    harness = folder / "harness.html"
    frames = [FRAME.format(width=width, page=html.escape(page.html())) for width in widths]
    harness.write_text(f"<!DOCTYPE html>{''.join(frames)}{SCRIPT}", encoding="utf-8")
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--virtual-time-budget=5000"),
        *(
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,2100",
            "--hide-scrollbars",
            *flags,
            "--dump-dom",
            harness.as_uri(),
        ),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    _, found, rest = run.stdout.partition('<pre id="found">')
    assert found, f"the browser printed no page: {run.stderr[-2000:]}"
    measured = html.unescape(rest.partition("</pre>")[0])
    assert measured, "the report did not load"
    return list(json.loads(measured))


def brightness(colour: str) -> float:
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 765


def test_report_renders_and_fits_phone_and_desk(tmp_path: Path) -> None:
    page, widths = long_report(tmp_path), (390, 1200)
    for width, found in zip(widths, look(page, tmp_path, widths), strict=True):
        assert found["title"] == found["text"] == page.title
        assert found["wide"] == []
        assert found["width"] == width
        assert found["height"] > 1000
        assert len(found["pictures"]) == 2
        for complete, natural, shown in found["pictures"]:
            assert complete
            assert natural > 100
            # Never so small that its letters cannot be read.
            assert shown >= 480
        assert brightness(found["paper"]) > 0.9
        assert brightness(found["ink"]) < 0.2


def test_report_is_dark_where_the_reader_prefers_it(tmp_path: Path) -> None:
    (found,) = look(Report("Title"), tmp_path, [390], "--blink-settings=preferredColorScheme=0")
    assert brightness(found["paper"]) < 0.2
    assert brightness(found["ink"]) > 0.8
