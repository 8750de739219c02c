#!/usr/bin/env python
"""First and last step of demo.sh: ``data`` copies images to train and test on, ``report`` shows the results.

The images are the photographs in scikit-image, which BasicSR depends on.
"""

import argparse
import shutil
from pathlib import Path

DATA = Path('datasets/demo')
RESULTS = Path('results')
SCALE = 4

# Photographs with detail, the gray ones of textures; no drawings, pages or masks. motorcycle_right shows the same as
# motorcycle_left, and is in neither list.
TRAIN = ('brick', 'chelsea', 'coffee', 'coins', 'grass', 'gravel', 'hubble_deep_field', 'ihc', 'moon', 'rocket')
HELD_OUT = ('astronaut', 'camera', 'motorcycle_left')

METHODS = {
    'LKDN trained': 'demo_LKDN_x4',
    'LKDN fused': 'demo_LKDN_x4_fused',
}  # and the names of their tests in results/


def copy_images():
    """Copy the photographs to ``train/HR`` and ``held_out/HR``; demo.sh prepares them from there."""
    import skimage

    bundled = {path.stem: path for path in (Path(skimage.__file__).parent / 'data').iterdir()}
    shutil.rmtree(DATA, ignore_errors=True)
    for names, folder in ((TRAIN, DATA / 'train/HR'), (HELD_OUT, DATA / 'held_out/HR')):
        folder.mkdir(parents=True)
        for name in names:
            shutil.copy(bundled[name], folder)
    print(f'{DATA}: {len(TRAIN)} photographs to train on, {len(HELD_OUT)} held out')


def read(path):
    import cv2

    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f'demo.py: error: {path} does not exist; run bash scripts/demo.sh, which makes it')
    return image


def report():
    """Print PSNR and SSIM on Y of each method, and draw the methods side by side."""
    import lkdn_basicsr  # noqa: F401, I001  before BasicSR, which cannot be imported without it
    from basicsr.metrics import calculate_psnr, calculate_ssim
    from lkdn_basicsr.data import imresize

    scores, sheets = {}, []
    for name in HELD_OUT:
        gt = read(DATA / f'held_out/GTmod{SCALE}/{name}.png')
        columns = {'HR': gt, 'bicubic': imresize(read(DATA / f'held_out/LRbicx{SCALE}/{name}.png'), SCALE)}
        for method, test in METHODS.items():
            columns[method] = read(RESULTS / test / 'visualization/held_out' / f'{name}_{test}.png')
        scores[name] = {
            method: [
                metric(sr, gt, crop_border=SCALE, test_y_channel=True) for metric in (calculate_psnr, calculate_ssim)
            ]
            for method, sr in columns.items()
            if method != 'HR'
        }
        labels = {method: f'{method}  {psnr:.2f} dB / {ssim:.4f}' for method, (psnr, ssim) in scores[name].items()}
        sheets.append(RESULTS / 'demo' / f'{name}.png')
        draw(columns, {'HR': f'HR  {name}'} | labels, sheets[-1])

    print(f'\nPSNR (dB) / SSIM on Y of the held-out photographs, ×{SCALE}, border {SCALE}\n')
    print(f'{"":12}', *(f'{name:>16}' for name in HELD_OUT))
    for method in ('bicubic', *METHODS):
        print(f'{method:12}', *(f'{psnr:7.2f} / {ssim:.4f}' for psnr, ssim in (scores[n][method] for n in HELD_OUT)))
    gain = min(scores[name]['LKDN fused'][0] - scores[name]['bicubic'][0] for name in HELD_OUT)
    print(f'\nLKDN fused is {gain:.2f} dB or more above bicubic on each of them. Side by side:')
    for sheet in sheets:
        print(f'  {sheet}')


def draw(columns, labels, path, side=160, zoom=3):
    """Save the region with the most detail of each image, enlarged, with its label above it."""
    import cv2
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    gray = cv2.cvtColor(columns['HR'], cv2.COLOR_BGR2GRAY)
    detail = cv2.boxFilter(np.abs(cv2.Laplacian(gray, cv2.CV_32F)), -1, (side, side), anchor=(0, 0))
    top, left = np.unravel_index(detail[:-side, :-side].argmax(), [length - side for length in gray.shape])
    width, margin = side * zoom, 32
    sheet = Image.new('RGB', (len(columns) * (width + 8) - 8, width + margin), 'white')
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for i, (method, image) in enumerate(columns.items()):
        crop = cv2.cvtColor(image[top : top + side, left : left + side], cv2.COLOR_BGR2RGB)
        crop = cv2.resize(crop, (width, width), interpolation=cv2.INTER_NEAREST)
        sheet.paste(Image.fromarray(crop), (i * (width + 8), margin))
        pen.text((i * (width + 8) + 4, 4), labels[method], fill='black', font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('step', choices=['data', 'report'])
    {'data': copy_images, 'report': report}[parser.parse_args().step]()
