//! Which of this machine's addresses the kernel sends from to each receiver, when it is not told.
//!
//! A receiver knows us by one address, and a socket that is bound to all of them may send from another.
//! Naming the source with every send makes it right and each send a tenth dearer; so it is named only where
//! it has to be.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Routes change, if seldom: an answer is believed for so long.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
/// Receivers remembered. Full: all are forgotten and asked for again.
const RECEIVERS_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub struct Routes {
    /// By receiver: whence the kernel sends, and when it was asked. None where it has no way.
    chosen: HashMap<IpAddr, (Option<IpAddr>, Instant)>,
}

impl Routes {
    /// Whether what goes to `destination` leaves from `source` by itself.
    pub fn is_chosen(&mut self, now: Instant, destination: SocketAddr, source: IpAddr) -> bool {
        let known = self.chosen.get(&destination.ip());
        let (chosen, _) = match known {
            Some(known) if now.saturating_duration_since(known.1) < BELIEVED_FOR => *known,
            _ => {
                if self.chosen.len() >= RECEIVERS_MAX {
                    self.chosen.clear();
                }
                let asked = (ask(destination), now);
                self.chosen.insert(destination.ip(), asked);
                asked
            }
        };
        chosen == Some(source)
    }
}

/// Asks the kernel, by a socket that is connected there and sends nothing.
fn ask(destination: SocketAddr) -> Option<IpAddr> {
    let any = if destination.is_ipv4() {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        assert!(routes.is_chosen(now, to, to.ip()));
        assert!(!routes.is_chosen(now, to, [127, 0, 0, 2].into()));
        assert_eq!(routes.chosen.len(), 1);
    }
}
