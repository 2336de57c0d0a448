//! What the helper threads have done.

use super::Ring;
use crate::{Completion, Returned};

impl Ring {
    /// Collects the jobs that have ended.
    pub(super) fn collect_jobs(&mut self, out: &mut Vec<Completion>) {
        while let Some((token, result)) = self.offload.take() {
            out.push(match result {
                Ok((number, bytes)) => {
                    Completion { token, result: Ok(number as u32), returned: Returned::Job(number, bytes) }
                }
                Err(errno) => Completion { token, result: Err(errno), returned: Returned::Nothing },
            });
        }
    }
}
