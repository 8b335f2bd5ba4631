//! Machines of one test: network namespaces around a hub, on one wire each, and ways between two of them that
//! are cut, either way or both.
//!
//! A test that wants some runs itself again in namespaces of its own, so nothing that it makes outlives it
//! and it need not be root, where the kernel lets users have them.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Set in the process that has namespaces of its own.
const INSIDE: &str = "ANTIPHON_TEST_NAMESPACES";
/// What makes a process's mounts and interfaces its own.
const SCRIPT: &str = "mount -t tmpfs tmpfs /run && ip link set lo up && exec \"$0\" \"$@\"";

/// True where namespaces are this test's own; else it has been run so, and has passed.
pub fn has_namespaces(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let own = std::env::current_exe().expect("this program");
    let output = command
        .args(["--net", "--mount", "sh", "-c", SCRIPT])
        .arg(own)
        .args(["--exact", "--nocapture", test])
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux");
    let (told, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for line in told.lines().filter(|line| line.starts_with('{')) {
        println!("{line}");
    }
    assert!(output.status.success(), "within namespaces:\n{told}\n{words}");
    assert!(told.contains(" 1 passed"), "there is no test {test}");
    false
}

/// Runs a command of the system; what it says is the failure's.
fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().expect("iproute2");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Hosts that reach each other, and this process, through one hub.
pub struct Network {
    hosts: usize,
}

/// Where something runs: this machine, or a host of a network.
#[derive(Clone)]
pub struct Place(Option<(Arc<Network>, usize)>);

/// The hub's namespace.
const HUB: &str = "hub";

impl Network {
    /// Of so many hosts. Within [`has_namespaces`] only.
    pub fn start(hosts: usize) -> Arc<Self> {
        run(&["ip", "netns", "add", HUB]);
        run(&["ip", "netns", "exec", HUB, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        let network = Self { hosts };
        // This process is at the end of the first wire.
        run(&["ip", "link", "add", "wire0", "type", "veth", "peer", "name", "port0", "netns", HUB]);
        run(&["ip", "address", "add", &format!("{}/24", own_ip()), "dev", "wire0"]);
        run(&["ip", "link", "set", "wire0", "up"]);
        network.plug(0);
        run(&["ip", "route", "add", "default", "via", "10.0.0.1"]);
        for host in 0..hosts {
            let (name, wire) = (name_of(host), host + 1);
            run(&["ip", "netns", "add", &name]);
            let (own, port) = ("wire", format!("port{wire}"));
            run(&[
                "ip", "link", "add", own, "netns", &name, "type", "veth", "peer", "name", &port, "netns", HUB,
            ]);
            run(&["ip", "-n", &name, "address", "add", &format!("{}/24", ip_of(host)), "dev", own]);
            run(&["ip", "-n", &name, "link", "set", own, "up"]);
            run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
            network.plug(wire);
            run(&["ip", "-n", &name, "route", "add", "default", "via", &format!("10.0.{wire}.1")]);
        }
        Arc::new(network)
    }

    fn plug(&self, wire: usize) {
        let port = format!("port{wire}");
        run(&["ip", "-n", HUB, "address", "add", &format!("10.0.{wire}.1/24"), "dev", &port]);
        run(&["ip", "-n", HUB, "link", "set", &port, "up"]);
    }

    /// Nothing that `from` sends reaches `to` any more, and nobody is told.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        assert!(from < self.hosts && to < self.hosts);
        let (from, to) = (ip_of(from).to_string(), ip_of(to).to_string());
        run(&["ip", "-n", HUB, "rule", "add", "pref", "100", "from", &from, "to", &to, "blackhole"]);
    }

    /// As [`Network::cut_one_way`], both ways.
    pub fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// All ways work again.
    pub fn heal(&self) {
        // The last one removed says that there is none left.
        let remove = || {
            let mut command = Command::new("ip");
            command.args(["-n", HUB, "rule", "del", "pref", "100"]).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        while remove() {}
    }
}

/// The address of this process.
pub fn own_ip() -> IpAddr {
    Ipv4Addr::new(10, 0, 0, 2).into()
}

fn ip_of(host: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, u8::try_from(host + 1).expect("few"), 2).into()
}

fn name_of(host: usize) -> String {
    format!("host{host}")
}

impl Place {
    pub const HERE: Self = Self(None);

    pub fn host(network: &Arc<Network>, host: usize) -> Self {
        Self(Some((Arc::clone(network), host)))
    }

    pub fn ip(&self) -> IpAddr {
        self.0.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), |(_, host)| ip_of(*host))
    }

    /// A command that runs there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some((_, host)) = &self.0 else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name_of(*host)]).arg(program);
        command
    }
}
