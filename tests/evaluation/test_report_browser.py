"""The pages in a real browser: they render, offline, in light and dark, and a phone never scrolls sideways."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from auricle import api
from auricle.data.formats import read_data
from auricle.evaluation import figures, pages, spectrograms
from auricle.evaluation.check_report import check_page
from auricle.evaluation.report import Report
from auricle.evaluation.search_page import search_page
from auricle.training import finetune
from browser import CHROMIUM, Browser
from scenes import write_scenes

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
PHONE, DESK = 390, 1200

# Elements that reach beyond the right edge, but for those inside a box that scrolls; pictures; sounds.
MEASURE = """(() => {
  const body = getComputedStyle(document.body), right = (e) => e.getBoundingClientRect().right;
  const leaves = (e) => !e.parentElement.closest(".scroll") && right(e) > innerWidth + 0.5;
  return {
    title: document.title, text: document.querySelector("h1").innerText, paper: body.backgroundColor, ink: body.color,
    width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    wide: [...document.querySelectorAll("body *")].filter(leaves).map((e) => e.outerHTML.slice(0, 80)),
    pictures: [...document.images].map((i) => [i.complete, i.naturalWidth, i.width]),
  };
})()"""
# The length of every sound, or null where the browser cannot decode it.
SOUNDS = """Promise.all([...document.querySelectorAll("audio")].map((element) => fetchless(element.src)));
async function fetchless(source) {
  const bytes = Uint8Array.from(atob(source.split(",")[1]), (c) => c.charCodeAt(0));
  try { return (await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes.buffer)).duration; }
  catch { return null; }
}"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


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
    page.figure(spectrograms.reconstruction([mel], [mel > 1], [mel], ["clip"]), "Pixels", "Spectrograms")
    page.audio(tone, "sound" * 30)
    page.code("auricle pretrain " + "x" * 400)
    return page


