"""The main job in one program: unlabelled audio in, a pretrained network, and what it was worth.

    python examples/demo.py --out runs/demo

It pretrains a small SSAST for minutes, reads it out frozen with a ridge probe and fine-tunes it, each beside the same
network from random weights and beside MFCC statistics, with paired intervals, then embeds and classifies one file. The
audio is AURICLE_DATA, else ../shared/data/public, else generated sound scenes. Takes minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import auricle
from auricle.data.formats import read_data
from auricle.data.items import Manifest
from auricle.data.synth import write_scenes
from auricle.evaluation import figures
from auricle.evaluation.baselines import mfcc_statistics
from auricle.evaluation.classify import Predictions, compare
from auricle.evaluation.pages import add_reconstructions
from auricle.evaluation.readout import probe_features
from auricle.evaluation.report import Report
from auricle.evaluation.results import Comparison, Quantity, Result, write_json
from auricle.evaluation.task import Task
from auricle.training.run import read_metrics

REPOSITORY = Path(__file__).resolve().parent.parent
# Steps, not minutes: what comes out should not depend on what else the machine is doing.
PRETRAIN_STEPS = 700
FINETUNE_STEPS = 150
FROZEN = (
    "Ridge probe on clip embeddings of the frozen network, beside logistic regression (LR) on MFCC statistics. "
    "Fold sets were heard whole, without labels."
)
TUNED = (
    "All weights adapted, once, with one seed. From scratch: the same network, budget and order of clips, from random "
    "weights. MFCC + LR: logistic regression on MFCC statistics, with the same training and test clips."
)
FINETUNE_SETTINGS = {"batch_size": 16}
SCRATCH_SEED = 0


@dataclass(frozen=True)
class Corpus:
    """What to listen to, and the labelled sets to look at."""

    unlabelled: Path
    labelled: dict[str, Path]
    what: str


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network and what it is compared with, on the same test clips."""

    result: Result
    systems: dict[str, Predictions]

    @property
    def comparisons(self) -> list[Comparison]:
        ours, *others = self.systems
        return [compare(ours, self.systems[ours], name, [self.systems[name]]) for name in others]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--data", type=Path, default=None, help="folder of data sets, each with a manifest.csv")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    data = find_data(args.data)
    corpus = real_corpus(data, args.out) if data else generated_corpus(args.out)

    print(f"1. pretraining on {corpus.what}, without labels")
    run = auricle.pretrain(
        "ssast", corpus.unlabelled, args.out / "pretrained", preset="demo", steps=PRETRAIN_STEPS, seed=args.seed
    )

    print("2. what the frozen network knows (ridge probe), beside random weights and MFCC statistics")
    probes = {name: auricle.probe(run, path, baselines=("random", "mfcc")) for name, path in corpus.labelled.items()}
    for name, result in probes.items():
        show(name, result)

    print("3. fine-tuning (one seed), beside the same network from scratch and MFCC statistics")
    finetuned = {name: finetune(run, name, path, args.out, args.seed) for name, path in corpus.labelled.items()}
    for name, tuned in finetuned.items():
        systems = {system: interval(found.metrics()["accuracy"]) for system, found in tuned.systems.items()}
        print(f"   {name}: {', '.join(f'{system} {value}' for system, value in systems.items())}")
        show_comparisons(tuned.comparisons)

    name, path = next(iter(corpus.labelled.items()))
    # One that the fine-tuned network has not seen with its label.
    held_out = finetuned[name].result.items[0]["id"]
    sound = next(Path(i.streams["audio"].path) for i in read_data([path]) if i.id == held_out)
    embedding = auricle.load(run).embed(sound)
    prediction = auricle.load(args.out / f"finetuned-{name}").classify(sound)
    print(f"4. {sound.name}: embedded in {len(embedding.clip)} dimensions, {len(embedding.frames)} time steps;")
    print(f"   classified as {prediction.label} ({100 * prediction.score:.0f} %)")

    minutes = (time.monotonic() - began) / 60
    figures_of = {
        name: {
            "frozen": probes[name].payload(),
            "finetuned": {s: p.metrics() for s, p in tuned.systems.items()} | {"comparisons": tuned.comparisons},
        }
        for name, tuned in finetuned.items()
    }
    write_json(args.out / "demo.json", figures_of)
    page = write_page(args.out, run, corpus, probes, finetuned, minutes)
    print(f"done in {minutes:.1f} minutes\nreport: {page}")


