"""Every family of the zoo against torch in float64, one sample at a time, layer by layer."""

import copy

import numpy as np
import oracle
import pytest
import torch
import zoo

from gradscore import Scorer

RTOL = 1e-3
NOISE = 1e-6  # a layer whose whole gradient is smaller than this share of the network's is float32 rounding


def gradients(module, sample):
    """{parameter: gradient} of one sample in float64, and the label and residual."""
    double = copy.deepcopy(module).double().eval()
    # Two copies, the loss of the first alone: torch's batch norm gives a wrong bias gradient for one transposed sample.
    twice = torch.stack([sample, sample])
    logits = double(twice.double() if sample.is_floating_point() else twice)[0]
    label, seed, residual = oracle.seed(logits.detach())
    parameters = dict(double.named_parameters())
    found = torch.autograd.grad(logits, list(parameters.values()), seed, allow_unused=True)
    named = zip(parameters, found, strict=True)
    return label, {name: gradient.numpy().ravel() for name, gradient in named if gradient is not None}, residual


def own(layer, parameters):
    """The parameters that stand behind a layer of the table: a module's own, or the one of that very name."""
    mine = [name for name in parameters if name.rpartition(".")[0] == layer]
    return mine or [name for name in parameters if name == layer]


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_layer_equals_torch(name, prepared):
    module, example = zoo.build(name)
    scorer = Scorer.load(prepared(f"zoo-{name}", module, example))
    scores = scorer.score(example.numpy())
    for row in range(len(example)):
        label, by_name, residual = gradients(module, example[row])
        assert scores.label[row] == label
        assert scores.residual[row] == pytest.approx(residual, rel=RTOL)
        actual = dict(zip(scores.feature_names, scores.features[row], strict=True))
        unmatched = set(by_name) - {key for key in by_name if key.endswith(zoo.FOLDED.get(name, ()))}
        network = oracle.statistics(np.concatenate(list(by_name.values())))
        for layer in scorer.metadata.layers:
            parameters = [key for key in own(layer.name, by_name) if key in unmatched]
            if not parameters and name in zoo.FOLDED:
                continue
            assert parameters, f"{name}: layer {layer.name!r} is no module or parameter of the model"
            assert sum(by_name[key].size for key in parameters) == sum(item.count for item in layer.parameters), (
                layer.name
            )
            expected = oracle.statistics(np.concatenate([by_name[key] for key in parameters]))
            found = {f"{layer.name}.{key}": actual[f"{layer.name}.{key}"] for key in expected}
            wanted = {f"{layer.name}.{key}": value for key, value in expected.items()}
            if expected["l2"] > NOISE * network["l2"]:
                oracle.assert_features(found, wanted, rtol=RTOL, context=name)
            else:
                assert found[f"{layer.name}.l2"] < 10 * NOISE * network["l2"]
            unmatched -= set(parameters)
        assert not unmatched, f"{name}: the table lacks {sorted(unmatched)}"
