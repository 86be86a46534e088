"""Cat or dog: the whole MobileNetV2, fine-tuned at 224 pixels. The released model."""

data = "microsoft/cats_vs_dogs"
backbone = "MobileNetV2"
backbone_weights = "imagenet"
size = 224
seed = 0

# Stage 1: logistic regression on the frozen features; the strength is chosen on validation.
inverse_regularisation = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]

# Stage 2: the whole network.
epochs = 8
batch_size = 32
learning_rate = 1e-4
warmup_steps = 300
weight_decay = 1e-3
average_decay = 0.999  # weights averaged over about the last 1,000 steps
patience = 5  # epochs without a better validation log loss; most of the gain comes late, as the rate falls

# What may happen to a training photo.
crop_area = 0.5  # cutting away more makes the animal's head a matter of luck
aspect = 1.33  # the collection squashed photos of every shape to a square
flip = True
rotation = 10.0
brightness = 0.3
contrast = 0.3
saturation = 0.3
sharpness = 0.8  # stored photos are soft; the world's are not
jpeg = 50
