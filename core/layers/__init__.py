"""The layers that a declared network may be made of: what a person may say of each, the shape it gives, and the PyTorch module it is."""

from core.layers.layer import Call, Layer, Misfit, Shape
from core.layers.listed import LAYERS, Node

__all__ = ["LAYERS", "Call", "Layer", "Misfit", "Node", "Shape"]
