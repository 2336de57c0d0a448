//! Sessions, logical units, targets and portals side by side: what one does is not another's, unless it should be.

use initiator::{Command, LoginOptions, cdb};
use ringlun_tests::{Client, ConnectError, End, Seen, Setup, Target, client::options, wait};
use wire::{LoginStatus, LogoutReason, TaskManagementFunction as Function, TaskManagementResult as Answer};

fn target() -> Target {
    Setup::new(
        "[[volume]]\nname = \"one\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n\
         [[volume]]\nname = \"two\"\nblock_size = 4096\nstore = { kind = \"file\", path = \"$DIR/two.img\", size = \"32MiB\" }\n\
         [[volume]]\nname = \"alone\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n\
         [[target]]\nname = \"pair\"\nluns = [{ lun = 0, volume = \"one\" }, { lun = 5, volume = \"two\" }]\n",
    )
    .server("cores = [0, 1]")
    .start()
}

#[track_caller]
fn log_in(target: &Target, options: LoginOptions) -> Client {
    match target.log_in(options) {
        Ok(mut client) => {
            client.settle();
            client
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_same_initiator_port_that_logs_in_again_takes_its_session_over() {
    let target = target();
    let options = options(&target.name("alone"));
    let mut old = log_in(&target, options.clone());
    old.write(3, &[0x11; 512], 512);
    for _ in 0..3 {
        let mut new = log_in(&target, options.clone());
        assert_ne!(new.logged_in.tsih, 0);
        assert!(matches!(old.until_end().0, End::Closed | End::Reason(_)), "the old connection stays open");
        assert_eq!(new.read(3, 1, 512), [0x11; 512]);
        old = new;
    }
    old.log_out().expect("a logout");
    target.end();
}

#[test]
fn a_reinstated_session_with_writes_in_flight_loses_only_them() {
    let target = target();
    let options = options(&target.name("pair"));
    for round in 0..10u8 {
        let mut old = log_in(&target, options.clone()).at_lun(5);
        old.settle();
        let data = vec![round; 64 << 10];
        for at in 0..16 {
            let command = Command::write(cdb::write_16(at * 16, 16), data.len() as u32).to_lun(old.lun);
            old.submit(&command, data.clone()).expect("the connection").expect("the window");
        }
        let mut new = log_in(&target, options.clone()).at_lun(5);
        new.settle();
        // Nothing of the old session may land on this.
        let newer = vec![0xee; 1 << 20];
        new.write(0, &newer, 4096);
        let (end, _) = old.until_end();
        assert!(matches!(end, End::Closed | End::Reason(_)), "{end:?}");
        assert!(new.read(0, 256, 4096) == newer, "a write of the old session came after one of the new");
        new.log_out().expect("a logout");
    }
    target.end();
}

#[test]
fn other_initiator_ports_keep_their_sessions() {
    let target = target();
    let mut clients: Vec<Client> = (0..8).map(|_| target.client("alone")).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.write(at as u64, &[at as u8 + 1; 512], 512);
    }
    let mut last = clients.pop().expect("eight of them");
    last.log_out().expect("a logout");
    // One goes without a word.
    drop(clients.pop());
    for client in &mut clients {
        for at in 0..8 {
            assert_eq!(client.read(at, 1, 512), [at as u8 + 1; 512]);
        }
    }
    target.end();
}

#[test]
fn logical_units_of_one_target_are_apart() {
    let target = target();
    let mut client = target.client("pair");
    let listed = client.fetch(cdb::report_luns(0, 256), 256).good();
    assert_eq!(listed[..4], 16u32.to_be_bytes(), "two logical units");
    assert_eq!((listed[8..16].to_vec(), listed[16..24].to_vec()), (vec![0; 8], vec![0, 5, 0, 0, 0, 0, 0, 0]));
    assert_eq!(client.capacity(), (32768, 512));
    client.write(0, &[1; 512], 512);
    let mut client = client.at_lun(5);
    client.settle();
    assert_eq!(client.capacity(), (8192, 4096));
    client.write(0, &[5; 4096], 4096);
    let mut client = client.at_lun(0);
    assert_eq!(client.read(0, 1, 512), [1; 512]);
    let mut client = client.at_lun(5);
    assert_eq!(client.read(0, 1, 4096), vec![5; 4096]);
    // A number without a unit.
    let mut client = client.at_lun(3);
    let done = client.command(cdb::test_unit_ready());
    assert_eq!((done.status, done.sense()), (2, Some((5, 0x25, 0))));
    let inquiry = client.fetch(cdb::inquiry(36), 36).good();
    assert_eq!(inquiry[0], 0x7f, "peripheral qualifier 011b, unknown device type");
    target.end();
}

#[test]
fn a_volume_in_a_group_has_no_target_of_its_own() {
    let target = target();
    match target.log_in(options(&target.name("one"))) {
        Err(ConnectError::Login(initiator::LoginError::Refused(LoginStatus::NotFound))) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it has one"),
    }
    target.end();
}

#[test]
fn what_is_written_in_one_session_is_read_in_another_on_another_core() {
    let target = target();
    let mut clients: Vec<Client> = (0..4).map(|_| target.client("pair").at_lun(5)).collect();
    for client in &mut clients {
        client.settle();
    }
    for round in 0..50u8 {
        let writer = usize::from(round) % clients.len();
        clients[writer].write(7, &[round; 4096], 4096);
        for client in &mut clients {
            assert_eq!(client.read(7, 1, 4096), vec![round; 4096]);
        }
    }
    target.end();
}

#[test]
fn task_management_of_what_is_not_there_says_so() {
    let target = target();
    let mut client = target.client("pair");
    assert_eq!(client.manage(Function::AbortTask, None), Answer::TaskDoesNotExist);
    // A task that has ended.
    let command = Command::none(cdb::test_unit_ready());
    let handle = client.submit(&command, Vec::new()).expect("the connection").expect("the window");
    client.hear().expect("its end");
    assert_eq!(client.manage(Function::AbortTask, Some(handle)), Answer::TaskDoesNotExist);
    assert_eq!(client.manage(Function::AbortTaskSet, None), Answer::Complete);
    assert_eq!(client.manage(Function::TaskReassign, None), Answer::ReassignmentNotSupported);
    let mut client = client.at_lun(3);
    assert_eq!(client.manage(Function::LogicalUnitReset, None), Answer::LunDoesNotExist);
    // The session goes on.
    let mut client = client.at_lun(0);
    client.command(cdb::test_unit_ready()).good();
    target.end();
}

#[test]
fn a_reset_of_a_logical_unit_is_told_to_everybody_on_it_and_to_nobody_else() {
    let target = target();
    let mut first = target.client("pair").at_lun(5);
    let mut second = target.client("pair").at_lun(5);
    let mut neighbour = target.client("pair");
    let mut elsewhere = target.client("alone");
    for client in [&mut first, &mut second, &mut neighbour, &mut elsewhere] {
        client.settle();
    }
    assert_eq!(first.manage(Function::LogicalUnitReset, None), Answer::Complete);
    let done = second.command(cdb::test_unit_ready());
    assert_eq!(done.status, 2);
    assert!(matches!(done.sense(), Some((6, 0x29, _))), "{:x?}", done.sense());
    second.command(cdb::test_unit_ready()).good();
    neighbour.command(cdb::test_unit_ready()).good();
    elsewhere.command(cdb::test_unit_ready()).good();
    first.settle();
    first.write(0, &[9; 4096], 4096);
    target.end();
}

#[test]
fn a_warm_reset_of_a_target_reaches_all_its_units_and_keeps_its_sessions() {
    let target = target();
    let mut clients: Vec<Client> = (0..4).map(|_| target.client("pair")).collect();
    let mut elsewhere = target.client("alone");
    for client in &mut clients {
        client.lun = initiator::lun(5);
        client.settle();
    }
    assert_eq!(clients[0].manage(Function::TargetWarmReset, None), Answer::Complete);
    for client in &mut clients[1..] {
        for lun in [0, 5] {
            client.lun = initiator::lun(lun);
            let attentions = client.settle();
            assert!(attentions.iter().any(|(asc, _)| *asc == 0x29), "LUN {lun}: {attentions:x?}");
        }
    }
    elsewhere.command(cdb::test_unit_ready()).good();
    target.end();
}

#[test]
fn a_cold_reset_of_a_target_ends_its_sessions() {
    let target = target();
    let mut clients: Vec<Client> = (0..4).map(|_| target.client("pair")).collect();
    let mut elsewhere = target.client("alone");
    let (connection, out) = clients[0].raw();
    connection.task_management(Function::TargetColdReset, 0, None, out).expect("it can be sent");
    clients[0].flush().expect("the connection");
    for client in &mut clients {
        let (end, _) = client.until_end();
        assert!(matches!(end, End::Closed | End::Reason(_)), "{end:?}");
    }
    elsewhere.command(cdb::test_unit_ready()).good();
    target.client("pair").command(cdb::test_unit_ready()).good();
    target.end();
}

#[test]
fn pings_are_answered_and_a_logout_closes() {
    let target = target();
    let mut client = target.client("alone");
    for data in [&b""[..], b"x", b"some ping data"] {
        let (connection, out) = client.raw();
        connection.ping(data, out).expect("it can be sent");
        client.flush().expect("the connection");
        let seen = client.hear().expect("an answer");
        assert!(matches!(seen, Seen::Pong(_)), "{seen:?}");
    }
    let (connection, out) = client.raw();
    connection.logout(LogoutReason::CloseConnection, out).expect("it can be sent");
    client.flush().expect("the connection");
    let (end, _) = client.until_end();
    assert!(matches!(end, End::Reason(initiator::CloseReason::Logout)), "{end:?}");
    target.end();
}

#[test]
fn access_goes_by_name_and_an_exact_name_beats_a_pattern() {
    let target = Target::start(
        "[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n\
         [[volume.access]]\ninitiator = \"iqn.2026-01.example:*\"\n\
         [[volume.access]]\ninitiator = \"iqn.2026-01.example:guarded\"\n\
         chap = { user = \"alice\", secret = \"alice's secret\" }\n\
         [[volume]]\nname = \"open\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n",
    );
    let as_ = |name: &str| LoginOptions { initiator_name: name.to_owned(), ..options(&target.name("disk")) };
    let status = |name: &str| match target.log_in(as_(name)) {
        Ok(_) => None,
        Err(ConnectError::Login(initiator::LoginError::Refused(status))) => Some(status),
        Err(other) => panic!("{name}: {other}"),
    };
    assert_eq!(status("iqn.2026-01.example:host1"), None);
    assert_eq!(status("iqn.2026-01.example:"), None);
    assert_eq!(status("iqn.2026-01.example:guarded"), Some(LoginStatus::AuthenticationFailure));
    assert_eq!(status("iqn.2026-01.elsewhere:host1"), Some(LoginStatus::AuthorizationFailure));
    target.end();
}

#[test]
fn discovery_lists_the_targets_and_the_addresses_of_the_portals() {
    let target = Setup::new(
        "[[volume]]\nname = \"a\"\nstore = { kind = \"null\", size = \"1TiB\" }\n\
         [[volume]]\nname = \"b\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n",
    )
    .portal("127.0.0.1:0", 1)
    .portal("127.0.0.2:0", 1)
    .portal("127.0.0.1:0", 7)
    .start();
    assert_eq!(target.portals().len(), 3);
    let mut client =
        target.log_in(LoginOptions::discovery("iqn.2026-01.example:seeker")).unwrap_or_else(|error| panic!("{error}"));
    let mut found = client.send_targets("All");
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(found.iter().map(|t| t.name.clone()).collect::<Vec<_>>(), [target.name("a"), target.name("b")]);
    for one in &found {
        let mut listed: Vec<(String, Option<u16>)> =
            one.addresses.iter().map(|a| (format!("{}:{}", a.host, a.port), a.portal_group_tag)).collect();
        let mut expected: Vec<(String, Option<u16>)> =
            target.portals().iter().zip([1, 1, 7]).map(|(portal, group)| (portal.to_string(), Some(group))).collect();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected, "{}", one.name);
    }
    client.log_out().expect("a logout");
    // Every portal leads to the same disk, and says its own group.
    for (portal, group) in target.portals().iter().zip([1u16, 1, 7]) {
        let mut client =
            Client::connect(*portal, options(&target.name("b"))).unwrap_or_else(|error| panic!("{portal}: {error}"));
        assert_eq!(client.logged_in.target_portal_group_tag, Some(group));
        client.settle();
        let seen = client.read(9, 1, 512);
        client.write(9, &seen.iter().map(|byte| byte + 1).collect::<Vec<u8>>(), 512);
    }
    assert_eq!(target.client("b").read(9, 1, 512), [3; 512]);
    target.end();
}

#[test]
fn the_sessions_of_a_target_are_bounded() {
    let target =
        Setup::new("[[volume]]\nname = \"disk\"\nmax_sessions = 2\nstore = { kind = \"ram\", size = \"16MiB\" }\n")
            .start();
    let first = target.client("disk");
    let mut second = target.client("disk");
    match target.log_in(options(&target.name("disk"))) {
        Err(ConnectError::Login(initiator::LoginError::Refused(LoginStatus::OutOfResources))) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a third session"),
    }
    drop(first);
    // Its place is free as soon as the target has seen the end of the connection.
    wait::until(wait::SOON, "a free place", || target.log_in(options(&target.name("disk"))).ok());
    second.command(cdb::test_unit_ready()).good();
    target.end();
}

#[test]
fn a_line_of_json_names_each_thing_once() {
    let volume = "[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"1MiB\" }\n";
    let target = Setup::new(volume).server("log_format = \"json\"").start();
    drop(target.client("disk"));
    for words in [["logged in", "authentication"], ["session ended", "closed by the peer"]] {
        let line = target.logged(&words);
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read["target"], target.name("disk"), "{line}");
        assert_eq!(line.matches("\"target\":").count(), 1, "{line}");
    }
}
