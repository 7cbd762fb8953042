"""The network between the test's machines: a TUN device for each, and this process in between, which may delay, lose or drop.

A kernel without sch_netem can neither delay nor lose packets by itself, and a cut by the firewall would be noticed by the
sender. What is lost is decided by a seed; which packet that hits depends on the machine's timing.

Commands come in, a line each, and are answered by a line each:
  port ADDRESS DEVICE           makes the device; packets to that address go there
  drop FROM TO                  nothing goes that way any more; nobody is told
  pass FROM TO
  shape DELAY_MS LOSS_PERCENT   for everything
"""

import fcntl
import heapq
import os
import random
import selectors
import socket
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PACKET_BYTES_MAX = 65536
# Of one device, before the others have their turn.
PACKETS_A_TURN = 64
# As a switch's queue is bounded, so is this: 16 MiB of full packets.
QUEUE_PACKETS_MAX = 11000


class Switch:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.ports = {}
        self.dropped = set()
        self.delay = 0.0
        self.loss = 0.0
        self.queue = []
        self.sequence = 0
        self.commands = b""

    def run(self):
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self.read_commands)
        while True:
            timeout = None
            if self.queue:
                timeout = max(0.0, self.queue[0][0] - time.monotonic())
            for key, _ in self.selector.select(timeout):
                key.data()
            now = time.monotonic()
            while self.queue and self.queue[0][0] <= now:
                _, _, port, packet = heapq.heappop(self.queue)
                self.send(port, packet)

    def read_commands(self):
        data = os.read(sys.stdin.fileno(), 4096)
        if not data:
            sys.exit(0)  # The test is gone.
        *lines, self.commands = (self.commands + data).split(b"\n")
        for line in lines:
            try:
                answer = self.command(line.decode().split())
            except (OSError, ValueError, KeyError) as error:
                answer = f"failed: {error}"
            print(answer, flush=True)

    def command(self, words):
        if words[0] == "port":
            self.open_port(words[1], words[2])
        elif words[0] == "drop":
            self.dropped.add((packed(words[1]), packed(words[2])))
        elif words[0] == "pass":
            self.dropped.discard((packed(words[1]), packed(words[2])))
        elif words[0] == "shape":
            self.delay = float(words[1]) / 1000
            self.loss = float(words[2]) / 100
        else:
            return f"failed: no command is named {words[0]}"
        return "done"

    def open_port(self, address, device):
        port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
        self.ports[packed(address)] = port
        self.selector.register(port, selectors.EVENT_READ, lambda: self.receive(port))

    def receive(self, port):
        for _ in range(PACKETS_A_TURN):
            try:
                packet = os.read(port, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            self.forward(packet)

    def forward(self, packet):
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return
        source, destination = packet[12:16], packet[16:20]
        port = self.ports.get(destination)
        if port is None or (source, destination) in self.dropped:
            return
        if self.loss > 0 and self.random.random() < self.loss:
            return
        if self.delay == 0:
            self.send(port, packet)
        elif len(self.queue) < QUEUE_PACKETS_MAX:
            self.sequence += 1
            heapq.heappush(self.queue, (time.monotonic() + self.delay, self.sequence, port, packet))

    @staticmethod
    def send(port, packet):
        try:
            os.write(port, packet)
        except OSError:
            pass  # Its queue is full, or the device is down: lost, as on any cable.


def packed(address):
    return socket.inet_aton(address)


Switch(int(sys.argv[1])).run()