def find_data(given: Path | None) -> Path | None:
    """The folder of data sets, if there is one."""
    asked = given or os.environ.get("AURICLE_DATA")
    folder = Path(asked) if asked else REPOSITORY.parent / "shared/data/public"
    if any(folder.glob("*/manifest.csv")):
        return folder
    if asked:
        raise SystemExit(f"error: {folder} holds no data sets, which are folders with a manifest.csv.")
    return None


def real_corpus(folder: Path, out: Path) -> Corpus:
    """All sets below a folder, without their test splits; two labelled ones to look at.

    Sets that are divided by folds or speakers have no test split: all of their clips are heard, without labels.
    """
    sets = sorted(p.parent for p in folder.glob("*/manifest.csv"))
    everything = read_data(sets)
    heard = [item for item in everything if item.labels.get("split") != "test"]
    manifest = Manifest(
        tuple(heard), root=everything.root, source=f"{folder}, without test splits", roots=everything.roots
    )
    manifest.save(out / "unlabelled.jsonl")
    usual = [folder / name for name in ("esc10", "fsdd_mini") if (folder / name) in sets]
    others = [path for path in sets if path not in usual and "label" in read_data([path]).columns]
    shown = (usual + others)[:2]
    if not shown:
        raise SystemExit(f"error: no data set below {folder} has a column 'label'.")
    return Corpus(
        out / "unlabelled.jsonl",
        {path.name: path for path in shown},
        f"{manifest.hours:.1f} hours of recordings ({len(sets)} data sets)",
    )


def generated_corpus(out: Path) -> Corpus:
    """Sound scenes from the built-in generator: many without labels, a few with."""
    print("no recordings found (AURICLE_DATA): generating sound scenes")
    unlabelled = write_scenes(out / "generated/unlabelled", clips=1500, seconds=2.5, seed=1, classes=None)
    # About as long as the network's window: the mean over a longer clip would mostly describe its background.
    labelled = write_scenes(out / "generated/labelled", clips=600, seconds=1.2, seed=2)
    return Corpus(unlabelled, {"scenes": labelled}, "an hour of generated scenes")


def finetune(run: Path, name: str, path: Path, out: Path, seed: int) -> Tuned:
    """Adapt the pretrained network and one from random weights; test both, and MFCC statistics, on the same clips."""
    results = []
    for label, random_weights in (("finetuned", None), ("scratch", SCRATCH_SEED)):
        adapted = auricle.finetune(
            run,
            path,
            out / f"{label}-{name}",
            random_weights=random_weights,
            steps=FINETUNE_STEPS,
            settings=FINETUNE_SETTINGS,
            seed=seed,
            quiet=True,
        )
        results.append(auricle.evaluate(adapted, path))
    tested = [item["id"] for item in results[0].items]
    task = Task.read([path], seed=seed)
    # Of data with folds, the one that the fine-tuning left out.
    fold = next(f for f in task.folds if [task.manifest[i].id for i in f.test] == tested)
    mfcc = probe_features(replace(task, folds=(fold,)), mfcc_statistics(task.manifest.items), "linear")
    pretrained, scratch = (predictions(result) for result in results)
    return Tuned(results[0], {"pretrained": pretrained, "from scratch": scratch, "MFCC + LR": mfcc})


def predictions(result: Result) -> Predictions:
    columns = ([item[key] for item in result.items] for key in ("id", "label", "predicted", "score"))
    return Predictions(*map(tuple, columns))


