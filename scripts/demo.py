"""The two ends of demo.sh: ``data`` lays out pictures to train and test on, ``report`` tells what came out.

The pictures are the photographs that scikit-image carries, which BasicSR brings along.
"""
import argparse
import shutil
import sys
from pathlib import Path

DATA = Path('datasets/demo')
RESULTS = Path('results')
SCALE = 4

# Photographs with detail to learn from; the grey ones are textures. Not the drawings, pages and masks.
TRAIN = ('brick', 'chelsea', 'coffee', 'coins', 'grass', 'gravel', 'hubble_deep_field', 'ihc', 'moon', 'motorcycle_left',
         'motorcycle_right', 'retina')
HELD_OUT = ('astronaut', 'camera', 'rocket')

# What results/ has of each method: the name of its test, see demo.sh.
METHODS = {'LKDN trained': 'demo_LKDN_x4', 'LKDN fused': 'demo_LKDN_x4_fused'}


def make_data():
    """HR pictures from scikit-image, and the LR pictures that MATLAB's bicubic makes of them."""
    import cv2
    import skimage.data

    from lkdn_basicsr.data import imresize

    bundled = {path.stem: path for path in Path(skimage.data.__file__).parent.iterdir()}
    shutil.rmtree(DATA, ignore_errors=True)
    for names, hr, lr in ((TRAIN, 'train/HR', f'train/LR_bicubic/X{SCALE}'),
                          (HELD_OUT, f'held_out/GTmod{SCALE}', f'held_out/LRbicx{SCALE}')):  # yapf: disable
        for folder in (hr, lr):
            (DATA / folder).mkdir(parents=True)
        for name in names:
            picture = cv2.imread(str(bundled[name]), cv2.IMREAD_COLOR)
            height, width = (side // SCALE * SCALE for side in picture.shape[:2])
            picture = picture[:height, :width]
            cv2.imwrite(str(DATA / hr / f'{name}.png'), picture)
            cv2.imwrite(str(DATA / lr / f'{name}.png'), imresize(picture, 1 / SCALE))
    print(f'{DATA}: {len(TRAIN)} photographs to train on, {len(HELD_OUT)} held out')


def report():
    """A table of PSNR and SSIM on Y, and pictures of the methods side by side."""
    import cv2
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    import lkdn_basicsr  # noqa: F401  before BasicSR
    from basicsr.metrics import calculate_psnr, calculate_ssim
    from lkdn_basicsr.data import imresize

    def metrics(sr, gt):
        return tuple(metric(sr, gt, crop_border=SCALE, test_y_channel=True) for metric in (calculate_psnr, calculate_ssim))

    font = ImageFont.load_default(20)
    scores, pictures = {}, []
    for name in HELD_OUT:
        gt = cv2.imread(str(DATA / f'held_out/GTmod{SCALE}/{name}.png'))
        lq = cv2.imread(str(DATA / f'held_out/LRbicx{SCALE}/{name}.png'))
        columns = {'HR': gt, 'bicubic': imresize(lq, SCALE)}
        for method, test in METHODS.items():
            columns[method] = cv2.imread(str(RESULTS / test / 'visualization/held_out' / f'{name}_{test}.png'))
        scores[name] = {method: metrics(sr, gt) for method, sr in columns.items() if method != 'HR'}

        # The 160×160 region with the most detail, three times as large.
        detail = cv2.blur(np.abs(cv2.Laplacian(cv2.cvtColor(gt, cv2.COLOR_BGR2GRAY), cv2.CV_32F)), (160, 160))
        y, x = np.unravel_index(detail[80:-80, 80:-80].argmax(), [side - 160 for side in gt.shape[:2]])
        sheet = Image.new('RGB', (len(columns) * 480 + (len(columns) - 1) * 8, 480 + 32), 'white')
        draw = ImageDraw.Draw(sheet)
        for i, (method, picture) in enumerate(columns.items()):
            crop = cv2.resize(picture[y:y + 160, x:x + 160], (480, 480), interpolation=cv2.INTER_NEAREST)
            sheet.paste(Image.fromarray(crop[..., ::-1]), (i * 488, 32))
            label = name if method == 'HR' else f'{method}   %.2f dB / %.4f' % scores[name][method]
            draw.text((i * 488 + 4, 4), label, fill='black', font=font)
        pictures.append(RESULTS / 'demo' / f'{name}.png')
        pictures[-1].parent.mkdir(parents=True, exist_ok=True)
        sheet.save(pictures[-1])

    width = max(map(len, HELD_OUT))
    print('\nPSNR (dB) / SSIM on Y of the held-out photographs, ×4, border 4')
    print('  '.join(['method'.ljust(12), *(name.center(16) for name in HELD_OUT)]))
    for method in ('bicubic', *METHODS):
        print('  '.join([method.ljust(12), *(('%.2f / %.4f' % scores[name][method]).center(16) for name in HELD_OUT)]))
    gain = min(scores[name]['LKDN fused'][0] - scores[name]['bicubic'][0] for name in HELD_OUT)
    print(f'smallest gain of LKDN fused over bicubic: {gain:.2f} dB')
    print('\nSide by side (HR, bicubic, LKDN trained, LKDN fused):')
    for picture in pictures:
        print(f'  {picture}')
    del width


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('step', choices=['data', 'report'])
    sys.exit({'data': make_data, 'report': report}[parser.parse_args().step]())
