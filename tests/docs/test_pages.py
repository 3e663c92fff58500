"""The documentation is true: every code block of the README and of docs/ runs, and what pages show is what is printed.

Pages run with smaller networks and budgets than they ask for (`website.sessions.small`).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from website.blocks import Block, Page, PageError, elided, read_page, same_shape, shape
from website.hooks import on_page_content, options_of, verbs
from website.sessions import BlockError, Session, parse_auricle, small

import auricle

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
COMMAND = re.compile(r"`(auricle [a-z-]+[^`]*)`")
PLACE = re.compile(r"`([\w/]+\.py)(?::(\w+))?`")
PROOF = re.compile(r"`(?:pytest|python) ([^`]+)`")


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where sessions run; those that others continue are kept in it."""
    return tmp_path_factory.mktemp("pages")


def page_name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


# The pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_every_code_block_of_a_page_runs_and_prints_what_is_shown(path: Path, scratch: Path) -> None:
    check_session(Session(read_page(path), scratch))


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PAGES if "<!-- slow: " in path.read_text()], ids=page_name)
def test_the_slow_code_blocks_run_too(path: Path, scratch: Path) -> None:
    check_session(Session(read_page(path), scratch, slow=True))


def check_session(session: Session) -> None:
    with small():
        for block, printed in session.run():
            if block.prints and printed is not None:
                shown, where = block.prints.text, f"{page_name(session.page.path)}:{block.prints.line}"
                assert same_shape(shown, printed), f"{where} shows\n{shown}\nbut it prints\n{elided(shown, printed)}"


