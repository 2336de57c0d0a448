//! Logins against a hand-written target.

mod common;

use common::{encode, split};
use initiator::{LoggedIn, Login, LoginError, LoginOptions};
use negotiation::chap::{Algorithm, ChapError, Credentials, Keys, Mutual, Secret, TargetChap};
use negotiation::{DigestChoice, NegotiationError, Parameters, Settings};
use rand::SeedableRng;
use rand::rngs::StdRng;
use wire::text::pairs;
use wire::{LoginRequest, LoginResponse, LoginStatus, RequestPdu, Stage};

const SECURITY: Stage = Stage::SecurityNegotiation;
const OPERATIONAL: Stage = Stage::LoginOperationalNegotiation;

struct Scripted {
    login: Login,
    out: Vec<u8>,
    rng: StdRng,
    stat_sn: u32,
    request: Option<LoginRequest>,
}

impl Scripted {
    /// Starts a login; gives the text of its first request.
    fn start(options: LoginOptions) -> (Scripted, String) {
        let mut login = Login::new(options);
        let mut out = Vec::new();
        login.start(&mut out).unwrap();
        let mut scripted = Scripted { login, out, rng: StdRng::seed_from_u64(7), stat_sn: 900, request: None };
        let text = scripted.request();
        (scripted, text)
    }

    /// Header and text (zero bytes as `;`) of the one request that it has sent.
    fn request(&mut self) -> String {
        let mut sent = split(&std::mem::take(&mut self.out), &Parameters::default());
        assert_eq!(sent.len(), 1, "{sent:?}");
        let (pdu, text) = sent.remove(0);
        self.request = Some(expect!(pdu, RequestPdu::LoginRequest));
        String::from_utf8(text).unwrap().replace('\0', ";")
    }

    fn header(&self) -> LoginRequest {
        self.request.unwrap()
    }

    /// A response that goes along with the request.
    fn agree(&self) -> LoginResponse {
        let request = self.header();
        LoginResponse {
            transit: request.transit,
            continue_bit: false,
            current_stage: request.current_stage,
            next_stage: request.next_stage,
            version_max: 0,
            version_active: 0,
            data_segment_length: 0,
            isid: request.isid,
            tsih: 5,
            initiator_task_tag: request.initiator_task_tag,
            stat_sn: self.stat_sn,
            exp_cmd_sn: request.cmd_sn,
            max_cmd_sn: request.cmd_sn + 31,
            status: LoginStatus::Success,
        }
    }

    fn give(&mut self, pdu: LoginResponse, text: &str) -> Result<Option<LoggedIn>, LoginError> {
        self.stat_sn = self.stat_sn.wrapping_add(1);
        let bytes = encode(pdu, text.replace(';', "\0").as_bytes(), &Parameters::default());
        let mut input = &bytes[..];
        let result = self.login.advance(&mut input, &mut self.rng, &mut self.out);
        assert!(input.is_empty() || result.is_err());
        result
    }

    /// Agrees with `text`, and gives the next request's text.
    fn go_on(&mut self, text: &str) -> String {
        let pdu = self.agree();
        assert!(self.give(pdu, text).unwrap().is_none());
        self.request()
    }

    fn end(&mut self, text: &str) -> Result<LoggedIn, LoginError> {
        let pdu = self.agree();
        Ok(self.give(pdu, text)?.expect("logged in"))
    }
}

fn options() -> LoginOptions {
    LoginOptions::normal("iqn.2026-01.a:i", "iqn.2026-01.b:t")
}

/// Straight into the operational stage.
fn direct(settings: Settings) -> LoginOptions {
    LoginOptions { security_stage: false, settings, ..options() }
}

/// Answers that agree to every offer of the default settings.
const AGREE: &str = "HeaderDigest=None;DataDigest=None;MaxConnections=1;InitialR2T=No;ImmediateData=Yes;\
    MaxBurstLength=1048576;FirstBurstLength=262144;DefaultTime2Wait=2;DefaultTime2Retain=0;MaxOutstandingR2T=1;\
    DataPDUInOrder=Yes;DataSequenceInOrder=Yes;ErrorRecoveryLevel=0;MaxRecvDataSegmentLength=65536;";

