"""Values, names and settings that the mutations insert."""

import json
import re

DIGITS, NESTED, LONG = '9' * 5000, '[' * 2000 + ']' * 2000, 'x' * 100_000
NUMBERS = '0 1 2 3 4 5 7 8 64 -1 0.5 1.5 1e9 1e30 1e300 -1e300 1e999 -0.0 1e-300 1000000000 2147483648'.split()
NUMBERS += ['9223372036854775808', DIGITS, f'-{DIGITS}']
PATHS = 'nowhere/x train.yml lkdn.pth train sets experiments/run raw/HR.lmdb /dev/full . .. ../x / ~/x'.split()
PATHS += ['/dev/zero', '{}', '%s', '-x', 'a b', 'a\nb', '\udcff', '\x1b[31m', 'x' * 300, 'é' * 200]
# Values as they are written in a file, separated by two spaces.
YAML = """
~  []  {}  ''  true  false  maybe  auto  .inf  -.inf  .nan  |  *x  &x [*x]  0x  0b2  0o9  1_000  12:30:45  2001-01-01
2001-99-99  !!bool maybe  !!int x  !!float x  !!binary "@"  !!set {a, b}  !!timestamp x  !!python/name:os.system
"{:9999999999}"  "{x}"  "{0}{0}"  "{}{}"  "{"  "\\0"  [[[]]]  [1, 1, 1]  [0, 0, 0]  [0.5]  [1e300, 1, 1]  [.nan]  {1: 2}
{type: x}  {a: {b: {c: 1}}}  {~: ~}
"""
YAML = [*NUMBERS, *map(json.dumps, PATHS), *re.split('  |\n', YAML), NESTED, json.dumps(LONG)]
JSON = 'null  []  {}  ""  true  NaN  -Infinity  [[]]  [null]  {"a": 1}  ["a", "a"]  [1e300, 1e300, 3]  "<script>"  "|"'
JSON = [*NUMBERS, *map(json.dumps, PATHS), *JSON.split('  '), NESTED, json.dumps(LONG)]
TYPES = """
LKDN LKDN_S MSRResNet EDSR RRDBNet SwinIR BasicVSR RIFE SRVGGNetCompact VGGStyleDiscriminator EDVR DFDNet Adam AdamW SGD
LBFGS SparseAdam Muon Adan Adafactor Rprop ASGD NAdam CosineAnnealingRestartLR MultiStepLR L1Loss MSELoss GANLoss
CharbonnierLoss PerceptualLoss WeightedTVLoss PairedImageDataset PairedCropDataset SingleImageDataset REDSDataset
FFHQDataset Vimeo90KDataset VideoTestDataset SRModel ReparamSRModel SRGANModel ESRGANModel VideoRecurrentModel
calculate_psnr calculate_ssim calculate_niqe calculate_fid disk lmdb raw
""".split()
# Settings that are valid alone, or look like it, and may not fit the others.
SETTINGS = """
scale=3  num_gpu=1  num_gpu=0  manual_seed=~  model_type=SRModel  model_type=SRGANModel  datasets:val=~  val=~
network_g:num_in_ch=1  network_g:num_in_ch=4  network_g:num_out_ch=1  network_g:num_feat=1000000000  logger={}
network_g:upscale=4  network_g:upscale=1  network_g:num_block=0  network_g:num_feat=16  network_g:conv=DBB
network_g:upsampler=pixelshuffledirect  network_g:attention=esa  network_g:attention=cca  network_g:num_block=1000000
network_g={type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 8}  network_g={type: UNetDiscriminatorSN, num_in_ch: 3}
network_g={type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, upscale: 2}  network_g={type: SwinIR}
network_g={type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, scale: 2}  network_g={type: BasicVSR}
path:strict_load_g=false  path:param_key_g=~  path:param_key_g=params_ema  path:param_key_g=x  path:resume_override=true
path:pretrain_network_g=fused.pth  path:pretrain_network_g=msrresnet.pth  path:pretrain_network_g=lkdn.pth
path:resume_state=experiments/run/training_states/1.state  path:ignore_resume_networks=[network_g]
datasets:train:gt_size=32  datasets:train:gt_size=33  datasets:train:gt_size=1000  datasets:train:gt_size=2
datasets:train:batch_size_per_gpu=1000  datasets:train:batch_size_per_gpu=1000000000  datasets:train:mean=[0.5]
datasets:train:std=[0, 0, 0]  datasets:train:mean=[0.5, 0.5, 0.5]  datasets:train:color=y  datasets:val:color=y
datasets:train:filename_tmpl='{}x2'  datasets:train:meta_info_file=train.yml  datasets:train:num_worker_per_gpu=2
datasets:train:dataset_enlarge_ratio=1000000000  datasets:train:dataset_enlarge_ratio=0.01  datasets:train:float32=true
datasets:train:prefetch_mode=cpu  datasets:train:prefetch_mode=cuda  datasets:train:persistent_workers=true
datasets:train:crop_size=8  datasets:train:crop_size=16  datasets:train:type=SingleImageDataset  datasets:val_2=~
datasets:val:type=SingleImageDataset  datasets:train:io_backend={type: memcached}  datasets:train:dataroot_gt=sets
datasets:train:dataroot_lq=train/gt  datasets:train:dataroot_gt=raw/HR.lmdb  datasets:val:dataroot_gt=png/HR_sub.lmdb
train:total_iter=1  network_d={type: LKDN}  train:ema_decay=0  train:ema_decay=1  train:ema_decay=2
train:warmup_iter=2  train:warmup_iter=100  train:optim_g={type: LBFGS, lr: 1}  train:optim_g={type: SparseAdam, lr: 1}
train:optim_g={type: Muon, lr: 0.1}  train:optim_g={type: Adafactor, lr: 0.1}  train:optim_g={type: SGD, lr: 1e10}
train:optim_g={type: SGD, lr: 0.1, nesterov: true}  train:optim_g={type: Adam, lr: 0.1, fused: true, foreach: true}
train:optim_g={type: Adam, lr: 1e300}  train:optim_g={type: Rprop, lr: 0.1}  train:optim_g={type: Adam, betas: [1, 2]}
train:scheduler={type: CosineAnnealingRestartLR, periods: [2]}  train:scheduler={type: MultiStepLR, milestones: [-1]}
train:scheduler={type: CosineAnnealingRestartLR, periods: [9, 9], restart_weights: [1]}  train:pixel_opt=~
train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv5_4: 1}}  train:pixel_opt:reduction=none
train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv9_9: 1}, vgg_type: vgg19}  train:pixel_opt:loss_weight=0
train:gan_opt={type: GANLoss, gan_type: vanilla, loss_weight: 1}  train:pixel_opt={type: WeightedTVLoss}
val:val_freq=1  val:val_freq=1000  val:save_img=true  val:suffix=a/b  val:suffix='x'  val:metrics=~  val:metrics={}
val:metrics:psnr:crop_border=100  val:metrics:niqe={type: calculate_niqe, crop_border: 0}  val:metrics:psnr:better=lower
val:metrics:fid={type: calculate_fid}  logger:print_freq=1000  logger:keep_checkpoints=1  logger:use_tb_logger=false
logger:wandb={project: x}  dist_params={backend: x, port: 1}  name=other  name=debug_x  name='x y'  name=run_archived
"""
SETTINGS = re.split('  |\n', SETTINGS.strip())
