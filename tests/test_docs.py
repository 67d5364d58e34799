"""The documentation runs: what docs/add-a-method.md tells a reader to write passes the suite that it tells them to run."""

import re
import subprocess
import sys
from pathlib import Path

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
