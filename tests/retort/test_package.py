import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[2]


def test_the_folder_builds_into_a_wheel_that_stands_alone(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT / "retort"),
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        str(tmp_path),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("retort-*.whl")
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "site")
    source = {f"retort/{path.relative_to(ROOT / 'retort')}" for path in (ROOT / "retort").rglob("*.py")}
    assert held == source | {"retort/py.typed"}
    code = "import sys; sys.path.insert(0, sys.argv[1]); import retort; from retort import Client; print(retort.__file__)"
    told = subprocess.run([sys.executable, "-I", "-c", code, str(tmp_path / "site")], check=True, capture_output=True, text=True)
    assert told.stdout.startswith(str(tmp_path / "site"))


def test_client_and_command_import_nothing_of_the_service_and_no_torch() -> None:
    code = "import sys, retort.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert not {"api", "core", "db", "worker", "migrations", "torch", "numpy", "sqlalchemy", "celery", "pydantic"} & set(
        told.stdout.split()
    )


def test_the_two_distributions_ask_for_the_same_client_dependencies() -> None:
    whole, client = (tomllib.loads((ROOT / each / "pyproject.toml").read_text())["project"] for each in (".", "retort"))
    assert set(client["dependencies"]) <= set(whole["dependencies"])
    assert client["version"] == whole["version"]
    assert client["requires-python"] == whole["requires-python"]
    assert client["scripts"]["retort"] == whole["scripts"]["retort"]


def test_the_version_is_said_once_in_code_and_once_in_the_package() -> None:
    from retort.version import __version__

    assert tomllib.loads((ROOT / "retort" / "pyproject.toml").read_text())["project"]["version"] == __version__
