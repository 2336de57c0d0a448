//! One side of a negotiation of operational keys, for one connection.

use crate::keys::{Function, Key, KeySet, Senders, Use};
use crate::{NegotiationError, Parameters, Settings, result, value};

/// Which side of the login this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Offers first.
    Initiator,
    /// Answers, and offers what the initiator left out and the defaults don't suit.
    Target,
}

/// What the session is for (RFC 7143 13.21).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionType {
    /// SCSI commands to one target.
    #[default]
    Normal,
    /// SendTargets alone.
    Discovery,
}

/// Unknown keys that a negotiation answers before it gives up: it bounds the length of the answers.
pub const MAX_UNKNOWN_KEYS: usize = 64;

/// One side of a negotiation. Keys and values go in as they came, answers and offers come out as text; each key is
/// settled once (RFC 7143 6.3).
#[derive(Clone, Debug)]
pub struct Negotiator {
    role: Role,
    session_type: SessionType,
    settings: Settings,
    parameters: Parameters,
    /// Keys that the peer has sent, whichever way.
    received: KeySet,
    /// Our offers without an answer yet.
    waiting: KeySet,
    /// Our MaxRecvDataSegmentLength is told.
    declared: bool,
    /// The peer's FirstBurstLength, answered when the keys that it hangs on are settled.
    first_burst: Option<u32>,
    unknown: usize,
}

impl Negotiator {
    /// Nothing said yet: all parameters are at their defaults.
    pub fn new(role: Role, settings: Settings, session_type: SessionType) -> Self {
        Negotiator {
            role,
            session_type,
            settings,
            parameters: Parameters::default(),
            received: KeySet::default(),
            waiting: KeySet::default(),
            declared: false,
            first_burst: None,
            unknown: 0,
        }
    }

    /// Tells what the session is for. Before the first operational key.
    pub fn set_session_type(&mut self, session_type: SessionType) {
        self.session_type = session_type;
    }

    /// Takes one key that the peer sent in the login phase, as an offer, an answer or a declaration, and appends the
    /// answer if there is one. `Some(key)`: a security key or a textual declaration, whose value is the caller's
    /// business; here it was only checked that it may come, and that it comes once.
    pub fn receive(&mut self, name: &str, text: &str, out: &mut Vec<u8>) -> Result<Option<Key>, NegotiationError> {
        let Some(key) = Key::named(name) else {
            return self.unknown(name, text, out);
        };
        let row = key.row();
        let stranger = match self.role {
            Role::Target => row.senders == Senders::Target,
            Role::Initiator => row.senders == Senders::Initiator,
        };
        if stranger {
            // A peer may shrug off our declaration.
            return if value::is_refusal(text) { Ok(None) } else { Err(NegotiationError::WrongSender(key)) };
        }
        if row.phases == Use::FullFeaturePhaseOnly {
            return Err(NegotiationError::WrongPhase(key));
        }
        if !self.received.insert(key) && key != Key::TargetAddress {
            return Err(NegotiationError::Duplicate(key));
        }
        match row.function {
            Function::Declared => Ok(Some(key)),
            Function::List if key == Key::AuthMethod => Ok(Some(key)),
            Function::DeclaredNumber(_) => {
                let declared = result::parse(key, text).ok_or(NegotiationError::BadDeclaration(key))?;
                self.parameters.peer_max_recv_data_segment_length = declared;
                Ok(None)
            }
            Function::ObsoleteMarker => {
                value::put(out, key.name(), "No");
                Ok(None)
            }
            Function::ObsoleteInterval => {
                value::put(out, key.name(), value::REJECT);
                Ok(None)
            }
            _ if self.waiting.contains(key) => self.answered(key, text).map(|()| None),
            _ => {
                self.offered(key, text, out);
                Ok(None)
            }
        }
    }

    fn unknown(&mut self, name: &str, text: &str, out: &mut Vec<u8>) -> Result<Option<Key>, NegotiationError> {
        self.unknown += 1;
        if self.unknown > MAX_UNKNOWN_KEYS {
            return Err(NegotiationError::TooManyUnknownKeys);
        }
        if !value::is_refusal(text) {
            value::put(out, name, value::NOT_UNDERSTOOD);
        }
        Ok(None)
    }

