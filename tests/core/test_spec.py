"""What a user may ask for, and when two wishes are the same training."""

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from core.evaluate.boundary import Boundary
from core.evaluate.fgsm import FGSM
from core.evaluate.parameter_noise import ParameterNoise
from core.methods.kd import KD
from core.optim import Recipe
from core.presets import presets
from core.spec import JobSpec, baseline, identity

WHOLE: dict[str, Any] = {
    "name": "r20 from r110",
    "teacher": "tch_1",
    "student": {"architecture": "arc_1", "weights": None},
    "dataset": {"id": "ds_1", "take": {"per_class": 50}, "validation": 0.1, "seed": 0, "views": None, "view_seed": 0},
    "methods": [{"name": "kd", "temperature": 4.0, "weight": {"linear": [4, 1], "until": 0.75}}],
    "recipe": {"epochs": 100, "batch_size": 128, "optimizer": {"name": "sgd", "lr": 0.1}, "task_weight": 1.0},
    "exports": ["safetensors"],
    "limits": {"seconds": None},
    "seed": 0,
    "metadata": {"who": "me"},
}
LEAST: dict[str, Any] = {"student": {"architecture": "arc_1"}, "dataset": {"id": "ds_1"}}


MEASURES: list[Any] = ["accuracy", "agreement", "boundary", {"name": "parameter_noise", "draws": 2}]


def test_a_spec_goes_to_json_and_back() -> None:
    spec = JobSpec.model_validate(WHOLE)
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
    assert isinstance(spec.methods[0], KD)


def test_a_student_starts_from_a_file_or_from_a_named_initialiser() -> None:
    def spec(weights: object) -> JobSpec:
        return JobSpec.model_validate({**LEAST, "student": {"architecture": "arc_1", "weights": weights}})

    drawn = {"initialiser": "xavier"}
    assert spec(drawn).model_dump(mode="json")["student"]["weights"] == drawn
    assert JobSpec.model_validate_json(spec(drawn).model_dump_json()) == spec(drawn)
    assert spec("upl_1").student.weights == "upl_1"
    jsonschema.validate({**LEAST, "student": {"architecture": "arc_1", "weights": drawn}}, JobSpec.model_json_schema())
    for wrong in ({"initialiser": "glorot"}, {}, {"initialiser": "xavier", "gain": 2}, 1):
        with pytest.raises(ValidationError):
            spec(wrong)
    assert identity(spec({"initialiser": "default"})) == identity(spec(None))
    assert len({identity(spec(each)) for each in (None, drawn, {"initialiser": "fan_in"}, "upl_1")}) == 4


