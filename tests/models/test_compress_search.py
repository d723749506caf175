"""Trials for one budget, in a world where what is measured differs from what was predicted by a known factor."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest

from narrows import ModelBudget, Recipe, Workload
from narrows._stats import Ratio
from narrows._values import LayerOption, LayerOptions
from narrows._values._check import Estimate
from narrows.errors import BudgetError
from narrows.models import Nearest, Summary, _compress_search
from narrows.models._compress_search import TRIALS, Search
from narrows.models._compress_trial import Built
from narrows.models._recover import Recovery
from narrows.models._trial import Quality, Speeds
from narrows.planning import allocate, model_frontier

WORKLOAD = Workload("prefill", 64)
LAYERS, RANKS = 12, range(1, 32)
NUMBERS, TIME, OTHER = 1000, 1000.0, 2000.0


def options(*, timed):
    """Return layers whose damage rises as numbers and time fall, each at a price of its own."""
    return [
        LayerOptions(
            f"layer.{i}",
            64,
            64,
            tuple(
                LayerOption(
                    "dense" if rank == 32 else "pivot",
                    None if rank == 32 else rank,
                    NUMBERS * rank // 32,
                    4 * NUMBERS * rank // 32,
                    (1 + i) * 1e-3 * (32 / rank - 1),
                    TIME * rank / 32 if timed else None,
                    (rank < 31) if timed and rank != 32 else None,
                )
                for rank in (32, *RANKS)
            ),
        )
        for i in range(LAYERS)
    ]


@dataclass
class World:
    """What a job is to the search: predictions by `allocate`, and measurements that are off by factors.

    Attributes:
        damage, speed: measured growth of the loss / predicted; measured speedup / predicted.
        power: of the predicted growth that the measured one grows with.
        mended: share of the loss that training gives back.
        built: plans in the order in which they were built.
        trained: seconds of every training.
    """

    budget: ModelBudget
    is_in_nats = True
    recipe: Recipe = field(default_factory=Recipe)
    damage: float = 1.0
    speed: float = 1.0
    power: float = 1.0
    mended: float = 0.0
    built: list = field(default_factory=list)
    trained: list = field(default_factory=list)

    @property
    def is_timed(self):
        return self.budget.speedup is not None

    @property
    def workloads(self):
        return (WORKLOAD,) if self.is_timed else ()

    @property
    def frontier(self):
        return model_frontier(options(timed=self.is_timed), other_ns=OTHER if self.is_timed else None)

    def plan(self, budget):
        return allocate(
            options(timed=self.is_timed),
            budget,
            workloads=self.workloads,
            dtype="float32",
            method="two-sided",
            other_ns=OTHER if self.is_timed else None,
        )

    def make(self, job, plan):
        assert job is self
        self.built.append(plan)
        return Built(plan, None, Summary(()))

    def time(self, _, one):
        if not self.is_timed:
            return one
        value = one.plan.speedup * self.speed
        ratio = Ratio(value, 0.98 * value, 1.02 * value, 40)
        return replace(one, speeds=Speeds({str(WORKLOAD): ratio}, ratio))

    def judge(self, _, one, mended=0.0):
        growth = math.exp(min(one.plan.damage**self.power * self.damage * (1 - mended), 100.0))
        ratio = Estimate(growth, growth / 1.001, growth * 1.001)
        return replace(one, quality=Quality(20.0, 20.0 * growth, ratio, ratio))

    def train(self, job, one, seconds):
        self.trained.append(seconds)
        told = Recovery(steps=1, tokens=1, seconds=seconds, first=1.0, last=0.5)
        return replace(self.judge(job, one, self.mended), recovery=told, is_trained=True)


@pytest.fixture
def search(monkeypatch):
    """Return a function that runs a search in a world."""

    def run(world):
        for name, made in (
            ("built", world.make),
            ("with_speeds", world.time),
            ("with_quality", world.judge),
            ("recovered", world.train),
        ):
            monkeypatch.setattr(_compress_search, name, made)
        return Search(world).run()

    return run


def test_numbers_need_one_model_and_its_quality_is_measured(search):
    world = World(ModelBudget(keep=0.7), damage=5.0)

    found = search(world)

    assert len(world.built) == 1
    assert found.plan.kept <= 0.7
    assert found.quality is not None


def test_a_prediction_that_was_too_good_is_asked_for_less(search):
    world = World(ModelBudget(perplexity=0.1), damage=3.0)

    found = search(world)

    assert 1 < len(world.built) <= TRIALS
    assert math.expm1(3.0 * world.built[0].damage) > 0.1  # the first one was over
    assert 0.07 < found.quality.growth <= 0.1
    assert world.built[-1].damage < world.built[0].damage


def test_a_prediction_that_grows_faster_than_it_said_is_followed(search):
    world = World(ModelBudget(perplexity=0.1), damage=40.0, power=1.8)

    found = search(world)

    assert not found.is_dense
    assert 0.03 < found.quality.growth <= 0.1
    assert math.expm1(40 * world.built[0].damage ** 1.8) > 0.1


def test_a_prediction_that_was_too_bad_is_asked_for_more(search):
    world = World(ModelBudget(perplexity=0.1), damage=0.3)

    found = search(world)

    assert 0.07 < found.quality.growth <= 0.1
    assert found.plan.kept < world.built[0].kept
    assert found.plan is min(world.built, key=lambda plan: plan.kept if plan.damage * 0.3 <= math.log(1.1) else 2)


def test_a_prediction_without_use_leads_to_dense_and_never_to_no(search):
    world = World(ModelBudget(perplexity=0.01), damage=1e9)

    found = search(world)

    assert found.is_dense
    trials = len(world.built) - 1  # the last one is the dense model itself
    assert 1 < trials <= TRIALS
    assert found.plan.layers[0].reason == (
        f"Dense: of {trials} smaller models that were built and measured none is in the budget."
    )


@pytest.mark.parametrize(
    "budget", [{"perplexity": 0.0}, {"keep": 1.0}, {"max_bytes": 4 * NUMBERS * LAYERS}, {"speedup": 1.0}]
)
def test_a_budget_that_dense_meets_stays_dense_without_a_trial(search, budget):
    world = World(ModelBudget(**budget))

    found = search(world)

    assert found.is_dense
    assert found.quality is None
    assert len(world.built) == 1


def test_a_measured_speedup_that_falls_short_is_asked_for_more(search):
    world = World(ModelBudget(speedup=1.5), speed=0.9)

    found = search(world)

    assert world.built[0].speedup * 0.9 * 0.98 < 1.5
    assert 1.5 <= found.speeds.overall.low <= 1.5 * 1.05
    assert len(world.built) <= TRIALS
    assert found.quality is not None


def test_a_measured_speedup_that_is_more_than_asked_for_is_given_back_as_quality(search):
    world = World(ModelBudget(speedup=1.5), speed=1.2)

    found = search(world)

    assert 1.5 <= found.speeds.overall.low <= 1.5 * 1.05
    assert found.plan.damage < world.built[0].damage


def test_an_impossible_number_is_no_with_the_frontier_and_without_a_trial(search):
    world = World(ModelBudget(keep=0.01))

    with pytest.raises(BudgetError, match=r"No choice meets keep=0\.01") as raised:
        search(world)

    assert isinstance(raised.value.nearest, Nearest)
    assert raised.value.nearest.plan.kept == pytest.approx(1 / 32, rel=0.1)
    assert len(raised.value.nearest.frontier) > 10
    assert not world.built


def test_a_speedup_that_is_never_measured_is_no_and_tells_the_nearest(search):
    world = World(ModelBudget(speedup=3.0), speed=0.4)

    with pytest.raises(BudgetError, match=r"no choice that was built and measured here meets the budget") as raised:
        search(world)

    nearest = raised.value.nearest
    fastest = max(plan.speedup for plan in world.built)
    assert nearest.plan.speedup == fastest
    assert f"speedup is {fastest * 0.4 * 0.98:.3f} (lower end), 3 is asked for" in str(raised.value)
    assert nearest.frontier


def test_a_growth_that_the_numbers_ask_for_is_no_and_says_by_how_much(search):
    world = World(ModelBudget(keep=0.5, perplexity=0.01))

    with pytest.raises(BudgetError, match=r"Of the one, which keeps 50\.0% of the numbers: perplexity grew") as raised:
        search(world)

    assert len(world.built) == 1
    assert raised.value.nearest.quality.growth > 0.01
    assert "(upper end), 1.00% is allowed" in str(raised.value)


def test_beside_numbers_perplexity_is_measured_and_not_predicted(search):
    world = World(ModelBudget(keep=0.5, perplexity=0.01), damage=0.05)
    assert math.expm1(world.plan(ModelBudget(keep=0.5)).damage) > 0.01

    assert search(world).quality.growth <= 0.01


def test_speed_and_perplexity_are_held_together(search):
    assert search(World(ModelBudget(speedup=1.3, perplexity=0.3))).quality.growth <= 0.3
    with pytest.raises(BudgetError, match=r"perplexity grew by .*; speedup is"):
        search(World(ModelBudget(speedup=2.0, perplexity=0.01)))


def test_a_model_that_is_too_slow_is_not_judged_or_trained(search):
    recipe = Recipe(recovery_seconds=60)
    world = World(ModelBudget(speedup=3.0, perplexity=0.5), recipe, speed=0.3)

    with pytest.raises(BudgetError) as raised:
        search(world)

    assert raised.value.nearest.quality is None
    assert not world.trained


def test_without_a_limit_on_perplexity_the_chosen_model_alone_is_trained_for_the_whole_time(search):
    world = World(ModelBudget(speedup=1.5), Recipe(recovery_seconds=60), speed=0.9, mended=0.5)

    found = search(world)

    assert len(world.built) > 1
    assert world.trained == [60]
    assert found.is_trained


def test_where_perplexity_is_the_only_limit_every_trial_has_its_share_of_the_time(search):
    plain = search(World(ModelBudget(perplexity=0.1)))
    world = World(ModelBudget(perplexity=0.1), Recipe(recovery_seconds=60), mended=0.5)

    found = search(world)

    assert set(world.trained) == {60 / TRIALS}
    assert sum(world.trained) <= 60
    assert found.plan.kept < plain.plan.kept  # what training mends is spent on smaller layers


def test_beside_numbers_the_one_trial_has_the_whole_time(search):
    world = World(ModelBudget(keep=0.5, perplexity=0.5), Recipe(recovery_seconds=60), mended=0.5)

    search(world)

    assert world.trained == [60]
