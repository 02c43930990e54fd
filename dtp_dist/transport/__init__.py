"""How messages travel between two stages: in one process, or over ZeroMQ between processes."""

from dtp_dist.transport.base import Receiver, Sender
from dtp_dist.transport.inprocess import InProcessReceiver, InProcessSender, inprocess_pair
from dtp_dist.transport.zeromq import LinkOptions, ZmqReceiver, ZmqSender

__all__ = [
    "InProcessReceiver",
    "InProcessSender",
    "LinkOptions",
    "Receiver",
    "Sender",
    "ZmqReceiver",
    "ZmqSender",
    "inprocess_pair",
]