def interval(q: Quantity) -> str:
    value, low, high = (100 * (q[key] or 0) for key in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def show(name: str, result: Result) -> None:
    print(f"   {name}: pretrained {interval(result.metrics['accuracy'])}")
    for other, baseline in result.baselines.items():
        print(f"     {other}: {', '.join(f'{100 * run:.1f} %' for run in baseline['runs'])}")
    show_comparisons(result.comparisons)


def show_comparisons(comparisons: Sequence[Comparison]) -> None:
    for c in comparisons:
        value, low, high = (100 * (c[key] or 0) for key in ("value", "low", "high"))
        print(f"     pretrained - {c['b']}: {value:+.1f} points [{low:+.1f}, {high:+.1f}]")


def write_page(
    out: Path,
    run: Path,
    corpus: Corpus,
    probes: dict[str, Result],
    finetuned: dict[str, Tuned],
    minutes: float,
) -> Path:
    """One page with everything: comparison bars, curves, reconstructions, confusion."""
    model = auricle.load(run)
    rows = read_metrics(run)
    report = Report("What minutes of pretraining are worth", f"SSAST on {corpus.what}")
    report.facts(
        {
            "parameters of the encoder": f"{sum(p.numel() for p in model.encoder.parameters()):,}",
            "pretraining steps": rows[-1]["step"],
            "everything": f"{minutes:.1f} minutes",
        }
    )
    names = {"model": "pretrained", "random": "random weights", "mfcc": "MFCC + LR"}
    for title, text, bars, compared, note in (
        (
            "Frozen network",
            FROZEN,
            probe_bars(probes, names),
            [(name, names[c["b"]], c) for name, r in probes.items() for c in r.comparisons],
            "Paired bootstrap over the same clips; random weights are the mean of three seeds.",
        ),
        (
            "Fine-tuned network",
            TUNED,
            tuned_bars(finetuned),
            [(name, c["b"], c) for name, tuned in finetuned.items() for c in tuned.comparisons],
            "Paired bootstrap over the same test clips; one run each, so the intervals do not cover another seed.",
        ),
    ):
        report.heading(title)
        report.text(text)
        report.figure(
            figures.bars(bars), "Accuracy with 95 % bootstrap intervals over the test clips.", f"{title}: bars"
        )
        report.table(
            ["data", "pretrained minus", "difference", "low", "high"],
            [[name, other, c["value"], c["low"], c["high"]] for name, other, c in compared],
            note=note,
        )
    report.heading("Learning")
    report.figure(figures.loss_curves(rows, ["loss", "val_loss"]), "Pretraining loss.", "Loss curves")
    held = [replace(item, labels={}) for item in read_data([next(iter(corpus.labelled.values()))])]
    add_reconstructions(report, model, held, seed=0)
    report.heading("Confusion of the fine-tuned network")
    for name, tuned in finetuned.items():
        if confusion := tuned.result.confusion:
            figure = figures.confusion(confusion["rows"], confusion["labels"])
            report.figure(figure, f"{name}: rows are true classes.", f"Confusion matrix of {name}")
    return report.write(out / "report.html")


Bars = list[tuple[str, float | None, float | None, float | None, str]]


def probe_bars(probes: dict[str, Result], names: dict[str, str]) -> Bars:
    rows: Bars = []
    for group, result in probes.items():
        systems = {"model": result.metrics, **{k: b["metrics"] for k, b in result.baselines.items()}}
        for key, metrics in systems.items():
            q = metrics["accuracy"]
            rows.append((names[key], q["value"], q["low"], q["high"], group))
    return rows


def tuned_bars(finetuned: dict[str, Tuned]) -> Bars:
    rows: Bars = []
    for group, tuned in finetuned.items():
        for name, found in tuned.systems.items():
            q = found.metrics()["accuracy"]
            rows.append((name, q["value"], q["low"], q["high"], group))
    return rows


if __name__ == "__main__":
    main()
