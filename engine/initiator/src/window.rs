//! CmdSN, ExpCmdSN, MaxCmdSN and StatSN as the initiator keeps them (RFC 7143 4.2.2).

use crate::event::CloseReason;
use wire::serial::{sn_gt, sn_lte};

/// The numbers of a session with one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// CmdSN of the next command.
    pub cmd_sn: u32,
    /// The target has all commands before this.
    pub exp_cmd_sn: u32,
    /// The last CmdSN that the target takes.
    pub max_cmd_sn: u32,
    /// StatSN that we expect next.
    pub exp_stat_sn: u32,
}

impl Window {
    /// True when a command that is not immediate may be sent.
    #[inline]
    pub fn is_open(&self) -> bool {
        sn_lte(self.cmd_sn, self.max_cmd_sn)
    }

    /// Commands that may be sent now.
    pub fn room(&self) -> u32 {
        if self.is_open() { self.max_cmd_sn.wrapping_sub(self.cmd_sn).wrapping_add(1) } else { 0 }
    }

    /// Takes ExpCmdSN and MaxCmdSN of a target's PDU: both are left alone when MaxCmdSN is below ExpCmdSN - 1, and
    /// each only ever grows (RFC 7143 4.2.2.1).
    #[inline]
    pub fn update(&mut self, exp_cmd_sn: u32, max_cmd_sn: u32) {
        if sn_gt(exp_cmd_sn.wrapping_sub(1), max_cmd_sn) {
            return;
        }
        if sn_gt(max_cmd_sn, self.max_cmd_sn) {
            self.max_cmd_sn = max_cmd_sn;
        }
        if sn_gt(exp_cmd_sn, self.exp_cmd_sn) {
            self.exp_cmd_sn = exp_cmd_sn;
        }
    }

    /// Checks the StatSN of a PDU: at error recovery level 0 none may be missing.
    #[inline]
    pub fn check_stat_sn(&self, stat_sn: u32) -> Result<(), CloseReason> {
        if stat_sn == self.exp_stat_sn { Ok(()) } else { Err(CloseReason::Protocol("StatSN out of order")) }
    }

    /// The same for a PDU that uses it up.
    pub fn take_stat_sn(&mut self, stat_sn: u32) -> Result<(), CloseReason> {
        self.check_stat_sn(stat_sn)?;
        self.exp_stat_sn = stat_sn.wrapping_add(1);
        Ok(())
    }

    /// The CmdSN for the next PDU; an immediate one doesn't use it up.
    #[inline]
    pub fn take(&mut self, immediate: bool) -> u32 {
        let cmd_sn = self.cmd_sn;
        if !immediate {
            self.cmd_sn = cmd_sn.wrapping_add(1);
        }
        cmd_sn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window { cmd_sn: 0xffff_fffe, exp_cmd_sn: 0xffff_fffe, max_cmd_sn: 1, exp_stat_sn: 0 }
    }

    #[test]
    fn the_window_closes_after_max_cmd_sn_and_wraps() {
        let mut window = window();
        assert_eq!(window.room(), 4);
        for _ in 0..4 {
            assert!(window.is_open());
            window.take(false);
        }
        assert!(!window.is_open());
        assert_eq!(window.room(), 0);
        window.update(2, 2);
        assert_eq!(window.room(), 1);
    }

    #[test]
    fn an_immediate_command_uses_up_no_number() {
        let mut window = window();
        assert_eq!(window.take(true), 0xffff_fffe);
        assert_eq!(window.take(false), 0xffff_fffe);
        assert_eq!(window.take(true), 0xffff_ffff);
    }

    #[test]
    fn old_and_contradictory_numbers_are_ignored() {
        let mut window = window();
        window.update(0xffff_fffe, 0); // older MaxCmdSN
        assert_eq!(window.max_cmd_sn, 1);
        window.update(5, 3); // MaxCmdSN < ExpCmdSN - 1
        assert_eq!((window.exp_cmd_sn, window.max_cmd_sn), (0xffff_fffe, 1));
        window.update(3, 2); // a closed window is legal
        assert_eq!((window.exp_cmd_sn, window.max_cmd_sn), (3, 2));
    }
}
