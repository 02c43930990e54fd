"""How messages travel between two stages: in one process, through shared memory, over ZeroMQ, GPU to GPU."""

from dtp_dist.transport.base import LinkOptions, Receiver, Sender
from dtp_dist.transport.collective import Carrier, Groups, Rendezvous
from dtp_dist.transport.curve import Gatekeeper, KeyPair, client_security, new_key_pair, server_security
from dtp_dist.transport.endpoints import open_receiver, open_sender
from dtp_dist.transport.inprocess import InProcessReceiver, InProcessSender, inprocess_pair
from dtp_dist.transport.shared import SHARED_MEMORY, SharedReceiver, SharedSender
from dtp_dist.transport.zeromq import ZmqOptions, ZmqReceiver, ZmqSender

__all__ = [
    "SHARED_MEMORY",
    "Carrier",
    "Gatekeeper",
    "Groups",
    "InProcessReceiver",
    "InProcessSender",
    "KeyPair",
    "LinkOptions",
    "Receiver",
    "Rendezvous",
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