    fn offered(&mut self, key: Key, text: &str, out: &mut Vec<u8>) {
        if self.session_type == SessionType::Discovery && key.row().irrelevant_in_discovery {
            return value::put(out, key.name(), value::IRRELEVANT);
        }
        match result::answer(&self.settings, key, self.first_offer(key), text) {
            Some(agreed) if key == Key::FirstBurstLength => self.first_burst = Some(agreed),
            Some(agreed) => {
                result::set(&mut self.parameters, key, agreed);
                result::put(out, key, agreed);
            }
            None => value::put(out, key.name(), value::REJECT),
        }
    }

    fn answered(&mut self, key: Key, text: &str) -> Result<(), NegotiationError> {
        self.waiting.remove(key);
        if value::is_refusal(text) {
            return Ok(()); // The default stays; `finish` tells whether it will do.
        }
        let agreed = result::parse(key, text)
            .filter(|&agreed| result::acceptable(&self.settings, key, agreed))
            .ok_or(NegotiationError::BadAnswer(key))?;
        result::set(&mut self.parameters, key, agreed);
        Ok(())
    }

    /// Appends the answers that had to wait for the end of the peer's keys. To be called once all keys of a batch (all
    /// PDUs up to one without the C bit) went through [`receive`](Self::receive).
    pub fn complete_answers(&mut self, out: &mut Vec<u8>) {
        let Some(first_burst) = self.first_burst.take() else {
            return;
        };
        if self.first_burst_is_irrelevant() {
            return value::put(out, Key::FirstBurstLength.name(), value::IRRELEVANT);
        }
        let agreed = first_burst.min(self.ours(Key::FirstBurstLength));
        self.parameters.first_burst_length = agreed;
        result::put(out, Key::FirstBurstLength, agreed);
    }

    /// RFC 7143 13.14: with InitialR2T=Yes and ImmediateData=No there is no first burst.
    fn first_burst_is_irrelevant(&self) -> bool {
        self.parameters.initial_r2t && !self.parameters.immediate_data
    }

    /// Our value of a key, as far as what is agreed leaves it to us.
    fn ours(&self, key: Key) -> u32 {
        let mine = result::ours(&self.settings, key);
        match key {
            Key::FirstBurstLength => mine.min(self.parameters.max_burst_length),
            // RFC 7143 13.21.
            Key::ErrorRecoveryLevel if self.session_type == SessionType::Discovery => 0,
            _ => mine,
        }
    }

    /// Appends all our offers and declarations: an initiator's first operational keys. Keys that every responder of
    /// RFC 3720 knows, and TaskReporting and iSCSIProtocolLevel where the settings ask for more than their defaults.
    pub fn offer_all(&mut self, out: &mut Vec<u8>) {
        self.declare(out);
        for key in self.negotiable() {
            let mine = self.first_offer(key);
            let default = result::get(&Parameters::default(), key);
            let newer = matches!(key, Key::TaskReporting | Key::ISCSIProtocolLevel);
            let pointless = key == Key::FirstBurstLength && self.settings.initial_r2t && !self.settings.immediate_data;
            let needless = newer && mine == default;
            if !(pointless || needless) {
                self.offer(key, mine, out);
            }
        }
    }

    /// As [`ours`](Self::ours), while keys that it hangs on may still come.
    fn first_offer(&self, key: Key) -> u32 {
        match key {
            Key::FirstBurstLength => result::ours(&self.settings, key),
            _ => self.ours(key),
        }
    }

    /// Appends our declaration, if it is still to be made, and offers for the keys that nobody has named and whose
    /// defaults our settings rule out. True when an answer is outstanding then: the stage can't end yet.
    pub fn offer_needed(&mut self, out: &mut Vec<u8>) -> bool {
        self.declare(out);
        for key in self.negotiable() {
            let untouched = !self.received.contains(key) && !self.waiting.contains(key);
            if untouched && !self.is_acceptable(key) {
                self.offer(key, self.ours(key), out);
            }
        }
        !self.waiting.is_empty()
    }

