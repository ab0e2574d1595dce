"""Flow modules: each is its own inverse's inverse with the log-determinant of its Jacobian, alone and composed.

Parity of the spline is with TensorFlow Probability's.
"""

import functools
import math
import operator
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgen.parts import bijectors, flow_modules
from rlgen.parts.flow_modules import FlowModel, FlowModules, Repeat, Split, Squeeze

VECTOR, IMAGE = (5,), (4, 2, 2)
SIZES, TOLERANCE = (6, 7), 1e-3


def layer(shape, **kwargs):
    return FlowModules(
        shape,
        (
            bijectors.ActNorm(shape),
            bijectors.InvertibleConvolution(shape),
            bijectors.Coupling(shape, SIZES, **kwargs),
        ),
    )


def multi_scale(shape):
    """Two levels over an image."""
    squeezed = (shape[0] // 2, shape[1] // 2, 4 * shape[2])
    kept = (*squeezed[:-1], squeezed[-1] // 2)
    modules = (
        bijectors.Logit(shape),
        Squeeze(shape),
        layer(squeezed),
        bijectors.Coupling(squeezed, SIZES),
        Split(squeezed, layer(kept)),
    )
    return FlowModel(FlowModules(shape, modules))


MODULES = {
    "affine": bijectors.Affine(IMAGE),
    "actnorm": bijectors.ActNorm(IMAGE),
    "logit": bijectors.Logit(VECTOR),
    "convolution of vectors": bijectors.InvertibleConvolution(VECTOR),
    "convolution of images": bijectors.InvertibleConvolution(IMAGE),
    "coupling": bijectors.Coupling(VECTOR, SIZES),
    "spline coupling of images": bijectors.Coupling(IMAGE, SIZES, "spline", 3),
    "autoregressive": bijectors.Autoregressive(VECTOR, SIZES),
    "autoregressive spline": bijectors.Autoregressive(VECTOR, SIZES, "spline", 4, reverse=True),
    "flatten": flow_modules.Flatten(IMAGE),
    "squeeze": Squeeze(IMAGE),
    "split": Split((4, 2, 4), bijectors.Affine(IMAGE)),
    "layers": FlowModules(VECTOR, (Repeat(VECTOR, layer(VECTOR, transform="spline", swap=True), 3), layer(VECTOR))),
    "multi-scale": multi_scale((4, 4, 1)),
}


def shape_of(module):
    return module.flow.shape if isinstance(module, FlowModel) else module.shape


def drawn(module, seed, scale=0.3):
    """Parameters from NumPy, where none has to be compiled: normals, and signed permutations where these belong."""
    generator = np.random.default_rng(seed)

    def draw(path, leaf):
        if "permutation" not in jax.tree_util.keystr(path):
            return scale * generator.standard_normal(leaf.shape, np.float32)
        size = leaf.shape[-1]
        matrices = [
            generator.permutation(np.eye(size, dtype=np.float32)) * generator.choice([-1, 1], size)
            for _ in range(leaf.size // size**2)
        ]
        return np.float32(matrices).reshape(leaf.shape)

    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape_of(module)), jnp.float32))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def program(name):
    """`(params, x) -> (errors, log_det by the module and by autodiff)`, compiled once a module."""
    module = MODULES[name]

    @jax.jit
    def run(params, x):
        def flat(vector):
            y, log_det = module.apply(params, vector.reshape(x.shape[1:]), method="forward")
            return y.ravel(), log_det

        jacobian, log_det = jax.vmap(jax.jacfwd(flat, has_aux=True))(x.reshape(len(x), -1))
        return flow_modules.check(module, params, x), log_det, jacobian

    return run


@pytest.mark.parametrize("name", MODULES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), scale=st.floats(0, 0.25))
def test_modules_invert_themselves_and_know_their_jacobian(name, seed, scale):
    module = MODULES[name]
    x = np.random.default_rng(seed).uniform(0.01, 0.99, (6, *shape_of(module))).astype(np.float32)
    x = x if name in ("logit", "multi-scale") else 6 * x - 3
    errors, log_det, jacobian = program(name)(drawn(module, seed, scale), x)
    assert max(errors) < TOLERANCE
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.float64(jacobian))[1], atol=2e-3)