#[test]
fn names_come_first_and_the_stages_follow_each_other() {
    let (mut scripted, text) = Scripted::start(options());
    assert_eq!(text, "InitiatorName=iqn.2026-01.a:i;TargetName=iqn.2026-01.b:t;SessionType=Normal;AuthMethod=None;");
    let header = scripted.header();
    assert_eq!((header.current_stage, header.next_stage, header.transit), (SECURITY, OPERATIONAL, true));
    assert_eq!((header.tsih, header.cmd_sn, header.version_max), (0, 1, 0));
    let text = scripted.go_on("AuthMethod=None;TargetPortalGroupTag=4;");
    assert!(text.contains("MaxRecvDataSegmentLength=262144;"));
    assert!(text.contains("InitialR2T=No;"));
    let header = scripted.header();
    assert_eq!((header.current_stage, header.next_stage), (OPERATIONAL, Stage::FullFeaturePhase));
    assert_eq!(header.exp_stat_sn, 901);
    let end = scripted.end(AGREE).unwrap();
    assert_eq!((end.tsih, end.target_portal_group_tag), (5, Some(4)));
    assert_eq!(end.parameters.peer_max_recv_data_segment_length, 65536);
    assert_eq!(end.parameters.max_recv_data_segment_length, 262_144);
    assert!(!end.parameters.initial_r2t);
}

#[test]
fn a_discovery_session_names_no_target() {
    let (_, text) = Scripted::start(LoginOptions::discovery("iqn.2026-01.a:i"));
    assert_eq!(text, "InitiatorName=iqn.2026-01.a:i;SessionType=Discovery;AuthMethod=None;");
}

#[test]
fn every_operational_key_can_be_offered() {
    let settings = Settings {
        header_digest: DigestChoice::Require,
        data_digest: DigestChoice::Prefer,
        initial_r2t: true,
        immediate_data: false,
        max_recv_data_segment_length: 4096,
        max_burst_length: 16384,
        max_outstanding_r2t: 8,
        ..Settings::default()
    };
    let (_, text) = Scripted::start(direct(settings));
    let pairs = [
        "HeaderDigest=CRC32C",
        "DataDigest=CRC32C,None",
        "InitialR2T=Yes",
        "ImmediateData=No",
        "MaxRecvDataSegmentLength=4096",
        "MaxBurstLength=16384",
        "MaxOutstandingR2T=8",
    ];
    for pair in pairs {
        assert!(text.split(';').any(|sent| sent == pair), "{pair} in {text}");
    }
}

#[test]
fn long_text_goes_in_several_requests() {
    let (_, whole) = Scripted::start(direct(Settings::default()));
    let (mut scripted, mut text) = Scripted::start(LoginOptions { text_per_pdu: 100, ..direct(Settings::default()) });
    while scripted.header().continue_bit {
        assert!(!scripted.header().transit);
        assert_eq!(text.len() % 100, 0);
        text += &scripted.go_on("");
    }
    assert_eq!(text, whole);
    assert!(scripted.header().transit);
    scripted.end(AGREE).unwrap();
}

#[test]
fn long_text_of_the_target_is_put_together() {
    let (mut scripted, _) = Scripted::start(direct(Settings::default()));
    let (first, rest) = AGREE.split_at(AGREE.len() / 2);
    let part = LoginResponse { transit: false, continue_bit: true, ..scripted.agree() };
    assert!(scripted.give(part, first).unwrap().is_none());
    assert_eq!(scripted.request(), "");
    assert!(!scripted.header().transit && !scripted.header().continue_bit);
    // The rest comes without T, as it wasn't asked for; then we ask for the end.
    assert_eq!(scripted.go_on(rest), "");
    assert!(scripted.header().transit);
    scripted.end("").unwrap();
}

#[test]
fn offers_of_the_target_are_answered() {
    let (mut scripted, _) = Scripted::start(direct(Settings::default()));
    let stay = LoginResponse { transit: false, ..scripted.agree() };
    assert!(scripted.give(stay, &format!("{AGREE}X-com.example.key=1;")).unwrap().is_none());
    assert_eq!(scripted.request(), "X-com.example.key=NotUnderstood;");
    assert!(scripted.header().transit);
    scripted.end("").unwrap();
}