def sentences(path: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_commands_within_sentences_are_understood(path: Path) -> None:
    for found in COMMAND.findall(sentences(path)):
        words = shlex.split(found)
        known = verbs()
        if words[1] == "COMMAND":
            continue
        assert words[1] in known, found
        options = {option for action in known[words[1]]._actions for option in action.option_strings}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, found


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_files_and_functions_within_sentences_are_there(path: Path) -> None:
    files = [
        file for folder in ("src", "tests", "benchmarks", "website") for file in (REPOSITORY / folder).rglob("*.py")
    ]
    for name, symbol in PLACE.findall(sentences(path)):
        found = [file for file in files if file.as_posix().endswith(f"/{name}")]
        assert found, name
        assert any(re.search(rf"^ *(def|class) {symbol}\b", file.read_text(), re.MULTILINE) for file in found), symbol
    for words in PROOF.findall(sentences(path)):
        for word in words.split():
            assert (REPOSITORY / word).exists() or not word.startswith(("tests/", "benchmarks/", "examples/")), words


def test_every_command_has_a_page_with_its_options_and_an_example_that_ran() -> None:
    folder = REPOSITORY / "docs" / "commands"
    assert {path.stem for path in folder.glob("*.md")} - {"index"} == set(verbs())
    for verb in verbs():
        text = (folder / f"{verb}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# auricle {verb}\n")
        assert "\n## Options\n\n<!-- options -->\n" in text
        examples = [block for block in read_page(folder / f"{verb}.md").blocks if block.prints]
        assert any(f"auricle {verb}" in block.text for block in examples), verb
        assert f"[{verb}]({verb}.md)" in (folder / "index.md").read_text(encoding="utf-8")


def test_every_public_function_is_in_the_reference() -> None:
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    named = {line.rpartition(".")[2] for line in text.splitlines() if line.startswith(":::")}
    assert set(auricle.__all__) - {"__version__"} <= named


def test_the_layers_in_the_design_are_those_that_are_enforced() -> None:
    design = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8")
    shown = re.search(r"^```text\n(errors →.*?)^```$", design, re.MULTILINE | re.DOTALL)
    listed = re.search(r"^layers = \[(.*?)\]", (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert listed is not None
    assert [word.strip() for word in shown[1].split("→")] == re.findall(r'"(\w+)"', listed[1])[::-1]


def files_in_the_readme() -> dict[Path, set[str]]:
    """What the README's list of files names, by folder; some of it are words."""
    (tree,) = (block for block in read_page(REPOSITORY / "README.md").blocks if "shown" in block.marks)
    named: dict[Path, set[str]] = {}
    root = folder = REPOSITORY
    for line in re.sub(r"\([^)]*\)", "", tree.text).splitlines():
        first, *others = line.split()
        indent = len(line) - len(line.lstrip())
        if indent > 2:
            # Goes on with the folder above.
            named.setdefault(folder, set()).update((first, *others))
            continue
        root = REPOSITORY if indent == 0 else root
        named.setdefault(root, set()).add(first)
        folder = root / first if first.endswith("/") else root
        named.setdefault(folder, set()).update(others)
        if indent == 0 and not others:
            root = folder
    return named


def test_the_list_of_files_in_the_readme_names_files_that_are_there() -> None:
    for folder, words in files_in_the_readme().items():
        names = [word for word in words if word.endswith((".py", ".md", ".yml", "/"))]
        assert [name for name in names if not (folder / name).exists()] == [], folder


def test_no_file_is_missing_from_the_list_in_the_readme() -> None:
    named = files_in_the_readme()
    # The tests are named by what they mirror, and the repository's own files are known to everyone.
    for folder in named.keys() - {REPOSITORY, REPOSITORY / "tests"}:
        there = {path.name for kind in ("*.py", "*.md") for path in folder.glob(kind)}
        there |= {f"{path.name}/" for path in folder.iterdir() if any(path.glob("*.py")) or any(path.glob("*.md"))}
        assert {name for name in there if not name.startswith("_")} - named[folder] == set(), folder


# What checks them -------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_are_read_with_their_marks_titles_and_output(tmp_path: Path) -> None:
    page = read_page(
        write(
            tmp_path / "page.md",
            "<!-- after: docs/try.md -->\n\n```bash\nls\n```\n\n```text\na\n...\n```\n\nwords\n\n"
            '<!-- parsed: too long -->\n\n```python title="a.py"\nx = 1\n```\n\nwords\n\n  ```text\n  kept\n  ```\n',
        )
    )
    assert page.after == "docs/try.md"
    assert page.blocks == (
        Block(4, "bash", "", "ls\n", {}, Block(8, "text", "", "a\n...\n")),
        Block(17, "python", "a.py", "x = 1\n", {"parsed": "too long"}),
        Block(23, "text", "", "kept\n"),
    )


@pytest.mark.parametrize("text", ["```\nls\n```\n", "```rust\nfn\n```\n", "```bash\nls\n"])
def test_a_block_that_nothing_can_check_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(PageError, match=r"page\.md:1: "):
        read_page(write(tmp_path / "page.md", text))


def test_the_shape_of_a_line_keeps_its_words_only() -> None:
    assert shape("uar   41.7 % [-3.0, +1e-4]  dog_bark") == "uar # % [#, #] CLASS"
    assert shape("weights 0123456789abcdef") == "weights HASH"
    assert shape("accuracy 1,000") != shape("precision 1,000")


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ("a 7\nb\nc\n", True),
        ("a 7\nc\n", False),
        ("a 7\nb\n", False),
        ("a\nb\nc\n", False),
        ("a 7\n...\nc\n", True),
        ("...\nb\n...\n", True),
        ("a 7\n...\n", True),
        ("...\nb\n", False),
        ("...\nd\n...\n", False),
        ("a 7\nb\n...\nb\nc\n", False),
        ("", False),
    ],
)
def test_shown_lines_are_found_in_what_was_printed(shown: str, same: bool) -> None:
    assert same_shape(shown, "a 3\nb\nc\n") is same


def test_a_shortened_output_stays_as_short() -> None:
    assert elided("x\n...\ny\nz\n", "1\n2\n3\n4\n5\n") == "1\n...\n4\n5\n"
    assert elided("x\n", "1\n2\n") == "1\n2\n"


@pytest.mark.parametrize(
    ("language", "text", "marks", "why"),
    [
        ("bash", "auricle list --nonsense\n", {}, "did you mean|unrecognized"),
        ("bash", "auricle list | cat\n", {}, "no shell operators"),
        ("bash", "auricle pretrain ssast x --preset nonsense --out y\n", {"parsed": "long"}, "no preset 'nonsense'"),
        ("bash", "auricle finetune x y --out z --recipe nonsense\n", {"parsed": "long"}, "no recipe 'nonsense'"),
        ("bash", "make nonsense\n", {}, "no target nonsense"),
        ("bash", "pip install -e '.[nonsense]'\n", {}, "no extra 'nonsense'"),
        ("bash", "torchrun --nproc-per-node 2 -m auricle pretrain ssast x --nonsense\n", {}, "unrecognized|required"),
        ("bash", "false\n", {}, "exit code 1, not 0"),
        ("bash", "true\n", {"exit": "2"}, "exit code 0, not 2"),
        ("python", "1 / 0\n", {}, "ZeroDivisionError"),
        ("python", "1 /\n", {"parsed": "long"}, "SyntaxError"),
        ("text", "what is this\n", {}, "neither code"),
    ],
)
def test_a_block_that_fails_is_named_by_its_line(
    tmp_path: Path, language: str, text: str, marks: dict[str, str], why: str
) -> None:
    page = Page(REPOSITORY / "docs" / "made.md", (Block(7, language, "", text, marks),))
    with pytest.raises(BlockError, match=rf"docs/made\.md:7: (.|\n)*({why})"):
        list(Session(page, tmp_path).run())


def test_names_in_tables_break_between_their_words() -> None:
    name = "<code>nn/teacher.py:averaged_layers</code>"
    broken = "<code>nn/<wbr>teacher.<wbr>py:<wbr>averaged_<wbr>layers</code>"
    html = f"<p>{name}</p><td>a.b {name}\n{name}</td>"
    assert on_page_content(html, page=None) == f"<p>{name}</p><td>a.b {broken}\n{broken}</td>"


def test_options_are_those_of_the_parser() -> None:
    text = options_of("pretrain")
    assert "auricle pretrain [-h]" in text
    assert "| `--out RUN` | run directory; the same command resumes it; required |" in text
    assert "| `--workers W` |" in text
    assert "| `--track tensorboard|wandb|mlflow` | keep the curves there too |" in text
    parse_auricle(["pretrain", "ssast", "x", "--out", "y"])


@pytest.mark.parametrize("verb", verbs())
def test_every_option_says_what_it_is(verb: str) -> None:
    assert [action.dest for action in verbs()[verb]._actions if not action.help] == []
