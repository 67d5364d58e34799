"""Pages about methods: what is in the files of methods, as Markdown that reads as it was meant, and committed as it is made."""

import json
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import Field

from core.__main__ import main
from core.method import Method, Weight
from core.methods import catalogue
from core.methods.kd import KD
from core.optim import Linear
from core.pages import docs_of, page, pages
from core.taps import Pair

COMMITTED = Path(__file__).parents[2] / "docs" / "methods"


class Toy(Method):
    """Fields of every sort."""

    reference: ClassVar[str] = "none"
    examples = ({"margin": 0.5}, {"margin": 1, "variant": "official"})
    needs_teacher: ClassVar[bool] = False
    pairs_by: ClassVar[Literal["out", "pre"] | None] = "pre"

    name: Literal["toy"] = "toy"
    pairs: tuple[Pair, ...] | None = Field(None, min_length=1, description="Teacher | student.")
    weight: Weight = Field(Linear(linear=(4, 1), until=0.75), description="How much.")
    margin: float = Field(description="No default.", gt=0)
    blocks: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="Which.")
    variant: Literal["official", "corrected"] = Field("corrected", description="Whose.")


def tokens(text: str) -> list[Token]:
    """Every token of a text as GitHub reads it, inline ones too."""
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    return [token for block in blocks for token in (block, *(block.children or ()))]


def test_the_committed_pages_are_those_that_the_files_make() -> None:
    committed = {file.name: file.read_text(encoding="utf-8") for file in COMMITTED.iterdir()}
    assert committed == pages(catalogue()), "run: python -m core methods --pages docs/methods"


@pytest.mark.parametrize("name", catalogue())
def test_a_page_reads_in_markdown_as_it_does_in_the_file(name: str) -> None:
    docs, made = docs_of(catalogue()[name]), page(name, catalogue()[name])
    found = tokens(made)
    # A * or a < of a formula in the running text would vanish into emphasis or HTML: it belongs into an indented line or backticks.
    assert not {token.type for token in found} & {"em_open", "html_inline", "html_block", "blockquote_open", "ordered_list_open"}
    code = "".join(token.content for token in found if token.type == "code_block")
    indented = [line.removeprefix("    ") for line in docs.text.splitlines() if line.startswith("    ")]
    assert [line for line in code.splitlines() if line] == indented
    (entries,) = (token.content for token in found if token.type == "fence" and token.info == "json")
    methods = [json.loads(line) for line in entries.splitlines()]
    assert methods == [{"name": name, **example} for example in catalogue()[name].examples]


def test_the_parts_of_a_docstring_are_told_apart() -> None:
    docs = docs_of(KD)
    assert docs.title == "Knowledge distillation: the student learns the teacher's softened answers beside the labels."
    assert docs.idea.startswith("A trained teacher")
    assert "\n\n    L = T^2" in docs.idea
    assert docs.use.startswith("Use it first")
    assert docs.cost.startswith("One forward pass")
    assert docs.by_hand.startswith("Two classes, T = 2, student (0, 0), teacher (2, 0):\n\n```python\n>>> import torch")
    assert docs.by_hand.endswith("0.4437762867\n```")
    assert docs.reference.startswith("G. Hinton")


def test_parameters_stand_in_a_table_with_their_types_bounds_and_defaults() -> None:
    rows = [line for line in page("toy", Toy).splitlines() if line.startswith("| `")]
    assert rows == [
        "| `pairs` | list of [teacher, student] or null | `null` | Teacher \\| student. |",
        '| `weight` | number ≥ 0, ≤ 1,000,000 or Linear | `{"linear": [4.0, 1.0], "until": 0.75}` | How much. |',
        "| `margin` | number > 0 | required | No default. |",
        "| `blocks` | list of integer ≥ 1 | `[]` | Which. |",
        '| `variant` | `"official"` or `"corrected"` | `"corrected"` | Whose. |',
    ]


def test_a_page_says_whether_a_teacher_is_needed_and_what_the_pairs_are_made_of() -> None:
    kd, toy = page("kd", KD), page("toy", Toy)
    assert "The job must name a teacher." in kd
    assert "The job need not name a teacher." in toy
    assert "Pairs of taps" not in kd
    assert "`block1.relu:in` what enters it" in toy
    assert "Left out, they are made of what enters the activation behind each stage" in toy


def test_the_examples_of_a_method_are_entries_of_a_job() -> None:
    made = page("toy", Toy)
    assert '```json\n{"name": "toy", "margin": 0.5}\n{"name": "toy", "margin": 1, "variant": "official"}\n```' in made
    assert "`retort submit --method toy:margin=0.5 …`" in made
    assert "`retort submit --method kd …`" in page("kd", KD)


def test_the_index_names_every_method_with_its_title() -> None:
    index = pages(catalogue())["README.md"]
    for name, method in catalogue().items():
        assert f"| [`{name}`]({name}.md) | {docs_of(method).title} |" in index


def test_the_words_that_the_pages_use_are_explained_in_the_index() -> None:
    index = pages(catalogue())["README.md"]
    assert all(f"*{word}*" in index for word in ("term", "weight", "tap", "pair", "stage", "transfer fit", "connector"))


def test_the_command_writes_the_pages(tmp_path: Path) -> None:
    assert main(["methods", "--pages", str(tmp_path / "methods")]) == 0
    assert {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "methods").iterdir()} == pages(catalogue())
