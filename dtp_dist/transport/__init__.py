"""How messages travel between two stages: in one process, or over ZeroMQ between processes."""

from dtp_dist.transport.base import Receiver, Sender
from dtp_dist.transport.curve import Gatekeeper, KeyPair, client_security, new_key_pair, server_security
from dtp_dist.transport.inprocess import InProcessReceiver, InProcessSender, inprocess_pair
from dtp_dist.transport.zeromq import LinkOptions, ZmqReceiver, ZmqSender

__all__ = [
    "Gatekeeper",
    "InProcessReceiver",
    "InProcessSender",
    "KeyPair",
    "LinkOptions",
    "Receiver",
    "Sender",
    "ZmqReceiver",
    "ZmqSender",
    "client_security",
    "inprocess_pair",
    "new_key_pair",
    "server_security",
]
