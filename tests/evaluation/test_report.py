"""A report is one self-contained, safe and repeatable HTML file."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

from auricle.errors import ConfigError, DataError
from auricle.evaluation import figures, maps, report, style
from auricle.evaluation.report import Report
from auricle.evaluation.results import quantity

HOSTILE = """<script>alert('x')</script> & "quoted" 'single' </style></code></title> http://example.org/x.png"""
VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Tags with attributes and text in order; fails on tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text_of(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


def parsed(page: Report) -> Page:
    return Page(page.html())


def noise_figure(inches: float = 1.0) -> Figure:
    """A picture that compresses badly, of about 3 * (200 * inches) ** 2 bytes."""
    figure = Figure(figsize=(inches, inches))
    figure.add_axes((0, 0, 1, 1)).imshow(np.random.default_rng(0).random((600, 600, 3)), interpolation="nearest")
    return figure


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.1 * np.sin(np.arange(4000) / 4), 16000)
    return path


@pytest.fixture
def full(tone: Path) -> Report:
    """A report with hostile text in every place that takes text."""
    page = Report(HOSTILE, HOSTILE)
    for _ in range(4):
        page.heading(HOSTILE)
    page.text(HOSTILE)
    page.facts({HOSTILE: HOSTILE})
    page.table([HOSTILE, "n"], [[HOSTILE, 1]], HOSTILE)
    page.figure(figures.confusion([[1]], [HOSTILE]), HOSTILE, HOSTILE)
    page.audio(tone, HOSTILE)
    page.code(HOSTILE)
    return page


def test_nothing_is_loaded_from_outside(full: Report) -> None:
    page = parsed(full)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster", "data", "action", "background"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value
    assert page.all("script") == [{}]
    (style,) = page.text_of("style")
    assert "url(" not in style
    assert "@import" not in style
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    (script,) = page.text_of("script")
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{own}'"
    ]


def test_every_text_is_shown_as_it_is(full: Report) -> None:
    page = parsed(full)
    for tag in ("title", "h1", "h2", "p", "a", "dt", "dd", "th", "figcaption", "code"):
        assert HOSTILE in page.text_of(tag), tag
    assert page.all("img")[0]["alt"] == HOSTILE


def test_page_is_semantic(full: Report) -> None:
    page = parsed(full)
    assert {"header", "nav", "main", "section", "h1", "h2", "dl", "table", "thead", "figure", "audio"} <= {
        tag for tag, _ in page.tags
    }
    assert len(page.all("h1")) == 1
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert all(heading["scope"] in {"col", "row"} for heading in page.all("th"))
    assert "prefers-color-scheme: dark" in page.text_of("style")[0]
    assert "@media print" in page.text_of("style")[0]