def test_the_published_schema_takes_what_the_model_takes() -> None:
    schema = JobSpec.model_json_schema()
    jsonschema.validate(WHOLE, schema)
    jsonschema.validate(LEAST, schema)
    jsonschema.validate({**LEAST, "evaluate": MEASURES}, schema)
    for wrong in ("vibes", {"name": "vibes"}, {"name": "fgsm", "epsilon": 1}, {"name": "boundary", "samples": 0}, {"name": "accuracy"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**LEAST, "evaluate": [wrong]}, schema)
    assert all("description" in field or name in {"student", "dataset"} for name, field in schema["properties"].items())


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("teacher",), "arc_1"), (("student", "architecture"), "resnet"), (("student", "weights"), "w"), (("dataset", "id"), "../etc"),
        (("dataset", "validation"), 1.0), (("dataset", "take"), {}), (("dataset", "take"), {"total": 5, "fraction": 0.5}),
        (("dataset", "take", "total"), 0), (("dataset", "views"), 0), (("methods", 0, "temperature"), 0), (("methods", 0, "temprature"), 4),
        (("methods", 0, "name"), "kdd"), (("recipe", "epochs"), 0), (("recipe", "lr"), 1), (("exports", 0), "pickle"), (("device",), "tpu"),
        (("limits", "seconds"), 0), (("seed",), -1), (("seed",), 2**53), (("metadata", "k" * 65), "v"), (("metadata", "k"), "v" * 513),
        (("evaluate", 0), "vibes"), (("evaluate", 0), {"name": "fgsm", "clamp": 7, "epsilons": []}), (("unknown",), 1),
        (("evaluate", 0), {"name": "vibes"}), (("evaluate",), ["fgsm", {"name": "fgsm"}]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_field_named(path: tuple[str | int, ...], wrong: object) -> None:
    asked = json.loads(json.dumps({**WHOLE, "evaluate": ["accuracy"]}))
    place = asked
    for part in path[:-1]:
        place[part] = place[part] or {}
        place = place[part]
    place[path[-1]] = wrong
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(asked)
    # An unknown name lies, for pydantic, at what should bear it.
    told = [(*error["loc"], *(["name"] if error["type"] == "union_tag_invalid" else [])) for error in caught.value.errors()]
    members = ("kd", "[key]", "word", "object", "fgsm", "boundary")
    locations = [tuple(part for part in location if part not in members) for location in told]
    assert path in [location[: len(path)] for location in locations]


def test_identity_is_blind_to_names_and_to_defaults_written_out() -> None:
    spec = JobSpec.model_validate(WHOLE)
    renamed = JobSpec.model_validate(
        {**WHOLE, "name": "x", "metadata": {}, "limits": {"seconds": 60}, "evaluate": ["accuracy", "agreement"]}
    )
    assert identity(renamed) == identity(spec)
    assert identity(JobSpec.model_validate(spec.model_dump())) == identity(spec)
    assert identity(JobSpec.model_validate(LEAST)) == identity(JobSpec.model_validate({**LEAST, "seed": 0, "recipe": {"epochs": 100}}))


@pytest.mark.parametrize("change", [{"seed": 1}, {"teacher": "tch_2"}, {"methods": []}, {"recipe": {"epochs": 2}}, {"device": "cpu"}])
def test_identity_sees_what_training_depends_on(change: dict[str, Any]) -> None:
    assert identity(JobSpec.model_validate({**WHOLE, **change})) != identity(JobSpec.model_validate(WHOLE))


def test_the_baseline_is_the_same_job_without_a_teacher_and_as_long() -> None:
    spec = JobSpec.model_validate({**WHOLE, "recipe": {"epochs": 100, "task_weight": 0.1}, "evaluate": MEASURES})
    alone = baseline(spec, 120)
    assert (alone.teacher, alone.methods, alone.recipe.task_weight, alone.recipe.epochs) == (None, (), 1.0, 120)
    assert alone.evaluate == ("accuracy", ParameterNoise(draws=2))
    assert (alone.seed, alone.dataset, alone.student) == (spec.seed, spec.dataset, spec.student)
    assert JobSpec.model_validate_json(alone.model_dump_json()) == alone


def test_a_measure_by_name_alone_has_its_defaults_and_the_spec_stays_as_it_was_written() -> None:
    spec = JobSpec.model_validate({**LEAST, "evaluate": [*MEASURES, {"name": "fgsm"}]})
    assert spec.measures == ("accuracy", "agreement", Boundary(), ParameterNoise(draws=2), FGSM())
    assert spec.model_dump(mode="json")["evaluate"][:3] == MEASURES[:3]
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


def test_each_measure_stands_once() -> None:
    with pytest.raises(ValidationError, match="fgsm is measured once, and stands here 2 times"):
        JobSpec.model_validate({**LEAST, "evaluate": ["fgsm", "accuracy", {"name": "fgsm", "clamp": False}]})


def test_all_methods_and_teachers_share_one_baseline() -> None:
    other = {**WHOLE, "teacher": "tch_2", "methods": [{"name": "kd", "temperature": 2}], "name": "other"}
    assert identity(baseline(JobSpec.model_validate(other), 100)) == identity(baseline(JobSpec.model_validate(WHOLE), 100))


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_a_job_spec_without_ids_and_says_its_source(name: str) -> None:
    preset = {field: value for field, value in presets()[name].items() if field not in ("networks", "published")}
    assert len(preset.pop("note")) > 40
    data = {field: {"id": "ds_1", **preset.get(field, {})} for field in ("dataset", "teacher_dataset") if field in {"dataset", *preset}}
    spec = JobSpec.model_validate({**preset, **data, "teacher": "tch_1", "student": {"architecture": "arc_1"}})
    assert spec.methods or spec.measures != ("accuracy",) or "published" in presets()[name]  # the row without a teacher


def test_the_preset_of_anti_distillation_measures_as_its_published_code_does() -> None:
    asked = presets()["robustness_anti_distillation"]["evaluate"]
    measures = JobSpec.model_validate({**LEAST, "evaluate": asked}).measures
    assert measures[1:] == (FGSM(clamp=False), ParameterNoise(redraw=True))
    assert [measures[1].epsilons[-1], measures[2].epsilons[-1]] == [0.018, 0.09]  # type: ignore[union-attr]


def test_the_preset_of_repdistiller_has_its_numbers() -> None:
    recipe = Recipe.model_validate(presets()["kd_resnet20_cifar10"]["recipe"])
    drops = [step // 782 for step in range(1, 240 * 782) if recipe.rate(step, 240 * 782) < recipe.rate(step - 1, 240 * 782)]
    assert drops == [150, 180, 210]
    assert recipe.optimizer.lr == 0.05
