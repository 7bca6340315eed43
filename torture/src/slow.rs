//! A slow network: for a while, the bridge between the nodes is a program that holds every packet back for a random time,
//! so that packets overtake each other. Real packets, and the kernel's own TCP at both ends.
//!
//! The kernel's netem would do it, where there is one. The delays follow a seed; which packet meets which delay does not,
//! because when a packet comes is up to the machine.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::network::Network;
use crate::trouble::{Result, Trouble, harness};

/// Turns off, or on, what makes a virtual link carry packets that are longer than a link's, or have no checksum yet:
/// nobody else would make them whole. Arguments: link, 0 or 1.
const OFFLOAD: &str = r#"
import ctypes, fcntl, socket, struct, sys
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO = 0x17, 0x1f, 0x24
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for command in (ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO):
    value = ctypes.create_string_buffer(struct.pack("II", command, int(sys.argv[2])))
    fcntl.ioctl(asking, SIOCETHTOOL, struct.pack("16sP", sys.argv[1].encode(), ctypes.addressof(value)))
"#;

/// Carries packets between links, each after a while. Ends with its stdin, and says how many it carried and how many were
/// overtaken. Arguments: seed, longest delay in milliseconds, links.
const SWITCH: &str = r#"
import heapq, random, selectors, socket, sys, time
ALL, OUTGOING = 3, 4
chance, longest = random.Random(int(sys.argv[1])), int(sys.argv[2]) / 1000
links = []
ready = selectors.DefaultSelector()
for name in sys.argv[3:]:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    link.bind((name, 0))
    link.setblocking(False)
    ready.register(link, selectors.EVENT_READ, link)
    links.append(link)
ready.register(sys.stdin, selectors.EVENT_READ, None)
where, held, number, newest, carried, overtaken = {}, [], 0, {}, 0, 0
print("carries", flush=True)
going = True
while going:
    pause = max(0.0, held[0][0] - time.monotonic()) if held else None
    for key, _ in ready.select(pause):
        if key.data is None:
            going = False
            continue
        for _ in range(64):
            try:
                packet, address = key.data.recvfrom(65536)
            except BlockingIOError:
                break
            if address[2] == OUTGOING:
                continue
            where[packet[6:12]] = key.data
            heapq.heappush(held, (time.monotonic() + chance.uniform(0, longest), number, key.data, packet))
            number += 1
    now = time.monotonic()
    while held and (held[0][0] <= now or not going):
        _, of, came, packet = heapq.heappop(held)
        to = where.get(packet[0:6])
        for link in [to] if to else [link for link in links if link is not came]:
            try:
                link.send(packet)
            except OSError:
                pass
        carried += 1
        flow = packet[0:12]
        overtaken += of < newest.get(flow, -1)
        newest[flow] = max(of, newest.get(flow, -1))
print(carried, overtaken, flush=True)
"#;

/// The network is slow as long as this lives.
#[derive(Debug)]
pub struct Slow {
    network: Arc<Network>,
    switch: Child,
}

impl Slow {
    /// From now on each packet between nodes takes up to so many milliseconds.
    pub fn begin(network: &Arc<Network>, seed: u64, delay_ms_max: u64) -> Result<Slow> {
        for place in network.places() {
            let offload = ["python3", "-c", OFFLOAD, "raft0", "0"];
            network.run_at(place, &offload)?;
        }
        let mut command = Command::new("python3");
        command
            .args(["-u", "-c", SWITCH, &seed.to_string()])
            .arg(delay_ms_max.to_string())
            .args(network.places().map(|place| format!("raft{place}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // This thread is in the hub, and so is what it starts.
        let mut switch = command.spawn()?;
        let mut first = [0; 8];
        let out = switch.stdout.as_mut();
        let began = out.is_some_and(|out| out.read_exact(&mut first).is_ok());
        // From here on whatever fails is undone when this is dropped.
        let slow = Slow {
            network: Arc::clone(network),
            switch,
        };
        if !began {
            return harness("the program that carries packets does not start");
        }
        network.bridge(false)?;
        Ok(slow)
    }

    /// The network is as fast as before. Returns how many packets were carried, and how many of them were overtaken.
    pub fn end(mut self) -> Result<(u64, u64)> {
        drop(self.switch.stdin.take());
        let mut said = String::new();
        if let Some(out) = self.switch.stdout.as_mut() {
            out.read_to_string(&mut said)?;
        }
        let numbers: Vec<u64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [carried, overtaken] => Ok((carried, overtaken)),
            _ => Err(Trouble::Harness(format!(
                "the program that carries packets said {said:?}"
            ))),
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.network.bridge(true);
        for place in self.network.places() {
            let _ = self
                .network
                .run_at(place, &["python3", "-c", OFFLOAD, "raft0", "1"]);
        }
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}
