//! Asymmetric access: target port groups, their states, and what each allows.

use crate::rig::*;
use scsi::{AccessState, GroupAccess, LogicalUnit, Nexus, Profile, Sense, SenseKey};

const UNAVAILABLE: (SenseKey, u16) = (SenseKey::NotReady, 0x040C);
const STANDBY: (SenseKey, u16) = (SenseKey::NotReady, 0x040B);

/// Commands come through group 1; group 2 is in standby, and preferred.
fn rig(explicit_access: bool) -> Rig {
    let mut rig = Rig::new();
    let group = |portal_group, state, preferred| GroupAccess { portal_group, state, preferred };
    let access = vec![group(1, AccessState::Optimized, false), group(2, AccessState::Standby, true)];
    let profile = Profile { access, explicit_access, ..Profile::new(rig.unit.identity().clone(), 512) };
    rig.unit = LogicalUnit::new(profile, geometry());
    rig.port.luns.insert(0, rig.unit.clone());
    rig.nexus = Nexus::new(&rig.unit, 1, path(1));
    rig.run(&[0; 6], &[]);
    rig
}

fn report(rig: &mut Rig, format: u8) -> Vec<u8> {
    let data = rig.run(&[0xA3, format << 5 | 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[]).good();
    assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize, data.len() - 4);
    data[4..].to_vec()
}

fn set(rig: &mut Rig, groups: &[(u8, u8)]) -> Answer {
    let mut list = vec![0; 4];
    for (tag, state) in groups {
        list.extend([*state, 0, 0, *tag]);
    }
    rig.run(&[0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0, 0], &list)
}

#[test]
fn groups_are_reported_with_state_preference_and_ports() {
    let mut rig = rig(true);
    let groups = [0, 0x0F, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7, 0x82, 0x0F, 0, 2, 0, 0, 0, 1, 0, 0, 1, 44];
    assert_eq!(report(&mut rig, 0), groups);
    assert_eq!(report(&mut rig, 1), [&[0x10, 0, 0, 0][..], &groups].concat());
    let cdb = [0xA3, 0x4A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(rig.run(&cdb, &[]).sense(), Sense::field_in_cdb(1, Some(7)));
}

#[test]
fn inquiry_says_who_may_change_states() {
    let tpgs = |rig: &mut Rig| rig.run(&[0x12, 0, 0, 0, 96, 0], &[]).good()[5] >> 4 & 3;
    assert_eq!(tpgs(&mut rig(true)), 0b11);
    assert_eq!(tpgs(&mut rig(false)), 0b01);
    assert_eq!(tpgs(&mut Rig::new()), 0b00, "nothing is configured");
    assert_eq!(set(&mut rig(false), &[(2, 0)]).sense(), Sense::field_in_cdb(1, Some(4)));
}

#[test]
fn a_port_in_standby_or_unavailable_gives_names_and_states_alone() {
    let mut rig = rig(true);
    let read = cdb_10(0x28, 0, 0, 1);
    rig.run(&read, &[]).good();
    assert!(rig.short(&read).is_some(), "what another port gives doesn't matter");
    let both: [&[u8]; 5] = [
        &[0x12, 0, 0, 0, 96, 0],
        &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0],
        &[0x03, 0, 0, 0, 18, 0],
        &[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0],
        &[0x3C, 0x0B, 0, 0, 0, 0, 0, 0, 4, 0],
    ];
    let standby: [&[u8]; 4] = [
        &[0x1A, 0, 0x3F, 0, 255, 0],
        &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
        &[0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    ];
    for (state, refusal) in [(2, STANDBY), (3, UNAVAILABLE)] {
        set(&mut rig, &[(1, state)]).good();
        for cdb in both {
            rig.run(cdb, &[]).good();
        }
        for cdb in standby {
            match state {
                2 => drop(rig.run(cdb, &[]).good()),
                _ => assert_eq!(rig.run(cdb, &[]).refused(), refusal),
            }
        }
        for cdb in [&[0; 6][..], &read, &cdb_10(0x35, 0, 0, 0), &[0x1B, 0, 0, 0, 1, 0]] {
            assert_eq!(rig.run(cdb, &[]).refused(), refusal, "{cdb:02x?}");
        }
        assert_eq!(rig.run(&cdb_10(0x2A, 0, 0, 1), &[0; BLOCK]).refused(), refusal);
        assert!(rig.short(&read).is_none());
        let sense = rig.run(&[0x03, 0, 0, 0, 18, 0], &[]).good();
        assert_eq!((sense[2], u16::from_be_bytes([sense[12], sense[13]])), (2, refusal.1));
    }
    // The other port group is not concerned.
    set(&mut rig, &[(2, 1)]).good();
    rig.port.portal_group = 2;
    rig.run(&read, &[]).good();
    rig.port.portal_group = 1;
    set(&mut rig, &[(1, 1)]).good();
    rig.run(&read, &[]).good();
    assert_eq!(report(&mut rig, 0)[5], 1, "altered by SET TARGET PORT GROUPS");
}

#[test]
fn the_others_hear_of_a_change_and_who_made_it_does_not() {
    let mut rig = rig(true);
    let mut other = Nexus::new(&rig.unit, 2, path(2));
    set(&mut rig, &[(1, 1), (2, 0)]).good();
    rig.run(&[0; 6], &[]).good();
    std::mem::swap(&mut rig.nexus, &mut other);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2900));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2A06));
    set(&mut rig, &[(1, 1)]).good();
    std::mem::swap(&mut rig.nexus, &mut other);
    rig.run(&[0; 6], &[]).good();
    rig.unit.set_access_implicitly(1, AccessState::Unavailable);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), (SenseKey::UnitAttention, 0x2A06));
    assert_eq!(rig.run(&[0; 6], &[]).refused(), UNAVAILABLE);
    assert_eq!(report(&mut rig, 0)[5], 2, "altered implicitly");
    rig.unit.reset();
    rig.run(&[0; 6], &[]);
    assert_eq!(rig.run(&[0; 6], &[]).refused(), UNAVAILABLE, "a reset changes no access state");
}

#[test]
fn a_list_holds_as_a_whole_or_not_at_all() {
    let mut rig = rig(true);
    let before = report(&mut rig, 0);
    for (groups, at, bit) in [
        (&[(2, 0), (1, 4)][..], 8, Some(3)),
        (&[(2, 0), (1, 15)], 8, Some(3)),
        (&[(2, 0), (9, 0)], 10, None),
        (&[(2, 0), (2, 1)], 10, None),
    ] {
        assert_eq!(set(&mut rig, groups).sense(), Sense::field_in_parameters(at, bit));
    }
    assert_eq!(report(&mut rig, 0), before);
    assert_eq!(rig.run(&[0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0], &[0; 6]).refused(), (ILLEGAL, 0x1A00));
    rig.run(&[0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]).good();
}
