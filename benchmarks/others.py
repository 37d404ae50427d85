"""Programs by other people, as they come: what ``targets_table`` compiles beside the fixtures.

Needs keras, mujoco-mjx and numpyro. Shapes stand for all data; models are built on
the CPU because their libraries do so.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp


def shapes(tree):
    """The tree with shapes for arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


# ---- Keras: ResNet50 of keras.applications, loss and gradients of a batch of 64


def _resnet50():
    import keras

    return keras.applications.ResNet50(weights=None)


def keras_resnet50(trainable, rest, images, labels):
    model = _resnet50()

    def loss_of(trainable):
        logits, updated = model.stateless_call(trainable, rest, images, training=True)
        picked = jnp.take_along_axis(logits, labels[:, None], axis=1)
        return -jnp.mean(jnp.log(picked + 1e-7)), updated

    (loss, updated), grads = jax.value_and_grad(loss_of, has_aux=True)(trainable)
    return [w - 0.1 * g for w, g in zip(trainable, grads, strict=True)], updated, loss


def _resnet50_args(batch=64):
    model = _resnet50()
    trainable = [shapes(v.value) for v in model.trainable_variables]
    rest = [shapes(v.value) for v in model.non_trainable_variables]
    images = jax.ShapeDtypeStruct((batch, 224, 224, 3), jnp.float32)
    return trainable, rest, images, jax.ShapeDtypeStruct((batch,), jnp.int32)


keras_resnet50.example_args = _resnet50_args


# ---- MuJoCo MJX: one step of 1024 four-legged robots

_LEG = """
<body pos="{x} {y} 0">
  <joint type="hinge" axis="0 0 1" range="-30 30"/>
  <geom type="capsule" fromto="0 0 0 {x} {y} 0" size="0.08"/>
  <body pos="{x} {y} 0">
    <joint type="hinge" axis="{turned} {x} 0" range="30 100"/>
    <geom type="capsule" fromto="0 0 0 {x2} {y2} 0" size="0.08"/>
  </body>
</body>"""
_ANT = """
<mujoco><option timestep="0.01" iterations="4" ls_iterations="8"/><worldbody>
<geom type="plane" size="40 40 1"/>
<body pos="0 0 0.75"><freejoint/><geom type="sphere" size="0.25"/>{legs}</body>
</worldbody></mujoco>"""


def _ant():
    import mujoco
    from mujoco import mjx

    corners = [(0.2, 0.2), (-0.2, 0.2), (-0.2, -0.2), (0.2, -0.2)]
    legs = "".join(_LEG.format(x=x, y=y, x2=2 * x, y2=2 * y, turned=-y) for x, y in corners)
    model = mjx.put_model(mujoco.MjModel.from_xml_string(_ANT.format(legs=legs)), impl="jax")
    return mjx, model


def mjx_step(data):
    mjx, model = _ant()
    return jax.vmap(lambda each: mjx.step(model, each))(data)


def _mjx_args(batch=1024):
    mjx, model = _ant()
    make = jax.vmap(lambda _: mjx.make_data(model, impl="jax"))
    return (jax.eval_shape(make, jax.ShapeDtypeStruct((batch,), jnp.int32)),)


mjx_step.example_args = _mjx_args


# ---- NumPyro: one NUTS transition of a logistic regression


def _regression(x, y):
    import numpyro
    import numpyro.distributions as dist

    weights = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def numpyro_nuts(position, key, x, y):
    from numpyro.infer import hmc
    from numpyro.infer.util import potential_energy

    def potential(p):
        return potential_energy(_regression, (x, y), {}, p)

    start, kernel = hmc.hmc(potential_fn_gen=None, potential_fn=potential, algo="NUTS")
    state = start(position, num_warmup=0, step_size=0.1, rng_key=key)
    return kernel(state).z


def _nuts_args(rows=100_000, columns=54):
    key = jax.eval_shape(lambda: jax.random.key(0))
    position = {"w": jax.ShapeDtypeStruct((columns,), jnp.float32)}
    x = jax.ShapeDtypeStruct((rows, columns), jnp.float32)
    return position, key, x, jax.ShapeDtypeStruct((rows,), jnp.float32)


numpyro_nuts.example_args = _nuts_args
