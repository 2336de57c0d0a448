//! Serial number arithmetic of 32 bits (RFC 1982), as CmdSN, StatSN and DataSN use it (RFC 7143 4.2.2.1).
//!
//! Numbers that are 2^31 apart have no order: every comparison of them but `!=` is false.

/// `a` is before `b`.
#[inline]
pub const fn sn_lt(a: u32, b: u32) -> bool {
    let distance = b.wrapping_sub(a);
    distance != 0 && distance < 1 << 31
}

/// `a` is before `b`, or the same.
#[inline]
pub const fn sn_lte(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}

/// `a` is after `b`.
#[inline]
pub const fn sn_gt(a: u32, b: u32) -> bool {
    sn_lt(b, a)
}

/// `a` is after `b`, or the same.
#[inline]
pub const fn sn_gte(a: u32, b: u32) -> bool {
    sn_lte(b, a)
}

/// The later of the two; `a` when they have no order.
#[inline]
pub const fn sn_max(a: u32, b: u32) -> u32 {
    if sn_lt(a, b) { b } else { a }
}

/// How many steps it is from `a` to `b`, or `None` if `b` is before `a` or they have no order.
#[inline]
pub const fn sn_distance(a: u32, b: u32) -> Option<u32> {
    if sn_lte(a, b) { Some(b.wrapping_sub(a)) } else { None }
}

/// `sn` is in `first..=last`. With `last == first - 1` the window is closed and holds nothing (RFC 7143 4.2.2.1).
#[inline]
pub const fn sn_in_window(sn: u32, first: u32, last: u32) -> bool {
    sn_lte(first, sn) && sn_lte(sn, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_goes_round_the_wrap() {
        assert!(sn_lt(0xffff_ffff, 0));
        assert!(sn_gt(0, 0xffff_ffff));
        assert!(sn_lte(7, 7) && sn_gte(7, 7) && !sn_lt(7, 7) && !sn_gt(7, 7));
        assert_eq!(sn_max(0xffff_fffe, 3), 3);
        assert_eq!(sn_distance(0xffff_fffe, 3), Some(5));
        assert_eq!(sn_distance(3, 0xffff_fffe), None);
    }

    #[test]
    fn opposite_numbers_have_no_order() {
        let (a, b) = (5, 5 + (1 << 31));
        assert!(!sn_lt(a, b) && !sn_lt(b, a) && !sn_lte(a, b) && !sn_lte(b, a));
        assert_eq!(sn_distance(a, b), None);
    }

    #[test]
    fn a_closed_window_holds_nothing() {
        for first in [0, 1, 0x8000_0000, 0xffff_ffff_u32] {
            assert!((-3i32..4).all(|d| !sn_in_window(first.wrapping_add_signed(d), first, first.wrapping_sub(1))));
        }
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_distance(a: u32, step in 1u32..(1 << 31)) {
            let b = a.wrapping_add(step);
            prop_assert!(sn_lt(a, b) && sn_lte(a, b) && sn_gt(b, a) && sn_gte(b, a));
            prop_assert!(!sn_lt(b, a) && !sn_lte(b, a));
            prop_assert_eq!(sn_distance(a, b), Some(step));
        }

        #[test]
        fn a_window_holds_its_numbers_alone(first: u32, size in 1u32..(1 << 20), at in 0u32..(1 << 21)) {
            let last = first.wrapping_add(size - 1);
            prop_assert_eq!(sn_in_window(first.wrapping_add(at), first, last), at < size);
        }
    }
}
