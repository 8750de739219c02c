"""Results of a method, as tables, plots and pages use them."""

import dataclasses
import math


@dataclasses.dataclass
class BenchmarkScores:
    """Scores of a method on a benchmark.

    Attributes:
        psnr, ssim: By image, on Y, without a border of ``scale`` pixels; PSNR in dB.
        folder: Contains the SR images, ``IMAGE.png``.
    """

    psnr: dict[str, float]
    ssim: dict[str, float]
    folder: str

    @property
    def mean_psnr(self) -> float:
        return math.fsum(self.psnr.values()) / len(self.psnr)

    @property
    def mean_ssim(self) -> float:
        return math.fsum(self.ssim.values()) / len(self.ssim)


@dataclasses.dataclass
class Result:
    """What was measured of a method at a scale.

    Attributes:
        method: Name in tables.
        scores: By the name of the benchmark.
        params: Number of parameters of the fused network; None for bicubic.
        multi_adds: Multi-Adds for an output of 1280×720; None for bicubic.
        latency: Seconds for such an output on this machine; None if it was not measured.
        seconds: Duration of training; None if the network was not trained here.
        curves: By the name of the benchmark, (iteration, mean PSNR in dB) during training.
    """

    method: str
    scale: int
    scores: dict[str, BenchmarkScores]
    params: int | None = None
    multi_adds: int | None = None
    latency: float | None = None
    seconds: float | None = None
    curves: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)