def test_equal_content_gives_an_equal_file(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        page = Report("Title", "Subtitle")
        page.heading("Numbers")
        page.table(["a"], [[1.5]])
        page.figure(figures.bars([("ours", 0.9, 0.8, 0.95, "set")]), "caption", "alt")
        assert page.write(tmp_path / "new folder" / name) == tmp_path / "new folder" / name
    first, second = ((tmp_path / "new folder" / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_page_cannot_replace_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got a folder"):
        Report("Title").write(tmp_path)


def test_text_that_utf8_or_html_cannot_hold_is_replaced(tmp_path: Path) -> None:
    page = Report("Title")
    page.text("name \udcff, control \x00\x1b, line\r\nend")
    source = page.write(tmp_path / "page.html").read_text(encoding="utf-8")
    assert r"<p>name \udcff, control " + "\ufffd\ufffd, line\nend</p>" in source


def test_blank_lines_separate_paragraphs() -> None:
    page = Report("Title")
    page.text("one\nstill one\n\n \ntwo\n")
    assert parsed(page).text_of("p") == ["one\nstill one", "two\n"]


@pytest.mark.parametrize("count, listed", [(0, 0), (3, 0), (4, 4)])
def test_contents_are_listed_from_four_headings(count: int, listed: int) -> None:
    page = Report("Title")
    for index in range(count):
        page.heading(f"Part {index}")
    assert len(parsed(page).all("a")) == listed


def test_links_of_the_contents_lead_to_distinct_sections() -> None:
    page = Report("Title")
    for heading in ("Same", "Same", "same 2", "«»", "Über ‘quotes’ & more"):
        page.heading(heading)
    found = parsed(page)
    targets = [str(section["id"]) for section in found.all("section")]
    assert [link["href"] for link in found.all("a")] == [f"#{target}" for target in targets]
    assert len(set(targets)) == 5
    assert not any(re.search(r"\s", target) for target in targets)


def cells(rows: list[list[Any]], header: list[str] | None = None) -> list[list[str]]:
    """Text of the table body, a list for each row."""
    page = Report("Title")
    page.table(header or [f"c{k}" for k in range(len(rows[0]))], rows)
    body = page.html().partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall("<tr>(.*?)</tr>", body)
    ]


class TestTable:
    def test_numbers_of_a_column_share_their_decimals(self) -> None:
        assert cells([[0.5, 12.25, 1234.56], [0.1234, 3.0, 0.5], [float("nan"), None, -2.0]]) == [
            ["0.500", "12.25", "1\u202f234.6"],
            ["0.123", "3.00", "0.5"],
            ["–", "–", "−2.0"],
        ]

    @pytest.mark.parametrize(
        "value, shown",
        [
            (1234567, "1\u202f234\u202f567"),
            (np.int64(-5), "−5"),
            (True, "yes"),
            (np.bool_(False), "no"),
            (None, "–"),
            (float("inf"), "–"),
            (0.00001234, "1.2e−05"),
            (0.0, "0"),
            (np.float32(0.25), "0.25"),
            ("1e-4 <", "1e-4 &lt;"),
            (quantity(0.75, 0.5, 0.875), "0.750 0.500 to 0.875"),
            (quantity(0.75), "0.75"),
            (quantity(None, 0.1, 0.2), "– 0.1 to 0.2"),
        ],
    )
    def test_values_are_written_for_reading(self, value: Any, shown: str) -> None:
        assert cells([[value]]) == [[shown]]

    def test_columns_of_numbers_align_right(self) -> None:
        page = Report("Title")
        columns = {
            "int": [1, None],
            "float": [0.5, float("nan")],
            "quantity": [quantity(0.5, 0.4, 0.6), ""],
            "unit": ["3 min", "12.5 min"],
            "interval": ["0.91 [0.89, 0.93]", "−0.5 ± 0.1"],
            "text": ["a", "b"],
            "mixed": [1, "b"],
            "date": ["2024-01-01", "2024-01-02"],
            "flag": [True, False],
            "long": ["words " * 10, ""],
            "empty": [None, ""],
        }
        page.table(list(columns), list(zip(*columns.values(), strict=True)))
        kinds = [heading.get("class") for heading in parsed(page).all("th") if heading["scope"] == "col"]
        assert dict(zip(columns, kinds, strict=True)) == {
            **dict.fromkeys(("int", "float", "quantity", "unit", "interval"), "number"),
            **dict.fromkeys(("text", "mixed", "date", "flag", "empty"), "short"),
            "long": None,
        }

    def test_ragged_rows_are_refused(self) -> None:
        with pytest.raises(DataError, match="row 1 has 1 cells, expected 2"):
            Report("Title").table(["a", "b"], [[1, 2], [3]])

    def test_table_without_rows_is_drawn(self) -> None:
        page = Report("Title")
        page.table(["a", "b"], [], "Nothing yet.")
        assert parsed(page).text_of("th", "p") == ["a", "b", "Nothing yet."]

    def test_a_table_of_long_rows_leaves_room_for_what_follows(self) -> None:
        page = Report("Title")
        page.table(["path", "n"], [["folder/" * 200, k] for k in range(900)])
        found = parsed(page)
        shown = len(found.all("tr")) - 1
        assert 150 < shown < 250
        assert found.text_of("p") == [f"The first {shown} of 900 rows."]
        assert len(page.html()) < 400_000

    def test_long_tables_are_cut_and_say_so(self) -> None:
        page = Report("Title")
        page.table(["n"], [[k] for k in range(2500)], "A note.")
        found = parsed(page)
        assert len(found.all("tr")) == 1001
        assert found.text_of("p") == ["The first 1\u202f000 of 2\u202f500 rows. A note."]


def source_of(page: Page, tag: str = "img") -> tuple[str, bytes]:
    """Kind and content of the first embedded picture or sound."""
    kind, _, content = str(page.all(tag)[0]["src"]).removeprefix("data:").partition(";base64,")
    return kind, base64.b64decode(content, validate=True)


class TestFigure:
    def test_plain_figures_are_vectors_at_100_pixels_for_an_inch(self) -> None:
        page = Report("Title")
        page.figure(figures.bars([("ours", 0.9, 0.8, 0.95, "set")]), "The caption", "The alternative")
        found = parsed(page)
        kind, content = source_of(found)
        assert kind == "image/svg+xml"
        assert b"<svg" in content
        assert found.all("img")[0]["width"] == "700"
        assert found.all("img")[0]["alt"] == "The alternative"
        assert found.text_of("figcaption") == ["The caption"]

    def test_a_dense_cloud_is_pixels_and_its_words_stay_letters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "SVG_LIMIT", 100_000)
        points = np.random.default_rng(0).normal(size=(1500, 2))
        page = Report("Title")
        page.figure(maps.embedding_map(points, ["only"] * 1500), "c", "a")
        kind, content = source_of(parsed(page))
        assert kind == "image/svg+xml"
        assert b"data:image/png;base64" in content
        assert b"<use" in content
        assert len(content) < len(style.svg(maps.embedding_map(points, ["only"] * 1500)))

    def test_pictures_have_the_colours_of_the_page(self) -> None:
        page = Report("Title")
        page.figure(figures.bars([("ours", 0.9, 0.8, 0.95, "set")]), "c", "a")
        _, content = source_of(parsed(page))
        light, dark = re.findall(r":root\{(.*?)\}", content.decode())
        assert f":{style.INK};" in light
        assert f":{style.DARK[style.INK]};" in dark
        # No colour of the light page is left behind, and there is no ground.
        drawn = content.decode().partition("</style>")[2].partition("</style>")[2]
        assert not set(re.findall(r"#[0-9a-f]{6}\b", drawn)) & set(style.DARK)
        assert "#ffffff" not in drawn
        # The ground of a picture is that of its card.
        (css,) = parsed(page).text_of("style")
        assert re.findall(r"--card: (#\w+)", css) == [style.PAPER, style.DARK[style.PAPER]]

    def test_page_stays_below_its_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "SVG_LIMIT", 0)
        monkeypatch.setattr(report, "PAGE_LIMIT", 380_000)
        page = Report("Title")
        for index in range(6):
            page.figure(noise_figure(), f"number {index}", f"what {index} shows")
        found = parsed(page)
        sizes = [len(str(image["src"])) for image in found.all("img")]
        # One at full resolution, one at half of it, and no room for more.
        assert len(sizes) == 2
        assert sizes[1] < sizes[0] / 2
        assert len(page.html().encode()) < 380_000
        assert found.text_of("figcaption") == [f"number {index}" for index in range(6)]
        assert "Left out, as the page would exceed its size limit: what 5 shows" in found.text_of("p")


