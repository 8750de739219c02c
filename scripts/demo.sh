#!/usr/bin/env bash
# From Python, pip and git to LKDN trained, fused, tested and looked at: about 5 minutes of training on 2 CPU cores.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

$python scripts/demo.py data
$python scripts/prepare_df2k.py --hr datasets/demo/train/HR --out datasets/demo/train --scale 4
$python scripts/prepare_benchmark.py --hr datasets/demo/held_out/HR --out datasets/demo/held_out --scale 4
$python -m lkdn_basicsr.train -opt options/demo_LKDN_x4.yml
# The weights with their branches, in BasicSR's own model class; then the fused file that training left beside them.
$python -m lkdn_basicsr.test -opt options/demo_test_LKDN_x4.yml
$python -m lkdn_basicsr.test -opt options/demo_test_LKDN_x4.yml --force_yml name=demo_LKDN_x4_fused \
  path:pretrain_network_g=experiments/demo_LKDN_x4/models/net_g_latest_fused.pth path:param_key_g=params \
  network_g:conv=BSConvU network_g:upsampler=pixelshuffledirect
$python scripts/demo.py report
