//! The login phase, target side: one type per state (rustls's way), driven by the control thread.
// INTERFACE SKETCH.
// pub struct Login { .. }  built with new(policy: LoginSettings{limits of our keys}, peer address, portal group tag, random source)
// fn receive(&mut self, bytes: &mut &[u8], directory: &dyn Directory, out: &mut Vec<u8>) -> LoginStep
//   enum LoginStep { More, /* read more */
//     Admit(Admission), /* all negotiated; the control thread asks the registry, then calls accept(tsih) or refuse(status) */
//     Discovery session after accept: DiscoverySession state answers Text SendTargets, NOP, Logout.
//     Close }
// trait Directory { fn access(&self, initiator_name, target_name: Option<&str>, address: IpAddr, portal_group) -> Access }
//   enum Access { NotFound, Forbidden, Open, Chap{ credentials } , Removed/Moved...}
// struct Admission { initiator_name, initiator_alias, target_name, isid: [u8;6], tsih: u16 (0 = new), cid: u16, discovery: bool,
//   parameters: Parameters, exp_cmd_sn, stat_sn }
