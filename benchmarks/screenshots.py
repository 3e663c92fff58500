"""Make a page of each kind from real recordings and photograph them for docs/reports.md.

    python benchmarks/screenshots.py [--data FOLDER] [--keep FOLDER] [--only NAME]

Needs `fsdd_mini` (spoken digits), `wakeword5` and `office_sed` below --data (AURICLE_DATA, or beside the repository),
and Chromium.
The networks are trained for minutes only: the pages are to be looked at, not their scores.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

import auricle
from auricle.evaluation.check_report import check_page
from auricle.evaluation.pages import result_page
from auricle.evaluation.search_page import search_page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402

IMAGES = ROOT / "docs" / "images" / "pages"
STEPS = {"pretrain": 400, "finetune": 300, "detect": 200}
DETECTOR = {"crop_seconds": 4.0, "batch_size": 8, "lr": 0.003}
# Of each picture: the page, its width and height in CSS pixels, dark or not, and what is in view (a section, or a spot
# to point at).
SHOTS = {
    "pretraining": ("pretraining", 1000, 1150, False, ""),
    "pretraining-reconstruction": ("pretraining", 1000, 800, True, "#reconstruction"),
    "finetuning": ("finetuning", 1000, 1150, True, ""),
    "probe": ("probe", 1000, 1300, False, ""),
    "evaluation": ("evaluation", 1000, 1150, False, ""),
    "evaluation-calibration": ("evaluation", 1000, 700, True, "#calibration"),
    "evaluation-map": ("evaluation", 1000, 700, False, ".spot:nth-of-type(8)"),
    "evaluation-errors": ("evaluation", 1000, 1000, False, "#surest-errors"),
    "evaluation-phone": ("evaluation", 390, 844, True, ".spot:nth-of-type(3)"),
    "finetuning-errors": ("finetuning", 1000, 900, True, "#surest-errors"),
    "detection": ("detection", 1000, 1150, False, ""),
    "detection-timelines": ("detection", 1000, 900, True, "#timelines"),
    "check": ("check", 1000, 1150, False, "#worth-a-look"),
    "check-copies": ("check", 1000, 900, False, "#copies"),
    "search": ("search", 1000, 1300, False, "#query"),
    "search-phone": ("search", 390, 844, True, "#hits"),
}
LIMIT = 200_000  # bytes


class Pages:
    """A page of each kind, made when it is asked for in the working directory, to which names on pages are relative."""

    def __init__(self, data: Path, folder: Path) -> None:
        os.chdir(folder)
        self.digits, self.words, self.office = (data / name for name in ("fsdd_mini", "wakeword5", "office_sed"))

    @functools.cached_property
    def run(self) -> Path:
        return auricle.pretrain("ssast", self.digits, Path("digits"), preset="demo", steps=STEPS["pretrain"])

    @functools.cached_property
    def classifier(self) -> Path:
        # Validation clips, for the page to show what was learned on them.
        settings = {"val_fraction": 0.2}
        return auricle.finetune(self.run, self.digits, Path("classifier"), steps=STEPS["finetune"], settings=settings)

    @functools.cached_property
    def pretraining(self) -> Path:
        return self.run / "report.html"

    @functools.cached_property
    def finetuning(self) -> Path:
        return self.classifier / "report.html"

    @functools.cached_property
    def probe(self) -> Path:
        result = auricle.probe(self.run, self.digits, head="linear", layers="all", baselines=["mfcc"])
        return result_page(result, Path("probe.html"))

    @functools.cached_property
    def evaluation(self) -> Path:
        return result_page(auricle.evaluate(self.classifier, self.digits), Path("evaluation.html"))

    @functools.cached_property
    def detection(self) -> Path:
        detector = auricle.finetune(
            "ssast-test", self.office, Path("detector"), random_weights=0, steps=STEPS["detect"], settings=DETECTOR
        )
        return result_page(auricle.evaluate(detector, self.office), Path("detection.html"))

    @functools.cached_property
    def check(self) -> Path:
        command = f"auricle check {self.words.name} --json check.json"
        return check_page(auricle.check(self.words), Path("check.html"), command)

    @functools.cached_property
    def search(self) -> Path:
        return search(self.run, self.digits)


def search(run: Path, digits: Path) -> Path:
    """What is like a spoken nine, in a library of all digits."""
    library = auricle.embed_library(run, digits, "digits.parquet", rows="clips")
    query = next(path for path in library.paths if Path(path).name.startswith("9_"))
    hits = auricle.search(library, query, 10)
    command = f"auricle search digits.parquet {Path(query).name} --page search.html"
    return search_page(library, query, hits, Path("search.html"), command)


def photograph(browser: Browser, page: Path, width: int, height: int, dark: bool, view: str, out: Path) -> None:
    """One picture of what is seen, with 64 colours, which flat pages need no more than."""
    browser.open(page.resolve(), width, height, dark)
    if view.startswith("."):
        browser.point_at(view)
    elif view:
        browser.evaluate(f"document.querySelector({view!r}).scrollIntoView()")
    browser.screenshot(out, whole=False)
    picture = Image.open(out).convert("RGB")
    for colours in (128, 64, 32):
        picture.quantize(colours, dither=Image.Dither.NONE).save(out, optimize=True)
        if out.stat().st_size < LIMIT:
            return
    raise SystemExit(f"{out} has {out.stat().st_size:,} bytes, more than {LIMIT:,}: show less of the page.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = ROOT.parent / "shared" / "data" / "public"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AURICLE_DATA") or usual))
    parser.add_argument("--keep", type=Path, help="where runs and pages stay, and are taken from the next time")
    parser.add_argument("--only", default="", metavar="NAME", help="photograph one kind of page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = options.keep or Path(temporary)
        made = Pages(options.data.resolve(), folder)
        IMAGES.mkdir(parents=True, exist_ok=True)
        with Browser(Path(temporary)) as browser:
            for name, (page, *how) in SHOTS.items():
                if options.only not in ("", page):
                    continue
                photograph(browser, getattr(made, page), *how, IMAGES / f"{name}.png")
                print(IMAGES / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
