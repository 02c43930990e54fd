"""torch's fused Adam and AdamW with less around their kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch


class FusedAdam(torch.optim.Adam):
    """torch's Adam: the same state, the same kernel, the same bits.

    What torch's own ``step`` does around the kernel (profiler records, sorting tensors by device and type) is
    made for many parameter groups on many devices. A stage has one of each, and with small layers that work
    took as long as the kernel; twice a minibatch in every stage, it was most of what cutting a network into
    stages cost. The first step, which makes the state, is torch's own.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply one step to every parameter that has a gradient; all are on one device, of one type."""
        loss = None if closure is None else closure()
        [group] = self.param_groups
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [self.state[parameter] for parameter in parameters]
        if not all(states):
            super().step()
            return loss
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1.0)
        kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        kernel(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # torch wraps no step that says so in a profiler's record


class FusedAdamW(FusedAdam, torch.optim.AdamW):
    """torch's AdamW, as ``FusedAdam`` is torch's Adam."""