@pytest.fixture(scope="module")
def written(
    tones: Path, pretrained: Path, finetuned: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A page of each kind, as the commands make them."""
    folder = tmp_path_factory.mktemp("pages")
    found = {
        "long": long_report(folder).write(folder / "long.html"),
        "pretraining": pages.pretraining_page(pretrained, read_data([tones]).items),
        "fine-tuning": pages.finetuning_page(finetuned, finetune.plan(pretrained, [tones], steps=60)),
        "probe": pages.result_page(
            api.probe(pretrained, tones, head="linear", baselines=["mfcc"]), folder / "probe.html"
        ),
        "evaluation": pages.result_page(api.evaluate(finetuned, tones), folder / "evaluation.html"),
        "detection": detected(folder),
        "check": check_page(api.check(with_copies(tones, folder / "copies"), processes=1), folder / "check.html"),
        "search": searched(pretrained, tones, folder),
    }
    return found


def detected(folder: Path) -> Path:
    """What a detector of generated scenes finds in those that it has not heard."""
    scenes = write_scenes(folder / "scenes", ("train", "train", "val", "train", "test", "train") * 4)
    run = api.finetune("ssast-test", scenes, folder / "detector", random_weights=0, steps=10, quiet=True)
    return pages.result_page(api.evaluate(run, scenes), folder / "detection.html")


def searched(model: Path, tones: Path, folder: Path) -> Path:
    """What is like a sound of a library, of which one file is gone by then."""
    lost = folder / "lost.wav"
    shutil.copy(tones / "audio" / "hiss6.wav", lost)
    library = api.embed_library(model, [*sorted((tones / "audio").iterdir()), lost], folder / "x.npz")
    hits = api.search(library, lost, 5)
    lost.unlink()
    return search_page(library, str(tones / "audio" / "hiss6.wav"), hits, folder / "search.html")


def with_copies(tones: Path, folder: Path) -> Path:
    """A folder with one sound twice, once as AIFF, which browsers do not play."""
    folder.mkdir()
    samples, rate = soundfile.read(tones / "audio" / "buzz4.wav", dtype="int16")
    soundfile.write(folder / "one.wav", samples, rate)
    soundfile.write(folder / "two.aiff", samples, rate)
    return folder


def brightness(colour: str) -> float:
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 765


KINDS = ("long", "pretraining", "fine-tuning", "probe", "evaluation", "detection", "check", "search")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_fits_phone_and_desk_in_light_and_dark_and_asks_for_nothing(
    browser: Browser, written: dict[str, Path], kind: str
) -> None:
    assert written[kind].stat().st_size < 3_000_000
    seen: dict[tuple[int, bool], dict[str, Any]] = {}
    for width, dark in ((PHONE, False), (DESK, False), (PHONE, True)):
        browser.open(written[kind], width, dark=dark)
        found = seen[width, dark] = browser.evaluate(MEASURE)
        assert found["title"].split() == found["text"].split()
        assert found["wide"] == []
        assert found["width"] == width
        assert found["height"] > 700
        for complete, natural, shown in found["pictures"]:
            assert complete
            assert natural > 100
            # Never so small that its letters cannot be read.
            assert shown >= min(480, 0.69 * natural)
        assert browser.messages == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [written[kind].as_uri()]
    light, dark_ = seen[PHONE, False], seen[PHONE, True]
    assert brightness(light["paper"]) > 0.9
    assert brightness(light["ink"]) < 0.2
    assert brightness(dark_["paper"]) < 0.2
    assert brightness(dark_["ink"]) > 0.8


@pytest.mark.parametrize(
    "kind, least",
    [
        ("long", 1),
        ("pretraining", 20),
        ("fine-tuning", 6),
        ("evaluation", 6),
        ("detection", 3),
        ("check", 2),
        ("search", 5),
    ],
)
def test_every_sound_of_a_page_can_be_decoded(
    browser: Browser, written: dict[str, Path], kind: str, least: int
) -> None:
    browser.open(written[kind], DESK)
    lengths = browser.evaluate(SOUNDS)
    assert len(lengths) >= least
    assert all(length and length > 0.1 for length in lengths)


BOXES = "[...document.images].map((i) => i.getBoundingClientRect()).map((b) => [b.x, b.y, b.right, b.bottom])"


@pytest.mark.parametrize("kind", ["long", "pretraining", "evaluation", "detection"])
def test_in_the_dark_every_picture_is_light_on_dark(
    browser: Browser, written: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    shades: dict[bool, list[np.ndarray]] = {}
    for dark in (False, True):
        browser.open(written[kind], DESK, dark=dark)
        boxes = browser.evaluate(BOXES)
        browser.screenshot(tmp_path / "page.png")
        page = Image.open(tmp_path / "page.png").convert("L")
        shades[dark] = [np.asarray(page.crop(tuple(map(round, box)))) for box in boxes]
    assert shades[True]
    for light, dark_ in zip(shades[False], shades[True], strict=True):
        # The most frequent shade is the ground, and letters are far from it.
        assert np.bincount(dark_.ravel()).argmax() < 80
        assert dark_.max() > 150
        assert light.mean() > dark_.mean()


def test_on_a_phone_the_cells_of_sentences_stand_below_each_other(browser: Browser, tmp_path: Path) -> None:
    page = Report("Files")
    page.table(["file", "reason", "detail"], [["folder/" * 9 + "a.wav", "truncated", "words " * 30]])
    page.table(["a", "b"], [[1, 2]])
    page.table([f"column {k}" for k in range(12)], [[k / 7 for k in range(12)]])
    place = page.write(tmp_path / "page.html")
    cells = (
        "[...document.querySelectorAll('.wordy tbody tr > *')].map((e) => e.getBoundingClientRect())"
        ".map((b) => [Math.round(b.x), b.right <= innerWidth])"
    )
    browser.open(place, PHONE)
    assert browser.evaluate(cells) == [[16, True]] * 3
    says = "getComputedStyle(document.querySelectorAll('.wordy td')[1], '::before').content"
    assert "detail" in browser.evaluate(says)
    assert browser.evaluate("document.querySelectorAll('.wordy').length") == 1
    browser.open(place, DESK)
    assert len({x for x, _ in browser.evaluate(cells)}) == 3


def test_a_hit_that_is_gone_is_told(browser: Browser, written: dict[str, Path]) -> None:
    browser.open(written["search"], DESK)
    text = browser.evaluate("document.body.innerText")
    assert re.search(
        r"\d\. .*lost.wav, 0.00 to \d\.\d\d s \(\d\.\d{4}\): it cannot be heard any more \(missing\)\.", text
    )
    # The query, and four of five hits.
    assert browser.evaluate("document.querySelectorAll('audio').length") == 5


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_spot_of_the_map_says_which_clip_it_is_and_plays_it(
    browser: Browser, written: dict[str, Path], width: int
) -> None:
    browser.open(written["probe"], width)
    style = "getComputedStyle(document.querySelector('.spot'), '::after')"
    assert browser.evaluate(f"{style}.visibility") == "hidden"
    browser.point_at(".spot")
    browser.wait_for(f"{style}.visibility === 'visible'")
    text = browser.evaluate("document.querySelector('.spot').dataset.text")
    assert text.partition(": ")[0].endswith((".wav", ".flac"))
    assert text in browser.evaluate(f"{style}.content").replace("\\", "")
    # Its sound begins when it is pressed, and ends when another one's begins.
    browser.press(".spot")
    browser.wait_for("document.querySelector('.spot').matches('.playing')")
    assert browser.evaluate("document.querySelector('.spot').matches(':hover')")
    browser.evaluate("document.querySelectorAll('[data-sound]')[1].click()")
    first, second = (f"document.querySelectorAll('[data-sound]')[{n}].matches('.playing')" for n in (0, 1))
    browser.wait_for(f"{second} && !{first}")
    assert browser.messages == []


def test_spots_lie_on_the_points_of_the_picture(browser: Browser, tmp_path: Path) -> None:
    from auricle.evaluation import maps
    from auricle.evaluation.report import Spot

    rng = np.random.default_rng(1)
    points, labels = rng.normal(size=(8, 2)), list("abcdefgh")
    figure = maps.embedding_map(points, labels)
    page = Report("Map")
    places = maps.places(figure, points)
    page.map(figure, [Spot(x, y, name) for (x, y), name in zip(places, labels, strict=True)], "", "")
    browser.open(page.write(tmp_path / "map.html"), DESK)
    box, spots = browser.evaluate(
        "(() => { const box = (e) => { const b = e.getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2, b.width, b.height]; };"
        " return [box(document.images[0]), [...document.querySelectorAll('.spot')].map(box)]; })()"
    )
    x0, y0, width, height = box
    found = [((x - x0) / width + 0.5, (y - y0) / height + 0.5) for x, y, _, _ in spots]
    np.testing.assert_allclose(found, places, atol=2e-3)
