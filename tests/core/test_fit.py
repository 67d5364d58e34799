"""The loop: whole steps, what learns, what sleeps, what is told."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from core.bench import Bench
from core.data import Batch, Batches
from core.errors import Diverged
from core.evaluate import evaluate
from core.events import Evaluated, Step
from core.fit import fit
from core.method import Clock, Fit, Scene, Term, Weighted
from core.methods.kd import KD
from core.objective import autocast, losses_of, parts
from core.optim import SGD, Constant, Drops, Recipe
from core.source import Live
from core.taps import Pair, View
from core.terms import CrossEntropy, SoftTargets
from tests.core import toys
from tests.core.toys import Drift, Hint, Job, Slope, Toy, spec, squares, tapped

RECIPE = {"epochs": 2, "batch_size": 8, "optimizer": SGD(lr=0.05), "schedule": Constant()}


def bench_of(
    terms: dict[str, Weighted], *, report_seconds: float = 0.0, dropout: float = 0.0, only: tuple[str, ...] = (), **recipe: Any
) -> Bench:
    student_taps = {tap for weighted in terms.values() for tap in weighted.term.student_taps}
    teacher_taps = {tap for weighted in terms.values() for tap in weighted.term.teacher_taps}
    student, teacher = tapped(Toy(dropout=dropout), student_taps, seed=0), tapped(Toy(width=6), teacher_taps, seed=1)
    now = Fit(terms, Recipe.model_validate(RECIPE | recipe), only=only)
    steps = Batches(squares(24), now.recipe.batch_size, seed=0, accumulate=now.recipe.accumulate).steps
    return Bench([now], [steps], student, teacher, seed=0, report_seconds=report_seconds)


def source_of(bench: Bench) -> Live:
    recipe = bench.now.recipe
    return Live(Batches(squares(24), recipe.batch_size, seed=0, accumulate=recipe.accumulate), bench.teacher)


def train(bench: Bench) -> list[Step]:
    return [event for event in fit(bench, source_of(bench), None) if isinstance(event, Step)]


def state(bench: Bench) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in bench.student.network.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}


TASK = {"task": Weighted(CrossEntropy(), 1.0)}


def test_the_baselines_first_step_is_the_step_of_plain_pytorch() -> None:
    bench, twin = bench_of(TASK), bench_of(TASK)
    source, stream = source_of(bench), fit(bench, source_of(bench), None)
    next(stream)
    network = twin.student.network.train()
    sgd = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batch = source.batches(0, 0)
    torch.nn.functional.cross_entropy(network((batch.x - 0.3) / 0.2), batch.y).backward()  # type: ignore[no-untyped-call]
    sgd.step()
    for ours, theirs in zip(bench.student.network.parameters(), network.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)


def test_the_loop_yields_after_every_step_and_reports_at_each_epochs_end() -> None:
    bench = bench_of(TASK, report_seconds=float("inf"))
    told = list(fit(bench, source_of(bench), None))
    assert [event is None for event in told] == [True, True, False] * 2
    every = train(bench_of(TASK))
    means = [sum(event.values["task"] for event in every[k : k + 3]) / 3 for k in (0, 3)]
    assert [event.values["task"] for event in told if isinstance(event, Step)] == pytest.approx(means)


def test_loss_is_the_weighted_sum_and_the_terms_are_told_unweighted_with_the_rate() -> None:
    bench = bench_of({**TASK, "kd": Weighted(KD().lesson(None, None).train["kd"].term, 0.5)})  # type: ignore[arg-type]
    for event in train(bench):
        assert event.values["loss"] == pytest.approx(event.values["task"] + 0.5 * event.values["kd"], rel=1e-6)
        assert event.values["lr"] == 0.05


def test_a_term_of_weight_zero_is_not_evaluated_at_that_step() -> None:
    calls = []

    class Counted(CrossEntropy):
        def forward(self, scene: Scene) -> Tensor:
            calls.append(1)
            return super().forward(scene)

    def late(clock: Clock) -> float:
        return float(clock.epoch)

    never = Weighted(Counted(), 0.0)
    told = train(bench_of({**TASK, "late": Weighted(Counted(), late), "never": never}))
    assert len(calls) == 1 + 3  # once to see what it reaches, then the second epoch
    assert ["late" in event.values for event in told] == [False] * 3 + [True] * 3
    assert all("never" not in event.values for event in told)


def test_accumulated_parts_make_the_step_of_the_whole_batch() -> None:
    """Without batch statistics, which parts do not share, a step in three parts equals the step in one."""

    def quiet(**recipe: Any) -> Bench:
        bench = bench_of(TASK, **recipe)
        for name in ("bn1", "bn2"):
            setattr(bench.student.network, name, torch.nn.Identity())
        return Bench(bench.fits, bench.per_epoch, bench.student, bench.teacher, seed=0, report_seconds=0)

    whole, split = quiet(batch_size=12), quiet(batch_size=4, accumulate=3)
    first, second = train(whole), train(split)
    assert [event.values["task"] for event in first] == pytest.approx([event.values["task"] for event in second], rel=1e-5)
    for one, other in zip(whole.student.parameters(), split.student.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "size", "accumulate", "sizes"),
    [
        (12, 4, 3, [4, 4, 4]), (9, 8, 1, [9]), (13, 4, 3, [4, 4, 5]), (5, 4, 3, [2, 3]), (3, 2, 2, [3]), (2, 2, 4, [2]),
        (25, 8, 3, [8, 8, 9]),
    ],
)  # fmt: skip
def test_parts_are_nearly_equal_and_never_a_single_sample(n: int, size: int, accumulate: int, sizes: list[int]) -> None:
    index = torch.arange(n)
    cut = list(parts(Batch(index, index, index, 0), {"kd": View(index, {"a": index})}, size, accumulate))
    assert [len(part.x) for part, _ in cut] == sizes
    assert torch.equal(torch.cat([part.index for part, _ in cut]), index)
    assert torch.equal(torch.cat([views["kd"].at["a"] for _, views in cut]), index)


def test_a_gradient_is_clipped_to_its_norm() -> None:
    bench = bench_of(TASK, clip=1e-3, optimizer=SGD(lr=1.0, momentum=0, nesterov=False, weight_decay=0))
    before = state(bench)
    next(fit(bench, source_of(bench), None))
    moves = [value - before[name] for name, value in bench.student.network.named_parameters()]
    assert torch.stack([move.square().sum() for move in moves]).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("restart", [True, False])
def test_at_a_restart_the_momentum_becomes_that_steps_gradient_alone(restart: bool) -> None:
    halfway = Drops(milestones=(0.5,), gamma=1.0)
    bench = bench_of(TASK, schedule=halfway, restart=restart, optimizer=SGD(lr=0.05, weight_decay=0))
    steps = fit(bench, source_of(bench), None)
    for _ in range(bench.steps // 2):
        next(steps)
    before = [bench.optimiser.state[parameter]["momentum_buffer"].clone() for parameter in bench.parameters()]
    next(steps)
    for parameter, momentum in zip(bench.parameters(), before, strict=True):
        assert parameter.grad is not None
        expected = parameter.grad if restart else 0.9 * momentum + parameter.grad
        torch.testing.assert_close(bench.optimiser.state[parameter]["momentum_buffer"], expected)


def test_what_no_gradient_reaches_sleeps_with_its_batch_statistics() -> None:
    bench = bench_of({"hint": Weighted(Hint(Pair("relu1", "relu1"), (6, 4)), 1.0)})
    before = state(bench)
    train(bench)
    assert moved(before, state(bench)) == {"conv1", "bn1"}


def test_only_the_named_modules_learn_and_the_rest_keeps_its_statistics() -> None:
    bench = bench_of(TASK, only=("fc",))
    before = state(bench)
    train(bench)
    assert moved(before, state(bench)) == {"fc"}
    below = bench_of(TASK, only=("conv1", "bn1"))
    before = state(below)
    train(below)
    assert moved(before, state(below)) == {"conv1", "bn1"}


def test_a_connector_learns_with_the_student() -> None:
    hint = Hint(Pair("relu1", "relu1"), (6, 4))
    before = hint.connector.weight.detach().clone()
    train(bench_of({"hint": Weighted(hint, 1.0)}))
    assert not torch.equal(hint.connector.weight, before)


def test_a_term_sees_the_teacher_itself_only_if_it_says_so() -> None:
    seen: dict[str, tuple[bool, bool]] = {}

    def looking(name: str, kind: str) -> Weighted:
        class Looking(CrossEntropy):
            teacher = kind  # type: ignore[assignment]

            def forward(self, scene: Scene) -> Tensor:
                seen[name] = (scene.t is not None, scene.teacher is not None)
                return super().forward(scene)

        return Weighted(Looking(), 1.0)

    train(bench_of({kind: looking(kind, kind) for kind in ("none", "view", "network")}))
    assert seen == {"none": (False, False), "view": (True, False), "network": (True, True)}


def test_no_term_that_looks_means_no_forward_of_the_teacher() -> None:
    bench = bench_of(TASK)
    bench.teacher = None
    assert len(train(bench)) == 6


def test_a_loss_that_is_not_finite_ends_the_fit_with_its_place() -> None:
    with pytest.raises(Diverged, match=r"step \d+ of fit 0"):
        train(bench_of({"task": Weighted(CrossEntropy(), 1e30)}, epochs=40))


def test_no_mode_is_on_while_the_consumer_has_the_turn() -> None:
    bench = bench_of({"hint": Weighted(Hint(Pair("relu1", "relu1"), (6, 4)), 1.0)}, precision="bf16")
    for _ in fit(bench, source_of(bench), squares(9)):
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert bench.student.network.get_submodule("bn1").training
        assert not bench.student.network.get_submodule("bn2").training


def test_held_out_data_is_examined_after_each_epoch_with_what_the_terms_watch() -> None:
    bench = bench_of({"hint": Weighted(Hint(Pair("relu1", "relu1"), (6, 4)), 1.0)})
    told = [event for event in fit(bench, source_of(bench), squares(9)) if isinstance(event, Evaluated)]
    assert [(event.epoch, event.done, event.split) for event in told] == [(0, 3, "validation"), (1, 6, "validation")]
    assert all(event.values.keys() == {"accuracy", "loss", "n", "toy.near"} for event in told)
    assert all(0 <= event.values["toy.near"] <= 1 for event in told)


def test_watching_changes_nothing_that_is_trained() -> None:
    plain, examined = (bench_of({"hint": Weighted(Hint(Pair("relu1", "relu1"), (6, 4)), 1.0), **TASK}, dropout=0.3) for _ in range(2))
    for bench in (plain, examined):
        with torch.no_grad():
            bench.terms["hint"].connector.weight.fill_(0.1)  # type: ignore[union-attr, operator]
    list(fit(plain, source_of(plain), None))
    list(fit(examined, source_of(examined), squares(9)))
    assert moved(state(plain), state(examined)) == set()


def test_a_note_is_told_beside_the_losses() -> None:
    told = train(bench_of({"hint": Weighted(Hint(Pair("relu1", "relu1"), (6, 4)), 1.0)}, batch_size=4, accumulate=2))
    assert all(event.values["toy.connector"] > 0 for event in told)


class Rare(CrossEntropy):
    """Cross-entropy that has a note of 3 where row 0 is in the batch, and none elsewhere."""

    def forward(self, scene: Scene) -> Tensor:
        if scene.index.eq(0).any():
            scene.note("rare", torch.tensor(3.0))
        return super().forward(scene)


def test_a_note_is_the_mean_over_the_parts_of_a_step_that_had_one() -> None:
    told = train(bench_of({"task": Weighted(Rare(), 1.0)}, batch_size=4, accumulate=2, epochs=1))
    assert len(told) == 3
    assert [event.values["rare"] for event in told if "rare" in event.values] == [3.0]


class Dtypes(Hint):
    """A hint that writes down every dtype it meets, and what autocast makes of a product of two fp32 matrices, in each of its methods."""

    def __init__(self) -> None:
        super().__init__(Pair("conv1", "conv1"), (6, 4))
        self.seen: dict[str, set[torch.dtype]] = {"target": set(), "forward": set(), "watch": set()}
        torch.manual_seed(0)
        torch.nn.init.normal_(self.connector.weight)

    def meet(self, where: str, *views: View) -> None:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        self.seen[where] |= {product.dtype, *(value.dtype for view in views for value in (view.logits, *view.at.values()))}

    def target(self, t: View) -> View:
        self.meet("target", t)
        return super().target(t)

    def forward(self, scene: Scene) -> Tensor:
        assert scene.t is not None
        self.meet("forward", scene.s, scene.t)
        return super().forward(scene)

    def watch(self, scene: Scene) -> Mapping[str, Tensor]:
        assert scene.t is not None
        self.meet("watch", scene.s, scene.t)
        return super().watch(scene)


def test_bf16_runs_the_networks_in_bf16_and_the_losses_in_fp32() -> None:
    told: dict[str, list[Step]] = {}
    for precision, inside in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        hint, made = Dtypes(), set[tuple[str, torch.dtype]]()
        bench = bench_of({**TASK, "hint": Weighted(hint, 1.0), "slope": Weighted(Slope(), 1.0)}, precision=precision)
        assert bench.teacher is not None

        def note(who: str, made: set[tuple[str, torch.dtype]] = made) -> Callable[..., None]:
            return lambda module, args, output: made.add((who, output.dtype)) if module.training == (who == "student") else None

        for who, network in (("student", bench.student), ("teacher", bench.teacher)):
            network.network.get_submodule("conv1").register_forward_hook(note(who))
        told[precision] = [event for event in fit(bench, source_of(bench), squares(9)) if isinstance(event, Step)]
        assert {("student", inside), ("teacher", inside)} <= made
        assert hint.seen == {"target": {torch.float32}, "forward": {torch.float32}, "watch": {torch.float32}}
    for narrow, wide in zip(told["bf16"], told["fp32"], strict=True):
        assert all(math.isfinite(value) for value in narrow.values.values())
        assert {name: narrow.values[name] for name in wide.values} == pytest.approx(wide.values, rel=0.1)
    assert [event.values for event in told["bf16"]] != [event.values for event in told["fp32"]]


@pytest.mark.parametrize("name", ["task", "kd", "hint", "slope", "drift"])
def test_a_loss_of_a_bf16_job_is_an_fp32_number_near_the_fp32_jobs(name: str) -> None:
    found = {}
    for precision in ("bf16", "fp32"):
        torch.manual_seed(0)
        hint = Hint(Pair("conv1", "conv1"), (6, 4))
        terms: dict[str, Term] = {"task": CrossEntropy(), "kd": SoftTargets(4.0), "hint": hint, "slope": Slope(), "drift": Drift(3)}
        bench = bench_of({name: Weighted(terms[name], 1.0)}, precision=precision)
        source = source_of(bench)
        with autocast(bench):
            batch, views = source(0, 0, bench.terms)
        losses, _ = losses_of(bench, batch, views, terms=bench.terms, epoch=0, source=source)
        assert losses[name].dtype == torch.float32
        found[precision] = losses[name].item()
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.05)


def test_validation_sees_the_average_that_a_hand_makes_of_the_steps() -> None:
    """By the formula, in float64: step n keeps (n - 1) / (n + 8) of the average, at most 0.3; batch statistics are averaged too."""
    watched: list[View] = []

    class Watching(Hint):
        def watch(self, scene: Scene) -> Mapping[str, Tensor]:
            watched.append(scene.student(scene.x))
            watched.append(scene.s)
            return super().watch(scene)

    bench = bench_of({**TASK, "hint": Weighted(Watching(Pair("relu1", "relu1"), (6, 4)), 1.0)}, ema=0.3)
    network, wanted = tapped(Toy(), ["relu1"], seed=5), dict[str, Tensor]()
    told = 0
    for event in fit(bench, source_of(bench), squares(9)):
        if isinstance(event, Step):
            kept = min(0.3, (event.step - 1) / (event.step + 8))
            for name, value in state(bench).items():
                wanted[name] = kept * wanted[name] + (1 - kept) * value.double() if name in wanted else value.double()
        if isinstance(event, Evaluated):
            network.network.load_state_dict(wanted)
            (*_, values) = evaluate(network, squares(9))
            (*_, of_the_last_step) = evaluate(bench.student, squares(9))
            assert values is not None
            assert of_the_last_step is not None
            assert event.values["loss"] == pytest.approx(values["loss"], rel=1e-5)
            assert abs(event.values["loss"] - of_the_last_step["loss"]) > 1e-4 * values["loss"]
            for view in watched:
                with torch.no_grad(), network.quiet():
                    assert torch.allclose(view.logits, network(next(squares(9).batches(9)).x).logits, atol=1e-5)
            watched.clear()
            told += 1
    assert told == 2


def test_speed_is_counted_in_samples() -> None:
    assert all(event.samples_per_second > 0 for event in train(bench_of(TASK)))


def test_a_job_of_the_plan_and_a_bench_agree_on_the_steps() -> None:
    made: Job = toys.make(spec(KD()))
    bench = Bench(made.plan.fits, [batches.steps for batches in made.sources.fits], made.student, made.teacher, seed=0)
    assert bench.of == made.plan.steps


def test_a_last_step_that_breaks_a_weight_ends_the_fit_although_its_loss_was_finite() -> None:
    bench = bench_of(TASK, epochs=1, optimizer=SGD(lr=1e-3, momentum=0, nesterov=False))
    training = fit(bench, source_of(bench), None)
    next(training), next(training)
    # The loss does not see what stands in a buffer that eval mode alone reads.
    bench.student.network.get_submodule("bn2").running_mean.fill_(torch.inf)  # type: ignore[operator]
    with pytest.raises(Diverged, match=r"a weight is no longer finite in epoch 1 of 1 \(step 3 of fit 0\)"):
        list(training)


def test_weights_that_are_not_finite_are_never_frozen() -> None:
    bench = bench_of(TASK)
    with torch.no_grad():
        next(bench.student.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(Diverged, match="a weight is no longer finite"):
        bench.freeze()
