"""What each stage does, in which order: actions, the one generator, validation and drawing; pure, no torch.

Stage 0 is the top row, time runs to the right, one tick an action, `.` is idle. F forward, I inverse
update, T target, U forward update; `python -m dtp_dist.schedule --stages 3 --minibatches 4 --in-flight 3`:

stage 0 | F0 I0 F1 I1 F2 I2 T0 U0 F3 I3 T1 U1 .  .  T2 U2 .  .  T3 U3
stage 1 | .  F0 I0 F1 I1 T0 U0 F2 I2 T1 U1 F3 I3 T2 U2 .  .  T3 U3 .
stage 2 | .  .  F0 I0 T0 U0 F1 I1 T1 U1 F2 I2 T2 U2 F3 I3 T3 U3 .  .

Where T needs nothing of F (`Flow`), both waves run at once, and a stage does first what reaches it first;
`python -m dtp_dist.schedule --stages 4 --minibatches 3 --in-flight 1 --one-wave`:

stage 0 | F0 .  .  T0 U0 F1 .  .  T1 U1 F2 .  .  T2 U2
stage 1 | .  F0 T0 U0 .  .  F1 T1 U1 .  .  F2 T2 U2 .
stage 2 | .  T0 F0 U0 .  .  T1 F1 U1 .  .  T2 F2 U2 .
stage 3 | T0 .  .  F0 U0 T1 .  .  F1 U1 T2 .  .  F2 U2
"""

from dtp_dist.flow import TWO_WAVES, Flow
from dtp_dist.phase import Phase
from dtp_dist.schedule.actions import (
    MESSAGES,
    Action,
    Kind,
    Link,
    Rows,
    delay,
    effective_in_flight,
    kinds_of,
    leading,
    order,
    receives,
    sends,
    stage_actions,
    window,
)
from dtp_dist.schedule.checking import validate
from dtp_dist.schedule.drawing import draw
from dtp_dist.schedule.pipeline import Schedule
from dtp_dist.schedule.spans import ACTIONS, RECEIVING, SENDING, Activity, Span

__all__ = [
    "ACTIONS",
    "MESSAGES",
    "RECEIVING",
    "SENDING",
    "TWO_WAVES",
    "Action",
    "Activity",
    "Flow",
    "Kind",
    "Link",
    "Phase",
    "Rows",
    "Schedule",
    "Span",
    "delay",
    "draw",
    "effective_in_flight",
    "kinds_of",
    "leading",
    "order",
    "receives",
    "sends",
    "stage_actions",
    "validate",
    "window",
]
