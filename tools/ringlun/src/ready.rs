//! What is said when the portals are open: one line for programs, the rest for people.
use config::Plan;
use std::{fmt::Write, net::SocketAddr};

/// The text for standard output. Its first line is `ringlun ready portals=ADDRESS,ADDRESS`, with the addresses that are
/// really in use; then one line for each portal, and one for each target.
pub fn announcement(portals: &[SocketAddr], targets: &[String], plan: &Plan) -> String {
    let mut out = String::new();
    let addresses: Vec<String> = portals.iter().map(ToString::to_string).collect();
    // Writing to a String does not fail.
    let _ = writeln!(out, "ringlun ready portals={}", addresses.join(","));
    for address in &addresses {
        let _ = writeln!(out, "listening on {address}");
    }
    for target in targets {
        let _ = writeln!(out, "target {target}");
    }
    if plan.demo
        && let (Some(portal), Some(target)) = (portals.first(), targets.first())
    {
        out += &how_to_connect(*portal, target);
    }
    out
}

/// Commands that connect to the demo.
fn how_to_connect(portal: SocketAddr, target: &str) -> String {
    format!(
        "
A RAM disk to try ringlun with: what is written is gone when it ends (Ctrl-C).

Linux (open-iscsi):
  iscsiadm -m discovery -t sendtargets -p {portal}
  iscsiadm -m node -T {target} -p {portal} --login
  iscsiadm -m node -T {target} -p {portal} --logout
  iscsiadm -m node -T {target} -p {portal} -o delete

libiscsi, QEMU:
  iscsi-ls -s iscsi://{portal}
  iscsi-inq iscsi://{portal}/{target}/0
  qemu-img info iscsi://{portal}/{target}/0
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_real_portals() {
        let mut plan = Plan::demo(&[0, 1]);
        let portals = ["127.0.0.1:4711".parse().unwrap(), "[::1]:99".parse().unwrap()];
        let targets = ["iqn.2026-01.io.ringlun:demo".to_owned()];
        let text = announcement(&portals, &targets, &plan);
        assert_eq!(text.lines().next(), Some("ringlun ready portals=127.0.0.1:4711,[::1]:99"));
        assert!(
            text.contains("\nlistening on 127.0.0.1:4711\nlistening on [::1]:99\ntarget iqn.2026-01.io.ringlun:demo\n")
        );
        assert!(text.contains("iscsiadm -m node -T iqn.2026-01.io.ringlun:demo -p 127.0.0.1:4711 --login"));
        assert!(text.contains("iscsi://127.0.0.1:4711/iqn.2026-01.io.ringlun:demo/0"));
        plan.demo = false;
        assert!(!announcement(&portals, &targets, &plan).contains("iscsiadm"));
    }
}
