"""Small random classifiers of many families, by name: how to build each, and an input of two samples."""

import copy
import itertools
import warnings

import numpy as np
import onnx
import torch
import transformers as hf
from torch import nn

from gradscore import export_classifier
from tests.support import oracle

CLASSES = 5


class Logits(nn.Module):
    """A Hugging Face classifier that returns only its logits."""

    def __init__(self, model):
        super().__init__()
        self.m = model

    def forward(self, inputs):
        return self.m(inputs).logits


class UNet(nn.Module):
    """Down, up by a transposed convolution, and a skip connection."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 12, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        fine = torch.relu(self.down(x))
        coarse = torch.relu(self.middle(nn.functional.max_pool2d(fine, 2)))
        return self.fc(torch.relu(self.out(torch.cat([fine, self.up(coarse)], 1))).mean((2, 3)))


class Attention(nn.Module):
    """The transformer encoder of torch, which computes on [positions, batch, channels]."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.fc(self.encoder(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    """Embedded tokens, a recurrent layer, and the last position."""

    def __init__(self, kind, **options):
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.recurrent = kind(12, 10, batch_first=True, **options)
        self.fc = nn.Linear(20 if options.get("bidirectional") else 10, CLASSES)

    def forward(self, tokens):
        return self.fc(self.recurrent(self.embed(tokens))[0][:, -1])


class Shared(nn.Module):
    """One dense layer that is used three times: its gradient is the sum over its uses."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(7, 12)
        self.again = nn.Linear(12, 12)
        self.last = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        for _ in range(3):
            x = torch.tanh(self.again(x))
        return self.last(x)


def _images(channels, height, width):
    return torch.randn(2, channels, height, width)


def _tokens(length, vocabulary):
    return torch.randint(1, vocabulary, (2, length))  # id 0 is padding, whose row torch does not train


def _hf(kind, **settings):
    config = getattr(hf, f"{kind}Config")(num_labels=CLASSES, **settings)
    ending = "ForSequenceClassification" if kind in ("Bert", "DistilBert") else "ForImageClassification"
    return Logits(getattr(hf, f"{kind}{ending}")(config))


_SMALL_ENCODER = {"num_hidden_layers": 2, "num_attention_heads": 2}
ZOO = {
    "resnet": (
        lambda: _hf("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
        lambda: _images(3, 32, 32),
    ),
    "regnet": (
        lambda: _hf("RegNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
        lambda: _images(3, 32, 32),
    ),
    "mobilenet_v2": (lambda: _hf("MobileNetV2", depth_multiplier=0.35, image_size=32), lambda: _images(3, 32, 32)),
    "efficientnet": (
        lambda: _hf(
            "EfficientNet", image_size=32, width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320,
            in_channels=[32, 16, 24], out_channels=[16, 24, 40], kernel_sizes=[3, 3, 5], strides=[1, 2, 2],
            num_block_repeats=[1, 1, 1], expand_ratios=[1, 6, 6], depthwise_padding=[],
        ),
        lambda: _images(3, 32, 32),
    ),
    "convnext": (
        lambda: _hf("ConvNext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32),
        lambda: _images(3, 32, 32),
    ),
    "poolformer": (
        lambda: _hf(
            "PoolFormer", hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, patch_sizes=[7, 3], strides=[4, 2],
            padding=[2, 1],
        ),
        lambda: _images(3, 32, 32),
    ),
    "vit": (
        lambda: _hf("ViT", hidden_size=16, intermediate_size=32, image_size=32, patch_size=8, **_SMALL_ENCODER),
        lambda: _images(3, 32, 32),
    ),
    "dinov2": (lambda: _hf("Dinov2", hidden_size=16, image_size=28, patch_size=14, **_SMALL_ENCODER), lambda: _images(3, 28, 28)),
    "levit": (
        lambda: _hf(
            "Levit", image_size=64, hidden_sizes=[16, 24, 32], num_attention_heads=[1, 2, 2], depths=[1, 1, 1],
            key_dim=[8, 8, 8], mlp_ratio=[2, 2, 2], attention_ratio=[2, 2, 2],
        ),
        lambda: _images(3, 64, 64),
    ),
    "swin": (
        lambda: _hf("Swin", image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4),
        lambda: _images(3, 32, 32),
    ),
    "bert": (
        lambda: _hf("Bert", vocab_size=50, hidden_size=16, intermediate_size=32, max_position_embeddings=32, **_SMALL_ENCODER),
        lambda: _tokens(9, 50),
    ),
    "distilbert": (
        lambda: _hf("DistilBert", vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=32),
        lambda: _tokens(9, 50),
    ),
    "attention": (Attention, lambda: torch.randn(2, 7, 6)),
    "gru": (lambda: Recurrent(nn.GRU, bidirectional=True), lambda: _tokens(6, 50)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: _tokens(7, 50)),
    "rnn": (lambda: Recurrent(nn.RNN), lambda: _tokens(5, 50)),
    "shared": (Shared, lambda: torch.randn(2, 7)),
    "cnn_1d": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 8, 5, stride=2, padding=2), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv1d(8, 8, 3, padding=1, groups=4),
            nn.GELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, CLASSES),
        ),
        lambda: torch.randn(2, 2, 33),
    ),
    "cnn_3d": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.PReLU(4), nn.MaxPool3d(2), nn.Conv3d(4, 8, 3), nn.ELU(), nn.Flatten(),
            nn.Linear(64, CLASSES),
        ),
        lambda: torch.randn(2, 1, 8, 8, 8),
    ),
    "unet": (UNet, lambda: _images(1, 16, 16)),
}  # fmt: skip