@settings(max_examples=4, deadline=None)
@given(
    shape=st.one_of(st.tuples(st.integers(2, 4)), st.tuples(*3 * [st.integers(2, 3)])),
    batch_shape=st.sampled_from([(), (3,), (2, 1)]),
    transform=st.sampled_from(bijectors.TRANSFORMS),
    num_bins=st.integers(2, 4),
)
def test_layers_of_any_shape_invert_themselves(shape, batch_shape, transform, num_bins):
    module = layer(shape, transform=transform, num_bins=num_bins)
    x = 2 * np.random.default_rng(0).standard_normal((*batch_shape, *shape), np.float32)

    @jax.jit
    def run(params):
        return flow_modules.check(module, params, x), module.apply(params, x)

    errors, (y, log_det) = run(drawn(module, 1))
    assert max(errors) < TOLERANCE
    assert (y.shape, log_det.shape) == ((*batch_shape, *shape), batch_shape)


def test_check_sees_a_wrong_inverse_and_a_wrong_log_determinant():
    class Wrong(bijectors.Affine):
        def inverse(self, y):
            x, log_det = super().inverse(y)
            return x + 0.01, log_det + 0.02

    module = Wrong((2,))
    x = jnp.ones((3, 2))
    errors = flow_modules.check(module, drawn(module, 0), x)
    np.testing.assert_allclose(errors, (0.01, 0.02), rtol=1e-3)


def test_modules_start_as_the_identity_or_a_rotation():
    for name in ("affine", "actnorm", "coupling", "spline coupling of images", "autoregressive"):
        module = MODULES[name]
        x = jax.random.normal(jax.random.key(0), (6, *module.shape))
        y, log_det = jax.jit(lambda key, x, module=module: module.init_with_output(key, x)[0])(jax.random.key(1), x)
        np.testing.assert_allclose(y, x, atol=1e-5)
        np.testing.assert_allclose(log_det, 0, atol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (3, 2, 4)])
def test_the_convolution_starts_as_a_rotation_in_its_own_factors(shape):
    module = bijectors.InvertibleConvolution(shape)
    x = jax.random.normal(jax.random.key(0), (3, *shape))

    @jax.jit
    @jax.vmap
    def start(key):
        params = module.init(key, x)
        (y, log_det), matrix = module.apply(params, x), module.apply(params, method="matrix")
        return params["params"]["factors"], y, log_det, matrix

    factors, y, log_det, matrix = jax.tree.map(np.asarray, start(jax.random.split(jax.random.key(1), 8)))
    for index, weights in enumerate(matrix):
        permutation, lower, upper, log_s = (
            factors[name][index] for name in ("permutation", "lower", "upper", "log_diagonal")
        )
        np.testing.assert_allclose(weights @ weights.T, np.eye(4), atol=1e-5)
        assert set(np.abs(permutation).ravel()) == {0.0, 1.0}
        assert (np.abs(permutation).sum(0) == 1).all() and (np.abs(permutation).sum(1) == 1).all()
        assert (lower == np.tril(lower, -1)).all()
        assert (upper == np.triu(upper, 1)).all()
        expected = permutation @ (lower + np.eye(4)) @ (upper + np.diag(np.exp(log_s)))
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        np.testing.assert_allclose(y[index], np.einsum("ij,n...j->n...i", weights, x), atol=1e-5)
        np.testing.assert_allclose(log_det[index], 0, atol=1e-4)
    signs = np.sign(np.linalg.det(matrix))
    assert set(signs) == {-1.0, 1.0}


def test_the_permutation_is_not_learned():
    module = bijectors.InvertibleConvolution((3,))
    x = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    slope = jax.jit(jax.grad(lambda params: jnp.square(module.apply(params, x)[0]).sum() ** 2))
    factors = jax.device_get(slope(drawn(module, 1)))["params"]["factors"]
    assert not factors["permutation"].any()
    assert all(factors[name].any() for name in ("lower", "upper", "log_diagonal"))


