"""Translators: shapes and ranges, captions read by hand, and what a pool keeps and shows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.parts import translators

IMAGES = jax.random.uniform(jax.random.key(0), (3, 8, 12, 2), minval=-1)


@pytest.fixture(scope="module")
def translator():
    network = translators.Translator(num_filters=2, num_blocks=1)
    return network, jax.jit(network.init)(jax.random.key(1), IMAGES)


def test_translations_keep_shape_and_range_and_do_not_mix_images(translator):
    network, params = translator
    apply = jax.jit(network.apply)
    output = apply(params, IMAGES)
    assert output.shape == IMAGES.shape
    assert (jnp.abs(output) <= 1).all() and float(output.std()) > 0.01
    np.testing.assert_allclose(apply(params, IMAGES[1:2])[0], output[1], atol=1e-5)


def test_no_parameter_of_a_translator_is_without_a_gradient(translator):
    network, params = translator
    grads = jax.jit(jax.grad(lambda params: (network.apply(params, IMAGES) * IMAGES**2).sum()))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(leaf).max() > 1e-4, path


def test_each_filter_of_each_image_is_normalised_by_itself(translator):
    network, params = translator
    params = jax.tree.map(lambda leaf: leaf * 3, params)  # a deviation that small constants do not change
    _, kept = network.apply(params, IMAGES, capture_intermediates=lambda module, _: isinstance(module, nn.LayerNorm))
    normalised = jax.tree.leaves(kept["intermediates"])
    assert len(normalised) == 5
    for hidden in normalised:
        np.testing.assert_allclose(hidden.mean((1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(hidden.std((1, 2)), 3, rtol=0.02)


@pytest.mark.parametrize(("num_halvings", "num_patches"), [(1, 14), (2, 7), (3, 3), (4, 1)])
def test_a_patch_discriminator_sees_patches(num_halvings, num_patches):
    network = translators.PatchDiscriminator(2, num_halvings)
    image = jnp.zeros((1, 28, 28, 1))
    params = jax.eval_shape(network.init, jax.random.key(0), image)
    assert max(leaf.shape[-1] for leaf in jax.tree.leaves(params)) == 2**num_halvings
    assert jax.eval_shape(network.apply, params, image).shape == (1, num_patches, num_patches)


@pytest.mark.parametrize(("num_halvings", "size"), [(2, 18), (3, 38)])
def test_a_logit_reads_a_patch_of_its_size(num_halvings, size, monkeypatch):
    monkeypatch.setattr(translators, "_normalised", lambda hidden: hidden)  # which reads the whole image
    network = translators.PatchDiscriminator(2, num_halvings)
    image = jax.random.normal(jax.random.key(1), (1, 80, 80, 1))
    params = network.init(jax.random.key(0), image)
    middle = 40 >> num_halvings
    slope = jax.grad(lambda image: jnp.asarray(network.apply(params, image))[0, middle, middle])(image)[0, ..., 0]
    for axis in (0, 1):
        read = np.flatnonzero(np.any(slope != 0, axis=axis))
        assert read[-1] - read[0] + 1 == size


def test_a_caption_is_the_mean_of_its_words():
    network = translators.Reader(num_words=5, size=3)
    params = jax.device_get(jax.jit(network.init)(jax.random.key(0), np.zeros((1, 2), np.int32)))
    table, dense = params["params"]["Embed_0"]["embedding"], params["params"]["Dense_0"]
    captions = np.array([[[2, 3, 0], [3, 2, 0]], [[4, 0, 0], [0, 0, 0]]])
    read = np.asarray(jax.jit(network.apply)(params, captions))
    means = np.stack([(table[2] + table[3]) / 2, (table[2] + table[3]) / 2, table[4], 0 * table[4]])
    hidden = means @ dense["kernel"] + dense["bias"]
    centred = hidden - hidden.mean(-1, keepdims=True)
    expected = np.maximum(centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6), 0)
    np.testing.assert_allclose(read.reshape(4, 3), expected, atol=1e-5)


def numbered(*numbers):
    """Images of one pixel each."""
    return jnp.array(numbers, jnp.float32).reshape(-1, 1, 1, 1)


def test_a_pool_fills_with_what_it_is_shown_and_shows_it():
    pool, shown = translators.exchange(jax.random.key(0), numbered(0, 0, 0, 0), numbered(5, 6, 7), jnp.int32(0))
    np.testing.assert_array_equal(pool, numbered(5, 6, 7, 0))
    np.testing.assert_array_equal(shown, numbered(5, 6, 7))


def test_no_pool_shows_everything_itself():
    pool, shown = translators.exchange(jax.random.key(0), numbered()[:0], numbered(5, 6), jnp.int32(9))
    assert pool.shape == (0, 1, 1, 1)
    np.testing.assert_array_equal(shown, numbered(5, 6))


@pytest.fixture(scope="module")
def exchanges():
    """What many pools of four did with three images, the first of which fills the pool: pools and images shown."""
    exchange = jax.vmap(translators.exchange, (0, None, None, None))
    keys = jax.random.split(jax.random.key(0), 4000)
    pools, shown = jax.jit(exchange)(keys, numbered(1, 2, 3, 0), numbered(10, 20, 30), jnp.int32(3))
    return np.asarray(pools).reshape(-1, 4), np.asarray(shown).reshape(-1, 3)


def test_a_full_pool_loses_nothing(exchanges):
    pools, shown = exchanges
    # What is shown and not stored, and what is stored and not shown: together all that there was.
    assert set(np.unique(shown[:, 0])) == {10}
    together = np.sort(np.concatenate([pools, shown[:, 1:]], axis=1), axis=1)
    np.testing.assert_array_equal(together, np.broadcast_to([1, 2, 3, 10, 20, 30], together.shape))


def test_half_of_the_images_change_places_with_any_of_the_pool(exchanges):
    _, shown = exchanges
    second = shown[:, 1]
    assert abs((second == 20).mean() - 0.5) < 0.03
    for old in (1, 2, 3, 10):
        assert abs((second == old).mean() - 0.125) < 0.02
    # The third may come out, or an older one, or the second one if that went in: an eighth of a half.
    assert abs((shown[:, 2] == 30).mean() - 0.5) < 0.03
    assert abs((shown[:, 2] == 20).mean() - 0.5 / 8) < 0.015
