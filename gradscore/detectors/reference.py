"""The file of what detectors learned from known inputs: safetensors, so that reading it cannot run code."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gradscore.detectors.detector import Arrays
from gradscore.detectors.observations import LastLayer, Observations
from gradscore.detectors.table import DETECTORS
from gradscore.errors import ModelError
from gradscore.files.writing import replacing
from gradscore.version import __version__

KIND = "reference"
SCHEMA_VERSION = 1
LARGEST_FILE = 2**30
_KEY = "gradscore"


@dataclass(frozen=True)
class DetectorReference:
    """What detectors learned from known inputs with one model.

    Attributes
    ----------
    arrays
        The arrays of each detector by its name, and by their own names.
    model_fingerprint
        SHA-256 of the scoring model.
    rows
        Number of known rows that were learned from.
    """

    arrays: Mapping[str, Arrays]
    model_fingerprint: str
    rows: int

    @classmethod
    def learned(
        cls, known: Observations, head: LastLayer | None, names: Sequence[str], *, model_fingerprint: str
    ) -> "DetectorReference":
        """Learn from predictions that are right, on known inputs; detectors without a reference are left out.

        Raises
        ------
        ModelError
            The model lacks something that one of the detectors reads.
        InputError
            There are no rows with finite values.
        """
        chosen = [DETECTORS[name] for name in names if DETECTORS[name].has_reference]
        arrays = {one.name: one.reference(known, head) for one in chosen}
        return cls(arrays, model_fingerprint, len(known.finite()))

    def of(self, detector: str) -> Arrays | None:
        """Return the arrays of one detector; None if it has none here."""
        return self.arrays.get(detector)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the file by atomic rename.

        Raises
        ------
        OutputExistsError
            `path` exists and `overwrite` is False.
        ModelError
            The arrays have more bytes than a file may have.
        """
        from safetensors.numpy import save_file  # noqa: PLC0415 - only where a reference is used

        tensors = {
            f"{name}/{key}": np.ascontiguousarray(one) for name, own in self.arrays.items() for key, one in own.items()
        }
        if (size := sum(one.nbytes for one in tensors.values())) > LARGEST_FILE:
            raise ModelError(f"the reference has {size:,} bytes and may have {LARGEST_FILE:,}: choose fewer detectors")
        said = {
            "kind": KIND, "schema_version": SCHEMA_VERSION, "model_fingerprint": self.model_fingerprint, "rows": self.rows,
            "gradscore_version": __version__,
        }  # fmt: skip
        with replacing(path, overwrite=overwrite) as part:
            save_file(tensors, part, metadata={_KEY: json.dumps(said)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DetectorReference":
        """Read and check a file.

        Raises
        ------
        ModelError
            The file is missing, too large, no reference, of another schema version, or its arrays are not those that the
            detectors write.
        """
        file = Path(path)
        said, tensors = _read(file)
        if said.get("schema_version") != SCHEMA_VERSION:
            raise ModelError(
                f"{file} has reference schema {said.get('schema_version')}, this gradscore reads {SCHEMA_VERSION}: make it "
                "again with `gradscore reference`"
            )
        arrays: dict[str, dict[str, Any]] = {}
        for key, one in tensors.items():
            detector, _, name = key.partition("/")
            arrays.setdefault(detector, {})[name] = one
        found = cls(MappingProxyType(arrays), str(said.get("model_fingerprint", "")), said.get("rows", 0))
        if problem := _foreign(found):
            raise ModelError(f"{file} is not a reference as gradscore writes it: {problem}. Make it again")
        return found


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a file says of itself, and its tensors."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only where a reference is used

    if not file.is_file():
        raise ModelError(f"no such reference: {file}; `gradscore reference MODEL KNOWN_INPUTS -o {file}` writes one")
    if (size := file.stat().st_size) > LARGEST_FILE + 2**20:
        raise ModelError(
            f"{file} has {size:,} bytes; a reference has at most {LARGEST_FILE:,}, so this is another file"
        )
    try:
        with safe_open(file, framework="numpy") as opened:
            said = json.loads((opened.metadata() or {}).get(_KEY, "null"))
            if not isinstance(said, dict) or said.get("kind") != KIND:
                raise ModelError(f"{file} is not a reference; `gradscore reference MODEL KNOWN_INPUTS` writes one")
            return said, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is not a safetensors file of numbers ({error}): make it again") from error


def _foreign(found: DetectorReference) -> str | None:
    """Return what no reference has, or None."""
    if not found.model_fingerprint or not isinstance(found.rows, int) or found.rows < 1:
        return "it does not say which model it belongs to, or from how many rows it was learned"
    sizes: dict[str, int] = {}  # q and D are the same for all detectors
    for name, arrays in found.arrays.items():
        detector = DETECTORS.get(name)
        if detector is None or not detector.has_reference:
            return f"it holds arrays of {name!r}, which no detector has"
        for key, one in arrays.items():
            if one.dtype != np.float64 or not np.isfinite(one).all():
                return f"{name}/{key} is not all finite numbers in double precision"
        own = dict(sizes)
        if problem := detector.misshapen(arrays, own):
            return f"{name}: {problem}"
        sizes |= {axis: extent for axis, extent in own.items() if axis in ("q", "D")}
    return None