    /// Appends our MaxRecvDataSegmentLength, once.
    pub fn declare(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.declared, true) {
            let length = self.settings.max_recv_data_segment_length;
            self.parameters.max_recv_data_segment_length = length;
            result::put(out, Key::MaxRecvDataSegmentLength, length);
        }
    }

    fn offer(&mut self, key: Key, mine: u32, out: &mut Vec<u8>) {
        if !self.received.contains(key) && self.waiting.insert(key) {
            result::put_offer(out, &self.settings, key, mine);
        }
    }

    /// The keys that this session negotiates.
    fn negotiable(&self) -> impl Iterator<Item = Key> + use<> {
        let discovery = self.session_type == SessionType::Discovery;
        Key::all().filter(move |key| {
            let row = key.row();
            let negotiated = match row.function {
                Function::List => *key != Key::AuthMethod,
                Function::Minimum(_) | Function::Maximum(_) | Function::And | Function::Or => true,
                _ => false,
            };
            negotiated && !(discovery && row.irrelevant_in_discovery)
        })
    }

    fn is_acceptable(&self, key: Key) -> bool {
        let agreed = result::get(&self.parameters, key);
        match key {
            Key::FirstBurstLength => self.first_burst_is_irrelevant() || agreed <= self.ours(key),
            _ => result::acceptable(&self.settings, key, agreed),
        }
    }

    /// True while an offer of ours waits for its answer.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What was agreed. An error when an offer of ours got no answer, or when a value ended where our settings rule it
    /// out (an offer was rejected, and the default won't do).
    pub fn finish(&self) -> Result<Parameters, NegotiationError> {
        for key in self.negotiable() {
            if self.waiting.contains(key) {
                return Err(NegotiationError::Unanswered(key));
            }
            // The limit of FirstBurstLength that counts is applied below.
            if key != Key::FirstBurstLength && !self.is_acceptable(key) {
                return Err(NegotiationError::Unacceptable(key));
            }
        }
        let mut parameters = self.parameters;
        parameters.first_burst_length = parameters.first_burst_length.min(parameters.max_burst_length);
        Ok(parameters)
    }
}

/// Takes one key of a Text Request or Response in the full feature phase, and appends the answer if there is one.
/// MaxRecvDataSegmentLength may be declared anew there, and changes `parameters`; `Some(key)` is a textual key that is
/// the caller's business (SendTargets, TargetName, aliases). An error (a key of the login phase, a bad value, the other
/// role's key) is a protocol error: Reject the PDU.
pub fn receive_in_full_feature_phase(
    role: Role,
    parameters: &mut Parameters,
    name: &str,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<Option<Key>, NegotiationError> {
    let Some(key) = Key::named(name) else {
        if !value::is_refusal(text) {
            value::put(out, name, value::NOT_UNDERSTOOD);
        }
        return Ok(None);
    };
    let row = key.row();
    let stranger = match role {
        Role::Target => row.senders == Senders::Target,
        Role::Initiator => row.senders == Senders::Initiator,
    };
    match (&row.function, row.phases) {
        _ if stranger => Err(NegotiationError::WrongSender(key)),
        (Function::DeclaredNumber(_), _) => {
            let declared = result::parse(key, text).ok_or(NegotiationError::BadDeclaration(key))?;
            parameters.peer_max_recv_data_segment_length = declared;
            Ok(None)
        }
        (Function::Declared, Use::All | Use::FullFeaturePhaseOnly) => Ok(Some(key)),
        // The target names targets in its answers to SendTargets.
        (Function::Declared, _) if role == Role::Initiator => Ok(Some(key)),
        _ => Err(NegotiationError::WrongPhase(key)),
    }
}

impl Parameters {
    /// The parameters of another connection of a running session: what is the connection's own stays (digests, lengths
    /// of data segments), what is the session's comes from `session` (RFC 7143 chapter 13, scope SW).
    pub fn joined_to(&self, session: &Parameters) -> Parameters {
        let mut joined = *self;
        for key in Key::all().filter(|key| key.row().session_wide) {
            result::set(&mut joined, key, result::get(session, key));
        }
        joined
    }
}

#[cfg(test)]
mod tests;
