"""Scores that others proposed to tell known from unknown inputs: what they read, how they are computed, and their reference."""

from gradscore.detectors.detector import Detector
from gradscore.detectors.observations import LastLayer, Observations
from gradscore.detectors.reference import DetectorReference
from gradscore.detectors.table import DETECTORS

__all__ = ["DETECTORS", "Detector", "DetectorReference", "LastLayer", "Observations"]
