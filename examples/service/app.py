"""A web service that takes an image and returns its class and P(correct).

Requests that arrive at the same time are scored as one batch. The service needs fastapi and uvicorn.

Usage: SCORING=scoring.onnx VERDICT=verdict.onnx uvicorn --factory app:from_environment
"""

import os
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse

from gradscore import InputError, MismatchError, Scorer, Verdict
from gradscore.model.model_file import read_metadata
from gradscore.scoring.extra_features import features_with

LARGEST = 20_000_000  # bytes of an image at most


def from_environment() -> FastAPI:
    """Return the service for the files named by the environment variables SCORING and VERDICT."""
    return service(Path(os.environ["SCORING"]), Path(os.environ["VERDICT"]))


def service(scoring: Path, verdict_file: Path) -> FastAPI:
    """Return the service for a scoring model and its verdict."""
    verdict = Verdict.load(verdict_file)
    features = features_with(
        verdict.feature_names, read_metadata(Path(scoring))
    )  # those that the verdict was fitted with
    counts, lock = Counter[str](), threading.Lock()

    def count(name: str, increase: float) -> None:
        with lock:
            counts[name] += increase  # type: ignore[assignment]  # some counters are seconds

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Scorer.load(scoring, features=features) as scorer:
            if verdict.model_fingerprint != scorer.fingerprint:
                raise MismatchError(f"{verdict_file} was not fitted to scores of {scoring}")
            scorer.count_with(count)
            with scorer.batched(max_batch=32, max_delay_ms=2) as front:
                app.state.scorer, app.state.front = scorer, front
                yield

    app = FastAPI(title="gradscore", lifespan=lifespan)

    @app.post("/score")
    def score(content: Annotated[bytes, Depends(_content)]) -> dict[str, Any]:
        try:
            scores = app.state.front.score(content)
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        (label,), (p_correct,) = scores.label.tolist(), verdict.apply(scores.features).tolist()
        return {
            "label": label, "name": app.state.scorer.metadata.label_name(label), "p_correct": p_correct,
            "accept": p_correct >= verdict.threshold, "max_softmax": scores.max_softmax.item(),
        }  # fmt: skip

    @app.get("/metrics")
    def metrics() -> PlainTextResponse:
        with lock:
            lines = [f"# TYPE {name} counter\n{name} {value}\n" for name, value in sorted(counts.items())]
        return PlainTextResponse("".join(lines))

    return app


async def _content(request: Request) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST:
            raise HTTPException(413, f"the image is too large: at most {LARGEST:,} bytes are accepted")
    return bytes(content)