@pytest.mark.parametrize("shape", [(3,), (4, 2, 3)])
def test_actnorm_starts_with_zero_mean_and_unit_variance(shape):
    module = bijectors.ActNorm(shape)
    x = jnp.array([3.0, 0.1, 20.0]) * jax.random.normal(jax.random.key(0), (50, *shape)) + jnp.array([5.0, -1.0, 0.0])
    fresh = jax.jit(module.init)(jax.random.key(1), x)
    params = jax.jit(functools.partial(flow_modules.start, module))(fresh, x)
    y = np.asarray(jax.jit(module.apply)(params, x)[0]).reshape(-1, 3)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-4)
    assert not fresh["params"]["shift"].any()


def test_a_chain_starts_module_by_module():
    """Every ActNorm sees what the started ones before it give, and nothing else is changed."""
    module = FlowModel(FlowModules((2,), (bijectors.ActNorm((2,)), Repeat((2,), layer((2,)), 2))))
    x = np.random.default_rng(0).standard_normal((40, 2), np.float32) @ np.float32([[2.0, 1.0], [0.0, 0.3]]) + 4

    fresh = drawn(module, 1)
    params = jax.device_get(jax.jit(lambda fresh: flow_modules.start(module, fresh, x))(fresh))
    onward = jax.jit(layer((2,)).apply)
    y = (x - x.mean(0)) / x.std(0)
    for index in range(2):
        own = {"params": jax.tree.map(operator.itemgetter(index), params["params"]["flow"]["modules_1"]["module"])}
        norm = own["params"]["modules_0"]
        np.testing.assert_allclose(norm["log_scale"], -np.log(y.std(0)), atol=1e-4)
        np.testing.assert_allclose(norm["shift"], -y.mean(0) / y.std(0), atol=1e-4)
        y = np.asarray(onward(own, y)[0])

    def learned(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return [leaf for path, leaf in leaves if "factors" in str(path) or "conditioner" in str(path)]

    assert learned(params)
    jax.tree.map(np.testing.assert_array_equal, learned(params), learned(fresh))


@pytest.mark.parametrize("reverse", [False, True])
def test_an_autoregressive_map_looks_only_back(reverse):
    module = bijectors.Autoregressive((4,), (32, 31), reverse=reverse)
    x = jax.random.normal(jax.random.key(0), (20, 4))
    params = drawn(module, 1, 0.5)

    def image_and_parameters(x):
        return module.apply(params, x)[0], module.apply(params, x, method=lambda module, x: module.conditioner(x))

    for jacobian in jax.jit(jax.vmap(jax.jacfwd(image_and_parameters)))(x):
        depends = (np.abs(jacobian).max(0) > 0).reshape(4, -1, 4).any(1)
        # The image of an element depends on those before it and itself, the parameters on those before it alone.
        expected = np.tri(4, k=0 if jacobian.ndim == 3 else -1, dtype=bool)
        np.testing.assert_array_equal(depends, expected.T if reverse else expected)


def test_a_narrow_layer_hides_none_of_the_elements_before():
    """With fewer units than there are degrees, theirs reach up to the highest, and not up to their number."""
    network = bijectors.MADE((5, 3), 12, 2, reverse=False)
    params = network.init(jax.random.key(0), jnp.zeros(12))
    params = jax.tree.map(jnp.ones_like, params)
    jacobian = np.abs(jax.jacfwd(lambda x: network.apply(params, x))(jnp.ones(12))).sum(1) > 0
    assert jacobian[-1, :-1].all()
    assert not np.triu(jacobian).any()


def test_a_coupling_leaves_one_half_and_changes_the_other():
    x = np.random.default_rng(0).standard_normal((3, 5), np.float32)
    for swap, kept in ((False, slice(0, 2)), (True, slice(2, 5))):
        module = bijectors.Coupling((5,), SIZES, swap=swap)
        params = drawn(module, 2, 0.5)
        same = np.asarray(jax.jit(module.apply)(params, x)[0]) == x
        assert same[:, kept].all()
        assert same.sum() == same[:, kept].size


def test_the_affine_map_by_hand():
    parameters = jnp.array([[0.5, 0.2], [1.0, 100.0]])
    y, log_det = bijectors.elementwise("affine", parameters).forward_and_log_det(jnp.array([3.0, 3.0]))
    log_scale = 2 * np.tanh([0.1, 50.0])
    np.testing.assert_allclose(log_det, log_scale, rtol=1e-5)
    np.testing.assert_allclose(y, 3 * np.exp(log_scale) + [0.5, 1.0], rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_spline_is_that_of_tensorflow_probability():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorflow_probability.substrates.jax import bijectors as tfb
    num_bins, edge = 5, bijectors.SPLINE_RANGE
    shape = (64, bijectors.num_parameters("spline", num_bins))
    parameters = np.random.default_rng(0).standard_normal(shape, np.float32)
    x = np.linspace(-1.2 * edge, 1.2 * edge, 64, dtype=np.float32)

    def sizes(raw):
        return scipy.special.softmax(raw, axis=-1) * (2 * edge - num_bins * 0.05) + 0.05

    def maps(spline, x):
        return spline.forward(x), spline.inverse(x), spline.forward_log_det_jacobian(x)

    widths, heights, slopes = np.split(parameters, [num_bins, 2 * num_bins], axis=-1)
    slopes = np.logaddexp(slopes + np.float32(math.log(math.expm1(0.99))), 0) + np.float32(0.01)
    # Theirs cannot be traced.
    theirs = maps(tfb.RationalQuadraticSpline(sizes(widths), sizes(heights), slopes, range_min=-edge), x)
    ours = jax.jit(lambda parameters, x: maps(bijectors.elementwise("spline", parameters), x))(parameters, x)
    for found, expected, tolerance in zip(ours, theirs, (1e-4, 1e-3, 1e-3), strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_squeeze_and_split_by_hand():
    image = jnp.arange(16.0).reshape(4, 4, 1)
    squeezed = np.asarray(Squeeze((4, 4, 1)).apply({}, image)[0])
    assert squeezed.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]], [[8, 9, 12, 13], [10, 11, 14, 15]]]
    split = Split((2, 2, 4), Squeeze((2, 2, 2)))
    assert split.apply({}, squeezed)[0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]


