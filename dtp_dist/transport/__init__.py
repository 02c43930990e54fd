"""How messages travel between two stages: in one process, through shared memory, or over ZeroMQ."""

from dtp_dist.transport.base import LinkOptions, Receiver, Sender
from dtp_dist.transport.curve import Gatekeeper, KeyPair, client_security, new_key_pair, server_security
from dtp_dist.transport.endpoints import open_receiver, open_sender
from dtp_dist.transport.inprocess import InProcessReceiver, InProcessSender, inprocess_pair
from dtp_dist.transport.shared import SHARED_MEMORY, SharedReceiver, SharedSender
from dtp_dist.transport.zeromq import ZmqOptions, ZmqReceiver, ZmqSender

__all__ = [
    "SHARED_MEMORY",
    "Gatekeeper",
    "InProcessReceiver",
    "InProcessSender",
    "KeyPair",
    "LinkOptions",
    "Receiver",
    "Sender",
    "SharedReceiver",
    "SharedSender",
    "ZmqOptions",
    "ZmqReceiver",
    "ZmqSender",
    "client_security",
    "inprocess_pair",
    "new_key_pair",
    "open_receiver",
    "open_sender",
    "server_security",
]
