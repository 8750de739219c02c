"""Results of a method, as tables, plots and pages use them."""

import dataclasses
import math


@dataclasses.dataclass
class BenchmarkScores:
    """Scores of a method on a benchmark, by image, on Y, without a border of ``scale`` pixels; PSNR in dB."""

    psnr: dict[str, float]
    ssim: dict[str, float]
    folder: str  # contains the SR images, IMAGE.png

    @property
    def mean_psnr(self) -> float:
        return math.fsum(self.psnr.values()) / len(self.psnr)

    @property
    def mean_ssim(self) -> float:
        return math.fsum(self.ssim.values()) / len(self.ssim)


@dataclasses.dataclass
class Result:
    """What was measured of a method at a scale; ``scores`` and ``curves`` are by the name of the benchmark."""

    method: str  # its name in tables
    scale: int
    scores: dict[str, BenchmarkScores]
    params: int | None = None  # of the fused network; None for bicubic
    multi_adds: int | None = None  # for an output of 1280×720; None for bicubic
    latency: float | None = None  # seconds for such an output on this machine; None if it was not measured
    seconds: float | None = None  # duration of training; None if the network was not trained here
    # (iteration, mean PSNR in dB) during training
    curves: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)