class TestAudio:
    def test_small_files_are_embedded_unchanged(self, tone: Path) -> None:
        page = Report("Title")
        page.audio(tone, "A tone")
        assert source_of(parsed(page), "audio") == ("audio/wav", tone.read_bytes())
        assert parsed(page).text_of("figcaption") == ["A tone"]

    def test_large_files_are_named_instead(self, tmp_path: Path) -> None:
        path = tmp_path / "long.wav"
        soundfile.write(path, np.zeros(200_000), 16000)
        page = Report("Title")
        page.audio(path, "A recording")
        found = parsed(page)
        assert not found.all("audio")
        assert "Not embedded (0.4 MB): " in found.text_of("p")
        assert found.text_of("code") == [str(path)]

    def test_sound_that_no_longer_fits_the_page_is_named(self, tone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page = Report("Title")
        monkeypatch.setattr(report, "PAGE_LIMIT", page._size + 15_000)
        page.audio(tone, "first")
        page.audio(tone, "second")
        assert len(parsed(page).all("audio")) == 1
        assert parsed(page).text_of("code") == [str(tone)]

    @pytest.mark.parametrize("name, message", [("none.wav", "cannot be read: No such file"), ("a.aiff", "got '.aiff'")])
    def test_what_a_page_cannot_play_is_refused(self, tmp_path: Path, name: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            Report("Title").audio(tmp_path / name, "caption")


def test_facts_show_name_and_value() -> None:
    page = Report("Title")
    page.facts({"clips": 12000, "accuracy": quantity(0.5, 0.25, 0.75), "device": "CPU", "none": None})
    found = parsed(page)
    assert found.text_of("dt") == ["clips", "accuracy", "device", "none"]
    assert found.text_of("dd", "span") == ["12\u202f000", "0.50 ", "0.25 to 0.75", "CPU", "–"]


def test_code_keeps_its_lines() -> None:
    page = Report("Title")
    page.code("auricle a\n  --b <c>\n")
    assert parsed(page).text_of("code") == ["auricle a\n  --b <c>\n"]
