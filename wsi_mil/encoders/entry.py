"""Entry: what must be known of a published encoder to build it exactly, and to say what it may be used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
HIBOU = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
OPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
LUNIT = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
"""Mean and standard deviation of red, green and blue, 0 to 1, that inputs are normalised with."""

Known = Literal["yes", "probably", "no", "unknown"]
"""What is said of a fact that the sources may not settle; "probably" where they hint at it."""

POOLINGS = ("cls", "mean", "cls+mean", "tokens")
"""Ways to make vectors of a vision transformer's tokens: class token, mean of the patches' tokens, both end to end, and
one vector for each patch."""


@dataclass(frozen=True)
class Entry:
    """One published encoder. What is not known for certain stays empty or "unknown"; the first load records it."""

    name: str
    title: str
    architecture: str
    """Name of the network in timm."""
    dim: int
    parameters: int
    """Of the network as built, without a classifier: pins the architecture."""
    pooling: str
    """One of POOLINGS, or "network" where the network itself gives the vector."""
    norm: tuple[tuple[float, float, float], tuple[float, float, float]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the network in timm; layers by their names (see `networks.LAYERS`)."""
    input_px: int = 224
    resize_px: int = 0
    """Side a tile is brought to before the middle is cut out; 0: the input's, and nothing is cut."""
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    tile_px: int = 256
    """Side of the tiles that its authors or most users give it, at the finest of `mpp`."""
    mpp: tuple[float, ...] = ()
    """Finest and coarsest micrometres per pixel it was trained at; empty for networks of natural images."""
    hub: str = ""
    """Repository on the Hugging Face hub."""
    file: str = ""
    """File of the weights there; empty tries the usual names."""
    revision: str = ""
    """Commit of the hub that is pinned; empty takes the newest once, records it and keeps to it."""
    file_sha256: str = ""
    """Of the published file, where it is known."""
    layout: Literal["timm", "vit", "dinov2", "dinov2_original", "clip", "swin", "third_stage"] = "timm"
    """How the published file names its tensors."""
    licence: str = "unknown"
    commercial: Known = "unknown"
    """Whether the licence allows commercial use."""
    gated: Known = "unknown"
    """Whether the hub asks for a login and accepted terms."""
    saw_tcga: Known = "unknown"
    """Whether slides of TCGA were among those it was pretrained on."""
    pretraining_data: str = "unknown"
    """What slides or pictures it was pretrained on, in words, where its authors say so."""
    paper: str = ""

    @property
    def scale(self) -> str:
        """The scale it was trained at, for people."""
        if not self.mpp:
            return "any"
        return f"{self.mpp[0]:g}" if self.mpp[0] == self.mpp[-1] else f"{self.mpp[0]:g} to {self.mpp[-1]:g}"
