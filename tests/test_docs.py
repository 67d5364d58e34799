"""The documentation runs: what docs/add-a-method.md tells a reader to write passes the suite that it tells them to run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from api.search import Objective, Pruner, SweepSpec, search_of
from core import anatomy
from core.evaluate.boundary import Boundary
from core.evaluate.fgsm import FGSM
from core.evaluate.parameter_noise import ParameterNoise
from core.plan import plan
from core.spec import JobSpec
from tests.core.toys import Toy, transfer_set

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "tests" / "core" / "methods" / "test_conformance.py"

# A process of its own: the catalogue is read once, and this one has read it without the new file.
WITH_ANOTHER_FOLDER = """
import sys, pytest, core.methods
core.methods.__path__.append(sys.argv[1])
sys.exit(pytest.main(sys.argv[2:]))
"""


def run_the_suite(folder: Path, *selected: str) -> subprocess.CompletedProcess[str]:
    options = ["-p", "no:xdist", "-p", "no:cacheprovider", *selected]
    command = [sys.executable, "-c", WITH_ANOTHER_FOLDER, str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def the_pages_method() -> str:
    (code,) = re.findall(r"```python\n# core/methods/logits\.py\n(.*?)```", (ROOT / "docs" / "add-a-method.md").read_text(), re.DOTALL)
    return str(code)


def test_the_method_of_the_page_passes_the_conformance_suite_by_being_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "logits.py").write_text(the_pages_method())
    done = run_the_suite(tmp_path, str(SUITE), "-k", "logits")
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) >= 10


def test_the_pages_example_by_hand_is_a_doctest_that_holds(tmp_path: Path) -> None:
    (tmp_path / "logits.py").write_text(the_pages_method())
    done = run_the_suite(tmp_path, "--doctest-modules", str(tmp_path / "logits.py"), "--rootdir", str(tmp_path), "-c", "/dev/null")
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_method_whose_term_ignores_the_student_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "logits.py").write_text(
        the_pages_method().replace("return regression(scene.s.logits,", "return regression(scene.t.logits,")
    )
    done = run_the_suite(tmp_path, str(SUITE), "-k", "logits and gradient")
    assert done.returncode == 1, done.stdout[-3000:]


def test_the_page_on_measures_shows_a_spec_that_is_one_and_names_every_parameter() -> None:
    page = (ROOT / "docs" / "evaluate.md").read_text()
    shown, *_ = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    asked = JobSpec.model_validate({"student": {"architecture": "arc_1"}, "dataset": {"id": "ds_1"}, **json.loads(shown)})
    assert len(asked.measures) == 5
    for measure in (FGSM, ParameterNoise, Boundary):
        section = page.split(f"\n## `{measure.model_fields['name'].default}`")[1].split("\n## ")[0]
        assert all(f"`{field}`" in section for field in measure.model_fields if field != "name")


def test_the_page_on_sweeps_shows_one_that_could_be_asked_for_and_names_every_field() -> None:
    page = (ROOT / "docs" / "sweeps.md").read_text()
    shown, *_ = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    search, wrong = search_of(SweepSpec.model_validate(yaml.safe_load(shown.replace("…", "1"))))
    assert (search.total, wrong) == (20, [])
    for model in (SweepSpec, Objective, Pruner):
        assert all(f"`{name}`" in page or f"{name}:" in page or f'"{name}"' in page for name in model.model_fields if name != "goal")


def test_the_page_on_data_without_labels_shows_a_job_that_such_data_takes() -> None:
    page = (ROOT / "docs" / "transfer-sets.md").read_text()
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    asked = JobSpec.model_validate(json.loads(shown.replace("…", "1")))
    asked = asked.model_copy(update={"recipe": asked.recipe.model_copy(update={"batch_size": 8})})
    teacher, student = anatomy.measure(Toy(width=6)), anatomy.measure(Toy())
    assert plan(asked, teacher, student, dataset=transfer_set(24)).epochs == 30