fn credentials(mutual: Option<&str>, algorithms: &[Algorithm]) -> Credentials {
    let mutual = mutual.map(|secret| Mutual { user: "target".to_owned(), secret: Secret::new(secret.as_bytes()) });
    Credentials::new("user", Secret::new(&b"secret of user"[..]), mutual, algorithms).unwrap()
}

/// Runs CHAP against the verifier; gives the result of the first response that follows.
fn chap(
    initiator: &Credentials,
    target: &Credentials,
    spoil: fn(String) -> String,
) -> (Scripted, Result<Option<LoggedIn>, LoginError>) {
    let (mut scripted, text) = Scripted::start(LoginOptions { chap: Some(initiator.clone()), ..options() });
    assert!(text.ends_with("AuthMethod=CHAP;"));
    assert!(!scripted.header().transit);
    let offer = scripted.go_on("AuthMethod=CHAP;");
    let mut rng = StdRng::seed_from_u64(3);
    let mut out = Vec::new();
    let offer = offer.replace(';', "\0");
    let challenge = TargetChap::challenge(target, &keys(&offer), &mut rng, &mut out).unwrap();
    let text = String::from_utf8(std::mem::take(&mut out)).unwrap().replace('\0', ";");
    let response = scripted.go_on(&text).replace(';', "\0");
    assert!(scripted.header().transit);
    let proved = challenge.verify(target, &keys(&response), &mut out).unwrap();
    assert_eq!(proved.mutual, initiator.mutual().is_some());
    let text = spoil(String::from_utf8(out).unwrap().replace('\0', ";"));
    let pdu = scripted.agree();
    let result = scripted.give(pdu, &text);
    (scripted, result)
}

fn keys(text: &str) -> Keys<'_> {
    let mut keys = Keys::default();
    for pair in pairs(text.as_bytes()) {
        let (name, value) = pair.unwrap();
        assert!(keys.insert(name, value).unwrap(), "{name}");
    }
    keys
}

#[test]
fn chap_proves_one_side_or_both_with_every_algorithm() {
    for algorithm in Algorithm::ALL {
        for mutual in [None, Some("secret of target")] {
            let both = credentials(mutual, &[algorithm]);
            let (mut scripted, result) = chap(&both, &both, |text| text);
            assert!(result.unwrap().is_none());
            assert!(scripted.request().contains("InitialR2T"));
            scripted.end(AGREE).unwrap();
        }
    }
}

#[test]
fn a_target_that_can_not_prove_itself_is_left() {
    let initiator = credentials(Some("secret of target"), &Algorithm::ALL);
    let wrong = credentials(Some("another secret"), &Algorithm::ALL);
    let error = |target: &Credentials, spoil| chap(&initiator, target, spoil).1.unwrap_err();
    assert_eq!(error(&wrong, |text| text), LoginError::Chap(ChapError::WrongResponse));
    assert_eq!(error(&initiator, |_| String::new()), LoginError::Chap(ChapError::Missing("CHAP_N")));
    let other_name = |text: String| text.replace("CHAP_N=target", "CHAP_N=other");
    assert_eq!(error(&initiator, other_name), LoginError::Chap(ChapError::WrongName));
}

#[test]
fn a_target_may_not_skip_the_authentication() {
    let chap = Some(credentials(None, &Algorithm::ALL));
    // By choosing None.
    let (mut scripted, _) = Scripted::start(LoginOptions { chap: chap.clone(), ..options() });
    let pdu = scripted.agree();
    assert_eq!(scripted.give(pdu, "AuthMethod=None;").unwrap_err(), LoginError::AuthMethod);
    // Unless we have said so.
    let (mut scripted, text) =
        Scripted::start(LoginOptions { chap: chap.clone(), allow_no_authentication: true, ..options() });
    assert!(text.ends_with("AuthMethod=CHAP,None;"));
    assert_eq!(scripted.go_on("AuthMethod=None;"), "");
    assert!(scripted.header().transit);
    // By going on early.
    let (mut scripted, _) = Scripted::start(LoginOptions { chap, ..options() });
    let pdu = LoginResponse { transit: true, next_stage: OPERATIONAL, ..scripted.agree() };
    assert!(matches!(scripted.give(pdu, "AuthMethod=CHAP;"), Err(LoginError::Protocol(_))));
}

