"""An ordinary training script: a small network on handwritten digits, in plain PyTorch.

It knows nothing of lightball. The last line that it prints is its result as JSON.
"""

import argparse
import json

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy


def load_splits():
    """Training, validation and test set: the same whatever the seed."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    train, rest = train_test_split(range(len(x)), test_size=0.4, random_state=0, stratify=y)
    validation, test = train_test_split(rest, test_size=0.5, random_state=0, stratify=y[rest])
    return [(x[rows], y[rows]) for rows in (train, validation, test)]


@torch.no_grad()
def loss_of(model, data):
    return cross_entropy(model(data[0]), data[1]).item()


@torch.no_grad()
def accuracy_of(model, data):
    return (model(data[0]).argmax(dim=1) == data[1]).float().mean().item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)  # initial weights, then the order of the data
    (x, y), validation, test = load_splits()
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)

    curve = [loss_of(model, (x, y))]
    for _ in range(args.epochs):
        for rows in torch.randperm(len(x)).split(args.batch_size):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        curve.append(loss_of(model, (x, y)))

    result = {
        "train_loss": curve[-1],
        "validation_accuracy": accuracy_of(model, validation),
        "test_accuracy": accuracy_of(model, test),
        "curve": curve,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