def test_every_level_of_a_pixel_is_spread_over_its_own_interval():
    image = jnp.arange(256, dtype=jnp.uint8)
    draws = flow_modules.dequantise(jax.random.key(0), jnp.broadcast_to(image, (500, 256)))
    np.testing.assert_array_equal(flow_modules.quantise(draws), jnp.broadcast_to(image, draws.shape))
    np.testing.assert_allclose(draws.mean(0), (np.arange(256) + 0.5) / 256, atol=1e-3)
    assert flow_modules.quantise(jnp.array([-0.1, 1.0, 1.1])).tolist() == [0, 255, 255]


def test_a_density_integrates_to_one():
    module = FlowModel(FlowModules((2,), (Repeat((2,), layer((2,), transform="spline", num_bins=4), 2),)))
    axis = np.linspace(-12, 12, 241, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)

    @jax.jit
    def mass(params):
        return jnp.exp(module.apply(params, grid)).sum() * (axis[1] - axis[0]) ** 2

    for seed in range(3):
        assert abs(mass(drawn(module, seed)) - 1) < 5e-3


def test_samples_follow_the_density():
    """Log-density of samples is what the change of variables says of the latents that they came from."""
    module = MODULES["multi-scale"]
    key, params = jax.random.key(0), drawn(module, 0, 0.1)

    @jax.jit
    def run(params):
        x = module.apply(params, key, (3, 2), method="sample")
        z = jax.random.normal(key, (3, 2, 16))
        back, log_det = module.apply(params, z, method="inverse")
        base = -0.5 * (z**2).sum(-1) - 8 * math.log(2 * math.pi)
        return x, back, module.apply(params, x, method="log_prob"), base - log_det

    x, back, log_prob, expected = run(params)
    np.testing.assert_array_equal(x, back)
    np.testing.assert_allclose(log_prob, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Squeeze((3, 4, 1)), "no image of an even height and width"),
        (bijectors.Coupling((1,)), "no two channels"),
        (bijectors.Autoregressive((2, 2, 2)), "no vector"),
        (FlowModules((2,), (bijectors.Affine((2,)), bijectors.Affine((3,)))), r"over \(3,\) cannot follow"),
    ],
    ids=["squeeze", "coupling", "autoregressive", "chain"],
)
def test_shapes_that_do_not_fit_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), jnp.zeros((2, *module.shape)))