# The exporter looks these tables up itself: the graph holds the rows, not the parameter.
FOLDED = {
    "bert": ("position_embeddings.weight", "token_type_embeddings.weight"),
    "distilbert": ("position_embeddings.weight",),
    "levit": ("attention_biases",),
    "swin": ("relative_position_bias_table",),
}
EXPORTERS = {"swin": "torchscript"}  # if not torch's dynamo exporter: it fixes Swin's batch size


def perceptron():
    """Two hidden layers, as scikit-learn has them."""
    torch.manual_seed(12)
    module = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    return module.eval(), torch.randn(2, 6)


def _to_sklearn(module, example):
    """Return a scikit-learn classifier with the weights of `perceptron`."""
    from sklearn.neural_network import MLPClassifier

    dense = [layer for layer in module if isinstance(layer, nn.Linear)]
    rows = np.resize(example.numpy(), (CLASSES * 4, example.shape[1]))
    fitted = MLPClassifier([layer.out_features for layer in dense[:-1]], max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step does not converge, which does not matter here
        fitted.fit(rows, np.arange(len(rows)) % CLASSES)
    fitted.coefs_ = [layer.weight.detach().numpy().T for layer in dense]
    fitted.intercepts_ = [layer.bias.detach().numpy() for layer in dense]
    return fitted


def export(module, example, path, exporter="dynamo"):
    """Write a member of the zoo as ONNX; `exporter` is one of torch's two, or skl2onnx for the perceptron."""
    if exporter == "skl2onnx":
        from skl2onnx import to_onnx

        onnx.save(to_onnx(_to_sklearn(module, example), example.numpy(), options={"zipmap": False}), path)
        return
    export_classifier(module, example, path, exporter=exporter)


def build(name):
    """Return a classifier in eval mode, with random weights instead of initial zeros and ones, and its input."""
    factory, example = ZOO[name]
    torch.manual_seed(11)
    module = factory().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for key, buffer in module.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn_like(buffer))
            if key.endswith("running_var"):
                buffer.copy_(1 + 0.2 * torch.rand_like(buffer))
    return module, example()


def gradients(module, sample):
    """Return label, {parameter: gradient} and residual of one sample, by torch in float64."""
    double = copy.deepcopy(module).double().eval()
    # Two copies, but the loss of the first: torch's batch norm has a wrong bias gradient for one transposed sample.
    twice = torch.stack([sample, sample])
    logits = double(twice.double() if sample.is_floating_point() else twice)[0]
    label, seed, residual = oracle.seed(logits.detach())
    parameters = dict(double.named_parameters())
    found = torch.autograd.grad(logits, list(parameters.values()), seed, allow_unused=True)
    named = zip(parameters, found, strict=True)
    return label, {name: gradient.numpy().ravel() for name, gradient in named if gradient is not None}, residual


def behind(layer, by_name, left):
    """Return the parameters among `left` that belong to a layer of the table, by name and number of weights.

    A layer is named after its module, after the parameter itself, or after a node `/path/of/module/Operator`.
    """
    module = ".".join(layer.name.split("/")[1:-1]) if layer.name.startswith("/") else layer.name
    mine = [name for name in by_name if name in left and module in (name, name.rpartition(".")[0])]
    count = sum(item.count for item in layer.parameters)
    for length in range(len(mine), 0, -1):
        for chosen in itertools.combinations(mine, length):
            if sum(by_name[name].size for name in chosen) == count:
                return chosen
    return ()


def is_folded(name, parameter):
    """Tell whether the exporter looks this table up itself."""
    return parameter.endswith(FOLDED.get(name, ()))


def matched(name, metadata, by_name):
    """Yield each layer of the table with its parameters, or an empty tuple if the module has none."""
    left = {key for key in by_name if not is_folded(name, key)}
    for layer in metadata.layers:
        chosen = behind(layer, by_name, left)
        left -= set(chosen)
        yield layer, chosen


def layer_features(scores, row, layer, chosen, by_name):
    """Return the eight features of one layer, as found and as expected from torch."""
    wanted = oracle.statistics(np.concatenate([by_name[name] for name in chosen]))
    expected = {f"{layer.name}.{key}": value for key, value in wanted.items()}
    return {key: float(scores[key][row]) for key in expected}, expected