#[test]
fn refusals_and_redirections_say_why_and_where_to() {
    let (mut scripted, _) = Scripted::start(options());
    let pdu = LoginResponse { status: LoginStatus::NotFound, ..scripted.agree() };
    assert_eq!(scripted.give(pdu, "").unwrap_err(), LoginError::Refused(LoginStatus::NotFound));
    // It is over.
    assert!(matches!(scripted.give(pdu, ""), Err(LoginError::Protocol(_))));

    let (mut scripted, _) = Scripted::start(options());
    let pdu = LoginResponse { status: LoginStatus::TargetMovedTemporarily, ..scripted.agree() };
    match scripted.give(pdu, "TargetAddress=10.0.0.1:3261;") {
        Err(LoginError::Redirected { status: LoginStatus::TargetMovedTemporarily, addresses }) => {
            assert_eq!((addresses[0].host.as_str(), addresses[0].port), ("10.0.0.1", 3261));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_settings_rule_out_is_not_accepted() {
    let settings = Settings { header_digest: DigestChoice::Require, ..Settings::default() };
    let (mut scripted, _) = Scripted::start(direct(settings));
    assert!(matches!(scripted.end(AGREE), Err(LoginError::Negotiation(NegotiationError::BadAnswer(_)))));
    let (mut scripted, _) = Scripted::start(direct(Settings::default()));
    let unanswered = AGREE.replace("MaxBurstLength=1048576;", "");
    assert!(matches!(
        scripted.end(&unanswered),
        Err(LoginError::Protocol(_) | LoginError::Negotiation(NegotiationError::Unanswered(_)))
    ));
}

/// What becomes of a response to a first request that goes straight for the end.
fn error_of(change: impl FnOnce(&mut LoginResponse)) -> LoginError {
    let (mut scripted, _) = Scripted::start(direct(Settings::default()));
    let mut pdu = scripted.agree();
    change(&mut pdu);
    scripted.give(pdu, AGREE).unwrap_err()
}

#[test]
fn responses_that_do_not_fit_the_request_end_the_login() {
    let changes: [fn(&mut LoginResponse); 7] = [
        |pdu| pdu.tsih = 0,
        |pdu| pdu.isid.0[5] ^= 1,
        |pdu| pdu.initiator_task_tag = 9,
        |pdu| pdu.version_active = 1,
        |pdu| pdu.current_stage = SECURITY,
        |pdu| pdu.next_stage = OPERATIONAL,
        |pdu| pdu.next_stage = Stage::Other(2),
    ];
    for change in changes {
        assert!(matches!(error_of(change), LoginError::Protocol(_)));
    }
}

#[test]
fn a_login_without_end_is_given_up() {
    let (mut scripted, _) = Scripted::start(direct(Settings::default()));
    let stay = LoginResponse { transit: false, ..scripted.agree() };
    assert!(scripted.give(stay, AGREE).unwrap().is_none());
    let mut rounds = 0;
    let error = loop {
        scripted.request();
        let stay = LoginResponse { transit: false, ..scripted.agree() };
        match scripted.give(stay, "") {
            Ok(_) => rounds += 1,
            Err(error) => break error,
        }
        assert!(rounds < 100);
    };
    assert!(matches!(error, LoginError::Protocol(_)));
}

#[test]
fn stat_sn_may_not_jump() {
    let (mut scripted, _) = Scripted::start(options());
    scripted.go_on("AuthMethod=None;");
    scripted.stat_sn += 1;
    assert!(matches!(scripted.end(AGREE), Err(LoginError::Protocol(_))));
}

#[test]
fn what_follows_the_login_stays_in_the_input() {
    let (mut scripted, _) = Scripted::start(direct(Settings::default()));
    let mut bytes = encode(scripted.agree(), AGREE.replace(';', "\0").as_bytes(), &Parameters::default());
    bytes.extend([1, 2, 3]);
    let mut input = &bytes[..];
    let end = scripted.login.advance(&mut input, &mut scripted.rng, &mut scripted.out).unwrap();
    assert!(end.is_some());
    assert_eq!(input, [1, 2, 3]);
}
