"""Cat or dog from 2,000 photos and nothing else: a small network with one sigmoid unit."""

data = "microsoft/cats_vs_dogs"
network = "cnn"
size = 64
seed = 0
train_photos = 2000
validation_photos = 624
test_photos = 624

blocks = [[32], [64], [128], [192]]
one_unit = True
dropout = 0.1
head_dropout = 0.3

epochs = 60
batch_size = 32
optimizer = "adamw"
learning_rate = 2e-3
weight_decay = 0.05
warmup_steps = 300
average_decay = 0.99

crop_area = 0.5
shear = 10.0
zoom = 0.1
rotation = 10.0
flip = True
brightness = 0.2
contrast = 0.2
saturation = 0.2
