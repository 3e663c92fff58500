"""What several processes compute of a batch that they share, gradients and signs of collapse too, is what one does."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from auricle.nn.batchnorm import BatchNorm
from auricle.nn.collapse import unit_spread
from auricle.nn.heads import ProjectionMLP
from auricle.nn.teacher import Centre
from launch import CONTEXT

ROWS = 9


def inputs() -> tuple[nn.Module, Centre, Tensor, Tensor]:
    torch.manual_seed(0)
    network, centre = ProjectionMLP(5, 8, 4), Centre(4)
    return network, centre, 2 * torch.randn(ROWS, 5) + 3, torch.randn(ROWS, 4)


def learn(rank: int, size: int) -> dict[str, Tensor]:
    """Two steps on this process's rows of the batch: outputs, summed gradients, statistics, centre."""
    network, centre, x, weight = inputs()
    rows = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
    out: dict[str, Tensor] = {}
    for step in range(2):
        network.zero_grad()
        own = (x[rows] + step).requires_grad_()
        y = network(own)
        # Not linear in the outputs, so that every process has other gradients.
        (y.tanh() * weight[rows]).square().sum().backward()
        centre.probabilities(y.detach(), 0.1)
        for parameter in network.parameters():
            if size > 1:
                torch.distributed.all_reduce(parameter.grad)
        centre.after_step()
        assert own.grad is not None
        out |= {f"{step}.y": y.detach(), f"{step}.x.grad": own.grad, f"{step}.spread": unit_spread(y, together=True)}
        out |= {f"{step}.grad.{n}": p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    norm = network[1]
    assert isinstance(norm, BatchNorm)
    return out | {f"norm.{n}": b.clone() for n, b in norm.named_buffers()} | {"centre": centre.mean.clone()}


def work(rank: int, size: int, port: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo")
    save_file(learn(rank, size), folder / f"{rank}.safetensors")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_statistics_gradients_and_centres(size: int, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [CONTEXT.Process(target=work, args=(rank, size, port, tmp_path)) for rank in range(size)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    parts = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(size)]
    for name, want in learn(0, 1).items():
        by_row = name.endswith((".y", ".x.grad"))
        got = torch.cat([part[name] for part in parts]) if by_row else parts[-1][name]
        torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
