"""A teacher trained outside Retort, in plain PyTorch: `python teacher.py FOLDER` leaves its weights and its data there.

The names of its parameters are those of the family `convnet`, so its weights can be handed to Retort as they are.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

folder = Path(sys.argv[1])
torch.manual_seed(0)
torch.set_num_threads(1)  # networks this small run fastest so

# 1797 handwritten digits of 8 x 8 pixels; 600 of them are kept away from every network until the end.
digits = load_digits()
images = (digits.images * (255 / 16)).round().astype(np.uint8)
x_train, x_test, y_train, y_test = train_test_split(images, digits.target, test_size=600, random_state=0, stratify=digits.target)
np.savez(folder / "digits.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)

x = torch.from_numpy(x_train).float().unsqueeze(1) / 255
y = torch.from_numpy(y_train)
mean, std = x.mean().item(), x.std().item()


class Block(nn.Sequential):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()


teacher = nn.Sequential()
for name, module in {
    "block1": Block(1, 32), "pool1": nn.MaxPool2d(2), "block2": Block(32, 64),
    "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(64, 10),
}.items():  # fmt: skip
    teacher.add_module(name, module)

epochs, size = 20, 64
optimizer = torch.optim.SGD(teacher.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
for epoch in range(epochs):
    for rows in torch.randperm(len(x)).split(size):
        loss = nn.functional.cross_entropy(teacher((x[rows] - mean) / std), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
    print(f"epoch {epoch + 1:2d} of {epochs}: loss {loss.item():.4f}")

save_file(teacher.state_dict(), folder / "teacher.safetensors")
description = {
    "architecture": {"family": "convnet", "channels": [32, 64], "input": [1, 8, 8], "classes": 10},
    "normalization": {"mean": [mean], "std": [std]},
}
(folder / "teacher.json").write_text(json.dumps(description, indent=2))
