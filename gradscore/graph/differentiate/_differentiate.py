"""Runs inside the builder's own environment, never inside this package's: bytes in, bytes out.

Usage: python -I -S _differentiate.py SITE. Standard input: one line of JSON with `target` and `wrt`, then an ONNX model.
Standard output: the model with its gradient graph.
"""

import json
import os
import sys


def main() -> None:
    """Differentiate the model on standard input; write the result to the real standard output."""
    sys.path.insert(0, sys.argv[1])
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints must not mix with the model

    from onnxruntime.capi._pybind_state import GradientGraphBuilder, SessionOptions  # noqa: PLC0415

    request = json.loads(sys.stdin.buffer.readline())
    model = sys.stdin.buffer.read()
    builder = GradientGraphBuilder(model, {request["target"]}, set(request["wrt"]), "", SessionOptions())
    builder.build()
    output.write(builder.get_model())
    output.close()


if __name__ == "__main__":
    main()
