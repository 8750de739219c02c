"""What is measured of a method, as the tables, plots and pages take it."""

import dataclasses
import math


@dataclasses.dataclass
class BenchmarkScores:
    """A method on a test set.

    Attributes:
        psnr (dict[str, float]): of each picture, in dB, on Y, without a border of ``scale`` pixels.
        ssim (dict[str, float]): of each picture, likewise.
        folder (str): where its SR pictures lie, ``PICTURE.png``.
    """

    psnr: dict[str, float]
    ssim: dict[str, float]
    folder: str

    @property
    def mean_psnr(self):
        return math.fsum(self.psnr.values()) / len(self.psnr)

    @property
    def mean_ssim(self):
        return math.fsum(self.ssim.values()) / len(self.ssim)


@dataclasses.dataclass
class Result:
    """A method at a scale.

    Attributes:
        method (str): its name in tables.
        scale (int): upscaling factor.
        scores (dict[str, BenchmarkScores]): by the name of the test set.
        params (int | None): number of parameters, of the fused network; None for bicubic.
        multi_adds (int | None): multiplications with addition for an output of 1280×720; None for bicubic.
        latency (float | None): seconds for such an output on this machine; None where it was not measured.
        seconds (float | None): of training, where that was part of it.
        curves (dict[str, list[tuple[int, float]]]): by the name of the test set, (iteration, mean PSNR in dB) while
            training.
    """

    method: str
    scale: int
    scores: dict[str, BenchmarkScores]
    params: int | None = None
    multi_adds: int | None = None
    latency: float | None = None
    seconds: float | None = None
    curves: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)
