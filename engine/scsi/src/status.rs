//! SAM-5 status codes.

/// How a command ended (SAM-5 5.3.1).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The command is done.
    Good = 0x00,
    /// Sense data says what is the matter.
    CheckCondition = 0x02,
    /// The condition of a PRE-FETCH is met.
    ConditionMet = 0x04,
    /// Try again later.
    Busy = 0x08,
    /// The command conflicts with a reservation.
    ReservationConflict = 0x18,
    /// No room in the task set.
    TaskSetFull = 0x28,
    /// An ACA condition exists (never sent: NormACA is 0).
    AcaActive = 0x30,
    /// Aborted by another nexus, with TAS set.
    TaskAborted = 0x40,
}
