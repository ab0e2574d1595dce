"""What the benchmarks count, and the page that is made from the results that are kept."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

from benchmarks import comparisons, figures, films, optimum, products, tables
from rlgen.experiments import catalogue
from rlgen.lab.drawings import Episode

LEFT, RIGHT = jnp.ones((3, 4)), jnp.ones((4, 5))


def counted(function, *arguments):
    return products.count(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_a_product_is_two_operations_for_each_pair_that_is_multiplied():
    assert products.flops(counted(jnp.matmul, LEFT, RIGHT)) == 2 * 3 * 4 * 5
    batched = counted(jax.vmap(jnp.matmul), jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5)))
    assert products.flops(batched) == 7 * 2 * 3 * 4 * 5


def test_scans_repeat_and_the_branch_with_most_work_counts():
    def many(left, right):
        return lax.scan(lambda carry, _: (carry, left @ right), 0, length=6)

    assert products.flops(counted(many, LEFT, RIGHT)) == 6 * 2 * 3 * 4 * 5

    def either(condition, left, right):
        return lax.cond(condition, lambda: left @ right, lambda: (left @ right) + (left @ right @ right.T @ right))

    assert products.flops(counted(either, True, LEFT, RIGHT)) == 2 * 3 * (4 * 5 + 4 * 5 + 5 * 4 + 4 * 5)


def test_a_loop_without_a_known_length_counts_once():
    def loop(stop, left, right):
        return lax.fori_loop(0, stop, lambda _, result: left @ right + result, jnp.zeros((3, 5)))

    assert products.flops(counted(jax.jit(loop), 9, LEFT, RIGHT)) == 2 * 3 * 4 * 5


def test_rows_have_names_of_their_own_and_experiments_of_the_catalogue():
    names = [row.name for row in comparisons.ROWS]
    assert len(set(names)) == len(names)
    assert all(row.experiment in catalogue.EXPERIMENTS for row in comparisons.ROWS)


def test_the_page_is_made_of_the_results_that_are_kept():
    for part in (tables.learning, tables.speed, tables.limits, tables.memory, tables.compilation, tables.lander):
        text = part()
        assert "\n| --- |" in text and "nan" not in text


def test_values_are_interpolated_round_the_circle_of_angles():
    angles, speeds = np.linspace(-np.pi, np.pi, 5), np.linspace(-8, 8, 3)
    values = jnp.array(np.abs(angles)[:, None] + 10 * speeds)
    angle, speed = jnp.array([0.5, 3 * np.pi / 2, -np.pi - 0.5, 7.0]), jnp.array([1.0, -8.0, 8.0, 0.0])
    wanted = [10.5, np.pi / 2 - 80, np.pi - 0.5 + 80, 7 - 2 * np.pi]
    np.testing.assert_allclose(optimum.interpolate(values, angle, speed), wanted, rtol=1e-4)


def test_a_film_is_drawn_again_from_the_episodes_that_are_kept(tmp_path, monkeypatch):
    for module, name in ((films, "KEPT"), (figures, "FIGURES")):
        monkeypatch.setattr(module, name, tmp_path)
    played = [Episode(np.arange(4.0 * num + 4).reshape(-1, 4), np.ones(num, int), np.ones(num)) for num in (5, 2)]
    films.keep("policy/ppo/CartPole-v1", played)
    (path,) = films.draw()
    assert films.titles() == {path.stem: "policy/ppo/CartPole-v1"}
    with Image.open(path) as picture:
        assert picture.n_frames == 6 + 3
